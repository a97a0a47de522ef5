//! Origins and proxies for the tests of the client, and the stack on it.

use std::{
    collections::HashSet,
    convert::Infallible,
    error::Error,
    future::Future,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        HandshakeKind, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_client_sessions::{
    IdentityClient, Profile, ProfileLayer, Profiles, SessionId, SessionLayer, Sessions,
    client::{ClientError, IdentityClientBuilder},
    profile::Proxy,
};

pub(super) type Body = Empty<Bytes>;

pub(super) type Stack = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

pub(super) const SECRET: &str = "s3cr%t@:";

/// A request that the origin received.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) connection: usize,
    pub(super) peer: IpAddr,
    pub(super) version: Version,
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) handshake: Option<HandshakeKind>,
}

#[derive(Clone)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    scheme: &'static str,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) shared: Arc<OriginShared>,
}

pub(super) struct OriginShared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    pub(super) closed: Mutex<HashSet<usize>>,
    /// A slow body needs a permit to send its second half.
    pub(super) second_halves: Arc<Semaphore>,
}

pub(super) fn certificate() -> (CertificateDer<'static>, ServerConfig) {
    let made =
        rcgen::generate_simple_self_signed(["localhost", "origin.invalid", "127.0.0.1"].map(String::from));
    let made = made.unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (certificate, config)
}

impl Origin {
    pub(super) async fn http() -> Self {
        Self::start(None).await
    }

    pub(super) async fn https(alpn: &[&str]) -> Self {
        Self::start(Some(alpn.iter().map(|name| name.as_bytes().to_vec()).collect())).await
    }

    pub(super) async fn start(tls: Option<Vec<Vec<u8>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (certificate, mut config) = certificate();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let acceptor = tls.map(|alpn| {
            config.alpn_protocols = alpn;
            TlsAcceptor::from(Arc::new(config))
        });
        let shared = Arc::new(OriginShared {
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            closed: Mutex::default(),
            second_halves: Arc::new(Semaphore::new(0)),
        });
        let origin = Self { address: listener.local_addr().unwrap(), scheme, certificate, shared };
        tokio::spawn({
            let origin = origin.clone();
            async move {
                loop {
                    let (stream, peer) = listener.accept().await.unwrap();
                    let (origin, acceptor) = (origin.clone(), acceptor.clone());
                    let connection = origin.shared.connections.fetch_add(1, SeqCst);
                    tokio::spawn(async move {
                        match acceptor {
                            None => origin.serve(stream, connection, peer, None).await,
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    let handshake = stream.get_ref().1.handshake_kind();
                                    origin.serve(stream, connection, peer, handshake).await;
                                }
                            }
                        }
                        origin.shared.closed.lock().unwrap().insert(connection);
                    });
                }
            }
        });
        origin
    }

    async fn serve<S>(&self, stream: S, connection: usize, peer: SocketAddr, handshake: Option<HandshakeKind>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            self.shared.seen.lock().unwrap().push(Seen {
                connection,
                peer: peer.ip(),
                version: request.version(),
                uri: request.uri().to_string(),
                headers: request.headers().clone(),
                handshake,
            });
            let slow = request.uri().path().starts_with("/slow");
            let status = if request.uri().path().starts_with("/401") { 401 } else { 200 };
            let halves = self.shared.second_halves.clone();
            let body = if slow { Halves::First(halves) } else { Halves::Last };
            async move { Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()) }
        });
        let _ =
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.address.port())
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The connections of the requests to `path`.
    pub(super) fn connections(&self, path: &str) -> HashSet<usize> {
        let seen = self.seen();
        seen.iter().filter(|seen| seen.uri.ends_with(path)).map(|seen| seen.connection).collect()
    }

    pub(super) async fn until_closed(&self, connection: usize) {
        until(|| self.shared.closed.lock().unwrap().contains(&connection)).await;
    }
}

/// A body in two halves. The second half needs a permit.
pub(super) enum Halves {
    First(Arc<Semaphore>),
    Second(Pin<Box<dyn Future<Output = ()> + Send>>),
    Last,
    Done,
}

impl http_body::Body for Halves {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Halves::First(semaphore) => {
                let semaphore = semaphore.clone();
                *self = Halves::Second(Box::pin(async move { semaphore.acquire().await.unwrap().forget() }));
                return Poll::Ready(Some(Ok(Frame::data("first ".into()))));
            }
            Halves::Second(wait) => {
                std::task::ready!(wait.as_mut().poll(context));
                *self = Halves::Last;
            }
            Halves::Last => {}
            Halves::Done => return Poll::Ready(None),
        }
        *self = Halves::Done;
        Poll::Ready(Some(Ok(Frame::data("last".into()))))
    }
}

pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("the condition holds in time");
}

/// Passes connections on to a proxy, and records what the client sends.
pub(super) struct Tap {
    pub(super) port: u16,
    /// The bytes that the client sent on each connection.
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(super) certificate: CertificateDer<'static>,
}

impl Tap {
    pub(super) async fn before(proxy: u16) -> Self {
        Self::start(proxy, false).await
    }

