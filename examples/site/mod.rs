//! A small site with logins for the examples and tests: a real HTTP/1 server on a loopback address.
//!
//! An account (`acct=NAME` in the query) has one session at a time. `/login` takes a while and then
//! issues a new `sid`; from that moment on, older ones of the account are rejected. A `sid` is
//! valid for a limited number of pages, its budget. A page is rejected or reserved when its request
//! arrives, as real sites do. A request that is cancelled before its response returns its page to
//! the budget.
//!
//! | path | response |
//! | --- | --- |
//! | `/login?acct=a` | a new `sid`, and a refresh token in the header `x-refresh`; or the next of [`SiteConfig::login_faults`] |
//! | `/login?acct=a&refresh=TOKEN` | the same without the delay of a login, for a token that was not used before; or 401 |
//! | `/login` | a form with status 200, to which rejected pages may redirect |
//! | `/page/7?acct=a` | 200, or the rejection; or 403 with the header `x-forbidden`, if [`SiteConfig::forbid_every`] forbids it |
//! | `/hop?to=URL&cookie=n=v` | 302 to `URL` (percent-encoded), with the cookie set |
//! | `/echo` | the request as JSON: `{"method": …, "uri": …, "headers": [[name, value], …]}` |
//!
//! A refresh token is valid for one use, which happens when the request arrives. All tokens that
//! descend from one login form a family. A token that is used twice ends its family, tokens and
//! `sid`, as sites do when tokens were stolen. A refresh counts as a login.
//!
//! The query of a page sets further behaviour: `late_ms=50` delays the response; `resend_sid` sets
//! the `sid` of the request again; `set_cookie=n%3Dv` and `header=name:value` add to the response;
//! `cut=close`, `cut=reset` and `cut=half` abort it, before its head or in the middle of its body;
//! `drip_ms=5` pauses before each byte.
//!
//! A page requested without an account belongs to the account of its `sid`. A site that is
//! [`exclusive`](SiteConfig::exclusive) allows one page of an account at a time, from the arrival
//! of the request to the end of the body, and bans an account that requests two.
//!
//! The server stops when its [`Site`] is dropped or [shut down](Site::shutdown).

// Each program that includes this file uses only a part of it.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Sleep, sleep},
};

/// The maximum number of open connections; further ones wait to be accepted.
const CONNECTIONS: usize = 16_384;

/// The behaviour of a site.
#[derive(Clone, Debug)]
pub(crate) struct SiteConfig {
    /// The number of pages that one `sid` is valid for.
    pub(crate) budget: u32,
    /// The duration of a login.
    pub(crate) login_ms: u64,
    /// The duration of a page, including a rejected one.
    pub(crate) latency_ms: u64,
    /// What the first logins do instead of succeeding, in order.
    pub(crate) login_faults: Vec<LoginFault>,
    /// How a page without a valid `sid` is rejected.
    pub(crate) refusal: Refusal,
    /// Whether an account is limited to one page at a time. An account that requests two is banned:
    /// all of its further pages and logins are rejected.
    pub(crate) exclusive: bool,
    /// Forbids every page whose number is a multiple of this one, except page 0, whatever its
    /// `sid`. A forbidden page does not count towards the budget.
    pub(crate) forbid_every: Option<NonZeroUsize>,
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self {
            budget: 500,
            login_ms: 50,
            latency_ms: 5,
            login_faults: Vec::new(),
            refusal: Refusal::Forbidden,
            exclusive: false,
            forbid_every: None,
        }
    }
}

impl SiteConfig {
    fn forbids(&self, page: &str) -> bool {
        let number = page.parse().unwrap_or(0_usize);
        self.forbid_every.is_some_and(|every| number > 0 && number % every == 0)
    }
}

/// What a login does instead of succeeding in time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LoginFault {
    /// Responds with status 500.
    Error,
    /// Responds with status 200, without the cookie.
    NoCookie,
    /// Closes the connection without a response.
    Close,
    /// Does not respond until the site stops or the client disconnects.
    Never,
    /// Succeeds after an additional delay in milliseconds.
    Delay(u64),
}

