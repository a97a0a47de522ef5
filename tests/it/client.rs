//! The client, over sockets: what origins and proxies received, by real proxies where the machine has them.

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
        ClientConfig, HandshakeKind, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_client_sessions::{
    Expired, IdentityClient, Profile, ProfileLayer, Profiles, Renewal, RenewalLayer, SessionId, SessionLayer,
    Sessions,
    client::{ClientError, ClientErrorKind, IdentityClientBuilder},
    profile::{Proxy, ProxyScheme},
};

type Body = Empty<Bytes>;
type Stack = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

const SECRET: &str = "s3cr%t@:";

// ---- the origin

/// One request as the origin saw it.
#[derive(Clone, Debug)]
struct Seen {
    connection: usize,
    peer: IpAddr,
    version: Version,
    uri: String,
    headers: HeaderMap,
    handshake: Option<HandshakeKind>,
}

#[derive(Clone)]
struct Origin {
    address: SocketAddr,
    scheme: &'static str,
    certificate: CertificateDer<'static>,
    shared: Arc<OriginShared>,
}

struct OriginShared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    closed: Mutex<HashSet<usize>>,
    /// What lets the second half of a slow body go.
    second_halves: Arc<Semaphore>,
}

fn certificate() -> (CertificateDer<'static>, ServerConfig) {
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
    async fn http() -> Self {
        Self::start(None).await
    }

    async fn https(alpn: &[&str]) -> Self {
        Self::start(Some(alpn.iter().map(|name| name.as_bytes().to_vec()).collect())).await
    }

    async fn start(tls: Option<Vec<Vec<u8>>>) -> Self {
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

    fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.address.port())
    }

    fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The connections that requests to `path` came over.
    fn connections(&self, path: &str) -> HashSet<usize> {
        let seen = self.seen();
        seen.iter().filter(|seen| seen.uri.ends_with(path)).map(|seen| seen.connection).collect()
    }

    async fn until_closed(&self, connection: usize) {
        until(|| self.shared.closed.lock().unwrap().contains(&connection)).await;
    }
}

/// A body in two halves, the second of which waits until it is let go.
enum Halves {
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

async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("it comes about in time");
}

// ---- proxies

/// Stands before a proxy and takes down what the client says to it.
struct Tap {
    port: u16,
    /// What each connection said.
    said: Arc<Mutex<Vec<Vec<u8>>>>,
    certificate: CertificateDer<'static>,
}

impl Tap {
    async fn before(proxy: u16) -> Self {
        Self::start(proxy, false).await
    }

    async fn start(proxy: u16, tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (certificate, config) = certificate();
        let acceptor = tls.then(|| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn({
            let said = said.clone();
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let (said, acceptor) = (said.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        let server = TcpStream::connect(("127.0.0.1", proxy)).await?;
                        match acceptor {
                            None => pass(client, server, said).await,
                            Some(acceptor) => pass(acceptor.accept(client).await?, server, said).await,
                        }
                    });
                }
            }
        });
        Self { port, said, certificate }
    }

    fn said(&self) -> Vec<Vec<u8>> {
        self.said.lock().unwrap().clone()
    }

    /// The heads of the requests that were not encrypted.
    fn heads(&self) -> Vec<String> {
        self.said().iter().map(|said| String::from_utf8_lossy(said).into_owned()).collect()
    }
}

async fn pass<S>(client: S, server: TcpStream, said: Arc<Mutex<Vec<Vec<u8>>>>) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite,
{
    let index = {
        let mut said = said.lock().unwrap();
        said.push(Vec::new());
        said.len() - 1
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
            said.lock().unwrap()[index].extend_from_slice(&buffer[..read]);
            to_server.write_all(&buffer[..read]).await?;
        }
    };
    let down = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

/// A program that runs as long as this lives.
struct Running {
    child: Child,
    port: u16,
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

fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn run(program: &str, arguments: &[&str], port: u16, config: Option<PathBuf>) -> Running {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running { child: command.spawn().unwrap(), port, config };
    let answers = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), answers).await.expect("the proxy listens");
    running
}

