//! One renewal per expiry, no request lost or repeated, and cookies in the right identity.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use tokio_test::{assert_pending, assert_ready};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, Identity, SessionId, SessionInfo, Sessions,
    gate::{GateConfig, PermanentError, Release, RenewalErrorKind},
    renewal::{ReplayBudget, ReplayBudgetLayer, ReplayMethods, StaleResponse},
};

use crate::support::*;

fn world() -> (Site, Sessions) {
    (Site::new(), Sessions::new())
}

#[tokio::test(start_paused = true)]
async fn hazard_01_many_expiries_of_one_generation_start_one_renewal() {
    let (site, sessions) = (Site::held(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let tasks = spawn_pages(&client, "a", 100);
    settle().await;
    site.respond(200);
    settle().await;
    site.end_logins(10);
    assert_eq!(good(tasks).await, 100);
    assert_eq!(site.logins(), 1);
    assert_eq!(site.pages_seen(), 200, "each page was rejected once and replayed once");
}

#[tokio::test(start_paused = true)]
async fn hazard_01_expiries_that_come_late_start_none() {
    let (site, sessions) = (Site::held_pages(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let mut tasks = spawn_pages(&client, "a", 16);
    settle().await;
    // All sixteen are in flight without a session. Their rejections arrive one by one.
    for _ in 0..16 {
        site.respond(1);
        settle().await;
        assert_eq!(site.logins(), 1);
    }
    site.respond(1000);
    settle().await;
    assert_eq!(site.logins(), 1);
    while let Some(result) = tasks.join_next().await {
        assert_eq!(result.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn hazard_02_an_identity_left_in_a_request_is_overwritten() {
    let (site, sessions) = world();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    let old = sessions.session("a").identity().unwrap();
    sessions.session("a").clear();
    let mut request = page("a", "/");
    request.extensions_mut().insert::<Identity>(old.clone());
    let response = client.oneshot(request).await.unwrap();
    let info = response.extensions().get::<SessionInfo>().unwrap();
    assert!(info.generation() > old.generation());
    assert_eq!(response.status(), 200);
    assert_eq!(info.replays(), 0, "the response was classified under the identity that it was sent under");
}

#[tokio::test(start_paused = true)]
async fn hazard_04_one_renewal_is_one_generation() {
    let (site, sessions) = world();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    assert_eq!(good(spawn_pages(&client, "a", 50)).await, 50);
    assert_eq!(sessions.session("a").generation(), Some(2));
    site.expire("a");
    assert_eq!(good(spawn_pages(&client, "a", 50)).await, 50);
    assert_eq!(sessions.session("a").generation(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn hazard_05_an_unchanged_cookie_is_still_a_new_generation() {
    let (site, sessions) = world();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    let session = sessions.session("a");
    let cookie = session.cookies()[0].value().unwrap().to_owned();
    site.logins_go([Login::SameCookie]);
    assert_eq!(session.renew().await.unwrap(), 3);
    assert_eq!(session.cookies()[0].value().unwrap(), cookie);
    assert_eq!(session.generation(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn hazard_06_a_renewal_from_before_a_clear_cannot_commit() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    let tasks = spawn_pages(&client, "a", 3);
    settle().await;
    assert_eq!(site.logins(), 1);
    session.clear();
    settle().await;
    assert_eq!(site.logins(), 2, "the waiters get a new renewal");
    site.end_logins(2);
    assert_eq!(good(tasks).await, 3);
    assert_eq!(session.cookies()[0].value(), Some("a-2"));
    assert_eq!(site.max_concurrent_logins(), 1, "the first renewal was cancelled");
}

#[tokio::test(start_paused = true)]
async fn hazard_08_a_renewal_that_timed_out_cannot_commit_later() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Never]);
    let gate = GateConfig::new().attempt_timeout(Duration::from_secs(3));
    let client = client(&renewing(&sessions).gate_config(gate), &sessions, site.clone());
    assert_eq!(good(spawn_pages(&client, "a", 5)).await, 5);
    assert_eq!(site.logins(), 2);
    assert_eq!(sessions.stats().renewals_failed, 1);
    assert_eq!(sessions.stats().renewals_committed, 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_13_and_12_a_waiting_request_has_dropped_its_response_and_its_permit() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let limited = ServiceBuilder::new().concurrency_limit(1).service(site.clone());
    let limit = limited.clone();
    let client = client(&renewing(&sessions), &sessions, limited);
    let tasks = spawn_pages(&client, "a", 1);
    settle().await;
    assert_eq!(site.logins(), 1, "the login got the only permit");
    site.end_logins(1);
    assert_eq!(good(tasks).await, 1);
    drop(limit);
}

#[tokio::test(start_paused = true)]
async fn hazard_15_a_call_through_the_gate_from_inside_a_renewal_is_an_error() {
    let (site, sessions) = world();
    let slot: Arc<std::sync::Mutex<Option<Client>>> = Arc::default();
    let inside = slot.clone();
    let seen = Arc::new(std::sync::Mutex::new(None));
    let sink = seen.clone();
    let layer = ruleless(&sessions).renew_with(move |renewal| {
        let client = inside.lock().unwrap().clone().unwrap();
        let sink = sink.clone();
        async move {
            let result = get(&client, "a", "/login").await;
            *sink.lock().unwrap() = Some(kind(&result));
            log_in(renewal).await
        }
    });
    let client = client(&layer, &sessions, site.clone());
    *slot.lock().unwrap() = Some(client.clone());
    let response = get(&client, "a", "/").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(*seen.lock().unwrap(), Some(RenewalErrorKind::Reentrant));
    *slot.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn hazard_17_a_waiter_that_is_not_polled_blocks_no_other() {
    let (site, sessions) = world();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    sessions.session("a").clear();
    let mut unpolled = tokio_test::task::spawn(client.clone().oneshot(page("a", "/")));
    assert_pending!(unpolled.poll());
    assert_eq!(good(spawn_pages(&client, "a", 20)).await, 20);
    settle().await;
    assert!(unpolled.is_woken());
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_18_dropping_the_request_that_started_the_renewal_neither_cancels_nor_repeats_it() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let mut first = tokio_test::task::spawn(client.clone().oneshot(page("a", "/first")));
    assert_pending!(first.poll());
    settle().await;
    assert_eq!(site.logins(), 1);
    drop(first);
    let tasks = spawn_pages(&client, "a", 5);
    settle().await;
    site.end_logins(1);
    assert_eq!(good(tasks).await, 5);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_19_a_renewal_that_panics_is_a_failed_attempt() {
    let (site, sessions) = world();
    let tries = Arc::new(AtomicU32::new(0));
    let count = tries.clone();
    let layer = ruleless(&sessions).renew_with(move |renewal| {
        // The first attempt panics in the closure, the second in its future.
        let number = count.fetch_add(1, Ordering::Relaxed);
        assert!(number != 0, "expected panic in the closure");
        async move {
            assert!(number != 1, "expected panic in the future");
            log_in(renewal).await
        }
    });
    let client = client(&layer, &sessions, site.clone());
    assert_eq!(good(spawn_pages(&client, "a", 10)).await, 10);
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    assert_eq!(sessions.stats().renewals_failed, 2);
}

#[test]
fn hazard_21_the_gate_renews_again_after_a_runtime_shut_down_in_a_renewal() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Never]);
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let other = client.clone();
    let waiting = first.spawn(async move { get(&other, "a", "/").await });
    first.block_on(settle());
    assert_eq!(site.logins(), 1);
    drop(first);
    drop(waiting);
    let response = runtime().block_on(get(&client, "a", "/")).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn hazard_23_every_wait_times_out() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let gate = GateConfig::new().max_wait(Duration::from_secs(5)).attempt_timeout(Duration::from_secs(60));
    let client = client(&renewing(&sessions).gate_config(gate), &sessions, site.clone());
    let start = tokio::time::Instant::now();
    let result = get(&client, "a", "/").await;
    assert_eq!(kind(&result), RenewalErrorKind::WaitTimedOut);
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    site.end_logins(1);
    settle().await;
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200, "the renewal continued");
    assert_eq!(site.logins(), 1);
}

#[test]
fn hazard_23_a_handle_times_out_if_the_runtime_of_its_renewal_is_not_driven() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Never]);
    let gate = GateConfig::new().attempt_timeout(Duration::from_secs(10));
    let _client = client(&renewing(&sessions).gate_config(gate), &sessions, site.clone());
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (first, second) = (runtime(), runtime());
    let handle = {
        let _first = first.enter();
        sessions.session("a").renew()
    };
    first.block_on(settle());
    assert_eq!(site.logins(), 1);
    // The first runtime still exists, but nothing drives it.
    let ended = second.block_on(async { tokio::time::timeout(Duration::from_secs(60), handle).await });
    assert_eq!(ended.expect("the handle times out").unwrap_err().kind(), RenewalErrorKind::TimedOut);
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn hazard_24_the_timeout_of_an_attempt_starts_with_the_attempt() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Never, Login::Never]);
    let gate = GateConfig::new()
        .attempt_timeout(Duration::from_secs(10))
        .backoff(Duration::from_secs(1), Duration::from_secs(1));
    let client = client(&renewing(&sessions).gate_config(gate), &sessions, site.clone());
    let start = tokio::time::Instant::now();
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(20), "two full attempts, {took:?}");
    assert_eq!(site.logins(), 3);
}

#[tokio::test(start_paused = true)]
async fn hazard_25_one_slow_session_delays_no_other() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Never]);
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let slow = spawn_pages(&client, "slow", 3);
    settle().await;
    let start = tokio::time::Instant::now();
    assert_eq!(good(spawn_pages(&client, "quick", 10)).await, 10);
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn hazard_26_waiting_requests_are_limited() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client =
        client(&renewing(&sessions).gate_config(GateConfig::new().max_waiting(3)), &sessions, site.clone());
    sessions.session("a").clear();
    let tasks = spawn_pages(&client, "a", 3);
    settle().await;
    assert_eq!(sessions.session("a").waiting(), 3);
    assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::QueueFull);
    site.end_logins(1);
    assert_eq!(good(tasks).await, 3);
    assert_eq!(sessions.stats().waiting_peak, 3);
}

