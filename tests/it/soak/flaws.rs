//! Worlds that are broken intentionally: they show that each check of the soak can fail.

use std::{
    any::Any,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, header};
use tokio::{sync::Semaphore, time::sleep};
use tower::Service;
use tower_client_sessions::{gate::BoxError, session::Identity};

use super::{Boxed, run_with, site::Site};
use crate::support::{Body, SiteResult};

/// The mistake of a broken world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A response never arrives, although the site sent it.
    LosesRequests,
    /// The task of a request is aborted.
    KillsRequests,
    /// A response has the session or generation of another request.
    SwapsResponses,
    /// A request waits between the layers, and is sent when its identity may have ended.
    SendsLate,
    LogsInTwice,
    /// A request is sent again and again.
    SendsAgain,
    /// A request carries the cookies of the one before.
    SwapsCookies,
    /// A request is sent without the cookies that users added.
    LosesEdits,
    /// Cookies that users added are sent under every later identity as well.
    KeepsEdits,
    KeepsHandles,
    KeepsTasks,
    KeepsPermits,
    KeepsWakers,
    KeepsTheStack,
    /// A request that is dropped does not leave the queue.
    ForgetsWaiters,
    /// A send is not counted.
    SendsUncounted,
}

/// Where a broken world keeps what it should drop.
pub(super) type Attic = Arc<Mutex<Vec<Box<dyn Any + Send>>>>;

/// A service between the session layer and its witness, with the world's flaw.
#[derive(Clone)]
pub(super) struct Flawed {
    inner: Boxed,
    flaw: Flaw,
    site: Site,
    permits: Arc<Semaphore>,
    attic: Attic,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    cookies: Option<header::HeaderValue>,
    edits: Vec<String>,
}

impl Flawed {
    /// Returns `inner`, with the world's flaw around it if there is one.
    pub(super) fn around(inner: Boxed, site: &Site, permits: &Arc<Semaphore>, attic: &Attic) -> Boxed {
        match site.moods().flaw {
            None => inner,
            Some(flaw) => Boxed::new(Self {
                inner,
                flaw,
                site: site.clone(),
                permits: permits.clone(),
                attic: attic.clone(),
                memory: Arc::default(),
            }),
        }
    }

    fn keep(&self, what: impl Any + Send) {
        self.attic.lock().unwrap().push(Box::new(what));
    }

    /// Sends a copy of the request when the inner stack is ready.
    fn send_copy(&self, request: &Request<Body>) {
        let (mut inner, copy) = (self.inner.clone(), request.clone());
        tokio::spawn(async move {
            std::future::poll_fn(|context| inner.poll_ready(context)).await?;
            inner.call(copy).await
        });
    }

    fn spoil_cookies(&self, request: &mut Request<Body>) {
        let own = request.headers().get(header::COOKIE).cloned();
        let text = own.as_ref().map_or("", |own| own.to_str().unwrap()).to_owned();
        let mut memory = self.memory.lock().unwrap();
        let spoilt = match self.flaw {
            Flaw::SwapsCookies => match std::mem::replace(&mut memory.cookies, own.clone()).or(own) {
                Some(cookies) => cookies.to_str().unwrap().to_owned(),
                None => return,
            },
            Flaw::LosesEdits => {
                let kept = text.split("; ").filter(|cookie| !cookie.starts_with("edit"));
                kept.collect::<Vec<_>>().join("; ")
            }
            _ => {
                for cookie in text.split("; ").filter(|cookie| cookie.starts_with("edit")) {
                    if !memory.edits.iter().any(|kept| kept == cookie) {
                        memory.edits.push(cookie.to_owned());
                    }
                }
                let others =
                    text.split("; ").filter(|cookie| !cookie.is_empty() && !cookie.starts_with("edit"));
                others.chain(memory.edits.iter().map(String::as_str)).collect::<Vec<_>>().join("; ")
            }
        };
        if spoilt.is_empty() {
            request.headers_mut().remove(header::COOKIE);
        } else {
            request.headers_mut().insert(header::COOKIE, spoilt.parse().unwrap());
        }
    }
}

