//! Pools over the real layers: who gets which session, who waits, what ends a lease, and what becomes of sessions that fail.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceBuilder, ServiceExt, retry::Policy};
use tower_client_sessions::{
    PoolLayer, Profile, Profiles, Renewal, RenewalLayer, Session, SessionId, SessionInfo, SessionLayer,
    SessionPool, Sessions,
    gate::{BoxError, GateConfig, RenewalErrorKind},
    pool::{
        LeasedBody, Member, MemberState, MemberView, Outcome, Picker, PoolConfigErrorKind, PoolError,
        PoolErrorKind, PoolService, RequestView, SessionPoolBuilder, Strategy, TriedSessionsLayer,
        UnusedSession, Verdict,
    },
    renewal::RenewalService,
    session::{Identity, SessionService},
};

use crate::support::settle;

type Body = Empty<Bytes>;
type Plain = PoolService<SessionService<Server>>;
type Renewing = PoolService<RenewalService<SessionService<Server>, Body>>;
type Answer = Result<Response<LeasedBody<Page>>, BoxError>;

/// The bottom of every stack here: it sees which session each request belongs to, and holds what a test wants to let go.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Pages in the order in which they came, by session, with the time.
    pages: Vec<(String, Instant)>,
    /// Requests of a session from their arrival to the end of their body, and the most there were.
    at_once: BTreeMap<String, u32>,
    most: u32,
    logins: Vec<String>,
    /// What the next answers are; after them, all are 200.
    answers: VecDeque<Reply>,
    /// When set, a page's head comes with a permit of it.
    heads: Option<Arc<Semaphore>>,
    /// When set, bodies end when the test says so.
    holds_bodies: bool,
    bodies: Vec<(String, mpsc::UnboundedSender<Result<Bytes, BoxError>>)>,
    /// When set, a login ends with a permit of it.
    login_gate: Option<Arc<Semaphore>>,
    /// How the next logins go; after them, all are good.
    logins_go: VecDeque<bool>,
}

#[derive(Clone, Copy, Debug)]
enum Reply {
    Status(u16),
    RetryAfter(u64),
    Error,
    Panic,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whose pages it has seen, in order.
    fn pages(&self) -> Vec<String> {
        self.state().pages.iter().map(|(session, _)| session.clone()).collect()
    }

    fn most(&self) -> u32 {
        self.state().most
    }

    fn hold_bodies(self) -> Self {
        self.state().holds_bodies = true;
        self
    }

    fn hold_heads(self) -> Self {
        self.state().heads = Some(Arc::new(Semaphore::new(0)));
        self
    }

    fn let_heads(&self, heads: usize) {
        self.state().heads.as_ref().unwrap().add_permits(heads);
    }

    fn hold_logins(self) -> Self {
        self.state().login_gate = Some(Arc::new(Semaphore::new(0)));
        self
    }

    fn end_logins(&self, logins: usize) {
        self.state().login_gate.as_ref().unwrap().add_permits(logins);
    }

    fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state().answers.extend(replies);
    }

    /// Ends the oldest body that is held.
    fn end_body(&self) -> String {
        self.state().bodies.remove(0).0
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

/// Counts a request until the server is done with it.
struct Running(Server, String);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.state().at_once.get_mut(&self.1).unwrap() -= 1;
    }
}

/// A body that a test can hold; its request is over for the server when it ends or is dropped.
struct Page {
    frames: mpsc::UnboundedReceiver<Result<Bytes, BoxError>>,
    running: Option<Running>,
}

impl http_body::Body for Page {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.frames.poll_recv(context).map(|frame| {
            if !matches!(frame, Some(Ok(_))) {
                self.running = None;
            }
            Some(frame?.map(Frame::data))
        })
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
        let identity = Identity::of(request.extensions()).unwrap();
        let session = identity.session_id().to_string();
        let server = self.clone();
        if request.uri().path() == "/login" {
            return Box::pin(async move {
                server.state().logins.push(session.clone());
                let gate = server.state().login_gate.clone();
                if let Some(gate) = gate {
                    gate.acquire().await?.forget();
                }
                let good = server.state().logins_go.pop_front().unwrap_or(true);
                let answer = Response::builder().status(if good { 200 } else { 500 });
                let cookie = format!("sid={session}-{}; Path=/", identity_number());
                let answer = if good { answer.header(header::SET_COOKIE, cookie) } else { answer };
                Ok(answer.body(Page { frames: mpsc::unbounded_channel().1, running: None })?)
            });
        }
        let (running, reply, heads) = {
            let mut state = self.state();
            state.pages.push((session.clone(), Instant::now()));
            let at_once = state.at_once.entry(session.clone()).or_default();
            *at_once += 1;
            let at_once = *at_once;
            state.most = state.most.max(at_once);
            (Running(server.clone(), session.clone()), state.answers.pop_front(), state.heads.clone())
        };
        Box::pin(async move {
            if let Some(heads) = heads {
                heads.acquire().await?.forget();
            }
            let (sender, frames) = mpsc::unbounded_channel();
            sender.send(Ok(Bytes::from_static(b"page"))).unwrap();
            let answer = match reply.unwrap_or(Reply::Status(200)) {
                Reply::Status(status) => Response::builder().status(status),
                Reply::RetryAfter(seconds) => Response::builder().status(429).header("retry-after", seconds),
                Reply::Error => return Err("the connection was reset".into()),
                Reply::Panic => std::panic::resume_unwind(Box::new("wanted by the test")),
            };
            let mut state = server.state();
            if state.holds_bodies {
                state.bodies.push((session, sender));
            }
            drop(state);
            Ok(answer.body(Page { frames, running: Some(running) })?)
        })
    }
}

