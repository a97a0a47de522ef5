//! `IdentityClientBuilder`: the settings of an `IdentityClient`.

use std::{fmt, sync::Arc, time::Duration};

use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};

use super::{
    cache::{ClientCache, Limits, ProxyUsername},
    connector::Settings,
    error::{ClientError, ClientErrorKind},
    service::{IdentityClient, Inner},
};
use crate::session::Identity;

/// Builder for an [`IdentityClient`], created by [`IdentityClient::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct IdentityClientBuilder {
    max_connections: usize,
    max_identities: usize,
    idle_timeout: Duration,
    max_idle_per_host: usize,
    connect_timeout: Duration,
    http2: bool,
    tls: Option<ClientConfig>,
    native_roots: bool,
    roots: Vec<CertificateDer<'static>>,
    tls_session_cache_size: usize,
    allow_direct: bool,
    allow_anonymous: bool,
    proxy_username: Option<ProxyUsername>,
}

impl Default for IdentityClientBuilder {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_identities: 65_536,
            idle_timeout: Duration::from_secs(90),
            max_idle_per_host: 32,
            connect_timeout: Duration::from_secs(15),
            http2: true,
            tls: None,
            native_roots: false,
            roots: Vec::new(),
            tls_session_cache_size: 4,
            allow_direct: false,
            allow_anonymous: false,
            proxy_username: None,
        }
    }
}

impl IdentityClientBuilder {
    /// Sets how many connections are kept open for all identities together. Default: 1024.
    ///
    /// When the limit is exceeded, the least recently used identities lose their connections. Idle
    /// connections close immediately, and connections in use after their response. No request waits
    /// or fails because of this limit, so more connections are open while more are in use. To limit
    /// those, put a `ConcurrencyLimit` above the client.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many identities keep their connections and TLS sessions. Default: 65,536.
    pub fn max_identities(mut self, identities: usize) -> Self {
        self.max_identities = identities;
        self
    }

    /// Sets how long a connection stays open without a request. Default: 90 seconds.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how many idle connections to one host an identity keeps. Default: 32.
    pub fn max_idle_per_host(mut self, connections: usize) -> Self {
        self.max_idle_per_host = connections;
        self
    }

    /// Sets the timeout of each step of connecting. Default: 15 seconds.
    ///
    /// The steps are the connection to the proxy or the origin, the handshake that opens a tunnel,
    /// and the TLS handshake with the origin.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Uses HTTP/1.1 only. By default, an `https` origin may choose HTTP/2.
    pub fn http1_only(mut self) -> Self {
        self.http2 = false;
        self
    }

