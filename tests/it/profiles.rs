//! Which profile a session gets, and which requests wait for one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_client_sessions::{
    Identity, Profile, ProfileLayer, Profiles, SessionLayer, Sessions,
    profile::{OnExhausted, ProfileStrategy},
    session::{SessionError, SessionErrorKind},
};

use crate::support::{Body, good, log_in, page, ruleless, settle, spawn_pages};

/// Responds with the name of the profile under which a request was sent.
type Client = BoxCloneSyncService<Request<Body>, Response<String>, BoxError>;

fn profiles(names: &[&str]) -> Profiles {
    let profile = |name: &&str| Profile::builder().name(*name).user_agent(*name).build().unwrap();
    Profiles::new(names.iter().map(profile)).unwrap()
}

fn sessions(profiles: Profiles) -> Sessions {
    Sessions::builder().profiles(profiles).build().unwrap()
}

/// A site where every request to `/blocked` waits for a permit.
fn client(sessions: &Sessions, blocked: &Arc<Semaphore>) -> Client {
    let blocked = blocked.clone();
    let site = service_fn(move |request: Request<Body>| {
        let blocked = blocked.clone();
        async move {
            if request.uri().path() == "/blocked" {
                blocked.acquire().await?.forget();
            }
            Ok::<_, BoxError>(Response::new(request.headers()["user-agent"].to_str()?.to_owned()))
        }
    });
    let stack =
        ServiceBuilder::new().layer(SessionLayer::new(sessions)).layer(ProfileLayer::new()).service(site);
    BoxCloneSyncService::new(stack)
}

fn simple(sessions: &Sessions) -> Client {
    client(sessions, &Arc::new(Semaphore::new(0)))
}

async fn get(client: &Client, session: &str) -> Result<String, BoxError> {
    client.clone().oneshot(page(session, "/")).await.map(Response::into_body)
}

fn spawn(client: &Client, session: &str, path: &str) -> JoinHandle<Result<String, BoxError>> {
    let (client, request) = (client.clone(), page(session, path));
    tokio::spawn(async move { client.oneshot(request).await.map(Response::into_body) })
}

fn name(sessions: &Sessions, session: &str) -> Option<String> {
    sessions.session(session).profile().map(|profile| profile.name().unwrap().to_owned())
}

fn names(sessions: &Sessions, of: &[&str]) -> Vec<String> {
    of.iter().map(|session| name(sessions, session).unwrap()).collect()
}

#[track_caller]
fn exhausted(response: Result<String, BoxError>) -> SessionError {
    let error = response.expect_err("expected an error");
    let error: &SessionError = error.downcast_ref().unwrap_or_else(|| panic!("another error: {error}"));
    assert_eq!(error.kind(), SessionErrorKind::ProfilesExhausted);
    error.clone()
}

#[test]
fn the_successor_gets_another_profile_with_every_strategy() {
    for strategy in [
        ProfileStrategy::RoundRobin,
        ProfileStrategy::Random,
        ProfileStrategy::Seeded(7),
        ProfileStrategy::LeastUsed,
    ] {
        for profiles in [profiles(&["a", "b"]), profiles(&["a", "b"]).exclusive()] {
            let sessions = sessions(profiles.strategy(strategy));
            let alice = sessions.session("alice");
            for round in 0..20 {
                let before = alice.profile();
                alice.clear();
                assert_ne!(alice.profile(), before, "{strategy:?}, round {round}");
            }
        }
    }
}

#[test]
fn least_used_selects_the_profile_with_the_fewest_sessions() {
    let sessions = Sessions::builder()
        .profiles(profiles(&["a", "b", "c"]).strategy(ProfileStrategy::LeastUsed))
        .build()
        .unwrap();
    assert_eq!(names(&sessions, &["1", "2", "3", "4"]), ["a", "b", "c", "a"]);
    // Both sessions of `a` release it.
    for session in ["1", "4"] {
        sessions.session(session).clear();
    }
    assert_eq!(names(&sessions, &["1", "4", "5", "6"]), ["b", "c", "a", "a"]);
}

