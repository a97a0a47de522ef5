//! Tests of session handles, which need no service at hand.

use std::time::Duration;

use http::Request;
use tokio_test::{assert_pending, assert_ready, task};
use tower::ServiceExt;
use tower_client_sessions::{
    Sessions,
    cookies::{Jar, Timestamp},
    gate::{GateConfig, RenewalErrorKind},
};

use crate::support::*;

fn login(account: &str) -> Request<Body> {
    Request::get(format!("http://{account}/login")).body(Body::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn clear_sends_nothing_and_the_next_request_renews() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    let seen = site.seen().len();
    let session = sessions.session("a");
    session.clear();
    settle().await;
    assert_eq!(site.seen().len(), seen);
    assert!(session.cookies().is_empty());
    assert_eq!(session.generation(), None);
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(site.logins(), 2);
    assert!(site.seen()[seen].is_login(), "the login came before the request");
}

#[tokio::test(start_paused = true)]
async fn a_session_can_be_cleared_twice_before_its_first_request() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    session.clear();
    session.clear();
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn renew_starts_immediately_and_dropping_its_handle_cancels_nothing() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    drop(session.renew());
    settle().await;
    assert_eq!(site.logins(), 1);
    let mut second = task::spawn(session.renew());
    assert_pending!(second.poll());
    site.end_logins(1);
    settle().await;
    assert_eq!(assert_ready!(second.poll()).unwrap(), 2, "the second joined the first");
    assert_eq!(site.logins(), 1);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn renew_with_is_sent_ahead_of_the_waiting_requests() {
    let (site, sessions) = (Site::held(), Sessions::new());
    let limited = tower::ServiceBuilder::new().concurrency_limit(1).service(site.clone());
    let client = client(&ruleless(&sessions), &sessions, limited);
    let session = sessions.session("a");
    let mut first = task::spawn(client.clone().oneshot(page("a", "/first")));
    let mut queued = task::spawn(client.clone().oneshot(page("a", "/queued")));
    assert_pending!(first.poll());
    assert_pending!(queued.poll());
    let mut renewal = task::spawn(session.renew_with(login("a")));
    settle().await;
    assert_pending!(renewal.poll());
    assert!(queued.is_woken());
    assert_pending!(queued.poll());
    site.respond(1);
    // The request in flight was rejected and waits; the renewal has the permit that it released.
    assert_pending!(first.poll());
    settle().await;
    assert_eq!(site.seen().len(), 2);
    assert!(site.seen()[1].is_login());
    site.end_logins(1);
    settle().await;
    assert!(assert_ready!(renewal.poll()).is_ok());
    site.respond(2);
    for task in [&mut first, &mut queued] {
        assert!(task.is_woken());
        assert_eq!(assert_ready!(task.poll()).unwrap().status(), 200);
    }
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn renew_with_needs_no_other_request_and_no_rule() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = client(&ruleless(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    assert_eq!(session.renew_with(login("a")).await.unwrap(), 2);
    assert_eq!(session.cookies()[0].value(), Some("a-1"));
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    let empty = Request::get("http://a/login").body(()).unwrap();
    assert_eq!(session.renew_with(empty).await.unwrap(), 3, "an empty body may have any type");
}

#[tokio::test(start_paused = true)]
async fn renew_with_is_retried_until_it_succeeds() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Status(500), Login::Status(503), Login::Error]);
    let client = client(&ruleless(&sessions), &sessions, site.clone());
    assert!(sessions.session("a").renew_with(login("a")).await.is_ok());
    assert_eq!(site.logins(), 4);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_cloned_is_not_retried() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Status(500)]);
    let client = client(&ruleless(&sessions), &sessions, site.clone());
    let request = Request::post("http://a/login").body(Body::from("user=a")).unwrap();
    let error = sessions.session("a").renew_with(request).await.unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::Failed);
    assert_eq!(site.logins(), 1);
    assert_eq!(kind(&get(&client, "a", "/").await), RenewalErrorKind::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_later_call_supersedes_an_earlier_renewal() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    let first = session.renew();
    settle().await;
    let second = session.renew_with(login("a"));
    assert_eq!(first.await.unwrap_err().kind(), RenewalErrorKind::Superseded);
    settle().await;
    site.end_logins(1);
    assert!(second.await.is_ok());
    assert_eq!(site.max_concurrent_logins(), 1);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn renewing_without_a_service_is_an_error() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let session = sessions.session("a");
    assert_eq!(session.renew().await.unwrap_err().kind(), RenewalErrorKind::NoService);
    assert_eq!(session.renew_with(login("a")).await.unwrap_err().kind(), RenewalErrorKind::NoService);
    let stack = client(&ruleless(&sessions), &sessions, site.clone());
    assert_eq!(session.renew().await.unwrap_err().kind(), RenewalErrorKind::NoRule);
    let wrong = Request::get("http://a/login").body(String::from("text")).unwrap();
    assert_eq!(session.renew_with(wrong).await.unwrap_err().kind(), RenewalErrorKind::BodyTypeMismatch);
    drop(stack);
    assert_eq!(session.renew().await.unwrap_err().kind(), RenewalErrorKind::NoService);
}