    pub(super) async fn start(proxy: u16, tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (certificate, config) = certificate();
        let acceptor = tls.then(|| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn({
            let sent = sent.clone();
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let (sent, acceptor) = (sent.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        let server = TcpStream::connect(("127.0.0.1", proxy)).await?;
                        match acceptor {
                            None => pass(client, server, sent).await,
                            Some(acceptor) => pass(acceptor.accept(client).await?, server, sent).await,
                        }
                    });
                }
            }
        });
        Self { port, sent, certificate }
    }

    pub(super) fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.lock().unwrap().clone()
    }

    /// The recorded bytes as text, for connections without encryption.
    pub(super) fn heads(&self) -> Vec<String> {
        self.sent().iter().map(|sent| String::from_utf8_lossy(sent).into_owned()).collect()
    }
}

pub(super) async fn pass<S>(
    client: S,
    server: TcpStream,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite,
{
    let index = {
        let mut sent = sent.lock().unwrap();
        sent.push(Vec::new());
        sent.len() - 1
    };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 4096];
        loop {
            let read = from_client.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                return to_server.shutdown().await;
            }
            sent.lock().unwrap()[index].extend_from_slice(&buffer[..read]);
            to_server.write_all(&buffer[..read]).await?;
        }
    };
    let down = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

/// A running program, killed when this is dropped.
pub(super) struct Running {
    child: Child,
    pub(super) port: u16,
    config: Option<PathBuf>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(config) = &self.config {
            let _ = std::fs::remove_file(config);
        }
    }
}

pub(super) fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

pub(super) async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

pub(super) async fn run(program: &str, arguments: &[&str], port: u16, config: Option<PathBuf>) -> Running {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running { child: command.spawn().unwrap(), port, config };
    let listens = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), listens).await.expect("the proxy listens in time");
    running
}

/// Starts tinyproxy. Its configuration allows no special characters in the password.
pub(super) async fn tinyproxy(user: &str) -> Option<Running> {
    if !installed("tinyproxy") {
        return None;
    }
    let port = free_port().await;
    let config = std::env::temp_dir().join(format!("tinyproxy-{}-{port}.conf", std::process::id()));
    let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nBasicAuth {user} pass\n");
    std::fs::write(&config, text).unwrap();
    let path = config.to_str().unwrap().to_owned();
    Some(run("tinyproxy", &["-d", "-c", &path], port, Some(config)).await)
}

pub(super) async fn microsocks(user: &str) -> Option<Running> {
    if !installed("microsocks") {
        return None;
    }
    let port = free_port().await;
    let arguments = ["-i", "127.0.0.1", "-p", &port.to_string(), "-u", user, "-P", SECRET];
    Some(run("microsocks", &arguments, port, None).await)
}

/// Runs curl, and returns the statuses that it prints.
pub(super) async fn curl(arguments: &[&str]) -> Option<String> {
    if !installed("curl") {
        return None;
    }
    let mut command = tokio::process::Command::new("curl");
    command.args(["-s", "-q", "-k", "-o", "/dev/null", "-w", "%{http_code} %{http_connect}"]).args(arguments);
    Some(String::from_utf8(command.output().await.unwrap().stdout).unwrap())
}

pub(super) fn proxy(scheme: &str, port: u16, user: &str, password: &str) -> Proxy {
    let proxy: Proxy = format!("{scheme}://127.0.0.1:{port}").parse().unwrap();
    proxy.with_credentials(user, password).unwrap()
}

pub(super) fn builder() -> IdentityClientBuilder {
    IdentityClient::builder().connect_timeout(Duration::from_secs(5))
}

/// Sessions with one profile per proxy, assigned in turn.
pub(super) fn sessions(proxies: impl IntoIterator<Item = Proxy>) -> Sessions {
    let profile = |proxy| Profile::builder().proxy(proxy).user_agent("test/1.0").build().unwrap();
    Sessions::builder().profiles(Profiles::new(proxies.into_iter().map(profile)).unwrap()).build().unwrap()
}

pub(super) fn stack(sessions: &Sessions, client: IdentityClient<Body>) -> Stack {
    let stack =
        ServiceBuilder::new().layer(SessionLayer::new(sessions)).layer(ProfileLayer::new()).service(client);
    BoxCloneSyncService::new(stack)
}

pub(super) fn request(session: &str, url: &str) -> Request<Body> {
    Request::get(url).extension(SessionId::from(session)).body(Body::new()).unwrap()
}

pub(super) async fn send(stack: &Stack, session: &str, url: &str) -> Result<Response<Incoming>, BoxError> {
    timeout(Duration::from_secs(20), stack.clone().oneshot(request(session, url)))
        .await
        .expect("the request completes in time")
}

/// Sends a request, and reads the whole response.
pub(super) async fn get(stack: &Stack, session: &str, url: &str) -> Result<(StatusCode, String), BoxError> {
    let response = send(stack, session, url).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec())?))
}

#[track_caller]
pub(super) fn good(result: Result<(StatusCode, String), BoxError>) {
    let (status, body) = result.unwrap_or_else(|error| panic!("{}", chain(&*error)));
    assert_eq!((status.as_u16(), body.as_str()), (200, "last"));
}

#[track_caller]
pub(super) fn error<T: std::fmt::Debug>(result: Result<T, BoxError>) -> ClientError {
    let error = result.expect_err("an error is expected");
    let all = format!("{error:?} {}", chain(&*error));
    assert!(!all.contains(SECRET) && !all.contains("s3cr"), "{all}");
    error.downcast_ref::<ClientError>().unwrap_or_else(|| panic!("another error: {all}")).clone()
}

pub(super) fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}
