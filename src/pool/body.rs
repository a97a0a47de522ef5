//! The body of a response, which ends its request's lease.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Lease, classify::Outcome};

pin_project! {
    /// The body of a response that came through a [`PoolService`](super::PoolService): as it came, and with it the lease of its
    /// session.
    ///
    /// The lease ends when the body has been read, has failed, or is dropped.
    pub struct LeasedBody<R> {
        #[pin]
        inner: R,
        // After the body, so that what the body holds is given back first.
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

    /// The wrapped body.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The body without its lease, which ends now: another request may go out under the session while this body is read.
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
            // Whoever knows the length does not ask for more than this.
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