#[test]
fn renewing_outside_a_runtime_is_an_error() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site);
    let mut handle = task::spawn(sessions.session("a").renew());
    let error = assert_ready!(handle.poll()).unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::NoRuntime);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn replace_releases_the_waiters_with_the_given_cookies() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    let session = sessions.session("a");
    let good = session.cookies();
    site.logins_go([Login::Never]);
    session.clear();
    let mut waiting = task::spawn(client.clone().oneshot(page("a", "/")));
    assert_pending!(waiting.poll());
    let mut jar = Jar::default();
    jar.add(good.iter().cloned(), "http://a/", Timestamp::now()).unwrap();
    session.replace(jar);
    assert!(waiting.is_woken());
    assert!(assert_ready!(waiting.poll()).is_ok());
    assert_eq!(session.cookies()[0].value(), Some("a-1"));
}

#[tokio::test(start_paused = true)]
async fn an_edit_during_a_renewal_is_in_the_next_identity() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    site.logins_go([Login::Status(500)]);
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    session.clear();
    session.add_cookies([("early", "1")], "http://a/").unwrap();
    let mut waiting = task::spawn(client.clone().oneshot(page("a", "/")));
    assert_pending!(waiting.poll());
    settle().await;
    session.set_cookie("late=2; Path=/", "http://a/").unwrap();
    site.end_logins(2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(assert_ready!(waiting.poll()).is_ok());
    let mut names: Vec<_> =
        session.cookies().iter().map(|cookie| cookie.name().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["early", "late", "sid"], "the failed attempt lost none of them");
    session.clear();
    assert!(session.cookies().is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_waiters_get_the_error_of_a_failed_renewal() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Error; 9]);
    let gate = GateConfig::new().max_attempts(9);
    let client = client(&renewing(&sessions).gate_config(gate), &sessions, site.clone());
    let responses = spawn_pages(&client, "a", 3).join_all().await;
    assert!(responses.iter().all(|response| kind(response) == RenewalErrorKind::Failed));
    assert_eq!(site.logins(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_inside_the_runtime_renews_after_a_clear_outside_it() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    let tasks = spawn_pages(&client, "a", 5);
    settle().await;
    std::thread::spawn(move || session.clear()).join().unwrap();
    settle().await;
    assert_eq!(site.logins(), 2, "the first was cancelled, and a waiter started the second");
    site.end_logins(2);
    assert_eq!(good(tasks).await, 5);
}

#[tokio::test(start_paused = true)]
async fn renew_with_outside_the_runtime_is_sent_when_it_is_awaited_inside() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    let own = Request::get("http://a/login?own").body(Body::default()).unwrap();
    let handle = std::thread::spawn(move || session.renew_with(own)).join().unwrap();
    assert_eq!(handle.await.unwrap(), 2);
    assert_eq!(site.seen()[0].uri.query(), Some("own"));
    drop(client);
}

