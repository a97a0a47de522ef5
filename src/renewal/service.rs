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

/// Middleware that holds requests while their session is renewed, and sends them again when it had expired.
///
/// It is always ready: which session a request belongs to is known only when it is called, and a request that waits must not
/// hold a place in the service below. An admission limit or load shedding belongs above it.
///
/// See the [module](super) for the whole story.
///
/// # Clone
///
/// Clones share the sessions and are one stack: when the last one is gone, and its last response
/// future, handles can no longer renew through it.
pub struct RenewalService<S, B> {
    inner: S,
    sessions: Sessions,
    config: Arc<Config<B>>,
    /// Keeps the lane that the sessions know of alive.
    lane: Arc<dyn RenewalBackend>,
}

impl<S, B> RenewalService<S, B> {
    pub(crate) fn new<R>(inner: S, sessions: Sessions, config: Arc<Config<B>>) -> Self
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let lane: Arc<dyn RenewalBackend> = Arc::new(StackBackend::new(inner.clone(), config.clone()));
        sessions.registry.context.add_backend(Arc::downgrade(&lane));
        Self { inner, sessions, config, lane }
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
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
            return ResponseFuture::refused(error.clone().into());
        }
        let session = match resolve_session(request.extensions(), &self.sessions) {
            Ok(session) => session,
            Err(error) => return ResponseFuture::refused(error.into()),
        };
        if session.gate().is_reentrant() {
            return ResponseFuture::refused(RenewalError::new(RenewalErrorKind::Reentrant).into());
        }
        ResponseFuture::new(self.inner.clone(), self.config.clone(), self.lane.clone(), session, request)
    }
}

impl<S: Clone, B> Clone for RenewalService<S, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            sessions: self.sessions.clone(),
            config: self.config.clone(),
            lane: self.lane.clone(),
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
