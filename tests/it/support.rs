//! A site as a tower service whose responses tests can delay, and the stacks on it.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt};
use tower_client_sessions::{
    Expired, Renewal, RenewalLayer, SessionId, SessionLayer, Sessions, gate::BoxError,
    renewal::RenewalService, session::SessionService,
};

pub(crate) type Body = Full<Bytes>;
pub(crate) type SiteResult = Result<Response<Body>, BoxError>;
pub(crate) type Client<S = Site> = RenewalService<SessionService<S>, Body>;

/// How one login ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Login {
    Good,
    /// A new session whose cookie has the value of the last one.
    SameCookie,
    Status(u16),
    NoCookie,
    Error,
    Never,
}

/// A site with accounts. Pages below `/forbidden` have status 403 for every session. A session is
/// valid while its cookie is the one that the last login of its account returned.
#[derive(Clone, Default)]
pub(crate) struct Site(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// If set, a login needs a permit to end.
    login_gate: Option<Semaphore>,
    /// If set, the response of a page needs a permit.
    page_gate: Option<Semaphore>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<String, Account>,
    logins: VecDeque<Login>,
    seen: Vec<Seen>,
    /// The number of pages per login, if limited.
    budget: Option<u32>,
}

#[derive(Default)]
struct Account {
    sid: u32,
    used: u32,
    logins: u32,
    concurrent: u32,
    max_concurrent: u32,
}

/// A request as the site received it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) uri: http::Uri,
    pub(crate) cookie: Option<String>,
}

impl Seen {
    pub(crate) fn is_login(&self) -> bool {
        self.uri.path() == "/login"
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Creates a site whose logins end only by [`end_logins`](Self::end_logins).
    pub(crate) fn held_logins() -> Self {
        Self(Arc::new(Inner { login_gate: Some(Semaphore::new(0)), ..Inner::default() }))
    }

    /// Creates a site whose pages are returned only by [`respond`](Self::respond). Their status is
    /// decided when the request arrives.
    pub(crate) fn held_pages() -> Self {
        Self(Arc::new(Inner { page_gate: Some(Semaphore::new(0)), ..Inner::default() }))
    }

    pub(crate) fn held() -> Self {
        Self(Arc::new(Inner {
            login_gate: Some(Semaphore::new(0)),
            page_gate: Some(Semaphore::new(0)),
            ..Inner::default()
        }))
    }

    pub(crate) fn end_logins(&self, logins: usize) {
        self.0.login_gate.as_ref().expect("logins are held").add_permits(logins);
    }

    pub(crate) fn respond(&self, pages: usize) {
        self.0.page_gate.as_ref().expect("pages are held").add_permits(pages);
    }

    /// Sets how the next logins end; later ones succeed.
    pub(crate) fn logins_go(&self, logins: impl IntoIterator<Item = Login>) {
        self.0.state.lock().unwrap().logins.extend(logins);
    }

    pub(crate) fn budget(self, pages: u32) -> Self {
        self.0.state.lock().unwrap().budget = Some(pages);
        self
    }

    /// Ends the session of an account.
    pub(crate) fn expire(&self, account: &str) {
        let mut state = self.0.state.lock().unwrap();
        let account = state.accounts.entry(account.to_owned()).or_default();
        account.sid += 1000;
    }

    pub(crate) fn logins(&self) -> u32 {
        self.0.state.lock().unwrap().accounts.values().map(|account| account.logins).sum()
    }

    /// Returns the maximum number of concurrent logins of one account.
    pub(crate) fn max_concurrent_logins(&self) -> u32 {
        let state = self.0.state.lock().unwrap();
        state.accounts.values().map(|account| account.max_concurrent).max().unwrap_or(0)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn pages_seen(&self) -> usize {
        self.seen().iter().filter(|seen| !seen.is_login()).count()
    }

    async fn login(self, name: String) -> SiteResult {
        struct Running(Site, String);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.0.state.lock().unwrap().accounts.get_mut(&self.1).unwrap().concurrent -= 1;
            }
        }
        let how = {
            let mut state = self.0.state.lock().unwrap();
            let how = state.logins.pop_front().unwrap_or(Login::Good);
            let account = state.accounts.entry(name.clone()).or_default();
            account.logins += 1;
            account.concurrent += 1;
            account.max_concurrent = account.max_concurrent.max(account.concurrent);
            how
        };
        let _running = Running(self.clone(), name.clone());
        if let Some(gate) = &self.0.login_gate {
            gate.acquire().await?.forget();
        }
        if matches!(how, Login::Never) {
            std::future::pending::<()>().await;
        }
        let response = self.login_response(&name, how)?;
        Ok(response.body(Body::default())?)
    }

    fn login_response(&self, name: &str, how: Login) -> Result<http::response::Builder, BoxError> {
        let mut state = self.0.state.lock().unwrap();
        let account = state.accounts.get_mut(name).unwrap();
        let response = Response::builder();
        match how {
            Login::Good | Login::SameCookie => {
                if matches!(how, Login::Good) {
                    account.sid = account.sid.max(account.logins - 1) + 1;
                }
                account.used = 0;
                let cookie = format!("sid={}-{}; Path=/; HttpOnly", name, account.sid);
                Ok(response.header(header::SET_COOKIE, cookie))
            }
            Login::Status(status) => Ok(response.status(status)),
            Login::NoCookie | Login::Never => Ok(response),
            Login::Error => Err("the connection was reset".into()),
        }
    }

