//! The response future of the redirect layer: sends hop after hop.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::call::{Call, Config};

pin_project! {
    /// Response future of [`RedirectService`](super::RedirectService).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the hop in flight. No further hop is sent.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future, B>,
        // It was ready for the first request, and becomes ready again for each hop.
        service: S,
        call: Call<B>,
        config: Config<B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        // A request is in flight.
        Sent { #[pin] future: F },
        // The service becomes ready for the next hop. Boxed, because few requests are redirected.
        Ready { request: Option<Box<Request<B>>> },
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn new(future: S::Future, service: S, call: Call<B>, config: Config<B>) -> Self {
        Self { state: State::Sent { future }, service, call, config }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Sent { future } => {
                    let response = ready!(future.poll(context))?;
                    if !response.status().is_redirection() {
                        return Poll::Ready(Ok(response));
                    }
                    let (status, headers) = (response.status(), response.headers());
                    let Some(request) = this.call.follow(status, headers, this.config) else {
                        return Poll::Ready(Ok(response));
                    };
                    // The future and the body are dropped before the service is asked for
                    // readiness: they may hold the permit or the connection that the hop needs.
                    this.state.set(State::Ready { request: Some(Box::new(request)) });
                    drop(response);
                }
                StateProjection::Ready { request } => {
                    ready!(this.service.poll_ready(context))?;
                    let request = request.take().expect("polled after completion");
                    let future = this.service.call(*request);
                    this.state.set(State::Sent { future });
                }
            }
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
