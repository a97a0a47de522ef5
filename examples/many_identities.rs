//! Acts as two hundred clients in one program, each with its own cookies, user agent and
//! connections.
//!
//! `cargo run --features client --example many_identities` runs it against a local site.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{Empty, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    IdentityClient, Profile, ProfileLayer, Profiles, SessionId, SessionLayer, Sessions, profile::Proxy,
};

const IDENTITIES: usize = 200;
const REQUESTS: usize = 20 * IDENTITIES;

/// A visitor of the site: the cookies, user agents and connections seen under one name.
type Visitors = Arc<Mutex<HashMap<String, [HashSet<String>; 3]>>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (url, visitors) = serve().await?;
    let profiles: Result<Vec<_>, _> = (0..IDENTITIES)
        .map(|number| {
            Profile::builder().proxy(Proxy::direct()).user_agent(format!("client-{number}")).build()
        })
        .collect();
    let sessions = Sessions::builder().profiles(Profiles::new(profiles?)?).build()?;
    let client = ServiceBuilder::new()
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .concurrency_limit(64)
        .service(IdentityClient::builder().build::<Empty<Bytes>>()?);

    for name in 0..IDENTITIES {
        sessions.session(name).add_cookies([("name", name.to_string())], &url)?;
    }
    let mut running = JoinSet::new();
    for number in 0..REQUESTS {
        let name = SessionId::from(number * 7 % IDENTITIES);
        let request = Request::get(&url).extension(name).body(Empty::new())?;
        running.spawn(client.clone().oneshot(request));
    }
    for response in running.join_all().await {
        assert_eq!(response?.status(), 200);
    }

    let visitors = visitors.lock().expect("the lock is not poisoned");
    assert_eq!(visitors.len(), IDENTITIES);
    let mut seen = HashSet::new();
    for (name, [cookies, agents, connections]) in &*visitors {
        assert_eq!((cookies.len(), agents.len()), (1, 1), "{name} was always the same client");
        for value in agents.iter().chain(connections) {
            assert!(seen.insert(value), "{name} shares {value} with another");
        }
    }
    let connections: usize = visitors.values().map(|[.., connections]| connections.len()).sum();
    println!(
        "{REQUESTS} requests of {IDENTITIES} identities over {connections} connections; no connection had two identities"
    );
    Ok(())
}

/// Starts a site that records the visitor that each request names.
async fn serve() -> Result<(String, Visitors), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let visitors = Visitors::default();
    let shared = visitors.clone();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let visitors = shared.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                record(&visitors, request.headers(), peer);
                async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok((url, visitors))
}

fn record(visitors: &Visitors, headers: &HeaderMap, peer: SocketAddr) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let cookie = text(header::COOKIE);
    let mut visitors = visitors.lock().expect("the lock is not poisoned");
    let [cookies, agents, connections] = visitors.entry(cookie.clone()).or_default();
    cookies.insert(cookie);
    agents.insert(text(header::USER_AGENT));
    connections.insert(peer.to_string());
}