impl Service<Request<Body>> for Flawed {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = SiteResult> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.flaw == Flaw::KeepsWakers {
            self.keep(context.waker().clone());
        }
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let is_login = request.uri().path() == "/login";
        match self.flaw {
            Flaw::LosesRequests if self.site.rng(|rng| rng.chance(5)) => {
                return Box::pin(std::future::pending());
            }
            Flaw::SendsLate => {
                let spare = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, spare);
                return Box::pin(async move {
                    sleep(Duration::from_millis(300)).await;
                    inner.call(request).await
                });
            }
            Flaw::LogsInTwice if is_login => self.send_copy(&request),
            Flaw::SendsAgain => (0..5).for_each(|_| self.send_copy(&request)),
            Flaw::SendsUncounted if self.site.rng(|rng| rng.chance(5)) => self.send_copy(&request),
            Flaw::SwapsCookies | Flaw::LosesEdits | Flaw::KeepsEdits => self.spoil_cookies(&mut request),
            Flaw::KeepsHandles => {
                let identity = Identity::of(request.extensions()).expect("the session layer puts it there");
                self.keep(identity.session().clone());
            }
            Flaw::KeepsTasks => drop(tokio::spawn(std::future::pending::<()>())),
            Flaw::KeepsPermits if self.site.rng(|rng| rng.chance(5)) => {
                self.permits.forget_permits(1);
            }
            Flaw::KeepsTheStack => self.keep(self.site.clone()),
            _ => {}
        }
        self.inner.call(request)
    }
}

/// The number of worlds in which a flaw must show at least once.
const WORLDS: u64 = 300;

/// Checks that some world with this flaw is reported with these words, and that the same world is
/// good without the flaw.
#[track_caller]
fn is_reported(flaw: Flaw, words: &str) {
    for seed in 0..WORLDS {
        let world = run_with(seed, Some(flaw));
        if world.broken.iter().any(|line| line.contains(words)) {
            let good = run_with(seed, None);
            assert!(good.broken.is_empty(), "seed {seed} is broken without a flaw: {:?}", good.broken);
            return;
        }
    }
    panic!("{flaw:?} was never reported as {words:?}");
}

#[test]
fn a_request_that_is_lost_is_reported() {
    is_reported(Flaw::LosesRequests, "a stall");
    is_reported(Flaw::KillsRequests, "a request was lost");
}

#[test]
fn a_response_of_another_request_is_reported() {
    is_reported(Flaw::SwapsResponses, "got a response of");
}

#[test]
fn a_send_under_an_ended_identity_is_reported() {
    is_reported(Flaw::SendsLate, "was ended");
}

#[test]
fn two_logins_of_one_session_are_reported() {
    is_reported(Flaw::LogsInTwice, "two concurrent logins of");
}

#[test]
fn a_request_that_is_sent_too_often_is_reported() {
    is_reported(Flaw::SendsAgain, "times");
    is_reported(Flaw::SendsUncounted, "were counted");
}

#[test]
fn a_cookie_of_another_generation_is_reported() {
    is_reported(Flaw::SwapsCookies, "was sent by");
}

#[test]
fn an_edit_that_is_lost_or_outlives_its_identity_is_reported() {
    is_reported(Flaw::LosesEdits, "edits: ");
    is_reported(Flaw::KeepsEdits, "edits: ");
}

#[test]
fn leaked_handles_tasks_permits_and_wakers_are_reported() {
    is_reported(Flaw::KeepsHandles, "cannot be evicted");
    is_reported(Flaw::KeepsTasks, "tasks never end");
    is_reported(Flaw::KeepsPermits, "permits are back");
    is_reported(Flaw::KeepsWakers, "wakers are kept");
    is_reported(Flaw::KeepsTheStack, "the stack is still referenced");
    is_reported(Flaw::ForgetsWaiters, "requests wait in");
}
