//! Thousands of random worlds on the real layers: one seed, one world, and the same world every time.
//!
//! A world is a site with moods, a stack over it, a crowd of requests that are dropped, frozen and hurried at any await, and
//! users who clear, renew, replace, fork and edit meanwhile. It runs on one thread with the clock paused, and every number in it
//! is drawn from its seed. A short run is part of the tests. By hand:
//!
//! ```text
//! SOAK_SEEDS=20000 cargo test --release --test it soak -- --nocapture
//! SOAK_SEED=4711 cargo test --test it soak -- --nocapture
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{Method, Request, Response, StatusCode, header};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{
    Service, ServiceBuilder, ServiceExt, buffer::Buffer, limit::GlobalConcurrencyLimitLayer,
    util::BoxCloneService,
};
use tower_client_sessions::{
    Expired, RenewalLayer, Session, SessionId, SessionInfo, SessionLayer, Sessions,
    cookies::Jar,
    gate::{BoxError, GateConfig, Refused, Release, RenewalError, RenewalErrorKind},
    renewal::{LateAnswer, ReplayMethods},
    session::Identity,
};

use crate::support::{Answer, Body};

type Boxed = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

/// Seeds of the short run.
const SEEDS: u64 = 3000;

/// No world takes longer, by its own clock: whatever is not over by then has stalled.
const LIMIT: Duration = Duration::from_secs(3600);

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True in so many of a hundred cases.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A generator of its own for somebody else.
    fn child(&mut self) -> Self {
        Self(self.next())
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }
}

/// A panic that the world wants: it unwinds without a message.
fn panic_wanted() -> ! {
    std::panic::resume_unwind(Box::new("wanted by the soak"))
}

/// What is random about a world, beside its course.
#[derive(Clone, Debug)]
struct Moods {
    sessions: u64,
    requests: u64,
    users: u64,
    /// Within how many milliseconds requests start, and users act.
    rush: u64,
    has_rule: bool,
    login_first: bool,
    /// Percentages.
    login_fails: u64,
    login_hangs: u64,
    page_hangs: u64,
    page_errors: u64,
    expires: u64,
    panics: u64,
    drops: u64,
    freezes: u64,
    posts: u64,
    latency: u64,
    login_latency: u64,
    /// Pages of one login, if limited.
    pages: Option<u64>,
    max_uses: Option<u64>,
    max_age: Option<Duration>,
    replays: u32,
    late: u64,
    release: u64,
    stack: u64,
    permits: usize,
    outer: u64,
}

impl Moods {
    fn draw(rng: &mut Rng) -> Self {
        let mut often = |percent: u64, most: u64| if rng.chance(percent) { rng.between(1, most) } else { 0 };
        let (login_fails, login_hangs) = (often(50, 60), often(25, 30));
        let (page_hangs, page_errors, expires) = (often(20, 15), often(40, 20), often(60, 20));
        let (panics, drops, freezes, posts) = (often(30, 12), often(60, 40), often(30, 10), often(40, 50));
        Self {
            sessions: rng.between(1, 3),
            requests: rng.between(4, 40),
            users: rng.below(4),
            rush: [0, 100, 2000, 20_000][rng.below(4) as usize],
            has_rule: rng.chance(70),
            login_first: rng.chance(50),
            login_fails,
            login_hangs,
            page_hangs,
            page_errors,
            expires,
            panics,
            drops,
            freezes,
            posts,
            latency: [0, 1, 20, 500][rng.below(4) as usize],
            login_latency: [0, 1, 100, 3000][rng.below(4) as usize],
            pages: rng.chance(40).then(|| rng.between(1, 10)),
            max_uses: rng.chance(30).then(|| rng.between(1, 12)),
            max_age: rng.chance(20).then(|| Duration::from_millis(rng.between(1, 5000))),
            replays: rng.below(5) as u32,
            late: rng.below(3),
            release: rng.below(3),
            stack: rng.below(7),
            permits: rng.between(1, 4) as usize,
            outer: rng.below(3),
        }
    }
}

/// One world's site, with all that the checks need to know.
#[derive(Clone)]
struct Site(Arc<Inner>);