/// How a page is rejected.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// By status 403.
    Forbidden,
    /// By status 200 with a body that says "session expired".
    Page,
    /// By status 302 to `/login`.
    Redirect,
}

/// What the server has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Requests of all kinds.
    pub(crate) requests: u64,
    /// Accepted connections.
    pub(crate) connections: u64,
    /// Pages served to a valid `sid`.
    pub(crate) pages_ok: u64,
    /// Rejected pages.
    pub(crate) pages_refused: u64,
    /// Responses to pages that the site forbids.
    pub(crate) pages_forbidden: u64,
    /// Logins by account.
    pub(crate) accounts: BTreeMap<String, AccountCounters>,
    /// Pages requested while another page of the account was in flight; each causes a ban.
    pub(crate) overlaps: u64,
    /// The highest number of pages of one account that were in flight at the same time.
    pub(crate) pages_in_flight_max: u32,
    /// Logins that started with a valid token.
    pub(crate) refreshes: u32,
    /// Tokens that were used again; each ends its family.
    pub(crate) refreshes_reused: u32,
    /// Pages served, by `sid`.
    pub(crate) sid_pages: BTreeMap<String, u32>,
    /// The addresses from which each account was used.
    pub(crate) peers: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// The logins of one account.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccountCounters {
    /// Logins that started.
    pub(crate) tries: u32,
    /// Logins that issued a `sid`.
    pub(crate) logins: u32,
    /// Logins that are running.
    pub(crate) concurrent: u32,
    /// The highest number of concurrent logins.
    pub(crate) concurrent_max: u32,
}

impl Counters {
    /// Returns the number of logins of all accounts that issued a `sid`.
    pub(crate) fn logins(&self) -> u32 {
        self.accounts.values().map(|account| account.logins).sum()
    }

    /// Returns the highest number of concurrent logins of one account.
    pub(crate) fn logins_concurrent_max(&self) -> u32 {
        self.accounts.values().map(|account| account.concurrent_max).max().unwrap_or(0)
    }

    /// Returns all addresses from which an account was used.
    pub(crate) fn peers(&self) -> BTreeSet<IpAddr> {
        self.peers.values().flatten().copied().collect()
    }

    /// Returns the highest number of addresses from which one account was used.
    pub(crate) fn peers_max(&self) -> usize {
        self.peers.values().map(BTreeSet::len).max().unwrap_or(0)
    }
}

/// A running site.
#[derive(Debug)]
pub(crate) struct Site {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Stops the server when it is dropped.
    stop: oneshot::Sender<Infallible>,
    server: JoinHandle<()>,
}

