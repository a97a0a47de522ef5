//! Replays: which requests are sent again, and how often.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use http::{Method, Request};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// What a renewal layer does with a response to a request whose identity is no longer current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleResponse {
    /// Replays the request if the response means that the session has expired; otherwise delivers
    /// the response. The default.
    #[default]
    ReplayIfExpired,
    /// Delivers the response in any case.
    Deliver,
    /// Replays each request with a safe method, and discards its response even if it is good.
    ReplayAll,
}

/// Which methods are replayed after a response that means that the session has expired.
///
/// Such a response says that the server rejected the request, so a replay does not repeat an
/// effect. Allow fewer methods if a server is known to act before it checks the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayMethods {
    /// All methods, if the body of the request can be cloned. The default.
    #[default]
    All,
    /// GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110, section 9.2.2).
    Idempotent,
    /// GET, HEAD, OPTIONS and TRACE (RFC 9110, section 9.2.1).
    Safe,
}

impl ReplayMethods {
    pub(super) fn allow(self, method: &Method) -> bool {
        match self {
            Self::All => true,
            Self::Idempotent => method.is_idempotent(),
            Self::Safe => method.is_safe(),
        }
    }
}

/// Number of replays that one request has left, as an extension of the request.
///
/// Without this extension, each call of a renewal layer may replay a request up to its limit. A
/// retry above the layer calls it several times, and each call has the whole limit. Copies of a
/// request share its budget, so the budget limits the replays of all calls together.
/// [`ReplayBudgetLayer`] adds one to every request.
///
/// # Clone
///
/// Clones share the remaining replays.
#[derive(Clone, Debug)]
pub struct ReplayBudget {
    left: Arc<AtomicU32>,
}

impl ReplayBudget {
    /// Creates a budget of `replays` replays.
    pub fn new(replays: u32) -> Self {
        Self { left: Arc::new(AtomicU32::new(replays)) }
    }

    /// Number of replays that are left.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// The replays that a request has left: its own, or a budget that it shares with other calls.
pub(super) enum ReplaysLeft {
    Own(u32),
    Shared(ReplayBudget),
}

impl ReplaysLeft {
    pub(super) fn any(&self) -> bool {
        match self {
            Self::Own(left) => *left > 0,
            Self::Shared(budget) => budget.left() > 0,
        }
    }

    /// Takes one replay. Returns `false` if none is left.
    pub(super) fn take(&mut self) -> bool {
        match self {
            Self::Own(left) => left.checked_sub(1).is_some_and(|less| {
                *left = less;
                true
            }),
            Self::Shared(budget) => budget.take(),
        }
    }
}

/// [`Layer`] that adds a [`ReplayBudget`] to each request without one.
///
/// Put it above a retry, and the retry above the renewal layer.
#[derive(Clone, Copy, Debug)]
#[must_use = "a layer does nothing until it is applied to a service"]
pub struct ReplayBudgetLayer {
    replays: u32,
}

impl ReplayBudgetLayer {
    /// Creates a layer that allows `replays` replays of each request.
    pub const fn new(replays: u32) -> Self {
        Self { replays }
    }
}

impl<S> Layer<S> for ReplayBudgetLayer {
    type Service = ReplayBudgetService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReplayBudgetService { inner, replays: self.replays }
    }
}

/// Middleware that adds a [`ReplayBudget`] to each request without one.
#[derive(Clone, Copy, Debug)]
pub struct ReplayBudgetService<S> {
    inner: S,
    replays: u32,
}

impl<S> ReplayBudgetService<S> {
    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for ReplayBudgetService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().get_or_insert_with(|| ReplayBudget::new(self.replays));
        self.inner.call(request)
    }
}

/// Clones requests by cloning their bodies.
pub(crate) struct CloneBody<B>(CloneBodyFn<B>);

enum CloneBodyFn<B> {
    /// Copied with the services of a stack, which costs no reference count.
    Plain(fn(&B) -> Option<B>),
    Shared(SharedClone<B>),
}

type SharedClone<B> = Arc<dyn Fn(&B) -> Option<B> + Send + Sync>;

impl<B> CloneBody<B> {
    pub(crate) fn from_fn(clone: impl Fn(&B) -> Option<B> + Send + Sync + 'static) -> Self {
        Self(CloneBodyFn::Shared(Arc::new(clone)))
    }

    /// Clones only bodies that are empty.
    pub(crate) fn empty_only() -> Self
    where
        B: Body + Default,
    {
        Self(CloneBodyFn::Plain(|body| body.is_end_stream().then(B::default)))
    }

    /// Clones a body. Returns `None` if it cannot be cloned.
    pub(crate) fn clone_body(&self, body: &B) -> Option<B> {
        match &self.0 {
            CloneBodyFn::Plain(clone) => clone(body),
            CloneBodyFn::Shared(clone) => clone(body),
        }
    }

    /// Clones a request. Returns `None` if its body cannot be cloned.
    pub(super) fn clone_request(&self, request: &Request<B>) -> Option<Request<B>> {
        let mut clone = Request::new(self.clone_body(request.body())?);
        clone.method_mut().clone_from(request.method());
        clone.uri_mut().clone_from(request.uri());
        *clone.version_mut() = request.version();
        clone.headers_mut().clone_from(request.headers());
        clone.extensions_mut().clone_from(request.extensions());
        Some(clone)
    }
}

impl<B> Clone for CloneBody<B> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            CloneBodyFn::Plain(clone) => CloneBodyFn::Plain(*clone),
            CloneBodyFn::Shared(clone) => CloneBodyFn::Shared(clone.clone()),
        })
    }
}

impl<B> fmt::Debug for CloneBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CloneBody(..)")
    }
}
