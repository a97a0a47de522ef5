//! Shared parts of the benches: the bare service, requests and responses, the stacks, and the
//! peers.

pub(crate) mod crowd;
pub(crate) mod loopback;
pub(crate) mod memory;
pub(crate) mod time;

use std::{
    convert::Infallible,
    future::{Future, Ready},
    pin::{Pin, pin},
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Empty;
use pin_project_lite::pin_project;
use reqwest::{Url, cookie::CookieStore};
use tower::{Layer, Service};
use tower_client_sessions::{
    Expired, Profile, ProfileLayer, Profiles, RedirectLayer, Renewal, RenewalLayer, Session, SessionLayer,
    Sessions,
    cookies::{CookieUrl, Jar, Limits, Timestamp},
    profile::Proxy,
    redirect::follow_redirects,
};

pub(crate) type Body = Empty<Bytes>;

pub(crate) const DOMAINS: [usize; 3] = [1, 100, 10_000];
pub(crate) const COOKIES: [usize; 3] = [1, 5, 20];

/// The name of the session of the requests.
pub(crate) const NAME: u32 = 4_711;

pub(crate) fn url(domain: usize) -> String {
    format!("https://www.site{domain}.com/account/orders?page=2")
}

/// Returns the page of the requests. Its position among the domains has little effect on any jar.
pub(crate) fn page(domains: usize) -> Uri {
    url(domains / 2).parse().expect("the url is well formed")
}

pub(crate) fn set_cookie(cookie: usize) -> String {
    // A year ahead: the peers use the system clock.
    format!("name{cookie}=value-of-some-length-{cookie}; Path=/; Secure; HttpOnly; Max-Age=31536000")
}

/// The `Set-Cookie` headers of the responses, sent in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sets {
    Nothing,
    Same,
    Changed,
}

/// A service that responds immediately and does nothing else.
#[derive(Clone, Copy)]
pub(crate) struct Bare {
    /// Leaked, so that a clone costs nothing.
    set_cookies: &'static [Option<HeaderValue>],
    turn: &'static AtomicUsize,
}

impl Bare {
    pub(crate) fn new(sets: Sets) -> Self {
        let value = |text: String| Some(HeaderValue::from_str(&text).expect("the text is ASCII"));
        let same = set_cookie(0);
        let set_cookies = match sets {
            Sets::Nothing => vec![None],
            Sets::Same => vec![value(same)],
            Sets::Changed => vec![value(same.replace("value", "other")), value(same)],
        };
        Self { set_cookies: set_cookies.leak(), turn: Box::leak(Box::default()) }
    }
}

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(std::hint::black_box(request));
        let mut response = Response::new(Body::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        let turn = match self.set_cookies.len() {
            1 => 0,
            len => self.turn.fetch_add(1, Ordering::Relaxed) % len,
        };
        if let Some(set_cookie) = &self.set_cookies[turn] {
            headers.insert(header::SET_COOKIE, set_cookie.clone());
        }
        std::future::ready(Ok(response))
    }
}

/// Returns a request with six headers like a browser's; one more would grow the header map.
pub(crate) fn request(uri: &Uri) -> Request<Body> {
    let mut request = Request::new(Body::new());
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    for (name, value) in [
        (header::ACCEPT, "text/html,application/xhtml+xml"),
        (header::ACCEPT_LANGUAGE, "en-GB,en;q=0.8"),
        (header::ACCEPT_ENCODING, "gzip, br"),
        (header::REFERER, "https://www.example.com/"),
        (header::UPGRADE_INSECURE_REQUESTS, "1"),
        (header::DNT, "1"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    request
}

/// Polls a future that is ready immediately.
pub(crate) fn now_or_never<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future is pending"),
    }
}

