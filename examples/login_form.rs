//! Logs in like a browser: reads the form, sends its CSRF token, and follows the redirects.
//!
//! `cargo run --example login_form` runs it against a local site.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, RedirectLayer, Renewal, RenewalLayer, SessionId, SessionInfo, SessionLayer, Sessions,
};

type Body = Full<Bytes>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let site = serve().await?;
    let sessions = Sessions::new();
    let login = format!("{site}/login");
    let client = ServiceBuilder::new()
        .layer(
            RenewalLayer::new(&sessions)
                // The layer below has followed the redirect to the form, so check the final page.
                .expired_when(Expired::redirect_to("/login"))
                .renew_with(move |renewal| log_in(renewal, login.clone())),
        )
        .layer(RedirectLayer::new(10))
        .layer(SessionLayer::new(&sessions))
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());

    for (page, generation, replays) in
        [("/account", 2, 1), ("/orders", 2, 0), ("/end", 2, 0), ("/account", 3, 1)]
    {
        let request =
            Request::get(format!("{site}{page}")).extension(SessionId::from("alice")).body(Body::default())?;
        let response = client.clone().oneshot(request).await?;
        let info = response.extensions().get::<SessionInfo>().ok_or("each response has it")?.clone();
        let text = response.into_body().collect().await?.to_bytes();
        println!("{page}: {text:?}, {info:?}");
        assert_eq!((info.generation(), info.replays()), (generation, replays));
        assert_eq!(text, format!("{page} of alice"));
    }
    Ok(())
}

/// The renewal rule. All its requests are sent under the candidate identity.
async fn log_in(renewal: Renewal<Body>, login: String) -> Result<(), BoxError> {
    let form = renewal.send(Request::get(&login).body(Body::default())?).await?;
    let page = form.into_body().text(64 * 1024).await?;
    let token = page.split_once("name=\"csrf\" value=\"").and_then(|(_, rest)| rest.split_once('"'));
    let (token, _) = token.ok_or("the page has no form with a token")?;
    let form = format!("user={}&password=open-sesame&csrf={token}", renewal.session_id());
    let request = Request::post(login)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form))?;
    renewal.send(request).await?;
    // Only a login redirects to another page. This failure is permanent: another attempt would be
    // rejected too, and may lock the account.
    renewal.require_not_at("/login")
}

/// Starts the site: a form at `/login`, pages that require a login, and `/end`, which ends all
/// logins.
async fn serve() -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let site = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond)));
        }
    });
    Ok(site)
}

async fn respond(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    /// The number of the valid login.
    static GOOD: AtomicU32 = AtomicU32::new(0);
    let cookies =
        request.headers().get(header::COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let has = |cookie: String| cookies.split("; ").any(|own| own == cookie);
    let is_good = GOOD.load(Relaxed) > 0 && has(format!("sid={}", GOOD.load(Relaxed)));
    let knows_form = has(String::from("form=7f3a"));
    let path = request.uri().path().to_owned();
    let response = Response::builder();
    let response = match (request.method().as_str(), &*path) {
        ("GET", "/login") => {
            let form = "<form method=\"post\"><input type=\"hidden\" name=\"csrf\" value=\"7f3a\">…</form>";
            response.header(header::SET_COOKIE, "form=7f3a; Path=/login; HttpOnly").body(Body::from(form))
        }
        ("POST", "/login") => {
            let form = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            if form != "user=alice&password=open-sesame&csrf=7f3a" || !knows_form {
                response.status(StatusCode::UNAUTHORIZED).body(Body::default())
            } else {
                let sid = format!("sid={}; Path=/; HttpOnly", GOOD.fetch_add(1, Relaxed) + 1);
                let response = response.status(StatusCode::SEE_OTHER).header(header::LOCATION, "/account");
                response.header(header::SET_COOKIE, sid).body(Body::default())
            }
        }
        _ if !is_good => {
            response.status(StatusCode::FOUND).header(header::LOCATION, "/login").body(Body::default())
        }
        _ => {
            if path == "/end" {
                GOOD.fetch_add(1, Relaxed);
            }
            response.body(Body::from(format!("{path} of alice")))
        }
    };
    Ok(response.expect("all parts are valid"))
}
