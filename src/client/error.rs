//! Why a request could not be answered, and at which hop.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use http::StatusCode;

use crate::{gate::BoxError, profile::Proxy};

/// Why the client has no response from the origin.
///
/// It names the hop that failed. A proxy appears in it without its credentials; headers, cookies and bodies do not appear.
#[derive(Clone, Debug)]
pub struct ClientError {
    kind: ClientErrorKind,
    proxy: Option<Proxy>,
    status: Option<StatusCode>,
    detail: Option<Cow<'static, str>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What a [`ClientError`] is about: the hop that failed, or what the request lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// The client's settings cannot be used.
    Config,
    /// The request has no identity. Nothing was sent.
    NoIdentity,
    /// Neither the request nor its identity's profile says by which way it goes out, not even *direct*. Nothing was sent.
    NoProxy,
    /// The request's URI is not an absolute http or https one. Nothing was sent.
    BadUri,
    /// No connection to the proxy: its name does not resolve, or nobody answers there.
    ProxyUnreachable,
    /// The TLS handshake with the proxy failed.
    ProxyTls,
    /// The proxy refused the credentials, or wants some.
    ProxyCredentials,
    /// The proxy refused to pass the request or the tunnel on, or did not speak its protocol.
    ProxyRefused,
    /// No connection to the origin: without a proxy, or as the proxy says.
    OriginUnreachable,
    /// The TLS handshake with the origin failed, its certificate included.
    OriginTls,
    /// The connection was there, and the exchange over it broke before the response's head had come.
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

    /// What the error is about.
    pub fn kind(&self) -> ClientErrorKind {
        self.kind
    }

    /// The proxy that the request went through or was to go through.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The status that the proxy, not the origin, has answered with.
    pub fn proxy_status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Whether the proxy is at fault, or its credentials, so that another profile may do better.
    pub fn is_proxy_error(&self) -> bool {
        use ClientErrorKind::*;
        matches!(self.kind, ProxyUnreachable | ProxyTls | ProxyCredentials | ProxyRefused)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ClientErrorKind::Config => "the client's settings cannot be used",
            ClientErrorKind::NoIdentity => {
                "the request has no identity; put a session layer above the client, or build it with `allow_anonymous`"
            }
            ClientErrorKind::NoProxy => {
                "nothing says by which way the request goes out; give its profile a proxy or say direct, or build the client \
                 with `allow_direct`"
            }
            ClientErrorKind::BadUri => "the request cannot be sent to its URI",
            ClientErrorKind::ProxyUnreachable => "the proxy cannot be reached",
            ClientErrorKind::ProxyTls => "the TLS handshake with the proxy failed",
            ClientErrorKind::ProxyCredentials => "the proxy refused the credentials",
            ClientErrorKind::ProxyRefused => "the proxy refused the request",
            ClientErrorKind::OriginUnreachable => "the origin cannot be reached",
            ClientErrorKind::OriginTls => "the TLS handshake with the origin failed",
            ClientErrorKind::Transport => "the exchange broke off before the response came",
        })?;
        if let Some(proxy) = &self.proxy {
            write!(f, " (by way of {proxy})")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(status) = self.status {
            write!(f, ": the proxy answered with {}", status.as_u16())?;
        }
        Ok(())
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