/// Sends one request through a service that is ready immediately.
pub(crate) fn send<S>(service: &mut S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug>,
{
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    now_or_never(service.call(request)).expect("the service responds")
}

/// Returns ten thousand sessions; one of them has `cookies` on each of `domains` domains.
pub(crate) fn sessions(domains: usize, cookies: usize) -> (Sessions, Session) {
    with_profiles(domains, cookies, None)
}

/// Like [`sessions`], with a profile for each identity.
pub(crate) fn profiled_sessions(domains: usize, cookies: usize) -> (Sessions, Session) {
    let profile = Profile::builder()
        .proxy(Proxy::direct())
        .user_agent("Mozilla/5.0 (X11; Linux x86_64)")
        .build()
        .expect("the profile is good");
    with_profiles(domains, cookies, Some(Profiles::new([profile]).expect("there is a profile")))
}

fn with_profiles(domains: usize, cookies: usize, profiles: Option<Profiles>) -> (Sessions, Session) {
    let builder = Sessions::builder();
    let sessions = match profiles {
        Some(profiles) => builder.profiles(profiles).build().unwrap(),
        None => builder.build().unwrap(),
    };
    for name in 0..10_000_u32 {
        sessions.session(name);
    }
    let session = sessions.session(NAME);
    session.replace(jar(domains, cookies, Timestamp::now()));
    (sessions, session)
}

/// Returns a jar that was filled at `now`.
pub(crate) fn jar(domains: usize, cookies: usize, now: Timestamp) -> Jar {
    let mut jar = Jar::with_limits(Limits::default().total(u32::MAX));
    for domain in 0..domains {
        let url = url(domain);
        let target = CookieUrl::parse(&url).expect("the url is well formed");
        for cookie in 0..cookies {
            jar.store_set_cookie(&target, set_cookie(cookie).as_bytes(), now).expect("the cookie is good");
        }
    }
    jar
}

/// Adds five cookies for a page of another site to a session.
pub(crate) fn share(session: &Session, page: &Uri) {
    let pairs = (0..5).map(|cookie| (format!("name{cookie}"), format!("value-of-some-length-{cookie}")));
    session.add_cookies(pairs, &page.to_string()).expect("the cookies are good");
}

/// Whether the renewal layer replays requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replays {
    Off,
    On,
}

/// Returns the renewal layer of the README.
pub(crate) fn renewal(sessions: &Sessions, replays: Replays) -> RenewalLayer<Body> {
    let layer = RenewalLayer::new(sessions)
        .expired_when(Expired::status([401, 403]).or(Expired::redirect_to("/login")))
        .renew_with(|_: Renewal<Body>| async { Ok(()) });
    match replays {
        Replays::Off => layer.replay_limit(0),
        Replays::On => layer,
    }
}

/// A function that sends a request through a stack of any type.
pub(crate) type Stack = Box<dyn FnMut(Request<Body>) -> Response<Body>>;

pub(crate) fn boxed<S>(mut service: S) -> Stack
where
    S: Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug> + 'static,
{
    Box::new(move |request| send(&mut service, request))
}

pub(crate) fn session_stack(sessions: &Sessions, sets: Sets) -> Stack {
    boxed(SessionLayer::new(sessions).layer(Bare::new(sets)))
}

pub(crate) fn profile_stack(sessions: &Sessions, sets: Sets) -> Stack {
    let bare = Bare::new(sets);
    boxed(SessionLayer::new(sessions).layer(ProfileLayer::new().layer(bare)))
}

pub(crate) fn gate_stack(sessions: &Sessions, replays: Replays, sets: Sets) -> Stack {
    boxed(renewal(sessions, replays).layer(SessionLayer::new(sessions).layer(Bare::new(sets))))
}

/// Returns all layers, in the order of the README.
pub(crate) fn whole_stack(sessions: &Sessions, sets: Sets) -> Stack {
    let below = SessionLayer::new(sessions).layer(ProfileLayer::new().layer(Bare::new(sets)));
    boxed(renewal(sessions, Replays::On).layer(RedirectLayer::new(10).layer(below)))
}

/// Returns the redirect layer alone.
pub(crate) fn redirect_stack(sets: Sets) -> Stack {
    boxed(RedirectLayer::new(10).layer(Bare::new(sets)))
}

/// Returns tower-http's redirect layer alone.
pub(crate) fn tower_http_redirect_stack(sets: Sets) -> Stack {
    boxed(follow_redirects(10).layer(Bare::new(sets)))
}

/// A copy of the work of reqwest's private cookie layer: it parses the URI as a `Url` and asks the
/// store.
#[derive(Clone)]
pub(crate) struct ReqwestLayer<S> {
    inner: S,
    store: Arc<dyn CookieStore>,
}