#[tokio::test(start_paused = true)]
async fn hazard_28_a_request_is_sent_once_plus_at_most_its_replays() {
    let (site, sessions) = (Site::new().budget(0), Sessions::new());
    // The verification ends each session, so that all replays are used.
    let layer = renewing(&sessions).replay_limit(3).verify_with(async |_| Ok(false));
    let client = client(&layer, &sessions, site.clone());
    let response = get(&client, "a", "/").await.unwrap();
    assert_eq!(response.status(), 403, "the last response is delivered");
    assert_eq!(response.extensions().get::<SessionInfo>().unwrap().replays(), 3);
    assert_eq!(site.pages_seen(), 4);
}

#[tokio::test(start_paused = true)]
async fn hazard_29_a_retry_above_does_not_multiply_the_limit() {
    #[derive(Clone)]
    struct Thrice(u32);
    impl<E> tower::retry::Policy<Request<Body>, http::Response<Body>, E> for Thrice {
        type Future = std::future::Ready<()>;
        fn retry(
            &mut self,
            _request: &mut Request<Body>,
            result: &mut Result<http::Response<Body>, E>,
        ) -> Option<Self::Future> {
            let again = self.0 > 0 && !result.as_ref().is_ok_and(|response| response.status().is_success());
            self.0 = self.0.saturating_sub(1);
            again.then(|| std::future::ready(()))
        }
        fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
            Some(request.clone())
        }
    }
    let (site, sessions) = (Site::new().budget(0), Sessions::new());
    let client = ServiceBuilder::new().layer(ReplayBudgetLayer::new(2)).retry(Thrice(2)).service(client(
        &renewing(&sessions),
        &sessions,
        site.clone(),
    ));
    let response = client.oneshot(page("a", "/")).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(site.pages_seen(), 3 + 2, "three calls, and two replays in total");
}

