//! Counts the allocations of the layers: none for a request of an open session, and none for a
//! waiting request except its future.

use std::{
    convert::Infallible,
    future::{Future, Ready, pending, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use allocation_counter::measure;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Empty;
use tower::{Layer, Service};
use tower_client_sessions::{
    Profile, ProfileLayer, Profiles, Renewal, RenewalGate, RenewalLayer, Session, SessionId, SessionLayer,
    Sessions, gate::BoxError,
};

type Body = Empty<bytes::Bytes>;

const URL: &str = "https://www.shop.example/cart";

/// A service that responds immediately. The response has a header, like all real responses.
#[derive(Clone, Copy)]
struct Bare;

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(request);
        let mut response = Response::new(Body::new());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        ready(Ok(response))
    }
}

fn sessions() -> (Sessions, Session) {
    let profile = Profile::builder().user_agent("Mozilla/5.0").build().unwrap();
    let sessions = Sessions::builder().profiles(Profiles::new([profile]).unwrap()).build().unwrap();
    let session = sessions.session("alice");
    session.add_cookies([("sid", "1"), ("lang", "en")], URL).unwrap();
    (sessions, session)
}

/// A request with a header, so that the header map has capacity for more.
fn request(set_session: impl FnOnce(&mut http::Extensions)) -> Request<Body> {
    let mut request = Request::get(URL).body(Body::new()).unwrap();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/html"));
    set_session(request.extensions_mut());
    request
}

/// The allocations of a call that does not wait, including those of its response, after warm-up.
fn allocations<S>(mut service: S, set_session: impl Fn(&mut http::Extensions)) -> u64
where
    S: Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug>,
{
    let mut call = |request: Request<Body>| {
        let mut context = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut context).is_ready());
        let Poll::Ready(response) = pin!(service.call(request)).poll(&mut context) else {
            panic!("the call should not wait");
        };
        response.unwrap()
    };
    for _ in 0..3 {
        call(request(&set_session));
    }
    let request = request(&set_session);
    measure(|| drop(call(request))).count_total
}

/// The allocations of the crate `http` for the first extension of a response.
fn of_one_extension() -> u64 {
    let mut response = Response::new(Body::new());
    measure(|| assert!(response.extensions_mut().insert([0_u64; 16]).is_none())).count_total
}

fn by_name(extensions: &mut http::Extensions) {
    extensions.insert(SessionId::from("alice"));
}

#[test]
fn the_layers_allocate_nothing_for_an_open_session() {
    let (sessions, session) = sessions();
    let by_handle = |extensions: &mut http::Extensions| drop(extensions.insert(session.clone()));
    let plain = || SessionLayer::new(&sessions).without_info().layer(Bare);
    let profiled = || SessionLayer::new(&sessions).without_info().layer(ProfileLayer::new().layer(Bare));
    let bare = allocations(Bare, |_| ());
    assert_eq!(allocations(plain(), by_name), bare);
    assert_eq!(allocations(plain(), by_handle), bare);
    assert_eq!(allocations(profiled(), by_name), bare);
    assert_eq!(allocations(profiled(), by_handle), bare);
}

#[test]
fn a_response_with_session_info_allocates_one_extension() {
    let (sessions, _) = sessions();
    let with_info = allocations(SessionLayer::new(&sessions).layer(Bare), by_name);
    assert_eq!(with_info, allocations(Bare, |_| ()) + of_one_extension());
}

#[test]
fn the_renewal_layer_allocates_its_log_and_its_context() {
    let (sessions, _) = sessions();
    let layer = || {
        RenewalLayer::<Body>::new(&sessions).renew_with(|_: Renewal<Body>| async { Ok(()) }).replay_limit(0)
    };
    let below = allocations(SessionLayer::new(&sessions).layer(Bare), by_name);
    let through = allocations(layer().layer(SessionLayer::new(&sessions).layer(Bare)), by_name);
    assert_eq!(through, below + 2);
}

/// Polls a future once, and asserts that it waits at its gate.
fn assert_waits<F: Future>(future: std::pin::Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn a_waiting_request_allocates_only_its_future() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let sessions = Sessions::builder().login_first().build().unwrap();
    let mut client = RenewalLayer::new(&sessions)
        .renew_with(|_: Renewal<Body>| pending::<Result<(), BoxError>>())
        .layer(SessionLayer::new(&sessions).layer(Bare));
    // The first request starts the renewal. The others grow the queue, which keeps its capacity
    // when they are dropped.
    let mut first = pin!(client.call(request(by_name)));
    assert_waits(first.as_mut());
    let mut others: Vec<_> = (0..100).map(|_| Box::pin(client.call(request(by_name)))).collect();
    others.iter_mut().for_each(|future| assert_waits(future.as_mut()));
    drop(others);

    let mut waiting = pin!(client.call(request(by_name)));
    let allocated = measure(|| assert_waits(waiting.as_mut()));
    assert_eq!(allocated.count_total, 0);
    assert_eq!(sessions.session("alice").waiting(), 2);
}

#[test]
fn a_waiter_at_a_standalone_gate_allocates_only_its_future() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let gate = RenewalGate::<u32>::pending(pending::<Result<u32, BoxError>>);
    let mut first = pin!(gate.acquire());
    assert_waits(first.as_mut());
    let mut others: Vec<_> = (0..100).map(|_| Box::pin(gate.acquire())).collect();
    others.iter_mut().for_each(|future| assert_waits(future.as_mut()));
    drop(others);

    let mut waiting = pin!(gate.acquire());
    assert_eq!(measure(|| assert_waits(waiting.as_mut())).count_total, 0);
}
