//! Stores that lose records, and responses that are lost: unknown data counts as used up, and no
//! commit is overwritten.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinHandle;
use tower_client_sessions::{
    Renewal, Sessions,
    shared::{MemoryStore, OnUnreachable, SharedStore, SharingConfig},
};

use super::processes::{Op, Process, Tampered, a_poll_later, jar_of, ok};
use crate::support::*;

/// Whether each renewal followed an interrupted one.
type Interrupted = Arc<Mutex<Vec<bool>>>;

/// A process whose renewals record whether they follow an interrupted one.
fn process(site: &Site, sharing: impl Into<SharingConfig>, interrupted: &Interrupted) -> Process {
    let interrupted = interrupted.clone();
    let rule = move |renewal: Renewal<Body>| {
        interrupted.lock().unwrap().push(renewal.follows_interrupted());
        log_in(renewal)
    };
    Process::with(site, sharing, Sessions::builder().login_first(), |layer| layer.renew_with(rule))
}

/// Two processes that share a session; the first one is renewing it.
async fn renewing_process(site: &Site, store: &MemoryStore) -> (Process, Process, JoinHandle<SiteResult>) {
    let (one, other) = (Process::new(site, store.clone()), Process::new(site, store.clone()));
    site.end_logins(1);
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    let renewing = one.spawn();
    settle().await;
    assert_eq!(site.logins(), 2);
    (one, other, renewing)
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_shared_though_the_store_loses_its_record_meanwhile() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let (one, other, renewing) = renewing_process(&site, &store).await;
    store.clear();
    let waiting = other.spawn();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.logins(), 2, "no other login starts, although the lease is lost");
    site.end_logins(1);
    ok(renewing.await.unwrap());
    ok(waiting.await.unwrap());
    assert_eq!((site.logins(), site.max_concurrent_logins()), (2, 1));
    assert_eq!(one.sid(), other.sid());
}

