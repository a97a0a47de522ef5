//! Opens ten thousand identities in one process, and prints the memory that each of them takes.
//!
//! `cargo run --release --features client --example identities -- 10000` (Linux only). The site is
//! another process, so that the results are those of the client alone.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    IdentityClient, Profile, ProfileLayer, Profiles, SessionId, SessionLayer, Sessions, profile::Proxy,
};

const KINDS: [&str; 3] = ["http1", "tls-http1", "tls-http2"];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve().await,
        [identities, kind, state] => measure(identities.parse()?, kind, state == "open").await,
        // A new process per run, which has no freed memory to reuse.
        ref rest => {
            let identities = rest.first().unwrap_or(&"10000");
            for kind in KINDS {
                for state in ["open", "closed"] {
                    Command::new(std::env::current_exe()?).args([identities, kind, state]).status()?;
                }
            }
            Ok(())
        }
    }
}

async fn measure(identities: usize, kind: &str, stay_open: bool) -> Result<(), BoxError> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut site = Command::new(std::env::current_exe()?).arg("serve").stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(site.stdout.take().ok_or("the site has no output")?).lines();
    let mut line = || lines.next().ok_or("the site has ended")?.map_err(BoxError::from);
    let (http, https, root) = (line()?, line()?, line()?);
    let root: Vec<u8> = root.split(',').map(str::parse).collect::<Result<_, _>>()?;

    let url = if kind == "http1" { &http } else { &https };
    let profile = Profile::builder().proxy(Proxy::direct()).user_agent("identities/1.0").build()?;
    let builder = IdentityClient::builder()
        .max_connections(2 * identities)
        .idle_timeout(Duration::from_millis(if stay_open { 600_000 } else { 20 }))
        .add_root_certificates([CertificateDer::from(root.clone())]);
    let builder = if kind == "tls-http2" { builder } else { builder.http1_only() };
    let client = builder.build::<Empty<Bytes>>()?;
    let sessions =
        Sessions::builder().profiles(Profiles::new([profile])?).max_sessions(2 * identities).build()?;
    let start = resident()?;
    let kept: Vec<_> = (0..identities).map(|name| sessions.session(name)).collect();
    let of_sessions = resident()?;
    let stack = ServiceBuilder::new()
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .concurrency_limit(32)
        .service(client.clone());
    let mut tasks = JoinSet::new();
    for (name, _) in kept.iter().enumerate() {
        let request = Request::get(url).extension(SessionId::from(name)).body(Empty::new())?;
        let response = stack.clone().oneshot(request);
        tasks.spawn(async move { response.await?.into_body().collect().await.map_err(BoxError::from) });
        if tasks.len() >= 32 {
            tasks.join_next().await.ok_or("a task")???;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    while !stay_open && client.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let each = |from: usize, to: usize| to.saturating_sub(from) as f64 / 1024.0 / identities as f64;
    println!(
        "{kind}: {} identities with {} connections: {:.1} KB each, plus {:.1} KB for the session",
        client.identities(),
        client.connections(),
        each(of_sessions, resident()?),
        each(start, of_sessions),
    );
    site.kill()?;
    site.wait()?;
    Ok(())
}

/// The memory in use, in bytes.
fn resident() -> Result<usize, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// Serves over `http` and `https`, and prints the addresses and the root certificate.
async fn serve() -> Result<(), BoxError> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (http, https) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let made = rcgen::generate_simple_self_signed([String::from("127.0.0.1")])?;
    let root: Vec<String> = made.cert.der().iter().map(u8::to_string).collect();
    println!("http://{}/\nhttps://{}/\n{}", http.local_addr()?, https.local_addr()?, root.join(","));
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = http.accept().await {
            tokio::spawn(serve_stream(stream));
        }
    });
    while let Ok((stream, _)) = https.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_stream(stream).await;
            }
        });
    }
    Ok(())
}

async fn serve_stream<S>(stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}
