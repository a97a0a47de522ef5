use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, Uri, header};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Identity, SessionError, SessionInfo, SessionService, profile_wait::ProfileWait, request::SendLog, trace,
};
use crate::{
    cookies::{CookieUrl, StoreOutcome, StoredCookie},
    gate::BoxError,
};

pin_project! {
    /// Response future of [`SessionService`](super::SessionService).
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
        ProfileWait { waiting: Box<ProfileWait<SessionService<S>, B>> },
        // The request is on its way.
        Sent { #[pin] inner: S::Future, sent: Sent },
    }
}

/// What is kept of a request until its response is there.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) identity: Identity,
    pub(crate) uri: Uri,
    pub(crate) stores: bool,
    /// Whether the answer carries a `SessionInfo`, if no gate puts it there.
    pub(crate) has_info: bool,
    pub(crate) log: Option<SendLog>,
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(crate) fn new(inner: S::Future, sent: Sent) -> Self {
        Self { state: State::Sent { inner, sent } }
    }

    pub(crate) fn refused(error: SessionError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }

    pub(crate) fn awaited_profile(waiting: ProfileWait<SessionService<S>, B>) -> Self {
        Self { state: State::ProfileWait { waiting: Box::new(waiting) } }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project().state.project() {
                StateProjection::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after completion").into()));
                }
                StateProjection::ProfileWait { waiting } => ready!(waiting.poll(context))?,
                StateProjection::Sent { inner, sent } => {
                    let mut response = ready!(inner.poll(context)).map_err(Into::into)?;
                    sent.receive(&mut response);
                    return Poll::Ready(Ok(response));
                }
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

impl Sent {
    /// Stores the cookies of a response into the identity that its request was sent under, and says so.
    fn receive<R>(&mut self, response: &mut Response<R>) {
        let mut cookies = Vec::new();
        if self.stores && response.headers().contains_key(header::SET_COOKIE) {
            self.store(response, &mut cookies);
        }
        if let Some(log) = &self.log {
            log.with(|log| {
                log.cookies.append(&mut cookies);
                log.uri = Some(mem::take(&mut self.uri));
            });
        } else if self.has_info {
            response.extensions_mut().insert(SessionInfo {
                session: self.identity.session_id().clone(),
                generation: self.identity.generation(),
                cookies,
                uri: Some(mem::take(&mut self.uri)),
                replays: 0,
                time_waiting: Duration::ZERO,
            });
        }
    }

    fn store<R>(&self, response: &Response<R>, cookies: &mut Vec<StoredCookie>) {
        let Ok(target) = CookieUrl::from_uri(&self.uri) else {
            return;
        };
        let session = &self.identity.session.0;
        let told = self.log.is_some() || self.has_info;
        let now = session.context.timestamp();
        for set_cookie in response.headers().get_all(header::SET_COOKIE) {
            // Locked for the one cookie, so that no subscriber of traces runs under the lock.
            let absorbed =
                self.identity.inner.jar.lock().store_set_cookie(&target, set_cookie.as_bytes(), now).map(
                    |absorbed| {
                        let is_refreshed = matches!(absorbed, StoreOutcome::Refreshed(_));
                        (absorbed.cookie().filter(|_| told).cloned(), is_refreshed)
                    },
                );
            match absorbed {
                Ok((cookie, is_refreshed)) => {
                    session.counters.cookies_stored.add();
                    session.context.changed();
                    if is_refreshed {
                        session.cookies_changed_lazily(now);
                    } else if self.identity.inner.life.is_current() {
                        session.cookies_changed(now);
                    }
                    session.context.metrics.cookies_stored.add();
                    cookies.extend(cookie);
                    trace::received(&self.identity, &target, set_cookie);
                }
                Err(error) => {
                    session.counters.rare().cookies_rejected.add();
                    session.context.metrics.cookies_rejected.add();
                    trace::refused(&self.identity, &target, &error);
                }
            }
        }
    }
}
