//! Two or more `Sessions` on one store, each as a process of its own would have them.

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

/// One process: sessions on the store, and a client of the site.
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
        // Cookies change by the paused clock, too.
        let (epoch, origin) = (std::time::SystemTime::now(), tokio::time::Instant::now());
        let sessions = builder.clock(move || epoch + origin.elapsed()).shared(sharing).build().unwrap();
        let client = client(&change(renewing(&sessions)), &sessions, site.clone());
        Self { sessions, client }
    }

    pub(super) async fn get(&self, path: &str) -> SiteResult {
        get(&self.client, "a", path).await
    }

    /// A page, got by a task of its own.
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

/// A jar with this session of the site.
pub(super) fn jar_of(sid: &str) -> Jar {
    let mut jar = Jar::default();
    jar.add([("sid", sid)], &CookieUrl::parse("http://a/").unwrap(), Timestamp::now()).unwrap();
    jar
}

/// Lets time pass until whoever polls has polled.
pub(super) async fn a_poll_later() {
    tokio::time::sleep(Duration::from_secs(6)).await;
    settle().await;
}

#[track_caller]
pub(super) fn ok(answer: SiteResult) {
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn many_processes_that_begin_at_once_log_in_once() {
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
    assert_eq!(site.logins(), 1, "one logs in, seven wait");
    site.end_logins(1);
    assert_eq!(good(tasks).await, 80);
    assert_eq!(site.logins(), 1);
    assert!(processes.iter().all(|process| process.sid() == processes[0].sid()));
}

#[tokio::test(start_paused = true)]
async fn hazard_46_an_expiry_that_all_see_costs_one_login_and_the_losers_adopt() {
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
    assert_eq!(versions_adopted, 5 * 3, "each of five logins is adopted by the three others");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_another_process_renewed_is_adopted_before_it_is_refused() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    ok(one.get("/").await);
    settle().await;
    let before = site.pages_seen();
    ok(other.get("/").await);
    assert_eq!(site.pages_seen(), before + 1, "it was told, and did not try the old one");
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_told_is_found_by_polling_within_the_bound() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    ok(other.get("/").await);
    assert_eq!(site.logins(), 1, "a process that has nothing looks before it logs in");
    site.expire("a");
    ok(one.get("/").await);
    settle().await;
    assert_ne!(one.sid(), other.sid());
    a_poll_later().await;
    assert_eq!(one.sid(), other.sid());
}

#[tokio::test(start_paused = true)]
async fn news_reach_a_process_that_is_busy_with_something_else() {
    let (site, store) = (Site::new(), Tampered::telling());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/?set=cart=full").await);
    // It has looked at the store for its own changes before the news comes.
    let (reached, go_on) = store.hold_next(Op::Amend);
    reached.notified().await;
    site.expire("a");
    ok(one.get("/").await);
    settle().await;
    go_on.notify_one();
    settle().await;
    assert_eq!(one.sid(), other.sid());
    let before = site.pages_seen();
    ok(other.get("/").await);
    assert_eq!(site.pages_seen(), before + 1, "it did not try the old one");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_news_is_told_though_it_has_something_to_tell() {
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
        let begun = tokio::time::Instant::now();
        assert_eq!(good(renewing).await + good(waiting).await, 2);
        assert!(begun.elapsed() < Duration::from_millis(50), "round {round}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_47_the_record_is_read_again_under_the_lease_and_after_a_failure() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    // Between the first look of `other` and its lease, `one` has renewed.
    let (reached, go_on) = store.hold_next(Op::Lease);
    let late = other.spawn();
    reached.notified().await;
    ok(one.get("/").await);
    go_on.notify_one();
    ok(late.await.unwrap());
    assert_eq!(site.logins(), 2, "what was found under the lease is adopted");

    // A login that fails because another process has made one is no failure.
    site.expire("a");
    let (reached, go_on) = store.hold_next(Op::Begin);
    let late = other.spawn();
    reached.notified().await;
    store.lose_leases();
    ok(one.get("/").await);
    let logins = site.logins();
    go_on.notify_one();
    ok(late.await.unwrap());
    assert_eq!(site.logins(), logins, "its lease was lost, and it found what the winner has");
}

#[tokio::test(start_paused = true)]
async fn hazard_48_what_a_late_holder_brings_is_refused_and_it_adopts_the_winners() {
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
async fn a_commit_whose_answer_is_lost_is_found_to_be_its_own() {
    let (site, store) = (Site::new(), Tampered::silent());
    let one = Process::new(&site, store.clone());
    store.lose_next_answers(Op::Commit, 1);
    ok(one.get("/").await);
    let stats = one.sessions.sharing_stats().unwrap();
    assert_eq!((stats.commits, stats.conflicts, stats.failures), (1, 0, 1));
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_extended_while_the_login_takes_its_time() {
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
    assert_eq!(site.logins(), 1, "twelve leases long, nobody else begins");
    site.end_logins(1);
    assert_eq!(good(tasks).await, 2);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_process_that_is_gone_runs_out_and_the_next_one_knows() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let interrupted = Arc::new(Mutex::new(Vec::new()));
    let rule = {
        let interrupted = interrupted.clone();
        move |renewal: Renewal<Body>| {
            interrupted.lock().unwrap().push(renewal.follows_interrupted());
            log_in(renewal)
        }
    };
    // The first process dies with its runtime, in the middle of its login.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn({
        let (site, store, rule) = (site.clone(), store.clone(), rule.clone());
        move || {
            runtime.block_on(async {
                let builder = Sessions::builder().login_first();
                let one = Process::with(&site, store, builder, |layer| layer.renew_with(rule));
                let waits = get(&one.client, "a", "/");
                tokio::select! {
                    _ = waits => panic!("logins are held"),
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
async fn what_was_cleared_in_one_process_ends_in_all_and_is_not_brought_back() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    site.end_logins(1);
    ok(one.get("/").await);
    ok(other.get("/").await);
    // A renewal is on its way in one process when the other clears the session.
    let renewal = one.session().renew();
    settle().await;
    assert_eq!(site.logins(), 2);
    other.session().clear();
    settle().await;
    site.end_logins(1);
    // Its result is not committed: it logs in again, after the clear.
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
    assert_eq!(other.sid().as_deref(), Some("a-3"), "not the one that was on its way when it was cleared");
}

#[tokio::test(start_paused = true)]
async fn clear_reaches_a_process_that_sends_nothing_at_the_time() {
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
async fn a_session_given_from_outside_reaches_the_others() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    ok(other.get("/").await);
    one.session().replace(jar_of("given"));
    settle().await;
    assert_eq!(other.sid().as_deref(), Some("given"));
}

#[tokio::test(start_paused = true)]
async fn data_travels_with_the_session() {
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
async fn while_the_store_is_away_what_is_current_serves_and_renewals_wait_for_it() {
    let (site, store) = (Site::new(), Tampered::silent());
    let one = Process::new(&site, store.clone());
    ok(one.get("/").await);
    store.go_away(true);
    for _ in 0..3 {
        ok(one.get("/").await);
    }
    site.expire("a");
    let refused = one.get("/").await.unwrap_err();
    let error = refused.downcast_ref::<RenewalError>().unwrap();
    assert_eq!(error.kind(), RenewalErrorKind::Failed);
    let cause = std::error::Error::source(error).unwrap().downcast_ref::<StoreError>().unwrap();
    assert_eq!(cause.kind(), StoreErrorKind::Unreachable);
    assert_eq!(site.logins(), 1, "nobody logs in without the store");
    store.go_away(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    ok(one.get("/").await);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_may_renew_alone_shares_what_it_has_when_the_store_is_back() {
    let (site, store) = (Site::new(), Tampered::silent());
    let alone = || SharingConfig::new(store.clone()).on_unreachable(OnUnreachable::RenewLocally);
    let (one, other) = (Process::new(&site, alone()), Process::new(&site, alone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    store.go_away(true);
    site.expire("a");
    ok(one.get("/").await);
    assert_eq!(site.logins(), 2);
    store.go_away(false);
    a_poll_later().await;
    a_poll_later().await;
    assert_eq!(one.sid(), other.sid());
    ok(other.get("/").await);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn hazard_50_a_store_that_never_answers_is_waited_for_with_a_bound() {
    let (site, store) = (Site::new(), Tampered::silent());
    let one = Process::new(&site, store.clone());
    ok(one.get("/").await);
    site.expire("a");
    store.be_silent(true);
    let begun = tokio::time::Instant::now();
    assert_eq!(kind(&one.get("/").await), RenewalErrorKind::Failed);
    // Five attempts, each with a look of two seconds, and their pauses.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    store.be_silent(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    ok(one.get("/").await);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_out_of_date_is_not_sent_where_that_was_said() {
    let (site, store) = (Site::new(), Tampered::silent());
    let sharing = SharingConfig::new(store.clone()).stale_after(Duration::from_secs(20));
    let one = Process::new(&site, sharing);
    ok(one.get("/").await);
    store.go_away(true);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let before = site.pages_seen();
    assert!(one.get("/").await.is_err());
    assert_eq!(site.pages_seen(), before, "nothing was sent");
    store.go_away(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    ok(one.get("/").await);
    assert_eq!(site.logins(), 1, "the session was good all the time, and is adopted again");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_flushed_costs_nothing_until_the_session_ends() {
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
async fn a_limit_of_uses_holds_for_the_whole_fleet() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let process = || {
        let sharing = SharingConfig::new(store.clone()).use_batch_size(7);
        Process::with(&site, sharing, Sessions::builder().login_first(), |layer| {
            // Looking for more uses is an attempt too, and here all ask in one moment.
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
    // Blocks that were taken and not used cost at most one login more for each process.
    assert!((6..=9).contains(&site.logins()), "{}", site.logins());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_or_foreign_record_is_refused_with_its_key_and_left_alone() {
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
        let refused = one.get("/").await.unwrap_err();
        let error = refused.downcast_ref::<RenewalError>().unwrap();
        let cause = std::error::Error::source(error).unwrap().downcast_ref::<StoreError>().unwrap();
        assert_eq!((cause.kind(), cause.key()), (expected, Some("a")));
        assert!(cause.to_string().ends_with("(key \"a\")"), "{cause}");
        assert_eq!(site.logins(), 0);
        assert_eq!(store.load("a").await.unwrap().payload, payload);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sealed_is_read_by_the_key_alone() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let sealed = |byte| SharingConfig::new(store.clone()).encrypt_with(EncryptionKey::new(&[byte; 32]));
    let one = Process::new(&site, sealed(1));
    ok(one.get("/").await);
    let payload = store.load("a").await.unwrap().payload;
    let shows = |text: &str| payload.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(!shows("a-1") && !shows("sid"), "no cookie is readable in the store");
    let other = Process::new(&site, sealed(1));
    ok(other.get("/").await);
    assert_eq!(other.sid(), one.sid());
    for sharing in [sealed(2), SharingConfig::new(store.clone())] {
        let stranger = Process::new(&site, sharing);
        let refused = stranger.get("/").await.unwrap_err();
        let source = std::error::Error::source(refused.downcast_ref::<RenewalError>().unwrap()).unwrap();
        assert_eq!(source.downcast_ref::<StoreError>().unwrap().kind(), StoreErrorKind::DecryptionFailed);
    }
    // A record in another's place does not open either.
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
    let refused = get(&tower::Layer::layer(&layer, Site::new()), "a", "/").await.unwrap_err();
    let kind = refused.downcast_ref::<SessionError>().unwrap().kind();
    assert_eq!(kind, SessionErrorKind::SharedWithoutRenewal);
}

#[tokio::test(start_paused = true)]
async fn without_a_login_first_the_store_is_looked_at_first_all_the_same() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let process = || Process::with(&site, store.clone(), Sessions::builder(), |layer| layer);
    let (one, other) = (process(), process());
    ok(one.get("/").await);
    assert_eq!((site.logins(), site.pages_seen()), (1, 2), "tried without a session, then logged in");
    ok(other.get("/").await);
    assert_eq!((site.logins(), site.pages_seen()), (1, 3), "the other found one");
}

#[tokio::test(start_paused = true)]
async fn renew_with_is_sent_whatever_others_have() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store));
    ok(one.get("/").await);
    let login = Request::get("http://a/login").body(Body::default()).unwrap();
    ok(other.get("/").await);
    other.session().renew_with(login).await.unwrap();
    assert_eq!(site.logins(), 2);
    settle().await;
    assert_eq!(one.sid(), other.sid(), "and is everybody's");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_gone_leaves_no_task_behind() {
    let (site, store) = (Site::new(), MemoryStore::new());
    let one = Process::new(&site, store);
    ok(one.get("/").await);
    let metrics = tokio::runtime::Handle::current().metrics();
    assert!(metrics.num_alive_tasks() > 0, "somebody looks out for news");
    drop(one);
    a_poll_later().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
}

/// A store in memory that is late, away, silent, or without a lease, when a test says so.
#[derive(Clone, Debug)]
pub(super) struct Tampered {
    inner: MemoryStore,
    state: Arc<Mutex<Tampering>>,
}

#[derive(Debug, Default)]
struct Tampering {
    held: Option<(Op, Arc<Notify>, Arc<Notify>)>,
    lost: Vec<Op>,
    away: bool,
    silent: bool,
    tells: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Load,
    Lease,
    Begin,
    Commit,
    Amend,
    Other,
}

impl Tampered {
    /// One that tells of no changes.
    pub(super) fn silent() -> Self {
        Self { inner: MemoryStore::new(), state: Arc::default() }
    }

    /// One that tells of changes at once.
    pub(super) fn telling() -> Self {
        let store = Self::silent();
        store.state.lock().unwrap().tells = true;
        store
    }

    /// Holds the next request of this kind: tells when it is there, and waits to be told.
    pub(super) fn hold_next(&self, op: Op) -> (Arc<Notify>, Arc<Notify>) {
        let (reached, go_on) = <(Arc<Notify>, Arc<Notify>)>::default();
        self.state.lock().unwrap().held = Some((op, reached.clone(), go_on.clone()));
        (reached, go_on)
    }

    /// Does what the next requests of this kind ask for, and answers that it cannot be reached.
    pub(super) fn lose_next_answers(&self, op: Op, answers: usize) {
        self.state.lock().unwrap().lost = vec![op; answers];
    }

    pub(super) fn go_away(&self, away: bool) {
        self.state.lock().unwrap().away = away;
    }

    pub(super) fn be_silent(&self, silent: bool) {
        self.state.lock().unwrap().silent = silent;
    }

    /// Ends all leases, as if their time were over.
    pub(super) fn lose_leases(&self) {
        self.inner.expire_leases();
    }

    async fn tamper<'a, T>(&'a self, op: Op, request: StoreFuture<'a, T>) -> Result<T, StoreError> {
        let (held, away, silent, lost) = {
            let mut state = self.state.lock().unwrap();
            let held = state.held.take_if(|held| held.0 == op);
            let lost = state.lost.pop_if(|lost| *lost == op);
            (held, state.away, state.silent, lost)
        };
        if silent {
            std::future::pending::<()>().await;
        }
        if away {
            return Err(StoreError::new(StoreErrorKind::Unreachable));
        }
        if let Some((_, reached, go_on)) = held {
            reached.notify_one();
            go_on.notified().await;
        }
        let answer = request.await;
        if lost.is_some() { Err(StoreError::new(StoreErrorKind::Unreachable)) } else { answer }
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
        // A server does what it was sent, whether or not somebody waits for its answer.
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
        Box::pin(self.tamper(Op::Begin, self.inner.mark_in_progress(key, owner, token)))
    }

    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome> {
        // What was sent is written, also if nobody waits for it any more.
        let (store, key) = (self.clone(), key.to_owned());
        let sent =
            tokio::spawn(async move { store.tamper(Op::Commit, store.inner.commit(&key, commit)).await });
        Box::pin(async move { sent.await.expect("it does not panic") })
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome> {
        Box::pin(self.tamper(Op::Amend, self.inner.update(key, version, owner, payload)))
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
        if self.state.lock().unwrap().tells {
            return self.inner.watch(changes);
        }
        // Tells nothing, and ends when the store goes away.
        Box::pin(async move {
            while !self.state.lock().unwrap().away {
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
fn times_that_cannot_be_added_to_a_moment_are_refused() {
    let sharing = || SharingConfig::new(MemoryStore::new());
    for time in [Duration::ZERO, Duration::MAX] {
        for sharing in
            [sharing().lease_ttl(time), sharing().poll_interval(time), sharing().store_timeout(time)]
        {
            assert!(Sessions::builder().shared(sharing).build().is_err(), "{time:?}");
        }
    }
}
