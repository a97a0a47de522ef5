//! The middleware that selects a session of a pool.

use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{LeasedBody, ResponseFuture, SessionPool};
use crate::{
    gate::BoxError,
    session::{Identity, Session, SessionId},
};

/// Middleware that selects a session of a pool for each request that names none.
///
/// It is always ready, because a request that waits for a session must not hold a reservation of
/// the inner service. Requests that name a session, by a [`SessionId`] or a [`Session`] in their
/// extensions, bypass the pool.
///
/// See the [module documentation](super).
///
/// # Clone
///
/// Clones share the pool.
#[derive(Clone, Debug)]
#[must_use = "services do nothing unless called"]
pub struct PoolService<S> {
    inner: S,
    pool: SessionPool,
}

impl<S> PoolService<S> {
    /// Wraps `inner`; sessions come from `pool`.
    pub const fn new(inner: S, pool: SessionPool) -> Self {
        Self { inner, pool }
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

impl<S, B, R> Service<Request<B>> for PoolService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Response = Response<LeasedBody<R>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The future waits for its readiness once it has a session.
        let service = self.inner.clone();
        if names_session(request.extensions()) {
            return ResponseFuture::bypass(service, request);
        }
        ResponseFuture::lease(service, request, self.pool.0.clone())
    }
}

fn names_session(extensions: &Extensions) -> bool {
    extensions.get::<Session>().is_some()
        || extensions.get::<SessionId>().is_some()
        || extensions.get::<Identity>().is_some()
}
