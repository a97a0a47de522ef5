//! Random fleets: processes start, crawl and die; the store is unreachable, silent or slow, or
//! loses records, responses and leases.
//!
//! Each seed is one fleet. In every fleet, each request ends, a one-time token is used at most
//! once, logins never run concurrently unless the store has lost a lease, and after the last fault
//! all processes have the same working session.
//!
//! ```text
//! FLEET_SOAK_SEEDS=20000 cargo test --release --features shared --test it fleets -- --nocapture
//! FLEET_SOAK_SEED=4711 cargo test --features shared --test it fleets -- --nocapture
//! ```

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Empty;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_client_sessions::{
    Expired, Renewal, RenewalLayer, SessionId, SessionLayer, Sessions,
    gate::GateConfig,
    shared::{
        Commit, CommitOutcome, FencingToken, LeaseOutcome, MemoryStore, OnUnreachable, Owner, Record,
        RecordVersion, SharedStore, SharingConfig, StoreError, StoreErrorKind, StoreEvent, StoreFuture,
        UseGrant,
    },
};

use crate::soak::Rng;

type Body = Empty<Bytes>;

/// A site with one session at a time, and a one-time token for the next login.
#[derive(Clone)]
struct Site {
    seen: Arc<Mutex<Seen>>,
    life: Life,
}

struct Seen {
    sid: u64,
    /// The token of each login, and how often it was used.
    tokens: BTreeMap<u64, u32>,
    logins: u64,
    running: u32,
    concurrent_max: u32,
    pages: u64,
    random: Rng,
}

impl Site {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

/// A running login.
struct Running(Site);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.seen().running -= 1;
    }
}

impl Site {
    fn new(random: Rng) -> Self {
        let seen = Seen {
            sid: 0,
            tokens: BTreeMap::new(),
            logins: 0,
            running: 0,
            concurrent_max: 0,
            pages: 0,
            random,
        };
        Self { seen: Arc::new(Mutex::new(seen)), life: Life::new() }
    }

    async fn login(self, token: Option<u64>) -> Result<http::response::Builder, BoxError> {
        let (running, wait, is_reset) = {
            let mut seen = self.seen();
            seen.logins += 1;
            seen.running += 1;
            seen.concurrent_max = seen.concurrent_max.max(seen.running);
            if let Some(token) = token {
                *seen.tokens.entry(token).or_default() += 1;
            }
            let (wait, is_reset) = (seen.random.millis(400), seen.random.chance(12));
            (Running(self.clone()), wait, is_reset)
        };
        sleep(wait).await;
        drop(running);
        if is_reset {
            return Err("the connection was reset".into());
        }
        let mut seen = self.seen();
        seen.sid += 1;
        Ok(Response::builder().header(header::SET_COOKIE, format!("sid={}; Path=/", seen.sid)))
    }

    async fn page(self, cookies: String) -> Result<http::response::Builder, BoxError> {
        let (is_good, wait) = {
            let mut seen = self.seen();
            let sid = format!("sid={}", seen.sid);
            let is_good = cookies.split("; ").any(|pair| pair == sid);
            seen.pages += u64::from(is_good);
            (is_good, seen.random.millis(50))
        };
        sleep(wait).await;
        Ok(Response::builder().status(if is_good { StatusCode::OK } else { StatusCode::FORBIDDEN }))
    }
}

impl Service<Request<Body>> for Site {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (site, life) = (self.clone(), self.life.clone());
        Box::pin(async move {
            let response = match request.uri().path() {
                "/login" => {
                    let token = request.uri().query().and_then(|query| query.parse().ok());
                    life.lasts(site.login(token)).await?
                }
                _ => {
                    let cookies = request.headers().get(header::COOKIE);
                    let cookies = cookies.map_or("", |cookies| cookies.to_str().unwrap()).to_owned();
                    life.lasts(site.page(cookies)).await?
                }
            };
            Ok(response.body(Body::new())?)
        })
    }
}

