//! The service that applies the profile of a request's identity.

use std::{
    mem,
    task::{Context, Poll},
};

use http::{Request, header};
use tower_service::Service;

use super::ResponseFuture;
use crate::{
    gate::BoxError,
    profile::{Profile, Proxy},
    session::{Identity, SessionError, SessionErrorKind, Sessions, request},
};

/// Middleware that applies a profile to each request.
///
/// Adds the profile's user agent and headers; headers that the request already has are not changed.
/// Sets the profile's [`Proxy`] as an extension for the client below, and removes that of an
/// earlier profile.
///
/// A client that does not read the extension connects as it always does: see [`Proxy`].
#[derive(Clone, Debug)]
#[must_use = "a service does nothing until it is called"]
pub struct ProfileService<S> {
    inner: S,
    sessions: Option<Sessions>,
}

impl<S> ProfileService<S> {
    pub(super) const fn new(inner: S, sessions: Option<Sessions>) -> Self {
        Self { inner, sessions }
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

    fn identity<B>(&self, request: &mut Request<B>) -> Result<Identity, SessionError> {
        let Some(sessions) = &self.sessions else {
            let identity = Identity::of(request.extensions());
            return identity.ok_or_else(|| SessionError::new(SessionErrorKind::NoIdentity));
        };
        Ok(request::resolve(request.extensions_mut(), sessions)?.identity)
    }
}

impl<S, B> Service<Request<B>> for ProfileService<S>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let identity = self.identity(&mut request);
        // Below a session layer, the request has already waited for its profile.
        if let Ok(identity) = &identity
            && identity.inner.awaited_profile().is_none()
        {
            apply(identity.profile(), &mut request);
            return ResponseFuture::sent(self.inner.call(request));
        }
        // A request that is not sent holds no readiness, which other requests can use.
        let unready = self.inner.clone();
        drop(mem::replace(&mut self.inner, unready));
        match identity {
            Ok(identity) => ResponseFuture::waiting(identity, self.clone(), request),
            Err(error) => ResponseFuture::rejected(error),
        }
    }
}

fn apply<B>(profile: Option<&Profile>, request: &mut Request<B>) {
    match profile.and_then(Profile::proxy) {
        Some(proxy) => {
            request.extensions_mut().insert(proxy.clone());
        }
        None => {
            request.extensions_mut().remove::<Proxy>();
        }
    }
    let Some(profile) = profile else {
        return;
    };
    let headers = request.headers_mut();
    if let Some(user_agent) = profile.user_agent() {
        headers.entry(header::USER_AGENT).or_insert_with(|| user_agent.clone());
    }
    for (name, value) in profile.headers() {
        headers.entry(name).or_insert_with(|| value.clone());
    }
}