impl<S> ReqwestLayer<S> {
    pub(crate) fn new(inner: S, store: Arc<dyn CookieStore>) -> Self {
        Self { inner, store }
    }
}

impl<S, R> Service<Request<Body>> for ReqwestLayer<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Storing<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let spare = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, spare);
        let url = Url::parse(&request.uri().to_string()).expect("the uri is absolute");
        if request.headers().get(header::COOKIE).is_none()
            && let Some(cookie) = self.store.cookies(&url)
        {
            request.headers_mut().insert(header::COOKIE, cookie);
        }
        Storing { inner: ready.call(request), store: self.store.clone(), url }
    }
}

pin_project! {
    /// The future of [`ReqwestLayer`].
    pub(crate) struct Storing<F> {
        #[pin]
        inner: F,
        store: Arc<dyn CookieStore>,
        url: Url,
    }
}

impl<F, R, E> Future for Storing<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(context));
        if let Ok(response) = &result {
            let mut cookies = response.headers().get_all(header::SET_COOKIE).iter().peekable();
            if cookies.peek().is_some() {
                this.store.set_cookies(&mut cookies, this.url);
            }
        }
        Poll::Ready(result)
    }
}

/// Returns reqwest's own store.
pub(crate) fn reqwest_jar(domains: usize, cookies: usize) -> Arc<dyn CookieStore> {
    Arc::new(filled_reqwest_jar(domains, cookies))
}

/// Like [`reqwest_jar`], with five cookies for a page of another site.
pub(crate) fn reqwest_jar_for(domains: usize, page: &Uri) -> Arc<dyn CookieStore> {
    let jar = filled_reqwest_jar(domains, 5);
    let url = Url::parse(&page.to_string()).expect("the uri is absolute");
    for cookie in 0..5 {
        jar.add_cookie_str(&format!("name{cookie}=value-of-some-length-{cookie}; Path=/"), &url);
    }
    Arc::new(jar)
}

pub(crate) fn filled_reqwest_jar(domains: usize, cookies: usize) -> reqwest::cookie::Jar {
    let jar = reqwest::cookie::Jar::default();
    for domain in 0..domains {
        let url = Url::parse(&url(domain)).expect("the url is well formed");
        for cookie in 0..cookies {
            jar.add_cookie_str(&set_cookie(cookie), &url);
        }
    }
    jar
}

/// Returns a jar of the crate `cookie_store` behind a lock, like the crate `reqwest_cookie_store`.
pub(crate) fn cookie_store(domains: usize, cookies: usize) -> Arc<dyn CookieStore> {
    Arc::new(Store(RwLock::new(filled_cookie_store(domains, cookies))))
}

pub(crate) fn filled_cookie_store(domains: usize, cookies: usize) -> cookie_store::CookieStore {
    let mut store = cookie_store::CookieStore::default();
    for domain in 0..domains {
        let url = Url::parse(&url(domain)).expect("the url is well formed");
        for cookie in 0..cookies {
            store.parse(&set_cookie(cookie), &url).expect("the cookie is good");
        }
    }
    store
}

struct Store(RwLock<cookie_store::CookieStore>);

impl CookieStore for Store {
    fn set_cookies(&self, headers: &mut dyn Iterator<Item = &HeaderValue>, url: &Url) {
        let mut store = self.0.write().expect("nothing panics under this lock");
        for header in headers {
            if let Ok(text) = header.to_str() {
                let _ = store.parse(text, url);
            }
        }
    }

    fn cookies(&self, url: &Url) -> Option<HeaderValue> {
        cookie_store_header(&self.0.read().expect("nothing panics under this lock"), url)
    }
}

/// Returns the header that reqwest's layer would take from a `cookie_store`.
pub(crate) fn cookie_store_header(store: &cookie_store::CookieStore, url: &Url) -> Option<HeaderValue> {
    let pairs: Vec<_> =
        store.get_request_values(url).map(|(name, value)| format!("{name}={value}")).collect();
    let text = pairs.join("; ");
    (!text.is_empty()).then(|| HeaderValue::from_maybe_shared(Bytes::from(text)).expect("the text is ASCII"))
}

pub(crate) fn peer_stack(store: Arc<dyn CookieStore>, sets: Sets) -> Stack {
    boxed(ReqwestLayer::new(Bare::new(sets), store))
}
