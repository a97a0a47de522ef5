use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::{gate::BoxError, session::SessionError};

pin_project! {
    /// Response future of [`ProfileService`](super::ProfileService).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        // The request was not sent.
        Refused { error: Option<SessionError> },
        // The request is on its way.
        Sent { #[pin] inner: F },
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self { state: State::Sent { inner } }
    }

    pub(crate) fn refused(error: SessionError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { error } => {
                Poll::Ready(Err(error.take().expect("polled after completion").into()))
            }
            StateProjection::Sent { inner } => inner.poll(context).map_err(Into::into),
        }
    }
}
