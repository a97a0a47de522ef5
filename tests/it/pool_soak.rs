//! Thousands of random worlds with a pool in them, over the real layers: one seed, one world, and the same world every time.
//!
//! As in the soak of the gate, a world runs on one thread with the clock paused. Requests are dropped and frozen at any await,
//! bodies are read, half read and dropped, answers block and limit, logins fail and hang, code panics, and users mark, retire,
//! clear and pin. What the server saw is judged; each flaw is a world with one thing wrong, which the judgement has to find.
//!
//! ```text
//! POOL_SOAK_SEEDS=20000 cargo test --test it pool_soak -- --nocapture
//! POOL_SOAK_SEED=4711 cargo test --test it pool_soak -- --nocapture
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use tokio::{
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_client_sessions::{
    PoolLayer, Renewal, RenewalLayer, Session, SessionId, SessionLayer, SessionPool, Sessions,
    gate::{BoxError, GateConfig},
    pool::{LeasedBody, Member, PoolError, PoolErrorKind, Strategy, TriedSessions, UnusedSession, Verdict},
    session::Identity,
};

use crate::soak::{Freeze, Rng, on_all_cores, panic_wanted};

type Body = Empty<Bytes>;
type Boxed = BoxCloneService<Request<Body>, Response<LeasedBody<Page>>, BoxError>;

const SEEDS: u64 = 2000;

/// No world takes longer, by its own clock: whatever is not over by then has stalled.
const LIMIT: Duration = Duration::from_secs(3600);

/// One thing that is wrong with a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// The lease ends at the head of the answer.
    EndsAtHead,
    /// A lease is forgotten.
    Forgotten,
    /// Requests stand in front of the pool in another order than they came.
    Barging,
    /// The pool knows nothing of the limit on uses.
    Uses,
    /// The pool knows nothing of the delay.
    Delay,
    /// The pool warms nobody up.
    Cold,
    /// An answer never ends.
    Endless,
}

#[derive(Clone, Debug)]
struct Moods {
    size: u64,
    cap: u64,
    requests: u64,
    users: u64,
    rush: u64,
    strategy: u64,
    is_sticky: bool,
    max_uses: Option<u64>,
    max_age: Option<Duration>,
    delay: Duration,
    has_rule: bool,
    /// Percentages.
    blocks: u64,
    limits: u64,
    errors: u64,
    panics: u64,
    drops: u64,
    freezes: u64,
    login_fails: u64,
    login_hangs: u64,
    latency: u64,
}

impl Moods {
    fn draw(rng: &mut Rng) -> Self {
        let mut often = |percent: u64, most: u64| if rng.chance(percent) { rng.between(1, most) } else { 0 };
        let (blocks, limits, errors, panics) = (often(50, 30), often(30, 20), often(40, 20), often(30, 10));
        let (drops, freezes, login_fails, login_hangs) =
            (often(60, 40), often(30, 15), often(40, 60), often(20, 20));
        Self {
            size: rng.between(1, 5),
            cap: [1, 1, 2, 3][rng.below(4) as usize],
            requests: rng.between(4, 60),
            users: rng.below(3),
            rush: [0, 100, 2000, 20_000][rng.below(4) as usize],
            strategy: rng.below(4),
            is_sticky: rng.chance(20),
            max_uses: rng.chance(40).then(|| rng.between(1, 12)),
            max_age: rng.chance(20).then(|| Duration::from_millis(rng.between(10, 5000))),
            delay: Duration::from_millis([0, 0, 50, 500][rng.below(4) as usize]),
            has_rule: rng.chance(70),
            blocks,
            limits,
            errors,
            panics,
            drops,
            freezes,
            login_fails,
            login_hangs,
            latency: [0, 1, 20, 500][rng.below(4) as usize],
        }
    }
}

/// The server, and the books on what it saw.
#[derive(Clone)]
struct Server(Arc<(Moods, Option<Flaw>, Mutex<State>)>);

