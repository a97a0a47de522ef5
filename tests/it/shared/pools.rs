//! Pools of the same name in several processes: each session belongs to one process at a time.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Empty;
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_client_sessions::{
    PoolLayer, Renewal, RenewalLayer, SessionLayer, SessionPool, Sessions,
    gate::BoxError,
    pool::{Member, SessionPoolBuilder},
    shared::{MemoryStore, SharedStore, SharingConfig},
};

use super::processes::Tampered;
use crate::support::settle;

type Body = Empty<Bytes>;

/// A site that counts logins, and the concurrent requests of each session.
#[derive(Clone)]
struct Site(Arc<Mutex<State>>, Arc<Semaphore>);

#[derive(Default)]
struct State {
    logins: u32,
    pages: BTreeMap<String, u32>,
    in_flight: BTreeMap<String, u32>,
    max_in_flight: u32,
}

impl Site {
    /// A site whose pages wait for [`respond`](Self::respond).
    fn held() -> Self {
        Self(Arc::default(), Arc::new(Semaphore::new(0)))
    }

    fn open() -> Self {
        Self(Arc::default(), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn respond(&self, pages: usize) {
        self.1.add_permits(pages);
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
        let site = self.clone();
        Box::pin(async move {
            if request.uri().path() == "/login" {
                let mut state = site.state();
                state.logins += 1;
                let cookie = format!("sid={}; Path=/", state.logins);
                return Ok(Response::builder().header(header::SET_COOKIE, cookie).body(Body::new())?);
            }
            let sid = request.headers().get(header::COOKIE).ok_or("no cookie")?.to_str()?.to_owned();
            {
                let mut state = site.state();
                *state.pages.entry(sid.clone()).or_default() += 1;
                let in_flight = state.in_flight.entry(sid.clone()).or_default();
                *in_flight += 1;
                state.max_in_flight = state.max_in_flight.max(state.in_flight[&sid]);
            }
            site.1.acquire().await?.forget();
            // A page takes a moment in every test.
            tokio::time::sleep(Duration::from_millis(10)).await;
            *site.state().in_flight.get_mut(&sid).unwrap() -= 1;
            Ok(Response::new(Body::new()))
        })
    }
}

async fn log_in(renewal: Renewal<Body>) -> Result<(), BoxError> {
    renewal.send(Request::get("http://a/login").body(Body::new())?).await?;
    renewal.ensure_transient(renewal.has_cookie("sid"), "the login set no session cookie")
}

type Client = BoxCloneService<Request<Body>, Response<()>, BoxError>;

/// A process with a pool.
struct Process {
    pool: SessionPool,
    client: Client,
}

impl Process {
    fn new(
        site: &Site,
        sharing: impl Into<SharingConfig>,
        settings: impl FnOnce(SessionPoolBuilder) -> SessionPoolBuilder,
    ) -> Self {
        let sessions = Sessions::builder().login_first().shared(sharing).build().unwrap();
        let pool = settings(SessionPool::builder(&sessions).exclusive()).build().unwrap();
        let client = ServiceBuilder::new()
            .layer(PoolLayer::new(&pool))
            .layer(RenewalLayer::new(&sessions).renew_with(log_in))
            .layer(SessionLayer::new(&sessions))
            .service(site.clone());
        let client = BoxCloneService::new(client.map_response(|response| response.map(drop)));
        Self { pool, client }
    }

    fn spawn(&self, tasks: &mut JoinSet<Result<Response<()>, BoxError>>, requests: usize) {
        for _ in 0..requests {
            let request = Request::get("http://a/page").body(Body::new()).unwrap();
            tasks.spawn(self.client.clone().oneshot(request));
        }
    }

    async fn get(&self) -> Response<()> {
        let request = Request::get("http://a/page").body(Body::new()).unwrap();
        self.client.clone().oneshot(request).await.unwrap()
    }

    fn serving(&self) -> Vec<String> {
        self.pool.members().iter().map(|member| member.id().to_string()).collect()
    }
}

/// Waits for longer than the TTL of a lease.
async fn a_lease_later() {
    tokio::time::sleep(Duration::from_secs(12)).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn exclusive_applies_to_all_processes_together() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let process = || Process::new(&site, store.clone(), |pool| pool.size(4).slots(6));
    let (one, other) = (process(), process());
    let mut tasks = JoinSet::new();
    one.spawn(&mut tasks, 200);
    other.spawn(&mut tasks, 200);
    let responses = tasks.join_all().await;
    assert!(responses.iter().all(Result::is_ok), "{responses:?}");
    let state = site.state();
    assert_eq!(state.max_in_flight, 1, "no session has concurrent requests");
    assert!(state.logins <= 6, "{} logins for six slots", state.logins);
    assert_eq!(state.pages.values().sum::<u32>(), 400);
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_access_the_store() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let sessions = Sessions::builder().login_first().shared(store).build().unwrap();
    let pool = SessionPool::builder(&sessions).size(2).exclusive().build().unwrap();
    let client = ServiceBuilder::new()
        .layer(PoolLayer::new(&pool))
        .layer(RenewalLayer::new(&sessions).renew_with(log_in))
        .layer(SessionLayer::new(&sessions))
        .service(site.clone());
    let get = || client.clone().oneshot(Request::get("http://a/page").body(Body::new()).unwrap());
    for _ in 0..2 {
        get().await.unwrap();
    }
    settle().await;
    let before = sessions.sharing_stats().unwrap().requests;
    for _ in 0..50 {
        get().await.unwrap();
    }
    assert_eq!(sessions.sharing_stats().unwrap().requests, before);
}

#[tokio::test(start_paused = true)]
async fn the_slots_of_a_dead_process_are_acquired_with_their_sessions() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The process dies with its runtime, and releases nothing.
    std::thread::spawn({
        let (site, store) = (site.clone(), store.clone());
        move || {
            runtime.block_on(async {
                let dead = Process::new(&site, store, |pool| pool.size(1).slots(1));
                dead.get().await;
                std::mem::forget(dead);
            });
        }
    })
    .join()
    .unwrap();
    assert_eq!(site.state().logins, 1);
    let other = Process::new(&site, store, |pool| pool.size(1).slots(1));
    let response = other.get().await;
    assert_eq!(response.extensions().get::<Member>().unwrap().id().to_string(), "pool-1");
    assert_eq!(site.state().logins, 1, "its session is still valid");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_releases_its_slots_immediately() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let one = Process::new(&site, store.clone(), |pool| pool.size(1).slots(1));
    one.get().await;
    drop(one);
    settle().await;
    let started = tokio::time::Instant::now();
    let other = Process::new(&site, store, |pool| pool.size(1).slots(1));
    other.get().await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(site.state().logins, 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_without_slots_gets_one_of_a_process_with_all() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let process = || Process::new(&site, store.clone(), |pool| pool.size(2).slots(2));
    let (one, other) = (process(), process());
    let mut busy = JoinSet::new();
    // Twenty seconds of work for the two slots.
    one.spawn(&mut busy, 4000);
    while one.serving().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let started = tokio::time::Instant::now();
    other.get().await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(!busy.is_empty(), "the first process was still busy");
    assert!(busy.join_all().await.iter().all(Result::is_ok));
    assert_eq!(site.state().max_in_flight, 1);
    assert!(one.pool.stats().released >= 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_slot_is_released() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let process = || Process::new(&site, store.clone(), |pool| pool.size(1).slots(1));
    let (one, other) = (process(), process());
    one.get().await;
    assert_eq!(one.serving(), ["pool-1"]);
    tokio::time::sleep(Duration::from_secs(40)).await;
    settle().await;
    assert!(one.serving().is_empty());
    other.get().await;
    assert_eq!(site.state().logins, 1);
    one.get().await;
    let state = site.state();
    assert_eq!((state.logins, state.max_in_flight), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retired_session_ends_in_all_processes() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let process = || Process::new(&site, store.clone(), |pool| pool.size(1).slots(1));
    let (one, other) = (process(), process());
    let response = one.get().await;
    response.extensions().get::<Member>().unwrap().retire();
    settle().await;
    drop(one);
    settle().await;
    assert!(store.load("pool-1").await.unwrap().version.ended || site.state().logins == 2);
    other.get().await;
    let pages = site.state().pages.clone();
    assert_eq!(pages.get("sid=1"), Some(&1), "the session is not used again: {pages:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_cookies_are_shared_before_a_slot_is_released() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let one = Process::new(&site, store.clone(), |pool| pool.size(1).slots(1));
    let response = one.get().await;
    let member = response.extensions().get::<Member>().unwrap();
    member.session().set_cookie("cart=full", "http://a/").unwrap();
    drop(response);
    tokio::time::sleep(Duration::from_secs(40)).await;
    settle().await;
    let other = Process::new(&site, store, |pool| pool.size(1).slots(1));
    other.get().await;
    let seen: Vec<String> = site.state().pages.keys().cloned().collect();
    assert!(seen.iter().any(|cookies| cookies.contains("cart=full")), "{seen:?}");
}

/// A process that holds the only slot, with a request in flight.
async fn process_with_slot() -> (Site, Tampered, Process, JoinSet<Result<Response<()>, BoxError>>) {
    let (site, store) = (Site::held(), Tampered::silent());
    let one = Process::new(&site, store.clone(), |pool| pool.size(1).slots(1));
    let mut tasks = JoinSet::new();
    one.spawn(&mut tasks, 1);
    settle().await;
    assert_eq!(one.serving(), ["pool-1"]);
    (site, store, one, tasks)
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_given_up_if_the_store_is_unreachable_for_its_ttl() {
    let (site, store, one, mut tasks) = process_with_slot().await;
    store.set_unreachable(true);
    a_lease_later().await;
    assert!(one.serving().is_empty(), "the slot serves no new request");
    one.spawn(&mut tasks, 1);
    settle().await;
    assert_eq!(one.pool.waiting(), 1);
    store.set_unreachable(false);
    a_lease_later().await;
    site.respond(2);
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_given_up_before_its_lease_expires_if_the_store_is_silent() {
    let (_site, store, one, _tasks) = process_with_slot().await;
    store.set_silent(true);
    tokio::time::sleep(Duration::from_secs(9)).await;
    settle().await;
    assert!(one.serving().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_leaves_no_task_behind() {
    let (site, store) = (Site::open(), MemoryStore::new());
    let one = Process::new(&site, store.clone(), |pool| pool.size(2).slots(1));
    one.get().await;
    settle().await;
    drop(one);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}