#[tokio::test(start_paused = true)]
async fn hazard_30_a_body_that_cannot_be_cloned_is_sent_once() {
    let (site, sessions) = world();
    let send = |layer| {
        let client = client(&layer, &sessions, site.clone());
        let request = Request::post("http://a/form").extension(SessionId::from("a")).body(Body::from("text"));
        client.oneshot(request.unwrap())
    };
    assert_eq!(send(renewing(&sessions)).await.unwrap().status(), 403, "the response is returned as it is");
    assert_eq!(site.pages_seen(), 1);
    site.expire("a");
    assert_eq!(send(renewing(&sessions).clone_bodies()).await.unwrap().status(), 200);
    site.expire("a");
    let none = renewing(&sessions).clone_bodies_with(|_| None);
    assert_eq!(send(none).await.unwrap().status(), 403);
}

#[tokio::test(start_paused = true)]
async fn hazard_31_only_allowed_methods_are_replayed() {
    async fn sends(method: Method, methods: ReplayMethods) -> usize {
        let (site, sessions) = world();
        let client = client(&renewing(&sessions).replay_methods(methods), &sessions, site.clone());
        let mut request = page("a", "/");
        *request.method_mut() = method;
        client.oneshot(request).await.unwrap();
        site.pages_seen()
    }
    assert_eq!(sends(Method::POST, ReplayMethods::All).await, 2);
    assert_eq!(sends(Method::POST, ReplayMethods::Idempotent).await, 1);
    assert_eq!(sends(Method::PUT, ReplayMethods::Idempotent).await, 2);
    assert_eq!(sends(Method::PUT, ReplayMethods::Safe).await, 1);
    assert_eq!(sends(Method::GET, ReplayMethods::Safe).await, 2);
}

