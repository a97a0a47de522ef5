//! Many tasks that wait for one thing, and how long they take once it is there. One thread, so that the figure is the gate's.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use tokio::{
    runtime::Builder,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_client_sessions::{
    Renewal, RenewalGate, RenewalLayer, SessionId, SessionLayer, Sessions,
    gate::{BoxError, GateConfig},
};

use super::{Body, time::thread_time};

/// The least that a gate can be: a flag, and the wakers of those who found it down.
#[derive(Default)]
struct Flag {
    is_up: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Flag {
    async fn wait(&self) {
        poll_fn(|context| {
            if self.is_up.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.lock().expect("nothing panics under this lock");
            if self.is_up.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn waiting(&self) -> usize {
        self.waiting.lock().expect("nothing panics under this lock").len()
    }

    fn raise(&self) {
        let waiting = {
            let mut waiting = self.waiting.lock().expect("nothing panics under this lock");
            self.is_up.store(true, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// From raising the flag until the last of so many tasks has ended.
pub(crate) fn release_of_a_flag(waiters: usize) -> Duration {
    on_one_thread(release_flag(waiters, |flag| async move { flag.wait().await }))
}

async fn release_flag<F>(waiters: usize, wait: impl Fn(Arc<Flag>) -> F) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let flag = Arc::new(Flag::default());
    let mut tasks = JoinSet::new();
    for _ in 0..waiters {
        tasks.spawn(wait(flag.clone()));
    }
    while flag.waiting() < waiters {
        tokio::task::yield_now().await;
    }
    let start = thread_time();
    flag.raise();
    while tasks.join_next().await.is_some() {}
    thread_time().saturating_sub(start)
}

/// The same with a deadline for each, as every wait at a gate has one.
pub(crate) fn release_of_a_flag_with_deadlines(waiters: usize) -> Duration {
    on_one_thread(release_flag(waiters, |flag| async move {
        tokio::time::timeout(Duration::from_secs(60), flag.wait()).await.expect("it is raised soon");
    }))
}

/// From the end of a renewal until the last of so many tasks that waited for it has ended.
pub(crate) fn release_of_a_gate(waiters: usize) -> Duration {
    on_one_thread(async move {
        let (done, renewed) = oneshot::channel::<()>();
        let renewed = Mutex::new(Some(renewed));
        let supply = move || {
            let renewed = renewed.lock().expect("nothing panics under this lock").take();
            async move {
                renewed.ok_or("one renewal is enough")?.await?;
                Ok::<_, BoxError>(())
            }
        };
        let config = GateConfig::new().max_waiting(waiters);
        let gate = RenewalGate::with_config(None, supply, config).expect("the bounds are good");
        let mut tasks = JoinSet::new();
        for _ in 0..waiters {
            let gate = gate.clone();
            tasks.spawn(async move { gate.acquire().await.map(drop) });
        }
        while gate.waiting() < waiters {
            tokio::task::yield_now().await;
        }
        let start = thread_time();
        done.send(()).expect("the renewal waits");
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no task panics").expect("everybody is let out");
        }
        thread_time().saturating_sub(start)
    })
}

/// How many requests are on the wire at once while a crowd drains.
const ON_THE_WIRE: usize = 64;
const PAGE: Duration = Duration::from_millis(2);
pub(crate) const LOGIN: Duration = Duration::from_millis(20);

/// What became of many requests of one session that were started at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    /// The thread's time.
    pub(crate) time: Duration,
    /// The clock's.
    pub(crate) wall: Duration,
    pub(crate) logins: usize,
    pub(crate) lost: usize,
    /// Pages that were asked for and refused.
    pub(crate) wasted: usize,
    /// How many were on the wire when the session ended.
    pub(crate) on_the_wire: usize,
}

/// A site whose session ends once, when half of the pages are out.
#[derive(Default)]
struct Site {
    /// Which login is good: 0 before the end, 1 after it.
    good: usize,
    pages: usize,
    logins: usize,
    under_way: usize,
    wasted: usize,
    on_the_wire: usize,
}

/// Sends so many requests of one session at once. With `ends`, the session ends in the middle and is renewed.
pub(crate) fn drain(requests: usize, ends: bool) -> Drained {
    on_one_thread(async move {
        let site = Arc::new(Mutex::new(Site::default()));
        let asked = site.clone();
        let server = service_fn(move |request: Request<Body>| {
            let site = asked.clone();
            let look =
                move |look: &mut dyn FnMut(&mut Site)| look(&mut site.lock().expect("nothing panics here"));
            async move {
                let mut response = Response::new(Body::new());
                if request.uri().path() == "/login" {
                    sleep(LOGIN).await;
                    look(&mut |site| {
                        let sid = format!("sid={}", site.logins.min(1));
                        site.logins += 1;
                        let sid = HeaderValue::from_str(&sid).expect("it is ascii");
                        response.headers_mut().insert(header::SET_COOKIE, sid);
                    });
                    return Ok::<_, BoxError>(response);
                }
                look(&mut |site| site.under_way += 1);
                sleep(PAGE).await;
                look(&mut |site| {
                    let sid = format!("sid={}", site.good);
                    let has =
                        request.headers().get(header::COOKIE).is_some_and(|cookie| cookie == sid.as_str());
                    site.under_way -= 1;
                    if !has {
                        site.wasted += 1;
                        *response.status_mut() = StatusCode::UNAUTHORIZED;
                        return;
                    }
                    site.pages += 1;
                    if ends && site.good == 0 && site.pages >= requests / 2 {
                        site.good = 1;
                        site.on_the_wire = site.under_way;
                    }
                });
                Ok(response)
            }
        });
        let sessions = Sessions::builder().login_first().build().unwrap();
        let client = ServiceBuilder::new()
            .layer(
                RenewalLayer::new(&sessions)
                    .renew_with(|renewal: Renewal<Body>| async move {
                        let login = Request::get("http://site.example/login").body(Body::new())?;
                        renewal.send(login).await?;
                        renewal.ensure(renewal.has_cookie("sid"), "the login was not accepted")
                    })
                    .gate_config(GateConfig::new().max_waiting(requests)),
            )
            .concurrency_limit(ON_THE_WIRE)
            .layer(SessionLayer::new(&sessions))
            .service(server);
        // The first login is not what is measured.
        client.clone().oneshot(page()).await.expect("the site answers");

        let (start, started) = (thread_time(), Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..requests {
            tasks.spawn(client.clone().oneshot(page()));
        }
        let mut lost = 0;
        while let Some(answer) = tasks.join_next().await {
            let answer = answer.expect("no task panics");
            lost += usize::from(!answer.is_ok_and(|answer| answer.status().is_success()));
        }
        let (time, wall) = (thread_time().saturating_sub(start), started.elapsed());
        let site = site.lock().expect("nothing panics here");
        let (logins, wasted, on_the_wire) = (site.logins - 1, site.wasted, site.on_the_wire);
        Drained { time, wall, logins, lost, wasted, on_the_wire }
    })
}

fn page() -> Request<Body> {
    Request::get("http://site.example/page")
        .extension(SessionId::from("crowd"))
        .body(Body::new())
        .expect("the request is well formed")
}

fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