/// The life of a process. Its futures stay pending once it is killed.
#[derive(Clone, Debug)]
struct Life(Arc<Semaphore>);

impl Life {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    fn end(&self) {
        self.0.close();
    }

    async fn lasts<T>(&self, act: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            // Resolves when the semaphore is closed.
            _ = self.0.acquire() => {}
            done = act => return done,
        }
        std::future::pending().await
    }
}

/// One process's handle to a store in memory with faults.
#[derive(Clone, Debug)]
struct Store {
    inner: MemoryStore,
    faults: Arc<Mutex<Faults>>,
    pushes: bool,
    flaw: Option<Flaw>,
    life: Life,
}

#[derive(Debug)]
struct Faults {
    random: Rng,
    unreachable: bool,
    silent: bool,
    /// The percentage of responses that are lost.
    lossy: u64,
    /// The maximum latency in each direction, in milliseconds.
    slow: u64,
}

/// A deliberate bug of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// The store grants a lease that is held.
    Leases,
    /// The store does not mark a started renewal.
    Marks,
}

impl Store {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    async fn request<'a, T>(&'a self, request: StoreFuture<'a, T>) -> Result<T, StoreError> {
        let (unreachable, silent, lost, there, back) = {
            let mut faults = self.faults();
            let (slow, lossy) = (faults.slow, faults.lossy);
            let lost = faults.random.chance(lossy);
            (faults.unreachable, faults.silent, lost, faults.random.millis(slow), faults.random.millis(slow))
        };
        let act = async {
            if silent {
                std::future::pending::<()>().await;
            }
            if unreachable {
                return Err(StoreError::new(StoreErrorKind::Unreachable));
            }
            sleep(there).await;
            let response = request.await;
            sleep(back).await;
            if lost { Err(StoreError::new(StoreErrorKind::Unreachable)) } else { response }
        };
        self.life.lasts(act).await
    }
}

impl SharedStore for Store {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Record> {
        Box::pin(self.request(self.inner.load(key)))
    }
    fn versions<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<RecordVersion>> {
        Box::pin(self.request(self.inner.versions(keys)))
    }
    fn lease<'a>(&'a self, key: &'a str, owner: Owner, ttl: Duration) -> StoreFuture<'a, LeaseOutcome> {
        if self.flaw == Some(Flaw::Leases) {
            self.inner.expire_leases();
        }
        Box::pin(self.request(self.inner.lease(key, owner, ttl)))
    }
    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(self.request(self.inner.extend(key, owner, token, ttl)))
    }
    fn release<'a>(&'a self, key: &'a str, owner: Owner, token: FencingToken) -> StoreFuture<'a, ()> {
        Box::pin(self.request(self.inner.release(key, owner, token)))
    }
    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
    ) -> StoreFuture<'a, bool> {
        if self.flaw == Some(Flaw::Marks) {
            return Box::pin(self.request(Box::pin(async { Ok(true) })));
        }
        Box::pin(self.request(self.inner.mark_in_progress(key, owner, token)))
    }
    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome> {
        Box::pin(self.request(self.inner.commit(key, commit)))
    }
    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome> {
        Box::pin(self.request(self.inner.update(key, version, owner, payload)))
    }
    fn take_uses<'a>(
        &'a self,
        key: &'a str,
        version: u64,
        want: u64,
        limit: u64,
    ) -> StoreFuture<'a, UseGrant> {
        Box::pin(self.request(self.inner.take_uses(key, version, want, limit)))
    }
    fn watch<'a>(&'a self, changes: mpsc::Sender<StoreEvent>) -> StoreFuture<'a, ()> {
        if self.pushes {
            return Box::pin(self.life.lasts(self.inner.watch(changes)));
        }
        Box::pin(async move {
            changes.closed().await;
            Ok(())
        })
    }
}

type Client = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

/// One process.
struct Process {
    sessions: Sessions,
    client: Client,
    requests: JoinSet<Result<StatusCode, BoxError>>,
    life: Life,
}

