//! Sessions, cookies and profiles, without a gate and across redirects.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_client_sessions::{
    CookieMode, Expired, Identity, Profile, ProfileLayer, Profiles, RedirectLayer, RequestCookies, SessionId,
    SessionInfo, SessionLayer, Sessions,
    gate::{BoxError, GateConfig},
    profile::Proxy,
    session::{SessionError, SessionErrorKind},
};

use crate::{
    embedded::{self, SiteConfig},
    support::*,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A service that responds with the cookies that it received, and sets those in the query.
async fn echo(request: Request<Body>) -> SiteResult {
    let cookie = request.headers().get(header::COOKIE).cloned();
    let mut response = Response::builder();
    for set in request.uri().query().unwrap_or("").split('&').filter_map(|pair| pair.strip_prefix("set=")) {
        response = response.header(header::SET_COOKIE, set);
    }
    Ok(response
        .body(Body::from(cookie.map_or(Bytes::new(), |cookie| Bytes::copy_from_slice(cookie.as_bytes()))))?)
}

fn request(url: &str) -> Request<Body> {
    Request::get(url).extension(SessionId::from("a")).body(Body::default()).unwrap()
}

async fn send(sessions: &Sessions, request: Request<Body>) -> Result<(Response<()>, String), BoxError> {
    let client = SessionLayer::new(sessions).layer(service_fn(echo));
    let (head, body) = client.oneshot(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok((Response::from_parts(head, ()), String::from_utf8(body.to_vec())?))
}

async fn sent(sessions: &Sessions, request: Request<Body>) -> String {
    send(sessions, request).await.unwrap().1
}

#[track_caller]
fn session_error(error: &BoxError) -> SessionErrorKind {
    error.downcast_ref::<SessionError>().unwrap_or_else(|| panic!("{error}")).kind()
}

#[tokio::test]
async fn a_request_without_a_session_fails_unless_there_is_a_default_session() {
    let bare = || Request::get("http://a/?set=x=1").body(Body::default()).unwrap();
    let error = send(&Sessions::new(), bare()).await.unwrap_err();
    assert_eq!(session_error(&error), SessionErrorKind::NoSession);
    let sessions = Sessions::builder().default_session("main").build().unwrap();
    let (response, _) = send(&sessions, bare()).await.unwrap();
    assert_eq!(response.extensions().get::<SessionInfo>().unwrap().session(), &SessionId::from("main"));
    assert_eq!(sessions.session("main").cookies().len(), 1);
}

#[tokio::test]
async fn a_handle_selects_a_session_and_an_identity_of_another_session_is_an_error() {
    let sessions = Sessions::new();
    let mut by_handle = Request::get("http://a/?set=x=1").body(Body::default()).unwrap();
    by_handle.extensions_mut().insert(sessions.session("b"));
    sent(&sessions, by_handle).await;
    assert_eq!(sessions.session("b").cookies().len(), 1);
    let mut mixed = request("http://a/");
    mixed.extensions_mut().insert::<Identity>(sessions.session("b").identity().unwrap());
    let error = send(&sessions, mixed).await.unwrap_err();
    assert_eq!(session_error(&error), SessionErrorKind::SessionMismatch);
}

#[tokio::test]
async fn two_sessions_never_see_each_others_cookies() {
    let sessions = Sessions::new();
    sent(&sessions, request("http://a/?set=x=1")).await;
    let mut other = request("http://a/");
    other.extensions_mut().insert(SessionId::from("b"));
    assert_eq!(sent(&sessions, other).await, "");
    assert_eq!(sent(&sessions, request("http://a/")).await, "x=1");
}

#[tokio::test]
async fn a_cookie_mode_applies_to_one_request() {
    let sessions = Sessions::new();
    let with_mode = |url, mode| {
        let mut request = request(url);
        request.extensions_mut().insert::<CookieMode>(mode);
        request
    };
    sent(&sessions, request("http://a/?set=x=1")).await;
    assert_eq!(sent(&sessions, with_mode("http://a/?set=y=1", CookieMode::StoreOnly)).await, "");
    assert_eq!(sent(&sessions, with_mode("http://a/?set=z=1", CookieMode::SendOnly)).await, "x=1; y=1");
    let mut own = with_mode("http://a/?set=w=1", CookieMode::Disabled);
    own.headers_mut().insert("cookie", "own=1".parse().unwrap());
    assert_eq!(sent(&sessions, own).await, "own=1");
    assert_eq!(sent(&sessions, request("http://a/")).await, "x=1; y=1");
}

#[tokio::test]
async fn a_cookie_of_the_request_takes_precedence_by_name_for_that_request() {
    let sessions = Sessions::new();
    sent(&sessions, request("http://a/?set=x=1&set=y=1")).await;
    let mut own = request("http://a/");
    own.headers_mut().insert("cookie", "x=own".parse().unwrap());
    let cookies = sent(&sessions, own).await;
    assert!(cookies.contains("x=own") && cookies.contains("y=1") && !cookies.contains("x=1"), "{cookies}");
    assert_eq!(sent(&sessions, request("http://a/")).await, "x=1; y=1");
}

#[tokio::test]
async fn request_cookies_are_stored_and_sent() {
    let sessions = Sessions::new();
    let mut with_cookies = request("http://a/");
    with_cookies.extensions_mut().insert(RequestCookies::new([("lang", "en"), ("token", "abc==")]));
    assert_eq!(sent(&sessions, with_cookies).await, "lang=en; token=abc==");
    assert_eq!(sent(&sessions, request("http://a/")).await, "lang=en; token=abc==");
    let mut bad = request("http://a/");
    bad.extensions_mut().insert(RequestCookies::new([("good", "1"), ("bad", "a\nb")]));
    let error = send(&sessions, bad).await.unwrap_err();
    assert_eq!(session_error(&error), SessionErrorKind::BadCookie);
    assert_eq!(sent(&sessions, request("http://a/")).await, "lang=en; token=abc==", "all or nothing");
}

#[tokio::test]
async fn an_invalid_set_cookie_is_skipped_and_counted_and_the_response_is_delivered() {
    let sessions = Sessions::new();
    let (response, _) =
        send(&sessions, request("http://a.example/?set=x=1;Domain=other.example&set=y=1")).await.unwrap();
    assert_eq!(response.status(), 200);
    let stats = sessions.session("a").stats();
    assert_eq!((stats.cookies_stored, stats.cookies_rejected), (1, 1));
    assert_eq!(sessions.stats().sent, 1);
}

#[tokio::test]
async fn without_a_renewal_layer_a_cleared_session_has_a_new_identity_immediately() {
    let sessions = Sessions::new();
    sent(&sessions, request("http://a/?set=x=1")).await;
    sessions.session("a").clear();
    assert_eq!(sessions.session("a").generation(), Some(2));
    assert_eq!(sent(&sessions, request("http://a/")).await, "");
}

#[tokio::test]
async fn without_a_renewal_layer_a_pending_identity_becomes_current() {
    let sessions = Sessions::builder().login_first().build().unwrap();
    sessions.session("a").add_cookies([("x", "1")], "http://a/").unwrap();
    assert_eq!(sessions.session("a").generation(), None);
    assert_eq!(sent(&sessions, request("http://a/")).await, "x=1");
}

#[tokio::test]
async fn a_stack_without_a_gate_does_not_bypass_the_gate_of_another_stack() {
    let (site, sessions) = (Site::held_logins(), Sessions::new());
    let gated = client(&renewing(&sessions), &sessions, site.clone());
    sessions.session("a").clear();
    let error = send(&sessions, request("http://a/")).await.unwrap_err();
    assert_eq!(session_error(&error), SessionErrorKind::RenewalPending);
    drop(gated);
    assert_eq!(sent(&sessions, request("http://a/")).await, "");
}

#[tokio::test]
async fn reads_and_edits_cover_every_domain_and_path() {
    let sessions = Sessions::new();
    let session = sessions.session("a");
    session.add_cookies([("token", "abc=="), ("lang", "en")], "https://shop.example/").unwrap();
    session.set_cookie("deep=1; Path=/x; HttpOnly; Secure", "https://other.example/x/y").unwrap();
    assert_eq!(session.cookies().len(), 3);
    assert_eq!(session.cookies_for("https://other.example/x/z").unwrap()[0].name(), Some("deep"));
    assert!(session.cookies_for("https://other.example/").unwrap().is_empty());
    assert!(session.cookies_for("no url").is_err());
    let error = session.add_cookies([("good", "1"), ("bad\n", "2")], "https://shop.example/").unwrap_err();
    assert_eq!(error.index(), Some(1));
    assert_eq!(session.cookies().len(), 3, "all or nothing");
    assert!(session.remove_cookie("shop.example", "/", "token").is_some());
    assert!(session.remove_cookie("shop.example", "/", "token").is_none());
    let shown = format!("{session}\n{sessions}\n{session:?}\n{sessions:?}");
    assert!(shown.contains("lang") && !shown.contains("abc==") && !shown.contains("=en"), "{shown}");
}

#[tokio::test]
async fn a_fork_has_the_cookies_and_data_under_a_new_id() {
    let sessions = Sessions::new();
    let alice = sessions.session("alice");
    alice.add_cookies([("x", "1")], "http://a/").unwrap();
    let fork = alice.fork("alice-2").unwrap();
    fork.add_cookies([("y", "1")], "http://a/").unwrap();
    assert_eq!((alice.cookies().len(), fork.cookies().len()), (1, 2));
    alice.set_data("csrf", "1");
    assert_eq!(alice.fork("alice-3").unwrap().data("csrf").as_deref(), Some("1"));
    assert_eq!(fork.data("csrf"), None);
    assert_eq!(alice.fork("alice-2").unwrap_err().to_string(), "the session id alice-2 is taken");
}

#[tokio::test]
async fn hazard_10_a_limited_registry_evicts_the_least_recently_used_session_and_none_in_use() {
    let sessions = Sessions::builder().max_sessions(3).build().unwrap();
    let handle = sessions.session("held");
    for name in ["b", "c"] {
        sessions.session(name);
    }
    sessions.session("d");
    assert!(sessions.get("b").is_none(), "it is the least recently used one");
    assert!(sessions.get("held").is_some() && sessions.get("c").is_some() && sessions.get("d").is_some());
    sessions.session("e");
    assert_eq!(sessions.len(), 3);
    assert_eq!(sessions.stats().sessions_evicted, 2);
    let all_handles: Vec<_> = sessions.all();
    let over = sessions.session("f");
    assert_eq!(sessions.len(), 4, "the limit is exceeded if all sessions are in use");
    assert_eq!(sessions.stats().sessions_over_limit, 1);
    drop((handle, all_handles, over));
    sessions.session("g");
    assert_eq!(sessions.len(), 3);
    assert!(Sessions::builder().max_sessions(0).build().unwrap_err().to_string().contains("max_sessions"));
}

#[tokio::test(start_paused = true)]
async fn hazard_10_a_session_with_a_request_in_flight_or_a_renewal_is_not_evicted() {
    let (site, sessions) = (Site::held(), Sessions::builder().max_sessions(1).build().unwrap());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let task = tokio::spawn(client.clone().oneshot(page("a", "/")));
    settle().await;
    for n in 0..20 {
        sessions.session(n);
    }
    assert!(sessions.get("a").is_some());
    site.respond(1);
    settle().await;
    assert_eq!(site.logins(), 1);
    for n in 0..20 {
        sessions.session(100 + n);
    }
    assert!(sessions.get("a").is_some());
    site.end_logins(1);
    site.respond(1);
    assert_eq!(task.await.unwrap().unwrap().status(), 200);
    for n in 0..20 {
        sessions.session(200 + n);
    }
    assert!(sessions.get("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn hazard_10_a_session_whose_renewal_failed_without_waiters_can_be_evicted() {
    let (site, sessions) = (Site::new(), Sessions::builder().max_sessions(1).login_first().build().unwrap());
    site.logins_go([Login::Status(500)]);
    let layer = renewing(&sessions).gate_config(GateConfig::new().backoff(HOUR, HOUR));
    let client = client(&layer, &sessions, site.clone());
    // The only waiter gives up during the backoff.
    let given_up = tokio::time::timeout(Duration::from_millis(1), get(&client, "a", "/")).await;
    assert!(given_up.is_err());
    assert_eq!(sessions.stats().renewals_failed, 1);
    tokio::time::sleep(2 * HOUR).await;
    drop(sessions.session("b"));
    assert!(sessions.get("a").is_none());
    assert_eq!(sessions.stats().sessions_over_limit, 0);
}

#[test]
fn hazard_10_two_threads_that_create_and_evict_never_have_two_sessions_with_one_id() {
    let sessions = Sessions::builder().max_sessions(2).build().unwrap();
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            let (sessions, barrier) = (sessions.clone(), barrier.clone());
            std::thread::spawn(move || {
                barrier.wait();
                for round in 0..20_000_u32 {
                    let one = sessions.session(round % 5);
                    let other = sessions.session(round % 5);
                    one.add_cookies([("x", round.to_string())], "http://a/").unwrap();
                    // With two sessions, the second would not have the cookie of the first.
                    assert_eq!(other.cookies().len(), 1, "thread {thread}, round {round}");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(sessions.len() <= 4);
}

fn profiles() -> Profiles {
    let profile = |name: &str, proxy: Proxy| {
        Profile::builder().name(name).user_agent(name).header("x-of", name).proxy(proxy).build().unwrap()
    };
    let proxy: Proxy = "http://user:secret@proxy.example:8080".parse().unwrap();
    Profiles::new([profile("first", proxy), profile("second", Proxy::direct())]).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_replay_carries_nothing_of_the_profile_before_the_renewal() {
    let sessions = Sessions::builder().profiles(profiles()).build().unwrap();
    let site = Site::new();
    type Applied = (String, String, bool);
    let applied: Arc<std::sync::Mutex<Vec<Applied>>> = Arc::default();
    let seen = applied.clone();
    let service = service_fn(move |request: Request<Body>| {
        let text = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let proxied = request.extensions().get::<Proxy>().is_some_and(|proxy| proxy.server().is_some());
        seen.lock().unwrap().push((text("user-agent"), text("x-of"), proxied));
        site.clone().oneshot(request)
    });
    let client = ServiceBuilder::new()
        .layer(renewing(&sessions))
        .layer(RedirectLayer::new(5))
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .service(service);
    assert_eq!(client.oneshot(page("a", "/")).await.unwrap().status(), 200);
    let first = (String::from("first"), String::from("first"), true);
    let second = (String::from("second"), String::from("second"), false);
    assert_eq!(*applied.lock().unwrap(), [first, second.clone(), second]);
    assert_eq!(sessions.session("a").profile().unwrap().name(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn hazard_41_an_attempt_after_a_failed_one_tries_another_profile() {
    let sessions = Sessions::builder().profiles(profiles()).build().unwrap();
    let names: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let drawn = names.clone();
    let layer = ruleless(&sessions).renew_with(move |renewal| {
        let mut names = drawn.lock().unwrap();
        names.push(renewal.profile().unwrap().name().unwrap().to_owned());
        let fails = names.len() == 1;
        async move {
            renewal.ensure_transient(!fails, "the login was not accepted")?;
            log_in(renewal).await
        }
    });
    let client = client(&layer, &sessions, Site::new());
    get(&client, "a", "/").await.unwrap();
    assert_eq!(*names.lock().unwrap(), ["second", "first"]);
}

#[tokio::test(start_paused = true)]
async fn hazard_41_cookies_profile_and_generation_are_read_together() {
    let sessions = Sessions::builder().profiles(profiles()).build().unwrap();
    let site = Site::new().budget(7);
    type Snapshot = (Option<String>, String, String);
    let seen: Arc<std::sync::Mutex<BTreeMap<u64, Snapshot>>> = Arc::default();
    let (recorded, inner) = (seen.clone(), site.clone());
    let service = service_fn(move |request: Request<Body>| {
        let identity = Identity::of(request.extensions()).unwrap();
        let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (profile, agent) = (identity.profile().unwrap().name().unwrap(), text("user-agent").unwrap());
        assert_eq!(profile, agent);
        if request.uri().path() != "/login" {
            let snapshot = (text("cookie"), profile.to_owned(), agent);
            let mut seen = recorded.lock().unwrap();
            let first = seen.entry(identity.generation()).or_insert_with(|| snapshot.clone());
            assert_eq!(*first, snapshot, "one generation, one snapshot");
        }
        inner.clone().oneshot(request)
    });
    let gate = GateConfig::new().renewal_rate_limit(1000, HOUR);
    let client = ServiceBuilder::new()
        .layer(renewing(&sessions).gate_config(gate).replay_limit(100))
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .layer(tower::limit::ConcurrencyLimitLayer::new(3))
        .service(service);
    assert_eq!(good(spawn_pages(&client, "a", 100)).await, 100);
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 100 / 7, "{seen:?}");
    // A renewed session has a different profile and cookie than before.
    for (one, next) in seen.values().zip(seen.values().skip(1)) {
        assert!(one.0 != next.0 && one.1 != next.1, "{one:?} {next:?}");
    }
}

#[tokio::test]
async fn a_profile_layer_resolves_the_session_itself_or_fails_without_an_identity() {
    let sessions = Sessions::builder().profiles(profiles()).build().unwrap();
    let agent = service_fn(|request: Request<Body>| async move {
        Ok::<_, BoxError>(Response::new(request.headers()["user-agent"].clone()))
    });
    let alone = ProfileLayer::with_sessions(&sessions).layer(agent);
    assert_eq!(alone.oneshot(request("http://a/")).await.unwrap().body(), "first");
    let error = ProfileLayer::new().layer(agent).oneshot(request("http://a/")).await.unwrap_err();
    assert_eq!(session_error(&error), SessionErrorKind::NoIdentity);
}

/// Two sites on loopback and a client over real sockets that follows redirects.
async fn two_sites() -> (embedded::Site, embedded::Site) {
    let config = SiteConfig::default;
    (embedded::Site::start(config()).await.unwrap(), embedded::Site::start(config()).await.unwrap())
}

#[tokio::test]
async fn a_redirect_to_another_origin_and_back_keeps_the_session_and_each_hops_cookies() {
    let (a, b) = two_sites().await;
    let b_port = b.addr().port();
    // Another name of the loopback address, so that the two origins have different hosts.
    let at_b = |path: &str| format!("http://localhost:{b_port}{path}");
    let sessions = Sessions::new();
    let hyper =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new()
        .layer(renewing(&sessions))
        .layer(RedirectLayer::new(10))
        .layer(SessionLayer::new(&sessions))
        .service(hyper);
    let escaped = |url: &str| {
        url.replace(':', "%3A")
            .replace('/', "%2F")
            .replace('?', "%3F")
            .replace('&', "%26")
            .replace('=', "%3D")
    };
    let last = a.url("/echo");
    let middle = at_b(&format!("/hop?cookie=b%3D2&to={}", escaped(&last)));
    let first = a.url(&format!("/hop?cookie=a%3D1&to={}", escaped(&middle)));
    let request =
        Request::get(first).extension(SessionId::from("alice")).body(Full::<Bytes>::default()).unwrap();
    let response = client.oneshot(request).await.unwrap();
    let info = response.extensions().get::<SessionInfo>().unwrap().clone();
    assert_eq!(info.session(), &SessionId::from("alice"));
    let names: Vec<_> = info.cookies().iter().map(|cookie| cookie.name().unwrap().to_owned()).collect();
    assert_eq!(names, ["a", "b"], "the cookies of every hop");
    assert_eq!(info.final_uri().unwrap().path(), "/echo");
    let echoed =
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(echoed.contains("a=1") && !echoed.contains("b=2"), "{echoed}");
    let alice = sessions.session("alice");
    assert_eq!(alice.cookies_for(&at_b("/")).unwrap()[0].name(), Some("b"));
    assert_eq!(sessions.len(), 1, "no other session was created");
}

#[tokio::test]
async fn a_followed_redirect_to_the_login_page_means_expired() {
    let config = SiteConfig { refusal: embedded::Refusal::Redirect, ..SiteConfig::default() };
    let site = embedded::Site::start(config).await.unwrap();
    let sessions = Sessions::new();
    let login = site.url("/login?acct=alice");
    let hyper =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let layer = ruleless(&sessions).expired_when(Expired::redirect_to("/login")).renew_with(move |renewal| {
        let login = login.clone();
        async move {
            let response = renewal.send(Request::get(login).body(Body::default())?).await?;
            renewal.ensure(
                response.status().is_success() && renewal.has_cookie("sid"),
                "the login was not accepted",
            )
        }
    });
    let client = ServiceBuilder::new()
        .layer(layer)
        .layer(RedirectLayer::new(10))
        .layer(SessionLayer::new(&sessions))
        .service(hyper);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let url = site.url(&format!("/page/{n}?acct=alice"));
        let request = Request::get(url).extension(SessionId::from("alice")).body(Body::default()).unwrap();
        tasks.spawn(client.clone().oneshot(request));
    }
    for response in tasks.join_all().await {
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert!(
            response
                .extensions()
                .get::<SessionInfo>()
                .unwrap()
                .final_uri()
                .unwrap()
                .path()
                .starts_with("/page")
        );
    }
    assert_eq!(site.counters().logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_early_renewal_does_not_reuse_the_current_profile() {
    let sessions = Sessions::builder().profiles(profiles()).build().unwrap();
    let site = Site::new();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    get(&client, "a", "/").await.unwrap();
    let session = sessions.session("a");
    let current = session.profile().unwrap();
    site.logins_go([Login::Error]);
    session.renew().await.unwrap_err();
    session.renew().await.unwrap();
    assert_ne!(session.profile().unwrap(), current);
}

#[tokio::test]
async fn a_fork_has_the_same_profile_and_its_next_identity_another() {
    let sessions = Sessions::builder().profiles(profiles()).build().unwrap();
    let alice = sessions.session("alice");
    let fork = alice.fork("fork").unwrap();
    assert_eq!(fork.profile(), alice.profile());
    fork.clear();
    assert_ne!(fork.profile(), alice.profile());
}

#[tokio::test]
async fn a_handle_of_other_sessions_is_rejected() {
    let (one, other) = (Sessions::new(), Sessions::new());
    let mut request = Request::get("http://a/").body(Body::default()).unwrap();
    request.extensions_mut().insert(other.session("a"));
    let error = send(&one, request).await.unwrap_err();
    assert_eq!(session_error(&error), SessionErrorKind::WrongRegistry);
}

/// Collects the events about cookies.
#[derive(Clone, Default)]
struct Traced(Arc<std::sync::Mutex<String>>);

impl tracing::Subscriber for Traced {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_client_sessions")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields<'a>(&'a mut String);
        impl tracing::field::Visit for Fields<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        event.record(&mut Fields(&mut self.0.lock().unwrap()));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn cookies_are_traced_without_their_values_by_default() {
    async fn traced(sessions: Sessions) -> String {
        let traced = Traced::default();
        let _guard = listen(traced.clone());
        let url =
            "http://a.example/?set=sid=\"hidden;hidden2\";Path=/;hidden3=1&set=x=hidden;Domain=b.example";
        let uri = http::Uri::builder()
            .scheme("http")
            .authority("a.example")
            .path_and_query(url.replace('"', "%22").split_once("example").unwrap().1)
            .build()
            .unwrap();
        let mut request = request("http://a.example/");
        *request.uri_mut() = uri;
        send(&sessions, request).await.unwrap();
        send(&sessions, self::request("http://a.example/")).await.unwrap();
        traced.0.lock().unwrap().clone()
    }
    let quiet = traced(Sessions::new()).await;
    for message in ["cookie received", "cookie rejected", "cookies sent", "sid=…"] {
        assert!(quiet.contains(message), "{message}: {quiet}");
    }
    assert!(!quiet.contains("hidden"), "{quiet}");
    let loud = traced(Sessions::builder().trace_cookie_values().build().unwrap()).await;
    assert!(loud.contains("hidden"), "{loud}");
}
