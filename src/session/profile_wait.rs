//! Requests that wait until their identity has a profile, and the response future of both layers
//! that let requests wait for one.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{Identity, SessionError, SessionErrorKind};
use crate::{
    gate::BoxError,
    profile::{PollProfile, RequestPos},
    rt,
};

pin_project! {
    /// The response future of a service `S` that sends a request now, or once its identity has a
    /// profile.
    pub(crate) struct ProfileWaitFuture<S, B, F> {
        #[pin]
        state: State<S, B, F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, F> {
        // The request was not sent.
        Rejected { error: Option<SessionError> },
        // The request waits for a profile. Boxed, because few requests do.
        Waiting { wait: Box<ProfileWait<S, B>> },
        // The request is in flight.
        Sent { #[pin] future: F },
    }
}

impl<S, B, F> ProfileWaitFuture<S, B, F> {
    pub(crate) fn sent(future: F) -> Self {
        Self { state: State::Sent { future } }
    }

    pub(crate) fn rejected(error: SessionError) -> Self {
        Self { state: State::Rejected { error: Some(error) } }
    }

    /// Calls `service` once `identity` has a profile. By then the request may get another identity.
    pub(crate) fn waiting(identity: Identity, service: S, request: Request<B>) -> Self {
        let wait = ProfileWait { service, request: Some(request), wait: Wait::new(identity) };
        Self { state: State::Waiting { wait: Box::new(wait) } }
    }

    /// Polls the future. `unwrap` takes it out of the future that `S` returns.
    pub(crate) fn poll<R, E>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        unwrap: impl Fn(S::Future) -> Self,
    ) -> Poll<Result<R, BoxError>>
    where
        S: Service<Request<B>, Error = BoxError>,
        F: Future<Output = Result<R, E>>,
        E: Into<BoxError>,
    {
        loop {
            let next = match self.as_mut().project().state.project() {
                StateProjection::Rejected { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after completion").into()));
                }
                StateProjection::Waiting { wait } => unwrap(ready!(wait.poll(context))?),
                StateProjection::Sent { future } => return future.poll(context).map_err(Into::into),
            };
            self.set(next);
        }
    }
}

/// A request that waits for the profile of its identity, and then goes through its service again.
///
/// While it waits, it holds no readiness of a service and no profile.
struct ProfileWait<S, B> {
    service: S,
    request: Option<Request<B>>,
    wait: Wait,
}

impl<S: Service<Request<B>, Error = BoxError>, B> ProfileWait<S, B> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<S::Future, BoxError>> {
        ready!(self.wait.poll(context))?;
        ready!(self.service.poll_ready(context))?;
        let request = self.request.take().expect("polled after completion");
        Poll::Ready(Ok(self.service.call(request)))
    }
}

/// The wait of one request. Dropping it gives up its queue position.
struct Wait {
    identity: Identity,
    position: Option<RequestPos>,
    /// `None` for a timeout beyond what the clock can represent.
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    fn new(identity: Identity) -> Self {
        let max_wait = identity.inner.profile.as_ref().map(|profile| profile.on_exhausted().max_wait());
        let deadline = Instant::now().checked_add(max_wait.unwrap_or_default());
        Self { identity, position: None, deadline, sleep: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        let Some(assignment) = self.identity.inner.awaited_profile() else {
            return Poll::Ready(Ok(()));
        };
        loop {
            let now = Instant::now();
            let cooldown_end = match assignment.poll(&mut self.position, context.waker(), now.into_std()) {
                PollProfile::Ready => return Poll::Ready(Ok(())),
                PollProfile::Waiting(cooldown_end) => cooldown_end.map(Instant::from_std),
            };
            // Without a runtime, nothing would end the wait.
            if self.deadline.is_some_and(|deadline| deadline <= now) || !rt::is_available() {
                let kind = SessionErrorKind::ProfilesExhausted;
                return Poll::Ready(Err(match assignment.pinned_to() {
                    Some(name) => {
                        SessionError::caused_by(kind, format!("the session is pinned to the profile {name}"))
                    }
                    None => SessionError::new(kind),
                }));
            }
            let Some(at) = [self.deadline, cooldown_end].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            ready!(sleep.as_mut().poll(context));
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let (Some(profile), Some(position)) = (&self.identity.inner.profile, self.position) {
            profile.leave(position);
        }
    }
}

impl<S, B, F> fmt::Debug for ProfileWaitFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileWaitFuture").finish_non_exhaustive()
    }
}