/// tinyproxy with `user` and a password without odd characters, which its configuration could not hold.
async fn tinyproxy(user: &str) -> Option<Running> {
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

async fn microsocks(user: &str) -> Option<Running> {
    if !installed("microsocks") {
        return None;
    }
    let port = free_port().await;
    let arguments = ["-i", "127.0.0.1", "-p", &port.to_string(), "-u", user, "-P", SECRET];
    Some(run("microsocks", &arguments, port, None).await)
}

/// What curl does with the same proxy: the status that it prints.
async fn curl(arguments: &[&str]) -> Option<String> {
    if !installed("curl") {
        return None;
    }
    let mut command = tokio::process::Command::new("curl");
    command.args(["-s", "-q", "-k", "-o", "/dev/null", "-w", "%{http_code} %{http_connect}"]).args(arguments);
    Some(String::from_utf8(command.output().await.unwrap().stdout).unwrap())
}

fn proxy(scheme: &str, port: u16, user: &str, password: &str) -> Proxy {
    let proxy: Proxy = format!("{scheme}://127.0.0.1:{port}").parse().unwrap();
    proxy.with_credentials(user, password).unwrap()
}

// ---- the stack

fn builder() -> IdentityClientBuilder {
    IdentityClient::builder().connect_timeout(Duration::from_secs(5))
}

/// Sessions that draw these profiles in turn.
fn sessions(proxies: impl IntoIterator<Item = Proxy>) -> Sessions {
    let profile = |proxy| Profile::builder().proxy(proxy).user_agent("test/1.0").build().unwrap();
    Sessions::builder().profiles(Profiles::new(proxies.into_iter().map(profile)).unwrap()).build().unwrap()
}

fn stack(sessions: &Sessions, client: IdentityClient<Body>) -> Stack {
    let stack =
        ServiceBuilder::new().layer(SessionLayer::new(sessions)).layer(ProfileLayer::new()).service(client);
    BoxCloneSyncService::new(stack)
}

fn request(session: &str, url: &str) -> Request<Body> {
    Request::get(url).extension(SessionId::from(session)).body(Body::new()).unwrap()
}

async fn send(stack: &Stack, session: &str, url: &str) -> Result<Response<Incoming>, BoxError> {
    timeout(Duration::from_secs(20), stack.clone().oneshot(request(session, url))).await.expect("an answer")
}

/// Sends and reads to the end.
async fn get(stack: &Stack, session: &str, url: &str) -> Result<(StatusCode, String), BoxError> {
    let response = send(stack, session, url).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec())?))
}

#[track_caller]
fn good(answer: Result<(StatusCode, String), BoxError>) {
    let (status, body) = answer.unwrap_or_else(|error| panic!("{}", chain(&*error)));
    assert_eq!((status.as_u16(), body.as_str()), (200, "last"));
}

#[track_caller]
fn error<T: std::fmt::Debug>(answer: Result<T, BoxError>) -> ClientError {
    let error = answer.expect_err("an error is expected");
    let all = format!("{error:?} {}", chain(&*error));
    assert!(!all.contains(SECRET) && !all.contains("s3cr"), "{all}");
    error.downcast_ref::<ClientError>().unwrap_or_else(|| panic!("another error: {all}")).clone()
}

fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

// ---- connections

#[tokio::test]
async fn sessions_never_share_a_connection_and_each_keeps_its_own() {
    let origin = Origin::http().await;
    let client = builder().build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    for _ in 0..5 {
        for session in ["a", "b", "c"] {
            good(get(&stack, session, &origin.url(&format!("/{session}"))).await);
        }
    }
    let connections = ["/a", "/b", "/c"].map(|path| origin.connections(path));
    assert!(connections.iter().all(|own| own.len() == 1), "{connections:?}");
    assert_eq!(connections.iter().flatten().collect::<HashSet<_>>().len(), 3);
    assert_eq!((client.identities(), client.connections()), (3, 3));
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.headers["user-agent"] == "test/1.0" && seen.uri.starts_with('/')));
}

#[tokio::test]
async fn many_requests_at_once_stay_with_their_own() {
    let origin = Origin::http().await;
    let client = builder().max_connections(6).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (stack, session) = (stack.clone(), format!("s{}", number % 10));
        let url = origin.url(&format!("/{session}"));
        tasks.spawn(async move { good(get(&stack, &session, &url).await) });
    }
    tasks.join_all().await;
    let mut all = HashSet::new();
    for number in 0..10 {
        for connection in origin.connections(&format!("/s{number}")) {
            assert!(all.insert(connection), "a connection of two sessions");
        }
    }
    until(|| client.connections() <= 6).await;
}

#[tokio::test]
async fn a_renewed_session_has_new_connections_and_the_old_ones_drain() {
    let origin = Origin::http().await;
    let client = builder().build().unwrap();
    let sessions = sessions([Proxy::direct()]);
    let stack = stack(&sessions, client.clone());
    good(get(&stack, "a", &origin.url("/idle")).await);
    let slow = send(&stack, "a", &origin.url("/slow")).await.unwrap();
    let busy = *origin.connections("/slow").iter().next().unwrap();
    assert_eq!(origin.connections("/idle"), [busy].into());
    let other = send(&stack, "a", &origin.url("/slow2")).await.unwrap();
    let spare = *origin.connections("/slow2").iter().next().unwrap();
    origin.shared.second_halves.add_permits(1);
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "first last");

    sessions.session("a").clear();
    good(get(&stack, "a", &origin.url("/after")).await);
    let after = origin.connections("/after");
    assert!(!after.contains(&busy) && !after.contains(&spare));
    origin.until_closed(busy).await;
    assert!(!origin.shared.closed.lock().unwrap().contains(&spare), "it is in the middle of a body");
    origin.shared.second_halves.add_permits(1);
    assert_eq!(other.into_body().collect().await.unwrap().to_bytes(), "first last");
    origin.until_closed(spare).await;
    until(|| (client.identities(), client.connections()) == (1, 1)).await;
}

