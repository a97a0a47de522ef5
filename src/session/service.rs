//! The service that sends a session's cookies.

use std::{
    mem,
    task::{Context, Poll},
};

use http::{
    HeaderMap, Request, Response, Uri,
    header::{self, Entry},
};
use tower_service::Service;

use super::{
    CookieMode, Identity, ResponseFuture, SessionError, SessionErrorKind, Sessions,
    future::Sent,
    request::{self, EndedHop, ResolvedRequest},
    sent_cookies::SentCookie,
    trace,
};
use crate::{
    cookies::{CookieError, CookieUrl},
    gate::BoxError,
};

/// Middleware that sends a session's cookies and stores those of the response.
///
/// See the [module documentation](super) for how a request selects its session, and for what is
/// sent and stored.
#[derive(Clone, Debug)]
#[must_use = "a service does nothing until it is called"]
pub struct SessionService<S> {
    inner: S,
    sessions: Sessions,
    /// Whether responses get a `SessionInfo`.
    has_info: bool,
}

impl<S> SessionService<S> {
    /// Wraps `inner`.
    pub const fn new(inner: S, sessions: Sessions) -> Self {
        Self { inner, sessions, has_info: true }
    }

    /// Does not add a [`SessionInfo`](super::SessionInfo) to responses: see
    /// [`SessionLayer::without_info`](super::SessionLayer::without_info).
    pub fn without_info(mut self) -> Self {
        self.has_info = false;
        self
    }

    /// Returns a reference to the wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the wrapped service.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Resolves the request's session and adds its cookies.
    fn prepare<B>(&self, request: &mut Request<B>) -> Result<Sent, NotSent> {
        let ResolvedRequest { identity, log, mode, cookies } =
            request::resolve(request.extensions_mut(), &self.sessions)?;
        if let Some(log) = &log {
            // The identity ended between two hops: the gate starts the request again under the next
            // one.
            if identity.is_ended() && log.with(|log| log.ended_hop) == EndedHop::Reject {
                return Err(SessionError::new(SessionErrorKind::IdentityEnded).into());
            }
        }
        if identity.inner.awaited_profile().is_some() {
            return Err(NotSent::AwaitsProfile(identity));
        }
        let uri = full_uri(request)?;
        let context = &identity.session.0.context;
        if let Some(cookies) = cookies {
            let mut jar = identity.inner.jar.lock();
            jar.add(cookies.iter(), &cookie_url(&uri)?, context.timestamp())
                .map_err(|error| SessionError::caused_by(SessionErrorKind::BadCookie, error))?;
        }
        let mut cookie = SentCookie::Unknown;
        if CookieMode::sends(mode.as_ref()) {
            let sent = log.is_some().then_some(&mut cookie);
            send_cookies(&identity, &uri, request.headers_mut(), sent)?;
        } else {
            // An invalid URI is an error with every mode.
            cookie_url(&uri)?;
        }
        identity.session.0.counters.sent.add();
        context.metrics.sent.add();
        let stores = CookieMode::stores(mode.as_ref());
        Ok(Sent { identity, uri, stores, has_info: self.has_info, log, cookie })
    }
}

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let not_sent = match self.prepare(&mut request) {
            Ok(sent) => return ResponseFuture::sent(self.inner.call(request), sent),
            Err(not_sent) => not_sent,
        };
        // A request that is not sent holds no readiness, which other requests can use.
        let unready = self.inner.clone();
        drop(mem::replace(&mut self.inner, unready));
        match not_sent {
            NotSent::Rejected(error) => ResponseFuture::rejected(error),
            NotSent::AwaitsProfile(identity) => ResponseFuture::waiting(identity, self.clone(), request),
        }
    }
}

/// Why a request is not sent immediately.
enum NotSent {
    Rejected(SessionError),
    /// No profile is free for its identity.
    AwaitsProfile(Identity),
}

impl From<SessionError> for NotSent {
    fn from(error: SessionError) -> Self {
        Self::Rejected(error)
    }
}

/// Adds the session's cookies to those of the request itself, and records them in `sent`.
fn send_cookies(
    identity: &Identity,
    uri: &Uri,
    headers: &mut HeaderMap,
    sent: Option<&mut SentCookie>,
) -> Result<(), SessionError> {
    let context = &identity.session.0.context;
    let now = || context.timestamp();
    let cookie = identity.inner.jar.cookie_header(uri, now).map_err(bad_uri)?;
    let has_own = headers.contains_key(header::COOKIE);
    if let Some(sent) = sent
        && !has_own
    {
        *sent = SentCookie::Jar(cookie.clone());
    }
    if cookie.is_none() && !has_own {
        return Ok(());
    }
    match (headers.entry(header::COOKIE), cookie) {
        (Entry::Vacant(entry), Some(cookie)) => {
            trace::sent(identity, uri, &cookie);
            entry.insert(cookie);
        }
        (Entry::Vacant(_), None) => {}
        (Entry::Occupied(mut own), _) => {
            let both = identity.inner.jar.cookie_header_with(&cookie_url(uri)?, own.iter(), now);
            if let Some(both) = both {
                trace::sent(identity, uri, &both);
                own.insert(both);
            }
        }
    }
    Ok(())
}

fn cookie_url(uri: &Uri) -> Result<CookieUrl<'_>, SessionError> {
    CookieUrl::from_uri(uri).map_err(bad_uri)
}

fn bad_uri(error: CookieError) -> SessionError {
    SessionError::caused_by(SessionErrorKind::BadUri, error)
}

/// The request's URI, with the host of its `Host` header if it has only a path.
fn full_uri<B>(request: &Request<B>) -> Result<Uri, SessionError> {
    let uri = request.uri();
    if uri.authority().is_some() {
        return Ok(uri.clone());
    }
    host_and_path(uri, request.headers()).ok_or_else(|| SessionError::new(SessionErrorKind::BadUri))
}

fn host_and_path(uri: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder().scheme("http").authority(host).path_and_query(path).build().ok()
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready};

    use http::HeaderValue;

    use super::*;
    use crate::session::SessionId;

    /// Responds with the `Cookie` header of the request.
    #[derive(Clone)]
    struct Echo;

    impl Service<Request<()>> for Echo {
        type Response = Response<Option<HeaderValue>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            ready(Ok(Response::new(request.headers().get(header::COOKIE).cloned())))
        }
    }

    #[tokio::test]
    async fn a_hit_is_sent_while_the_jar_is_locked() {
        const URL: &str = "https://shop.example/";
        let sessions = Sessions::new();
        let session = sessions.session("alice");
        session.add_cookies([("a", "1")], URL).unwrap();
        let mut service = SessionService::new(Echo, sessions);
        let mut send = || {
            let request = Request::get(URL).extension(SessionId::from("alice")).body(()).unwrap();
            service.call(request)
        };
        for _ in 0..3 {
            assert_eq!(send().await.unwrap().into_body().unwrap(), "a=1");
        }
        let identity = session.identity().unwrap();
        let locked = identity.inner.jar.lock();
        let response = tokio_test::task::spawn(send()).poll();
        assert!(matches!(response, Poll::Ready(Ok(response)) if response.body().as_ref().unwrap() == "a=1"));
        drop(locked);
    }
}