/// Sends one request, clears its session before its good response arrives, and returns how often it
/// was sent.
async fn sends_with_good_stale_response(method: Method, stale: StaleResponse) -> usize {
    let (site, sessions) = (Site::held_pages(), Sessions::new());
    let client = client(&renewing(&sessions).stale_responses(stale), &sessions, site.clone());
    site.respond(2);
    get(&client, "a", "/").await.unwrap();
    let before = site.pages_seen();
    let mut request = page("a", "/late");
    *request.method_mut() = method;
    let task = tokio::spawn(client.oneshot(request));
    settle().await;
    sessions.session("a").clear();
    site.respond(10);
    assert_eq!(task.await.unwrap().unwrap().status(), 200);
    site.pages_seen() - before
}

#[tokio::test(start_paused = true)]
async fn hazard_31_a_good_stale_response_is_delivered_unless_all_are_replayed() {
    assert_eq!(sends_with_good_stale_response(Method::GET, StaleResponse::ReplayIfExpired).await, 1);
    assert_eq!(sends_with_good_stale_response(Method::GET, StaleResponse::Deliver).await, 1);
    assert_eq!(sends_with_good_stale_response(Method::GET, StaleResponse::ReplayAll).await, 2);
    assert_eq!(
        sends_with_good_stale_response(Method::POST, StaleResponse::ReplayAll).await,
        1,
        "an unsafe method is not replayed"
    );
}

#[tokio::test(start_paused = true)]
async fn hazard_32_a_replay_is_a_copy_of_the_callers_request() {
    let (site, sessions) = world();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let mut request = page("a", "/");
    request.headers_mut().insert("cookie", "own=1".parse().unwrap());
    client.oneshot(request).await.unwrap();
    let seen: Vec<_> =
        site.seen().into_iter().filter(|seen| !seen.is_login()).map(|seen| seen.cookie).collect();
    assert_eq!(seen, [Some(String::from("own=1")), Some(String::from("own=1; sid=a-1"))]);
}

#[tokio::test(start_paused = true)]
async fn hazard_33_renewals_in_a_window_are_limited_unless_a_request_is_accepted() {
    let (site, sessions) = (Site::new().budget(0), Sessions::new());
    let gate = GateConfig::new().renewal_rate_limit(4, Duration::from_secs(60)).max_attempts(100);
    let layer = renewing(&sessions).replay_limit(100).gate_config(gate).verify_with(async |_| Ok(false));
    let client = client(&layer, &sessions, site.clone());
    let result = get(&client, "a", "/").await;
    assert_eq!(kind(&result), RenewalErrorKind::TooManyRenewals);
    assert_eq!(site.logins(), 4);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::TooManyRenewals);
    assert_eq!(site.logins(), 8);
}

#[tokio::test(start_paused = true)]
async fn hazard_34_a_renewal_whose_own_response_means_expired_fails() {
    let (site, sessions) = world();
    site.logins_go([Login::Status(403)]);
    // This rule accepts every response.
    let layer = ruleless(&sessions).renew_with(|renewal| async move {
        renewal.send(Request::get("http://a/login").body(Body::default())?).await?;
        Ok(())
    });
    let client = client(&layer, &sessions, site.clone());
    assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::Permanent);
    assert_eq!(sessions.stats().renewals_failed, 1);
    sessions.session("a").clear();
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn hazard_35_a_failed_attempt_counts_once_and_all_waiters_get_its_error() {
    let (site, sessions) = world();
    site.logins_go([Login::Status(500); 3]);
    let client =
        client(&renewing(&sessions).gate_config(GateConfig::new().max_attempts(3)), &sessions, site.clone());
    let results = spawn_pages(&client, "a", 50).join_all().await;
    assert_eq!(site.logins(), 3);
    for result in &results {
        assert_eq!(kind(result), RenewalErrorKind::Failed);
        let source = std::error::Error::source(&**result.as_ref().unwrap_err()).unwrap().to_string();
        assert!(source.ends_with("with status 500: the login was not accepted"), "{source}");
    }
    // No attempt during the backoff; one after it.
    assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::Failed);
    assert_eq!(site.logins(), 3);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(site.logins(), 4);
}

