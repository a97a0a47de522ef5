//! Moves a session from curl to this crate and back, with a single login: curl logs in, the example
//! imports its `cookies.txt`, fetches pages, and exports the cookies, with which curl continues.
//!
//! `cargo run --features formats --example handover` runs it against a local site.

mod site;

use std::{path::Path, process::Command};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use site::{Site, SiteConfig};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{Expired, RenewalLayer, SessionLayer, Sessions, cookies::CookieFormat};

const PAGES: usize = 100;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: curl is not installed");
        return Ok(());
    }
    let site = Site::start(SiteConfig::default()).await?;
    let folder = tempfile::tempdir()?;
    let (imported, exported) = (folder.path().join("imported.txt"), folder.path().join("exported.txt"));
    curl(&site.url("/login?acct=a"), "--cookie-jar", &imported).await?;

    let sessions = Sessions::new();
    let session = sessions.session("a");
    let cookies = session.import(CookieFormat::Netscape, &std::fs::read_to_string(&imported)?)?;
    println!("curl has logged in and exported {cookies} cookie");

    let client = ServiceBuilder::new()
        .layer(RenewalLayer::new(&sessions).expired_when(Expired::status([401, 403])))
        .layer(SessionLayer::new(&sessions))
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());
    for page in 0..PAGES {
        // Cookies that the site sets now are exported too.
        let url = site.url(&format!("/page/{page}?acct=a&set_cookie=seen%3D{page}%3B%20Path%3D/"));
        let request = Request::get(url).extension(session.clone()).body(Empty::new())?;
        let response = client.clone().oneshot(request).await?;
        assert!(response.status().is_success(), "page {page}: {}", response.status());
    }

    let (text, report) = session.export(CookieFormat::Netscape);
    assert!(report.is_lossless(), "{report:?}");
    std::fs::write(&exported, text)?;
    println!("{PAGES} pages fetched; {} cookies exported", report.converted());

    let page = curl(&site.url("/page/last?acct=a"), "--cookie", &exported).await?;
    let echo = curl(&site.url("/echo"), "--cookie", &exported).await?;
    assert!(page.starts_with("page last of a by s1"), "{page}");
    assert!(echo.contains(&format!("seen={}", PAGES - 1)), "{echo}");
    let seen = site.shutdown().await;
    assert_eq!((seen.logins(), seen.pages_refused), (1, 0));
    println!("curl has continued: {} pages with one login", seen.pages_ok);
    Ok(())
}

/// Fetches a page with curl, which reads or writes a file of cookies.
async fn curl(url: &str, option: &str, file: &Path) -> Result<String, BoxError> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", option]).arg(file).arg(url);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