    /// Sets the TLS configuration. Default: TLS 1.3 and 1.2 with *ring*, and Mozilla's root
    /// certificates.
    ///
    /// Each identity uses its own ALPN protocols and TLS session cache in place of those of
    /// `config`. All other settings, such as a client certificate, are shared by all identities and
    /// can link them.
    pub fn tls_config(mut self, config: ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Trusts the root certificates of the operating system instead of Mozilla's.
    ///
    /// [`build`](Self::build) reads them once, for example from Debian's `ca-certificates`, the
    /// macOS keychain, the Windows certificate store, or the file in the environment variable
    /// `SSL_CERT_FILE`. This setting and [`tls_config`](Self::tls_config) are mutually exclusive.
    pub fn native_roots(mut self) -> Self {
        self.native_roots = true;
        self
    }

    /// Trusts these root certificates in addition to Mozilla's, or to those of the operating
    /// system.
    ///
    /// This setting and [`tls_config`](Self::tls_config) are mutually exclusive.
    pub fn add_root_certificates(mut self, roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        self.roots.extend(roots);
        self
    }

    /// Sets for how many servers an identity keeps TLS sessions; 0 turns resumption off.
    /// Default: 4.
    pub fn tls_session_cache_size(mut self, servers: usize) -> Self {
        self.tls_session_cache_size = servers;
        self
    }

    /// Connects directly if neither the request nor its profile has a proxy. By default, such a
    /// request fails.
    ///
    /// A request with a proxy never connects directly.
    pub fn allow_direct(mut self) -> Self {
        self.allow_direct = true;
        self
    }

    /// Accepts requests without an identity. By default, such a request fails.
    ///
    /// Requests without an identity share connections if they have the same
    /// [`Proxy`](crate::profile::Proxy).
    pub fn allow_anonymous(mut self) -> Self {
        self.allow_anonymous = true;
        self
    }

    /// Sets a closure that makes the user name for a proxy from the user name of the profile and
    /// the identity. Default: the user name of the profile.
    ///
    /// Many proxy providers select the outgoing address by the user name. The client calls the
    /// closure once per identity, and only for a proxy with credentials. Every request of the
    /// identity fails if the proxy protocol does not allow the user name.
    ///
    /// # Examples
    ///
    /// ```
    /// # use tower_client_sessions::IdentityClient;
    /// let builder = IdentityClient::builder().proxy_username(|username, identity| {
    ///     format!("{username}-session-{}x{}", identity.session_id(), identity.generation())
    /// });
    /// # drop(builder);
    /// ```
    pub fn proxy_username<F>(mut self, username: F) -> Self
    where
        F: Fn(&str, &Identity) -> String + Send + Sync + 'static,
    {
        self.proxy_username = Some(Arc::new(username));
        self
    }

    /// Creates the client.
    ///
    /// # Errors
    ///
    /// Returns an error if an added root is not a valid certificate, if the operating system has no
    /// readable root certificates, or if root certificates are combined with a TLS configuration.
    pub fn build<B>(self) -> Result<IdentityClient<B>, ClientError>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
    {
        let config = || ClientError::new(ClientErrorKind::Config);
        let tls = match self.tls {
            Some(_) if self.native_roots || !self.roots.is_empty() => {
                return Err(config().saying("tls_config excludes native_roots and add_root_certificates; add the roots to the configuration"));
            }
            Some(tls) => tls,
            None => {
                let mut roots = match self.native_roots {
                    true => native_roots()?,
                    false => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
                };
                for root in self.roots {
                    roots.add(root).map_err(|error| {
                        config().saying("an added root certificate is invalid").caused_by(error)
                    })?;
                }
                ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .map_err(|error| config().saying("the TLS versions are not supported").caused_by(error))?
                    .with_root_certificates(roots)
                    .with_no_client_auth()
            }
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let settings = Settings {
            tcp,
            tls,
            tls_session_cache_size: self.tls_session_cache_size,
            http2: self.http2,
            connect_timeout: self.connect_timeout,
        };
        let limits = Limits {
            connections: self.max_connections,
            identities: self.max_identities,
            idle_timeout: self.idle_timeout,
            idle_per_host: self.max_idle_per_host,
        };
        Ok(IdentityClient::new(Inner {
            cache: ClientCache::new(settings, limits, self.proxy_username),
            allow_direct: self.allow_direct,
            allow_anonymous: self.allow_anonymous,
        }))
    }
}

/// Reads the root certificates of the operating system. Certificates that cannot be parsed are
/// skipped and traced, as other clients do.
fn native_roots() -> Result<RootCertStore, ClientError> {
    let error = || {
        ClientError::new(ClientErrorKind::Config)
            .saying("the root certificates of the operating system cannot be used")
    };
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (_, unreadable) = roots.add_parsable_certificates(found.certs);
    if unreadable > 0 || !found.errors.is_empty() {
        let errors = found.errors.len();
        tracing::debug!(unreadable, errors, "skipped root certificates of the operating system");
    }
    match found.errors.into_iter().next() {
        _ if !roots.is_empty() => Ok(roots),
        Some(cause) => Err(error().caused_by(cause)),
        None => Err(error().caused_by("there are no certificates")),
    }
}

impl fmt::Debug for IdentityClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityClientBuilder")
            .field("max_connections", &self.max_connections)
            .field("max_identities", &self.max_identities)
            .field("idle_timeout", &self.idle_timeout)
            .field("allow_direct", &self.allow_direct)
            .finish_non_exhaustive()
    }
}