impl Site {
    /// Starts a site on a free port of 127.0.0.1.
    pub(crate) async fn start(config: SiteConfig) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        // With the usual 1024, thousands of concurrent clients would wait for a second and retry.
        let listener = socket.listen(4096)?;
        let addr = listener.local_addr()?;
        let state = State { login_faults: config.login_faults.iter().copied().collect(), ..State::default() };
        let shared = Arc::new(Shared { config, state: Mutex::new(state) });
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, shared.clone(), stopped));
        Ok(Self { addr, shared, stop, server })
    }

    /// Returns the address of the server.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Returns the current counters.
    pub(crate) fn counters(&self) -> Counters {
        self.shared.state().counters.clone()
    }

    /// Stops the server and waits until every connection is closed.
    pub(crate) async fn shutdown(self) -> Counters {
        drop(self.stop);
        // The server ends without an error; if it panics, the counters are still valid.
        let _ = self.server.await;
        self.shared.state().counters.clone()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<Infallible>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    shared.state().counters.connections += 1;
                    connections.spawn(connection(stream, peer.ip(), shared.clone()));
                }
                // Out of file descriptors: other connections must close first.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, peer: IpAddr, shared: Arc<Shared>) {
    // Otherwise, small responses would wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| respond(shared.clone(), peer, request));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let Err(error) = (&mut connection).await else {
        return;
    };
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if source.is_some_and(|source| source.kind() == RESET) {
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

/// The kind of the errors by which the site aborts a connection.
const CLOSE: io::ErrorKind = io::ErrorKind::ConnectionAborted;
const RESET: io::ErrorKind = io::ErrorKind::ConnectionReset;

type SiteResponse = Response<BoxBody<Bytes, io::Error>>;

#[derive(Debug)]
struct Shared {
    config: SiteConfig,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    login_faults: VecDeque<LoginFault>,
    /// The valid `sid` of each account.
    current: BTreeMap<String, Sid>,
    sids: u64,
    tokens: BTreeMap<String, Token>,
    /// The families that have ended.
    void: BTreeSet<u64>,
    families: u64,
    /// The number of pages in flight, by account.
    running: BTreeMap<String, u32>,
    banned: BTreeSet<String>,
}

#[derive(Debug)]
struct Sid {
    value: String,
    family: u64,
    /// One permit for each page; an unused permit is returned on drop.
    budget: Arc<Semaphore>,
}

/// A refresh token.
#[derive(Debug)]
struct Token {
    account: String,
    family: u64,
    is_used: bool,
}

impl State {
    fn account(&mut self, account: &str) -> &mut AccountCounters {
        self.counters.accounts.entry(account.to_owned()).or_default()
    }

    /// Returns the account of a `sid`.
    fn owner(&self, sid: &str) -> Option<String> {
        self.current.iter().find(|(_, current)| current.value == sid).map(|(account, _)| account.clone())
    }

    /// Uses up a token. Returns the family of its successor, or `None` if the token is invalid.
    fn refresh(&mut self, account: &str, token: &str) -> Option<u64> {
        let token = self.tokens.get_mut(token).filter(|token| token.account == account)?;
        let family = token.family;
        if std::mem::replace(&mut token.is_used, true) {
            self.counters.refreshes_reused += 1;
            self.void.insert(family);
            self.current.retain(|_, sid| sid.family != family);
            return None;
        }
        let is_good = !self.void.contains(&family);
        self.counters.refreshes += u32::from(is_good);
        is_good.then_some(family)
    }

    fn new_family(&mut self) -> u64 {
        self.families += 1;
        self.families
    }

    /// Reserves a page of the budget. `None` if the `sid` is not the account's current one, or its
    /// budget is used up.
    fn reserve(&self, account: &str, sid: &str) -> Option<OwnedSemaphorePermit> {
        let current = self.current.get(account).filter(|current| current.value == sid)?;
        current.budget.clone().try_acquire_owned().ok()
    }
}

async fn respond(shared: Arc<Shared>, peer: IpAddr, request: Request<Incoming>) -> io::Result<SiteResponse> {
    shared.state().counters.requests += 1;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if let Some(account) = query.get("acct") {
        shared.state().counters.peers.entry(account.to_owned()).or_default().insert(peer);
    }
    match (request.uri().path(), query.get("acct")) {
        ("/login", None) => Ok(text(StatusCode::OK, "<form action=\"/login\">please log in</form>")),
        ("/login", Some(account)) => login(&shared, account, query.get("refresh")).await,
        ("/hop", _) => Ok(hop(&query)),
        ("/echo", _) => Ok(echo(&request)),
        (path, account) => match path.strip_prefix("/page/") {
            Some(page) => {
                let owner = || shared.state().owner(sid_of(&request)?.as_str());
                let account = account.map(str::to_owned).or_else(owner).unwrap_or_else(|| "0".to_owned());
                serve_page(&shared, &account, page, &request, &query).await
            }
            None => Ok(text(StatusCode::NOT_FOUND, "no such page\n")),
        },
    }
}

async fn login(shared: &Shared, account: &str, token: Option<&str>) -> io::Result<SiteResponse> {
    let _running = LoginRunning::new(shared, account);
    if shared.state().banned.contains(account) {
        return Ok(text(StatusCode::FORBIDDEN, "banned\n"));
    }
    let family = match token {
        Some(token) => shared.state().refresh(account, token),
        None => Some(shared.state().new_family()),
    };
    let Some(family) = family else {
        return Ok(text(StatusCode::UNAUTHORIZED, "log in\n"));
    };
    let fault = shared.state().login_faults.pop_front();
    sleep(Duration::from_millis(shared.config.login_ms)).await;
    match fault {
        Some(LoginFault::Error) => return Ok(text(StatusCode::INTERNAL_SERVER_ERROR, "later\n")),
        Some(LoginFault::NoCookie) => return Ok(text(StatusCode::OK, "welcome\n")),
        Some(LoginFault::Close) => return Err(CLOSE.into()),
        Some(LoginFault::Never) => std::future::pending().await,
        Some(LoginFault::Delay(ms)) => sleep(Duration::from_millis(ms)).await,
        None => {}
    }
    let mut state = shared.state();
    if state.void.contains(&family) {
        return Ok(text(StatusCode::UNAUTHORIZED, "log in\n"));
    }
    state.sids += 1;
    let value = format!("s{}", state.sids);
    let mut response = text(StatusCode::OK, "welcome\n");
    set_cookie(&mut response, &sid_cookie(&value));
    let token = format!("r{}", state.sids);
    response.headers_mut().insert("x-refresh", HeaderValue::try_from(&token).expect("letters and digits"));
    state.tokens.insert(token, Token { account: account.to_owned(), family, is_used: false });
    let budget = Arc::new(Semaphore::new(shared.config.budget as usize));
    state.account(account).logins += 1;
    state.counters.sid_pages.insert(value.clone(), 0);
    state.current.insert(account.to_owned(), Sid { value, family, budget });
    Ok(response)
}

/// Counts a login until its response is complete or its client has disconnected.
struct LoginRunning<'a>(&'a Shared, &'a str);

impl<'a> LoginRunning<'a> {
    fn new(shared: &'a Shared, account: &'a str) -> Self {
        let mut state = shared.state();
        let counters = state.account(account);
        counters.tries += 1;
        counters.concurrent += 1;
        counters.concurrent_max = counters.concurrent_max.max(counters.concurrent);
        Self(shared, account)
    }
}

impl Drop for LoginRunning<'_> {
    fn drop(&mut self) {
        self.0.state().account(self.1).concurrent -= 1;
    }
}