#[test]
fn sessions_share_exclusive_profiles_only_with_reuse() {
    let shared = sessions(profiles(&["a", "b"]));
    assert_eq!(names(&shared, &["1", "2", "3"]), ["a", "b", "a"]);
    let reused = sessions(profiles(&["a", "b"]).exclusive().on_exhausted(OnExhausted::Reuse));
    assert_eq!(names(&reused, &["1", "2", "3"]), ["a", "b", "a"]);
    let strict = sessions(profiles(&["a", "b"]).exclusive());
    assert_eq!(names(&strict, &["1", "2"]), ["a", "b"]);
    assert_eq!(name(&strict, "3"), None);
    // If all profiles are in use, a session gets its own one again.
    strict.session("1").clear();
    assert_eq!(name(&strict, "1").unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_profile_is_free_after_the_last_response() {
    let sessions = sessions(profiles(&["a", "b", "c"]).exclusive());
    let blocked = Arc::new(Semaphore::new(0));
    let client = client(&sessions, &blocked);
    let slow = [spawn(&client, "1", "/blocked"), spawn(&client, "1", "/blocked")];
    settle().await;
    assert_eq!(get(&client, "2").await.unwrap(), "b");
    sessions.session("1").clear();
    assert_eq!(name(&sessions, "1").unwrap(), "c");
    let waiting = spawn(&client, "3", "/");
    for slow in slow {
        settle().await;
        assert!(!waiting.is_finished(), "a request is still in flight as `a`");
        blocked.add_permits(1);
        assert_eq!(slow.await.unwrap().unwrap(), "a");
    }
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn waiting_sessions_get_free_profiles_in_order() {
    let sessions =
        Sessions::builder().profiles(profiles(&["a"]).exclusive()).max_sessions(1).build().unwrap();
    let blocked = Arc::new(Semaphore::new(0));
    let client = client(&sessions, &blocked);
    let first = spawn(&client, "0", "/blocked");
    settle().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for session in ["1", "2", "3"] {
        for _ in 0..2 {
            let (client, order) = (client.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                let got = get(&client, session).await.unwrap();
                order.lock().unwrap().push(session);
                got
            }));
        }
        settle().await;
    }
    blocked.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap(), "a");
    // A session keeps its profile until it is evicted.
    for round in 0..3 {
        settle().await;
        assert_eq!(order.lock().unwrap().len(), 2 * round);
        sessions.session(format!("new-{round}"));
    }
    settle().await;
    assert_eq!(*order.lock().unwrap(), ["1", "1", "2", "2", "3", "3"]);
    for task in waiting {
        assert_eq!(task.await.unwrap(), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn an_evicted_session_releases_its_profile_immediately() {
    let list = profiles(&["a", "b"]).exclusive().on_exhausted(OnExhausted::Fail);
    let sessions = Sessions::builder().profiles(list).max_sessions(2).build().unwrap();
    let client = simple(&sessions);
    for session in 0..100 {
        let got = get(&client, &session.to_string()).await.unwrap();
        assert_eq!(got, ["a", "b"][session % 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_times_out_with_an_error_that_suggests_a_fix() {
    for (list, max_wait) in [
        (profiles(&["a"]).exclusive(), Duration::from_secs(30)),
        (
            profiles(&["a"]).exclusive().on_exhausted(OnExhausted::Wait(Duration::from_secs(5))),
            Duration::from_secs(5),
        ),
        (profiles(&["a"]).exclusive().on_exhausted(OnExhausted::Fail), Duration::ZERO),
    ] {
        let sessions = sessions(list);
        let client = simple(&sessions);
        assert_eq!(get(&client, "1").await.unwrap(), "a");
        let began = Instant::now();
        let error = exhausted(get(&client, "2").await);
        assert_eq!(began.elapsed(), max_wait);
        assert!(error.to_string().contains("add profiles"), "{error}");
        // The failed request has left no trace: the next one waits equally long.
        assert_eq!(began.elapsed(), max_wait);
        exhausted(get(&client, "2").await);
        assert_eq!(began.elapsed(), 2 * max_wait);
    }
}

#[test]
fn no_request_waits_outside_a_runtime() {
    let sessions = sessions(profiles(&["a"]).exclusive());
    let client = simple(&sessions);
    let mut first = tokio_test::task::spawn(get(&client, "1"));
    assert!(first.poll().is_ready());
    let mut second = tokio_test::task::spawn(get(&client, "2"));
    match second.poll() {
        std::task::Poll::Ready(response) => drop(exhausted(response)),
        std::task::Poll::Pending => panic!("this wait would never end"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_leaves_the_queue() {
    let sessions =
        Sessions::builder().profiles(profiles(&["a"]).exclusive()).max_sessions(1).build().unwrap();
    let client = simple(&sessions);
    get(&client, "1").await.unwrap();
    let one = sessions.session("1");
    let dropped = [spawn(&client, "2", "/"), spawn(&client, "2", "/")];
    let other = spawn(&client, "3", "/");
    settle().await;
    dropped[0].abort();
    settle().await;
    dropped[1].abort();
    settle().await;
    drop(one);
    // Each new session evicts one: the first session, or the second, which has no waiters any more.
    sessions.session("4");
    sessions.session("5");
    assert_eq!(other.await.unwrap().unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_profile_reserves_nothing_in_the_inner_service() {
    let sessions = sessions(profiles(&["a"]).exclusive());
    let site = service_fn(|request: Request<Body>| async move {
        Ok::<_, BoxError>(Response::new(request.headers()["user-agent"].clone()))
    });
    let client = ServiceBuilder::new()
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .concurrency_limit(1)
        .service(site);
    sessions.session("1");
    let waiting = tokio::spawn(client.clone().oneshot(page("2", "/")));
    settle().await;
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(client.clone().oneshot(page("1", "/")).await.unwrap().body(), "a");
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(!waiting.is_finished());
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_profile_layer_alone_waits_for_profiles_too() {
    let sessions =
        Sessions::builder().profiles(profiles(&["a"]).exclusive()).max_sessions(1).build().unwrap();
    let site = service_fn(|request: Request<Body>| async move {
        let identity = Identity::of(request.extensions()).unwrap();
        Ok::<_, BoxError>(Response::new(identity.profile().cloned()))
    });
    let client = ProfileLayer::with_sessions(&sessions).layer(site);
    let one = sessions.session("1");
    let waiting = tokio::spawn(client.clone().oneshot(page("2", "/")));
    settle().await;
    assert!(!waiting.is_finished());
    drop(one);
    sessions.session("3");
    assert_eq!(waiting.await.unwrap().unwrap().into_body().unwrap().name(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_bad_profile_cools_down_and_is_then_free_again() {
    let list = profiles(&["a", "b"]).cooldown(Duration::from_secs(60));
    let sessions = sessions(list.on_exhausted(OnExhausted::Wait(Duration::from_secs(90))));
    let client = simple(&sessions);
    let alice = sessions.session("alice");
    assert!(alice.identity().unwrap().mark_profile_bad());
    // An identity keeps its bad profile, but neither new nor renewed sessions get it.
    assert_eq!(names(&sessions, &["alice", "1", "2", "3"]), ["a", "b", "b", "b"]);
    for session in ["alice", "1"] {
        sessions.session(session).clear();
    }
    assert_eq!(names(&sessions, &["alice", "1"]), ["b", "b"]);

    // All profiles are cooling down: requests wait until the first cooldown ends.
    tokio::time::advance(Duration::from_secs(20)).await;
    assert!(sessions.mark_profile_bad(&sessions.session("1").profile().unwrap()));
    let began = Instant::now();
    assert_eq!(get(&client, "4").await.unwrap(), "a");
    assert_eq!(began.elapsed(), Duration::from_secs(40));
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(names(&sessions, &["5", "6"]), ["b", "a"]);

    let other = Profile::builder().name("a").user_agent("z").build().unwrap();
    assert!(!sessions.mark_profile_bad(&other));
    assert!(!Sessions::new().session("a").identity().unwrap().mark_profile_bad());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_served_when_a_cooldown_that_began_during_its_wait_ends() {
    let list = profiles(&["a"]).exclusive().cooldown(Duration::from_secs(7));
    let sessions = Sessions::builder().profiles(list).max_sessions(1).build().unwrap();
    let client = simple(&sessions);
    let one = sessions.session("1");
    let waiting = spawn(&client, "2", "/");
    settle().await;
    let began = Instant::now();
    assert!(one.identity().unwrap().mark_profile_bad());
    drop(one);
    sessions.session("3");
    settle().await;
    assert!(!waiting.is_finished(), "the profile is cooling down");
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
    assert_eq!(began.elapsed(), Duration::from_secs(7));
}

#[test]
fn if_all_profiles_cool_down_reuse_assigns_the_first_to_become_free() {
    let sessions = sessions(profiles(&["a", "b", "c"]));
    let profile_of = |session| sessions.session(session).profile().unwrap();
    for session in ["1", "2", "3"] {
        assert!(sessions.mark_profile_bad(&profile_of(session)));
    }
    assert_eq!(names(&sessions, &["4", "5", "6"]), ["a", "a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_can_be_pinned_to_a_profile() {
    let shared = sessions(profiles(&["a", "b", "c"]));
    let alice = shared.session("alice");
    alice.pin_profile("c").unwrap();
    assert_eq!(name(&shared, "alice").unwrap(), "a", "the current identity keeps its profile");
    for _ in 0..3 {
        alice.clear();
        assert_eq!(name(&shared, "alice").unwrap(), "c");
    }
    let error = alice.pin_profile("d").unwrap_err();
    assert_eq!(error.to_string(), "no profile is named d; add one to the profiles of the sessions");
    alice.clear();
    assert_eq!(name(&shared, "alice").unwrap(), "c", "the error changed nothing");
    alice.unpin_profile();
    alice.clear();
    assert_ne!(name(&shared, "alice").unwrap(), "c");

    assert_eq!(shared.pinned_session("bob", "b").unwrap().profile().unwrap().name(), Some("b"));
    assert!(shared.pinned_session("carol", "d").is_err());
    assert!(shared.get("carol").is_none());
    assert_eq!(shared.pinned_session("bob", "a").unwrap().profile().unwrap().name(), Some("b"));
    shared.session("bob").clear();
    assert_eq!(name(&shared, "bob").unwrap(), "a");
    assert!(Sessions::new().pinned_session("bob", "a").is_err());

    let error = alice.pin_profile("http://user:secret@proxy").unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_pinned_session_waits_for_its_own_profile_only() {
    let sessions =
        Sessions::builder().profiles(profiles(&["a", "b"]).exclusive()).max_sessions(3).build().unwrap();
    let client = simple(&sessions);
    let one = sessions.session("1");
    let pinned = sessions.pinned_session("2", "a").unwrap();
    assert_eq!(pinned.profile(), None);
    let error = exhausted(get(&client, "2").await);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "the session is pinned to the profile a");
    let waiting = spawn(&client, "2", "/");
    settle().await;
    // Other sessions are served earlier.
    assert_eq!(get(&client, "3").await.unwrap(), "b");
    drop(one);
    let _both = [sessions.session("3"), pinned];
    sessions.session("4");
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_fork_shares_the_profile_unless_it_is_exclusive() {
    let shared = sessions(profiles(&["a", "b"]));
    shared.session("1").fork("2").unwrap();
    assert_eq!(names(&shared, &["1", "2"]), ["a", "a"]);
    let exclusive = sessions(profiles(&["a", "b"]).exclusive());
    exclusive.session("1").fork("2").unwrap();
    assert_eq!(names(&exclusive, &["1", "2"]), ["a", "b"]);
    exclusive.session("1").fork("3").unwrap();
    assert_eq!(name(&exclusive, "3"), None);
}

#[tokio::test(start_paused = true)]
async fn renewals_succeed_with_as_many_exclusive_profiles_as_sessions() {
    for names in [&["a", "b", "c"][..], &["a", "b", "c", "d"]] {
        let sessions = sessions(profiles(names).exclusive());
        let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (record, site) = (seen.clone(), crate::support::Site::new().budget(5));
        let service = service_fn(move |request: Request<Body>| {
            let agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
            record.lock().unwrap().push((request.uri().host().unwrap().to_owned(), agent));
            site.clone().oneshot(request)
        });
        let gate =
            tower_client_sessions::gate::GateConfig::new().renewal_rate_limit(1000, Duration::from_secs(1));
        let client = ServiceBuilder::new()
            .layer(ruleless(&sessions).renew_with(log_in).replay_limit(100).gate_config(gate).max_uses(4))
            .layer(SessionLayer::new(&sessions))
            .layer(ProfileLayer::new())
            .concurrency_limit(2)
            .service(service);
        let all: Vec<_> =
            ["x", "y", "z"].into_iter().map(|session| spawn_pages(&client, session, 40)).collect();
        for tasks in all {
            assert_eq!(good(tasks).await, 40);
        }
        assert!(sessions.stats().renewals_committed >= 24);
        assert_eq!(sessions.stats().renewals_failed, 0);
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_waits_for_a_profile_within_the_limit_of_the_list() {
    let list = profiles(&["a", "b"])
        .on_exhausted(OnExhausted::Wait(Duration::from_secs(3)))
        .cooldown(Duration::from_secs(2));
    let sessions = sessions(list);
    let site = crate::support::Site::new();
    let client = ServiceBuilder::new()
        .layer(ruleless(&sessions).renew_with(log_in))
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .service(site.clone());
    let session = sessions.session("x");
    for profile in ["a", "b"] {
        let bad = Profile::builder().name(profile).user_agent(profile).build().unwrap();
        assert!(sessions.mark_profile_bad(&bad));
    }
    let began = Instant::now();
    assert_eq!(client.clone().oneshot(page("x", "/")).await.unwrap().status(), 200);
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(session.profile().unwrap().name(), Some("b"));
    assert_eq!(sessions.stats().renewals_failed, 0);
}