fn identity_number() -> u64 {
    static NUMBERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NUMBERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn plain(pool: &SessionPool, sessions: &Sessions, server: &Server) -> Plain {
    ServiceBuilder::new()
        .layer(PoolLayer::new(pool))
        .layer(SessionLayer::new(sessions))
        .service(server.clone())
}

/// With a rule: one login, and no second try within one warm-up.
fn renewing(pool: &SessionPool, sessions: &Sessions, server: &Server) -> Renewing {
    let rule = RenewalLayer::new(sessions)
        .renew_with(|renewal: Renewal<Body>| async move {
            let answer = renewal.send(Request::get("http://site/login").body(Body::new())?).await?;
            renewal.ensure(answer.status().is_success(), "the login was not accepted")
        })
        .gate_config(GateConfig::new().max_attempts(1));
    ServiceBuilder::new()
        .layer(PoolLayer::new(pool))
        .layer(rule)
        .layer(SessionLayer::new(sessions))
        .service(server.clone())
}

fn page() -> Request<Body> {
    Request::get("http://site/page").body(Body::new()).unwrap()
}

async fn get<S>(client: &S) -> Answer
where
    S: Service<Request<Body>, Response = Response<LeasedBody<Page>>, Error = BoxError> + Clone,
{
    client.clone().oneshot(page()).await
}

/// Fetches a page and reads it; gives back the session that served it.
async fn fetch<S>(client: &S) -> String
where
    S: Service<Request<Body>, Response = Response<LeasedBody<Page>>, Error = BoxError> + Clone,
{
    read(get(client).await.unwrap()).await
}

async fn read(response: Response<LeasedBody<Page>>) -> String {
    let session = response.extensions().get::<SessionInfo>().unwrap().session().to_string();
    response.into_body().collect().await.unwrap();
    session
}

fn member(answer: &Answer) -> Member {
    answer.as_ref().unwrap().extensions().get::<Member>().unwrap().clone()
}

#[track_caller]
fn kind(answer: Answer) -> PoolErrorKind {
    let error = answer.expect_err("an error is expected");
    error.downcast_ref::<PoolError>().unwrap_or_else(|| panic!("not a pool's error: {error}")).kind()
}

fn world(set: impl FnOnce(SessionPoolBuilder) -> SessionPoolBuilder) -> (Sessions, SessionPool, Server) {
    let sessions = Sessions::builder().jitter_seed(7).build().unwrap();
    let pool = set(SessionPool::builder(&sessions)).build().unwrap();
    (sessions, pool, Server::default())
}

/// How many leases are out, by the pool.
fn leased(pool: &SessionPool) -> usize {
    pool.snapshot().members.iter().map(|member| member.in_use).sum()
}

mod leases {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_session_gets_one_and_the_pool_fills_lazily() {
        let (sessions, pool, server) = world(|pool| pool.size(3));
        let client = plain(&pool, &sessions, &server);
        assert_eq!(sessions.len(), 0, "nothing is made before it is needed");
        assert_eq!(fetch(&client).await, "pool-1");
        assert_eq!(sessions.len(), 1);
        for _ in 0..20 {
            fetch(&client).await;
        }
        assert_eq!(sessions.len(), 3);
        let used: BTreeSet<_> = server.pages().into_iter().collect();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), ["pool-1", "pool-2", "pool-3"]);
        assert_eq!(leased(&pool), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_names_a_session_passes_the_pool_by() {
        let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
        let client = plain(&pool, &sessions, &server);
        let held = get(&client).await.unwrap();
        for named in [true, false] {
            let mut request = page();
            match named {
                true => request.extensions_mut().insert(SessionId::from("alice")).is_none(),
                false => request.extensions_mut().insert::<Session>(sessions.session("alice")).is_none(),
            };
            let response = client.clone().oneshot(request).await.unwrap();
            assert!(response.extensions().get::<Member>().is_none());
            assert_eq!(read(response).await, "alice");
        }
        // A member can be named as well: whoever does so answers for it.
        let mut request = page();
        request.extensions_mut().insert(SessionId::from("pool-1"));
        assert_eq!(read(client.oneshot(request).await.unwrap()).await, "pool-1");
        assert_eq!(pool.stats().leases, 1);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn exclusive_is_exact_for_a_thousand_at_once() {
        for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::LeastLoaded, Strategy::FillFirst] {
            let (sessions, pool, server) = world(|pool| pool.size(8).exclusive().strategy(strategy));
            let server = server.hold_heads();
            let client = plain(&pool, &sessions, &server);
            let mut tasks = JoinSet::new();
            for _ in 0..1000 {
                let client = client.clone();
                tasks.spawn(async move { fetch(&client).await });
            }
            settle().await;
            assert_eq!((server.pages().len(), pool.waiting()), (8, 992), "{strategy:?}");
            server.let_heads(1000);
            let used = tasks.join_all().await;
            assert_eq!((used.len(), server.most(), sessions.len()), (1000, 1, 8), "{strategy:?}");
            assert_eq!((leased(&pool), pool.waiting()), (0, 0));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_cap_is_exact_on_two_threads() {
        let (sessions, pool, server) = world(|pool| pool.size(4).max_in_flight(3));
        let client = plain(&pool, &sessions, &server);
        let mut tasks = JoinSet::new();
        for _ in 0..2000 {
            let client = client.clone();
            tasks.spawn(async move { fetch(&client).await });
        }
        assert_eq!(tasks.join_all().await.len(), 2000);
        assert!(server.most() <= 3);
        assert_eq!((leased(&pool), pool.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_with_the_body_and_not_at_its_head() {
        let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
        let server = server.hold_bodies();
        let client = plain(&pool, &sessions, &server);

        let read_whole = get(&client).await.unwrap();
        assert_eq!(leased(&pool), 1, "the head is there, the body is not");
        server.end_body();
        assert_eq!(leased(&pool), 1, "nobody has read it");
        read(read_whole).await;
        assert_eq!(leased(&pool), 0);

        let dropped = get(&client).await.unwrap();
        assert_eq!(leased(&pool), 1);
        drop(dropped);
        assert_eq!(leased(&pool), 0);

        server.state().bodies.clear();
        let mut broken = get(&client).await.unwrap().into_body();
        server.state().bodies[0].1.send(Err("reset".into())).unwrap();
        broken.frame().await.unwrap().unwrap();
        assert_eq!(leased(&pool), 1);
        broken.frame().await.unwrap().unwrap_err();
        assert_eq!(leased(&pool), 0, "though the body is kept");
        assert_eq!(pool.stats().bad, 1);

        let taken = get(&client).await.unwrap().into_body().into_inner();
        assert_eq!(leased(&pool), 0);
        drop(taken);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_when_its_request_fails_is_dropped_or_panics() {
        let (sessions, pool, server) = world(|pool| pool.size(1).exclusive().max_error_score(100.0));
        let server = server.hold_heads();
        let client = plain(&pool, &sessions, &server);

        let mut dropped = task::spawn(get(&client));
        assert_pending!(dropped.poll());
        assert_eq!(leased(&pool), 1);
        drop(dropped);
        assert_eq!(leased(&pool), 0);

        server.let_heads(2);
        server.reply([Reply::Error, Reply::Panic]);
        get(&client).await.unwrap_err();
        assert_eq!(leased(&pool), 0);
        let panicked = tokio::spawn({
            let client = client.clone();
            async move { get(&client).await.is_ok() }
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(leased(&pool), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn code_of_the_user_may_panic_and_no_lease_is_lost() {
        let (sessions, pool, server) = world(|pool| {
            pool.size(1).exclusive().classify_with(|outcome| match outcome.status() {
                Some(status) if status == 418 => std::panic::resume_unwind(Box::new("wanted by the test")),
                _ => Verdict::Neutral,
            })
        });
        let client = plain(&pool, &sessions, &server);
        server.reply([Reply::Status(418)]);
        let panicked = tokio::spawn({
            let client = client.clone();
            async move { get(&client).await.is_ok() }
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(leased(&pool), 0);
        fetch(&client).await;
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_first_come_first_served_and_a_dropped_waiter_passes_its_turn_on() {
        let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
        let client = plain(&pool, &sessions, &server);
        let held = get(&client).await.unwrap();
        let mut waiting: Vec<_> = (0..5).map(|_| task::spawn(get(&client))).collect();
        for waiter in &mut waiting {
            assert_pending!(waiter.poll());
        }
        assert_eq!(pool.waiting(), 5);
        drop(waiting.remove(1));
        assert_eq!(pool.waiting(), 4);
        drop(held);
        // Only the first is woken, and only it gets the session.
        assert!(waiting[0].is_woken());
        assert!(waiting[1..].iter().all(|waiter| !waiter.is_woken()));
        assert_pending!(waiting[3].poll());
        // It is dropped with its turn: the next one has it.
        drop(waiting.remove(0));
        assert!(waiting[0].is_woken());
        for left in (0..3).rev() {
            let answer = assert_ready!(waiting.remove(0).poll()).unwrap();
            assert_eq!(pool.waiting(), left);
            drop(answer);
        }
        assert_eq!(leased(&pool), 0);
        assert_eq!(pool.stats().leases_unused, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_in_time_and_number_with_a_typed_error() {
        let (sessions, pool, server) =
            world(|pool| pool.size(1).exclusive().max_waiting(2).max_wait(Duration::from_secs(30)));
        let client = plain(&pool, &sessions, &server);
        let held = get(&client).await.unwrap();
        let start = Instant::now();
        let mut waiting: Vec<_> = (0..2).map(|_| task::spawn(get(&client))).collect();
        for waiter in &mut waiting {
            assert_pending!(waiter.poll());
        }
        assert_eq!(kind(get(&client).await), PoolErrorKind::TooManyWaiting);
        for waiter in waiting {
            assert_eq!(kind(waiter.await), PoolErrorKind::TimedOut);
        }
        assert_eq!(start.elapsed().as_secs(), 30);
        let stats = pool.stats();
        // The first request waited as well, for the session to be made.
        assert_eq!((stats.rejected_queue_full, stats.timed_out, stats.waited), (1, 2, 3));
        drop(held);
        fetch(&client).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_holds_nothing_of_the_service_below() {
        let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
        let client = ServiceBuilder::new()
            .layer(PoolLayer::new(&pool))
            .layer(SessionLayer::new(&sessions))
            .concurrency_limit(1)
            .service(server.clone());
        let held = pool.lease().await.unwrap();
        let mut waiting = task::spawn(client.clone().oneshot(page()));
        assert_pending!(waiting.poll());
        let mut request = page();
        request.extensions_mut().insert(SessionId::from("alice"));
        client.clone().oneshot(request).await.unwrap();
        drop(held);
        assert!(waiting.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_services_below_may_limit_or_buffer() {
        let (sessions, pool, server) = world(|pool| pool.size(3).exclusive());
        let limited = ServiceBuilder::new().concurrency_limit(2).service(server.clone());
        let client = ServiceBuilder::new()
            .layer(PoolLayer::new(&pool))
            .layer(SessionLayer::new(&sessions))
            .buffer(1)
            .service(limited);
        let mut tasks = JoinSet::new();
        for _ in 0..200 {
            tasks.spawn(client.clone().oneshot(page()));
        }
        while let Some(answer) = tasks.join_next().await {
            read(answer.unwrap().unwrap()).await;
        }
        assert_eq!((server.most(), leased(&pool)), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn uses_of_one_session_are_spaced_with_jitter() {
        let (sessions, pool, server) =
            world(|pool| pool.size(2).min_delay(Duration::from_secs(10)).delay_jitter(0.5));
        let client = plain(&pool, &sessions, &server);
        let mut tasks = JoinSet::new();
        for _ in 0..14 {
            let client = client.clone();
            tasks.spawn(async move { fetch(&client).await });
        }
        tasks.join_all().await;
        let pages = server.state().pages.clone();
        let mut gaps = BTreeSet::new();
        for name in ["pool-1", "pool-2"] {
            let times: Vec<_> =
                pages.iter().filter(|(session, _)| session == name).map(|(_, at)| *at).collect();
            assert!(times.len() >= 5, "both share the work");
            gaps.extend(times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()));
        }
        assert!(gaps.iter().all(|gap| (10_000..=15_010).contains(gap)), "{gaps:?}");
        assert!(gaps.len() > 6, "they are drawn anew each time: {gaps:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_by_hand_is_one_use_for_many_requests() {
        let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
        let client = plain(&pool, &sessions, &server);
        let mut lease = pool.lease().await.unwrap();
        for _ in 0..3 {
            let request = Request::get("http://site/page").extension(lease.session().clone());
            let answer = client.clone().oneshot(request.body(Body::new()).unwrap()).await.unwrap();
            assert_eq!(read(answer).await, lease.member().id().to_string());
        }
        let mut waiting = task::spawn(pool.lease());
        assert_pending!(waiting.poll());
        drop(lease);
        // Dropped without having been used, it counts for nothing.
        drop(assert_ready!(waiting.poll()).unwrap());
        assert_eq!(pool.snapshot().members[0].uses, 1);
        assert_eq!(pool.stats().leases, 2);
    }

    #[test]
    fn outside_a_runtime_the_error_says_so() {
        let (sessions, pool, server) = world(|pool| pool.size(1));
        let client = plain(&pool, &sessions, &server);
        let mut request = task::spawn(get(&client));
        assert_eq!(kind(assert_ready!(request.poll())), PoolErrorKind::NoRuntime);
        assert_eq!((leased(&pool), pool.waiting()), (0, 0));
    }
}

mod choice {
    use super::*;

    /// Fills the pool, so that what follows does not depend on how it grows.
    async fn filled(client: &Plain, pool: &SessionPool, size: usize) {
        let held: Vec<_> = futures_of(client, size).await;
        drop(held);
        assert_eq!(pool.members().len(), size);
    }

    async fn futures_of(client: &Plain, requests: usize) -> Vec<Response<LeasedBody<Page>>> {
        let mut held = Vec::new();
        for _ in 0..requests {
            held.push(get(client).await.unwrap());
        }
        held
    }

    #[tokio::test(start_paused = true)]
    async fn round_robin_takes_the_one_used_longest_ago() {
        let (sessions, pool, server) = world(|pool| pool.size(3).exclusive());
        let client = plain(&pool, &sessions, &server);
        filled(&client, &pool, 3).await;
        let mut used = Vec::new();
        for _ in 0..6 {
            used.push(fetch(&client).await);
        }
        assert_eq!(used[..3], used[3..]);
        assert_eq!(used[..3].iter().collect::<BTreeSet<_>>().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn least_busy_takes_the_one_with_the_fewest_requests() {
        let (sessions, pool, server) = world(|pool| pool.size(3).strategy(Strategy::LeastLoaded));
        let client = plain(&pool, &sessions, &server);
        let held = futures_of(&client, 9).await;
        let in_use = |pool: &SessionPool| -> Vec<_> {
            pool.snapshot().members.iter().map(|member| member.in_use).collect()
        };
        // The first requests found those idle that were there.
        assert_eq!(in_use(&pool).iter().sum::<usize>(), 9);
        assert!(in_use(&pool).iter().all(|in_use| (2..=4).contains(in_use)), "{:?}", in_use(&pool));
        drop(held);
        assert_eq!(in_use(&pool), [0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn until_failure_stays_with_one() {
        let (sessions, pool, server) = world(|pool| pool.size(3).strategy(Strategy::FillFirst));
        let client = plain(&pool, &sessions, &server);
        for _ in 0..5 {
            assert_eq!(fetch(&client).await, "pool-1");
        }
        assert_eq!(sessions.len(), 1, "no more are made than are needed");
        pool.member("pool-1").unwrap().retire();
        for _ in 0..5 {
            assert_eq!(fetch(&client).await, "pool-2");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn random_uses_all() {
        let (sessions, pool, server) = world(|pool| pool.size(4).strategy(Strategy::Random));
        let client = plain(&pool, &sessions, &server);
        let mut counts = BTreeMap::<_, u32>::new();
        for _ in 0..400 {
            *counts.entry(fetch(&client).await).or_default() += 1;
        }
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|count| *count > 60), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_strategy_of_the_users_own_may_use_the_pool() {
        #[derive(Clone, Default)]
        struct Picky(Arc<Mutex<Option<SessionPool>>>);
        impl Picker for Picky {
            fn pick(&self, request: &RequestView<'_>, candidates: &[MemberView]) -> Option<usize> {
                // It would deadlock if it ran under the pool's lock.
                self.0.lock().unwrap().as_ref().unwrap().stats();
                assert_eq!(request.host(), Some("site"));
                candidates.iter().position(|candidate| *candidate.id() == SessionId::from("pool-2"))
            }
        }
        let picky = Picky::default();
        let (sessions, pool, server) = world(|pool| pool.size(3).pick_with(picky.clone()));
        *picky.0.lock().unwrap() = Some(pool.clone());
        let client = plain(&pool, &sessions, &server);
        for _ in 0..5 {
            fetch(&client).await;
        }
        for _ in 0..5 {
            assert_eq!(fetch(&client).await, "pool-2");
        }
        *picky.0.lock().unwrap() = None;
    }

    #[tokio::test(start_paused = true)]
    async fn sticky_requests_stay_with_their_session_until_it_is_retired() {
        let (sessions, pool, server) = world(|pool| pool.size(8).exclusive().sticky_by_host());
        let client = plain(&pool, &sessions, &server);
        let fetch = async |host: &str| {
            let request = Request::get(format!("http://{host}/")).body(Body::new()).unwrap();
            read(client.clone().oneshot(request).await.unwrap()).await
        };
        let (first, other) = (fetch("a.example").await, fetch("b.example").await);
        assert_ne!(first, other, "these two have slots of their own");
        for _ in 0..5 {
            assert_eq!((fetch("A.example").await, fetch("b.example").await), (first.clone(), other.clone()));
        }
        // It waits for its own though others are free.
        let request = Request::get("http://a.example/").body(Body::new()).unwrap();
        let held = client.clone().oneshot(request.clone()).await.unwrap();
        let mut waiting = task::spawn(client.clone().oneshot(request));
        assert_pending!(waiting.poll());
        assert_eq!(fetch("b.example").await, other);
        pool.member(first.as_str()).unwrap().retire();
        let next = read(waiting.await.unwrap()).await;
        assert!(next != first && next != other);
        assert_eq!(fetch("a.example").await, next);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn sticky_by_a_key_of_the_request() {
        #[derive(Clone)]
        struct Customer(&'static str);
        let (sessions, pool, server) =
            world(|pool| pool.size(8).sticky_by(|request| Some(request.extensions()?.get::<Customer>()?.0)));
        let client = plain(&pool, &sessions, &server);
        let mut used = BTreeMap::<_, BTreeSet<_>>::new();
        for turn in 0..20 {
            let customer = ["ann", "ben"][turn % 2];
            let request =
                Request::get("http://site/").extension(Customer(customer)).body(Body::new()).unwrap();
            let session = read(client.clone().oneshot(request).await.unwrap()).await;
            used.entry(customer).or_default().insert(session);
        }
        assert!(used.values().all(|sessions| sessions.len() == 1), "{used:?}");
        fetch(&client).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_ask_for_one_that_nobody_has_used() {
        let (sessions, pool, server) = world(|pool| pool.size(2).exclusive());
        let client = renewing(&pool, &sessions, &server);
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            seen.insert(fetch(&client).await);
        }
        for _ in 0..5 {
            let mut request = page();
            request.extensions_mut().insert(UnusedSession);
            let session = read(client.clone().oneshot(request).await.unwrap()).await;
            assert!(seen.insert(session), "{seen:?}");
        }
        assert!(pool.members().len() <= 2, "the pool does not outgrow its size");
    }

    #[derive(Clone)]
    struct Twice(u32);

    impl Policy<Request<Body>, Response<LeasedBody<Page>>, BoxError> for Twice {
        type Future = std::future::Ready<()>;

        fn retry(&mut self, _request: &mut Request<Body>, result: &mut Answer) -> Option<Self::Future> {
            let failed = result.as_ref().map_or(true, |answer| !answer.status().is_success());
            (failed && self.0 > 0).then(|| {
                self.0 -= 1;
                std::future::ready(())
            })
        }

        fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
            Some(request.clone())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_gets_another_session_than_those_that_failed() {
        for strategy in [Strategy::FillFirst, Strategy::RoundRobin, Strategy::Random] {
            let (sessions, pool, server) =
                world(|pool| pool.size(3).strategy(strategy).max_error_score(100.0).sticky_by_host());
            let client = ServiceBuilder::new()
                .layer(TriedSessionsLayer::new())
                .retry(Twice(4))
                .layer(PoolLayer::new(&pool))
                .layer(SessionLayer::new(&sessions))
                .service(server.clone());
            server.reply([Reply::Error, Reply::Status(403), Reply::Status(200)]);
            get(&client).await.unwrap();
            let tried: BTreeSet<_> = server.pages().into_iter().collect();
            assert_eq!((server.pages().len(), tried.len()), (3, 3), "{strategy:?}");
            // With all of them tried, none is avoided.
            server.reply([Reply::Error; 4]);
            get(&client).await.unwrap();
        }
    }
}

mod health {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bad_marks_retire_and_good_ones_heal() {
        let (sessions, pool, server) = world(|pool| {
            pool.size(1).max_error_score(3.0).error_score_decrement(0.5).classify_with(|_| Verdict::Neutral)
        });
        let client = plain(&pool, &sessions, &server);
        let answer = get(&client).await;
        let first = member(&answer);
        drop(answer);
        let score = || pool.snapshot().members[0].score;
        first.mark_good();
        assert_eq!(score(), 0.0, "it never falls below nothing");
        first.mark_bad();
        first.mark_bad();
        first.mark_good();
        assert_eq!(score(), 1.5);
        first.mark_bad();
        assert_eq!(score(), 2.5, "2.5 of 3: it still serves");
        assert_eq!(fetch(&client).await, "pool-1");
        first.mark_good();
        first.mark_bad();
        assert_eq!(score(), 0.0, "another one has taken its place");
        assert_eq!(fetch(&client).await, "pool-2");
        // News about one that is gone changes nothing.
        for _ in 0..5 {
            first.mark_bad();
            first.retire();
        }
        assert_eq!(fetch(&client).await, "pool-2");
        assert_eq!((pool.stats().retired_errors, pool.stats().retired()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_retired_session_drains_and_is_forgotten() {
        let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
        let client = plain(&pool, &sessions, &server.clone().hold_bodies());
        let answer = get(&client).await;
        member(&answer).retire();
        let next = get(&client).await.unwrap();
        assert_eq!(member(&Ok(next)).id().to_string(), "pool-2");
        let states: Vec<_> = pool.snapshot().members.iter().map(|member| member.state).collect();
        assert_eq!(states, [MemberState::Draining, MemberState::Serving]);
        assert!(sessions.get("pool-1").is_some(), "its request is on its way");
        server.state().bodies.clear();
        assert_eq!(read(answer.unwrap()).await, "pool-1");
        assert!(sessions.get("pool-1").is_none());
        assert_eq!(pool.snapshot().members.len(), 1);
        let sent = sessions.stats().sent;
        assert_eq!(sent, 2, "what it has counted is not lost");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_and_errors_are_judged() {
        let (sessions, pool, server) = world(|pool| pool.size(1).max_error_score(2.0));
        let client = plain(&pool, &sessions, &server);
        server.reply([Reply::Status(403), Reply::Status(200), Reply::Status(500), Reply::Error]);
        for _ in 0..4 {
            let _ = get(&client).await;
        }
        assert_eq!(fetch(&client).await, "pool-1");
        server.reply([Reply::Status(403)]);
        drop(get(&client).await);
        assert_eq!(fetch(&client).await, "pool-2");
        let stats = pool.stats();
        assert_eq!((stats.bad, stats.good, stats.retired_errors), (3, 3, 1));

        let own = |outcome: &Outcome<'_>| match outcome.error() {
            Some(_) => Verdict::Retire,
            None => Verdict::standard(outcome),
        };
        let (sessions, pool, server) = world(|pool| pool.size(1).classify_with(own));
        let client = plain(&pool, &sessions, &server);
        server.reply([Reply::Error]);
        get(&client).await.unwrap_err();
        assert_eq!(fetch(&client).await, "pool-2");
        assert_eq!(pool.stats().retired_manually, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_with_retry_after_rests_a_session_and_is_no_ban() {
        let (sessions, pool, server) = world(|pool| pool.size(1).max_error_score(1.0));
        let client = plain(&pool, &sessions, &server);
        server.reply([Reply::RetryAfter(60)]);
        let start = Instant::now();
        drop(get(&client).await);
        assert_eq!(pool.snapshot().members[0].state, MemberState::CoolingDown);
        assert_eq!(fetch(&client).await, "pool-1", "it is the same one");
        assert_eq!(start.elapsed().as_secs(), 60);
        assert_eq!((pool.stats().cooldowns, pool.stats().bad), (1, 0));
        // A rest is bounded, whatever the answer says.
        server.reply([Reply::RetryAfter(u64::MAX)]);
        drop(get(&client).await);
        let start = Instant::now();
        pool.member("pool-1").unwrap().cool_down(Duration::from_secs(5));
        let mut waiting = task::spawn(get(&client));
        assert_pending!(waiting.poll());
        assert_eq!(kind(waiting.await), PoolErrorKind::TimedOut);
        tokio::time::sleep(Duration::from_secs(3600) - start.elapsed()).await;
        assert_eq!(fetch(&client).await, "pool-1");
    }

    #[tokio::test(start_paused = true)]
    async fn max_uses_is_exact_for_a_thousand_at_once() {
        let (sessions, pool, server) = world(|pool| pool.size(4).max_in_flight(7).max_uses(10));
        let client = renewing(&pool, &sessions, &server);
        let mut tasks = JoinSet::new();
        for _ in 0..1000 {
            let client = client.clone();
            tasks.spawn(async move { fetch(&client).await });
        }
        tasks.join_all().await;
        let mut uses = BTreeMap::<_, u32>::new();
        for session in server.pages() {
            *uses.entry(session).or_default() += 1;
        }
        assert_eq!(uses.values().sum::<u32>(), 1000);
        assert!(uses.values().all(|uses| *uses <= 10), "{uses:?}");
        assert!(uses.values().filter(|uses| **uses == 10).count() >= 97, "{uses:?}");
        assert!(server.most() <= 7);
        assert!(sessions.len() <= 8, "those that are spent are forgotten: {}", sessions.len());
    }

    #[tokio::test(start_paused = true)]
    async fn max_age_is_counted_when_a_session_is_leased() {
        let (sessions, pool, server) = world(|pool| pool.size(1).max_age(Duration::from_secs(60)));
        let client = renewing(&pool, &sessions, &server);
        assert_eq!(fetch(&client).await, "pool-1");
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!((fetch(&client).await, server.state().logins.len()), (String::from("pool-1"), 1));
        tokio::time::sleep(Duration::from_secs(6)).await;
        // In the last tenth, the successor is warmed while the old one serves.
        assert_eq!(fetch(&client).await, "pool-1");
        settle().await;
        assert_eq!(server.state().logins.len(), 2);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(assert_ready!(task::spawn(async { fetch(&client).await }).poll()), "pool-2");
        assert_eq!(pool.stats().retired_age, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_successor_is_warm_before_it_is_needed() {
        let (sessions, pool, server) = world(|pool| pool.size(1).max_uses(10));
        let client = renewing(&pool, &sessions, &server);
        for turn in 0..35 {
            // Nobody waits but the first.
            if turn == 0 {
                fetch(&client).await;
            } else {
                assert_ready!(task::spawn(async { fetch(&client).await }).poll());
            }
            settle().await;
        }
        assert_eq!(pool.stats().waited, 1);
        // One that is retired at a stroke is replaced at once, whether or not anybody needs it.
        let logins = server.state().logins.len();
        pool.members()[0].retire();
        settle().await;
        assert_eq!(server.state().logins.len(), logins + 1);
        assert_ready!(task::spawn(async { fetch(&client).await }).poll());
    }
}

mod warm_up {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_member_is_warmed_up_before_it_serves() {
        let (sessions, pool, server) = world(|pool| pool.size(2).exclusive());
        let server = server.hold_logins();
        let client = renewing(&pool, &sessions, &server);
        let mut request = task::spawn(get(&client));
        assert_pending!(request.poll());
        settle().await;
        assert_eq!(server.state().logins, ["pool-1"]);
        assert!(server.pages().is_empty());
        assert_eq!(pool.snapshot().members[0].state, MemberState::Warming);
        server.end_logins(2);
        request.await.unwrap();
        let cookies = sessions.session("pool-1").cookies();
        assert_eq!(cookies[0].name(), Some("sid"));
        assert_eq!(sessions.session("pool-1").stats().renewals_committed, 1, "no login was wasted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_gives_up_does_not_cancel_the_warm_up() {
        let (sessions, pool, server) = world(|pool| pool.size(1));
        let server = server.hold_logins();
        let client = renewing(&pool, &sessions, &server);
        let mut request = task::spawn(get(&client));
        assert_pending!(request.poll());
        settle().await;
        drop(request);
        server.end_logins(1);
        settle().await;
        assert_eq!(pool.snapshot().members[0].state, MemberState::Serving);
        assert_ready!(task::spawn(get(&client)).poll()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn after_too_many_failed_warm_ups_the_pool_is_broken_and_mends_itself() {
        let (sessions, pool, server) = world(|pool| pool.size(2).max_failed_warm_ups(3));
        let client = renewing(&pool, &sessions, &server);
        server.state().logins_go.extend([false; 4]);
        let error = get(&client).await.unwrap_err();
        let error = error.downcast_ref::<PoolError>().unwrap();
        assert_eq!(error.kind(), PoolErrorKind::Unavailable);
        let cause = std::error::Error::source(error).unwrap();
        let cause = cause.downcast_ref::<tower_client_sessions::gate::RenewalError>().unwrap();
        assert_eq!(cause.kind(), RenewalErrorKind::Failed);
        assert_eq!(pool.unavailable().unwrap().kind(), RenewalErrorKind::Failed);
        assert!(pool.snapshot().to_string().contains("broken: the session could not be renewed"));
        settle().await;
        let logins = server.state().logins.len();
        assert!((3..=4).contains(&logins), "{logins}");

        // Until its rest is over, nothing is tried.
        assert_eq!(kind(assert_ready!(task::spawn(get(&client)).poll())), PoolErrorKind::Unavailable);
        settle().await;
        assert_eq!(server.state().logins.len(), logins);

        server.state().logins_go.clear();
        server.state().logins_go.push_back(false);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(kind(get(&client).await), PoolErrorKind::Unavailable);
        assert_eq!(server.state().logins.len(), logins + 1, "one was tried");
        tokio::time::sleep(Duration::from_secs(5)).await;
        get(&client).await.unwrap();
        assert!(pool.unavailable().is_none());
        assert!(sessions.len() <= 2, "sessions that could not be warmed up are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_pool_serves_by_the_members_that_it_has() {
        let (sessions, pool, server) = world(|pool| pool.size(2).exclusive().max_failed_warm_ups(2));
        let client = renewing(&pool, &sessions, &server);
        let held = get(&client).await.unwrap();
        settle().await;
        server.state().logins_go.extend([false; 50]);
        let mut waiting = task::spawn(get(&client));
        assert_pending!(waiting.poll());
        settle().await;
        assert_pending!(waiting.poll());
        assert!(pool.unavailable().is_some());
        drop(held);
        assert_ready!(waiting.poll()).unwrap();
    }

    #[test]
    fn a_warm_up_that_is_lost_with_its_runtime_is_made_elsewhere() {
        let (sessions, pool, server) = world(|pool| pool.size(1));
        let server = server.hold_logins();
        let client = renewing(&pool, &sessions, &server);
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = runtime();
        first.block_on(async {
            let mut request = task::spawn(get(&client));
            assert_pending!(request.poll());
            settle().await;
        });
        drop(first);
        server.end_logins(10);
        runtime().block_on(async { get(&client).await.unwrap() });
        assert!(pool.unavailable().is_none());
    }
}

mod with_others {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_member_that_renews_is_passed_over_unless_all_do() {
        let (sessions, pool, server) = world(|pool| pool.size(2).strategy(Strategy::LeastLoaded));
        let client = renewing(&pool, &sessions, &server);
        let held = [get(&client).await.unwrap(), get(&client).await.unwrap()];
        settle().await;
        drop(held);
        assert_eq!(pool.members().len(), 2);
        let server = server.hold_logins();
        // A cleared session is nobody's to renew; the pool sees to it while the other one serves.
        sessions.session("pool-1").clear();
        for _ in 0..6 {
            let answer = assert_ready!(task::spawn(get(&client)).poll()).unwrap();
            assert_eq!(read_now(answer), "pool-2");
        }
        settle().await;
        assert_eq!(pool.snapshot().members[0].state, MemberState::Renewing);
        sessions.session("pool-2").clear();
        let mut waiting = task::spawn(get(&client));
        assert_pending!(waiting.poll());
        settle().await;
        assert_eq!(server.state().logins.len(), 4, "both are renewed");
        server.end_logins(1);
        settle().await;
        assert!(waiting.is_woken(), "the first that is done serves");
        let answer = assert_ready!(waiting.poll()).unwrap();
        assert_eq!(read_now(answer), "pool-1");
        server.end_logins(1);
        settle().await;
        assert!(pool.snapshot().members.iter().all(|member| member.state == MemberState::Serving));
    }

    /// The session of an answer whose body is there.
    fn read_now(answer: Response<LeasedBody<Page>>) -> String {
        assert_ready!(task::spawn(read(answer)).poll())
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_a_request_renews_comes_back() {
        let (sessions, pool, server) =
            world(|pool| pool.size(2).strategy(Strategy::LeastLoaded).classify_with(|_| Verdict::Neutral));
        let client = renewing(&pool, &sessions, &server);
        let held = [get(&client).await.unwrap(), get(&client).await.unwrap()];
        settle().await;
        drop(held);
        let server = server.hold_logins();
        // It expires under a request, which waits for its renewal.
        server.reply([Reply::Status(401)]);
        let mut expired = task::spawn(get(&client));
        assert_pending!(expired.poll());
        settle().await;
        assert_pending!(expired.poll());
        for _ in 0..4 {
            assert_ready!(task::spawn(get(&client)).poll()).unwrap();
        }
        server.end_logins(1);
        settle().await;
        assert_eq!(read_now(assert_ready!(expired.poll()).unwrap()).len(), 6);
        assert!(pool.snapshot().members.iter().all(|member| member.state == MemberState::Serving));
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_cannot_be_renewed_is_replaced() {
        let (sessions, pool, server) = world(|pool| pool.size(1));
        let client = renewing(&pool, &sessions, &server);
        assert_eq!(fetch(&client).await, "pool-1");
        server.state().logins_go.push_back(false);
        sessions.session("pool-1").clear();
        assert_eq!(fetch(&client).await, "pool-2");
        assert_eq!((pool.stats().retired_failed, pool.stats().warm_ups_failed), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rule_a_cleared_member_is_renewed_by_the_request_that_leads() {
        let sessions = Sessions::new();
        let pool = SessionPool::builder(&sessions).size(1).build().unwrap();
        let client = ServiceBuilder::new()
            .layer(PoolLayer::new(&pool))
            .layer(RenewalLayer::new(&sessions))
            .layer(SessionLayer::new(&sessions))
            .service(Server::default());
        assert_eq!(fetch(&client).await, "pool-1");
        sessions.session("pool-1").clear();
        assert_eq!(fetch(&client).await, "pool-1");
        assert_eq!(sessions.session("pool-1").generation(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn pools_share_sessions_under_names_of_their_own() {
        let sessions = Sessions::new();
        let server = Server::default();
        let pools =
            ["a", "b"].map(|name| SessionPool::builder(&sessions).name(name).size(2).build().unwrap());
        for pool in &pools {
            let client = plain(pool, &sessions, &server);
            for _ in 0..4 {
                fetch(&client).await;
            }
        }
        assert_eq!(sessions.len(), 4);
        let again = || SessionPool::builder(&sessions).name("a").build();
        let error = again().unwrap_err();
        assert_eq!((error.kind(), error.setting()), (PoolConfigErrorKind::NameTaken, "name"));
        assert!(error.to_string().contains("named \"a\""), "{error}");
        drop(pools);
        assert!(again().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn each_member_wears_a_profile_of_its_own() {
        let agents =
            ["one", "two", "three"].map(|agent| Profile::builder().user_agent(agent).build().unwrap());
        let sessions = Sessions::builder().profiles(Profiles::new(agents).unwrap()).build().unwrap();
        let pool = SessionPool::builder(&sessions).size(3).exclusive().build().unwrap();
        let client = renewing(&pool, &sessions, &Server::default());
        let mut tasks = JoinSet::new();
        for _ in 0..30 {
            let client = client.clone();
            tasks.spawn(async move { fetch(&client).await });
        }
        tasks.join_all().await;
        let worn: BTreeSet<_> = pool
            .members()
            .iter()
            .map(|member| format!("{:?}", member.session().profile().unwrap().user_agent()))
            .collect();
        assert_eq!(worn.len(), 3, "{worn:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_finds_its_members_again_by_their_names() {
        let sessions = Sessions::new();
        for name in ["pool-12", "pool-3", "pool-x", "pool-03", "pool-7", "other-1"] {
            sessions.session(name).add_cookies([("sid", name)], "http://site/").unwrap();
        }
        let server = Server::default();
        let pool = SessionPool::builder(&sessions).size(2).exclusive().build().unwrap();
        let client = renewing(&pool, &sessions, &server);
        let found: Vec<_> = pool.members().iter().map(|member| member.id().to_string()).collect();
        assert_eq!(found, ["pool-3", "pool-7"]);
        fetch(&client).await;
        assert!(server.state().logins.is_empty(), "they are logged in");
        pool.members()[0].retire();
        settle().await;
        let found: Vec<_> = pool.members().iter().map(|member| member.id().to_string()).collect();
        assert_eq!(found, ["pool-7", "pool-15"], "a new name is none that was there before");
    }

    #[cfg(feature = "formats")]
    #[tokio::test]
    async fn a_pool_goes_on_with_the_sessions_that_were_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.json");
        let server = Server::default();
        let sessions = Sessions::new();
        let pool = SessionPool::builder(&sessions).size(2).exclusive().build().unwrap();
        let client = renewing(&pool, &sessions, &server);
        fetch(&client).await;
        sessions.save(&path).await.unwrap();
        let logins = server.state().logins.len();
        assert!(logins > 0);
        drop((client, pool, sessions));

        let (sessions, report) = Sessions::load(&path, Sessions::builder()).await.unwrap();
        assert!(report.skipped().is_empty(), "{report:?}");
        let pool = SessionPool::builder(&sessions).size(1).exclusive().build().unwrap();
        let client = renewing(&pool, &sessions, &server);
        fetch(&client).await;
        assert_eq!(server.state().logins.len(), logins, "nobody logs in again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_shows_the_pool_and_its_members() {
        let (sessions, pool, server) = world(|pool| pool.size(2).exclusive());
        let client = plain(&pool, &sessions, &server);
        fetch(&client).await;
        let held = get(&client).await.unwrap();
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.size, snapshot.waiting, snapshot.stats.leases), (2, 0, 2));
        let text = snapshot.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "pool pool: 2 of 2 members, 0 waiting, 2 leases, 0 retired");
        assert_eq!(lines.len(), 3, "{text}");
        assert!(text.contains(": serving, 1 in use, "), "{text}");
        drop(held);
    }

    #[tokio::test]
    async fn a_zero_is_named() {
        let sessions = Sessions::new();
        let check = |set: fn(SessionPoolBuilder) -> SessionPoolBuilder| {
            let error = set(SessionPool::builder(&sessions)).build().unwrap_err();
            assert_eq!(error.kind(), PoolConfigErrorKind::Zero);
            error.setting()
        };
        assert_eq!(check(|pool| pool.size(0)), "size");
        assert_eq!(check(|pool| pool.max_in_flight(0)), "max_in_flight");
        assert_eq!(check(|pool| pool.max_error_score(0.0)), "max_error_score");
        assert_eq!(check(|pool| pool.max_uses(0)), "max_uses");
        assert_eq!(check(|pool| pool.max_age(Duration::ZERO)), "max_age");
        assert_eq!(check(|pool| pool.max_wait(Duration::ZERO)), "max_wait");
        assert_eq!(check(|pool| pool.max_waiting(0)), "max_waiting");
        assert_eq!(check(|pool| pool.max_failed_warm_ups(0)), "max_failed_warm_ups");
        assert_eq!(
            check(|pool| pool.unavailable_backoff(Duration::ZERO, Duration::ZERO)),
            "unavailable_backoff"
        );
    }
}