#[test]
fn hazard_21_a_waiter_on_another_runtime_continues_when_the_renewals_runtime_shuts_down() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Never]);
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let abandoned = first.spawn(client.clone().oneshot(page("a", "/")));
    first.block_on(settle());
    assert_eq!(site.logins(), 1);
    let waiting = second.spawn(client.clone().oneshot(page("a", "/")));
    second.block_on(settle());
    drop(first);
    drop(abandoned);
    let wait = async { tokio::time::timeout(Duration::from_secs(20), waiting).await };
    let response = second.block_on(wait).expect("a stall").unwrap();
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_first_stack_renews_again_after_the_second_is_dropped() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let first = client(&renewing(&sessions), &sessions, site.clone());
    let second = client(&ruleless(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    assert_eq!(session.renew().await.unwrap_err().kind(), RenewalErrorKind::NoRule);
    drop(second);
    assert!(session.renew().await.is_ok());
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn renew_with_is_retried_without_waiters() {
    let (site, sessions) = (Site::new(), Sessions::new());
    site.logins_go([Login::Status(500), Login::Status(500)]);
    let client = client(&ruleless(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    drop(session.renew_with(login("a")));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((site.logins(), session.generation()), (3, Some(4)));
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_runs_inside_a_runtime_can_be_awaited_outside() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    let mut handle = task::spawn(session.renew());
    settle().await;
    let mut joined = task::spawn(session.renew());
    let (mut handle, mut joined) = std::thread::spawn(move || {
        assert_pending!(handle.poll());
        assert_pending!(joined.poll());
        (handle, joined)
    })
    .join()
    .unwrap();
    site.end_logins(1);
    settle().await;
    assert!(handle.is_woken() && joined.is_woken());
    assert_eq!(assert_ready!(handle.poll()).unwrap(), assert_ready!(joined.poll()).unwrap());
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_fork_of_a_logged_in_session_needs_no_login() {
    let (site, sessions) = (Site::new(), Sessions::builder().login_first().build().unwrap());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    assert_eq!(session.fork("early").unwrap().generation(), None);
    get(&client, "a", "/").await.unwrap();
    let fork = session.fork("a-2").unwrap();
    assert_eq!(fork.generation(), Some(1));
    let mut request = page("a", "/");
    request.extensions_mut().insert(fork);
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn data_of_a_session_survives_its_renewals() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    assert_eq!(session.set_data("k", "1"), None);
    assert_eq!(session.set_data("k", "2").as_deref(), Some("1"));
    session.clear();
    get(&client, "a", "/").await.unwrap();
    assert_eq!(session.data("k").as_deref(), Some("2"));
    assert_eq!(session.remove_data("k").as_deref(), Some("2"));
    assert!(session.all_data().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_can_be_renamed_while_its_requests_wait() {
    for sessions in [Sessions::new(), Sessions::builder().max_sessions(3).build().unwrap()] {
        let site = Site::held_logins();
        let client = client(&renewing(&sessions), &sessions, site.clone());
        let session = sessions.session("a");
        session.set_data("own", "1");
        let mut waiting = task::spawn(client.clone().oneshot(page("a", "/")));
        assert_pending!(waiting.poll());
        settle().await;
        session.rename("b").unwrap();
        assert_eq!((session.id().to_string(), sessions.len()), ("b".into(), 1));
        assert!(sessions.get("a").is_none());
        assert_eq!(sessions.session("b").data("own").as_deref(), Some("1"));
        assert_eq!(session.rename("b").unwrap_err().id(), &"b".into(), "it has this name already");
        sessions.session("c");
        assert!(session.rename("c").is_err());
        site.end_logins(1);
        settle().await;
        assert!(waiting.is_woken());
        let response = assert_ready!(waiting.poll()).unwrap();
        assert_eq!(response.status(), 200);
        let info = response.extensions().get::<tower_client_sessions::SessionInfo>().unwrap();
        assert_eq!(info.session(), &"b".into());
        assert_eq!(site.logins(), 1, "the rename started no login");
        session.rename("d").unwrap();
        assert_eq!(sessions.session("d").generation(), session.generation());
    }
}

#[tokio::test(start_paused = true)]
async fn a_renamed_session_can_be_evicted() {
    let sessions = Sessions::builder().max_sessions(2).build().unwrap();
    sessions.session("a").rename("b").unwrap();
    for name in ["c", "d", "e"] {
        sessions.session(name);
    }
    assert_eq!(sessions.len(), 2);
    assert!(sessions.get("b").is_none());
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_removed_session_continue_and_its_name_is_free() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let mut waiting = task::spawn(client.clone().oneshot(page("a", "/")));
    assert_pending!(waiting.poll());
    settle().await;
    assert!(sessions.remove("a").is_some());
    assert!(sessions.remove("a").is_none() && sessions.get("a").is_none() && sessions.is_empty());
    let renewals = |sessions: &Sessions| sessions.stats().renewals_started;
    assert_eq!(renewals(&sessions), 1, "the counters keep what was counted");
    let other = sessions.session("a");
    assert_eq!(other.generation(), Some(1), "a new session");
    site.end_logins(1);
    settle().await;
    assert!(waiting.is_woken());
    assert_eq!(assert_ready!(waiting.poll()).unwrap().status(), 200);
    assert!(other.cookies().is_empty(), "the login was for the removed session");
    drop(waiting);
    settle().await;
    assert_eq!((renewals(&sessions), sessions.stats().renewals_committed), (1, 1));
    assert!(sessions.session("x").rename("y").is_ok());
    let removed = sessions.remove("y").unwrap();
    assert!(removed.rename("z").is_err(), "it was removed from this registry");
    assert!(sessions.get("z").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_profile_of_a_removed_session_is_free_for_another() {
    use tower_client_sessions::{Profile, Profiles};
    let profile = Profile::builder().user_agent("one").build().unwrap();
    let profiles = Profiles::new([profile]).unwrap().exclusive();
    let sessions = Sessions::builder().profiles(profiles).build().unwrap();
    assert!(sessions.session("a").profile().is_some());
    drop(sessions.remove("a"));
    assert!(sessions.session("b").profile().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_session_with_given_cookies_is_renewed_before_its_cookie_expires() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let layer = renewing(&sessions).renew_before_expiry("sid", Duration::from_secs(100));
    let client = client(&layer, &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    let session = sessions.session("a");
    let sid = session.cookies()[0].value().unwrap().to_owned();
    let mut jar = Jar::default();
    jar.set(&format!("sid={sid}; Path=/; Max-Age=50"), "http://a/", Timestamp::now()).unwrap();
    session.replace(jar);
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    settle().await;
    assert_eq!(site.logins(), 2, "renewed early, although no response has set the cookie");
}
