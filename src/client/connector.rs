//! The connector of one identity: to the origin, by the identity's way and no other.

use std::{
    error::Error,
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
    cache::EvictIdle,
    connection_count::{ConnectionCount, OpenGuard},
    error::{ClientError, ClientErrorKind},
    handshake,
};
use crate::{
    gate::BoxError,
    profile::{Credentials, Proxy, ProxyScheme, ProxyServer},
};

/// What all identities of a client have in common.
pub(super) struct Settings {
    pub(super) tcp: HttpConnector,
    /// Never used as it is: each identity has a copy with a session cache of its own.
    pub(super) tls: ClientConfig,
    pub(super) tls_session_cache_size: usize,
    pub(super) http2: bool,
    pub(super) connect_timeout: Duration,
}

/// One identity's way out.
pub(super) struct Egress {
    pub(super) settings: Arc<Settings>,
    pub(super) proxy: Proxy,
    pub(super) local_address: Option<IpAddr>,
    /// Made with the first connection that wants it. By its session cache a server can tell that two connections are one
    /// client's, so nobody else has it.
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

    /// Opens the way: up to the origin, or to a proxy that takes `http` requests as they are.
    async fn open_tunnel(&self, origin: &Uri) -> Result<Tunnel, ClientError> {
        let Some(server) = self.proxy.server() else {
            let stream = self.connect_hop(tcp_uri(origin)?, ClientErrorKind::OriginUnreachable).await?;
            return Ok(Tunnel { stream, forwards: false });
        };
        let stream = self.connect_hop(proxy_uri(server)?, ClientErrorKind::ProxyUnreachable).await?;
        let http = matches!(server.scheme(), ProxyScheme::Http | ProxyScheme::Https);
        if http && origin.scheme() == Some(&Scheme::HTTP) {
            return Ok(Tunnel { stream, forwards: true });
        }
        let host = origin.host().ok_or_else(|| ClientError::new(ClientErrorKind::BadUri))?;
        let (port, credentials) = (port(origin), server.credentials());
        let mut stream = TokioIo::new(stream);
        let asked = async {
            if http {
                let authorization = credentials.map(Credentials::to_basic_auth);
                handshake::connect(&mut stream, host, port, authorization.as_ref()).await
            } else {
                handshake::socks5(&mut stream, host, port, credentials).await
            }
        };
        match timeout(self.settings.connect_timeout, asked).await {
            Ok(asked) => asked?,
            Err(late) => {
                let error = ClientError::new(ClientErrorKind::ProxyRefused).caused_by(late);
                return Err(error.saying("it did not open the tunnel in time"));
            }
        }
        Ok(Tunnel { stream: stream.into_inner(), forwards: false })
    }

    /// Connects to the next host, by TLS if it is an `https` proxy.
    async fn connect_hop(&self, to: Uri, unreachable: ClientErrorKind) -> Result<Hop, ClientError> {
        let mut tcp = self.settings.tcp.clone();
        tcp.set_local_address(self.local_address);
        let connecting = if to.scheme() == Some(&Scheme::HTTPS) {
            // HTTP/2 is not spoken with proxies.
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
            // A failed handshake is the one thing that comes as an `io::Error` here.
            Ok(Err(error)) if error.is::<io::Error>() => {
                Err(ClientError::new(ClientErrorKind::ProxyTls).caused_by(error))
            }
            Ok(Err(error)) => Err(ClientError::new(unreachable).caused_by(error)),
            Err(late) => Err(ClientError::new(unreachable).caused_by(late)),
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
                .map_err(|late| failed(late.into()))?
                .map_err(failed)?
        } else {
            MaybeHttpsStream::Http(tunnel)
        };
        Ok(EgressStream { stream, forwards, _guard: guard })
    }
}

/// The service that hands out a way which is open already.
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

/// Where TCP goes without a proxy.
fn tcp_uri(origin: &Uri) -> Result<Uri, ClientError> {
    let host = origin.host().unwrap_or_default();
    uri("http", host, port(origin))
}

/// The proxy, with its port: hyper takes every URI without one for port 443 or 80.
fn proxy_uri(server: &ProxyServer) -> Result<Uri, ClientError> {
    let scheme = if server.scheme() == ProxyScheme::Https { "https" } else { "http" };
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

/// The connector that one identity's client has.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) egress: Arc<Egress>,
    pub(super) count: Arc<ConnectionCount>,
    /// Where room is made for a connection; gone with the last handle to the client.
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

/// The bytes to the next host: TCP, or TLS to a proxy.
type Hop = MaybeHttpsStream<TokioIo<TcpStream>>;

/// The bytes to the origin, or to a proxy that forwards.
pub(super) struct Tunnel {
    stream: Hop,
    forwards: bool,
}

/// A connection as hyper sees it.
pub(super) struct EgressStream {
    stream: MaybeHttpsStream<Tunnel>,
    forwards: bool,
    _guard: OpenGuard,
}

impl Connection for Tunnel {
    fn connected(&self) -> Connected {
        match &self.stream {
            MaybeHttpsStream::Http(stream) => stream.connected(),
            // What a proxy agreed to speak with us is not what the origin speaks.
            MaybeHttpsStream::Https(_) => Connected::new(),
        }
    }
}

impl Connection for EgressStream {
    fn connected(&self) -> Connected {
        // Only a request that a proxy forwards is written in the absolute form.
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

/// The [`ClientError`] in the chain of a hyper error, if the connector made one.
pub(super) fn connector_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ClientError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The proxy server, if it forwards requests for `origin` instead of tunnelling them.
pub(super) fn forwarding<'a>(proxy: &'a Proxy, origin: &Uri) -> Option<&'a ProxyServer> {
    let server = proxy.server()?;
    let http = matches!(server.scheme(), ProxyScheme::Http | ProxyScheme::Https);
    (http && origin.scheme() == Some(&Scheme::HTTP)).then_some(server)
}
