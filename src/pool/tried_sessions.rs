//! Requests that need an unused session, or one under which they were not tried before.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use parking_lot::Mutex;
use tower_layer::Layer;
use tower_service::Service;

use super::types::MemberNumber;

/// Requires a session that was not used before, by an entry in the extensions of a request.
///
/// If the pool is full, the new session replaces the worst one: by its score, then by its uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnusedSession;

/// The sessions under which a request was tried, as an entry in its extensions.
///
/// The pool selects a different session for each attempt, until all were tried. A
/// [`TriedSessionsLayer`] around a retry layer adds it to each request.
///
/// # Clone
///
/// Clones share their contents, so that the copies of a request that a retry layer makes avoid each
/// other's sessions.
#[derive(Clone, Debug, Default)]
pub struct TriedSessions(Arc<Mutex<Vec<MemberNumber>>>);

impl TriedSessions {
    /// Creates an empty list, for a request that was not tried yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&self, number: MemberNumber) {
        let mut numbers = self.0.lock();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }

    pub(crate) fn numbers(&self) -> Vec<MemberNumber> {
        self.0.lock().clone()
    }
}

/// [`Layer`] around a retry layer that makes each attempt use a different session.
///
/// # Examples
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_client_sessions::{PoolLayer, SessionPool, Sessions, pool::TriedSessionsLayer};
/// # #[derive(Clone)]
/// # struct Twice;
/// # impl<B: Clone, R, E> tower::retry::Policy<http::Request<B>, R, E> for Twice {
/// #     type Future = std::future::Ready<()>;
/// #     fn retry(
/// #         &mut self,
/// #         _: &mut http::Request<B>,
/// #         _: &mut Result<R, E>,
/// #     ) -> Option<Self::Future> {
/// #         None
/// #     }
/// #     fn clone_request(&mut self, request: &http::Request<B>) -> Option<http::Request<B>> {
/// #         Some(request.clone())
/// #     }
/// # }
///
/// let pool = SessionPool::builder(&Sessions::new()).size(8).build().unwrap();
/// let stack = ServiceBuilder::new()
///     .layer(TriedSessionsLayer::new())
///     .retry(Twice)
///     .layer(PoolLayer::new(&pool));
/// # let _ = stack;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "layers do nothing unless applied to a service"]
#[non_exhaustive]
pub struct TriedSessionsLayer;

impl TriedSessionsLayer {
    /// Creates the layer.
    pub const fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for TriedSessionsLayer {
    type Service = TriedSessionsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TriedSessionsService::new(inner)
    }
}

/// Middleware that adds [`TriedSessions`] to each request that has none.
#[derive(Clone, Debug)]
#[must_use = "services do nothing unless called"]
pub struct TriedSessionsService<S> {
    inner: S,
}

impl<S> TriedSessionsService<S> {
    /// Wraps `inner`.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }

    /// Returns a reference to the wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the wrapped service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the wrapped service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for TriedSessionsService<S>
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
        request.extensions_mut().get_or_insert_default::<TriedSessions>();
        self.inner.call(request)
    }
}
