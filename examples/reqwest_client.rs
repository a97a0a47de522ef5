//! Uses reqwest below the layers, with a client per identity, created at its first request.
//!
//! `cargo run --features reqwest --example reqwest_client`. A single reqwest client would send the
//! requests of all sessions over the same connections and through the same proxy. reqwest drops the
//! extensions of a request in `execute`, so the identity is read before.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn as hyper_service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_client_sessions::{
    Identity, Profile, ProfileLayer, Profiles, SessionId, SessionLayer, Sessions, profile::Proxy,
};

/// The client of the latest generation of each session. Older clients are dropped with their idle
/// connections.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<SessionId, (u64, reqwest::Client)>>>);

impl Clients {
    fn client(&self, identity: &Identity, proxy: &Proxy) -> Result<reqwest::Client, BoxError> {
        let mut clients = self.0.lock().expect("the lock is not poisoned");
        let generation = identity.generation();
        match clients.get(identity.session_id()) {
            Some((known, client)) if *known == generation => return Ok(client.clone()),
            // A late request of an older generation does not use the client of its successor.
            Some((known, _)) if *known > generation => return build(proxy),
            _ => {}
        }
        let client = build(proxy)?;
        clients.insert(identity.session_id().clone(), (generation, client.clone()));
        Ok(client)
    }
}

fn build(proxy: &Proxy) -> Result<reqwest::Client, BoxError> {
    // The layers handle cookies and redirects. Proxies from the environment are ignored.
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let Some(server) = proxy.server() else {
        return Ok(builder.build()?);
    };
    let mut to = reqwest::Proxy::all(format!("{}://{}:{}", server.scheme(), server.host(), server.port()))?;
    if let Some(credentials) = server.credentials() {
        to = to.basic_auth(credentials.username(), credentials.password());
    }
    Ok(builder.proxy(to).build()?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A site that responds with the client's address, which distinguishes connections.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let service = hyper_service_fn(move |_: Request<Incoming>| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(peer.to_string()))))
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), service).await });
        }
    });

    let profile = Profile::builder().proxy(Proxy::direct()).user_agent("reqwest-example/1.0").build()?;
    let sessions = Sessions::builder().profiles(Profiles::new([profile])?).build()?;
    let clients = Clients::default();
    let stack = ServiceBuilder::new().layer(SessionLayer::new(&sessions)).layer(ProfileLayer::new()).service(
        service_fn(move |request: Request<&'static str>| {
            let clients = clients.clone();
            async move {
                let extensions = request.extensions();
                let identity = Identity::of(extensions).ok_or("no identity")?;
                // Fail closed: a request is sent only if its profile has a proxy, or is direct.
                let proxy = extensions.get::<Proxy>().ok_or("the profile has no proxy, not even direct")?;
                let client = clients.client(&identity, proxy)?;
                let response = client.execute(request.try_into()?).await?;
                Ok::<Response<reqwest::Body>, BoxError>(response.into())
            }
        }),
    );

    let mut seen = Vec::new();
    for session in ["alice", "bob", "alice", "bob"] {
        let request = Request::get(&url).extension(SessionId::from(session)).body("")?;
        let response = reqwest::Response::from(stack.clone().oneshot(request).await?).text().await?;
        println!("{session} is {response}");
        seen.push(response);
    }
    assert!(seen[0] == seen[2] && seen[1] == seen[3] && seen[0] != seen[1]);

    sessions.session("alice").clear();
    let request = Request::get(&url).extension(SessionId::from("alice")).body("")?;
    let renewed = reqwest::Response::from(stack.oneshot(request).await?).text().await?;
    println!("alice is {renewed} after her renewal");
    assert!(!seen.contains(&renewed));
    Ok(())
}
