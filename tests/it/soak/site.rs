//! The site of a world, and the witness that checks every request as it is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode, header};
use tokio::time::{Instant, sleep};
use tower::Service;
use tower_client_sessions::{Session, SessionInfo, gate::BoxError, session::Identity};

use super::{
    edits::Edits,
    moods::{Moods, Rng},
};
use crate::support::{Body, SiteResult};

/// The site of one world, with the state that the checks need.
#[derive(Clone)]
pub(super) struct Site(Arc<Inner>);

struct Inner {
    moods: Moods,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    rng: Option<Rng>,
    start: Option<Instant>,
    /// The numbers of requests that were sent and that arrived.
    sent: u64,
    arrived: u64,
    /// How often added cookies were sent, and how many of those were added while no identity was
    /// current.
    edits_carried: u64,
    pending_edits_carried: u64,
    /// The valid logins, with the number of pages left to each.
    good: BTreeMap<String, u64>,
    numbers: u64,
    /// The number of sends of each request.
    sends: BTreeMap<u64, u32>,
    /// The running logins, by session, or by session and generation where requests lead.
    logins: BTreeMap<String, u32>,
    /// The highest generation of a send, by session.
    seen: BTreeMap<String, u64>,
    /// The highest generation that a returned call has ended, by session.
    floor: BTreeMap<String, u64>,
    /// The session and generation that a cookie was given to by `replace`.
    given: BTreeMap<String, (String, u64)>,
    pub(super) edits: Edits,
    /// The origin of each fork: a session and its current generation.
    forks: BTreeMap<String, (String, Option<u64>)>,
    /// The info of the previous response.
    pub(super) last_info: Option<SessionInfo>,
    /// A log of all events.
    pub(super) log: String,
    /// The checks that failed.
    pub(super) broken: Vec<String>,
}

/// The number of a request, and the highest generation that had ended when it started.
#[derive(Clone)]
pub(super) struct Tag {
    pub(super) number: u64,
    pub(super) floor: u64,
}

impl Site {
    pub(super) fn new(moods: Moods, rng: Rng) -> Self {
        let state = State { rng: Some(rng), ..State::default() };
        Self(Arc::new(Inner { moods, state: Mutex::new(state) }))
    }

    pub(super) fn moods(&self) -> &Moods {
        &self.0.moods
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns how many requests were sent, and how many of them arrived.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.sent, state.arrived)
    }

    /// Returns how often added cookies were sent, and how many of those were added while no
    /// identity was current.
    pub(super) fn edits_carried(&self) -> (u64, u64) {
        let state = self.state();
        (state.edits_carried, state.pending_edits_carried)
    }

    /// Returns whether this is the last handle to the site.
    pub(super) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    pub(super) fn rng<R>(&self, draw: impl FnOnce(&mut Rng) -> R) -> R {
        draw(self.state().rng.as_mut().expect("it is there from the start"))
    }

    pub(super) fn note(&self, what: impl std::fmt::Display) {
        let mut state = self.state();
        let now = state.start.get_or_insert_with(Instant::now).elapsed();
        let _ = writeln!(state.log, "{now:?} {what}");
    }

    pub(super) fn breaks(&self, what: String) {
        self.state().broken.push(what);
    }

    /// Records that a call which has just returned ended all identities of a session so far.
    pub(super) fn ended(&self, session: &Session, before: Option<u64>) {
        let id = session.id().to_string();
        let mut state = self.state();
        state.edits.discard_pending(session);
        let seen = state.seen.get(&id).copied().unwrap_or(0);
        let floor = state.floor.entry(id).or_default();
        *floor = (*floor).max(before.unwrap_or(0)).max(seen);
    }

    pub(super) fn floor(&self, session: &str) -> u64 {
        self.state().floor.get(session).copied().unwrap_or(0)
    }

    /// A jar with this cookie was given to a session, by a call that has just returned.
    pub(super) fn replaced(&self, session: &Session, cookie: u64) {
        let mut state = self.state();
        let generation = session.generation().expect("a replaced identity is current");
        state.given.insert(cookie.to_string(), (session.id().to_string(), generation));
        state.edits.give(session);
    }

    /// Records a fork.
    pub(super) fn forked(&self, of: &Session, fork: &Session) {
        let mut state = self.state();
        state.edits.fork(of, fork);
        state.forks.insert(fork.id().to_string(), (of.id().to_string(), of.generation()));
    }

    /// Ends one login of the site, or all.
    pub(super) fn expire(&self) {
        let all = self.rng(|rng| rng.chance(30));
        let pick = self.rng(Rng::next);
        let mut state = self.state();
        if all {
            state.good.clear();
        } else if !state.good.is_empty() {
            let at = (pick % state.good.len() as u64) as usize;
            let sid = state.good.keys().nth(at).cloned().expect("it is below the length");
            state.good.remove(&sid);
        }
    }

    pub(super) fn number(&self) -> u64 {
        let mut state = self.state();
        state.numbers += 1;
        state.numbers
    }

    async fn take_time(&self, max: u64) {
        let time = self.rng(|rng| rng.millis(max));
        if time.is_zero() {
            tokio::task::yield_now().await;
        } else {
            sleep(time).await;
        }
    }
}

