//! Uses hyper-util's client below the layers, on a site whose sessions keep expiring.
//!
//! `cargo run --example hyper_client`. The client's pool uses scheme and authority as its key:
//! sessions share connections, and proxies are ignored. Use `IdentityClient` (feature `client`) if
//! identities must not be linked, or profiles have proxies.

mod site;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use site::{Site, SiteConfig};
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, Profile, ProfileLayer, Profiles, Renewal, RenewalLayer, SessionId, SessionLayer, Sessions,
};

type Body = Empty<Bytes>;

const SESSIONS: usize = 2;
const PAGES: usize = 80;
/// The number of pages per login.
const BUDGET: u32 = 20;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let site = Site::start(SiteConfig { budget: BUDGET, ..SiteConfig::default() }).await?;
    let login = site.url("/login");

    let profile = Profile::builder().user_agent("hyper-example/1.0").build()?;
    let sessions = Sessions::builder().profiles(Profiles::new([profile])?).login_first().build()?;
    let hyper = Client::builder(TokioExecutor::new())
        // Without a timer, the pool closes idle connections only when a connection is requested.
        .pool_timer(TokioTimer::new())
        .build_http::<Body>();
    let stack = ServiceBuilder::new()
        .layer(
            RenewalLayer::new(&sessions)
                .expired_when(Expired::status([403]))
                .renew_with(move |renewal: Renewal<Body>| {
                    let request =
                        Request::get(format!("{login}?acct={}", renewal.session_id())).body(Body::new());
                    async move {
                        renewal.send(request?).await?;
                        renewal.require_success()?;
                        renewal.require_cookie("sid")
                    }
                })
                .replay_limit(4),
        )
        .layer(SessionLayer::new(&sessions))
        .layer(ProfileLayer::new())
        .concurrency_limit(8)
        .service(hyper);

    let mut tasks = JoinSet::new();
    for page in 0..PAGES {
        let session = page % SESSIONS;
        let url = site.url(&format!("/page/{page}?acct={session}"));
        let request = Request::get(url).extension(SessionId::from(session)).body(Body::new())?;
        let response = stack.clone().oneshot(request);
        tasks.spawn(async move {
            let response = response.await?;
            let status = response.status();
            response.into_body().collect().await?;
            Ok::<_, BoxError>(status)
        });
    }
    while let Some(status) = tasks.join_next().await {
        assert_eq!(status??, 200);
    }
    let seen = site.shutdown().await;
    println!("{} pages with {} logins, over {} connections", seen.pages_ok, seen.logins(), seen.connections);
    assert_eq!(seen.pages_ok, PAGES as u64);
    assert_eq!(seen.logins(), PAGES as u32 / BUDGET, "the minimum");
    assert_eq!(seen.logins_concurrent_max(), 1);
    Ok(())
}