async fn log_in(renewal: Renewal<Body>, url: String) -> Result<(), BoxError> {
    let answer = renewal.send(Request::get(url).body(Body::new())?).await?;
    answer.into_body().bytes(100).await?;
    Ok(())
}

#[tokio::test]
async fn a_login_and_the_pages_after_it_share_a_connection_until_the_next_login() {
    for origin in [Origin::http().await, Origin::https(&["http/1.1"]).await, Origin::https(&["h2"]).await] {
        let client = builder().add_root_certificates([origin.certificate.clone()]).build::<Body>().unwrap();
        let direct = Profile::builder().proxy(Proxy::direct()).build().unwrap();
        let sessions =
            Sessions::builder().profiles(Profiles::new([direct]).unwrap()).login_first().build().unwrap();
        let login = origin.url("/login");
        let stack = ServiceBuilder::new()
            .layer(RenewalLayer::new(&sessions).renew_with(move |renewal| log_in(renewal, login.clone())))
            .layer(SessionLayer::new(&sessions))
            .layer(ProfileLayer::new())
            .service(client.clone());
        let stack = BoxCloneSyncService::new(stack);
        for _ in 0..2 {
            for _ in 0..2 {
                good(get(&stack, "a", &origin.url("/page")).await);
            }
            sessions.session("a").clear();
        }
        let seen: Vec<_> = origin.seen().into_iter().map(|seen| (seen.uri, seen.connection)).collect();
        let paths: Vec<_> = seen.iter().map(|(uri, _)| uri.rsplit('/').next().unwrap()).collect();
        assert_eq!(paths, ["login", "page", "page", "login", "page", "page"]);
        assert_eq!(seen.iter().map(|(_, connection)| *connection).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    }
}

#[tokio::test]
async fn an_evicted_identity_finishes_its_body() {
    let origin = Origin::http().await;
    let client = builder().max_connections(1).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    let slow = send(&stack, "a", &origin.url("/slow")).await.unwrap();
    good(get(&stack, "b", &origin.url("/b")).await);
    assert_eq!(client.identities(), 1, "a is gone");
    origin.shared.second_halves.add_permits(1);
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "first last");
    for connection in origin.connections("/slow") {
        origin.until_closed(connection).await;
    }
    until(|| client.connections() == 1).await;
    // It can come back.
    good(get(&stack, "a", &origin.url("/a")).await);
}

#[tokio::test]
async fn one_identity_alone_stays_within_the_bound_over_many_hosts() {
    let client = builder().max_connections(2).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    let mut origins = Vec::new();
    for _ in 0..8 {
        let origin = Origin::http().await;
        good(get(&stack, "a", &origin.url("/")).await);
        origins.push(origin);
    }
    until(|| client.connections() <= 3).await;
    assert_eq!(client.identities(), 1);
}

#[tokio::test]
async fn idle_connections_close_in_time() {
    let origin = Origin::http().await;
    let client = builder().idle_timeout(Duration::from_millis(100)).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    good(get(&stack, "a", &origin.url("/")).await);
    assert_eq!(client.connections(), 1);
    until(|| client.connections() == 0).await;
    origin.until_closed(0).await;
}

#[tokio::test]
async fn the_most_identities_are_kept() {
    let origin = Origin::http().await;
    let client = builder().max_identities(2).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    for session in ["a", "b", "c"] {
        good(get(&stack, session, &origin.url("/")).await);
    }
    assert_eq!(client.identities(), 2);
    origin.until_closed(0).await;
}

#[tokio::test]
async fn identities_that_nobody_holds_are_forgotten() {
    let origin = Origin::http().await;
    let client = builder().build().unwrap();
    let profile = Profile::builder().proxy(Proxy::direct()).build().unwrap();
    let sessions =
        Sessions::builder().profiles(Profiles::new([profile]).unwrap()).max_sessions(10).build().unwrap();
    let stack = stack(&sessions, client.clone());
    for number in 0..1100 {
        good(get(&stack, &format!("s{number}"), &origin.url("/")).await);
    }
    assert!(client.identities() < 200, "{}", client.identities());
}