/// Counts a page until its body ends or its client disconnects. Exceeding the limit causes a ban.
struct PageRunning(Arc<Shared>, String);

impl PageRunning {
    fn new(shared: &Arc<Shared>, account: &str) -> Self {
        let mut state = shared.state();
        let running = state.running.entry(account.to_owned()).or_default();
        *running += 1;
        let running = *running;
        state.counters.pages_in_flight_max = state.counters.pages_in_flight_max.max(running);
        if running > 1 && shared.config.exclusive && state.current.contains_key(account) {
            state.counters.overlaps += 1;
            state.banned.insert(account.to_owned());
            state.current.remove(account);
        }
        Self(shared.clone(), account.to_owned())
    }
}

impl Drop for PageRunning {
    fn drop(&mut self) {
        if let Some(running) = self.0.state().running.get_mut(&self.1) {
            *running -= 1;
        }
    }
}

async fn serve_page(
    shared: &Arc<Shared>,
    account: &str,
    page: &str,
    request: &Request<Incoming>,
    query: &Query,
) -> io::Result<SiteResponse> {
    let running = PageRunning::new(shared, account);
    let sid = sid_of(request);
    let is_forbidden = shared.config.forbids(page);
    let reserved =
        sid.as_deref().filter(|_| !is_forbidden).and_then(|sid| shared.state().reserve(account, sid));
    let late_ms = query.get("late_ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
    sleep(Duration::from_millis(shared.config.latency_ms + late_ms)).await;
    match query.get("cut") {
        Some("close") => return Err(CLOSE.into()),
        Some("reset") => return Err(RESET.into()),
        _ => {}
    }
    let mut response = if is_forbidden {
        shared.state().counters.pages_forbidden += 1;
        let mut response = text(StatusCode::FORBIDDEN, "forbidden\n");
        response.headers_mut().insert("x-forbidden", HeaderValue::from_static("page"));
        response
    } else if let (Some(reserved), Some(sid)) = (reserved, &sid) {
        reserved.forget();
        let mut state = shared.state();
        state.counters.pages_ok += 1;
        *state.counters.sid_pages.entry(sid.clone()).or_default() += 1;
        text(StatusCode::OK, format!("page {page} of {account} by {sid}\n"))
    } else {
        shared.state().counters.pages_refused += 1;
        match shared.config.refusal {
            Refusal::Forbidden => text(StatusCode::FORBIDDEN, "no session\n"),
            Refusal::Page => text(StatusCode::OK, "<h1>session expired</h1>\n"),
            Refusal::Redirect => redirect("/login"),
        }
    };
    if let (Some(_), Some(sid)) = (query.get("resend_sid"), &sid) {
        set_cookie(&mut response, &sid_cookie(sid));
    }
    for cookie in query.all("set_cookie") {
        set_cookie(&mut response, cookie);
    }
    for header in query.all("header") {
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    if let Some(pause) = query.get("drip_ms").and_then(|ms| ms.parse().ok()) {
        let text = format!("page {page} of {account}\n");
        let pause = Duration::from_millis(pause);
        *response.body_mut() = Drip { data: text.into(), pause, wait: Box::pin(sleep(pause)) }.boxed();
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    if query.get("cut") == Some("half") {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("1000"));
        let pause = Box::pin(sleep(Duration::from_millis(10)));
        *response.body_mut() = Half { data: Some(Bytes::from_static(b"half a page")), pause }.boxed();
    }
    Ok(response.map(|body| Counted { body, running: Some(running) }.boxed()))
}

fn hop(query: &Query) -> SiteResponse {
    let mut response = redirect(query.get("to").unwrap_or("/"));
    for cookie in query.all("cookie") {
        set_cookie(&mut response, &format!("{cookie}; Path=/"));
    }
    response
}

fn echo(request: &Request<Incoming>) -> SiteResponse {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| format!("[{}, {}]", json(name), json(value));
    let headers: Vec<_> = request.headers().iter().map(pair).collect();
    let (method, uri) = (json(request.method().as_str()), json(request.uri().to_string()));
    let body = format!("{{\"method\": {method}, \"uri\": {uri}, \"headers\": [{}]}}\n", headers.join(", "));
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Encodes a JSON string. Headers and URIs have no control characters other than tabs.
fn json(text: impl AsRef<[u8]>) -> String {
    let text = String::from_utf8_lossy(text.as_ref());
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\t', "\\t"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> SiteResponse {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn redirect(to: &str) -> SiteResponse {
    let Ok(to) = HeaderValue::try_from(to) else {
        return text(StatusCode::BAD_REQUEST, "not found\n");
    };
    let mut response = text(StatusCode::FOUND, "");
    response.headers_mut().insert(header::LOCATION, to);
    response
}

fn sid_cookie(sid: &str) -> String {
    format!("sid={sid}; Path=/; HttpOnly")
}

fn set_cookie(response: &mut SiteResponse, cookie: &str) {
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

fn sid_of(request: &Request<Incoming>) -> Option<String> {
    let lines = request.headers().get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let sid = lines.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix("sid="))?;
    Some(sid.to_owned())
}

/// Sends its data, waits until it was transmitted, and aborts.
struct Half {
    data: Option<Bytes>,
    pause: Pin<Box<Sleep>>,
}

impl Body for Half {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        ready!(self.pause.as_mut().poll(cx));
        Poll::Ready(Some(Err(CLOSE.into())))
    }
}

/// Counts a page as in flight until its last frame was returned.
struct Counted {
    body: BoxBody<Bytes, io::Error>,
    running: Option<PageRunning>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Before the client can receive the last frame and send its next request.
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.running = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Sends its data one byte at a time.
struct Drip {
    data: Bytes,
    pause: Duration,
    wait: Pin<Box<Sleep>>,
}

impl Body for Drip {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.data.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.wait.as_mut().poll(cx));
        self.wait = Box::pin(sleep(self.pause));
        Poll::Ready(Some(Ok(Frame::data(self.data.split_to(1)))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty()
    }
}

/// The pairs of a query, percent-decoded; a pair without `=` has an empty value.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        Self(query.split('&').filter(|it| !it.is_empty()).map(pair).collect())
    }

    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|&b| char::from(b).to_digit(16));
        let (byte, after) = match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, &after[2..]),
            _ => (byte, after),
        };
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
