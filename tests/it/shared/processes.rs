//! Several `Sessions` with one store, each of which stands for a process.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use tokio::sync::{Notify, mpsc};
use tower_client_sessions::{
    Renewal, RenewalLayer, Session, Sessions,
    cookies::{CookieUrl, Jar, Timestamp},
    gate::{GateConfig, RenewalError, RenewalErrorKind},
    session::{SessionError, SessionErrorKind, SessionsBuilder},
    shared::{
        Commit, CommitOutcome, EncryptionKey, FencingToken, LeaseOutcome, MemoryStore, OnUnreachable, Owner,
        Record, RecordVersion, SharedStore, SharingConfig, StoreError, StoreErrorKind, StoreEvent,
        StoreFuture, UseGrant,
    },
};

use crate::support::*;

/// A process: sessions with the store, and a client of the site.
pub(super) struct Process {
    pub(super) sessions: Sessions,
    pub(super) client: Client,
}

impl Process {
    pub(super) fn new(site: &Site, sharing: impl Into<SharingConfig>) -> Self {
        Self::with(site, sharing, Sessions::builder().login_first(), |layer| layer)
    }

    pub(super) fn with(
        site: &Site,
        sharing: impl Into<SharingConfig>,
        builder: SessionsBuilder,
        change: impl FnOnce(RenewalLayer<Body>) -> RenewalLayer<Body>,
    ) -> Self {
        // The cookies' clock follows the paused clock.
        let (epoch, origin) = (std::time::SystemTime::now(), tokio::time::Instant::now());
        let sessions = builder.clock(move || epoch + origin.elapsed()).shared(sharing).build().unwrap();
        let client = client(&change(renewing(&sessions)), &sessions, site.clone());
        Self { sessions, client }
    }

    pub(super) async fn get(&self, path: &str) -> SiteResult {
        get(&self.client, "a", path).await
    }

    /// Fetches a page in a new task.
    pub(super) fn spawn(&self) -> tokio::task::JoinHandle<SiteResult> {
        let client = self.client.clone();
        tokio::spawn(async move { get(&client, "a", "/").await })
    }

    pub(super) fn session(&self) -> Session {
        self.sessions.session("a")
    }

    pub(super) fn sid(&self) -> Option<String> {
        self.session().cookies().first().and_then(|cookie| cookie.value().map(str::to_owned))
    }
}

/// Returns a jar with this session cookie of the site.
pub(super) fn jar_of(sid: &str) -> Jar {
    let mut jar = Jar::default();
    jar.add([("sid", sid)], &CookieUrl::parse("http://a/").unwrap(), Timestamp::now()).unwrap();
    jar
}

/// Waits until every process has polled the store.
pub(super) async fn a_poll_later() {
    tokio::time::sleep(Duration::from_secs(6)).await;
    settle().await;
}

#[track_caller]
pub(super) fn ok(result: SiteResult) {
    assert_eq!(result.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn many_processes_that_start_together_log_in_once() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let processes: Vec<_> = (0..8).map(|_| Process::new(&site, store.clone())).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for process in &processes {
        for number in 0..10 {
            let client = process.client.clone();
            tasks.spawn(async move { get(&client, "a", &format!("/{number}")).await });
        }
    }
    settle().await;
    assert_eq!(site.logins(), 1, "one process logs in, seven wait");
    site.end_logins(1);
    assert_eq!(good(tasks).await, 80);
    assert_eq!(site.logins(), 1);
    assert!(processes.iter().all(|process| process.sid() == processes[0].sid()));
}

#[tokio::test(start_paused = true)]
async fn hazard_46_an_expiry_that_all_processes_see_costs_one_login() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let processes: Vec<_> = (0..4).map(|_| Process::new(&site, store.clone())).collect();
    for process in &processes {
        ok(process.get("/").await);
    }
    for round in 2..=5 {
        site.expire("a");
        let mut tasks = tokio::task::JoinSet::new();
        for process in &processes {
            for number in 0..5 {
                let client = process.client.clone();
                tasks.spawn(async move { get(&client, "a", &format!("/{number}")).await });
            }
        }
        assert_eq!(good(tasks).await, 20);
        assert_eq!(site.logins(), round);
    }
    assert_eq!(site.max_concurrent_logins(), 1);
    let versions_adopted: u64 =
        processes.iter().map(|process| process.sessions.sharing_stats().unwrap().versions_adopted).sum();
    assert_eq!(versions_adopted, 5 * 3, "each of five logins is adopted by three processes");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_by_another_process_is_adopted_before_the_old_version_is_rejected() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    ok(one.get("/").await);
    settle().await;
    let before = site.pages_seen();
    ok(other.get("/").await);
    assert_eq!(site.pages_seen(), before + 1, "adopted by event: the old version was not sent");
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn polling_finds_a_new_version_within_the_interval() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    ok(other.get("/").await);
    assert_eq!(site.logins(), 1, "a new process loads the record before it logs in");
    site.expire("a");
    ok(one.get("/").await);
    settle().await;
    assert_ne!(one.sid(), other.sid());
    a_poll_later().await;
    assert_eq!(one.sid(), other.sid());
}