#[tokio::test(start_paused = true)]
async fn no_process_renews_before_the_holder_of_a_lost_lease_has_stopped() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let (_one, other, renewing) = renewing_process(&site, &store).await;
    store.clear();
    let waiting = other.spawn();
    // The first process finds that its lease is lost and drops its login; the store knows nothing
    // of it.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(site.logins(), 2);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(site.logins(), 3);
    site.end_logins(1);
    ok(renewing.await.unwrap());
    ok(waiting.await.unwrap());
    assert_eq!((site.logins(), site.max_concurrent_logins()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn data_of_a_lost_record_counts_as_used_up() {
    let (site, store, interrupted) = (Site::new(), MemoryStore::new(), Interrupted::default());
    let (one, other) =
        (process(&site, store.clone(), &interrupted), process(&site, store.clone(), &interrupted));
    ok(one.get("/").await);
    ok(other.get("/").await);
    store.clear();
    site.expire("a");
    ok(other.get("/").await);
    ok(one.get("/").await);
    site.expire("a");
    ok(one.get("/").await);
    assert_eq!(*interrupted.lock().unwrap(), [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_local_renewal_treats_the_stored_data_as_used_up() {
    let (site, store, interrupted) = (Site::new(), Tampered::silent(), Interrupted::default());
    let alone = || SharingConfig::new(store.clone()).on_unreachable(OnUnreachable::RenewLocally);
    let one = process(&site, alone(), &interrupted);
    ok(one.get("/").await);
    store.set_unreachable(true);
    site.expire("a");
    ok(one.get("/").await);
    assert_eq!(*interrupted.lock().unwrap(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn the_first_of_several_local_renewals_to_commit_is_adopted_by_all() {
    let (site, store) = (Site::new(), Tampered::silent());
    let alone = || SharingConfig::new(store.clone()).on_unreachable(OnUnreachable::RenewLocally);
    let processes: Vec<_> = (0..4).map(|_| Process::new(&site, alone())).collect();
    for process in &processes {
        ok(process.get("/").await);
    }
    store.set_unreachable(true);
    for process in &processes {
        site.expire("a");
        ok(process.get("/").await);
    }
    store.set_unreachable(false);
    a_poll_later().await;
    a_poll_later().await;
    assert!(processes.iter().all(|process| process.sid() == processes[0].sid()));
    let commits: u64 =
        processes.iter().map(|process| process.sessions.sharing_stats().unwrap().commits).sum();
    assert_eq!(commits, 2, "the first login, and one of the four local renewals");
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_does_not_replace_a_newer_version() {
    let (site, store) = (Site::held_logins(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    site.end_logins(1);
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    let renewing = one.spawn();
    settle().await;
    store.set_unreachable(true);
    site.end_logins(1);
    ok(renewing.await.unwrap());
    assert_eq!(site.logins(), 2, "the process uses the login that it could not share");
    store.set_unreachable(false);
    store.lose_leases();
    site.expire("a");
    site.end_logins(1);
    ok(other.get("/").await);
    let sid = other.sid();
    a_poll_later().await;
    assert_eq!((one.sid(), other.sid()), (sid.clone(), sid));
    ok(one.get("/").await);
    assert_eq!(site.logins(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_written_after_its_timeout_is_recognised_as_its_own() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    for _ in 0..3 {
        store.lose_next_responses(Op::Commit, 3);
        ok(one.get("/").await);
        ok(other.get("/").await);
        site.expire("a");
    }
    a_poll_later().await;
    assert_eq!((site.logins(), site.pages_seen()), (3, 10), "each process sees each expiry once");
}

#[tokio::test(start_paused = true)]
async fn a_token_in_use_when_the_session_is_cleared_is_not_used_again() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let rule = {
        let tokens = tokens.clone();
        move |renewal: Renewal<Body>| {
            let token = renewal.session().data("token").filter(|_| !renewal.follows_interrupted());
            tokens.lock().unwrap().extend(token);
            async move {
                log_in(renewal.clone()).await?;
                let cookies = renewal.cookies();
                renewal.session().set_data("token", cookies[0].value().unwrap());
                Ok(())
            }
        }
    };
    let process = || {
        let rule = rule.clone();
        Process::with(&site, store.clone(), Sessions::builder().login_first(), |layer| layer.renew_with(rule))
    };
    let (one, other) = (process(), process());
    site.end_logins(1);
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    let renewing = one.spawn();
    settle().await;
    assert_eq!(*tokens.lock().unwrap(), ["a-1"]);
    other.session().clear();
    settle().await;
    let waiting = other.spawn();
    site.end_logins(3);
    ok(renewing.await.unwrap());
    ok(waiting.await.unwrap());
    // The new token is used by the next renewal, although that process never had its version.
    site.expire("a");
    one.session().clear();
    settle().await;
    site.end_logins(1);
    ok(other.get("/").await);
    let tokens = tokens.lock().unwrap();
    let mut distinct = tokens.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), tokens.len(), "{tokens:?}");
    assert!(tokens.len() > 1, "{tokens:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_granted_too_late_is_released() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    let (reached, go_on) = store.hold_next(Op::Lease);
    let late = one.spawn();
    reached.notified().await;
    one.session().clear();
    go_on.notify_one();
    settle().await;
    let started = tokio::time::Instant::now();
    ok(other.get("/").await);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    ok(late.await.unwrap());
    // The same with a response after the store timeout.
    site.expire("a");
    let (reached, go_on) = store.hold_next(Op::Lease);
    let late = one.spawn();
    reached.notified().await;
    tokio::time::sleep(Duration::from_millis(2001)).await;
    go_on.notify_one();
    settle().await;
    let started = tokio::time::Instant::now();
    ok(other.get("/").await);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    ok(late.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_change_during_a_write_is_written_as_well() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    let set = |sid: &str| one.session().replace(jar_of(sid));
    let (reached, go_on) = store.hold_next(Op::Commit);
    set("early");
    reached.notified().await;
    set("late");
    go_on.notify_one();
    a_poll_later().await;
    a_poll_later().await;
    assert_eq!(other.sid().as_deref(), Some("late"));
    // A clear before the record is loaded.
    let (reached, go_on) = store.hold_next(Op::Load);
    set("never");
    reached.notified().await;
    one.session().clear();
    go_on.notify_one();
    a_poll_later().await;
    assert!(store.load("a").await.unwrap().version.ended);
}

#[tokio::test(start_paused = true)]
async fn a_clear_is_written_although_the_session_is_removed_before_the_store_is_back() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    store.set_unreachable(true);
    one.session().clear();
    settle().await;
    one.sessions.remove("a");
    store.set_unreachable(false);
    a_poll_later().await;
    a_poll_later().await;
    assert!(store.load("a").await.unwrap().version.ended);
    assert_eq!(other.session().generation(), None);
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_is_not_mistaken_for_a_clear_after_it() {
    let (site, store) = (Site::new(), Tampered::silent());
    let one = Process::new(&site, store.clone());
    ok(one.get("/").await);
    site.expire("a");
    let (renewed, proceed) = store.hold_next(Op::Commit);
    let renewing = one.session().renew();
    renewed.notified().await;
    let (cleared, end) = store.hold_next(Op::Commit);
    one.session().clear();
    cleared.notified().await;
    proceed.notify_one();
    settle().await;
    assert!(!store.load("a").await.unwrap().version.ended);
    end.notify_one();
    a_poll_later().await;
    assert!(store.load("a").await.unwrap().version.ended);
    drop(renewing);
}