struct State {
    rng: Rng,
    start: Option<Instant>,
    log: String,
    broken: Vec<String>,
    /// Requests of a member on their way, from their arrival to the end of their body.
    at_once: BTreeMap<String, u64>,
    uses: BTreeMap<String, u64>,
    last: BTreeMap<String, Instant>,
    /// How many requests came to the pool.
    came: u64,
    /// The last by its turn of those that have left the pool at an earlier moment, and of those that left at this one: whom a
    /// moment serves run in any order.
    left_before: u64,
    left_now: (u64, Option<Instant>),
    logged_in: BTreeSet<String>,
    is_kind: bool,
}

/// A request that asks for nothing special and is polled whenever it is woken: its place in the line.
#[derive(Clone)]
struct Turn(Arc<Mutex<u64>>);

/// A request that names its session.
#[derive(Clone)]
struct Pinned;

impl Server {
    fn moods(&self) -> &Moods {
        &self.0.0
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.0.1 == Some(flaw)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.2.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rng<R>(&self, draw: impl FnOnce(&mut Rng) -> R) -> R {
        draw(&mut self.state().rng)
    }

    fn chance(&self, percent: u64) -> bool {
        let is_kind = self.state().is_kind;
        !is_kind && self.rng(|rng| rng.chance(percent))
    }

    fn note(&self, what: impl std::fmt::Display) {
        let mut state = self.state();
        let now = state.start.get_or_insert_with(Instant::now).elapsed();
        let _ = writeln!(state.log, "{now:?} {what}");
    }

    /// Looks at a request as it leaves the pool.
    fn leaves(&self, request: &Request<Body>) {
        if request.extensions().get::<Pinned>().is_some() {
            return;
        }
        let id = request.extensions().get::<Session>().expect("the pool puts it there").id().to_string();
        let moods = self.moods();
        let mut state = self.state();
        let uses = state.uses.entry(id.clone()).or_default();
        *uses += 1;
        let uses = *uses;
        if moods.max_uses.is_some_and(|most| uses > most) {
            state.broken.push(format!("uses: {id} was used {uses} times"));
        }
        let now = Instant::now();
        if let Some(last) = state.last.insert(id.clone(), now)
            && moods.freezes == 0
            && now - last < moods.delay
        {
            state.broken.push(format!("delay: {id} was used again after {:?}", now - last));
        }
        if let Some(turn) = request.extensions().get::<Turn>() {
            let turn = *turn.0.lock().unwrap();
            if state.left_now.1 != Some(now) {
                state.left_before = state.left_before.max(state.left_now.0);
                state.left_now = (0, Some(now));
            }
            state.left_now.0 = state.left_now.0.max(turn);
            if turn < state.left_before {
                let left = state.left_before;
                state.broken.push(format!("order: {left} came after {turn} and left before it"));
            }
        }
    }

    async fn login(self, identity: Identity) -> Result<Response<Page>, BoxError> {
        let moods = self.moods();
        self.take_time(moods.latency).await;
        if self.chance(moods.login_hangs) {
            std::future::pending::<()>().await;
        }
        if self.chance(moods.panics / 2) {
            panic_wanted();
        }
        let good = !self.chance(moods.login_fails);
        let answer = Response::builder().status(if good { 200 } else { 500 });
        if good {
            self.state().logged_in.insert(identity.session_id().to_string());
        }
        let cookie = format!("sid={}; Path=/", identity.generation());
        Ok(answer.header(header::SET_COOKIE, cookie).body(Page { data: None, wait: None, running: None })?)
    }

    async fn page(self, id: String, running: Option<Running>) -> Result<Response<Page>, BoxError> {
        let moods = self.moods();
        self.take_time(moods.latency).await;
        if self.chance(moods.errors) {
            return Err("the connection was reset".into());
        }
        if self.chance(moods.panics) {
            panic_wanted();
        }
        let answer = Response::builder();
        let answer = match () {
            () if self.chance(moods.blocks) => {
                answer.status(if self.rng(|rng| rng.chance(50)) { 403 } else { 401 })
            }
            () if self.chance(moods.limits) => {
                answer.status(429).header("retry-after", self.rng(|rng| rng.below(5)))
            }
            () => answer,
        };
        let wait = Some(Box::pin(sleep(self.rng(|rng| rng.millis(moods.latency)))));
        let answer = answer.body(Page { data: Some(Bytes::from(id)), wait, running })?;
        Ok(answer)
    }

    async fn take_time(&self, most: u64) {
        match self.rng(|rng| rng.millis(most)) {
            Duration::ZERO => tokio::task::yield_now().await,
            time => sleep(time).await,
        }
    }
}

/// Counts a request of a member until the server is done with it.
struct Running(Server, String);

impl Running {
    fn new(server: &Server, id: &str) -> Self {
        let mut state = server.state();
        let at_once = state.at_once.entry(id.to_owned()).or_default();
        *at_once += 1;
        let at_once = *at_once;
        if at_once > server.moods().cap {
            state.broken.push(format!("cap: {at_once} requests of {id} at once"));
        }
        Self(server.clone(), id.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.state().at_once.get_mut(&self.1).expect("it was counted") -= 1;
    }
}

/// A body in two frames, with a pause before each.
struct Page {
    data: Option<Bytes>,
    wait: Option<Pin<Box<Sleep>>>,
    running: Option<Running>,
}

impl http_body::Body for Page {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(wait) = &mut self.wait {
            std::task::ready!(wait.as_mut().poll(context));
        }
        if self.data.as_ref().is_some_and(|data| data.len() > 1) {
            let first = self.data.as_mut().expect("it was there a line ago").split_to(1);
            self.wait = Some(Box::pin(sleep(Duration::from_millis(1))));
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.running = None;
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<Page>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Page>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let identity = Identity::of(request.extensions()).expect("the session layer puts it there");
        let id = identity.session_id().to_string();
        let path = request.uri().path().to_owned();
        self.note(format_args!("{path} of {id} {}", identity.generation()));
        if path == "/login" {
            return Box::pin(self.clone().login(identity));
        }
        let is_pinned = request.extensions().get::<Pinned>().is_some();
        if !is_pinned && self.moods().has_rule && !self.state().logged_in.contains(&id) {
            self.state().broken.push(format!("cold: {id} serves before it was logged in"));
        }
        let running = (!is_pinned).then(|| Running::new(self, &id));
        Box::pin(self.clone().page(id, running))
    }
}

#[derive(Clone)]
struct Watch(Server);

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched(inner, self.0.clone())
    }
}

