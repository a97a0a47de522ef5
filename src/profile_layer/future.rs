//! The response future of the profile layer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Request;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::ProfileService;
use crate::{
    gate::BoxError,
    session::{Identity, SessionError, profile_wait::ProfileWaitFuture},
};

pin_project! {
    /// Response future of [`ProfileService`](super::ProfileService).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        future: ProfileWaitFuture<ProfileService<S>, B, S::Future>,
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn sent(inner: S::Future) -> Self {
        Self { future: ProfileWaitFuture::sent(inner) }
    }

    pub(super) fn rejected(error: SessionError) -> Self {
        Self { future: ProfileWaitFuture::rejected(error) }
    }

    pub(super) fn waiting(identity: Identity, service: ProfileService<S>, request: Request<B>) -> Self {
        Self { future: ProfileWaitFuture::waiting(identity, service, request) }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(context, |response| response.future)
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