async fn log_in(renewal: Renewal<Body>) -> Result<(), BoxError> {
    // A token that may be used up is not sent.
    let token = renewal.session().data("token").filter(|_| !renewal.follows_interrupted());
    let url = format!("http://a/login?{}", token.unwrap_or_default());
    let response = renewal.send(Request::get(url).body(Body::new())?).await?;
    renewal.ensure_transient(
        response.status().is_success() && renewal.has_cookie("sid"),
        "the login failed or set no session cookie",
    )?;
    let cookies = renewal.cookies();
    renewal.session().set_data("token", cookies[0].value().unwrap_or_default());
    Ok(())
}

impl Process {
    fn new(site: &Site, store: &Store, policy: OnUnreachable, seed: u64) -> Self {
        let life = Life::new();
        let store = Store { life: life.clone(), ..store.clone() };
        let sharing = SharingConfig::new(store).on_unreachable(policy);
        let sessions = Sessions::builder().login_first().jitter_seed(seed).shared(sharing).build().unwrap();
        let gate = GateConfig::new()
            .max_attempts(1000)
            .backoff(Duration::from_millis(100), Duration::from_secs(2))
            .attempt_timeout(Duration::from_secs(120))
            .max_wait(Duration::from_secs(900))
            .renewal_rate_limit(usize::MAX, Duration::from_secs(60));
        let renewing = RenewalLayer::new(&sessions)
            .expired_when(Expired::status([403]))
            .renew_with(log_in)
            .replay_limit(1000)
            .gate_config(gate);
        let site = Site { life: life.clone(), ..site.clone() };
        let client = ServiceBuilder::new().layer(renewing).layer(SessionLayer::new(&sessions)).service(site);
        Self { sessions, client: BoxCloneService::new(client), requests: JoinSet::new(), life }
    }

    fn request(&mut self) {
        let request =
            Request::get("http://a/page").extension(SessionId::from("a")).body(Body::new()).unwrap();
        let sent = self.client.clone().oneshot(request);
        self.requests.spawn(async move { Ok(sent.await?.status()) });
    }

    fn sid(&self) -> Option<String> {
        self.sessions.session("a").cookies().first()?.value().map(str::to_owned)
    }

    fn kill(mut self) -> Sessions {
        self.life.end();
        self.requests.abort_all();
        self.sessions
    }
}

/// The counters of one fleet.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    requests: u64,
    logins: u64,
    refreshes: u64,
    killed: u64,
    versions_adopted: u64,
    conflicts: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.logins += other.logins;
        self.refreshes += other.refreshes;
        self.killed += other.killed;
        self.versions_adopted += other.versions_adopted;
        self.conflicts += other.conflicts;
    }

    fn add_stats(&mut self, sessions: &Sessions) {
        let stats = sessions.sharing_stats().expect("the sessions are shared");
        self.versions_adopted += stats.versions_adopted;
        self.conflicts += stats.conflicts;
    }
}

