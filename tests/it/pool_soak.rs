//! Thousands of random worlds with a pool, over the real layers; each seed determines its world
//! completely.
//!
//! As in the soak test of the gate, a world runs on one thread with a paused clock. Requests are
//! dropped and frozen at any await point; bodies are read, partly read and dropped; responses block
//! or limit sessions; logins fail and hang; code panics; and users mark, retire and clear sessions
//! and name them explicitly. The test checks what the server received. Each flaw is a world with
//! one fault, which a check must detect.
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

/// The limit of a world, by its own clock: what has not completed by then has stalled.
const LIMIT: Duration = Duration::from_secs(3600);

/// One fault of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// A lease ends at the head of the response.
    EndsAtHead,
    /// A lease is leaked.
    Leaked,
    /// Requests reach the pool in a different order than that of their turns.
    Reordered,
    /// The pool has no limit on uses.
    Uses,
    /// The pool has no minimum delay.
    Delay,
    /// The pool does not warm up its members.
    Cold,
    /// A response never ends.
    Endless,
}

#[derive(Clone, Debug)]
struct Behaviour {
    size: u64,
    max_in_flight: u64,
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

impl Behaviour {
    fn draw(rng: &mut Rng) -> Self {
        let mut often = |percent: u64, max: u64| if rng.chance(percent) { rng.between(1, max) } else { 0 };
        let (blocks, limits, errors, panics) = (often(50, 30), often(30, 20), often(40, 20), often(30, 10));
        let (drops, freezes, login_fails, login_hangs) =
            (often(60, 40), often(30, 15), often(40, 60), often(20, 20));
        Self {
            size: rng.between(1, 5),
            max_in_flight: [1, 1, 2, 3][rng.below(4) as usize],
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

/// The server and its records.
#[derive(Clone)]
struct Server(Arc<(Behaviour, Option<Flaw>, Mutex<State>)>);

struct State {
    rng: Rng,
    start: Option<Instant>,
    log: String,
    violations: Vec<String>,
    /// The requests of a member in flight, from their arrival to the end of their body.
    in_flight: BTreeMap<String, u64>,
    uses: BTreeMap<String, u64>,
    last: BTreeMap<String, Instant>,
    /// The number of requests that have reached the pool.
    arrived: u64,
    /// The highest turn that left the pool at an earlier time, and the highest that left at the
    /// current time: requests served at the same time may run in any order.
    left_earlier: u64,
    left_now: (u64, Option<Instant>),
    logged_in: BTreeSet<String>,
    is_reliable: bool,
}

/// The turn of a request that has no special requirements and is polled whenever it is woken.
#[derive(Clone)]
struct Turn(Arc<Mutex<u64>>);

/// Marks a request that names its session.
#[derive(Clone)]
struct Pinned;

impl Server {
    fn behaviour(&self) -> &Behaviour {
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
        let is_reliable = self.state().is_reliable;
        !is_reliable && self.rng(|rng| rng.chance(percent))
    }

    fn note(&self, what: impl std::fmt::Display) {
        let mut state = self.state();
        let now = state.start.get_or_insert_with(Instant::now).elapsed();
        let _ = writeln!(state.log, "{now:?} {what}");
    }

    /// Checks a request that leaves the pool.
    fn leaves(&self, request: &Request<Body>) {
        if request.extensions().get::<Pinned>().is_some() {
            return;
        }
        let id = request.extensions().get::<Session>().expect("the pool sets it").id().to_string();
        let behaviour = self.behaviour();
        let mut state = self.state();
        let uses = state.uses.entry(id.clone()).or_default();
        *uses += 1;
        let uses = *uses;
        if behaviour.max_uses.is_some_and(|max| uses > max) {
            state.violations.push(format!("uses: {id} was used {uses} times"));
        }
        let now = Instant::now();
        if let Some(last) = state.last.insert(id.clone(), now)
            && behaviour.freezes == 0
            && now - last < behaviour.delay
        {
            state.violations.push(format!("delay: {id} was used again after {:?}", now - last));
        }
        if let Some(turn) = request.extensions().get::<Turn>() {
            let turn = *turn.0.lock().unwrap();
            if state.left_now.1 != Some(now) {
                state.left_earlier = state.left_earlier.max(state.left_now.0);
                state.left_now = (0, Some(now));
            }
            state.left_now.0 = state.left_now.0.max(turn);
            if turn < state.left_earlier {
                let left = state.left_earlier;
                state.violations.push(format!("order: {left} arrived after {turn} and left before it"));
            }
        }
    }

    async fn login(self, identity: Identity) -> Result<Response<Page>, BoxError> {
        let behaviour = self.behaviour();
        self.take_time(behaviour.latency).await;
        if self.chance(behaviour.login_hangs) {
            std::future::pending::<()>().await;
        }
        if self.chance(behaviour.panics / 2) {
            panic_wanted();
        }
        let good = !self.chance(behaviour.login_fails);
        let response = Response::builder().status(if good { 200 } else { 500 });
        if good {
            self.state().logged_in.insert(identity.session_id().to_string());
        }
        let cookie = format!("sid={}; Path=/", identity.generation());
        Ok(response.header(header::SET_COOKIE, cookie).body(Page {
            data: None,
            wait: None,
            running: None,
        })?)
    }

    async fn page(self, id: String, running: Option<Running>) -> Result<Response<Page>, BoxError> {
        let behaviour = self.behaviour();
        self.take_time(behaviour.latency).await;
        if self.chance(behaviour.errors) {
            return Err("the connection was reset".into());
        }
        if self.chance(behaviour.panics) {
            panic_wanted();
        }
        let response = Response::builder();
        let response = match () {
            () if self.chance(behaviour.blocks) => {
                response.status(if self.rng(|rng| rng.chance(50)) { 403 } else { 401 })
            }
            () if self.chance(behaviour.limits) => {
                response.status(429).header("retry-after", self.rng(|rng| rng.below(5)))
            }
            () => response,
        };
        let wait = Some(Box::pin(sleep(self.rng(|rng| rng.millis(behaviour.latency)))));
        let response = response.body(Page { data: Some(Bytes::from(id)), wait, running })?;
        Ok(response)
    }

    async fn take_time(&self, max: u64) {
        match self.rng(|rng| rng.millis(max)) {
            Duration::ZERO => tokio::task::yield_now().await,
            time => sleep(time).await,
        }
    }
}

/// Counts a request of a member until the server has completed it.
struct Running(Server, String);

impl Running {
    fn new(server: &Server, id: &str) -> Self {
        let mut state = server.state();
        let in_flight = state.in_flight.entry(id.to_owned()).or_default();
        *in_flight += 1;
        let in_flight = *in_flight;
        if in_flight > server.behaviour().max_in_flight {
            state.violations.push(format!("max_in_flight: {in_flight} concurrent requests of {id}"));
        }
        Self(server.clone(), id.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.state().in_flight.get_mut(&self.1).expect("it was counted") -= 1;
    }
}

/// A body of two frames with a pause before each.
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
            let first = self.data.as_mut().expect("checked above").split_to(1);
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
        let identity = Identity::of(request.extensions()).expect("the session layer sets it");
        let id = identity.session_id().to_string();
        let path = request.uri().path().to_owned();
        self.note(format_args!("{path} of {id} {}", identity.generation()));
        if path == "/login" {
            return Box::pin(self.clone().login(identity));
        }
        let is_pinned = request.extensions().get::<Pinned>().is_some();
        if !is_pinned && self.behaviour().has_rule && !self.state().logged_in.contains(&id) {
            self.state().violations.push(format!("cold: {id} served before it was logged in"));
        }
        let running = (!is_pinned).then(|| Running::new(self, &id));
        Box::pin(self.clone().page(id, running))
    }
}

#[derive(Clone)]
struct RecordLayer(Server);

impl<S> Layer<S> for RecordLayer {
    type Service = Recorded<S>;

    fn layer(&self, inner: S) -> Recorded<S> {
        Recorded(inner, self.0.clone())
    }
}

/// Records the requests that leave the pool.
#[derive(Clone)]
struct Recorded<S>(S, Server);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Recorded<S> {
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

fn pool_of(behaviour: &Behaviour, flaw: Option<Flaw>, sessions: &Sessions) -> SessionPool {
    let mut pool = SessionPool::builder(sessions)
        .size(behaviour.size as u32)
        .max_in_flight(behaviour.max_in_flight as usize)
        .max_wait(LIMIT / 4)
        .max_error_score(2.0)
        .max_failed_warm_ups(4)
        .strategy(
            [Strategy::RoundRobin, Strategy::Random, Strategy::LeastLoaded, Strategy::FillFirst]
                [behaviour.strategy as usize],
        );
    if let Some(uses) = behaviour.max_uses.filter(|_| flaw != Some(Flaw::Uses)) {
        pool = pool.max_uses(uses);
    }
    if let Some(age) = behaviour.max_age {
        pool = pool.max_age(age);
    }
    if flaw != Some(Flaw::Delay) {
        pool = pool.min_delay(behaviour.delay);
    }
    if behaviour.is_sticky {
        pool = pool.sticky_by_host();
    }
    pool.build().unwrap()
}

fn stack(server: &Server, sessions: &Sessions, pool: &SessionPool) -> Boxed {
    let behaviour = server.behaviour();
    let builder = ServiceBuilder::new().layer(PoolLayer::new(pool)).layer(RecordLayer(server.clone()));
    let below = SessionLayer::new(sessions).layer(server.clone());
    if !behaviour.has_rule || server.has(Flaw::Cold) {
        return BoxCloneService::new(builder.service(below));
    }
    let rule = RenewalLayer::new(sessions)
        .renew_with(|renewal: Renewal<Body>| async move {
            let response = renewal.send(Request::get("http://site/login").body(Body::new())?).await?;
            renewal.ensure_transient(response.status().is_success(), "the login was not accepted")
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
    rejected: u64,
    dropped: u64,
    panicked: u64,
    waited: u64,
    retired: u64,
    created: u64,
    warm_ups_failed: u64,
    cooldowns: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.good += other.good;
        self.blocked += other.blocked;
        self.failed += other.failed;
        self.rejected += other.rejected;
        self.dropped += other.dropped;
        self.panicked += other.panicked;
        self.waited += other.waited;
        self.retired += other.retired;
        self.created += other.created;
        self.warm_ups_failed += other.warm_ups_failed;
        self.cooldowns += other.cooldowns;
    }
}

enum Outcome {
    Completed(u16),
    Failed(BoxError),
    Dropped,
}

async fn request(client: Boxed, pool: SessionPool, server: Server, mut rng: Rng) -> Outcome {
    let behaviour = server.behaviour().clone();
    sleep(rng.millis(behaviour.rush)).await;
    if server.has(Flaw::Reordered) {
        server.state().arrived += 1;
    }
    let host = ["a", "b", "c"][rng.below(3) as usize];
    let mut request = Request::get(format!("http://{host}/page")).body(Body::new()).unwrap();
    let freezes = rng.chance(behaviour.freezes);
    let extensions = request.extensions_mut();
    let turn = Turn(Arc::default());
    match rng.below(12) {
        0 => {
            // Names a member, if there is one; the pool's limits do not apply to such requests.
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
        _ if !behaviour.is_sticky && !freezes => {
            extensions.insert(turn.clone());
        }
        _ => {}
    }
    let tried = request.extensions().get::<TriedSessions>().cloned();
    let retry = tried.map(|_| request.clone());
    // The turn is determined by the first poll, when the request reaches the pool.
    if server.has(Flaw::Reordered) {
        *turn.0.lock().unwrap() = server.state().arrived;
        sleep(rng.millis(50)).await;
    } else {
        let mut state = server.state();
        state.arrived += 1;
        *turn.0.lock().unwrap() = state.arrived;
    }
    let leaks = server.has(Flaw::Leaked) && rng.chance(20);
    let ends_at_head = server.has(Flaw::EndsAtHead);
    let endless = server.has(Flaw::Endless) && rng.chance(20);
    let reads = rng.below(4);
    let marks = rng.below(20);
    let call = Box::pin(async move {
        let mut response = client.clone().oneshot(request).await;
        if let (Some(retry), Err(_)) = (retry, &response) {
            response = client.oneshot(retry).await;
        }
        let response = response?;
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
        if leaks {
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
    let limit = if rng.chance(behaviour.drops) { rng.millis(3000) } else { LIMIT * 2 };
    let response: Result<Result<u16, BoxError>, _> = if freezes {
        let thaw = Box::pin(sleep(rng.millis(60_000)));
        timeout(limit, Freeze { inner: call, polls: rng.between(1, 4), thaw }).await
    } else {
        timeout(limit, call).await
    };
    match response {
        Err(_) => Outcome::Dropped,
        Ok(Err(error)) => Outcome::Failed(error),
        Ok(Ok(status)) => Outcome::Completed(status),
    }
}

/// A user who works with handles.
async fn user(pool: SessionPool, server: Server, mut rng: Rng) {
    for _ in 0..rng.between(1, 10) {
        sleep(rng.millis(server.behaviour().rush / 4 + 20)).await;
        let members = pool.members();
        if members.is_empty() {
            continue;
        }
        let member = &members[rng.below(members.len() as u64) as usize];
        server.note(format_args!("a user accesses {}", member.id()));
        match rng.below(5) {
            0 => member.retire(),
            1 => member.mark_bad(),
            2 if server.behaviour().has_rule => member.session().clear(),
            3 => {
                let limit = rng.millis(1000);
                if let Ok(Ok(lease)) = timeout(limit, pool.lease()).await {
                    // An unused lease does not count as a use.
                    drop(lease);
                }
            }
            _ => drop(pool.snapshot().to_string()),
        }
    }
}

struct World {
    violations: Vec<String>,
    log: String,
    tally: Tally,
}

fn run(seed: u64, flaw: Option<Flaw>) -> World {
    let mut rng = Rng(seed);
    let behaviour = Behaviour::draw(&mut rng);
    let state = State {
        rng: rng.child(),
        start: None,
        log: format!("{behaviour:?}\n"),
        violations: Vec::new(),
        in_flight: BTreeMap::new(),
        uses: BTreeMap::new(),
        last: BTreeMap::new(),
        arrived: 0,
        left_earlier: 0,
        left_now: (0, None),
        logged_in: BTreeSet::new(),
        is_reliable: false,
    };
    let server = Server(Arc::new((behaviour, flaw, Mutex::new(state))));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut tally = Tally::default();
    let ended = runtime.block_on(async { timeout(LIMIT, play(&server, seed, &mut rng, &mut tally)).await });
    let mut state = server.state();
    if ended.is_err() {
        state.violations.push(String::from("stalled: a task never completed"));
    }
    World { violations: std::mem::take(&mut state.violations), log: std::mem::take(&mut state.log), tally }
}

async fn play(server: &Server, seed: u64, rng: &mut Rng, tally: &mut Tally) {
    let behaviour = server.behaviour();
    let sessions = Sessions::builder().jitter_seed(seed).build().unwrap();
    let pool = pool_of(behaviour, server.0.1, &sessions);
    let client = stack(server, &sessions, &pool);
    let mut users = JoinSet::new();
    for _ in 0..behaviour.users {
        users.spawn(user(pool.clone(), server.clone(), rng.child()));
    }
    let mut requests = JoinSet::new();
    for _ in 0..behaviour.requests {
        requests.spawn(request(client.clone(), pool.clone(), server.clone(), rng.child()));
    }
    while let Some(ended) = requests.join_next().await {
        tally.requests += 1;
        match ended {
            Err(error) if error.is_panic() => tally.panicked += 1,
            Err(error) => server.state().violations.push(format!("a request was lost: {error}")),
            Ok(Outcome::Dropped) => tally.dropped += 1,
            Ok(Outcome::Completed(200)) => tally.good += 1,
            Ok(Outcome::Completed(_)) => tally.blocked += 1,
            Ok(Outcome::Failed(error)) => match error.downcast_ref::<PoolError>() {
                Some(error) if error.kind() == PoolErrorKind::TimedOut => {
                    server.state().violations.push(String::from("stalled: a request timed out"));
                }
                Some(_) => tally.rejected += 1,
                None => tally.failed += 1,
            },
        }
    }
    while users.join_next().await.is_some() {}
    let leased: usize = pool.snapshot().members.iter().map(|member| member.in_use).sum();
    if leased + pool.waiting() > 0 {
        server.state().violations.push(format!(
            "leases: {leased} have not ended and {} requests wait\n{}",
            pool.waiting(),
            pool.snapshot()
        ));
    }
    // From now on everything succeeds: an unavailable pool recovers, and all requests are served.
    server.state().is_reliable = true;
    sleep(Duration::from_secs(70)).await;
    for _ in 0..behaviour.size * behaviour.max_in_flight {
        requests.spawn({
            let (client, sessions) = (client.clone(), server.clone());
            async move {
                for _ in 0..3 {
                    let request = Request::get("http://a/page").body(Body::new()).unwrap();
                    let response = client.clone().oneshot(request).await;
                    match response {
                        Ok(response) => drop(response.into_body().collect().await),
                        Err(error) => sessions.state().violations.push(format!("recovery: {error}")),
                    }
                }
                Outcome::Dropped
            }
        });
    }
    while requests.join_next().await.is_some() {}
    // A pool whose members can serve all requests does not start another warm-up.
    if (pool.unavailable().is_some() && pool.members().is_empty()) || pool.waiting() > 0 {
        server.state().violations.push(format!("recovery: {}", pool.snapshot()));
    }
    let snapshot = pool.snapshot();
    if snapshot.members.len() > 2 * behaviour.size as usize {
        server.state().violations.push(format!("members: {snapshot}"));
    }
    let stats = snapshot.stats;
    tally.waited = stats.waited;
    tally.retired = stats.retired();
    tally.created = stats.created;
    tally.warm_ups_failed = stats.warm_ups_failed;
    tally.cooldowns = stats.cooldowns;
}

#[track_caller]
fn check(seed: u64) -> Tally {
    let world = run(seed, None);
    if !world.violations.is_empty() {
        eprintln!("{}", world.log);
    }
    assert!(world.violations.is_empty(), "POOL_SOAK_SEED={seed} fails:\n  {}", world.violations.join("\n  "));
    world.tally
}

#[test]
fn every_world_passes_all_checks() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("POOL_SOAK_SEED") {
        println!("seed {seed}: {:?}", check(seed));
        return;
    }
    let seeds = number("POOL_SOAK_SEEDS").unwrap_or(SEEDS);
    let mut total = Tally::default();
    on_all_cores(seeds, check).iter().for_each(|tally| total.add(tally));
    println!("{seeds} seeds: {total:?}");
    let Tally { good, dropped, panicked, waited, retired, cooldowns, .. } = total;
    assert!(
        [good, dropped, panicked, waited, retired, cooldowns].iter().all(|count| *count > 0),
        "{total:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..20 {
        let (one, other) = (run(seed, None), run(seed, None));
        assert_eq!(one.log, other.log, "seed {seed}");
        assert_eq!(one.tally, other.tally, "seed {seed}");
    }
}

#[test]
fn each_flaw_is_caught_by_its_check() {
    for (flaw, check) in [
        (Flaw::EndsAtHead, "max_in_flight"),
        (Flaw::Leaked, "leases"),
        (Flaw::Reordered, "order"),
        (Flaw::Uses, "uses"),
        (Flaw::Delay, "delay"),
        (Flaw::Cold, "cold"),
        (Flaw::Endless, "stalled"),
    ] {
        let caught = (0..300).any(|seed| {
            run(seed, Some(flaw)).violations.iter().any(|violation| violation.starts_with(check))
        });
        assert!(caught, "{flaw:?} was missed");
    }
}