    async fn page(self, name: String, cookie: Option<String>, uri: http::Uri) -> SiteResult {
        let status = {
            let mut state = self.0.state.lock().unwrap();
            let budget = state.budget.unwrap_or(u32::MAX);
            let account = state.accounts.entry(name.clone()).or_default();
            let sid = format!("sid={}-{}", name, account.sid);
            let good = !uri.path().starts_with("/forbidden")
                && account.logins > 0
                && cookie.is_some_and(|cookie| cookie.split("; ").any(|pair| pair == sid));
            if good && account.used < budget {
                account.used += 1;
                StatusCode::OK
            } else {
                StatusCode::FORBIDDEN
            }
        };
        if let Some(gate) = &self.0.page_gate {
            gate.acquire().await?.forget();
        }
        let mut response = Response::builder().status(status);
        if let Some(set) =
            uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("set=")))
        {
            response = response.header(header::SET_COOKIE, format!("{set}; Path=/"));
        }
        Ok(response.body(Body::from(uri.path().to_owned()))?)
    }
}

impl Service<Request<Body>> for Site {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = SiteResult> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let account = request.uri().host().unwrap_or("").to_owned();
        let cookie = request.headers().get(header::COOKIE).map(|value| value.to_str().unwrap().to_owned());
        let uri = request.uri().clone();
        let seen = Seen { uri: uri.clone(), cookie: cookie.clone() };
        self.0.state.lock().unwrap().seen.push(seen);
        let site = self.clone();
        match uri.path() {
            "/login" => Box::pin(site.login(account)),
            _ => Box::pin(site.page(account, cookie, uri)),
        }
    }
}

/// The renewal rule of most tests: one login request, whose response must set a cookie.
pub(crate) async fn log_in(renewal: Renewal<Body>) -> Result<(), BoxError> {
    let url = format!("http://{}/login", renewal.session_id());
    let response = renewal.send(Request::get(url).body(Body::default())?).await?;
    renewal.ensure_transient(
        response.status().is_success() && renewal.has_cookie("sid"),
        "the login was not accepted",
    )
}

/// Creates a layer whose sessions expire with status 401 or 403 and are renewed by [`log_in`].
pub(crate) fn renewing(sessions: &Sessions) -> RenewalLayer<Body> {
    ruleless(sessions).renew_with(log_in)
}

/// Creates a layer without a rule.
pub(crate) fn ruleless(sessions: &Sessions) -> RenewalLayer<Body> {
    RenewalLayer::new(sessions).expired_when(Expired::status([401, 403]))
}

/// Creates a client: `layer`, above a session layer, above `service`.
pub(crate) fn client<S>(layer: &RenewalLayer<Body>, sessions: &Sessions, service: S) -> Client<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    layer.layer(SessionLayer::new(sessions).layer(service))
}

/// Creates a request to an account, by the session of the same name.
pub(crate) fn page(account: &str, path: &str) -> Request<Body> {
    let url = format!("http://{account}{path}");
    Request::get(url).extension(SessionId::from(account)).body(Body::default()).unwrap()
}

pub(crate) async fn get<S>(client: &S, account: &str, path: &str) -> SiteResult
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone,
{
    client.clone().oneshot(page(account, path)).await
}

/// Starts concurrent requests of one account.
pub(crate) fn spawn_pages<S>(
    client: &S,
    account: &'static str,
    pages: usize,
) -> tokio::task::JoinSet<SiteResult>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..pages {
        let client = client.clone();
        tasks.spawn(client.oneshot(page(account, &format!("/page/{number}"))));
    }
    tasks
}

/// Runs all tasks until they wait, without letting time pass.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Waits for all responses and counts those with status 200.
pub(crate) async fn good(tasks: tokio::task::JoinSet<SiteResult>) -> usize {
    let responses = tasks.join_all().await;
    responses.iter().filter(|result| result.as_ref().is_ok_and(|response| response.status() == 200)).count()
}

/// Returns the kind of the renewal error in `result`.
#[track_caller]
pub(crate) fn kind(result: &SiteResult) -> tower_client_sessions::gate::RenewalErrorKind {
    let error = result.as_ref().expect_err("an error is expected");
    error
        .downcast_ref::<tower_client_sessions::gate::RenewalError>()
        .unwrap_or_else(|| panic!("not a renewal error: {error}"))
        .kind()
}

/// Sends this thread's traces to `subscriber` until the returned guards are dropped.
pub(crate) fn listen(
    subscriber: impl tracing::Subscriber + Send + Sync + 'static,
) -> (tracing::Dispatch, tracing::subscriber::DefaultGuard) {
    // With one subscriber, tracing caches its interest per callsite, by the thread that reaches the
    // callsite first, which may run another test. With two it asks both.
    let second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    (second, tracing::subscriber::set_default(subscriber))
}
