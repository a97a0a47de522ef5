//! Servers that replace the id of a session while requests are in flight.

use http::{Request, Response};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{Expired, Renewal, RenewalLayer, SessionId, SessionInfo, SessionLayer, Sessions};

use crate::support::Body;

/// A request that waits for its response.
struct Call {
    path: String,
    cookie: Option<String>,
    respond: oneshot::Sender<Response<Body>>,
}

impl Call {
    fn respond(self, status: u16, set_cookie: Option<&str>) {
        let mut response = Response::builder().status(status);
        if let Some(cookie) = set_cookie {
            response = response.header("set-cookie", cookie);
        }
        self.respond.send(response.body(Body::default()).unwrap()).unwrap();
    }
}

/// A client whose server is the test.
struct World {
    sessions: Sessions,
    calls: mpsc::UnboundedReceiver<Call>,
    client: tower::util::BoxCloneService<Request<Body>, Response<Body>, BoxError>,
}

impl World {
    /// Creates a client whose session has the cookie `sid=1`.
    async fn new(replay_limit: u32) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let site = tower::service_fn(move |request: Request<Body>| {
            let (respond, response) = oneshot::channel();
            let cookie = request.headers().get("cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
            sender.send(Call { path: request.uri().path().to_owned(), cookie, respond }).ok().unwrap();
            async move { Ok::<_, BoxError>(response.await?) }
        });
        let sessions = Sessions::new();
        let layer = RenewalLayer::new(&sessions)
            .expired_when(Expired::status([403]))
            .replay_limit(replay_limit)
            .renew_with(|renewal: Renewal<Body>| async move {
                let login = Request::get("http://shop.example/login").body(Body::default())?;
                renewal.send(login).await?;
                renewal.ensure(renewal.has_cookie("sid"), "the login set no cookie")
            });
        let client = ServiceBuilder::new().layer(layer).layer(SessionLayer::new(&sessions)).service(site);
        let mut world = Self { sessions, calls, client: tower::util::BoxCloneService::new(client) };
        let first = world.get("/first");
        world.sent("/first", None).await.respond(200, Some("sid=1; Path=/"));
        assert_eq!(first.await.unwrap(), 200);
        world
    }

    /// Starts a request. Its task returns the status of its response.
    fn get(&self, path: &str) -> JoinHandle<u16> {
        let request = Request::get(format!("http://shop.example{path}"))
            .extension(SessionId::from("a"))
            .body(Body::default())
            .unwrap();
        let response = self.client.clone().oneshot(request);
        tokio::spawn(async move {
            let response = response.await.unwrap();
            assert!(response.extensions().get::<SessionInfo>().is_some());
            response.status().as_u16()
        })
    }

    /// Returns the next request that was sent.
    async fn sent(&mut self, path: &str, cookie: Option<&str>) -> Call {
        let call = self.calls.recv().await.unwrap();
        assert_eq!((call.path.as_str(), call.cookie.as_deref()), (path, cookie));
        call
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_61_a_request_whose_cookies_were_replaced_in_flight_is_sent_again_first() {
    let mut world = World::new(2).await;
    let (a, b) = (world.get("/a"), world.get("/b"));
    let (call_a, call_b) = (world.sent("/a", Some("sid=1")).await, world.sent("/b", Some("sid=1")).await);
    call_a.respond(200, Some("sid=2; Path=/"));
    assert_eq!(a.await.unwrap(), 200);
    call_b.respond(403, None);
    world.sent("/b", Some("sid=2")).await.respond(200, None);
    assert_eq!(b.await.unwrap(), 200);
    let stats = world.sessions.stats();
    assert_eq!((stats.renewals_started, stats.replayed_cookies_changed, stats.replayed()), (0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn hazard_61_the_second_rejection_ends_the_session() {
    let mut world = World::new(2).await;
    let (a, b) = (world.get("/a"), world.get("/b"));
    let (call_a, call_b) = (world.sent("/a", Some("sid=1")).await, world.sent("/b", Some("sid=1")).await);
    call_a.respond(200, Some("sid=2; Path=/"));
    assert_eq!(a.await.unwrap(), 200);
    call_b.respond(403, None);
    let call_b = world.sent("/b", Some("sid=2")).await;
    // The cookies change once more. That does not delay the renewal again.
    let c = world.get("/c");
    world.sent("/c", Some("sid=2")).await.respond(200, Some("sid=3; Path=/"));
    assert_eq!(c.await.unwrap(), 200);
    call_b.respond(403, None);
    world.sent("/login", None).await.respond(200, Some("sid=4; Path=/"));
    world.sent("/b", Some("sid=4")).await.respond(200, None);
    assert_eq!(b.await.unwrap(), 200);
    assert_eq!(world.sessions.stats().renewals_committed, 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_61_a_request_whose_cookies_are_the_same_ends_the_session() {
    let mut world = World::new(2).await;
    let (a, b) = (world.get("/a"), world.get("/b"));
    let (call_a, call_b) = (world.sent("/a", Some("sid=1")).await, world.sent("/b", Some("sid=1")).await);
    // The same value, and a cookie for another path.
    call_a.respond(200, Some("sid=1; Path=/; Max-Age=60"));
    assert_eq!(a.await.unwrap(), 200);
    call_b.respond(403, Some("seen=1; Path=/other"));
    world.sent("/login", None).await.respond(200, Some("sid=2; Path=/"));
    world.sent("/b", Some("sid=2")).await.respond(200, None);
    assert_eq!(b.await.unwrap(), 200);
    assert_eq!(world.sessions.stats().replayed_cookies_changed, 0);
}

#[tokio::test(start_paused = true)]
async fn hazard_62_a_cookie_of_a_rejected_response_does_not_replace_a_newer_one() {
    for set_cookie in ["sid=anonymous; Path=/", "sid=; Path=/; Max-Age=0"] {
        let mut world = World::new(2).await;
        let (a, b) = (world.get("/a"), world.get("/b"));
        let (call_a, call_b) = (world.sent("/a", Some("sid=1")).await, world.sent("/b", Some("sid=1")).await);
        call_a.respond(200, Some("sid=2; Path=/"));
        assert_eq!(a.await.unwrap(), 200);
        call_b.respond(403, Some(set_cookie));
        world.sent("/b", Some("sid=2")).await.respond(200, None);
        assert_eq!(b.await.unwrap(), 200, "{set_cookie}");
        assert_eq!(world.sessions.stats().renewals_started, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_62_a_cookie_of_a_rejected_response_is_stored_if_none_is_newer() {
    let mut world = World::new(0).await;
    let a = world.get("/a");
    world.sent("/a", Some("sid=1")).await.respond(403, Some("sid=2; Path=/"));
    assert_eq!(a.await.unwrap(), 403);
    let info = world.sessions.stats();
    assert_eq!((info.cookies_stored, info.replayed()), (2, 0));
}