#[tokio::test(start_paused = true)]
async fn an_event_during_an_exchange_of_cookies_is_handled() {
    let (site, store) = (Site::new(), Tampered::pushing());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/?set=cart=full").await);
    // The process has loaded the record for its own cookies before the event arrives.
    let (reached, go_on) = store.hold_next(Op::Update);
    reached.notified().await;
    site.expire("a");
    ok(one.get("/").await);
    settle().await;
    go_on.notify_one();
    settle().await;
    assert_eq!(one.sid(), other.sid());
    let before = site.pages_seen();
    ok(other.get("/").await);
    assert_eq!(site.pages_seen(), before + 1, "the old version was not sent");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_is_notified_although_its_cookies_have_changed() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    site.end_logins(1);
    ok(one.get("/").await);
    for round in 0..5 {
        ok(other.get(&format!("/?set=round={round}")).await);
        site.expire("a");
        let renewing = spawn_pages(&one.client, "a", 1);
        settle().await;
        let waiting = spawn_pages(&other.client, "a", 1);
        a_poll_later().await;
        site.end_logins(1);
        let started = tokio::time::Instant::now();
        assert_eq!(good(renewing).await + good(waiting).await, 2);
        assert!(started.elapsed() < Duration::from_millis(50), "round {round}: {:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_47_the_record_is_read_again_under_the_lease_and_after_a_failure() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    // `one` renews between the first load of `other` and its lease.
    let (reached, go_on) = store.hold_next(Op::Lease);
    let late = other.spawn();
    reached.notified().await;
    ok(one.get("/").await);
    go_on.notify_one();
    ok(late.await.unwrap());
    assert_eq!(site.logins(), 2, "the version that was loaded under the lease is adopted");

    // A renewal that fails because another process has committed adopts that version.
    site.expire("a");
    let (reached, go_on) = store.hold_next(Op::MarkInProgress);
    let late = other.spawn();
    reached.notified().await;
    store.lose_leases();
    ok(one.get("/").await);
    let logins = site.logins();
    go_on.notify_one();
    ok(late.await.unwrap());
    assert_eq!(site.logins(), logins, "its lease was lost, and it adopts the winner");
}

#[tokio::test(start_paused = true)]
async fn hazard_48_a_late_commit_conflicts_and_its_process_adopts_the_winner() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    let (reached, go_on) = store.hold_next(Op::Commit);
    let late = one.spawn();
    reached.notified().await;
    store.lose_leases();
    ok(other.get("/").await);
    let winner = other.sid();
    go_on.notify_one();
    ok(late.await.unwrap());
    assert_eq!(one.sid(), winner);
    assert_eq!(one.sessions.sharing_stats().unwrap().conflicts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_a_response_is_recognised_as_its_own() {
    let (site, store) = (Site::new(), Tampered::silent());
    let one = Process::new(&site, store.clone());
    store.lose_next_responses(Op::Commit, 1);
    ok(one.get("/").await);
    let stats = one.sessions.sharing_stats().unwrap();
    assert_eq!((stats.commits, stats.conflicts, stats.failures), (1, 0, 1));
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_extended_during_a_slow_login() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let gate =
        || GateConfig::new().attempt_timeout(Duration::from_secs(600)).max_wait(Duration::from_secs(600));
    let process = || {
        Process::with(&site, store.clone(), Sessions::builder().login_first(), |layer| {
            layer.gate_config(gate())
        })
    };
    let (one, other) = (process(), process());
    let mut tasks = spawn_pages(&one.client, "a", 1);
    settle().await;
    tasks.spawn({
        let client = other.client.clone();
        async move { get(&client, "a", "/other").await }
    });
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(site.logins(), 1, "no other login starts for twelve lease TTLs");
    site.end_logins(1);
    assert_eq!(good(tasks).await, 2);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_dead_process_expires_and_the_next_renewal_follows_interrupted() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let interrupted = Arc::new(Mutex::new(Vec::new()));
    let rule = {
        let interrupted = interrupted.clone();
        move |renewal: Renewal<Body>| {
            interrupted.lock().unwrap().push(renewal.follows_interrupted());
            log_in(renewal)
        }
    };
    // The first process dies with its runtime, during its login.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn({
        let (site, store, rule) = (site.clone(), store.clone(), rule.clone());
        move || {
            runtime.block_on(async {
                let builder = Sessions::builder().login_first();
                let one = Process::with(&site, store, builder, |layer| layer.renew_with(rule));
                let waiting = get(&one.client, "a", "/");
                tokio::select! {
                    _ = waiting => panic!("the login is held"),
                    () = async { while site.logins() == 0 { tokio::task::yield_now().await } } => {}
                }
            });
        }
    })
    .join()
    .unwrap();
    assert_eq!(site.logins(), 1);
    let other =
        Process::with(&site, store, Sessions::builder().login_first(), |layer| layer.renew_with(rule));
    site.end_logins(1);
    ok(other.get("/").await);
    assert_eq!(*interrupted.lock().unwrap(), [false, true]);
    assert_eq!(site.max_concurrent_logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_clear_in_one_process_ends_the_session_in_all_permanently() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    site.end_logins(1);
    ok(one.get("/").await);
    ok(other.get("/").await);
    // One process clears the session while another renews it.
    let renewal = one.session().renew();
    settle().await;
    assert_eq!(site.logins(), 2);
    other.session().clear();
    settle().await;
    site.end_logins(1);
    // The result is not committed: the process logs in again after the clear.
    tokio::spawn({
        let site = site.clone();
        async move {
            settle().await;
            site.end_logins(1);
        }
    });
    let ended = renewal.await;
    assert!(ended.is_err() || site.logins() == 3, "{ended:?}");
    ok(other.get("/").await);
    settle().await;
    assert_eq!(one.sid().is_some(), one.session().generation().is_some());
    assert_eq!(other.sid().as_deref(), Some("a-3"), "not the login that ran during the clear");
}

#[tokio::test(start_paused = true)]
async fn a_clear_reaches_an_idle_process() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    ok(other.get("/").await);
    one.session().clear();
    settle().await;
    assert_eq!(other.session().generation(), None);
    assert_eq!(site.logins(), 1, "clear sends nothing");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_session_reaches_the_other_processes() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    ok(other.get("/").await);
    one.session().replace(jar_of("given"));
    settle().await;
    assert_eq!(other.sid().as_deref(), Some("given"));
}

#[tokio::test(start_paused = true)]
async fn data_is_shared_with_the_session() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let rule = |renewal: Renewal<Body>| async move {
        let count = renewal.session().data("logins").map_or(0, |count| count.parse().unwrap());
        log_in(renewal.clone()).await?;
        renewal.session().set_data("logins", (count + 1).to_string());
        Ok(())
    };
    let process = || {
        Process::with(&site, store.clone(), Sessions::builder().login_first(), |layer| layer.renew_with(rule))
    };
    let (one, other) = (process(), process());
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    ok(other.get("/").await);
    settle().await;
    assert_eq!(one.session().data("logins").as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn without_the_store_current_identities_work_and_renewals_fail() {
    let (site, store) = (Site::new(), Tampered::silent());
    let one = Process::new(&site, store.clone());
    ok(one.get("/").await);
    store.set_unreachable(true);
    for _ in 0..3 {
        ok(one.get("/").await);
    }
    site.expire("a");
    let failed = one.get("/").await.unwrap_err();
    let error = failed.downcast_ref::<RenewalError>().unwrap();
    assert_eq!(error.kind(), RenewalErrorKind::Failed);
    let cause = std::error::Error::source(error).unwrap().downcast_ref::<StoreError>().unwrap();
    assert_eq!(cause.kind(), StoreErrorKind::Unreachable);
    assert_eq!(site.logins(), 1, "no process logs in without the store");
    store.set_unreachable(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    ok(one.get("/").await);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_local_renewal_is_shared_when_the_store_is_back() {
    let (site, store) = (Site::new(), Tampered::silent());
    let alone = || SharingConfig::new(store.clone()).on_unreachable(OnUnreachable::RenewLocally);
    let (one, other) = (Process::new(&site, alone()), Process::new(&site, alone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    store.set_unreachable(true);
    site.expire("a");
    ok(one.get("/").await);
    assert_eq!(site.logins(), 2);
    store.set_unreachable(false);
    a_poll_later().await;
    a_poll_later().await;
    assert_eq!(one.sid(), other.sid());
    ok(other.get("/").await);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn hazard_50_the_wait_for_a_silent_store_is_bounded() {
    let (site, store) = (Site::new(), Tampered::silent());
    let one = Process::new(&site, store.clone());
    ok(one.get("/").await);
    site.expire("a");
    store.set_silent(true);
    let started = tokio::time::Instant::now();
    assert_eq!(kind(&one.get("/").await), RenewalErrorKind::Failed);
    // Five attempts, each with a timeout of two seconds, and their backoff.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    store.set_silent(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    ok(one.get("/").await);
}

#[tokio::test(start_paused = true)]
async fn stale_after_stops_requests_under_identities_that_may_be_out_of_date() {
    let (site, store) = (Site::new(), Tampered::silent());
    let sharing = SharingConfig::new(store.clone()).stale_after(Duration::from_secs(20));
    let one = Process::new(&site, sharing);
    ok(one.get("/").await);
    store.set_unreachable(true);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let before = site.pages_seen();
    assert!(one.get("/").await.is_err());
    assert_eq!(site.pages_seen(), before, "nothing was sent");
    store.set_unreachable(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    ok(one.get("/").await);
    assert_eq!(site.logins(), 1, "the session never expired, and is adopted again");
}

#[tokio::test(start_paused = true)]
async fn a_cleared_store_has_no_effect_until_the_session_ends() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    store.clear();
    a_poll_later().await;
    ok(one.get("/").await);
    ok(other.get("/").await);
    assert_eq!(site.logins(), 1);
    site.expire("a");
    ok(one.get("/").await);
    ok(other.get("/").await);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_use_limit_applies_to_the_whole_fleet() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let process = || {
        let sharing = SharingConfig::new(store.clone()).use_batch_size(7);
        Process::with(&site, sharing, Sessions::builder().login_first(), |layer| {
            // Taking a batch is an attempt too, and here all processes take theirs at the same
            // time.
            layer
                .max_uses(50)
                .gate_config(GateConfig::new().renewal_rate_limit(1000, Duration::from_secs(60)))
        })
    };
    let processes: Vec<_> = (0..3).map(|_| process()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for process in &processes {
        for number in 0..100 {
            let client = process.client.clone();
            tasks.spawn(async move { get(&client, "a", &format!("/{number}")).await });
        }
    }
    assert_eq!(good(tasks).await, 300);
    let mut by_sid = std::collections::BTreeMap::<_, u32>::new();
    for seen in site.seen().into_iter().filter(|seen| !seen.is_login()) {
        *by_sid.entry(seen.cookie).or_default() += 1;
    }
    assert!(by_sid.values().all(|uses| *uses <= 50), "{by_sid:?}");
    eprintln!("{by_sid:?}");
    // Unused batches cost at most one more login for each process.
    assert!((6..=9).contains(&site.logins()), "{}", site.logins());
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_an_error_with_its_key_and_is_not_overwritten() {
    for (payload, expected) in [
        (&b"not ours"[..], StoreErrorKind::Corrupt),
        (b"tcs9{}", StoreErrorKind::UnsupportedFormat),
        (b"tcs1{\"version\":1}", StoreErrorKind::Corrupt),
        (b"tcs2nonsense", StoreErrorKind::DecryptionFailed),
    ] {
        let (site, store) = (Site::new(), MemoryStore::new());
        let commit = Commit::new(Owner::random(), 0, 1, Bytes::copy_from_slice(payload));
        store.commit("a", commit).await.unwrap();
        let one = Process::new(&site, store.clone());
        let failed = one.get("/").await.unwrap_err();
        let error = failed.downcast_ref::<RenewalError>().unwrap();
        let cause = std::error::Error::source(error).unwrap().downcast_ref::<StoreError>().unwrap();
        assert_eq!((cause.kind(), cause.key()), (expected, Some("a")));
        assert!(cause.to_string().ends_with("(key \"a\")"), "{cause}");
        assert_eq!(site.logins(), 0);
        assert_eq!(store.load("a").await.unwrap().payload, payload);
    }
}

#[tokio::test(start_paused = true)]
async fn an_encrypted_record_is_read_only_with_its_key() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let encrypted = |byte| SharingConfig::new(store.clone()).encrypt_with(EncryptionKey::new(&[byte; 32]));
    let one = Process::new(&site, encrypted(1));
    ok(one.get("/").await);
    let payload = store.load("a").await.unwrap().payload;
    let shows = |text: &str| payload.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(!shows("a-1") && !shows("sid"), "no cookie is readable in the store");
    let other = Process::new(&site, encrypted(1));
    ok(other.get("/").await);
    assert_eq!(other.sid(), one.sid());
    for sharing in [encrypted(2), SharingConfig::new(store.clone())] {
        let stranger = Process::new(&site, sharing);
        let failed = stranger.get("/").await.unwrap_err();
        let source = std::error::Error::source(failed.downcast_ref::<RenewalError>().unwrap()).unwrap();
        assert_eq!(source.downcast_ref::<StoreError>().unwrap().kind(), StoreErrorKind::DecryptionFailed);
    }
    // A record that is moved to another key cannot be decrypted.
    let record = store.load("a").await.unwrap();
    let moved = Commit::new(Owner::random(), 0, 1, record.payload);
    store.commit("b", moved).await.unwrap();
    assert!(get(&one.client, "b", "/").await.is_err());
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shared_session_needs_a_renewal_layer() {
    let sessions = Sessions::builder().shared(MemoryStore::new()).build().unwrap();
    let layer = tower_client_sessions::SessionLayer::new(&sessions);
    let failed = get(&tower::Layer::layer(&layer, Site::new()), "a", "/").await.unwrap_err();
    let kind = failed.downcast_ref::<SessionError>().unwrap().kind();
    assert_eq!(kind, SessionErrorKind::SharedWithoutRenewal);
}

#[tokio::test(start_paused = true)]
async fn the_record_is_loaded_first_even_without_login_first() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let process = || Process::with(&site, store.clone(), Sessions::builder(), |layer| layer);
    let (one, other) = (process(), process());
    ok(one.get("/").await);
    assert_eq!((site.logins(), site.pages_seen()), (1, 2), "sent without a session, then logged in");
    ok(other.get("/").await);
    assert_eq!((site.logins(), site.pages_seen()), (1, 3), "the other process adopts");
}

#[tokio::test(start_paused = true)]
async fn an_explicit_renewal_is_sent_whatever_the_store_has() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    let login = Request::get("http://a/login").body(Body::default()).unwrap();
    ok(other.get("/").await);
    other.session().renew_with(login).await.unwrap();
    assert_eq!(site.logins(), 2);
    settle().await;
    assert_eq!(one.sid(), other.sid(), "all processes have the new version");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_registry_leaves_no_task_behind() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let one = Process::new(&site, store);
    ok(one.get("/").await);
    let metrics = tokio::runtime::Handle::current().metrics();
    assert!(metrics.num_alive_tasks() > 0, "the watcher runs");
    drop(one);
    a_poll_later().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
}

/// A store in memory with faults: delays, no connection, no responses, or lost leases.
#[derive(Clone, Debug)]
pub(super) struct Tampered {
    inner: MemoryStore,
    state: Arc<Mutex<Tampering>>,
}

#[derive(Debug, Default)]
struct Tampering {
    held: Option<(Op, Arc<Notify>, Arc<Notify>)>,
    lost: Vec<Op>,
    unreachable: bool,
    silent: bool,
    pushes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Load,
    Lease,
    MarkInProgress,
    Commit,
    Update,
    Other,
}

impl Tampered {
    /// A store that pushes no events.
    pub(super) fn silent() -> Self {
        Self { inner: MemoryStore::new(), state: Arc::default() }
    }

    /// A store that pushes events.
    pub(super) fn pushing() -> Self {
        let store = Self::silent();
        store.state.lock().unwrap().pushes = true;
        store
    }

    /// Holds the next request of this kind: notifies the first handle, and waits for the second.
    pub(super) fn hold_next(&self, op: Op) -> (Arc<Notify>, Arc<Notify>) {
        let (reached, go_on) = <(Arc<Notify>, Arc<Notify>)>::default();
        self.state.lock().unwrap().held = Some((op, reached.clone(), go_on.clone()));
        (reached, go_on)
    }

    /// Carries out the next requests of this kind, and loses their responses.
    pub(super) fn lose_next_responses(&self, op: Op, responses: usize) {
        self.state.lock().unwrap().lost = vec![op; responses];
    }

    pub(super) fn set_unreachable(&self, unreachable: bool) {
        self.state.lock().unwrap().unreachable = unreachable;
    }

    pub(super) fn set_silent(&self, silent: bool) {
        self.state.lock().unwrap().silent = silent;
    }

    /// Ends all leases, as if they had expired.
    pub(super) fn lose_leases(&self) {
        self.inner.expire_leases();
    }

    async fn tamper<'a, T>(&'a self, op: Op, request: StoreFuture<'a, T>) -> Result<T, StoreError> {
        let (held, unreachable, silent, lost) = {
            let mut state = self.state.lock().unwrap();
            let held = state.held.take_if(|held| held.0 == op);
            let lost = state.lost.pop_if(|lost| *lost == op);
            (held, state.unreachable, state.silent, lost)
        };
        if silent {
            std::future::pending::<()>().await;
        }
        if unreachable {
            return Err(StoreError::new(StoreErrorKind::Unreachable));
        }
        if let Some((_, reached, go_on)) = held {
            reached.notify_one();
            go_on.notified().await;
        }
        let response = request.await;
        if lost.is_some() { Err(StoreError::new(StoreErrorKind::Unreachable)) } else { response }
    }
}

impl SharedStore for Tampered {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Record> {
        Box::pin(self.tamper(Op::Load, self.inner.load(key)))
    }

    fn versions<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<RecordVersion>> {
        Box::pin(self.tamper(Op::Other, self.inner.versions(keys)))
    }

    fn lease<'a>(&'a self, key: &'a str, owner: Owner, ttl: Duration) -> StoreFuture<'a, LeaseOutcome> {
        // A server carries out what was sent, even if the response is no longer awaited.
        let (store, key) = (self.clone(), key.to_owned());
        let sent =
            tokio::spawn(async move { store.tamper(Op::Lease, store.inner.lease(&key, owner, ttl)).await });
        Box::pin(async move { sent.await.unwrap() })
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(self.tamper(Op::Other, self.inner.extend(key, owner, token, ttl)))
    }

    fn release<'a>(&'a self, key: &'a str, owner: Owner, token: FencingToken) -> StoreFuture<'a, ()> {
        Box::pin(self.tamper(Op::Other, self.inner.release(key, owner, token)))
    }

    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
    ) -> StoreFuture<'a, bool> {
        Box::pin(self.tamper(Op::MarkInProgress, self.inner.mark_in_progress(key, owner, token)))
    }

    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome> {
        // A server writes what was sent, even if the response is no longer awaited.
        let (store, key) = (self.clone(), key.to_owned());
        let sent =
            tokio::spawn(async move { store.tamper(Op::Commit, store.inner.commit(&key, commit)).await });
        Box::pin(async move { sent.await.expect("the task does not panic") })
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome> {
        Box::pin(self.tamper(Op::Update, self.inner.update(key, version, owner, payload)))
    }

    fn take_uses<'a>(
        &'a self,
        key: &'a str,
        version: u64,
        want: u64,
        limit: u64,
    ) -> StoreFuture<'a, UseGrant> {
        Box::pin(self.tamper(Op::Other, self.inner.take_uses(key, version, want, limit)))
    }

    fn watch<'a>(&'a self, changes: mpsc::Sender<StoreEvent>) -> StoreFuture<'a, ()> {
        if self.state.lock().unwrap().pushes {
            return self.inner.watch(changes);
        }
        // Pushes no events, and fails when the store is unreachable.
        Box::pin(async move {
            while !self.state.lock().unwrap().unreachable {
                tokio::select! {
                    () = changes.closed() => return Ok(()),
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
            Err(StoreError::new(StoreErrorKind::Unreachable))
        })
    }
}

#[test]
fn durations_that_are_zero_or_too_long_are_rejected() {
    let sharing = || SharingConfig::new(MemoryStore::new());
    for time in [Duration::ZERO, Duration::MAX] {
        for sharing in
            [sharing().lease_ttl(time), sharing().poll_interval(time), sharing().store_timeout(time)]
        {
            assert!(Sessions::builder().shared(sharing).build().is_err(), "{time:?}");
        }
    }
}
