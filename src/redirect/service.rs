//! The service that follows redirects.

use std::{
    fmt, mem,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    ResponseFuture,
    call::{Call, Config},
};

/// Middleware that follows redirects within the session of a request.
///
/// The [module](super) explains which responses are followed, and what a hop sends. Errors are
/// those of the inner service; the middleware adds none.
pub struct RedirectService<S, B> {
    inner: S,
    config: Config<B>,
}

impl<S, B> RedirectService<S, B> {
    pub(super) const fn new(inner: S, config: Config<B>) -> Self {
        Self { inner, config }
    }

    /// Returns a reference to the wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the wrapped service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for RedirectService<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let spare = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, spare);
        let call = Call::new(&request, &self.config);
        let future = ready.call(request);
        ResponseFuture::new(future, ready, call, self.config.clone())
    }
}

impl<S: Clone, B> Clone for RedirectService<S, B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), config: self.config.clone() }
    }
}

impl<S: fmt::Debug, B> fmt::Debug for RedirectService<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedirectService").field("inner", &self.inner).field("config", &self.config).finish()
    }
}
