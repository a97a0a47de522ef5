//! The response future of a pool service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Lease, LeasedBody, PoolError, TriedSessions, UnusedSession,
    affinity::{self, Acquisition},
    classify::Outcome,
    runtime::Pool,
    strategy::RequestView,
    types::{LeaseRequest, Preference},
    wait::Wait,
};
use crate::gate::BoxError;

pin_project! {
    /// The response future of [`PoolService`](super::PoolService).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels this request only: it leaves the queue, or its session becomes
    /// free.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future>,
        call: Option<Call<S, B>>,
        // Declared after the state, so that the request is dropped before its session becomes free.
        lease: Option<Lease>,
    }
}

pin_project! {
    /// Overwriting a state drops its resources first, such as the permit of a limiter or a
    /// connection.
    #[project = StateProjection]
    enum State<F> {
        // Holds nothing; asks the pool for a session next.
        Ask { pool: Arc<Pool> },
        // Waits in a queue of the pool.
        Wait { #[pin] wait: Wait },
        // Has a session, or needs none; waits for the readiness of the inner service.
        Ready,
        // In flight.
        Sent { #[pin] future: F },
        // Completed.
        Done,
    }
}

/// The request and the service for it, until it is sent.
struct Call<S, B> {
    service: S,
    request: Request<B>,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(crate) fn bypass(service: S, request: Request<B>) -> Self {
        Self { state: State::Ready, call: Some(Call { service, request }), lease: None }
    }

    pub(crate) fn lease(service: S, request: Request<B>, pool: Arc<Pool>) -> Self {
        Self { state: State::Ask { pool }, call: Some(Call { service, request }), lease: None }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<LeasedBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Ask { pool } => {
                    let request = &this.call.as_ref().expect("the request was not sent yet").request;
                    match ask_for(pool, request) {
                        Ok(Acquisition::Leased(lease)) => {
                            *this.lease = Some(lease);
                            State::Ready
                        }
                        Ok(Acquisition::Wait(wait)) => State::Wait { wait },
                        Err(error) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Err(error.into()));
                        }
                    }
                }
                StateProjection::Wait { wait } => match ready!(wait.poll(context)) {
                    Ok(lease) => {
                        *this.lease = Some(lease);
                        State::Ready
                    }
                    Err(error) => {
                        this.state.set(State::Done);
                        return Poll::Ready(Err(error.into()));
                    }
                },
                StateProjection::Ready => {
                    let call = this.call.as_mut().expect("the request was not sent yet");
                    if let Err(error) = ready!(call.service.poll_ready(context)) {
                        // Nothing was sent: the lease does not count as a use.
                        this.state.set(State::Done);
                        *this.lease = None;
                        return Poll::Ready(Err(error.into()));
                    }
                    let Call { mut service, mut request } = this.call.take().expect("checked above");
                    if let Some(lease) = this.lease {
                        let number = lease.member().key.number;
                        if let Some(tried) = request.extensions().get::<TriedSessions>() {
                            tried.add(number);
                        }
                        request.extensions_mut().insert(lease.session().clone());
                    }
                    State::Sent { future: service.call(request) }
                }
                StateProjection::Sent { future } => {
                    let result = ready!(future.poll(context)).map_err(Into::into);
                    // The completed future is dropped first: it may hold resources that the next
                    // request under this session needs.
                    this.state.set(State::Done);
                    let Some(lease) = this.lease else {
                        return Poll::Ready(
                            result.map(|response| response.map(|body| LeasedBody::new(body, None))),
                        );
                    };
                    // The user's classifier may panic; until it returns, dropping this future ends
                    // the lease.
                    classify(lease, &result);
                    let lease = this.lease.take();
                    return Poll::Ready(result.map(|mut response| {
                        if let Some(lease) = &lease {
                            response.extensions_mut().insert(lease.member().clone());
                        }
                        response.map(|body| LeasedBody::new(body, lease))
                    }));
                }
                StateProjection::Done => panic!("polled after completion"),
            };
            this.state.set(next);
        }
    }
}

/// Asks the pool for a session that suits this request.
fn ask_for<B>(pool: &Arc<Pool>, request: &Request<B>) -> Result<Acquisition, PoolError> {
    let extensions = request.extensions();
    let avoid = extensions.get::<TriedSessions>().map(TriedSessions::numbers).unwrap_or_default();
    let preference = match extensions.get::<UnusedSession>() {
        Some(UnusedSession) => Preference::Unused,
        None => affinity::preference(pool, &RequestView::of(request)),
    };
    affinity::ask(pool, &LeaseRequest { preference, avoid })
}

/// Classifies the result of a request and applies the verdict.
fn classify<R>(lease: &Lease, result: &Result<Response<R>, BoxError>) {
    let pool = &lease.member().pool;
    let now = || pool.sessions.registry.context.timestamp();
    let outcome = match result {
        Ok(response) => Outcome::response(response, &now),
        Err(error) => Outcome::failed(&**error, &now),
    };
    lease.member().mark((pool.settings.classify)(&outcome));
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Ask { .. } => "Ask",
            State::Wait { .. } => "Wait",
            State::Ready => "Ready",
            State::Sent { .. } => "Sent",
            State::Done => "Done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