struct Inner {
    moods: Moods,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rng: Option<Rng>,
    start: Option<Instant>,
    calls: u64,
    /// Logins that are good, and the pages that are left to each.
    good: BTreeMap<String, u64>,
    numbers: u64,
    /// How often each request was sent, by its number.
    sends: BTreeMap<u64, u32>,
    /// Logins that run, by session; where requests lead, by session and generation.
    logins: BTreeMap<String, u32>,
    /// The highest generation seen on the wire, by session.
    seen: BTreeMap<String, u64>,
    /// Up to which generation a session was ended by a call that has returned.
    floor: BTreeMap<String, u64>,
    /// Under which session and generation a cookie given by hand was seen first.
    given: BTreeMap<String, (String, u64)>,
    /// The generations that were given by hand, under which nobody leads.
    replaced: BTreeSet<String>,
    /// The origins of forks.
    forks: BTreeMap<String, String>,
    /// Everything that happened, in words.
    log: String,
    /// What went wrong.
    broken: Vec<String>,
}

/// The number of a request, with what was already ended when it started.
#[derive(Clone)]
struct Tag {
    number: u64,
    floor: u64,
}

impl Site {
    fn new(moods: Moods, rng: Rng) -> Self {
        let state = State { rng: Some(rng), ..State::default() };
        Self(Arc::new(Inner { moods, state: Mutex::new(state) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn rng<R>(&self, draw: impl FnOnce(&mut Rng) -> R) -> R {
        draw(self.state().rng.as_mut().expect("it is there from the start"))
    }

    fn note(&self, what: impl std::fmt::Display) {
        let mut state = self.state();
        let now = state.start.get_or_insert_with(Instant::now).elapsed();
        let _ = writeln!(state.log, "{now:?} {what}");
    }

    /// Whatever a session was until now is ended, by a call that has just returned.
    fn ended(&self, session: &Session, before: Option<u64>) {
        let id = session.id().to_string();
        let mut state = self.state();
        let seen = state.seen.get(&id).copied().unwrap_or(0);
        let floor = state.floor.entry(id).or_default();
        *floor = (*floor).max(before.unwrap_or(0)).max(seen);
    }

    fn floor(&self, session: &str) -> u64 {
        self.state().floor.get(session).copied().unwrap_or(0)
    }

    /// Some session of the site's ends, or all do.
    fn expire(&self) {
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

    /// Looks at a request as it arrives; gives back the login it comes under.
    fn judge(&self, identity: &Identity, request: &Request<Body>) -> Option<String> {
        let (id, generation) = (identity.session_id().to_string(), identity.generation());
        let is_direct = self.0.moods.is_direct();
        let cookies: Vec<String> = request
            .headers()
            .get_all(header::COOKIE)
            .iter()
            .flat_map(|line| line.to_str().unwrap().split("; ").map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let mut state = self.state();
        state.calls += 1;
        let seen = state.seen.entry(id.clone()).or_default();
        *seen = (*seen).max(generation);
        let floor = state.floor.get(&id).copied().unwrap_or(0);
        let mut broken = Vec::new();
        if is_direct && generation <= floor {
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
        let mut login = None;
        for cookie in cookies {
            let (name, value) = cookie.split_once('=').unwrap();
            match name {
                "sid" | "late" => {
                    // `sid=NAME/GENERATION/NUMBER`
                    let mut parts = value.split('/');
                    let (owner, made) =
                        (parts.next().unwrap(), parts.next().unwrap().parse::<u64>().unwrap());
                    let own = owner == id && made == generation;
                    let inherited = generation == 1 && state.is_origin(owner, &id);
                    if !own && !inherited {
                        broken.push(format!("{cookie} was sent by {id} under generation {generation}"));
                    }
                    if name == "sid" {
                        login = Some(value.to_owned());
                    }
                }
                "given" => {
                    let first = state
                        .given
                        .entry(value.to_owned())
                        .or_insert_with(|| (id.clone(), generation))
                        .clone();
                    let inherited = generation == 1 && state.is_origin(&first.0, &id);
                    if first != (id.clone(), generation) && !inherited {
                        broken.push(format!("{cookie} of {first:?} was sent by {id} under {generation}"));
                    }
                }
                _ => {}
            }
        }
        state.broken.append(&mut broken);
        login
    }

    async fn answer(self, request: Request<Body>) -> Answer {
        let moods = &self.0.moods;
        let identity =
            request.extensions().get::<Identity>().expect("the session layer puts it there").clone();
        let tag = request.extensions().get::<Tag>().map(|tag| tag.number);
        let login = self.judge(&identity, &request);
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

    async fn login(&self, identity: &Identity, by_rule: bool) -> Answer {
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
            // Where nobody has to log in, all may.
            let leads = by_rule || (generation > 1 && !state.replaced.contains(&key));
            let running = state.logins.entry(key.clone()).or_default();
            *running += 1;
            if *running > 1 && leads {
                state.broken.push(format!("two logins of {key} at once"));
            }
        }
        let _running = Running(self.clone(), key);
        let how = self.rng(|rng| match () {
            () if rng.chance(moods.login_hangs) => 5,
            () if rng.chance(moods.login_fails) => rng.below(5),
            () => 9,
        });
        self.take_time(moods.login_latency).await;
        let answer = Response::builder();
        let status = match how {
            0 => return Err("the connection was reset".into()),
            // Anything but a refusal makes a leader's identity current, without a cookie.
            1 if by_rule => 500,
            3 if by_rule => 200,
            1 | 3 | 4 => 401,
            2 => 403,
            5 => std::future::pending().await,
            _ => {
                let sid = format!("{id}/{generation}/{}", self.number());
                self.state().good.insert(sid.clone(), moods.pages.unwrap_or(u64::MAX));
                let answer = answer.header(header::SET_COOKIE, format!("sid={sid}; Path=/; HttpOnly"));
                return Ok(answer.body(Body::default())?);
            }
        };
        Ok(answer.status(status).body(Body::default())?)
    }

    fn number(&self) -> u64 {
        let mut state = self.state();
        state.numbers += 1;
        state.numbers
    }

    async fn take_time(&self, most: u64) {
        let time = self.rng(|rng| rng.millis(most));
        match time {
            Duration::ZERO => tokio::task::yield_now().await,
            time => sleep(time).await,
        }
    }
}

impl State {
    /// Whether `origin` is what `fork` was forked from, at whatever remove.
    fn is_origin(&self, origin: &str, fork: &str) -> bool {
        self.forks.get(fork).is_some_and(|of| of == origin || self.is_origin(origin, of))
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
        Box::pin(self.clone().answer(request))
    }
}

impl Moods {
    /// Whether a request reaches the site in the moment in which it is sent.
    fn is_direct(&self) -> bool {
        matches!(self.stack, 0 | 1 | 5)
    }
}

/// The stack below the session layer.
fn below(moods: &Moods, site: Site, permits: &Arc<Semaphore>) -> Boxed {
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone());
    let builder = ServiceBuilder::new();
    match moods.stack {
        0 => BoxCloneService::new(site),
        1 => BoxCloneService::new(builder.layer(limit).service(site)),
        2 => BoxCloneService::new(Buffer::new(site, moods.permits)),
        3 => {
            let limited = builder.rate_limit(10, Duration::from_secs(1)).service(site);
            BoxCloneService::new(Buffer::new(limited, moods.permits))
        }
        4 => BoxCloneService::new(Buffer::new(builder.layer(limit).service(site), moods.permits)),
        5 => BoxCloneService::new(builder.load_shed().layer(limit).service(site)),
        _ => BoxCloneService::new(builder.timeout(Duration::from_secs(5)).service(Buffer::new(
            ServiceBuilder::new().rate_limit(50, Duration::from_secs(1)).layer(limit).service(site),
            1,
        ))),
    }
}

fn layer(moods: &Moods, site: &Site, sessions: &Sessions) -> RenewalLayer<Body> {
    let mut rng = site.rng(Rng::child);
    let panics = moods.panics;
    let classifier = Mutex::new(rng.child());
    let expired = Expired::when(move |answer| {
        if draw(&classifier).chance(panics / 3) {
            panic_wanted();
        }
        matches!(answer.status().as_u16(), 401 | 403)
    });
    let cloner = Mutex::new(rng.child());
    let gate = GateConfig::new()
        .attempt_deadline(Duration::from_millis(rng.between(500, 20_000)))
        .hold_deadline(LIMIT * 10)
        .max_failures(rng.between(1, 5) as u32)
        .renewal_limit(rng.between(3, 30) as usize, Duration::from_millis(rng.between(100, 30_000)))
        .cool_down(Duration::from_millis(rng.below(5000)))
        .max_held(if rng.chance(10) { 3 } else { 1000 })
        .release(match moods.release {
            0 => Release::All,
            1 => Release::ProbeFirst,
            _ => Release::Staggered { burst: rng.between(1, 3) as usize, every: rng.millis(2000) },
        });
    let mut layer = RenewalLayer::new(sessions)
        .expired_when(expired)
        .replay_limit(moods.replays)
        .clone_body(move |body: &Body| {
            let mut rng = draw(&cloner);
            if rng.chance(panics / 3) {
                panic_wanted();
            }
            rng.chance(80).then(|| body.clone())
        })
        .replay_methods(if rng.chance(50) { ReplayMethods::All } else { ReplayMethods::Safe })
        .late_answers(match moods.late {
            0 => LateAnswer::Deliver,
            1 => LateAnswer::ReplayIfExpired,
            _ => LateAnswer::ReplayAll,
        })
        .gate(gate);
    if let Some(uses) = moods.max_uses {
        layer = layer.max_uses(uses);
    }
    if let Some(age) = moods.max_age {
        layer = layer.max_age(age);
    }
    if !moods.has_rule {
        return layer;
    }
    let ruler = Mutex::new(rng.child());
    layer.renew_with(move |renewal| {
        let mut rng = draw(&ruler);
        if rng.chance(panics) {
            panic_wanted();
        }
        let (panics, refuses, steps) = (rng.chance(panics), rng.chance(3), rng.between(1, 2));
        async move {
            for _ in 0..steps {
                let url = format!("http://{}/login", account(&renewal.session_id().to_string()));
                let answer = renewal.send(Request::get(url).body(Body::default())?).await?;
                renewal.require(answer.status().is_success())?;
            }
            if panics {
                panic_wanted();
            }
            if refuses {
                return Err(Refused::new("the account is locked").into());
            }
            renewal.require(renewal.has_cookie("sid"))
        }
    })
}

/// A generator for one decision, so that a panic in it leaves no lock behind.
fn draw(rng: &Mutex<Rng>) -> Rng {
    rng.lock().unwrap().child()
}

/// The site's name for the account of a session: forks share it.
fn account(session: &str) -> &str {
    session.split('.').next().unwrap_or(session)
}

/// What the requests of many worlds came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    requests: u64,
    good: u64,
    expired: u64,
    gate_errors: u64,
    other_errors: u64,
    dropped: u64,
    panicked: u64,
    sent: u64,
    replayed: u64,
    held: u64,
    renewals: u64,
    renewed: u64,
    virtual_seconds: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        let Self { requests, good, expired, gate_errors, other_errors, dropped, panicked, .. } = other;
        self.requests += requests;
        self.good += good;
        self.expired += expired;
        self.gate_errors += gate_errors;
        self.other_errors += other_errors;
        self.dropped += dropped;
        self.panicked += panicked;
        self.sent += other.sent;
        self.replayed += other.replayed;
        self.held += other.held;
        self.renewals += other.renewals;
        self.renewed += other.renewed;
        self.virtual_seconds += other.virtual_seconds;
    }
}

/// How a request ended.
#[derive(Debug)]
enum Outcome {
    Answered(u16, #[expect(dead_code, reason = "it is in the log")] u64),
    Failed(BoxError),
    Dropped,
}

/// Is polled so often, then no more for a while.
struct Freeze<F> {
    inner: Pin<Box<F>>,
    polls: u64,
    thaw: Pin<Box<tokio::time::Sleep>>,
}

impl<F: Future> Future for Freeze<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.polls > 0 {
            self.polls -= 1;
            if let Poll::Ready(output) = self.inner.as_mut().poll(context) {
                return Poll::Ready(output);
            }
        }
        if self.polls == 0 {
            std::task::ready!(self.thaw.as_mut().poll(context));
            return self.inner.as_mut().poll(context);
        }
        Poll::Pending
    }
}

async fn request(client: Boxed, site: Site, session: String, number: u64, mut rng: Rng) -> Outcome {
    let moods = &site.0.moods;
    sleep(rng.millis(moods.rush)).await;
    let path = if moods.has_rule { "/page" } else { "/enter" };
    let is_post = rng.chance(moods.posts);
    let tag = Tag { number, floor: site.floor(&session) };
    let request = Request::builder()
        .method(if is_post { Method::POST } else { Method::GET })
        .uri(format!("http://{}{path}", account(&session)))
        .extension(SessionId::from(session.clone()))
        .extension(tag.clone())
        .body(if is_post { Body::from("some text") } else { Body::default() })
        .unwrap();
    let call = Box::pin(client.oneshot(request));
    let patience = if rng.chance(moods.drops) {
        rng.millis(3000)
    } else if moods.page_hangs > 0 || (!moods.has_rule && moods.login_hangs > 0) {
        Duration::from_secs(60)
    } else {
        LIMIT * 2
    };
    let answer = if rng.chance(moods.freezes) {
        let thaw = Box::pin(sleep(rng.millis(60_000)));
        timeout(patience, Freeze { inner: call, polls: rng.between(1, 4), thaw }).await
    } else {
        timeout(patience, call).await
    };
    match answer {
        Err(_) => Outcome::Dropped,
        Ok(Err(error)) => Outcome::Failed(error),
        Ok(Ok(response)) => {
            let info = response.extensions().get::<SessionInfo>().expect("it is on every answer");
            if info.generation() <= tag.floor || info.session() != &SessionId::from(session.as_str()) {
                let wrong = format!("request {number} of {session} was answered from {info:?}");
                site.state().broken.push(wrong);
            }
            Outcome::Answered(response.status().as_u16(), info.generation())
        }
    }
}

/// Somebody with handles.
async fn user(sessions: Sessions, site: Site, name: u64, mut rng: Rng) {
    for turn in 0..rng.between(1, 12) {
        sleep(rng.millis(site.0.moods.rush / 4 + 20)).await;
        let session = sessions.session(format!("s{}", rng.below(site.0.moods.sessions)));
        let before = session.generation();
        let what = rng.below(12);
        site.note(format_args!("user {name} does {what} to {}", session.id()));
        match what {
            0 | 1 => {
                session.clear();
                site.ended(&session, before);
            }
            2 | 3 => {
                let renewal = session.renew();
                let patience = rng.millis(20_000);
                if rng.chance(70) {
                    let _ = timeout(patience, renewal).await;
                }
            }
            4 => {
                let url = format!("http://{}/login", account(&session.id().to_string()));
                let renewal = session.renew_with(Request::get(url).body(Body::default()).unwrap());
                site.ended(&session, before);
                let patience = rng.millis(20_000);
                if rng.chance(70) {
                    let _ = timeout(patience, renewal).await;
                }
            }
            5 => {
                let given = format!("given={}; Path=/", site.number());
                let mut jar = Jar::default();
                let target = tower_client_sessions::cookies::Target::parse("http://s0/").unwrap();
                jar.set(&given, &target, SystemTime::UNIX_EPOCH.into()).unwrap();
                session.replace(jar);
                site.ended(&session, before);
                let key = format!("{}/{}", session.id(), session.generation().unwrap_or(0));
                site.state().replaced.insert(key);
            }
            6 => {
                let fork = format!("{}.{name}-{turn}", session.id());
                site.state().forks.insert(fork.clone(), session.id().to_string());
                let _ = session.fork(fork);
            }
            7 => {
                session.add_cookies([("edit", "1")], "http://s0/").unwrap();
            }
            8 => {
                session.remove_cookie("s0", "/", "edit");
            }
            9 => {
                let _ = (session.to_string(), session.profile(), session.stats(), sessions.stats());
            }
            10 => {
                let _ = (session.cookies_for("http://s0/"), session.held(), session.identity());
            }
            _ => site.expire(),
        }
    }
}

/// What a world came to, and every step of it.
struct World {
    tally: Tally,
    log: String,
    broken: Vec<String>,
}

fn run(seed: u64) -> World {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut rng = Rng(seed);
    let moods = Moods::draw(&mut rng);
    let site = Site::new(moods.clone(), rng.child());
    let mut tally = Tally::default();
    let kept = site.clone();
    let mut broken = runtime.block_on(async {
        let start = Instant::now();
        let broken = match timeout(LIMIT, play(&moods, site, rng, &mut tally)).await {
            Ok(broken) => broken,
            Err(_) => vec![String::from("a stall")],
        };
        tally.virtual_seconds = start.elapsed().as_secs();
        broken
    });
    drop(runtime);
    if Arc::strong_count(&kept.0) != 1 {
        broken.push(String::from("something still holds the stack"));
    }
    let state = kept.state();
    broken.extend(state.broken.iter().cloned());
    World { tally, log: format!("{moods:?}\n{}", state.log), broken }
}

async fn play(moods: &Moods, site: Site, mut rng: Rng, tally: &mut Tally) -> Vec<String> {
    let mut broken = Vec::new();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let permits = Arc::new(Semaphore::new(moods.permits));
    let capacity = 64;
    let mut builder = Sessions::builder()
        .max_sessions(capacity)
        .clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .jitter_seed(rng.next());
    if moods.login_first {
        builder = builder.login_first();
    }
    let sessions = builder.build();
    let stack = SessionLayer::new(&sessions);
    let layer = layer(moods, &site, &sessions);
    let inner = ServiceBuilder::new().layer(layer).layer(stack).service(below(moods, site.clone(), &permits));
    let builder = ServiceBuilder::new();
    let client: Boxed = match moods.outer {
        0 => BoxCloneService::new(inner),
        1 => BoxCloneService::new(builder.timeout(rng.millis(30_000)).service(inner)),
        _ => BoxCloneService::new(builder.concurrency_limit(rng.between(1, 20) as usize).service(inner)),
    };
    let mut requests = JoinSet::new();
    for number in 0..moods.requests {
        let session = format!("s{}", rng.below(moods.sessions));
        requests.spawn(request(client.clone(), site.clone(), session, number, rng.child()));
    }
    let mut users = JoinSet::new();
    for name in 0..moods.users {
        users.spawn(user(sessions.clone(), site.clone(), name, rng.child()));
    }
    drop(client);
    while let Some(outcome) = requests.join_next().await {
        tally.requests += 1;
        match &outcome {
            Ok(outcome) => site.note(format_args!("{outcome:?}")),
            // The number of its task differs from run to run.
            Err(_) => site.note("panicked"),
        }
        match outcome {
            Err(error) if error.is_panic() => tally.panicked += 1,
            Err(error) => broken.push(format!("a request was lost: {error}")),
            Ok(Outcome::Dropped) => tally.dropped += 1,
            Ok(Outcome::Answered(200, _)) => tally.good += 1,
            Ok(Outcome::Answered(..)) => tally.expired += 1,
            Ok(Outcome::Failed(error)) => match error.downcast_ref::<RenewalError>() {
                Some(error) if error.kind() == RenewalErrorKind::HeldTooLong => {
                    broken.push(String::from("a request was held for ever"));
                }
                Some(_) => tally.gate_errors += 1,
                None => tally.other_errors += 1,
            },
        }
    }
    while let Some(ended) = users.join_next().await {
        if let Err(error) = ended {
            broken.push(format!("a user panicked: {error}"));
        }
    }
    if tally.requests != moods.requests {
        broken.push(format!("{} of {} requests ended", tally.requests, moods.requests));
    }
    // Renewals that nobody waits for end by themselves.
    while alive() > 0 {
        sleep(Duration::from_secs(1)).await;
    }
    if permits.available_permits() != moods.permits {
        broken.push(format!("{} of {} permits are back", permits.available_permits(), moods.permits));
    }
    let stats = sessions.stats();
    tally.sent = stats.sent;
    tally.replayed = stats.replayed();
    tally.held = stats.held;
    tally.renewals = stats.renewals_started;
    tally.renewed = stats.renewals_succeeded;
    if stats.renewals_succeeded + stats.renewals_failed > stats.renewals_started {
        broken.push(format!("more renewals ended than started: {stats:?}"));
    }
    let calls = site.state().calls;
    if if matches!(moods.stack, 0 | 1) { calls != stats.sent } else { calls > stats.sent } {
        broken.push(format!("the site saw {calls} requests, {} were sent", stats.sent));
    }
    check_idle(&sessions, capacity, &mut broken);
    broken
}

/// Nothing is left of any session: nobody is held, and each can be dropped for another.
fn check_idle(sessions: &Sessions, capacity: usize, broken: &mut Vec<String>) {
    let names: BTreeSet<String> = sessions.all().iter().map(|session| session.id().to_string()).collect();
    for name in &names {
        let held = sessions.session(name.as_str()).held();
        if held != 0 {
            broken.push(format!("{held} are held by {name}"));
        }
    }
    for number in 0..capacity {
        drop(sessions.session(format!("filler {number}")));
    }
    for name in names {
        if sessions.get(name.as_str()).is_some() {
            broken.push(format!("{name} cannot be dropped"));
        }
    }
}

#[track_caller]
fn holds(seed: u64) -> Tally {
    let world = run(seed);
    if !world.broken.is_empty() {
        eprintln!("{}", world.log);
    }
    assert!(world.broken.is_empty(), "SOAK_SEED={seed} breaks:\n  {}", world.broken.join("\n  "),);
    world.tally
}

#[test]
fn every_world_keeps_every_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("SOAK_SEED") {
        println!("seed {seed}: {:?}", holds(seed));
        return;
    }
    let seeds = number("SOAK_SEEDS").unwrap_or(SEEDS);
    let mut total = Tally::default();
    for seed in 0..seeds {
        total.add(&holds(seed));
    }
    println!("{seeds} seeds: {total:?}");
    assert!(total.good > 0 && total.replayed > 0 && total.dropped > 0 && total.panicked > 0, "{total:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(one.log, other.log, "seed {seed}");
        assert_eq!(one.tally, other.tally, "seed {seed}");
    }
}
