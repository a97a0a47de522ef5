//! Stacks that a naive gate would deadlock, and stacks over services of other crates.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer, util::BoxCloneService};
use tower_client_sessions::{
    ProfileLayer, RedirectLayer, RenewalLayer, SessionId, SessionLayer, Sessions,
    gate::BoxError,
    renewal::{PeekLayer, PrebufferLayer, ReplayBody},
};

use crate::support::*;

/// Two hundred tasks on `service` over `site` get a response each, after one renewal.
async fn two_hundred_tasks<S>(site: Site, service: S)
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let sessions = Sessions::new();
    let client = client(&renewing(&sessions), &sessions, service);
    let tasks = spawn_pages(&client, "a", 200);
    let all = tokio::time::timeout(Duration::from_secs(600), good(tasks));
    assert_eq!(all.await.expect("a stall"), 200);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_11_concurrency_limits_below_do_not_deadlock() {
    for limit in [1, 2, 8] {
        let site = Site::new();
        two_hundred_tasks(site.clone(), ServiceBuilder::new().concurrency_limit(limit).service(site)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_11_a_buffer_of_one_below_does_not_deadlock() {
    let site = Site::new();
    two_hundred_tasks(site.clone(), Buffer::new(site, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn hazard_11_a_buffer_over_a_rate_limit_below_does_not_deadlock() {
    let site = Site::new();
    let limited = ServiceBuilder::new().rate_limit(10, Duration::from_secs(1)).service(site.clone());
    two_hundred_tasks(site, Buffer::new(limited, 4)).await;
}

#[tokio::test(start_paused = true)]
async fn hazard_11_a_buffer_over_rate_and_concurrency_limits_below_does_not_deadlock() {
    let site = Site::new();
    let limited = ServiceBuilder::new()
        .rate_limit(50, Duration::from_secs(1))
        .concurrency_limit(1)
        .service(site.clone());
    two_hundred_tasks(site, Buffer::new(limited, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn hazard_11_limits_above_do_not_deadlock() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let client = ServiceBuilder::new().timeout(Duration::from_secs(60)).concurrency_limit(4).service(client(
        &renewing(&sessions),
        &sessions,
        site.clone(),
    ));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        tasks.spawn(client.clone().oneshot(page("a", "/")));
    }
    assert_eq!(good(tasks).await, 50);
    assert_eq!(site.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_14_a_queued_request_gives_up_its_place_when_its_identity_ends() {
    let (site, sessions) = (Site::held(), Sessions::new());
    let limited = ServiceBuilder::new().concurrency_limit(1).service(site.clone());
    let client = client(&renewing(&sessions), &sessions, limited);
    let mut tasks: Vec<_> = (0..4)
        .map(|n| tokio_test::task::spawn(client.clone().oneshot(page("a", &format!("/{n}")))))
        .collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    site.respond(1);
    assert_pending!(tasks[0].poll());
    // The limiter has passed the permit on to the next in its queue. Each of them checks the gate
    // and gives up its place.
    for task in &mut tasks[1..] {
        assert!(task.is_woken());
        assert_pending!(task.poll());
    }
    settle().await;
    let seen: Vec<_> = site.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(seen, ["/0", "/login"], "the renewal is sent before the requests that queued for the limiter");
    site.end_logins(1);
    settle().await;
    site.respond(100);
    for task in &mut tasks {
        assert!(task.is_woken());
        assert_eq!(assert_ready!(task.poll()).unwrap().status(), 200);
    }
    assert_eq!(site.pages_seen(), 5, "only the request in flight was wasted");
}

/// Drops a request after each possible number of polls, with others in flight, and then sends one
/// more.
#[tokio::test(start_paused = true)]
async fn hazard_27_dropping_a_request_at_any_await_affects_no_other() {
    for polls in 0..12 {
        for rule in [true, false] {
            let (site, sessions) = (Site::held(), Sessions::new());
            let limited = ServiceBuilder::new().concurrency_limit(2).service(site.clone());
            let layer = if rule { renewing(&sessions) } else { ruleless(&sessions) };
            let client = client(&layer, &sessions, limited);
            sessions.session("a").clear();
            let path = if rule { "/" } else { "/login" };
            let mut dropped = tokio_test::task::spawn(client.clone().oneshot(page("a", path)));
            let mut others = tokio::task::JoinSet::new();
            for number in 0..polls {
                if number == 1 {
                    for _ in 0..3 {
                        others.spawn(client.clone().oneshot(page("a", path)));
                    }
                }
                if dropped.poll().is_ready() {
                    break;
                }
                settle().await;
                match number % 3 {
                    1 => site.end_logins(1),
                    2 => site.respond(1),
                    _ => {}
                }
                settle().await;
            }
            drop(dropped);
            site.end_logins(100);
            site.respond(100);
            let wait = Duration::from_secs(200);
            while let Some(response) = tokio::time::timeout(wait, others.join_next()).await.expect("a stall")
            {
                assert!(response.unwrap().is_ok(), "after {polls} polls, rule: {rule}");
            }
            let fresh = tokio::time::timeout(wait, get(&client, "a", path)).await;
            assert_eq!(fresh.expect("a stall").unwrap().status(), 200, "after {polls} polls, rule: {rule}");
            assert_eq!(sessions.session("a").waiting(), 0);
        }
    }
}

#[tokio::test]
async fn the_stack_works_over_a_boxed_service() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let boxed: BoxCloneService<Request<Body>, Response<Body>, BoxError> = BoxCloneService::new(site.clone());
    let client = client(&renewing(&sessions), &sessions, boxed);
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_stack_works_inside_a_boxed_service() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let boxed = BoxCloneService::new(client(&renewing(&sessions), &sessions, site.clone()));
    assert_eq!(boxed.oneshot(page("a", "/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_whole_stack_infers_its_types_over_hyper() {
    let sessions = Sessions::new();
    let hyper =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new()
        .layer(renewing(&sessions))
        .layer(RedirectLayer::new(10))
        .layer(PeekLayer::new(1024))
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .service(hyper);
    let site = crate::embedded::Site::start(crate::embedded::SiteConfig::default()).await.unwrap();
    let request =
        Request::get(site.url("/echo")).extension(SessionId::from("a")).body(Body::default()).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_stack_works_over_reqwest() {
    let sessions = Sessions::new();
    let reqwest = reqwest::Client::new();
    let service = tower::service_fn(move |request: Request<reqwest::Body>| {
        let reqwest = reqwest.clone();
        async move { reqwest.execute(request.try_into()?).await.map(Response::<reqwest::Body>::from) }
    });
    let client = ServiceBuilder::new()
        .layer(RenewalLayer::new(&sessions))
        .layer(SessionLayer::new(&sessions))
        .service(service);
    let site = crate::embedded::Site::start(crate::embedded::SiteConfig::default()).await.unwrap();
    let body = reqwest::Body::default();
    let request = Request::get(site.url("/echo")).extension(SessionId::from("a")).body(body).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_stack_works_over_an_axum_router() {
    let sessions = Sessions::new();
    let router: axum::Router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
    let client = ServiceBuilder::new()
        .layer(RenewalLayer::new(&sessions))
        .layer(SessionLayer::new(&sessions))
        .service(router);
    let request = |host: Option<&str>| {
        let mut request = Request::get("/").extension(SessionId::from("a"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(axum::body::Body::empty()).unwrap()
    };
    assert_eq!(client.clone().oneshot(request(Some("a.example"))).await.unwrap().status(), 200);
    let error = client.oneshot(request(None)).await.unwrap_err();
    assert_eq!(error.to_string(), "the request URI has no host to match cookies with");
}

#[tokio::test]
async fn the_session_layer_accepts_services_that_are_not_send() {
    #[derive(Clone)]
    struct Local(#[expect(dead_code, reason = "it makes the type not `Send`")] std::rc::Rc<()>);
    impl Service<Request<()>> for Local {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<()>, Infallible>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            std::future::ready(Ok(Response::new(())))
        }
    }
    let sessions = Sessions::new();
    let client = SessionLayer::new(&sessions).layer(ProfileLayer::new().layer(Local(std::rc::Rc::new(()))));
    let request = Request::get("http://a/").extension(SessionId::from("a")).body(()).unwrap();
    assert!(client.oneshot(request).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_is_buffered_and_replayed() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let layer = RenewalLayer::with_body_clone(&sessions, ReplayBody::try_clone)
        .expired_when(tower_client_sessions::Expired::status([403]))
        .renew_with(|renewal| async move {
            renewal.send(Request::get("http://a/login").body(ReplayBody::default())?).await?;
            renewal.ensure(renewal.has_cookie("sid"), "the login was not accepted")
        });
    let bytes = tower::service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let site = site.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = http_body_util::BodyExt::collect(body).await?.to_bytes();
            let is_whole = head.uri.path() == "/login" || body == "some text";
            assert!(is_whole, "the complete body arrives each time");
            site.oneshot(Request::from_parts(head, Full::new(body))).await
        }
    });
    let client = ServiceBuilder::new()
        .layer(PrebufferLayer::new(100))
        .layer(layer)
        .layer(SessionLayer::new(&sessions))
        .service(bytes);
    let request =
        || Request::post("http://a/").extension(SessionId::from("a")).body(Full::from("some text")).unwrap();
    let response: Response<Body> = client.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        assert_ready!(tokio_test::task::spawn(client.oneshot(request())).poll()).unwrap().status(),
        200
    );
}
