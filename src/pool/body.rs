//! The body of a response, which ends the lease of its request.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Lease, classify::Outcome};

pin_project! {
    /// The body of a response from a [`PoolService`](super::PoolService), which carries the lease
    /// of its session.
    ///
    /// The lease ends when the body is read to the end, fails or is dropped.
    pub struct LeasedBody<R> {
        #[pin]
        inner: R,
        // Declared after the body, so that the body's resources are released before the lease ends.
        lease: Option<Lease>,
    }
}

impl<R> LeasedBody<R> {
    pub(crate) fn new(inner: R, lease: Option<Lease>) -> Self
    where
        R: Body,
    {
        let lease = lease.filter(|_| !inner.is_end_stream());
        Self { inner, lease }
    }

    /// Returns a reference to the wrapped body.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Returns the wrapped body and ends the lease.
    ///
    /// Another request may use the session while this body is read.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Body> Body for LeasedBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(context));
        match &frame {
            Some(Ok(_)) if !this.inner.is_end_stream() => {}
            // A reader that knows the length may not poll again after the last frame.
            Some(Ok(_)) | None => drop(this.lease.take()),
            Some(Err(_)) => {
                if let Some(lease) = this.lease.take() {
                    let pool = &lease.member().pool;
                    let now = || pool.sessions.registry.context.timestamp();
                    lease.member().mark((pool.settings.classify)(&Outcome::body_error(&now)));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<R: fmt::Debug> fmt::Debug for LeasedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBody").field("inner", &self.inner).field("lease", &self.lease).finish()
    }
}
