//! Runs thousands of random worlds on the real layers. Each seed determines one world.
//!
//! A world has a site with random behaviour, a stack above it, requests that are dropped or left
//! unpolled at any await point, and users that clear, renew, replace, fork and edit sessions
//! meanwhile. It runs on one thread with a paused clock, and all its numbers are drawn from its
//! seed. A short run is part of the tests. To run more seeds, or one seed:
//!
//! ```text
//! SOAK_SEEDS=20000 cargo test --test it soak -- --nocapture
//! SOAK_SEED=4711 cargo test --test it soak -- --nocapture
//! ```
//!
//! The worlds in `flaws` are broken intentionally. They show that each check can fail.

mod actors;
mod edits;
mod flaws;
mod moods;
mod site;
mod stack;

use std::{
    collections::BTreeSet,
    iter,
    num::NonZero,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tower::{ServiceBuilder, util::BoxCloneService};
use tower_client_sessions::{
    Session, SessionLayer, Sessions,
    gate::{BoxError, RenewalError, RenewalErrorKind},
};

pub(crate) use self::{
    actors::Freeze,
    moods::{Rng, panic_wanted},
};
use self::{
    actors::{By, Outcome, Sender, Wakers, user},
    flaws::{Attic, Flaw, Flawed},
    moods::Moods,
    site::{Site, Witness},
};
use crate::support::Body;

type Boxed = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

/// Seeds of the short run.
const SEEDS: u64 = 3000;

/// The longest time of a world, by its own clock. A world that takes longer has stalled.
const LIMIT: Duration = Duration::from_secs(3600);

/// How the requests of worlds ended.
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
    waited: u64,
    renewals: u64,
    renewed: u64,
    edits_carried: u64,
    pending_edits_carried: u64,
    sessions_evicted: u64,
    virtual_seconds: u64,
}

impl Tally {
    /// Counts how one request ended, and checks that it may end this way.
    fn count(&mut self, site: &Site, outcome: Result<Outcome, JoinError>, broken: &mut Vec<String>) {
        self.requests += 1;
        match &outcome {
            Ok(outcome) => site.note(format_args!("{outcome:?}")),
            // The number of its task differs from run to run.
            Err(_) => site.note("panicked"),
        }
        match outcome {
            Err(error) if error.is_panic() => self.panicked += 1,
            Err(error) => broken.push(format!("a request was lost: {error}")),
            Ok(Outcome::Dropped) => self.dropped += 1,
            Ok(Outcome::Response(200, _)) => self.good += 1,
            Ok(Outcome::Response(..)) => self.expired += 1,
            Ok(Outcome::Failed(error)) => match error.downcast_ref::<RenewalError>() {
                Some(error) if error.kind() == RenewalErrorKind::WaitTimedOut => {
                    broken.push(String::from("a request waited for ever"));
                }
                Some(_) => self.gate_errors += 1,
                None => self.other_errors += 1,
            },
        }
    }

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
        self.waited += other.waited;
        self.renewals += other.renewals;
        self.renewed += other.renewed;
        self.edits_carried += other.edits_carried;
        self.pending_edits_carried += other.pending_edits_carried;
        self.sessions_evicted += other.sessions_evicted;
        self.virtual_seconds += other.virtual_seconds;
    }
}

/// The result of a world, and a log of its steps.
struct World {
    tally: Tally,
    log: String,
    broken: Vec<String>,
}

fn run(seed: u64) -> World {
    run_with(seed, None)
}

fn run_with(seed: u64, flaw: Option<Flaw>) -> World {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut rng = Rng(seed);
    let moods = Moods { flaw, ..Moods::draw(&mut rng) };
    let site = Site::new(moods.clone(), rng.child());
    let mut tally = Tally::default();
    let (kept, attic) = (site.clone(), Attic::default());
    let mut broken = runtime.block_on(async {
        let start = Instant::now();
        let broken = match timeout(LIMIT, play(&moods, site, rng, &mut tally, &attic)).await {
            Ok(broken) => broken,
            Err(_) => vec![String::from("a stall")],
        };
        tally.virtual_seconds = start.elapsed().as_secs();
        broken
    });
    drop(runtime);
    if !kept.is_alone() {
        broken.push(String::from("the stack is still referenced"));
    }
    let state = kept.state();
    broken.extend(state.broken.iter().cloned());
    World { tally, log: format!("{moods:?}\n{}", state.log), broken }
}

