//! `Connector`: connects one identity to origins, directly or through its proxy.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, OnceLock, Weak},
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use rustls::{ClientConfig, client::Resumption};
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;

use super::{
    connection_count::{ConnectionCount, EvictIdle, OpenGuard},
    error::{ClientError, ClientErrorKind},
    handshake,
};
use crate::{
    gate::BoxError,
    profile::{Credentials, Proxy, ProxyScheme, ProxyServer},
};

/// The settings of a client, shared by all identities.
pub(super) struct Settings {
    pub(super) tcp: HttpConnector,
    /// A template: each identity uses a copy with its own session cache.
    pub(super) tls: ClientConfig,
    pub(super) tls_session_cache_size: usize,
    pub(super) http2: bool,
    pub(super) connect_timeout: Duration,
}

/// How the connections of one identity reach their origins.
pub(super) struct Egress {
    pub(super) settings: Arc<Settings>,
    pub(super) proxy: Proxy,
    pub(super) local_address: Option<IpAddr>,
    /// Created for the first TLS connection. Its session cache links connections to one client, so
    /// identities never share it.
    origin_tls: OnceLock<Arc<ClientConfig>>,
    proxy_tls: OnceLock<Arc<ClientConfig>>,
}

impl Egress {
    pub(super) fn new(settings: Arc<Settings>, proxy: Proxy, local_address: Option<IpAddr>) -> Self {
        Self { settings, proxy, local_address, origin_tls: OnceLock::new(), proxy_tls: OnceLock::new() }
    }

