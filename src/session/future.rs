//! The response future of the session layer: stores the response's cookies.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response, Uri, header};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Identity, SessionError, SessionInfo, SessionService,
    profile_wait::ProfileWaitFuture,
    request::SendLog,
    sent_cookies::{self, SentCookie},
    trace,
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
        future: ProfileWaitFuture<SessionService<S>, B, Receive<S::Future>>,
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn sent(inner: S::Future, sent: Sent) -> Self {
        Self { future: ProfileWaitFuture::sent(Receive { inner, sent }) }
    }

    pub(super) fn rejected(error: SessionError) -> Self {
        Self { future: ProfileWaitFuture::rejected(error) }
    }

    pub(super) fn waiting(identity: Identity, service: SessionService<S>, request: Request<B>) -> Self {
        Self { future: ProfileWaitFuture::waiting(identity, service, request) }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(context, |response| response.future)
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A request in flight.
    struct Receive<F> {
        #[pin]
        inner: F,
        sent: Sent,
    }
}

impl<F, R, E> Future for Receive<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(context))?;
        this.sent.receive(&mut response);
        Poll::Ready(Ok(response))
    }
}

/// What the session layer needs to know about a request when its response arrives.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) identity: Identity,
    pub(super) uri: Uri,
    /// Whether the response's cookies are stored.
    pub(super) stores: bool,
    /// Whether the response gets a `SessionInfo`, if no gate adds one.
    pub(super) has_info: bool,
    pub(super) log: Option<SendLog>,
    /// The cookies of the request, if it has a log.
    pub(super) cookie: SentCookie,
}

impl Sent {
    /// Stores the cookies of a response in the identity of its request, and adds a `SessionInfo`.
    fn receive<R>(&mut self, response: &mut Response<R>) {
        let (mut cookies, mut replaced) = (Vec::new(), Vec::new());
        if self.stores && response.headers().contains_key(header::SET_COOKIE) {
            replaced = self.store(response, &mut cookies);
        }
        if let Some(log) = &self.log {
            log.with(|log| {
                log.cookies.append(&mut cookies);
                let previous_uri = log.uri.replace(mem::take(&mut self.uri));
                log.sent_cookies.record(mem::take(&mut self.cookie), previous_uri, replaced);
            });
        } else if self.has_info {
            let (session, generation) = (self.identity.session_id(), self.identity.generation());
            let uri = Some(mem::take(&mut self.uri));
            response.extensions_mut().insert(SessionInfo::new(session, generation, cookies, uri));
        }
    }

    /// Stores the cookies of a response. Returns the newer cookies that it has replaced.
    fn store<R>(&self, response: &Response<R>, cookies: &mut Vec<StoredCookie>) -> Vec<StoredCookie> {
        let Ok(url) = CookieUrl::from_uri(&self.uri) else {
            return Vec::new();
        };
        let session = &self.identity.session.0;
        let is_reported = self.log.is_some() || self.has_info;
        let now = session.context.timestamp();
        let newer = self.cookie.newer_cookies(&self.identity, &self.uri, now);
        for set_cookie in response.headers().get_all(header::SET_COOKIE) {
            // Locked per cookie, so that no subscriber of `tracing` runs under the lock.
            let jar = &self.identity.inner.jar;
            let stored = jar.store_set_cookie(&url, set_cookie.as_bytes(), now, |outcome| {
                let is_refreshed = matches!(outcome, StoreOutcome::Refreshed(_));
                (outcome.cookie().filter(|_| is_reported).cloned(), is_refreshed)
            });
            match stored {
                Ok((cookie, is_refreshed)) => {
                    session.counters.cookies_stored.add();
                    session.context.changed();
                    if is_refreshed {
                        session.cookies_changed_lazily(now);
                    } else if self.identity.inner.version.is_current() {
                        session.cookies_changed(now);
                    }
                    session.context.metrics.cookies_stored.add();
                    cookies.extend(cookie);
                    trace::received(&self.identity, &url, set_cookie);
                }
                Err(error) => {
                    session.counters.rare().cookies_rejected.add();
                    session.context.metrics.cookies_rejected.add();
                    trace::rejected(&self.identity, &url, &error);
                }
            }
        }
        sent_cookies::replaced(&self.identity, newer, now)
    }
}
