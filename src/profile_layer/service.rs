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
    session::{Identity, SessionError, SessionErrorKind, Sessions, profile_wait::ProfileWait, request},
};

/// Middleware that makes a request look like its identity's profile says.
///
/// The profile's user agent and headers are put onto the request; a header that the request already has stays as it is. The
/// profile's [`Proxy`] is put into the extensions, where the client below finds it; what an earlier profile left there is removed.
/// A client that does not look for it connects as it always does: see [`Proxy`].
#[derive(Clone, Debug)]
pub struct ProfileService<S> {
    inner: S,
    sessions: Option<Sessions>,
}

impl<S> ProfileService<S> {
    pub(crate) fn new(inner: S, sessions: Option<Sessions>) -> Self {
        Self { inner, sessions }
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    fn identity<B>(&self, request: &mut Request<B>) -> Result<Identity, SessionError> {
        let Some(sessions) = &self.sessions else {
            let identity = Identity::of(request.extensions());
            return identity.ok_or_else(|| SessionError::new(SessionErrorKind::NoIdentity));
        };
        Ok(request::find(request.extensions_mut(), sessions)?.identity)
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
        let spare = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, spare);
        match self.identity(&mut request) {
            // Below a session layer this was waited for already.
            Ok(identity) if identity.inner.awaited_profile().is_some() => {
                drop(ready);
                ResponseFuture::awaited_profile(ProfileWait::new(identity, self.clone(), request))
            }
            Ok(identity) => {
                wear(identity.profile(), &mut request);
                ResponseFuture::new(ready.call(request))
            }
            Err(error) => ResponseFuture::refused(error),
        }
    }
}

fn wear<B>(profile: Option<&Profile>, request: &mut Request<B>) {
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