    fn tls(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = self.settings.tls.clone();
        config.resumption = match self.settings.tls_session_cache_size {
            0 => Resumption::disabled(),
            sessions => Resumption::in_memory_sessions(sessions),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    fn origin_tls(&self) -> Arc<ClientConfig> {
        let alpn: &[&[u8]] = if self.settings.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        self.origin_tls.get_or_init(|| self.tls(alpn)).clone()
    }

    /// Opens the connection up to the origin, or up to a proxy that forwards requests.
    async fn open_tunnel(&self, origin: &Uri) -> Result<Tunnel, ClientError> {
        let Some(server) = self.proxy.server() else {
            let stream = self.connect_hop(tcp_uri(origin)?, ClientErrorKind::OriginUnreachable).await?;
            return Ok(Tunnel { stream, forwards: false });
        };
        let stream = self.connect_hop(proxy_uri(server)?, ClientErrorKind::ProxyUnreachable).await?;
        let method = ProxyMethod::new(server.scheme(), origin);
        let host = origin.host().ok_or_else(|| ClientError::new(ClientErrorKind::BadUri))?;
        let (port, credentials) = (port(origin), server.credentials());
        let mut stream = TokioIo::new(stream);
        let handshake = async {
            match method {
                ProxyMethod::Forward => Ok(()),
                ProxyMethod::Connect => {
                    let authorization = credentials.map(Credentials::to_basic_auth);
                    handshake::connect(&mut stream, host, port, authorization.as_ref()).await
                }
                ProxyMethod::Socks5 => handshake::socks5(&mut stream, host, port, credentials).await,
            }
        };
        match timeout(self.settings.connect_timeout, handshake).await {
            Ok(result) => result?,
            Err(elapsed) => {
                let error = ClientError::new(ClientErrorKind::ProxyRefused).caused_by(elapsed);
                return Err(error.saying("the handshake timed out"));
            }
        }
        Ok(Tunnel { stream: stream.into_inner(), forwards: method == ProxyMethod::Forward })
    }

    /// Connects to the next host, with TLS if it is an `https` proxy.
    async fn connect_hop(&self, to: Uri, unreachable: ClientErrorKind) -> Result<Hop, ClientError> {
        let mut tcp = self.settings.tcp.clone();
        tcp.set_local_address(self.local_address);
        let connecting = if to.scheme() == Some(&Scheme::HTTPS) {
            // Proxies are used with HTTP/1.1 only.
            let tls = self.proxy_tls.get_or_init(|| self.tls(&[b"http/1.1"])).clone();
            HttpsConnector::from((tcp, tls)).call(to)
        } else {
            Box::pin(async move {
                let stream = tcp.call(to).await;
                stream.map(MaybeHttpsStream::Http).map_err(BoxError::from)
            })
        };
        match timeout(self.settings.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            // Only a failed TLS handshake is an `io::Error` here.
            Ok(Err(error)) if error.is::<io::Error>() => {
                Err(ClientError::new(ClientErrorKind::ProxyTls).caused_by(error))
            }
            Ok(Err(error)) => Err(ClientError::new(unreachable).caused_by(error)),
            Err(elapsed) => Err(ClientError::new(unreachable).caused_by(elapsed)),
        }
    }

    async fn connect(self: Arc<Self>, origin: Uri, guard: OpenGuard) -> Result<EgressStream, ClientError> {
        let tunnel = self.open_tunnel(&origin).await?;
        let forwards = tunnel.forwards;
        let stream = if origin.scheme() == Some(&Scheme::HTTPS) {
            let handshake = HttpsConnector::from((Established(Some(tunnel)), self.origin_tls())).call(origin);
            let failed = |error: BoxError| ClientError::new(ClientErrorKind::OriginTls).caused_by(error);
            timeout(self.settings.connect_timeout, handshake)
                .await
                .map_err(|elapsed| failed(elapsed.into()))?
                .map_err(failed)?
        } else {
            MaybeHttpsStream::Http(tunnel)
        };
        Ok(EgressStream { stream, forwards, _guard: guard })
    }
}

/// A connector that returns a tunnel which is already open.
struct Established(Option<Tunnel>);

impl Service<Uri> for Established {
    type Response = Tunnel;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Tunnel>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _origin: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// Target of a TCP connection without a proxy.
fn tcp_uri(origin: &Uri) -> Result<Uri, ClientError> {
    let host = origin.host().unwrap_or_default();
    uri("http", host, port(origin))
}

/// Target of a connection to a proxy, always with a port: hyper assumes 443 or 80 for a URI without
/// one.
fn proxy_uri(server: &ProxyServer) -> Result<Uri, ClientError> {
    // The scheme says only whether the connection to the proxy itself uses TLS.
    let scheme = match server.scheme() {
        ProxyScheme::Https => "https",
        ProxyScheme::Http | ProxyScheme::Socks5 => "http",
    };
    match server.host() {
        host if host.contains(':') => uri(scheme, &format!("[{host}]"), server.port()),
        host => uri(scheme, host, server.port()),
    }
}

fn uri(scheme: &str, host: &str, port: u16) -> Result<Uri, ClientError> {
    let authority = format!("{host}:{port}");
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
    uri.map_err(|error| ClientError::new(ClientErrorKind::BadUri).caused_by(error))
}

fn port(origin: &Uri) -> u16 {
    let default = if origin.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    origin.port_u16().unwrap_or(default)
}

/// The connector of one identity's client.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) egress: Arc<Egress>,
    pub(super) count: Arc<ConnectionCount>,
    /// The cache that evicts other identities. It is dropped with the last clone of the client.
    pub(super) evictor: Weak<dyn EvictIdle>,
}

impl Service<Uri> for Connector {
    type Response = EgressStream;
    type Error = ClientError;
    type Future = Pin<Box<dyn Future<Output = Result<EgressStream, ClientError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, origin: Uri) -> Self::Future {
        let guard = self.count.open();
        if let Some(evictor) = self.evictor.upgrade() {
            evictor.evict_idle(&self.count);
        }
        let egress = self.egress.clone();
        Box::pin(async move {
            let connected = egress.clone().connect(origin, guard).await;
            connected.map_err(|error| error.at(&egress.proxy))
        })
    }
}

/// A connection to the next host: TCP, or TLS to a proxy.
type Hop = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A connection to the origin, or to a proxy that forwards requests.
pub(super) struct Tunnel {
    stream: Hop,
    forwards: bool,
}

/// A connection as hyper uses it, with TLS to an `https` origin.
pub(super) struct EgressStream {
    stream: MaybeHttpsStream<Tunnel>,
    forwards: bool,
    _guard: OpenGuard,
}

impl Connection for Tunnel {
    fn connected(&self) -> Connected {
        match &self.stream {
            MaybeHttpsStream::Http(stream) => stream.connected(),
            // The protocol that the proxy negotiated is not the protocol of the origin.
            MaybeHttpsStream::Https(_) => Connected::new(),
        }
    }
}

impl Connection for EgressStream {
    fn connected(&self) -> Connected {
        // hyper writes the absolute form of the URI only for forwarded requests.
        self.stream.connected().proxy(self.forwards)
    }
}

macro_rules! pass_bytes {
    ($name:ident) => {
        impl Read for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_read(context, buffer)
            }
        }

        impl Write for $name {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.stream).poll_write(context, bytes)
            }

            fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_flush(context)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_shutdown(context)
            }

            fn is_write_vectored(&self) -> bool {
                self.stream.is_write_vectored()
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.stream).poll_write_vectored(context, slices)
            }
        }
    };
}

pass_bytes!(Tunnel);
pass_bytes!(EgressStream);

/// How a proxy is used to reach an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProxyMethod {
    /// The proxy forwards each request.
    Forward,
    /// A tunnel by `CONNECT`.
    Connect,
    /// A tunnel by SOCKS5.
    Socks5,
}

impl ProxyMethod {
    /// Matches all schemes, so that the compiler reports a new one.
    fn new(scheme: ProxyScheme, origin: &Uri) -> Self {
        match scheme {
            ProxyScheme::Http | ProxyScheme::Https if origin.scheme() == Some(&Scheme::HTTP) => Self::Forward,
            ProxyScheme::Http | ProxyScheme::Https => Self::Connect,
            ProxyScheme::Socks5 => Self::Socks5,
        }
    }
}

/// Returns the proxy server if it forwards requests to `origin` instead of opening a tunnel.
pub(super) fn forwarding<'a>(proxy: &'a Proxy, origin: &Uri) -> Option<&'a ProxyServer> {
    let server = proxy.server()?;
    (ProxyMethod::new(server.scheme(), origin) == ProxyMethod::Forward).then_some(server)
}
