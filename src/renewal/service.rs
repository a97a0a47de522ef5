//! `RenewalService`: the entry of a request into a renewal layer.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{ResponseFuture, config::Config, stack::StackBackend};
use crate::{
    gate::{BoxError, RenewalError, RenewalErrorKind},
    session::{Sessions, renewal_backend::RenewalBackend, request::resolve_session},
};

/// Middleware that makes requests wait while their session is renewed, and replays them if it had
/// expired.
///
/// It is always ready, because the session of a request is known only when the service is called,
/// and a request that waits must not hold a place in the inner service. Put concurrency limits and
/// load shedding above it.
///
/// The [module](super) explains rules, replays and limits.
///
/// # Clone
///
/// Clones share the sessions and are one stack. Handles can renew through it until the last clone
/// and its last response future are dropped.
pub struct RenewalService<S, B> {
    inner: S,
    sessions: Sessions,
    config: Arc<Config<B>>,
    /// The sessions hold it weakly, so that handles can renew as long as a clone of this service
    /// exists.
    backend: Arc<dyn RenewalBackend>,
}

impl<S, B> RenewalService<S, B> {
    pub(super) fn new<R>(inner: S, sessions: Sessions, config: Arc<Config<B>>) -> Self
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let backend: Arc<dyn RenewalBackend> = Arc::new(StackBackend::new(inner.clone(), config.clone()));
        sessions.registry.context.add_backend(Arc::downgrade(&backend));
        Self { inner, sessions, config, backend }
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service, mutably.
    ///
    /// Renewals send through a clone that was made when the layer was applied. They do not see a
    /// change made here.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for RenewalService<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(error) = &self.config.invalid {
            return ResponseFuture::rejected(error.clone().into());
        }
        let session = match resolve_session(request.extensions(), &self.sessions) {
            Ok(session) => session,
            Err(error) => return ResponseFuture::rejected(error.into()),
        };
        if session.gate().is_reentrant() {
            return ResponseFuture::rejected(RenewalError::new(RenewalErrorKind::Reentrant).into());
        }
        ResponseFuture::new(self.inner.clone(), self.config.clone(), self.backend.clone(), session, request)
    }
}

impl<S: Clone, B> Clone for RenewalService<S, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            sessions: self.sessions.clone(),
            config: self.config.clone(),
            backend: self.backend.clone(),
        }
    }
}

impl<S: fmt::Debug, B> fmt::Debug for RenewalService<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalService")
            .field("inner", &self.inner)
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}