#[tokio::test]
async fn the_profiles_local_address_is_used() {
    let origin = Origin::http().await;
    let profiles = ["127.0.0.2", "127.0.0.3"].map(|address| {
        let address: IpAddr = address.parse().unwrap();
        Profile::builder().proxy(Proxy::direct()).local_address(address).build().unwrap()
    });
    let sessions = Sessions::builder().profiles(Profiles::new(profiles).unwrap()).build().unwrap();
    let stack = stack(&sessions, builder().build().unwrap());
    for session in ["a", "b"] {
        good(get(&stack, session, &origin.url("/")).await);
    }
    let peers: Vec<_> = origin.seen().iter().map(|seen| seen.peer.to_string()).collect();
    assert_eq!(peers, ["127.0.0.2", "127.0.0.3"]);
}

// ---- fail closed

#[tokio::test]
async fn without_a_decision_nothing_is_sent() {
    let origin = Origin::http().await;
    let plain = || Sessions::builder().build().unwrap();
    let closed = stack(&plain(), builder().build().unwrap());
    assert_eq!(error(get(&closed, "a", &origin.url("/")).await).kind(), ClientErrorKind::NoProxy);
    let mut bare = builder().build::<Body>().unwrap();
    let nobody = Request::get(origin.url("/")).body(Body::new()).unwrap();
    assert_eq!(bare.call(nobody.clone()).await.unwrap_err().kind(), ClientErrorKind::NoIdentity);
    assert_eq!(origin.seen().len(), 0);

    let open = stack(&plain(), builder().allow_direct().build().unwrap());
    good(get(&open, "a", &origin.url("/")).await);
    let mut bare = builder().allow_anonymous().build::<Body>().unwrap();
    assert_eq!(bare.call(nobody.clone()).await.unwrap_err().kind(), ClientErrorKind::NoProxy);
    let mut said = nobody;
    said.extensions_mut().insert(Proxy::direct());
    assert_eq!(bare.call(said).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_uri_that_cannot_be_sent_is_refused() {
    let mut client = builder().allow_direct().allow_anonymous().build::<Body>().unwrap();
    for uri in ["/path", "ftp://origin.example/", &format!("http://u:{}@127.0.0.1/", "s3cret")] {
        let request = Request::get(uri).body(Body::new()).unwrap();
        let answer = client.call(request).await.map_err(BoxError::from);
        assert_eq!(error(answer).kind(), ClientErrorKind::BadUri, "{uri}");
    }
}

#[tokio::test]
async fn an_error_names_the_hop_that_failed() {
    let closed = free_port().await;
    let origin = Origin::https(&[]).await;
    let nowhere = format!("http://127.0.0.1:{closed}/");
    let direct = stack(&sessions([Proxy::direct()]), builder().build().unwrap());
    assert_eq!(error(get(&direct, "a", &nowhere).await).kind(), ClientErrorKind::OriginUnreachable);
    assert_eq!(error(get(&direct, "a", &origin.url("/")).await).kind(), ClientErrorKind::OriginTls);
    for scheme in ["http", "https", "socks5"] {
        let proxies = [proxy(scheme, closed, "u", SECRET)];
        let stack = stack(&sessions(proxies), builder().build().unwrap());
        for url in [&nowhere, &origin.url("/")] {
            let error = error(get(&stack, "a", url).await);
            assert_eq!(error.kind(), ClientErrorKind::ProxyUnreachable, "{scheme} {url}");
            assert!(error.is_proxy_error() && error.proxy().is_some());
        }
    }
    // A proxy with a certificate that nobody has vouched for.
    let tap = Tap::start(closed, true).await;
    let proxies = [proxy("https", origin.address.port(), "u", SECRET)];
    let tls = stack(&sessions(proxies), builder().build().unwrap());
    assert_eq!(error(get(&tls, "a", &nowhere).await).kind(), ClientErrorKind::ProxyTls);
    assert_eq!(origin.seen().len() + tap.said().len(), 0);
}

#[tokio::test]
async fn a_proxy_that_is_down_is_marked_bad_and_passed_over() {
    let origin = Origin::http().await;
    let down = proxy("http", free_port().await, "u", SECRET);
    let sessions = sessions([down.clone(), Proxy::direct()]);
    let stack = stack(&sessions, builder().build().unwrap());
    for session in ["a", "b", "c", "d"] {
        let answer = send(&stack, session, &origin.url("/")).await.map(|response| response.status());
        if session == "a" {
            assert!(error(answer).is_proxy_error());
            let session = sessions.session("a");
            assert!(sessions.mark_profile_bad(&session.profile().unwrap()));
            session.clear();
            good(get(&stack, "a", &origin.url("/")).await);
        } else {
            assert_eq!(answer.unwrap(), 200);
        }
    }
}

#[tokio::test]
async fn a_proxy_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    for scheme in ["http", "https", "socks5"] {
        let client = builder().connect_timeout(Duration::from_millis(100)).build().unwrap();
        let stack = stack(&sessions([proxy(scheme, port, "u", SECRET)]), client);
        assert!(error(get(&stack, "a", "https://127.0.0.1/").await).is_proxy_error(), "{scheme}");
    }
}

// ---- TLS

#[tokio::test]
async fn tls_is_resumed_within_an_identity_and_never_across() {
    let origin = Origin::https(&["http/1.1"]).await;
    let client = builder()
        .add_root_certificates([origin.certificate.clone()])
        .idle_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let sessions = sessions([Proxy::direct()]);
    let stack = stack(&sessions, client.clone());
    for round in 0..2 {
        for session in ["a", "b"] {
            good(get(&stack, session, &origin.url(&format!("/{session}{round}"))).await);
        }
        until(|| client.connections() == 0).await;
    }
    sessions.session("a").clear();
    good(get(&stack, "a", &origin.url("/renewed")).await);
    let handshakes: Vec<_> =
        origin.seen().iter().map(|seen| (seen.uri.clone(), seen.handshake.unwrap())).collect();
    use HandshakeKind::{Full, Resumed};
    let expected = [("/a0", Full), ("/b0", Full), ("/a1", Resumed), ("/b1", Resumed), ("/renewed", Full)];
    assert_eq!(handshakes, expected.map(|(path, kind)| (path.to_owned(), kind)));
}

/// The test of this name in a process of its own, since what is trusted is read from the environment.
#[tokio::test]
async fn the_platforms_roots_are_trusted_where_they_are_asked_for() {
    const URL: &str = "SESSIONS_TEST_URL";
    if let Ok(url) = std::env::var(URL) {
        for (builder, trusted) in [(builder().native_roots(), true), (builder(), false)] {
            let stack = stack(&sessions([Proxy::direct()]), builder.build().unwrap());
            match trusted {
                true => good(get(&stack, "a", &url).await),
                false => assert_eq!(error(get(&stack, "a", &url).await).kind(), ClientErrorKind::OriginTls),
            }
        }
        return;
    }
    let origin = Origin::https(&["h2"]).await;
    let file =
        std::env::temp_dir().join(format!("roots-{}-{}.pem", std::process::id(), origin.address.port()));
    let run = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut test = tokio::process::Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "client::the_platforms_roots_are_trusted_where_they_are_asked_for"]);
        test.env(URL, origin.url("/")).env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
        let output = test.output().await.unwrap();
        std::fs::remove_file(&file).unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let certificate = base64(&origin.certificate);
    let (passed, said) =
        run(&format!("-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n")).await;
    assert!(passed && said.contains("1 passed"), "{said}");
    assert_eq!(origin.seen().len(), 1);
    // No roots are no reason to trust Mozilla's.
    let (passed, said) = run("").await;
    assert!(!passed && said.contains("the root certificates of the operating system"), "{said}");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_tls_configuration_of_the_callers_is_kept_apart_by_identity_as_well() {
    let origin = Origin::https(&["h2", "http/1.1"]).await;
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(origin.certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = builder().tls_config(config.clone()).http1_only().idle_timeout(Duration::from_millis(20));
    let client = client.build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    for session in ["a", "b", "a"] {
        good(get(&stack, session, &origin.url("/")).await);
        until(|| client.connections() == 0).await;
    }
    let handshakes: Vec<_> = origin.seen().iter().map(|seen| seen.handshake.unwrap()).collect();
    assert_eq!(handshakes, [HandshakeKind::Full, HandshakeKind::Full, HandshakeKind::Resumed]);

    let given = || builder().tls_config(config.clone());
    for both in [given().native_roots(), given().add_root_certificates([origin.certificate.clone()])] {
        assert_eq!(both.build::<Body>().unwrap_err().kind(), ClientErrorKind::Config);
    }
    let wrong = builder().add_root_certificates([CertificateDer::from(vec![1, 2, 3])]).build::<Body>();
    assert_eq!(wrong.unwrap_err().kind(), ClientErrorKind::Config);
}

#[tokio::test]
async fn http2_is_spoken_where_both_can() {
    let origin = Origin::https(&["h2", "http/1.1"]).await;
    let both = builder().add_root_certificates([origin.certificate.clone()]);
    for (client, path) in [(both.clone(), "/h2"), (both.http1_only(), "/h1")] {
        let client = client.build().unwrap();
        let stack = stack(&sessions([Proxy::direct()]), client.clone());
        for session in ["a", "b"] {
            let mut tasks = tokio::task::JoinSet::new();
            good(get(&stack, session, &origin.url(path)).await);
            for _ in 0..10 {
                let (stack, url) = (stack.clone(), origin.url(path));
                tasks.spawn(async move { good(get(&stack, session, &url).await) });
            }
            tasks.join_all().await;
        }
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| (seen.version == Version::HTTP_2) == (seen.uri.ends_with("/h2"))));
    assert_eq!(origin.connections("/h2").len(), 2, "one for each session");
}