#[tokio::test(start_paused = true)]
async fn hazard_36_a_permanent_error_is_remembered_until_the_session_is_cleared() {
    let (site, sessions) = world();
    let refuse = Arc::new(AtomicU32::new(1));
    let refusing = refuse.clone();
    let layer = ruleless(&sessions).renew_with(move |renewal| {
        let refuse = refusing.load(Ordering::Relaxed) == 1;
        async move {
            if refuse {
                return Err(PermanentError::new("the password is wrong").into());
            }
            log_in(renewal).await
        }
    });
    let client = client(&layer, &sessions, site.clone());
    assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::Permanent);
    refuse.store(0, Ordering::Relaxed);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::Permanent);
    assert_eq!(sessions.stats().renewals_started, 1);
    sessions.session("a").clear();
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn hazard_37_a_failed_early_renewal_keeps_the_working_identity() {
    let (site, sessions) = world();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    let session = sessions.session("a");
    site.logins_go([Login::Error]);
    let error = session.renew().await.unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::Failed);
    assert_eq!(session.generation(), Some(2));
    // The site rejects the old cookie as soon as a login has started; only the client matters here.
    assert!(get(&client, "a", "/").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn hazard_38_no_request_waits_for_an_early_renewal() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions).max_uses(20), &sessions, site.clone());
    site.end_logins(1);
    for _ in 0..20 {
        assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    }
    settle().await;
    assert_eq!(site.logins(), 2, "started before the limit was reached");
    assert_eq!(sessions.stats().waited, 1, "only the first request has waited");
    site.end_logins(1);
    settle().await;
    assert_eq!(sessions.session("a").generation(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn hazard_39_and_40_a_late_cookie_does_not_reach_another_generation() {
    let (site, sessions) = (Site::held_pages(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    site.respond(2);
    get(&client, "a", "/").await.unwrap();
    let late = spawn_late(&client, "/late?set=sid=stolen");
    settle().await;
    session.clear();
    session.clear();
    let next = spawn_late(&client, "/next");
    settle().await;
    site.respond(10);
    let late = late.await.unwrap().unwrap();
    assert_eq!(late.extensions().get::<SessionInfo>().unwrap().cookies()[0].value(), Some("stolen"));
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
    assert_eq!(session.cookies()[0].value(), Some("a-2"));
    get(&client, "a", "/after").await.unwrap();
    assert!(site.seen().iter().all(|seen| seen.cookie.as_deref() != Some("sid=stolen")));
}

fn spawn_late(client: &Client, path: &'static str) -> tokio::task::JoinHandle<SiteResult> {
    let client = client.clone();
    tokio::spawn(async move { get(&client, "a", path).await })
}

#[tokio::test(start_paused = true)]
async fn hazard_42_max_uses_is_exact_for_concurrent_requests() {
    let (site, sessions) = (Site::new().budget(50), Sessions::new());
    let gate = GateConfig::new().renewal_rate_limit(1000, Duration::from_secs(60));
    let client = client(&renewing(&sessions).max_uses(50).gate_config(gate), &sessions, site.clone());
    sessions.session("a").clear();
    assert_eq!(good(spawn_pages(&client, "a", 1000)).await, 1000);
    assert_eq!(site.pages_seen(), 1000, "no page was sent beyond the limit");
    assert!(site.logins() <= 23, "{} logins", site.logins());
}

#[tokio::test(start_paused = true)]
async fn hazard_42_max_age_is_checked_when_a_request_is_sent() {
    let (site, sessions) = world();
    let client = client(&renewing(&sessions).max_age(Duration::from_secs(60)), &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    assert_eq!(sessions.session("a").generation(), Some(2));
    tokio::time::advance(Duration::from_secs(50)).await;
    get(&client, "a", "/").await.unwrap();
    assert_eq!(sessions.session("a").generation(), Some(2));
    tokio::time::advance(Duration::from_secs(20)).await;
    let response = get(&client, "a", "/").await.unwrap();
    assert_eq!(response.extensions().get::<SessionInfo>().unwrap().generation(), 3);
    assert_eq!(site.logins(), 2);
}

#[tokio::test]
async fn hazard_43_no_old_cookie_is_sent_after_clear_has_returned() {
    let (site, sessions) = world();
    let gate = GateConfig::new().renewal_rate_limit(1000, Duration::from_secs(60));
    let client = client(&renewing(&sessions).gate_config(gate), &sessions, site.clone());
    for round in 1..50 {
        get(&client, "a", "/").await.unwrap();
        sessions.session("a").clear();
        let before = site.seen().len();
        get(&client, "a", "/").await.unwrap();
        let old = format!("sid=a-{round}");
        assert!(site.seen()[before..].iter().all(|seen| seen.cookie.as_deref() != Some(&*old)));
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_45_a_probe_is_sent_first_and_a_dropped_probe_is_replaced() {
    let (site, sessions) = (Site::held(), Sessions::new());
    let layer = renewing(&sessions).gate_config(GateConfig::new().release(Release::ProbeFirst));
    let client = client(&layer, &sessions, site.clone());
    sessions.session("a").clear();
    let mut tasks: Vec<_> = (0..5)
        .map(|n| tokio_test::task::spawn(client.clone().oneshot(page("a", &format!("/{n}")))))
        .collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    settle().await;
    site.end_logins(1);
    settle().await;
    fn poll_all<F: Future<Output = SiteResult>>(tasks: &mut [tokio_test::task::Spawn<F>]) {
        for task in tasks {
            assert_pending!(task.poll());
        }
    }
    let pages = || {
        site.seen()
            .iter()
            .filter(|seen| !seen.is_login())
            .map(|seen| seen.uri.path().to_owned())
            .collect::<Vec<_>>()
    };
    poll_all(&mut tasks);
    assert_eq!(pages(), ["/0"], "only the oldest");
    drop(tasks.remove(0));
    poll_all(&mut tasks);
    assert_eq!(pages(), ["/0", "/1"], "then the next oldest");
    site.respond(1);
    assert_ready!(tasks[0].poll()).unwrap();
    drop(tasks.remove(0));
    poll_all(&mut tasks);
    assert_eq!(pages(), ["/0", "/1", "/2", "/3", "/4"], "and then all");
}

#[tokio::test(start_paused = true)]
async fn hazard_45_a_staggered_release_is_in_order_and_in_bursts() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let release = Release::Staggered { burst: 2, every: Duration::from_secs(1) };
    let layer = renewing(&sessions).gate_config(GateConfig::new().release(release));
    let client = client(&layer, &sessions, site.clone());
    sessions.session("a").clear();
    let tasks = spawn_pages(&client, "a", 5);
    settle().await;
    site.end_logins(1);
    settle().await;
    assert_eq!(site.pages_seen(), 2);
    tokio::time::advance(Duration::from_millis(1001)).await;
    settle().await;
    assert_eq!(site.pages_seen(), 4);
    assert_eq!(good(tasks).await, 5);
    let order: Vec<_> = site.seen().iter().skip(1).map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(order, ["/page/0", "/page/1", "/page/2", "/page/3", "/page/4"]);
}

#[tokio::test(start_paused = true)]
async fn logins_that_fail_in_every_way_recover() {
    let (site, sessions) = world();
    site.logins_go([Login::Status(500), Login::NoCookie, Login::Error, Login::Never]);
    let client = client(&renewing(&sessions), &sessions, site.clone());
    assert_eq!(good(spawn_pages(&client, "a", 64)).await, 64);
    assert_eq!(site.logins(), 5);
    assert_eq!(site.max_concurrent_logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_rule_one_request_is_sent_and_the_others_wait_for_its_response() {
    let (site, sessions) = (Site::held(), Sessions::new());
    let client = client(&ruleless(&sessions), &sessions, site.clone());
    sessions.session("a").clear();
    let mut first = tokio_test::task::spawn(client.clone().oneshot(page("a", "/login")));
    let mut others: Vec<_> =
        (0..3).map(|_| tokio_test::task::spawn(client.clone().oneshot(page("a", "/")))).collect();
    assert_pending!(first.poll());
    for task in &mut others {
        assert_pending!(task.poll());
    }
    assert_eq!(site.seen().len(), 1);
    site.end_logins(1);
    assert_ready!(first.poll()).unwrap();
    site.respond(3);
    for task in &mut others {
        assert_eq!(assert_ready!(task.poll()).unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_waiter_takes_over_from_a_dropped_lead() {
    let (site, sessions) = (Site::held(), Sessions::new());
    let client = client(&ruleless(&sessions), &sessions, site.clone());
    sessions.session("a").clear();
    let mut tasks: Vec<_> = ["/login", "/login?second", "/"]
        .into_iter()
        .map(|path| tokio_test::task::spawn(client.clone().oneshot(page("a", path))))
        .collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    drop(tasks.remove(0));
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    assert_eq!(site.seen().last().unwrap().uri.query(), Some("second"));
    site.end_logins(1);
    assert_ready!(tasks[0].poll()).unwrap();
    site.respond(1);
    assert_eq!(assert_ready!(tasks[1].poll()).unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_with_one_request_needs_a_good_status_and_a_cookie() {
    let (site, sessions) = world();
    site.logins_go([Login::Status(500), Login::NoCookie]);
    let login = Request::get("http://a/login").body(Body::default()).unwrap();
    let client = client(&ruleless(&sessions).renew_with_request(login), &sessions, site.clone());
    // The error of the server is retried. A login that sets no cookie is not.
    assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::Permanent);
    assert_eq!(site.logins(), 2);
    sessions.session("a").clear();
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(site.logins(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_from_supplied_cookies_sends_nothing() {
    let (site, sessions) = world();
    get(&client(&renewing(&sessions), &sessions, site.clone()), "a", "/").await.unwrap();
    let good = sessions.session("a").cookies();
    let other = Sessions::new();
    let layer = ruleless(&other).renew_from_fn(move |_reason| {
        let mut jar = tower_client_sessions::cookies::Jar::default();
        let now = std::time::SystemTime::now().into();
        jar.add(good.iter().cloned(), "http://a/", now).unwrap();
        async move { Ok(jar) }
    });
    let client = client(&layer, &other, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(site.logins(), 1);
    assert_eq!(other.stats().renewals_committed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_zero_limit_fails_validate_and_every_request() {
    let (site, sessions) = world();
    let layer = renewing(&sessions).max_uses(0).gate_config(GateConfig::new().max_waiting(0));
    assert_eq!(layer.validate().unwrap_err().setting(), "max_uses");
    let error = get(&client(&layer, &sessions, site.clone()), "a", "/").await.unwrap_err();
    assert_eq!(error.to_string(), "max_uses is zero; it must be at least one");
    assert!(site.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_response_has_a_session_info() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let task = tokio::spawn({
        let client = client.clone();
        async move { get(&client, "a", "/page?set=x=1").await }
    });
    settle().await;
    tokio::time::advance(Duration::from_secs(2)).await;
    site.end_logins(1);
    let response = task.await.unwrap().unwrap();
    let info = response.extensions().get::<SessionInfo>().unwrap();
    assert_eq!(info.session(), &SessionId::from("a"));
    assert_eq!((info.generation(), info.replays()), (2, 1));
    assert_eq!(info.time_waiting(), Duration::from_secs(2));
    assert_eq!(info.cookies()[0].name(), Some("x"));
    assert_eq!(info.final_uri().unwrap().path(), "/page");
    let stats = sessions.session("a").stats();
    assert_eq!((stats.sent, stats.waited, stats.replayed_expired), (3, 1, 1));
    assert_eq!((stats.renewals_started, stats.renewals_committed), (1, 1));
    assert_eq!(stats.cookies_stored, 3, "one by the login, one by each response of the page");
}

#[tokio::test(start_paused = true)]
async fn a_replay_budget_in_the_request_replaces_the_limit() {
    let (site, sessions) = world();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let mut request = page("a", "/");
    request.extensions_mut().insert(ReplayBudget::new(0));
    assert_eq!(client.oneshot(request).await.unwrap().status(), 403);
}

#[tokio::test(start_paused = true)]
async fn a_peek_layer_detects_an_expired_page_with_status_200() {
    use tower_client_sessions::{renewal::PeekLayer, session::SessionService};
    let (site, sessions) = world();
    let inner = site.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let sent = inner.clone().oneshot(request);
        async move {
            let response = sent.await?;
            if response.status() == 403 {
                let page = http::Response::builder().header("content-type", "text/html; charset=utf-8");
                return Ok::<_, tower::BoxError>(page.body(Body::from("<p>Your session has expired</p>"))?);
            }
            Ok(response)
        }
    });
    let layer = tower_client_sessions::RenewalLayer::new(&sessions)
        .expired_when(Expired::body(|bytes| bytes.starts_with(b"<p>Your session has expired")))
        .renew_with(log_in);
    let mut client = ServiceBuilder::new()
        .layer(layer)
        .layer(PeekLayer::new(64))
        .service(SessionService::new(service, sessions.clone()));
    let response = client.ready().await.unwrap().call(page("a", "/page")).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "/page");
    assert_eq!(site.logins(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_stranded_when_sessions_expire_constantly_on_many_threads() {
    for release in [Release::All, Release::ProbeFirst] {
        let (site, sessions) = (Site::new().budget(7), Sessions::new());
        let gate = GateConfig::new().renewal_rate_limit(100_000, Duration::from_secs(60)).release(release);
        let client =
            client(&renewing(&sessions).replay_limit(10_000).gate_config(gate), &sessions, site.clone());
        let tasks = spawn_pages(&client, "a", 1000);
        let all = tokio::time::timeout(Duration::from_secs(60), good(tasks));
        assert_eq!(all.await.expect("a stall"), 1000);
        assert_eq!(site.max_concurrent_logins(), 1);
        assert_eq!(sessions.session("a").waiting(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn durations_without_an_end_do_not_overflow() {
    let (site, sessions) = world();
    let gate = GateConfig::new()
        .attempt_timeout(Duration::MAX)
        .max_wait(Duration::MAX)
        .cooldown(Duration::MAX)
        .backoff(Duration::MAX, Duration::MAX)
        .renewal_rate_limit(5, Duration::MAX);
    let client =
        client(&renewing(&sessions).max_age(Duration::MAX).gate_config(gate), &sessions, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    site.logins_go([Login::Error]);
    assert!(sessions.session("a").renew().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn supplied_cookies_are_merged_with_cookies_added_during_the_wait() {
    let sessions = Sessions::new();
    let layer = ruleless(&sessions).renew_from_fn(|_reason| async {
        let mut jar = tower_client_sessions::cookies::Jar::default();
        jar.add([("sid", "given"), ("both", "given")], "http://a/", std::time::SystemTime::now().into())?;
        Ok(jar)
    });
    let client = client(&layer, &sessions, Site::new());
    let session = sessions.session("a");
    session.clear();
    session.add_cookies([("early", "1"), ("both", "added")], "http://a/").unwrap();
    // A page that needs no session.
    get(&client, "a", "/login").await.unwrap();
    let cookie = |name: &str| {
        let cookies = session.cookies();
        cookies
            .iter()
            .find(|cookie| cookie.name() == Some(name))
            .and_then(|cookie| cookie.value().map(String::from))
    };
    assert_eq!(cookie("early").as_deref(), Some("1"));
    assert_eq!(cookie("both").as_deref(), Some("added"));
}

#[tokio::test(start_paused = true)]
async fn hazard_44_a_session_is_renewed_before_its_cookie_expires() {
    let begin = std::time::SystemTime::now();
    let passed = Arc::new(AtomicU32::new(0));
    let clock = passed.clone();
    let now = move || begin + Duration::from_secs(clock.load(Ordering::Relaxed).into());
    let (site, sessions) = (Site::new(), Sessions::builder().clock(now).build().unwrap());
    let steps = |renewal: tower_client_sessions::Renewal<Body>| async move {
        log_in(renewal.clone()).await?;
        // A cookie with an expiry.
        renewal.send(Request::get("http://a/x?set=ends=1;Max-Age=100").body(Body::default())?).await?;
        Ok(())
    };
    let layer = ruleless(&sessions).renew_with(steps).renew_before_expiry("ends", Duration::from_secs(20));
    let client = client(&layer, &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    passed.store(69, Ordering::Relaxed);
    get(&client, "a", "/").await.unwrap();
    settle().await;
    assert_eq!(site.logins(), 1, "the margin is at most 1.5 times the setting");
    passed.store(81, Ordering::Relaxed);
    let held = sessions.stats().waited;
    get(&client, "a", "/").await.unwrap();
    settle().await;
    assert_eq!((site.logins(), sessions.stats().waited), (2, held), "and no request has waited for it");
}

#[tokio::test(start_paused = true)]
async fn a_replayed_request_waits_ahead_of_new_ones() {
    let (site, sessions) = (Site::held(), Sessions::new());
    // The probe is the first waiter.
    let layer = renewing(&sessions).gate_config(GateConfig::new().release(Release::ProbeFirst));
    let client = client(&layer, &sessions, site.clone());
    let mut old = tokio_test::task::spawn(client.clone().oneshot(page("a", "/old")));
    assert_pending!(old.poll());
    sessions.session("a").clear();
    let mut new = tokio_test::task::spawn(client.clone().oneshot(page("a", "/new")));
    assert_pending!(new.poll());
    // The rejection of the old request arrives while the new one waits.
    site.respond(1);
    assert_pending!(old.poll());
    settle().await;
    site.end_logins(1);
    settle().await;
    assert_pending!(new.poll());
    assert_pending!(old.poll());
    let sent: Vec<_> = site.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(sent, ["/old", "/login", "/old"]);
}