/// Runs the fleet of a seed. An error describes the broken promise.
async fn run_fleet(seed: u64, flaw: Option<Flaw>) -> Result<Tally, String> {
    let mut random = Rng(seed);
    let mut tally = Tally::default();
    let site = Site::new(random.child());
    let faults = Faults {
        random: random.child(),
        unreachable: false,
        silent: false,
        lossy: 0,
        slow: random.below(60),
    };
    let pushes = random.chance(60);
    let store = Store {
        inner: MemoryStore::new(),
        faults: Arc::new(Mutex::new(faults)),
        pushes,
        flaw,
        life: Life::new(),
    };
    let policy = if random.chance(25) { OnUnreachable::RenewLocally } else { OnUnreachable::Fail };
    let loses_data = random.chance(30);
    let number = 1 + random.below(4);
    let mut processes: Vec<_> =
        (0..number).map(|_| Process::new(&site, &store, policy, random.next())).collect();
    for _ in 0..20 + random.below(60) {
        let which = random.below(number) as usize;
        match random.below(100) {
            0..55 => (0..=random.below(4)).for_each(|_| {
                tally.requests += 1;
                processes[which].request();
            }),
            55..63 => site.seen().sid += 1000,
            63..66 => processes[which].sessions.session("a").clear(),
            66..70 => store.faults().unreachable = true,
            70..73 => store.faults().silent = true,
            73..76 => store.faults().lossy = 20,
            76..82 => end_faults(&store),
            82..85 if loses_data => store.inner.clear(),
            85..87 if loses_data => store.inner.expire_leases(),
            87..91 => {
                let killed = std::mem::replace(
                    &mut processes[which],
                    Process::new(&site, &store, policy, random.next()),
                );
                tally.killed += 1;
                tally.add_stats(&killed.kill());
            }
            _ => sleep(random.millis(15_000)).await,
        }
        if random.chance(40) {
            sleep(random.millis(1500)).await;
        }
    }
    end_faults(&store);
    // Twice: a clear during an outage may reach the other processes only now.
    for _ in 0..2 {
        for process in &mut processes {
            tally.requests += 1;
            process.request();
        }
        for (number, process) in processes.iter_mut().enumerate() {
            end_well(process).await.map_err(|why| format!("a request of process {number} {why}"))?;
        }
        // Polling finds what was not pushed.
        sleep(Duration::from_secs(30)).await;
    }
    let current = format!("{}", site.seen().sid);
    for (number, process) in processes.iter().enumerate() {
        let sid = process.sid();
        if sid.as_ref() != Some(&current) {
            return Err(format!("process {number} ends with the session {sid:?} instead of {current}"));
        }
    }
    for process in &processes {
        tally.add_stats(&process.sessions);
    }
    drop(processes);
    let seen = site.seen();
    if let Some((token, times)) = seen.tokens.iter().find(|(_, times)| **times > 1) {
        return Err(format!("the token of login {token} was used {times} times"));
    }
    if policy == OnUnreachable::Fail && !loses_data && seen.concurrent_max > 1 {
        return Err(format!("{} logins ran concurrently", seen.concurrent_max));
    }
    tally.logins = seen.logins;
    tally.refreshes = seen.tokens.len() as u64;
    Ok(tally)
}

/// Waits until all requests of a process have succeeded.
async fn end_well(process: &mut Process) -> Result<(), String> {
    let limit = Duration::from_secs(600);
    while let Some(ended) = timeout(limit, process.requests.join_next()).await.map_err(|_| "never ends")? {
        match ended.unwrap() {
            Ok(StatusCode::OK) => {}
            Ok(status) => return Err(format!("got the status {status}")),
            Err(error) => return Err(format!("failed: {}", with_sources(&*error))),
        }
    }
    Ok(())
}

fn end_faults(store: &Store) {
    let mut faults = store.faults();
    (faults.unreachable, faults.silent, faults.lossy) = (false, false, 0);
}

/// Formats an error with all its sources.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn run(seed: u64, flaw: Option<Flaw>) -> Result<Tally, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(run_fleet(seed, flaw))
}

/// The number of seeds of the short run.
const SEEDS: u64 = 200;

#[test]
fn every_fleet_keeps_every_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("FLEET_SOAK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLEET_SOAK_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = Tally::default();
    for seed in seeds.clone() {
        match run(seed, None) {
            Ok(tally) => total.add(tally),
            Err(broken) => panic!("FLEET_SOAK_SEED={seed}: {broken}"),
        }
    }
    println!("{seeds:?}: {total:?}");
    assert!(
        seeds.end - seeds.start == 1
            || (total.refreshes > 0 && total.killed > 0 && total.versions_adopted > 0)
    );
}

#[test]
fn every_deliberate_bug_is_found() {
    for flaw in [Flaw::Leases, Flaw::Marks] {
        assert!((0..SEEDS).any(|seed| run(seed, Some(flaw)).is_err()), "{flaw:?} was not found");
    }
}