/// Notes what leaves the pool.
#[derive(Clone)]
struct Watched<S>(S, Server);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Watched<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.1.leaves(&request);
        self.0.call(request)
    }
}

fn pool_of(moods: &Moods, flaw: Option<Flaw>, sessions: &Sessions) -> SessionPool {
    let mut pool = SessionPool::builder(sessions)
        .size(moods.size as u32)
        .max_in_flight(moods.cap as usize)
        .max_wait(LIMIT / 4)
        .max_error_score(2.0)
        .max_failed_warm_ups(4)
        .strategy(
            [Strategy::RoundRobin, Strategy::Random, Strategy::LeastLoaded, Strategy::FillFirst]
                [moods.strategy as usize],
        );
    if let Some(uses) = moods.max_uses.filter(|_| flaw != Some(Flaw::Uses)) {
        pool = pool.max_uses(uses);
    }
    if let Some(age) = moods.max_age {
        pool = pool.max_age(age);
    }
    if flaw != Some(Flaw::Delay) {
        pool = pool.min_delay(moods.delay);
    }
    if moods.is_sticky {
        pool = pool.sticky_by_host();
    }
    pool.build().unwrap()
}

fn stack(server: &Server, sessions: &Sessions, pool: &SessionPool) -> Boxed {
    let moods = server.moods();
    let builder = ServiceBuilder::new().layer(PoolLayer::new(pool)).layer(Watch(server.clone()));
    let below = SessionLayer::new(sessions).layer(server.clone());
    if !moods.has_rule || server.has(Flaw::Cold) {
        return BoxCloneService::new(builder.service(below));
    }
    let rule = RenewalLayer::new(sessions)
        .renew_with(|renewal: Renewal<Body>| async move {
            let answer = renewal.send(Request::get("http://site/login").body(Body::new())?).await?;
            renewal.ensure(answer.status().is_success(), "the login was not accepted")
        })
        .gate_config(GateConfig::new().max_attempts(2).attempt_timeout(Duration::from_secs(5)));
    BoxCloneService::new(builder.layer(rule).service(below))
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    requests: u64,
    good: u64,
    blocked: u64,
    failed: u64,
    refused: u64,
    dropped: u64,
    panicked: u64,
    waited: u64,
    retired: u64,
    created: u64,
    warm_ups_failed: u64,
    rests: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.good += other.good;
        self.blocked += other.blocked;
        self.failed += other.failed;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.panicked += other.panicked;
        self.waited += other.waited;
        self.retired += other.retired;
        self.created += other.created;
        self.warm_ups_failed += other.warm_ups_failed;
        self.rests += other.rests;
    }
}

