//! `ClientError`: why there is no response from the origin, and which hop failed.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use http::StatusCode;

use crate::{gate::BoxError, profile::Proxy};

/// Error of an [`IdentityClient`](super::IdentityClient) that has no response from the origin.
///
/// The kind names the hop that failed. The error contains the proxy without its credentials, and no
/// headers, cookies or bodies.
#[derive(Clone, Debug)]
pub struct ClientError {
    kind: ClientErrorKind,
    proxy: Option<Proxy>,
    status: Option<StatusCode>,
    detail: Option<Cow<'static, str>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Kind of a [`ClientError`]: the hop that failed, or what the request lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// A setting of the client is invalid.
    Config,
    /// The request has no identity. Nothing was sent.
    NoIdentity,
    /// Neither the request nor the profile of its identity has a proxy, not even *direct*. Nothing
    /// was sent.
    NoProxy,
    /// The URI of the request is not an absolute `http` or `https` URI. Nothing was sent.
    BadUri,
    /// The client cannot connect to the proxy: its name does not resolve, or it does not accept the
    /// connection.
    ProxyUnreachable,
    /// The TLS handshake with the proxy failed.
    ProxyTls,
    /// The proxy rejected the credentials, or requires some.
    ProxyCredentials,
    /// The proxy rejected the request or the tunnel, or violated its protocol.
    ProxyRefused,
    /// The client cannot connect to the origin, or the proxy reports that it cannot.
    OriginUnreachable,
    /// The TLS handshake with the origin failed, for example because its certificate is not
    /// trusted.
    OriginTls,
    /// The connection failed before the head of the response was received.
    Transport,
}

impl ClientError {
    pub(super) fn new(kind: ClientErrorKind) -> Self {
        Self { kind, proxy: None, status: None, detail: None, source: None }
    }

    pub(super) fn at(mut self, proxy: &Proxy) -> Self {
        self.proxy = proxy.server().map(|_| proxy.clone());
        self
    }

    pub(super) fn with_status(mut self, status: Option<StatusCode>) -> Self {
        self.status = status;
        self
    }

    pub(super) fn saying(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// Kind of the error.
    pub fn kind(&self) -> ClientErrorKind {
        self.kind
    }

    /// Proxy of the request.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// Status that the proxy sent, not the origin.
    pub fn proxy_status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Returns whether the proxy or its credentials caused the error, so that another profile may
    /// work.
    pub fn is_proxy_error(&self) -> bool {
        use ClientErrorKind::*;
        matches!(self.kind, ProxyUnreachable | ProxyTls | ProxyCredentials | ProxyRefused)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ClientErrorKind::Config => "invalid client settings",
            ClientErrorKind::NoIdentity => {
                "the request has no identity; put a `SessionLayer` above the client, or build the client with `allow_anonymous`"
            }
            ClientErrorKind::NoProxy => {
                "neither the request nor its profile has a proxy; set a proxy or `Proxy::direct` in the profile, or build \
                 the client with `allow_direct`"
            }
            ClientErrorKind::BadUri => "the request URI is not supported",
            ClientErrorKind::ProxyUnreachable => "the proxy cannot be reached",
            ClientErrorKind::ProxyTls => "the TLS handshake with the proxy failed",
            ClientErrorKind::ProxyCredentials => "the proxy rejected the credentials",
            ClientErrorKind::ProxyRefused => "the proxy rejected the request",
            ClientErrorKind::OriginUnreachable => "the origin cannot be reached",
            ClientErrorKind::OriginTls => "the TLS handshake with the origin failed",
            ClientErrorKind::Transport => "the connection closed before the response was received",
        })?;
        if let Some(proxy) = &self.proxy {
            write!(f, " (via {proxy})")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(status) = self.status {
            write!(f, ": the proxy sent status {}", status.as_u16())?;
        }
        Ok(())
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
