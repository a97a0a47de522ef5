//! When and how a request is sent again.

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

/// What becomes of an answer to a request that was sent under an identity which is no longer current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleResponse {
    /// It is delivered, unless it says that the session has expired; then the request is sent again. The default.
    #[default]
    ReplayIfExpired,
    /// It is delivered, whatever it says.
    Deliver,
    /// The request is sent again whatever the answer says, if its method is safe. This throws good answers away.
    ReplayAll,
}

/// Which methods may be sent again after an answer that says that the session has expired.
///
/// Such an answer means that the server has refused the request, so that sending it again does nothing twice. Where a server is
/// known to act before it looks at the session, fewer methods can be allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayMethods {
    /// All methods. The default; a request is only sent again if its body can be had again, too.
    #[default]
    All,
    /// GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110, section 9.2.2).
    Idempotent,
    /// GET, HEAD, OPTIONS and TRACE (RFC 9110, section 9.2.1).
    Safe,
}

impl ReplayMethods {
    pub(crate) fn allow(self, method: &Method) -> bool {
        match self {
            Self::All => true,
            Self::Idempotent => method.is_idempotent(),
            Self::Safe => method.is_safe(),
        }
    }
}

/// How often one request may still be sent again, set in its extensions.
///
/// Without it, every call of a renewal layer may replay as often as its limit says. A retry above the layer calls it again, and
/// each call would have the whole limit: with a budget in the request, which all copies of it share, the limit holds for all of
/// them together. [`ReplayBudgetLayer`] puts one into every request.
///
/// # Clone
///
/// Clones share what is left.
#[derive(Clone, Debug)]
pub struct ReplayBudget {
    left: Arc<AtomicU32>,
}

impl ReplayBudget {
    /// Creates a budget of so many replays.
    pub fn new(replays: u32) -> Self {
        Self { left: Arc::new(AtomicU32::new(replays)) }
    }

    /// How many replays are left.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// [`Layer`] that puts a [`ReplayBudget`] into every request that has none.
///
/// It belongs above a retry, which belongs above the renewal layer.
#[derive(Clone, Copy, Debug)]
pub struct ReplayBudgetLayer {
    replays: u32,
}

impl ReplayBudgetLayer {
    /// Creates a layer that allows each request so many replays.
    pub fn new(replays: u32) -> Self {
        Self { replays }
    }
}

impl<S> Layer<S> for ReplayBudgetLayer {
    type Service = ReplayBudgetService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReplayBudgetService { inner, replays: self.replays }
    }
}

/// Middleware that puts a [`ReplayBudget`] into every request that has none.
#[derive(Clone, Copy, Debug)]
pub struct ReplayBudgetService<S> {
    inner: S,
    replays: u32,
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

/// How the body of a request can be had a second time.
pub(crate) struct CloneBody<B>(Arc<CloneBodyFn<B>>);

type CloneBodyFn<B> = dyn Fn(&B) -> Option<B> + Send + Sync;

impl<B> CloneBody<B> {
    pub(crate) fn from_fn(clone: impl Fn(&B) -> Option<B> + Send + Sync + 'static) -> Self {
        Self(Arc::new(clone))
    }

    /// Only bodies that are empty.
    pub(crate) fn empty_only() -> Self
    where
        B: Body + Default,
    {
        Self::from_fn(|body| body.is_end_stream().then(B::default))
    }

    /// A second request like this one, or `None` if its body cannot be had again.
    pub(crate) fn clone_request(&self, request: &Request<B>) -> Option<Request<B>> {
        let mut copy = Request::new((self.0)(request.body())?);
        copy.method_mut().clone_from(request.method());
        copy.uri_mut().clone_from(request.uri());
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        copy.extensions_mut().clone_from(request.extensions());
        Some(copy)
    }
}

impl<B> Clone for CloneBody<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for CloneBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CloneBody(..)")
    }
}
