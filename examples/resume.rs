//! Kills a crawl, and continues it in another process with the same sessions and without a second
//! login.
//!
//! `cargo run --features formats --example resume` runs it against a local site. The crawl is this
//! program, started twice: `resume crawl SITE FILE`.

mod site;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use site::{Site, SiteConfig};
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, Renewal, RenewalLayer, SessionLayer, Sessions, session::snapshot::SnapshotErrorKind,
};

type Body = Empty<Bytes>;

const ACCOUNTS: usize = 4;
const PAGES: usize = 200;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [crawling, site, file] if crawling == "crawl" => crawl(site, Path::new(file)).await,
        _ => supervise().await,
    }
}

/// Starts the crawl, kills it, and starts it again.
async fn supervise() -> Result<(), BoxError> {
    let site = Site::start(SiteConfig::default()).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("sessions.json");

    let (mut first, lines) = start(&site, &file)?;
    let killed_at = tokio::task::spawn_blocking(move || {
        let mut pages = 0;
        for line in lines {
            pages += usize::from(line.starts_with("page"));
            if pages >= ACCOUNTS * PAGES / 2 {
                break;
            }
        }
        // SIGKILL or its equivalent: the process cannot save anything.
        first.kill().and_then(|()| first.wait()).map(|_| pages)
    })
    .await??;
    let logins = site.counters().logins();
    println!("killed after {killed_at} pages and {logins} logins");

    let (mut second, lines) = start(&site, &file)?;
    let (status, output) = tokio::task::spawn_blocking(move || {
        let output: Vec<String> = lines.filter(|line| !line.starts_with("page")).collect();
        second.wait().map(|status| (status, output))
    })
    .await??;
    println!("{}", output.join("\n"));
    let seen = site.shutdown().await;
    assert!(status.success(), "the second crawl failed: {status}");
    assert_eq!(seen.logins(), ACCOUNTS as u32, "one login per session, in both crawls together");
    assert!(output.iter().any(|line| line.starts_with("continued")), "the second crawl started from scratch");
    println!("{} pages served in total, {} logins", seen.pages_ok, seen.logins());
    Ok(())
}

/// Starts the crawl in another process, and returns its output.
fn start(site: &Site, file: &Path) -> Result<(Child, impl Iterator<Item = String> + Send + use<>), BoxError> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["crawl", &site.url("")])
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the crawl has no output")?;
    Ok((child, BufReader::new(output).lines().map_while(Result::ok)))
}

/// Fetches all pages of all accounts, starting with the state of the file.
async fn crawl(site: &str, file: &Path) -> Result<(), BoxError> {
    let builder = || Sessions::builder().login_first();
    let sessions = match Sessions::load(file, builder()).await {
        Ok((sessions, report)) => {
            println!("continued with {} sessions", report.restored());
            sessions
        }
        // This is the first crawl. Any other error is returned.
        Err(error) if error.kind() == SnapshotErrorKind::Read && !file.exists() => builder().build()?,
        Err(error) => return Err(error.into()),
    };
    // Changes are saved after ten milliseconds.
    let autosave = sessions.autosave(file).debounce(Duration::from_millis(10)).start();

    let login_url = site.to_owned() + "/login?acct=";
    let client = ServiceBuilder::new()
        .layer(RenewalLayer::new(&sessions).expired_when(Expired::status([401, 403])).renew_with(
            move |renewal: Renewal<Body>| {
                let login = Request::get(format!("{login_url}{}", renewal.session_id())).body(Body::new());
                async move {
                    renewal.send(login?).await?;
                    renewal.require_success()?;
                    renewal.require_cookie("sid")
                }
            },
        ))
        .layer(SessionLayer::new(&sessions))
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());

    let mut accounts = JoinSet::new();
    for account in 0..ACCOUNTS {
        let (session, client, site) = (sessions.session(account), client.clone(), site.to_owned());
        accounts.spawn(async move {
            let next = session.data("next").and_then(|next| next.parse().ok()).unwrap_or(0);
            for page in next..PAGES {
                let url = format!("{site}/page/{page}?acct={account}");
                let request = Request::get(url).extension(session.clone()).body(Body::new())?;
                let response = client.clone().oneshot(request).await?;
                if !response.status().is_success() {
                    return Err(format!("page {page}: {}", response.status()).into());
                }
                // A page that was fetched but not recorded is fetched again, so none is omitted.
                session.set_data("next", (page + 1).to_string());
                println!("page {page} of {account}");
            }
            Ok::<_, BoxError>(())
        });
    }
    for account in accounts.join_all().await {
        account?;
    }
    autosave.shutdown().await?;
    Ok(())
}
