//! A request whose identity has no profile yet: it waits for one, and then goes through its service again.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{Identity, SessionError, SessionErrorKind};
use crate::{
    gate::BoxError,
    profile::{PollProfile, RequestPos},
    rt,
};

/// Holds no readiness of anything while it waits, and no profile that others could wear.
pub(crate) struct ProfileWait<S, B> {
    service: S,
    request: Option<Request<B>>,
    wait: Wait,
}

/// One request's wait for the profile of its identity. Dropping it gives its place in the line up.
struct Wait {
    identity: Identity,
    place: Option<RequestPos>,
    /// Nothing where there is no end in sight.
    until: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S, B> ProfileWait<S, B> {
    /// `service` is called once `identity` has a profile; it may turn out that the request goes under another one by then.
    pub(crate) fn new(identity: Identity, service: S, request: Request<B>) -> Self {
        Self { service, request: Some(request), wait: Wait::new(identity) }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<S::Future, BoxError>>
    where
        S: Service<Request<B>, Error = BoxError>,
    {
        ready!(self.wait.poll(context))?;
        ready!(self.service.poll_ready(context))?;
        let request = self.request.take().expect("polled after completion");
        Poll::Ready(Ok(self.service.call(request)))
    }
}

impl Wait {
    fn new(identity: Identity) -> Self {
        let patience = identity.inner.worn.as_ref().map(|worn| worn.on_exhausted().max_wait());
        let until = Instant::now().checked_add(patience.unwrap_or_default());
        Self { identity, place: None, until, alarm: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        let Some(worn) = self.identity.inner.awaited_profile() else {
            return Poll::Ready(Ok(()));
        };
        loop {
            let now = Instant::now();
            let rest_ends = match worn.poll(&mut self.place, context.waker(), now.into_std()) {
                PollProfile::Ready => return Poll::Ready(Ok(())),
                PollProfile::Waiting(rest_ends) => rest_ends.map(Instant::from_std),
            };
            // Without a runtime, nothing would end the wait.
            if self.until.is_some_and(|until| until <= now) || !rt::is_available() {
                let kind = SessionErrorKind::ProfilesExhausted;
                return Poll::Ready(Err(match worn.pinned_to() {
                    Some(name) => {
                        SessionError::caused_by(kind, format!("the session is pinned to the profile {name}"))
                    }
                    None => SessionError::new(kind),
                }));
            }
            let Some(at) = [self.until, rest_ends].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if alarm.deadline() != at {
                alarm.as_mut().reset(at);
            }
            ready!(alarm.as_mut().poll(context));
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let (Some(worn), Some(place)) = (&self.identity.inner.worn, self.place) {
            worn.leave(place);
        }
    }
}

impl<S, B> fmt::Debug for ProfileWait<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undressed").field("identity", &self.wait.identity).finish_non_exhaustive()
    }
}