// ---- proxies

const AUTHORIZATION: &str = "Basic YWxpY2U6cGFzcw==";

/// The header lines of a head, in lower case.
fn lines(head: &str) -> Vec<String> {
    head.split("\r\n").map(str::to_ascii_lowercase).collect()
}

fn has_authorization(head: &str) -> bool {
    lines(head).contains(&format!("proxy-authorization: {AUTHORIZATION}").to_ascii_lowercase())
}

#[tokio::test]
async fn tinyproxy_forwards_http() {
    let Some(running) = tinyproxy("alice").await else { return };
    let (origin, tap) = (Origin::http().await, Tap::before(running.port).await);
    let stack = stack(&sessions([proxy("http", tap.port, "alice", "pass")]), builder().build().unwrap());
    let mut request = request("a", &origin.url("/page?x=1"));
    // What comes from above goes to nobody.
    request.headers_mut().insert("proxy-authorization", "Basic Zm9yZ2VkOg==".parse().unwrap());
    let response = stack.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["via"].to_str().unwrap().contains("tinyproxy"));
    let head = tap.heads().remove(0);
    assert!(head.starts_with(&format!("GET {} HTTP/1.1\r\n", origin.url("/page?x=1"))), "{head}");
    assert!(has_authorization(&head) && !head.contains("Zm9yZ2VkOg"), "{head}");
    let seen = origin.seen().remove(0);
    assert_eq!((seen.uri.as_str(), seen.headers.get("proxy-authorization")), ("/page?x=1", None));
    assert_eq!(seen.headers["host"], origin.address.to_string());

    // The same by curl.
    let by_way_of = format!("http://alice:pass@127.0.0.1:{}", tap.port);
    let Some(control) = curl(&["-x", &by_way_of, &origin.url("/page?x=1")]).await else { return };
    assert_eq!(control, "200 000");
    let of_curl = tap.heads().remove(1);
    assert_eq!(lines(&of_curl)[0], lines(&head)[0]);
    assert!(has_authorization(&of_curl));
}

