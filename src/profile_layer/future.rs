use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::ProfileService;
use crate::{
    gate::BoxError,
    session::{SessionError, profile_wait::ProfileWait},
};

pin_project! {
    /// Response future of [`ProfileService`](super::ProfileService).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        // The request was not sent.
        Refused { error: Option<SessionError> },
        // The request waits until its identity has a profile. In a box, since few do.
        ProfileWait { waiting: Box<ProfileWait<ProfileService<S>, B>> },
        // The request is on its way.
        Sent { #[pin] inner: S::Future },
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(crate) fn new(inner: S::Future) -> Self {
        Self { state: State::Sent { inner } }
    }

    pub(crate) fn refused(error: SessionError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }

    pub(crate) fn awaited_profile(waiting: ProfileWait<ProfileService<S>, B>) -> Self {
        Self { state: State::ProfileWait { waiting: Box::new(waiting) } }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project().state.project() {
                StateProjection::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after completion").into()));
                }
                StateProjection::ProfileWait { waiting } => ready!(waiting.poll(context))?,
                StateProjection::Sent { inner } => return inner.poll(context).map_err(Into::into),
            };
            self.set(next);
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
