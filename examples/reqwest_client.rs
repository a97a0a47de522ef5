//! reqwest below the layers: a client for each identity, made when the identity sends its first request.
//!
//! `cargo run --example reqwest_client`. One reqwest client for all would put requests of all sessions onto the same
//! connections, and has one proxy. Its extensions end at `execute`, so the identity is read before.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn as answering};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_client_sessions::{
    Identity, Profile, ProfileLayer, Profiles, SessionId, SessionLayer, Sessions, profile::Proxy,
};

/// The clients of the last generation of each session; what came before is dropped and its idle connections with it.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<SessionId, (u64, reqwest::Client)>>>);

impl Clients {
    fn client(&self, identity: &Identity, proxy: &Proxy) -> Result<reqwest::Client, BoxError> {
        let mut clients = self.0.lock().expect("nothing panics under it");
        let generation = identity.generation();
        match clients.get(identity.session_id()) {
            Some((known, client)) if *known == generation => return Ok(client.clone()),
            // A late request of an older generation shares nothing with the one that followed.
            Some((known, _)) if *known > generation => return build(proxy),
            _ => {}
        }
        let client = build(proxy)?;
        clients.insert(identity.session_id().clone(), (generation, client.clone()));
        Ok(client)
    }
}

fn build(proxy: &Proxy) -> Result<reqwest::Client, BoxError> {
    // Cookies and redirects are the layers' business; a proxy from the environment is nobody's.
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
    // A site that answers with the address that it was asked from, which tells connections apart.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let answer = answering(move |_: Request<Incoming>| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(peer.to_string()))))
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), answer).await });
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
                // Fail closed: without a word about the way out, nothing is sent.
                let proxy = extensions.get::<Proxy>().ok_or("the profile names no proxy, not even direct")?;
                let client = clients.client(&identity, proxy)?;
                let answer = client.execute(request.try_into()?).await?;
                Ok::<Response<reqwest::Body>, BoxError>(answer.into())
            }
        }),
    );

    let mut seen = Vec::new();
    for session in ["alice", "bob", "alice", "bob"] {
        let request = Request::get(&url).extension(SessionId::from(session)).body("")?;
        let answer = reqwest::Response::from(stack.clone().oneshot(request).await?).text().await?;
        println!("{session} is {answer}");
        seen.push(answer);
    }
    assert!(seen[0] == seen[2] && seen[1] == seen[3] && seen[0] != seen[1]);

    sessions.session("alice").clear();
    let request = Request::get(&url).extension(SessionId::from("alice")).body("")?;
    let renewed = reqwest::Response::from(stack.oneshot(request).await?).text().await?;
    println!("alice is {renewed} after her renewal");
    assert!(!seen.contains(&renewed));
    Ok(())
}