enum Outcome {
    Answered(u16),
    Failed(BoxError),
    Dropped,
}

async fn request(client: Boxed, pool: SessionPool, server: Server, mut rng: Rng) -> Outcome {
    let moods = server.moods().clone();
    sleep(rng.millis(moods.rush)).await;
    if server.has(Flaw::Barging) {
        server.state().came += 1;
    }
    let host = ["a", "b", "c"][rng.below(3) as usize];
    let mut request = Request::get(format!("http://{host}/page")).body(Body::new()).unwrap();
    let freezes = rng.chance(moods.freezes);
    let extensions = request.extensions_mut();
    let turn = Turn(Arc::default());
    match rng.below(12) {
        0 => {
            // A member, if there is one: whoever names it answers for it.
            let members = pool.members();
            let member = members.get(rng.below(4) as usize);
            extensions.insert(member.map_or_else(|| SessionId::from("alice"), |member| member.id().clone()));
            extensions.insert(Pinned);
        }
        1 => {
            extensions.insert(UnusedSession);
        }
        2 => {
            extensions.insert(TriedSessions::new());
        }
        _ if !moods.is_sticky && !freezes => {
            extensions.insert(turn.clone());
        }
        _ => {}
    }
    let tried = request.extensions().get::<TriedSessions>().cloned();
    let again = tried.map(|_| request.clone());
    // Its turn is drawn when the pool first hears of it: by the first poll.
    if server.has(Flaw::Barging) {
        *turn.0.lock().unwrap() = server.state().came;
        sleep(rng.millis(50)).await;
    } else {
        let mut state = server.state();
        state.came += 1;
        *turn.0.lock().unwrap() = state.came;
    }
    let forgets = server.has(Flaw::Forgotten) && rng.chance(20);
    let ends_at_head = server.has(Flaw::EndsAtHead);
    let endless = server.has(Flaw::Endless) && rng.chance(20);
    let reads = rng.below(4);
    let marks = rng.below(20);
    let call = Box::pin(async move {
        let mut answer = client.clone().oneshot(request).await;
        if let (Some(again), Err(_)) = (again, &answer) {
            answer = client.oneshot(again).await;
        }
        let response = answer?;
        let status = response.status().as_u16();
        if let Some(member) = response.extensions().get::<Member>() {
            match marks {
                0 => member.retire(),
                1 => member.mark_bad(),
                2 => member.mark_good(),
                3 => member.mark(Verdict::CoolDown(Duration::from_millis(200))),
                _ => {}
            }
        }
        let mut body = response.into_body();
        if endless {
            std::future::pending::<()>().await;
        }
        if forgets {
            std::mem::forget(body);
            return Ok(status);
        }
        if ends_at_head {
            body.into_inner().collect().await?;
            return Ok(status);
        }
        match reads {
            0 => drop(body),
            1 => drop(body.frame().await),
            _ => drop(body.collect().await?),
        }
        Ok(status)
    });
    let patience = if rng.chance(moods.drops) { rng.millis(3000) } else { LIMIT * 2 };
    let answer: Result<Result<u16, BoxError>, _> = if freezes {
        let thaw = Box::pin(sleep(rng.millis(60_000)));
        timeout(patience, Freeze { inner: call, polls: rng.between(1, 4), thaw }).await
    } else {
        timeout(patience, call).await
    };
    match answer {
        Err(_) => Outcome::Dropped,
        Ok(Err(error)) => Outcome::Failed(error),
        Ok(Ok(status)) => Outcome::Answered(status),
    }
}

