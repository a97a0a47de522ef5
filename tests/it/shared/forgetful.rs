//! Stores that forget what they had, and answers that do not come: what is not known counts as used up, and nobody is undone.

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

/// What each renewal was told about the one before.
type Interrupted = Arc<Mutex<Vec<bool>>>;

/// A process whose renewals note down whether the one before was interrupted.
fn process(site: &Site, sharing: impl Into<SharingConfig>, interrupted: &Interrupted) -> Process {
    let interrupted = interrupted.clone();
    let rule = move |renewal: Renewal<Body>| {
        interrupted.lock().unwrap().push(renewal.follows_interrupted());
        log_in(renewal)
    };
    Process::with(site, sharing, Sessions::builder().login_first(), |layer| layer.renew_with(rule))
}

/// Two processes with the session of one login, of which the first is in the middle of another one.
async fn one_that_renews(site: &Site, store: &MemoryStore) -> (Process, Process, JoinHandle<SiteResult>) {
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
async fn what_is_renewed_while_the_store_forgets_is_waited_for_and_shared() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let (one, other, renewing) = one_that_renews(&site, &store).await;
    store.clear();
    let waiting = other.spawn();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.logins(), 2, "nobody else begins, though there is no lease any more");
    site.end_logins(1);
    ok(renewing.await.unwrap());
    ok(waiting.await.unwrap());
    assert_eq!((site.logins(), site.max_concurrent_logins()), (2, 1));
    assert_eq!(one.sid(), other.sid());
}

#[tokio::test(start_paused = true)]
async fn nobody_renews_before_a_holder_that_was_forgotten_has_given_up() {
    let (site, store) = (Site::held_logins(), MemoryStore::new());
    let (_one, other, renewing) = one_that_renews(&site, &store).await;
    store.clear();
    let waiting = other.spawn();
    // The first finds that its lease is gone and ends its login; nothing is known of it to the store.
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
async fn what_came_with_a_forgotten_record_counts_as_used_up() {
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
async fn who_renews_alone_counts_what_came_from_the_store_as_used_up() {
    let (site, store, interrupted) = (Site::new(), Tampered::silent(), Interrupted::default());
    let alone = || SharingConfig::new(store.clone()).on_unreachable(OnUnreachable::RenewLocally);
    let one = process(&site, alone(), &interrupted);
    ok(one.get("/").await);
    store.go_away(true);
    site.expire("a");
    ok(one.get("/").await);
    assert_eq!(*interrupted.lock().unwrap(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn of_those_who_renewed_alone_the_first_to_tell_is_everybodys() {
    let (site, store) = (Site::new(), Tampered::silent());
    let alone = || SharingConfig::new(store.clone()).on_unreachable(OnUnreachable::RenewLocally);
    let processes: Vec<_> = (0..4).map(|_| Process::new(&site, alone())).collect();
    for process in &processes {
        ok(process.get("/").await);
    }
    store.go_away(true);
    for process in &processes {
        site.expire("a");
        ok(process.get("/").await);
    }
    store.go_away(false);
    a_poll_later().await;
    a_poll_later().await;
    assert!(processes.iter().all(|process| process.sid() == processes[0].sid()));
    let commits: u64 =
        processes.iter().map(|process| process.sessions.sharing_stats().unwrap().commits).sum();
    assert_eq!(commits, 2, "one before, and one of the four");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_committed_does_not_undo_what_others_have_committed_since() {
    let (site, store) = (Site::held_logins(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    site.end_logins(1);
    ok(one.get("/").await);
    ok(other.get("/").await);
    site.expire("a");
    let renewing = one.spawn();
    settle().await;
    store.go_away(true);
    site.end_logins(1);
    ok(renewing.await.unwrap());
    assert_eq!(site.logins(), 2, "it serves what it could not share");
    store.go_away(false);
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
async fn a_commit_that_arrives_after_its_answer_was_given_up_is_its_own() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    for _ in 0..3 {
        store.lose_next_answers(Op::Commit, 3);
        ok(one.get("/").await);
        ok(other.get("/").await);
        site.expire("a");
    }
    a_poll_later().await;
    assert_eq!((site.logins(), site.pages_seen()), (3, 10), "each end is seen once by each");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_being_used_up_while_the_session_is_cleared_is_not_used_again() {
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
    // And what was got meanwhile is used by whoever comes next, though it never had that version.
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
async fn a_lease_whose_answer_came_too_late_keeps_nobody_waiting() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    let (reached, go_on) = store.hold_next(Op::Lease);
    let late = one.spawn();
    reached.notified().await;
    one.session().clear();
    go_on.notify_one();
    settle().await;
    let begun = tokio::time::Instant::now();
    ok(other.get("/").await);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    ok(late.await.unwrap());
    // The same where the answer comes after the store's deadline.
    site.expire("a");
    let (reached, go_on) = store.hold_next(Op::Lease);
    let late = one.spawn();
    reached.notified().await;
    tokio::time::sleep(Duration::from_millis(2001)).await;
    go_on.notify_one();
    settle().await;
    let begun = tokio::time::Instant::now();
    ok(other.get("/").await);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    ok(late.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_while_the_store_is_being_told_is_told_as_well() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    let give = |sid: &str| one.session().replace(jar_of(sid));
    let (reached, go_on) = store.hold_next(Op::Commit);
    give("early");
    reached.notified().await;
    give("late");
    go_on.notify_one();
    a_poll_later().await;
    a_poll_later().await;
    assert_eq!(other.sid().as_deref(), Some("late"));
    // A clear that comes before the store was looked at.
    let (reached, go_on) = store.hold_next(Op::Load);
    give("never");
    reached.notified().await;
    one.session().clear();
    go_on.notify_one();
    a_poll_later().await;
    assert!(store.load("a").await.unwrap().version.ended);
}

#[tokio::test(start_paused = true)]
async fn a_clear_is_told_though_the_session_is_forgotten_here_before_the_store_is_back() {
    let (site, store) = (Site::new(), Tampered::silent());
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    store.go_away(true);
    one.session().clear();
    settle().await;
    one.sessions.remove("a");
    store.go_away(false);
    a_poll_later().await;
    a_poll_later().await;
    assert!(store.load("a").await.unwrap().version.ended);
    assert_eq!(other.session().generation(), None);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_given_up_and_is_written_does_not_pass_for_the_clear_that_came_after_it() {
    let (site, store) = (Site::new(), Tampered::silent());
    let one = Process::new(&site, store.clone());
    ok(one.get("/").await);
    site.expire("a");
    let (renewed, write) = store.hold_next(Op::Commit);
    let renewing = one.session().renew();
    renewed.notified().await;
    let (cleared, end) = store.hold_next(Op::Commit);
    one.session().clear();
    cleared.notified().await;
    write.notify_one();
    settle().await;
    assert!(!store.load("a").await.unwrap().version.ended);
    end.notify_one();
    a_poll_later().await;
    assert!(store.load("a").await.unwrap().version.ended);
    drop(renewing);
}
