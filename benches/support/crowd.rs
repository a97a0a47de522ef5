//! Many waiters, and the time until all of them have finished after the release. Everything runs on
//! one thread, so that the result does not depend on the scheduler.

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

/// The minimal gate: a flag, and the wakers of its waiters.
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

/// Returns the time from raising the flag until the last waiter has finished.
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

/// Like [`release_of_a_flag`], with a timeout for each waiter, as at a gate.
pub(crate) fn release_of_a_flag_with_timeouts(waiters: usize) -> Duration {
    on_one_thread(release_flag(waiters, |flag| async move {
        tokio::time::timeout(Duration::from_secs(60), flag.wait()).await.expect("the flag is raised soon");
    }))
}

/// Returns the time from the end of a renewal until the last waiter has finished.
pub(crate) fn release_of_a_gate(waiters: usize) -> Duration {
    on_one_thread(async move {
        let (done, renewed) = oneshot::channel::<()>();
        let renewed = Mutex::new(Some(renewed));
        let renew = move || {
            let renewed = renewed.lock().expect("nothing panics under this lock").take();
            async move {
                renewed.ok_or("one renewal is enough")?.await?;
                Ok::<_, BoxError>(())
            }
        };
        let config = GateConfig::new().max_waiting(waiters);
        let gate = RenewalGate::with_config(None, renew, config).expect("the bounds are good");
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
            ended.expect("no task panics").expect("every waiter is released");
        }
        thread_time().saturating_sub(start)
    })
}

/// The number of concurrent requests while the waiters are released.
const MAX_IN_FLIGHT: usize = 64;
const PAGE: Duration = Duration::from_millis(2);
pub(crate) const LOGIN: Duration = Duration::from_millis(20);

/// The outcome of many requests of one session that were started together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    /// The CPU time of the thread.
    pub(crate) time: Duration,
    /// The wall-clock time.
    pub(crate) wall: Duration,
    pub(crate) logins: usize,
    pub(crate) lost: usize,
    /// Rejected requests.
    pub(crate) wasted: usize,
    /// The requests in flight when the session expired.
    pub(crate) in_flight: usize,
}

/// A site whose session expires once, after half of the pages.
#[derive(Default)]
struct Site {
    /// The valid login: 0 before the expiry, 1 after it.
    valid: usize,
    pages: usize,
    logins: usize,
    running: usize,
    wasted: usize,
    in_flight: usize,
}

/// Sends requests of one session concurrently. With `expires`, the session expires after half of
/// them and is renewed.
pub(crate) fn drain(requests: usize, expires: bool) -> Drained {
    on_one_thread(async move {
        let site = Arc::new(Mutex::new(Site::default()));
        let served = site.clone();
        let server = service_fn(move |request: Request<Body>| {
            let site = served.clone();
            let with_site =
                move |act: &mut dyn FnMut(&mut Site)| act(&mut site.lock().expect("nothing panics here"));
            async move {
                let mut response = Response::new(Body::new());
                if request.uri().path() == "/login" {
                    sleep(LOGIN).await;
                    with_site(&mut |site| {
                        let sid = format!("sid={}", site.logins.min(1));
                        site.logins += 1;
                        let sid = HeaderValue::from_str(&sid).expect("the text is ASCII");
                        response.headers_mut().insert(header::SET_COOKIE, sid);
                    });
                    return Ok::<_, BoxError>(response);
                }
                with_site(&mut |site| site.running += 1);
                sleep(PAGE).await;
                with_site(&mut |site| {
                    let sid = format!("sid={}", site.valid);
                    let has =
                        request.headers().get(header::COOKIE).is_some_and(|cookie| cookie == sid.as_str());
                    site.running -= 1;
                    if !has {
                        site.wasted += 1;
                        *response.status_mut() = StatusCode::UNAUTHORIZED;
                        return;
                    }
                    site.pages += 1;
                    if expires && site.valid == 0 && site.pages >= requests / 2 {
                        site.valid = 1;
                        site.in_flight = site.running;
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
                        renewal.require_cookie("sid")
                    })
                    .gate_config(GateConfig::new().max_waiting(requests)),
            )
            .concurrency_limit(MAX_IN_FLIGHT)
            .layer(SessionLayer::new(&sessions))
            .service(server);
        // The first login is not measured.
        client.clone().oneshot(page()).await.expect("the site responds");

        let (start, started) = (thread_time(), Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..requests {
            tasks.spawn(client.clone().oneshot(page()));
        }
        let mut lost = 0;
        while let Some(response) = tasks.join_next().await {
            let response = response.expect("no task panics");
            lost += usize::from(!response.is_ok_and(|response| response.status().is_success()));
        }
        let (time, wall) = (thread_time().saturating_sub(start), started.elapsed());
        let site = site.lock().expect("nothing panics here");
        let (logins, wasted, in_flight) = (site.logins - 1, site.wasted, site.in_flight);
        Drained { time, wall, logins, lost, wasted, in_flight }
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
