//! A site as a tower service, which tests hold and let go, and the stacks on it.

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
pub(crate) type Answer = Result<Response<Body>, BoxError>;
pub(crate) type Client<S = Site> = RenewalService<SessionService<S>, Body>;

/// How one login goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Login {
    Good,
    /// A fresh session whose cookie has the value of the last one.
    SameCookie,
    Status(u16),
    NoCookie,
    Error,
    Never,
}

/// A site with accounts. A session is good while its cookie is the last one that a login of its account has handed out.
#[derive(Clone, Default)]
pub(crate) struct Site(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// When set, a login ends only with a permit of it.
    login_gate: Option<Semaphore>,
    /// When set, a page is answered only with a permit of it.
    page_gate: Option<Semaphore>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<String, Account>,
    logins: VecDeque<Login>,
    seen: Vec<Seen>,
    /// Pages that a session may fetch, if limited.
    budget: Option<u32>,
}

#[derive(Default)]
struct Account {
    sid: u32,
    used: u32,
    logins: u32,
    at_once: u32,
    at_once_most: u32,
}

/// A request as the site saw it.
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

    /// Logins end only when [`end_logins`](Self::end_logins) lets them.
    pub(crate) fn held_logins() -> Self {
        Self(Arc::new(Inner { login_gate: Some(Semaphore::new(0)), ..Inner::default() }))
    }

    /// Pages are answered only when [`answer`](Self::answer) lets them; what is asked for is decided before.
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

    pub(crate) fn answer(&self, pages: usize) {
        self.0.page_gate.as_ref().expect("pages are held").add_permits(pages);
    }

    /// Says how the next logins go; after them, all are good.
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

    /// The most logins of one account that ran at once.
    pub(crate) fn logins_at_once(&self) -> u32 {
        let state = self.0.state.lock().unwrap();
        state.accounts.values().map(|account| account.at_once_most).max().unwrap_or(0)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn pages_seen(&self) -> usize {
        self.seen().iter().filter(|seen| !seen.is_login()).count()
    }

    async fn login(self, name: String) -> Answer {
        struct Running(Site, String);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.0.state.lock().unwrap().accounts.get_mut(&self.1).unwrap().at_once -= 1;
            }
        }
        let how = {
            let mut state = self.0.state.lock().unwrap();
            let how = state.logins.pop_front().unwrap_or(Login::Good);
            let account = state.accounts.entry(name.clone()).or_default();
            account.logins += 1;
            account.at_once += 1;
            account.at_once_most = account.at_once_most.max(account.at_once);
            how
        };
        let _running = Running(self.clone(), name.clone());
        if let Some(gate) = &self.0.login_gate {
            gate.acquire().await?.forget();
        }
        if matches!(how, Login::Never) {
            std::future::pending::<()>().await;
        }
        let answer = self.login_answer(&name, how)?;
        Ok(answer.body(Body::default())?)
    }

    fn login_answer(&self, name: &str, how: Login) -> Result<http::response::Builder, BoxError> {
        let mut state = self.0.state.lock().unwrap();
        let account = state.accounts.get_mut(name).unwrap();
        let answer = Response::builder();
        match how {
            Login::Good | Login::SameCookie => {
                if matches!(how, Login::Good) {
                    account.sid = account.sid.max(account.logins - 1) + 1;
                }
                account.used = 0;
                let cookie = format!("sid={}-{}; Path=/; HttpOnly", name, account.sid);
                Ok(answer.header(header::SET_COOKIE, cookie))
            }
            Login::Status(status) => Ok(answer.status(status)),
            Login::NoCookie | Login::Never => Ok(answer),
            Login::Error => Err("the connection was reset".into()),
        }
    }

    async fn page(self, name: String, cookie: Option<String>, uri: http::Uri) -> Answer {
        let status = {
            let mut state = self.0.state.lock().unwrap();
            let budget = state.budget.unwrap_or(u32::MAX);
            let account = state.accounts.entry(name.clone()).or_default();
            let sid = format!("sid={}-{}", name, account.sid);
            let good =
                account.logins > 0 && cookie.is_some_and(|cookie| cookie.split("; ").any(|pair| pair == sid));
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
        let mut answer = Response::builder().status(status);
        if let Some(set) =
            uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("set=")))
        {
            answer = answer.header(header::SET_COOKIE, format!("{set}; Path=/"));
        }
        Ok(answer.body(Body::from(uri.path().to_owned()))?)
    }
}

impl Service<Request<Body>> for Site {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

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

/// The login that every test's rule is: one request, and a cookie that has to come of it.
pub(crate) async fn log_in(renewal: Renewal<Body>) -> Result<(), BoxError> {
    let url = format!("http://{}/login", renewal.session_id());
    let answer = renewal.send(Request::get(url).body(Body::default())?).await?;
    renewal.ensure(answer.status().is_success() && renewal.has_cookie("sid"), "the login was not accepted")
}

/// A layer whose sessions expire by 401 and 403 and are renewed by [`log_in`].
pub(crate) fn renewing(sessions: &Sessions) -> RenewalLayer<Body> {
    ruleless(sessions).renew_with(log_in)
}

/// The same without a rule.
pub(crate) fn ruleless(sessions: &Sessions) -> RenewalLayer<Body> {
    RenewalLayer::new(sessions).expired_when(Expired::status([401, 403]))
}

/// A client of `service` with `layer` on top.
pub(crate) fn client<S>(layer: &RenewalLayer<Body>, sessions: &Sessions, service: S) -> Client<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    layer.layer(SessionLayer::new(sessions).layer(service))
}

/// A request of the session that is named like the account it goes to.
pub(crate) fn page(account: &str, path: &str) -> Request<Body> {
    let url = format!("http://{account}{path}");
    Request::get(url).extension(SessionId::from(account)).body(Body::default()).unwrap()
}

pub(crate) async fn get<S>(client: &S, account: &str, path: &str) -> Answer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone,
{
    client.clone().oneshot(page(account, path)).await
}

/// Starts so many requests of one account at once.
pub(crate) fn spawn_pages<S>(client: &S, account: &'static str, pages: usize) -> tokio::task::JoinSet<Answer>
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

/// Lets every task run until nothing moves any more, without letting time pass.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Waits for all and counts the answers that are good.
pub(crate) async fn good(tasks: tokio::task::JoinSet<Answer>) -> usize {
    let answers = tasks.join_all().await;
    answers.iter().filter(|answer| answer.as_ref().is_ok_and(|response| response.status() == 200)).count()
}

/// The kind of the renewal error at the bottom of `error`.
#[track_caller]
pub(crate) fn kind(answer: &Answer) -> tower_client_sessions::gate::RenewalErrorKind {
    let error = answer.as_ref().expect_err("an error is expected");
    error
        .downcast_ref::<tower_client_sessions::gate::RenewalError>()
        .unwrap_or_else(|| panic!("not a renewal error: {error}"))
        .kind()
}

/// Lets this thread's traces go to `subscriber`, until what is returned is dropped.
pub(crate) fn listen(
    subscriber: impl tracing::Subscriber + Send + Sync + 'static,
) -> (tracing::Dispatch, tracing::subscriber::DefaultGuard) {
    // Of one listener alone, tracing asks the thread that meets a place first whether anybody listens; and that may be another
    // test's. Of two it asks both.
    let second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    (second, tracing::subscriber::set_default(subscriber))
}
