use std::{fmt, sync::Arc, time::Duration};

use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};

use super::{
    cache::{ClientCache, Label, Limits},
    connector::Settings,
    error::{ClientError, ClientErrorKind},
    service::{IdentityClient, Shared},
};
use crate::session::Identity;

/// Sets up an [`IdentityClient`].
#[derive(Clone)]
#[must_use = "nothing is made before `build`"]
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
    label: Option<Label>,
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
            label: None,
        }
    }
}

impl IdentityClientBuilder {
    /// Sets how many connections are kept, of all identities. Default: 1024.
    ///
    /// When one more is opened, the identities that were used longest ago lose theirs: idle ones close at once, those in use when
    /// their response is through. No request waits for that or fails, so more are open while more are in use; a
    /// `ConcurrencyLimit` above the client bounds these.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many identities keep their TLS sessions and connections. Default: 65,536.
    pub fn max_identities(mut self, identities: usize) -> Self {
        self.max_identities = identities;
        self
    }

    /// Sets how long a connection may be idle before it closes. Default: 90 seconds.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how many idle connections an identity keeps to one host. Default: 32.
    pub fn max_idle_per_host(mut self, connections: usize) -> Self {
        self.max_idle_per_host = connections;
        self
    }

    /// Sets how long each step of connecting may take: reaching the proxy or the origin, the proxy's opening of the tunnel, and
    /// the TLS handshake with the origin. Default: 15 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Speaks HTTP/1.1 alone. By default an `https` origin may choose HTTP/2.
    pub fn http1_only(mut self) -> Self {
        self.http2 = false;
        self
    }

    /// Sets the TLS configuration. Default: TLS 1.3 and 1.2 by *ring*, and Mozilla's root certificates.
    ///
    /// Its ALPN protocols and its store of sessions are not used: each identity has its own. What else the configuration
    /// shares with the world, a client certificate above all, all identities show.
    pub fn tls_config(mut self, config: ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Trusts the root certificates of the platform in the place of Mozilla's: those of Debian's `ca-certificates`, of macOS's
    /// keychain, of Windows's store, or of the file that the environment variable `SSL_CERT_FILE` names. They are read once, by
    /// [`build`](Self::build). Cannot be had together with [`tls_config`](Self::tls_config).
    pub fn native_roots(mut self) -> Self {
        self.native_roots = true;
        self
    }

    /// Trusts these certificates besides Mozilla's, or the platform's. Cannot be had together with
    /// [`tls_config`](Self::tls_config).
    pub fn add_root_certificates(mut self, roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        self.roots.extend(roots);
        self
    }

    /// Sets for how many servers an identity remembers TLS sessions; none for 0. Default: 4.
    pub fn tls_session_cache_size(mut self, servers: usize) -> Self {
        self.tls_session_cache_size = servers;
        self
    }

    /// Sends a request directly if neither it nor its profile says by which way it goes. By default that is an error.
    ///
    /// Where a proxy is named, it is used or the request fails, whatever is set here.
    pub fn allow_direct(mut self) -> Self {
        self.allow_direct = true;
        self
    }

    /// Takes requests without an identity, too; those with one [`Proxy`](crate::profile::Proxy) share connections. By default
    /// they are an error.
    pub fn allow_anonymous(mut self) -> Self {
        self.allow_anonymous = true;
        self
    }

    /// Sets how the user name for a proxy is made out of the profile's and the identity. Default: the profile's as it is.
    ///
    /// Many providers of proxies read from it which of their addresses a client is to keep. It is asked for once for each
    /// identity, and only where the profile has credentials; a name that the proxy's protocol cannot carry is an error of
    /// every request.
    ///
    /// ```
    /// # use tower_client_sessions::IdentityClient;
    /// let builder = IdentityClient::builder().proxy_username(|username, identity| {
    ///     format!("{username}-session-{}x{}", identity.session_id(), identity.generation())
    /// });
    /// # drop(builder);
    /// ```
    pub fn proxy_username<F>(mut self, label: F) -> Self
    where
        F: Fn(&str, &Identity) -> String + Send + Sync + 'static,
    {
        self.label = Some(Arc::new(label));
        self
    }

    /// Makes the client.
    ///
    /// # Errors
    ///
    /// If an extra root is not a certificate, if the platform has no roots or they cannot be read, or if roots come together
    /// with a TLS configuration.
    pub fn build<B>(self) -> Result<IdentityClient<B>, ClientError>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
    {
        let config = || ClientError::new(ClientErrorKind::Config);
        let tls = match self.tls {
            Some(_) if self.native_roots || !self.roots.is_empty() => {
                return Err(config().saying("roots belong into the TLS configuration that was given"));
            }
            Some(tls) => tls,
            None => {
                let mut roots = match self.native_roots {
                    true => native_roots()?,
                    false => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
                };
                for root in self.roots {
                    roots.add(root).map_err(|error| config().saying("an extra root").caused_by(error))?;
                }
                ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .map_err(|error| config().saying("TLS").caused_by(error))?
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
        Ok(IdentityClient::from_shared(Shared {
            cache: ClientCache::new(settings, limits, self.label),
            allow_direct: self.allow_direct,
            allow_anonymous: self.allow_anonymous,
        }))
    }
}

/// The platform's roots. Stores have certificates that nobody can read: these are passed by, as others do, and told to traces.
fn native_roots() -> Result<RootCertStore, ClientError> {
    let error = || ClientError::new(ClientErrorKind::Config).saying("the platform's root certificates");
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (_, unreadable) = roots.add_parsable_certificates(found.certs);
    if unreadable > 0 || !found.errors.is_empty() {
        let errors = found.errors.len();
        tracing::debug!(unreadable, errors, "some of the platform's root certificates cannot be used");
    }
    match found.errors.into_iter().next() {
        _ if !roots.is_empty() => Ok(roots),
        Some(cause) => Err(error().caused_by(cause)),
        None => Err(error().caused_by("there are none")),
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