/// Somebody with handles.
async fn user(pool: SessionPool, server: Server, mut rng: Rng) {
    for _ in 0..rng.between(1, 10) {
        sleep(rng.millis(server.moods().rush / 4 + 20)).await;
        let members = pool.members();
        if members.is_empty() {
            continue;
        }
        let member = &members[rng.below(members.len() as u64) as usize];
        server.note(format_args!("a user looks at {}", member.id()));
        match rng.below(5) {
            0 => member.retire(),
            1 => member.mark_bad(),
            2 if server.moods().has_rule => member.session().clear(),
            3 => {
                let patience = rng.millis(1000);
                if let Ok(Ok(lease)) = timeout(patience, pool.lease()).await {
                    // Not used: it counts for nothing.
                    drop(lease);
                }
            }
            _ => drop(pool.snapshot().to_string()),
        }
    }
}

struct World {
    broken: Vec<String>,
    log: String,
    tally: Tally,
}

fn run(seed: u64, flaw: Option<Flaw>) -> World {
    let mut rng = Rng(seed);
    let moods = Moods::draw(&mut rng);
    let state = State {
        rng: rng.child(),
        start: None,
        log: format!("{moods:?}\n"),
        broken: Vec::new(),
        at_once: BTreeMap::new(),
        uses: BTreeMap::new(),
        last: BTreeMap::new(),
        came: 0,
        left_before: 0,
        left_now: (0, None),
        logged_in: BTreeSet::new(),
        is_kind: false,
    };
    let server = Server(Arc::new((moods, flaw, Mutex::new(state))));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut tally = Tally::default();
    let ended = runtime.block_on(async { timeout(LIMIT, play(&server, seed, &mut rng, &mut tally)).await });
    let mut state = server.state();
    if ended.is_err() {
        state.broken.push(String::from("stalled: somebody waits for ever"));
    }
    World { broken: std::mem::take(&mut state.broken), log: std::mem::take(&mut state.log), tally }
}

