//! A `RenewalGate` for a bearer token: a hundred concurrent requests find it expired, and one fetch
//! renews it for all.
//!
//! Run it with `cargo run --example bearer`. It uses its own API over loopback.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, task::JoinSet};
use tower::BoxError;
use tower_client_sessions::RenewalGate;

type Api = Client<HttpConnector, Empty<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let fetched = Arc::new(AtomicU32::new(0));
    let url = serve(fetched.clone()).await?;
    let api: Api = Client::builder(TokioExecutor::new()).build_http();

    // The first request fetches the first token.
    let token = RenewalGate::pending({
        let (api, url) = (api.clone(), format!("{url}/token"));
        move || fetch(api.clone(), url.clone())
    });
    for round in 1..=3 {
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            calls.spawn(call(api.clone(), format!("{url}/data"), token.clone()));
        }
        let statuses: Vec<_> = calls.join_all().await.into_iter().collect::<Result<_, _>>()?;
        assert!(statuses.iter().all(|status| *status == StatusCode::OK));
        println!("round {round}: {} responses, {} tokens fetched", statuses.len(), fetched.load(Relaxed));
        assert_eq!(fetched.load(Relaxed), round);
        // The API revokes the token without notice.
        api.get(format!("{url}/revoke").parse()?).await?;
    }
    Ok(())
}

/// Calls the API. A rejected token is renewed, once for all callers, and the call is repeated.
async fn call(api: Api, url: String, gate: RenewalGate<String>) -> Result<StatusCode, BoxError> {
    let mut permit = gate.acquire().await?;
    loop {
        let bearer = format!("Bearer {}", *permit);
        let request = Request::get(&url).header(header::AUTHORIZATION, bearer).body(Empty::new())?;
        let status = api.request(request).await?.status();
        if status != StatusCode::UNAUTHORIZED {
            return Ok(status);
        }
        permit = gate.reject(&permit).await?;
    }
}

async fn fetch(api: Api, url: String) -> Result<String, BoxError> {
    let response = api.get(url.parse()?).await?;
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().into())?)
}

/// Starts the API: `/token` returns the valid token, `/revoke` revokes it, and all other paths
/// require it.
async fn serve(fetched: Arc<AtomicU32>) -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let revoked = Arc::new(AtomicU32::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (fetched, revoked) = (fetched.clone(), revoked.clone());
            let response = service_fn(move |request: Request<Incoming>| {
                let good = format!("t{}", revoked.load(Relaxed));
                let mut response = Response::new(Full::<Bytes>::default());
                let given = request.headers().get(header::AUTHORIZATION);
                match request.uri().path() {
                    "/token" => {
                        fetched.fetch_add(1, Relaxed);
                        *response.body_mut() = Full::from(good);
                    }
                    "/revoke" => {
                        revoked.fetch_add(1, Relaxed);
                    }
                    _ if given.is_some_and(|given| given == &format!("Bearer {good}")) => {}
                    _ => *response.status_mut() = StatusCode::UNAUTHORIZED,
                }
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), response));
        }
    });
    Ok(url)
}