#[tokio::test]
async fn tinyproxy_tunnels_https() {
    let Some(running) = tinyproxy("alice").await else { return };
    let (origin, tap) = (Origin::https(&["h2", "http/1.1"]).await, Tap::before(running.port).await);
    let client = builder().add_root_certificates([origin.certificate.clone()]).build().unwrap();
    let stack = stack(&sessions([proxy("http", tap.port, "alice", "pass")]), client);
    let mut request = request("a", &origin.url("/page"));
    request.headers_mut().insert("proxy-authorization", "Basic Zm9yZ2VkOg==".parse().unwrap());
    assert_eq!(stack.clone().oneshot(request).await.unwrap().status(), 200);
    let head = tap.heads().remove(0);
    assert!(head.starts_with(&format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n", origin.address)), "{head}");
    assert!(has_authorization(&head));
    let seen = origin.seen().remove(0);
    assert_eq!((seen.version, seen.headers.get("proxy-authorization")), (Version::HTTP_2, None));

    let by_way_of = format!("http://alice:pass@127.0.0.1:{}", tap.port);
    let Some(control) = curl(&["-x", &by_way_of, &origin.url("/page")]).await else { return };
    assert_eq!(control, "200 200");
    let of_curl = tap.heads().remove(1);
    assert_eq!(lines(&of_curl)[..2], lines(&head)[..2]);
    assert!(has_authorization(&of_curl));
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_not_the_origins() {
    let Some(running) = tinyproxy("alice").await else { return };
    let (http, https) = (Origin::http().await, Origin::https(&[]).await);
    let logins = Arc::new(AtomicUsize::new(0));
    for (user, password, status) in [("alice", SECRET, 401), ("", "", 407)] {
        let mut by_way_of = proxy("http", running.port, user, password);
        if user.is_empty() {
            by_way_of = format!("http://127.0.0.1:{}", running.port).parse().unwrap();
        }
        let sessions = sessions([by_way_of]);
        let counted = logins.clone();
        let stack = ServiceBuilder::new()
            .layer(RenewalLayer::new(&sessions).expired_when(Expired::status([401, 403, 407])).renew_with(
                move |_: Renewal<Body>| {
                    counted.fetch_add(1, SeqCst);
                    async { Ok(()) }
                },
            ))
            .layer(SessionLayer::new(&sessions))
            .layer(ProfileLayer::new())
            .service(builder().build::<Body>().unwrap());
        for url in [http.url("/"), https.url("/")] {
            let answer = stack.clone().oneshot(request("a", &url)).await;
            let error = error(answer.map(|response| response.status()));
            assert_eq!(error.kind(), ClientErrorKind::ProxyCredentials, "{url}");
            assert_eq!(error.proxy_status().map(|status| status.as_u16()), Some(status));
        }
        assert_eq!(sessions.stats().renewals_started, 0);
    }
    assert_eq!((logins.load(SeqCst), http.seen().len(), https.seen().len()), (0, 0, 0));

    // The origin's own 401 comes through and is the gate's.
    let stack = stack(&sessions([proxy("http", running.port, "alice", "pass")]), builder().build().unwrap());
    assert_eq!(get(&stack, "a", &http.url("/401")).await.unwrap().0, 401);
    // What the proxy cannot reach is an error as well.
    let nowhere = free_port().await;
    for scheme in ["http", "https"] {
        let error = error(get(&stack, "a", &format!("{scheme}://127.0.0.1:{nowhere}/")).await);
        assert_eq!(error.kind(), ClientErrorKind::ProxyRefused);
        assert_eq!(error.proxy_status().map(|status| status.as_u16()), Some(500));
    }
    // So is the origin's certificate, behind a tunnel.
    assert_eq!(error(get(&stack, "a", &https.url("/")).await).kind(), ClientErrorKind::OriginTls);
}

#[tokio::test]
async fn microsocks_tunnels_and_resolves() {
    let Some(running) = microsocks("alice").await else { return };
    let (http, https) = (Origin::http().await, Origin::https(&["h2"]).await);
    let tap = Tap::before(running.port).await;
    let client = builder().add_root_certificates([https.certificate.clone()]).build().unwrap();
    let stack = stack(&sessions([proxy("socks5", tap.port, "alice", SECRET)]), client);
    let by_name = |origin: &Origin| origin.url("/page").replace("127.0.0.1", "localhost");
    good(get(&stack, "a", &by_name(&http)).await);
    good(get(&stack, "a", &by_name(&https)).await);
    good(get(&stack, "a", &http.url("/by-address")).await);
    for (said, port) in tap.said().iter().zip([http.address.port(), https.address.port()]) {
        let mut expected = vec![5, 1, 2, 1, 5];
        expected.extend_from_slice(b"alice");
        expected.push(SECRET.len() as u8);
        expected.extend_from_slice(SECRET.as_bytes());
        // The name as it is (kind 3), not an address.
        expected.extend_from_slice(&[5, 1, 0, 3, 9]);
        expected.extend_from_slice(b"localhost");
        expected.extend_from_slice(&port.to_be_bytes());
        assert!(said.starts_with(&expected));
    }
    assert_eq!(http.seen()[0].uri, "/page");
    assert_eq!(https.seen()[0].version, Version::HTTP_2);

    let by_way_of = format!("socks5h://127.0.0.1:{}", tap.port);
    let credentials = format!("alice:{SECRET}");
    let control = curl(&["-x", &by_way_of, "-U", &credentials, &by_name(&http)]).await;
    assert!(control.is_none_or(|control| control == "200 000"));

    let wrong = sessions([proxy("socks5", running.port, "bob", SECRET)]);
    let wrong = self::stack(&wrong, builder().build().unwrap());
    assert_eq!(error(get(&wrong, "a", &http.url("/")).await).kind(), ClientErrorKind::ProxyCredentials);
    let none: Proxy = format!("socks5://127.0.0.1:{}", running.port).parse().unwrap();
    let none = self::stack(&sessions([none]), builder().build().unwrap());
    assert_eq!(error(get(&none, "a", &http.url("/")).await).kind(), ClientErrorKind::ProxyCredentials);
    let nowhere = format!("http://127.0.0.1:{}/", free_port().await);
    assert_eq!(error(get(&stack, "a", &nowhere).await).kind(), ClientErrorKind::OriginUnreachable);
}

#[tokio::test]
async fn a_name_that_only_the_proxy_knows_is_not_asked_for_here() {
    let origin = Origin::https(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (listener.local_addr().unwrap().port(), origin.address);
    // A SOCKS5 proxy in whose world every name is the origin's.
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 300];
                client.read_exact(&mut buffer[..3]).await?;
                client.write_all(&[5, 0]).await?;
                client.read_exact(&mut buffer[..5]).await?;
                let length = usize::from(buffer[4]);
                client.read_exact(&mut buffer[..length + 2]).await?;
                client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
                let mut server = TcpStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let client = builder().add_root_certificates([origin.certificate.clone()]).build().unwrap();
    let proxy: Proxy = format!("socks5://127.0.0.1:{port}").parse().unwrap();
    assert_eq!(proxy.server().unwrap().scheme(), ProxyScheme::Socks5);
    let stack = stack(&sessions([proxy]), client);
    good(get(&stack, "a", "https://origin.invalid/").await);
    assert_eq!(origin.seen()[0].headers["host"], "origin.invalid");
}

#[tokio::test]
async fn a_proxy_can_be_spoken_to_over_tls() {
    let Some(running) = tinyproxy("alice").await else { return };
    let tap = Tap::start(running.port, true).await;
    let (http, https) = (Origin::http().await, Origin::https(&["h2"]).await);
    let roots = [tap.certificate.clone(), https.certificate.clone()];
    let client = builder().add_root_certificates(roots).build().unwrap();
    let stack = stack(&sessions([proxy("https", tap.port, "alice", "pass")]), client);
    good(get(&stack, "a", &http.url("/")).await);
    good(get(&stack, "a", &https.url("/")).await);
    let heads = tap.heads();
    assert!(
        heads[0].starts_with(&format!("GET {} HTTP/1.1\r\n", http.url("/"))) && has_authorization(&heads[0])
    );
    assert!(heads[1].starts_with(&format!("CONNECT {} ", https.address)) && has_authorization(&heads[1]));
    assert_eq!(https.seen()[0].version, Version::HTTP_2, "the origin's ALPN, not the proxy's");
}

#[tokio::test]
async fn each_session_goes_by_its_own_proxy_before_and_after_a_renewal() {
    let (Some(first), Some(second)) = (tinyproxy("alice").await, tinyproxy("bob").await) else { return };
    let origin = Origin::http().await;
    let taps = [Tap::before(first.port).await, Tap::before(second.port).await];
    let proxies =
        [("alice", &taps[0]), ("bob", &taps[1])].map(|(user, tap)| proxy("http", tap.port, user, "pass"));
    let sessions = sessions(proxies);
    let stack = stack(&sessions, builder().build().unwrap());
    for round in 0..2 {
        for session in ["a", "b"] {
            good(get(&stack, session, &origin.url(&format!("/{session}{round}"))).await);
            good(get(&stack, session, &origin.url(&format!("/{session}{round}"))).await);
        }
        for session in ["a", "b"] {
            sessions.session(session).clear();
        }
    }
    let paths = |tap: &Tap| -> Vec<String> {
        let heads = tap.heads().concat();
        let gets = heads.split("GET ").skip(1);
        gets.map(|rest| rest.split_once(' ').unwrap().0.rsplit_once('/').unwrap().1.to_owned()).collect()
    };
    // At the renewal each of them got the profile that the other one had.
    let swapped = |tap: &Tap| paths(tap).into_iter().collect::<HashSet<_>>();
    let (of_first, of_second) = (swapped(&taps[0]), swapped(&taps[1]));
    assert!(of_first.is_disjoint(&of_second), "{of_first:?} {of_second:?}");
    assert!(of_first.contains("a0") && of_second.contains("b0"));
    assert!(of_second.contains("a1") && of_first.contains("b1"), "{of_first:?} {of_second:?}");
}

#[tokio::test]
async fn a_label_tells_the_proxy_which_identity_it_serves() {
    let tap_end = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tap = Tap::before(tap_end.local_addr().unwrap().port()).await;
    let sessions = sessions([proxy("http", tap.port, "alice", "pass")]);
    let client =
        builder().connect_timeout(Duration::from_millis(200)).proxy_username(|username, identity| {
            format!("{username}-{}-{}", identity.session_id(), identity.generation())
        });
    let stack = stack(&sessions, client.build().unwrap());
    // Nobody answers; what was asked is enough.
    let ask = async |session: &str, url: &str| {
        let _ = timeout(Duration::from_millis(300), send(&stack, session, url)).await;
    };
    ask("a", "http://origin.invalid/").await;
    ask("a", "https://origin.invalid/").await;
    sessions.session("a").clear();
    ask("a", "https://origin.invalid/").await;
    ask("b", "https://origin.invalid/").await;
    assert_eq!(error(send(&stack, "a:b", "http://origin.invalid/").await).kind(), ClientErrorKind::Config);
    let heads = tap.heads();
    // "alice-a-1:pass" and so on.
    let generation = sessions.session("a").generation().unwrap();
    let expected =
        [String::from("alice-a-1:pass"), format!("alice-a-{generation}:pass"), "alice-b-1:pass".into()];
    let [first, renewed, other] = expected.map(|text| format!("Basic {}", base64(text.as_bytes())));
    for (head, expected) in heads.iter().zip([&first, &first, &renewed, &other]) {
        assert!(head.contains(expected.as_str()), "{head}");
    }
    assert_eq!(heads.len(), 4);
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[tokio::test]
async fn a_proxy_that_closes_without_a_word_loses_no_request() {
    let Some(running) = tinyproxy("alice").await else { return };
    let origin = Origin::http().await;
    let stack = stack(&sessions([proxy("http", running.port, "alice", "pass")]), builder().build().unwrap());
    for _ in 0..200 {
        good(get(&stack, "a", &origin.url("/")).await);
    }
}
