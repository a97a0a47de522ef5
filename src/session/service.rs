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
    profile_wait::ProfileWait,
    request::{self, ResolvedRequest},
    trace,
};
use crate::{cookies::CookieUrl, gate::BoxError};

/// Middleware that sends a session's cookies and stores those that come back.
///
/// See the [module](super) for how a request names its session and what is sent and stored.
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    sessions: Sessions,
    /// Whether answers carry a `SessionInfo`.
    has_info: bool,
}

impl<S> SessionService<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, sessions: Sessions) -> Self {
        Self { inner, sessions, has_info: true }
    }

    /// Leaves the [`SessionInfo`](super::SessionInfo) out of answers: see [`SessionLayer::without_info`](super::SessionLayer::without_info).
    #[must_use]
    pub fn without_info(mut self) -> Self {
        self.has_info = false;
        self
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Puts onto the request what its session adds to it.
    fn prepare<B>(&self, request: &mut Request<B>) -> Result<Sent, NotSent> {
        let ResolvedRequest { identity, log, switch, brought } =
            request::find(request.extensions_mut(), &self.sessions)?;
        if let Some(log) = &log {
            // A hop that waited below while its identity was ended: the gate starts the request again under the next one.
            if identity.is_ended() && log.with(|log| log.restartable) {
                return Err(SessionError::new(SessionErrorKind::IdentityEnded).into());
            }
        }
        if identity.inner.awaited_profile().is_some() {
            return Err(NotSent::ProfileWait(identity));
        }
        let uri = target_uri(request)?;
        let context = &identity.session.0.context;
        if let Some(cookies) = brought {
            let mut jar = identity.inner.jar.lock();
            jar.add(cookies.iter(), &target(&uri)?, context.timestamp())
                .map_err(|error| SessionError::caused_by(SessionErrorKind::BadCookie, error))?;
        }
        if CookieMode::sends(switch.as_ref()) {
            send_cookies(&identity, &uri, request.headers_mut())?;
        } else {
            // What cannot be read is refused, whatever the request leaves out.
            target(&uri)?;
        }
        identity.session.0.counters.sent.add();
        context.metrics.sent.add();
        let stores = CookieMode::stores(switch.as_ref());
        Ok(Sent { identity, uri, stores, has_info: self.has_info, log })
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
        let spare = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, spare);
        match self.prepare(&mut request) {
            Ok(sent) => ResponseFuture::new(ready.call(request), sent),
            Err(NotSent::Refused(error)) => ResponseFuture::refused(error),
            Err(NotSent::ProfileWait(identity)) => {
                // It waits without the readiness that others could use meanwhile.
                drop(ready);
                ResponseFuture::awaited_profile(ProfileWait::new(identity, self.clone(), request))
            }
        }
    }
}

/// Why a request does not leave at once.
enum NotSent {
    Refused(SessionError),
    /// Its identity waits for a profile.
    ProfileWait(Identity),
}

impl From<SessionError> for NotSent {
    fn from(error: SessionError) -> Self {
        Self::Refused(error)
    }
}

/// Puts the session's cookies on, beside those that the request has of its own.
fn send_cookies(identity: &Identity, uri: &Uri, headers: &mut HeaderMap) -> Result<(), SessionError> {
    let context = &identity.session.0.context;
    let now = || context.timestamp();
    let mut jar = identity.inner.jar.lock();
    let cookie = match jar.cached_header(uri, now) {
        Some(cookie) => cookie,
        None => jar.cookie_header(&target(uri)?, now),
    };
    drop(jar);
    if cookie.is_none() && !headers.contains_key(header::COOKIE) {
        return Ok(());
    }
    match (headers.entry(header::COOKIE), cookie) {
        (Entry::Vacant(place), Some(cookie)) => {
            trace::sent(identity, uri, &cookie);
            place.insert(cookie);
        }
        (Entry::Vacant(_), None) => {}
        (Entry::Occupied(mut own), _) => {
            let both = identity.inner.jar.lock().cookie_header_with(&target(uri)?, own.iter(), now);
            if let Some(both) = both {
                trace::sent(identity, uri, &both);
                own.insert(both);
            }
        }
    }
    Ok(())
}

fn target(uri: &Uri) -> Result<CookieUrl<'_>, SessionError> {
    CookieUrl::from_uri(uri).map_err(|error| SessionError::caused_by(SessionErrorKind::BadUri, error))
}

/// Where the request goes: its URI, completed by its `Host` header where it has only a path.
fn target_uri<B>(request: &Request<B>) -> Result<Uri, SessionError> {
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