async fn play(server: &Server, seed: u64, rng: &mut Rng, tally: &mut Tally) {
    let moods = server.moods();
    let sessions = Sessions::builder().jitter_seed(seed).build().unwrap();
    let pool = pool_of(moods, server.0.1, &sessions);
    let client = stack(server, &sessions, &pool);
    let mut users = JoinSet::new();
    for _ in 0..moods.users {
        users.spawn(user(pool.clone(), server.clone(), rng.child()));
    }
    let mut requests = JoinSet::new();
    for _ in 0..moods.requests {
        requests.spawn(request(client.clone(), pool.clone(), server.clone(), rng.child()));
    }
    while let Some(ended) = requests.join_next().await {
        tally.requests += 1;
        match ended {
            Err(error) if error.is_panic() => tally.panicked += 1,
            Err(error) => server.state().broken.push(format!("a request was lost: {error}")),
            Ok(Outcome::Dropped) => tally.dropped += 1,
            Ok(Outcome::Answered(200)) => tally.good += 1,
            Ok(Outcome::Answered(_)) => tally.blocked += 1,
            Ok(Outcome::Failed(error)) => match error.downcast_ref::<PoolError>() {
                Some(error) if error.kind() == PoolErrorKind::TimedOut => {
                    server.state().broken.push(String::from("stalled: a request waited in vain"));
                }
                Some(_) => tally.refused += 1,
                None => tally.failed += 1,
            },
        }
    }
    while users.join_next().await.is_some() {}
    let leased: usize = pool.snapshot().members.iter().map(|member| member.in_use).sum();
    if leased + pool.waiting() > 0 {
        server.state().broken.push(format!(
            "leases: {leased} are out and {} wait\n{}",
            pool.waiting(),
            pool.snapshot()
        ));
    }
    // From now on everything is well: a pool that was broken mends itself, and everybody is served.
    server.state().is_kind = true;
    sleep(Duration::from_secs(70)).await;
    for _ in 0..moods.size * moods.cap {
        requests.spawn({
            let (client, sessions) = (client.clone(), server.clone());
            async move {
                for _ in 0..3 {
                    let request = Request::get("http://a/page").body(Body::new()).unwrap();
                    let answer = client.clone().oneshot(request).await;
                    match answer {
                        Ok(response) => drop(response.into_body().collect().await),
                        Err(error) => sessions.state().broken.push(format!("well again: {error}")),
                    }
                }
                Outcome::Dropped
            }
        });
    }
    while requests.join_next().await.is_some() {}
    // A pool whose members do for all that comes has no need to try another one.
    if (pool.unavailable().is_some() && pool.members().is_empty()) || pool.waiting() > 0 {
        server.state().broken.push(format!("well again: {}", pool.snapshot()));
    }
    let snapshot = pool.snapshot();
    if snapshot.members.len() > 2 * moods.size as usize {
        server.state().broken.push(format!("members: {snapshot}"));
    }
    let stats = snapshot.stats;
    tally.waited = stats.waited;
    tally.retired = stats.retired();
    tally.created = stats.created;
    tally.warm_ups_failed = stats.warm_ups_failed;
    tally.rests = stats.cooldowns;
}

#[track_caller]
fn holds(seed: u64) -> Tally {
    let world = run(seed, None);
    if !world.broken.is_empty() {
        eprintln!("{}", world.log);
    }
    assert!(world.broken.is_empty(), "POOL_SOAK_SEED={seed} breaks:\n  {}", world.broken.join("\n  "));
    world.tally
}

#[test]
fn every_world_keeps_every_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("POOL_SOAK_SEED") {
        println!("seed {seed}: {:?}", holds(seed));
        return;
    }
    let seeds = number("POOL_SOAK_SEEDS").unwrap_or(SEEDS);
    let mut total = Tally::default();
    on_all_cores(seeds, holds).iter().for_each(|tally| total.add(tally));
    println!("{seeds} seeds: {total:?}");
    let Tally { good, dropped, panicked, waited, retired, rests, .. } = total;
    assert!([good, dropped, panicked, waited, retired, rests].iter().all(|count| *count > 0), "{total:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let (one, other) = (run(seed, None), run(seed, None));
        assert_eq!(one.log, other.log, "seed {seed}");
        assert_eq!(one.tally, other.tally, "seed {seed}");
    }
}

#[test]
fn each_broken_variant_is_caught_by_its_check() {
    for (flaw, check) in [
        (Flaw::EndsAtHead, "cap"),
        (Flaw::Forgotten, "leases"),
        (Flaw::Barging, "order"),
        (Flaw::Uses, "uses"),
        (Flaw::Delay, "delay"),
        (Flaw::Cold, "cold"),
        (Flaw::Endless, "stalled"),
    ] {
        let caught =
            (0..300).any(|seed| run(seed, Some(flaw)).broken.iter().any(|broken| broken.starts_with(check)));
        assert!(caught, "{flaw:?} was missed");
    }
}
