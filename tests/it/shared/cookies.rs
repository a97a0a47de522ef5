//! Cookies that change within a version of a shared session.

use std::time::Duration;

use http::Request;
use tower::ServiceExt;
use tower_client_sessions::{
    SessionId,
    shared::{CookieSync, MemoryStore, SharingConfig},
};

use super::processes::{Op, Process, Tampered, a_poll_later, ok};
use crate::support::*;

/// Waits until a batch is written and other processes have it.
async fn a_batch_later() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
    settle().await;
}

/// The cookies of a process, without that of its login.
fn others(process: &Process) -> Vec<String> {
    let mut cookies: Vec<_> = process
        .session()
        .cookies()
        .iter()
        .filter(|cookie| cookie.name() != Some("sid"))
        .map(|cookie| format!("{}={}", cookie.name().unwrap(), cookie.value().unwrap()))
        .collect();
    cookies.sort();
    cookies
}

fn updates(process: &Process) -> u64 {
    process.sessions.sharing_stats().unwrap().updates
}

/// Two processes that share a current session.
async fn two(sharing: impl Fn() -> SharingConfig) -> (Site, Process, Process) {
    let site = Site::new();
    let (one, other) = (Process::new(&site, sharing()), Process::new(&site, sharing()));
    ok(one.get("/").await);
    ok(other.get("/").await);
    a_poll_later().await;
    (site, one, other)
}

#[tokio::test(start_paused = true)]
async fn cookies_that_responses_set_are_shared_in_one_batch() {
    let store = MemoryStore::new();
    let (site, one, other) = two(|| SharingConfig::new(store.clone())).await;
    let generation = one.session().generation();
    for number in 0..100 {
        ok(one.get(&format!("/?set=step={number}")).await);
    }
    ok(one.get("/?set=cart=full").await);
    assert!(others(&other).is_empty(), "no round trip for each response");
    a_batch_later().await;
    assert_eq!(others(&other), ["cart=full", "step=99"]);
    assert_eq!(updates(&one), 1);
    ok(other.get("/").await);
    let seen = site.seen().pop().unwrap().cookie.unwrap();
    assert!(seen.contains("cart=full"), "sent by the other process: {seen}");
    a_poll_later().await;
    assert_eq!((updates(&one), updates(&other)), (1, 0), "no process writes what is stored already");
    assert_eq!(one.session().generation(), generation, "it is still the same version");
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn cookies_that_the_program_sets_and_removes_are_shared() {
    let store = MemoryStore::new();
    let (_site, one, other) = two(|| SharingConfig::new(store.clone())).await;
    one.session().set_cookie("lang=de", "http://a/").unwrap();
    a_batch_later().await;
    assert_eq!(others(&other), ["lang=de"]);
    other.session().remove_cookie("a", "/", "lang").unwrap();
    a_batch_later().await;
    assert!(others(&one).is_empty());
    a_poll_later().await;
    assert!(others(&other).is_empty(), "the removed cookie stays removed");
}

#[tokio::test(start_paused = true)]
async fn changes_of_two_processes_are_merged_cookie_by_cookie() {
    let store = MemoryStore::new();
    let (_site, one, other) = two(|| SharingConfig::new(store.clone())).await;
    ok(one.get("/?set=mine=1").await);
    ok(one.get("/?set=both=early").await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    ok(other.get("/?set=theirs=1").await);
    ok(other.get("/?set=both=late").await);
    a_batch_later().await;
    a_poll_later().await;
    for process in [&one, &other] {
        assert_eq!(others(process), ["both=late", "mine=1", "theirs=1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_conflicts_is_merged_again() {
    let store = Tampered::silent();
    let (_site, one, other) = two(|| SharingConfig::new(store.clone())).await;
    let (reached, go_on) = store.hold_next(Op::Update);
    ok(one.get("/?set=mine=1").await);
    reached.notified().await;
    ok(other.get("/?set=theirs=1").await);
    a_batch_later().await;
    assert_eq!(updates(&other), 1);
    go_on.notify_one();
    a_poll_later().await;
    a_poll_later().await;
    for process in [&one, &other] {
        assert_eq!(others(process), ["mine=1", "theirs=1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_while_the_store_is_unreachable() {
    let store = Tampered::silent();
    let (_site, one, other) = two(|| SharingConfig::new(store.clone())).await;
    store.set_unreachable(true);
    ok(one.get("/?set=mine=1").await);
    a_batch_later().await;
    store.set_unreachable(false);
    a_poll_later().await;
    a_poll_later().await;
    assert_eq!(others(&other), ["mine=1"]);
}

#[tokio::test(start_paused = true)]
async fn cookies_of_an_ended_version_are_not_merged_into_the_next() {
    let store = MemoryStore::new();
    let (site, one, other) = two(|| SharingConfig::new(store.clone())).await;
    ok(one.get("/?set=old=1").await);
    site.expire("a");
    ok(other.get("/").await);
    a_batch_later().await;
    a_poll_later().await;
    assert!(others(&one).is_empty() && others(&other).is_empty());
    assert_eq!(one.sid(), other.sid());
}

#[tokio::test(start_paused = true)]
async fn a_cookie_that_is_added_during_an_adoption_is_shared() {
    let store = MemoryStore::new();
    let site = Site::held_logins();
    let (one, other) = (Process::new(&site, store.clone()), Process::new(&site, store.clone()));
    let tasks = spawn_pages(&one.client, "a", 1);
    settle().await;
    let waiting = spawn_pages(&other.client, "a", 1);
    settle().await;
    other.session().set_cookie("lang=de", "http://a/").unwrap();
    site.end_logins(1);
    assert_eq!(good(tasks).await + good(waiting).await, 2);
    assert_eq!(others(&other), ["lang=de"]);
    a_poll_later().await;
    assert_eq!(others(&one), ["lang=de"]);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn changes_stay_local_with_local_cookie_sync() {
    let store = MemoryStore::new();
    let (site, one, other) = two(|| SharingConfig::new(store.clone()).cookie_sync(CookieSync::Local)).await;
    ok(one.get("/?set=mine=1").await);
    a_batch_later().await;
    a_poll_later().await;
    assert!(others(&other).is_empty());
    assert_eq!(updates(&one), 0);
    site.expire("a");
    ok(other.get("/").await);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_renamed_is_shared_under_its_new_name() {
    let store = MemoryStore::new();
    let (site, one, other) = two(|| SharingConfig::new(store.clone())).await;
    one.session().rename("b").unwrap();
    settle().await;
    let theirs = other.sessions.session("b");
    assert_eq!(theirs.generation(), None, "not loaded yet");
    let request = Request::get("http://a/").extension(SessionId::from("b")).body(Body::default()).unwrap();
    assert_eq!(other.client.clone().oneshot(request).await.unwrap().status(), 200);
    let sid = theirs.cookies().first().and_then(|cookie| cookie.value().map(str::to_owned));
    assert_eq!(sid.as_deref(), Some("a-1"));
    ok(other.get("/").await);
    assert_eq!(site.logins(), 1);
}