async fn play(moods: &Moods, site: Site, mut rng: Rng, tally: &mut Tally, attic: &Attic) -> Vec<String> {
    let mut broken = Vec::new();
    let permits = Arc::new(Semaphore::new(moods.permits));
    let mut builder = Sessions::builder()
        .max_sessions(moods.capacity)
        .clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .jitter_seed(rng.next());
    if moods.login_first {
        builder = builder.login_first();
    }
    let sessions = builder.build().unwrap();
    // With a small capacity these stay in use: only forks and unrelated sessions are evicted.
    let in_use: Vec<Session> = match moods.capacity {
        64 => Vec::new(),
        _ => (0..moods.sessions).map(|number| sessions.session(format!("s{number}"))).collect(),
    };
    let layer = stack::layer(moods, &site, &sessions);
    let below = Boxed::new(Witness::new(stack::below(moods, site.clone(), &permits), site.clone()));
    let below = Flawed::around(below, &site, &permits, attic);
    let inner = ServiceBuilder::new().layer(layer).layer(SessionLayer::new(&sessions)).service(below);
    let builder = ServiceBuilder::new();
    let client: Boxed = match moods.outer {
        0 => BoxCloneService::new(inner),
        1 => BoxCloneService::new(builder.timeout(rng.millis(30_000)).service(inner)),
        _ => BoxCloneService::new(builder.concurrency_limit(rng.between(1, 20) as usize).service(inner)),
    };
    let wakers = Wakers::default();
    let sender = Sender { client, site: site.clone(), wakers: wakers.clone() };
    let mut requests = JoinSet::new();
    for number in 0..moods.requests {
        let session = format!("s{}", rng.below(moods.sessions));
        let request = requests.spawn(sender.clone().request(By::Name(session), number, rng.child()));
        if moods.flaw == Some(Flaw::KillsRequests) && number == 3 {
            request.abort();
        }
    }
    let mut users = JoinSet::new();
    for name in 0..moods.users {
        users.spawn(user(sessions.clone(), sender.clone(), name, rng.child()));
    }
    drop(sender);
    while let Some(outcome) = requests.join_next().await {
        tally.count(&site, outcome, &mut broken);
    }
    let mut started = moods.requests;
    while let Some(ended) = users.join_next().await {
        match ended {
            Ok((more, outcomes)) => {
                started += more;
                outcomes.into_iter().for_each(|outcome| tally.count(&site, outcome, &mut broken));
            }
            Err(error) => broken.push(format!("a user panicked: {error}")),
        }
    }
    if tally.requests != started {
        broken.push(format!("{} of {started} requests ended", tally.requests));
    }
    drop(in_use);
    check_quiet(&mut broken).await;
    if permits.available_permits() != moods.permits {
        broken.push(format!("{} of {} permits are back", permits.available_permits(), moods.permits));
    }
    if wakers.kept() != 0 {
        broken.push(format!("{} wakers are kept", wakers.kept()));
    }
    check_counters(&sessions, &site, tally, &mut broken);
    check_idle(&sessions, moods.capacity, &mut broken);
    broken
}

/// Checks that renewals without waiters end, and with them the last task.
async fn check_quiet(broken: &mut Vec<String>) {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let quiet = async {
        while alive() > 0 {
            sleep(Duration::from_secs(1)).await;
        }
    };
    if timeout(LIMIT / 4, quiet).await.is_err() {
        broken.push(format!("{} tasks never end", alive()));
    }
}

/// Checks the counters of the sessions against what arrived below them.
fn check_counters(sessions: &Sessions, site: &Site, tally: &mut Tally, broken: &mut Vec<String>) {
    let stats = sessions.stats();
    tally.sent = stats.sent;
    tally.replayed = stats.replayed();
    tally.waited = stats.waited;
    tally.renewals = stats.renewals_started;
    tally.renewed = stats.renewals_committed;
    tally.sessions_evicted = stats.sessions_evicted;
    (tally.edits_carried, tally.pending_edits_carried) = site.edits_carried();
    if stats.renewals_committed + stats.renewals_failed > stats.renewals_started {
        broken.push(format!("more renewals ended than started: {stats:?}"));
    }
    let (sent, arrived) = site.counts();
    if sent != stats.sent || arrived > sent {
        broken.push(format!("{sent} requests were sent, {arrived} arrived and {} were counted", stats.sent));
    }
}

/// Checks that no request waits in any session, and that every session can be evicted.
fn check_idle(sessions: &Sessions, capacity: usize, broken: &mut Vec<String>) {
    let names: BTreeSet<String> = sessions.all().iter().map(|session| session.id().to_string()).collect();
    for name in &names {
        let waiting = sessions.session(name.as_str()).waiting();
        if waiting != 0 {
            broken.push(format!("{waiting} requests wait in {name}"));
        }
    }
    for number in 0..capacity.max(names.len()) {
        drop(sessions.session(format!("filler {number}")));
    }
    for name in names {
        if sessions.get(name.as_str()).is_some() {
            broken.push(format!("{name} cannot be evicted"));
        }
    }
    if sessions.len() > capacity {
        broken.push(format!("{} sessions are kept, and not {capacity}", sessions.len()));
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

/// Runs each seed once, on as many threads as there are cores.
pub(crate) fn on_all_cores<T: Send>(seeds: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let some = || {
        let seeds = iter::from_fn(|| Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < seeds));
        seeds.map(&run).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    })
}

#[test]
fn every_world_passes_every_check() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("SOAK_SEED") {
        println!("seed {seed}: {:?}", holds(seed));
        return;
    }
    let seeds = number("SOAK_SEEDS").unwrap_or(SEEDS);
    let mut total = Tally::default();
    on_all_cores(seeds, holds).iter().for_each(|tally| total.add(tally));
    println!("{seeds} seeds: {total:?}");
    assert!(total.good > 0 && total.replayed > 0 && total.dropped > 0 && total.panicked > 0, "{total:?}");
    assert!(total.sessions_evicted > 0 && total.pending_edits_carried > 0, "{total:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(one.log, other.log, "seed {seed}");
        assert_eq!(one.tally, other.tally, "seed {seed}");
    }
}
