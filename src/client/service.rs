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

/// Client that gives each identity its own connections, its own TLS sessions and its own way out.
///
/// See the [module](super) for what goes where and what is an error.
///
/// # Clone
///
/// Clones share everything and cost one reference count.
pub struct IdentityClient<B> {
    shared: Arc<Shared<B>>,
}

pub(super) struct Shared<B> {
    pub(super) cache: Arc<ClientCache<B>>,
    pub(super) allow_direct: bool,
    pub(super) allow_anonymous: bool,
}

impl IdentityClient<()> {
    /// Starts with the defaults.
    pub fn builder() -> IdentityClientBuilder {
        IdentityClientBuilder::default()
    }
}

impl<B> IdentityClient<B>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    pub(super) fn from_shared(shared: Shared<B>) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// How many connections are open or being opened, of all identities.
    pub fn connections(&self) -> usize {
        self.shared.cache.totals.open()
    }

    /// How many identities have a client of their own at this moment.
    pub fn identities(&self) -> usize {
        self.shared.cache.len()
    }

    /// By which way the request goes out.
    fn proxy(&self, request: &Request<B>, identity: Option<&Identity>) -> Result<Proxy, ClientError> {
        let extensions = request.extensions();
        let worn = || identity.and_then(Identity::profile).and_then(Profile::proxy);
        match extensions.get::<Proxy>().or_else(worn) {
            Some(proxy) => Ok(proxy.clone()),
            None if self.shared.allow_direct => Ok(Proxy::direct()),
            None => Err(ClientError::new(ClientErrorKind::NoProxy)),
        }
    }

    fn send(&self, mut request: Request<B>) -> Result<ResponseFuture, ClientError>
    where
        B: Unpin,
        B::Error: Into<BoxError>,
    {
        let identity = Identity::of(request.extensions());
        if identity.is_none() && !self.shared.allow_anonymous {
            return Err(ClientError::new(ClientErrorKind::NoIdentity));
        }
        let proxy = self.proxy(&request, identity.as_ref())?;
        check_uri(&request)?;
        // By ALPN the connection decides, not the caller.
        if request.version() != Version::HTTP_10 {
            *request.version_mut() = Version::HTTP_11;
        }
        // For the proxy alone: what comes from above would reach the origin, or be another identity's.
        request.headers_mut().remove(header::PROXY_AUTHORIZATION);
        let found = self.shared.cache.client(identity.as_ref(), &proxy)?;
        let proxy = &found.egress.proxy;
        let forwarding = connector::forwarding(proxy, request.uri());
        let forwarded = forwarding.is_some().then(|| capture_connection(&mut request));
        if let Some(credentials) = forwarding.and_then(ProxyServer::credentials) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credentials.to_basic_auth());
        }
        Ok(ResponseFuture::new(found.client.request(request), proxy.clone(), forwarded))
    }
}

/// Refuses what cannot be sent, and a user name in the URI, which a proxy or a log would see.
fn check_uri<B>(request: &Request<B>) -> Result<(), ClientError> {
    let uri = request.uri();
    let detail = match uri.scheme() {
        None => "it is not absolute",
        Some(scheme) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => {
            "its scheme is not http or https"
        }
        Some(_) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            "it has a user name; put it into the Authorization header"
        }
        Some(_) if uri.host().is_none_or(str::is_empty) => "it has no host",
        Some(_) if request.method() == http::Method::CONNECT => {
            "CONNECT is for proxies, which the client asks by itself"
        }
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

    /// Always ready: whose connection a request needs is not known before the call.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.send(request).unwrap_or_else(ResponseFuture::refused)
    }
}

impl<B> Clone for IdentityClient<B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<B> fmt::Debug for IdentityClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.shared.cache.totals.open();
        f.debug_struct("IdentityClient").field("connections", &open).finish_non_exhaustive()
    }
}