/// Name and value of each cookie of a request.
fn cookies(request: &Request<Body>) -> Vec<(String, String)> {
    let lines = request.headers().get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.to_str().expect("the soak's cookies are text").split("; "));
    pairs
        .map(|pair| pair.split_once('=').expect("each has a name"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn identity(request: &Request<Body>) -> Identity {
    Identity::of(request.extensions()).expect("the session layer puts it there")
}

/// Checks of requests.
impl Site {
    /// Checks a request when it leaves the session layer.
    fn check(&self, request: &Request<Body>) {
        let identity = identity(request);
        let (id, generation) = (identity.session_id().to_string(), identity.generation());
        let mut broken = Vec::new();
        let mut state = self.state();
        state.sent += 1;
        let seen = state.seen.entry(id.clone()).or_default();
        *seen = (*seen).max(generation);
        let floor = state.floor.get(&id).copied().unwrap_or(0);
        if generation <= floor {
            broken.push(format!("{id} was sent under generation {generation} after {floor} was ended"));
        }
        if let Some(tag) = request.extensions().get::<Tag>() {
            let sends = state.sends.entry(tag.number).or_default();
            *sends += 1;
            if *sends > 1 + self.0.moods.replays {
                broken.push(format!("request {} was sent {sends} times", tag.number));
            }
            if generation <= tag.floor {
                broken.push(format!(
                    "request {} of {id} started after {} was ended and went under {generation}",
                    tag.number, tag.floor
                ));
            }
        }
        let expected = state.edits.carried_by(&identity);
        let mut carried = BTreeSet::new();
        for (name, value) in cookies(request) {
            let (owner, made) = match name.as_str() {
                "sid" | "late" => {
                    // `sid=NAME/GENERATION/NUMBER`
                    let mut parts = value.split('/').map(str::to_owned);
                    let owner = parts.next().expect("the name comes first");
                    (owner, parts.next().and_then(|made| made.parse().ok()).expect("then the generation"))
                }
                "given" => state.given.get(&value).cloned().expect("it was recorded when it was given"),
                _ => {
                    carried.insert(name);
                    continue;
                }
            };
            let is_own = owner == id && made == generation;
            if !is_own && !state.inherits(&identity, &owner, made) {
                broken.push(format!("{name}={value} was sent by {id} under generation {generation}"));
            }
        }
        let was_pending = |cookie: &String| state.edits.was_added_while_pending(identity.session(), cookie);
        let pending = carried.iter().filter(|cookie| was_pending(cookie)).count() as u64;
        state.edits_carried += carried.len() as u64;
        state.pending_edits_carried += pending;
        if carried != expected {
            broken.push(format!(
                "edits: {id} carries {carried:?} and not {expected:?} under generation {generation}"
            ));
        }
        state.broken.append(&mut broken);
    }
}

impl State {
    /// Returns whether this identity is the first of a fork of generation `made` of `owner`.
    fn inherits(&self, identity: &Identity, owner: &str, made: u64) -> bool {
        let taken = (owner.to_owned(), Some(made));
        let fork = identity.session_id().to_string();
        // The first identity of a fork is a copy of the original's current identity.
        identity.generation() == 1 && self.forks.get(&fork) == Some(&taken)
    }
}

/// A service directly below the session layer that checks every request.
#[derive(Clone)]
pub(super) struct Witness<S> {
    inner: S,
    site: Site,
}

impl<S> Witness<S> {
    pub(super) fn new(inner: S, site: Site) -> Self {
        Self { inner, site }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Witness<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.site.check(&request);
        self.inner.call(request)
    }
}

/// Responses.
impl Site {
    async fn respond(self, request: Request<Body>) -> SiteResult {
        let moods = &self.0.moods;
        self.state().arrived += 1;
        let identity = identity(&request);
        let tag = request.extensions().get::<Tag>().map(|tag| tag.number);
        let login = cookies(&request).into_iter().find_map(|(name, value)| (name == "sid").then_some(value));
        let id = identity.session_id().to_string();
        let path = request.uri().path().to_owned();
        self.note(format_args!("{path} {tag:?} {id} {} {login:?}", identity.generation()));
        let may_lead = path == "/enter" && login.is_none();
        if path == "/login" || may_lead {
            return self.login(&identity, path == "/login").await;
        }
        let good = {
            let mut state = self.state();
            let left = login.as_ref().and_then(|login| state.good.get_mut(login));
            left.is_some_and(|left| {
                let good = *left > 0;
                *left = left.saturating_sub(1);
                good
            })
        };
        let (hangs, fails, expires) = self.rng(|rng| {
            (rng.chance(moods.page_hangs), rng.chance(moods.page_errors), rng.chance(moods.expires))
        });
        if hangs {
            std::future::pending::<()>().await;
        }
        self.take_time(moods.latency).await;
        if fails {
            return Err("the connection was reset".into());
        }
        if expires {
            self.expire();
        }
        let status = if good { StatusCode::OK } else { StatusCode::FORBIDDEN };
        let late = format!("late={id}/{}/{}; Path=/", identity.generation(), self.number());
        Ok(Response::builder().status(status).header(header::SET_COOKIE, late).body(Body::default())?)
    }

    async fn login(&self, identity: &Identity, by_rule: bool) -> SiteResult {
        struct Running(Site, String);
        impl Drop for Running {
            fn drop(&mut self) {
                *self.0.state().logins.get_mut(&self.1).unwrap() -= 1;
            }
        }
        let moods = &self.0.moods;
        let (id, generation) = (identity.session_id().to_string(), identity.generation());
        let key = if by_rule { id.clone() } else { format!("{id}/{generation}") };
        {
            let mut state = self.state();
            // An identity without a renewal has no single leader, so all its requests may log in.
            let leads = by_rule || (generation > 1 && !state.edits.was_given(&id, generation));
            let running = state.logins.entry(key.clone()).or_default();
            *running += 1;
            if *running > 1 && leads {
                state.broken.push(format!("two concurrent logins of {key}"));
            }
        }
        let _running = Running(self.clone(), key);
        let how = self.rng(|rng| match () {
            () if rng.chance(moods.login_hangs) => 5,
            () if rng.chance(moods.login_fails) => rng.below(5),
            () => 9,
        });
        self.take_time(moods.login_latency).await;
        let response = Response::builder();
        let status = match how {
            0 => return Err("the connection was reset".into()),
            // Any status that is not 401 or 403 makes a leader's identity current, without a
            // cookie.
            1 if by_rule => 500,
            3 if by_rule => 200,
            1 | 3 | 4 => 401,
            2 => 403,
            5 => std::future::pending().await,
            _ => {
                let sid = format!("{id}/{generation}/{}", self.number());
                self.state().good.insert(sid.clone(), moods.pages.unwrap_or(u64::MAX));
                let response = response.header(header::SET_COOKIE, format!("sid={sid}; Path=/; HttpOnly"));
                return Ok(response.body(Body::default())?);
            }
        };
        Ok(response.status(status).body(Body::default())?)
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
        Box::pin(self.clone().respond(request))
    }
}
