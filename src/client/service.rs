//! `IdentityClient`: the service that sends requests.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, Version, header, uri::Scheme};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use tower_service::Service;

use super::{
    builder::IdentityClientBuilder,
    cache::ClientCache,
    connector,
    error::{ClientError, ClientErrorKind},
    future::ResponseFuture,
};
use crate::{
    gate::BoxError,
    profile::{Profile, Proxy, ProxyServer},
    session::Identity,
};

/// Client with separate connections, TLS sessions and proxies for each identity.
///
/// The [module](super) explains proxies and errors.
///
/// # Clone
///
/// Clones are the same client, and cost one reference count.
pub struct IdentityClient<B> {
    inner: Arc<Inner<B>>,
}

pub(super) struct Inner<B> {
    pub(super) cache: Arc<ClientCache<B>>,
    pub(super) allow_direct: bool,
    pub(super) allow_anonymous: bool,
}

impl IdentityClient<()> {
    /// Creates a builder with the default settings.
    pub fn builder() -> IdentityClientBuilder {
        IdentityClientBuilder::default()
    }
}

impl<B> IdentityClient<B>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    pub(super) fn new(inner: Inner<B>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Number of connections of all identities, including those that are being opened.
    pub fn connections(&self) -> usize {
        self.inner.cache.totals.open()
    }

    /// Number of identities that have connections or TLS sessions.
    pub fn identities(&self) -> usize {
        self.inner.cache.len()
    }

    /// Returns the proxy of the request, or of the profile of its identity.
    fn proxy(&self, request: &Request<B>, identity: Option<&Identity>) -> Result<Proxy, ClientError> {
        let extensions = request.extensions();
        let of_profile = || identity.and_then(Identity::profile).and_then(Profile::proxy);
        match extensions.get::<Proxy>().or_else(of_profile) {
            Some(proxy) => Ok(proxy.clone()),
            None if self.inner.allow_direct => Ok(Proxy::direct()),
            None => Err(ClientError::new(ClientErrorKind::NoProxy)),
        }
    }

    fn send(&self, mut request: Request<B>) -> Result<ResponseFuture, ClientError>
    where
        B: Unpin,
        B::Error: Into<BoxError>,
    {
        let identity = Identity::of(request.extensions());
        if identity.is_none() && !self.inner.allow_anonymous {
            return Err(ClientError::new(ClientErrorKind::NoIdentity));
        }
        let proxy = self.proxy(&request, identity.as_ref())?;
        check_uri(&request)?;
        // ALPN determines the version, not the caller.
        if request.version() != Version::HTTP_10 {
            *request.version_mut() = Version::HTTP_11;
        }
        // A header of the caller would reach the origin, or be the credentials of another identity.
        request.headers_mut().remove(header::PROXY_AUTHORIZATION);
        let cached = self.inner.cache.client(identity.as_ref(), &proxy)?;
        let proxy = &cached.egress.proxy;
        let forwarding = connector::forwarding(proxy, request.uri());
        let connection = forwarding.is_some().then(|| capture_connection(&mut request));
        if let Some(credentials) = forwarding.and_then(ProxyServer::credentials) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credentials.to_basic_auth());
        }
        Ok(ResponseFuture::new(cached.client.request(request), proxy.clone(), connection))
    }
}

/// Rejects a URI that cannot be sent, or that contains a user name, which a proxy or a log would
/// see.
fn check_uri<B>(request: &Request<B>) -> Result<(), ClientError> {
    let uri = request.uri();
    let detail = match uri.scheme() {
        None => "it is not absolute",
        Some(scheme) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => {
            "its scheme is not http or https"
        }
        Some(_) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            "it contains a user name; use the Authorization header"
        }
        Some(_) if uri.host().is_none_or(str::is_empty) => "it has no host",
        Some(_) if request.method() == http::Method::CONNECT => "the client sends CONNECT itself",
        Some(_) => return Ok(()),
    };
    Err(ClientError::new(ClientErrorKind::BadUri).saying(detail))
}

impl<B> Service<Request<B>> for IdentityClient<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Incoming>;
    type Error = ClientError;
    type Future = ResponseFuture;

    /// Always ready, because the identity of a request is known only when the service is called.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.send(request).unwrap_or_else(ResponseFuture::rejected)
    }
}

impl<B> Clone for IdentityClient<B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<B> fmt::Debug for IdentityClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.inner.cache.totals.open();
        f.debug_struct("IdentityClient").field("connections", &open).finish_non_exhaustive()
    }
}
