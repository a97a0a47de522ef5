//! Sends requests through the stack of this crate to a real login server, and prints what came back
//! as JSON.
//!
//! `tests/peers.py` starts the servers and runs it.

use std::{error::Error, future::Future, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lexopt::{Arg, Parser, ValueExt};
use tokio::{sync::Mutex, task::JoinSet};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, Renewal, RenewalLayer, SessionId, SessionLayer, Sessions, redirect::follow_redirects,
};

type Body = Full<Bytes>;

/// The command line. Every option is required.
#[derive(Debug, Default)]
struct Options {
    url: String,
    password: String,
    pages: usize,
    concurrency: usize,
    /// Each request with this number is another one: `forbidden` or `change`.
    other: String,
    other_every: usize,
}

impl Options {
    fn from_env() -> Result<Self, BoxError> {
        let mut options = Self::default();
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("url") => options.url = parser.value()?.string()?,
                Arg::Long("password") => options.password = parser.value()?.string()?,
                Arg::Long("pages") => options.pages = parser.value()?.parse()?,
                Arg::Long("concurrency") => options.concurrency = parser.value()?.parse()?,
                Arg::Long("other") => options.other = parser.value()?.string()?,
                Arg::Long("other-every") => options.other_every = parser.value()?.parse()?,
                unknown => return Err(unknown.unexpected().into()),
            }
        }
        Ok(options)
    }

    fn is_other(&self, page: usize) -> bool {
        self.other_every > 0 && page % self.other_every == self.other_every - 1
    }
}

/// What came back.
#[derive(Debug, Default)]
struct Seen {
    pages: usize,
    /// Responses with status 403 to the other requests.
    forbidden: usize,
    wrong: usize,
    errors: usize,
    first_error: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Arc::new(Options::from_env()?);
    let sessions = Sessions::builder().login_first().build()?;
    let log_in = {
        let options = options.clone();
        move |renewal| log_in(renewal, options.clone())
    };
    let client = ServiceBuilder::new()
        .layer(
            RenewalLayer::new(&sessions)
                .expired_when(Expired::status([401, 403]).or(Expired::redirect_to("/login")))
                .renew_with(log_in),
        )
        .layer(follow_redirects(10))
        .layer(SessionLayer::new(&sessions))
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());

    let (next, seen) = (Arc::new(Mutex::new(0..options.pages)), Arc::new(Mutex::new(Seen::default())));
    let mut workers = JoinSet::new();
    for _ in 0..options.concurrency {
        let (options, client, next, seen) = (options.clone(), client.clone(), next.clone(), seen.clone());
        workers.spawn(async move {
            while let Some(page) = take(&next).await {
                let fetched = fetch(&options, page, |request| client.clone().oneshot(request)).await;
                let mut seen = seen.lock().await;
                match fetched {
                    Ok(Fetched::Page) => seen.pages += 1,
                    Ok(Fetched::Forbidden) => seen.forbidden += 1,
                    Ok(Fetched::Wrong) => seen.wrong += 1,
                    Err(error) => {
                        seen.errors += 1;
                        seen.first_error.get_or_insert_with(|| chain(&*error));
                    }
                }
            }
        });
    }
    workers.join_all().await;
    let (seen, stats) = (seen.lock().await, sessions.stats());
    let report = serde_json::json!({
        "pages": seen.pages,
        "forbidden": seen.forbidden,
        "wrong": seen.wrong,
        "errors": seen.errors,
        "first_error": seen.first_error,
        "renewals": stats.renewals_committed,
        "requests": stats.sent,
    });
    println!("{report}");
    Ok(())
}

async fn take(next: &Mutex<std::ops::Range<usize>>) -> Option<usize> {
    next.lock().await.next()
}

enum Fetched {
    Page,
    Forbidden,
    Wrong,
}

async fn fetch<F, R, E>(
    options: &Options,
    page: usize,
    send: impl FnOnce(Request<Body>) -> F,
) -> Result<Fetched, BoxError>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: http_body::Body<Error: Into<BoxError>>,
    E: Into<BoxError>,
{
    let is_other = options.is_other(page);
    let path = if is_other { &*options.other } else { "page" };
    let method = if path == "change" { Method::POST } else { Method::GET };
    let request = Request::builder()
        .method(method)
        .uri(format!("{}/{path}/{page}", options.url))
        .extension(SessionId::from("alice"))
        .body(Body::default())?;
    let response = send(request).await.map_err(Into::into)?;
    let status = response.status();
    let text = response.into_body().collect().await.map_err(Into::into)?.to_bytes();
    Ok(match status {
        StatusCode::OK if !is_other && text == format!("page {page} of alice\n") => Fetched::Page,
        StatusCode::FORBIDDEN if is_other => Fetched::Forbidden,
        _ => Fetched::Wrong,
    })
}

/// Logs in like a browser, and judges the login by the page where it ended.
///
/// All four servers reject a password with status 200 and the form, and their cookies may exist
/// before the login.
async fn log_in(renewal: Renewal<Body>, options: Arc<Options>) -> Result<(), BoxError> {
    let login = format!("{}/login", options.url);
    let page =
        renewal.send(Request::get(&login).body(Body::default())?).await?.into_body().text(64 * 1024).await?;
    let token =
        page.split_once("name=\"csrfmiddlewaretoken\" value=\"").and_then(|(_, rest)| rest.split_once('"'));
    let token = token.map_or("", |(token, _)| token);
    let form = format!("username=alice&password={}&csrfmiddlewaretoken={token}", options.password);
    let request = Request::post(login)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form))?;
    renewal.send(request).await?;
    renewal.require_not_at("/login")
}

fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
