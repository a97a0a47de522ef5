//! What the layers allocate, counted: nothing on the way of a request whose session is open, and nothing for one that is held
//! beyond its future.

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

/// A service that answers at once. The answer has a header, as every answer has.
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

/// With a header, so that there is room for a few more.
fn request(naming: impl FnOnce(&mut http::Extensions)) -> Request<Body> {
    let mut request = Request::get(URL).body(Body::new()).unwrap();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/html"));
    naming(request.extensions_mut());
    request
}

/// The allocations of one call that does not wait, its answer and its drops included, once everything is warm.
fn allocations<S>(mut service: S, naming: impl Fn(&mut http::Extensions)) -> u64
where
    S: Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug>,
{
    let mut call = |request: Request<Body>| {
        let mut context = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut context).is_ready());
        let Poll::Ready(answer) = pin!(service.call(request)).poll(&mut context) else {
            panic!("nothing has to be waited for");
        };
        answer.unwrap()
    };
    for _ in 0..3 {
        call(request(&naming));
    }
    let request = request(&naming);
    measure(|| drop(call(request))).count_total
}

/// What http allocates for the first extension of an answer.
fn of_one_extension() -> u64 {
    let mut response = Response::new(Body::new());
    measure(|| assert!(response.extensions_mut().insert([0_u64; 16]).is_none())).count_total
}

fn by_name(extensions: &mut http::Extensions) {
    extensions.insert(SessionId::from("alice"));
}

#[test]
fn the_open_path_allocates_nothing_of_its_own() {
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
fn an_answer_that_tells_allocates_what_one_extension_takes() {
    let (sessions, _) = sessions();
    let told = allocations(SessionLayer::new(&sessions).layer(Bare), by_name);
    assert_eq!(told, allocations(Bare, |_| ()) + of_one_extension());
}

#[test]
fn the_gate_allocates_its_log_and_its_stamp() {
    let (sessions, _) = sessions();
    let layer = || {
        RenewalLayer::<Body>::new(&sessions).renew_with(|_: Renewal<Body>| async { Ok(()) }).replay_limit(0)
    };
    let below = allocations(SessionLayer::new(&sessions).layer(Bare), by_name);
    let through = allocations(layer().layer(SessionLayer::new(&sessions).layer(Bare)), by_name);
    assert_eq!(through, below + 2);
}

/// Polls a future once, which finds its gate shut.
fn is_held<F: Future>(future: std::pin::Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn a_held_request_allocates_nothing_beyond_its_future() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let sessions = Sessions::builder().login_first().build().unwrap();
    let mut client = RenewalLayer::new(&sessions)
        .renew_with(|_: Renewal<Body>| pending::<Result<(), BoxError>>())
        .layer(SessionLayer::new(&sessions).layer(Bare));
    // The first starts the renewal; a crowd that came and went has left its places, which grow as a vector does.
    let mut first = pin!(client.call(request(by_name)));
    is_held(first.as_mut());
    let mut crowd: Vec<_> = (0..100).map(|_| Box::pin(client.call(request(by_name)))).collect();
    crowd.iter_mut().for_each(|future| is_held(future.as_mut()));
    drop(crowd);

    let mut held = pin!(client.call(request(by_name)));
    let allocated = measure(|| is_held(held.as_mut()));
    assert_eq!(allocated.count_total, 0);
    assert_eq!(sessions.session("alice").waiting(), 2);
}

#[test]
fn a_waiter_at_a_gate_of_its_own_allocates_nothing_beyond_its_future() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let gate = RenewalGate::<u32>::pending(pending::<Result<u32, BoxError>>);
    let mut first = pin!(gate.acquire());
    is_held(first.as_mut());
    let mut crowd: Vec<_> = (0..100).map(|_| Box::pin(gate.acquire())).collect();
    crowd.iter_mut().for_each(|future| is_held(future.as_mut()));
    drop(crowd);

    let mut held = pin!(gate.acquire());
    assert_eq!(measure(|| is_held(held.as_mut())).count_total, 0);
}
