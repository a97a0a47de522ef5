//! Tests of the embedded site, by hyper's client and without sessions.

use std::{future::Future, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{task::JoinSet, time::timeout};

use crate::embedded::{LoginFault, Refusal, Site, SiteConfig};

/// Waits for at most 20 seconds, which is enough on a busy machine.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("the site stalled")
}

#[derive(Clone)]
struct Raw(Client<HttpConnector, Empty<Bytes>>);

impl Raw {
    fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    async fn get(&self, url: &str, cookie: &str) -> Result<Response<Incoming>, Error> {
        let request = Request::get(url).header(header::COOKIE, cookie).body(Empty::new()).unwrap();
        soon(self.0.request(request)).await
    }

    async fn status(&self, url: &str, cookie: &str) -> u16 {
        self.get(url, cookie).await.unwrap().status().as_u16()
    }

    /// Logs in and returns the `sid` as a cookie pair.
    async fn login(&self, site: &Site, account: &str) -> String {
        let response = self.get(&site.url(&format!("/login?acct={account}")), "").await.unwrap();
        let cookie = cookies(&response).remove(0);
        cookie.strip_suffix("; Path=/; HttpOnly").unwrap().to_owned()
    }
}

fn cookies(response: &Response<Incoming>) -> Vec<String> {
    let values = response.headers().get_all(header::SET_COOKIE).iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

async fn body(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn quick() -> SiteConfig {
    SiteConfig { login_ms: 0, latency_ms: 0, ..SiteConfig::default() }
}

#[tokio::test]
async fn a_sid_is_valid_for_exactly_its_number_of_pages() {
    let site = Site::start(SiteConfig { budget: 10, latency_ms: 5, ..quick() }).await.unwrap();
    let raw = Raw::new();
    let sid = raw.login(&site, "a").await;
    let mut pages = JoinSet::new();
    for page in 0..30 {
        let (raw, sid, url) = (raw.clone(), sid.clone(), site.url(&format!("/page/{page}?acct=a")));
        pages.spawn(async move { raw.status(&url, &sid).await });
    }
    let statuses = soon(pages.join_all()).await;
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 10);
    assert_eq!(statuses.iter().filter(|&&status| status == 403).count(), 20);

    let counters = site.shutdown().await;
    assert_eq!((counters.pages_ok, counters.pages_refused, counters.requests), (10, 20, 31));
    assert_eq!(counters.sid_pages.into_values().collect::<Vec<_>>(), [10]);
}

#[tokio::test]
async fn forbidden_pages_are_rejected_for_every_sid_and_use_no_budget() {
    let forbid_every = NonZeroUsize::new(10);
    let site = Site::start(SiteConfig { budget: 20, forbid_every, ..quick() }).await.unwrap();
    let raw = Raw::new();
    let sid = raw.login(&site, "a").await;
    let mut statuses = Vec::new();
    for page in 0..22 {
        statuses.push(raw.status(&site.url(&format!("/page/{page}?acct=a")), &sid).await);
    }
    let expected: Vec<u16> = (0..22).map(|page| if matches!(page, 10 | 20) { 403 } else { 200 }).collect();
    assert_eq!(statuses, expected);
    let counters = site.shutdown().await;
    assert_eq!((counters.pages_ok, counters.pages_refused, counters.pages_forbidden), (20, 0, 2));
}

#[tokio::test]
async fn a_cancelled_page_is_not_counted() {
    let site = Site::start(SiteConfig { budget: 1, ..quick() }).await.unwrap();
    let raw = Raw::new();
    let sid = raw.login(&site, "a").await;
    let url = site.url("/page/1?acct=a&late_ms=60000");
    let given_up = tokio::spawn({
        let (raw, sid) = (raw.clone(), sid.clone());
        async move { raw.get(&url, &sid).await }
    });
    let url = site.url("/page/2?acct=a");
    soon(async {
        while site.counters().requests < 2 {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert_eq!(raw.status(&url, &sid).await, 403);
    given_up.abort();
    soon(async { while raw.status(&url, &sid).await != 200 {} }).await;
    assert_eq!(site.counters().pages_ok, 1);
}

#[tokio::test]
async fn a_login_ends_only_the_older_sids_of_its_account() {
    let site = Site::start(quick()).await.unwrap();
    let raw = Raw::new();
    let first = raw.login(&site, "a").await;
    let other = raw.login(&site, "b").await;
    let page = raw.get(&site.url("/page/7?acct=a"), &format!("x=1; {first}")).await.unwrap();
    assert_eq!(body(page).await, "page 7 of a by s1\n");

    // The request arrived before the login, so it is served after the login.
    let url = site.url("/page/8?acct=a&late_ms=200&resend_sid&set_cookie=n%3Dv&header=x-a:1");
    let (late, second) = tokio::join!(raw.get(&url, &first), async {
        while site.counters().requests < 4 {
            tokio::task::yield_now().await;
        }
        raw.login(&site, "a").await
    });
    let late = late.unwrap();
    assert_eq!(late.status(), StatusCode::OK);
    assert_eq!(cookies(&late), ["sid=s1; Path=/; HttpOnly", "n=v"]);
    assert_eq!(late.headers()["x-a"], "1");
    for (sid, account, status) in [
        (&first, "a", 403),
        (&second, "a", 200),
        (&other, "b", 200),
        (&second, "b", 403),
        (&"".into(), "a", 403),
    ] {
        assert_eq!(raw.status(&site.url(&format!("/page/1?acct={account}")), sid).await, status);
    }
}

#[tokio::test]
async fn concurrent_logins_are_counted() {
    let site = Site::start(SiteConfig { login_ms: 100, ..quick() }).await.unwrap();
    let raw = Raw::new();
    tokio::join!(raw.login(&site, "a"), raw.login(&site, "a"), raw.login(&site, "b"));
    let counters = site.counters();
    assert_eq!((counters.accounts["a"].concurrent_max, counters.accounts["a"].logins), (2, 2));
    assert_eq!(counters.accounts["b"].concurrent_max, 1);
    assert_eq!((counters.logins(), counters.logins_concurrent_max()), (3, 2));
}

#[tokio::test]
async fn a_refresh_token_is_valid_once_and_its_second_use_ends_its_family() {
    let site = Site::start(quick()).await.unwrap();
    let (raw, login) = (Raw::new(), site.url("/login?acct=a"));
    let token = |response: &Response<Incoming>| response.headers()["x-refresh"].to_str().unwrap().to_owned();
    let refresh = |token: &str| site.url(&format!("/login?acct=a&refresh={token}"));
    let first = token(&raw.get(&login, "").await.unwrap());
    let refreshed = raw.get(&refresh(&first), "").await.unwrap();
    let (sid, second) = ("sid=s2", token(&refreshed));
    assert_eq!(cookies(&refreshed), ["sid=s2; Path=/; HttpOnly"]);
    assert_eq!(raw.status(&site.url("/page/1?acct=a"), sid).await, 200);
    // A token of another account, and an unknown token.
    assert_eq!(raw.status(&site.url(&format!("/login?acct=b&refresh={second}")), "").await, 401);
    assert_eq!(raw.status(&refresh("r99"), "").await, 401);
    assert_eq!(site.counters().refreshes_reused, 0);

    assert_eq!(raw.status(&refresh(&first), "").await, 401);
    assert_eq!(raw.status(&site.url("/page/1?acct=a"), sid).await, 403, "the family has ended");
    assert_eq!(raw.status(&refresh(&second), "").await, 401);
    assert_eq!(raw.status(&login, "").await, 200, "a new family starts");
    let seen = site.counters();
    assert_eq!((seen.refreshes, seen.refreshes_reused, seen.logins()), (1, 1, 3));
}

#[tokio::test]
async fn the_first_logins_fail_as_configured() {
    use LoginFault::{Close, Delay, Error, Never, NoCookie};
    let login_faults = vec![Error, NoCookie, Close, Never, Delay(50)];
    let site = Site::start(SiteConfig { login_faults, ..quick() }).await.unwrap();
    let raw = Raw::new();
    let url = site.url("/login?acct=a");
    assert_eq!(raw.status(&url, "").await, 500);
    let without = raw.get(&url, "").await.unwrap();
    assert_eq!((without.status().as_u16(), cookies(&without).len()), (200, 0));
    assert!(raw.get(&url, "").await.is_err());
    assert!(timeout(Duration::from_millis(100), raw.get(&url, "")).await.is_err());
    // The client has disconnected, which ends the login without a response.
    assert_eq!(raw.login(&site, "a").await, "sid=s1");
    assert_eq!(raw.login(&site, "a").await, "sid=s2");
    let account = &site.counters().accounts["a"];
    assert_eq!((account.tries, account.logins), (6, 2));
}

#[tokio::test]
async fn shutdown_ends_logins_without_a_response() {
    let site = Site::start(SiteConfig { login_faults: vec![LoginFault::Never], ..quick() }).await.unwrap();
    let (addr, url) = (site.addr(), site.url("/login?acct=a"));
    let waiting = tokio::spawn(async move { Raw::new().get(&url, "").await.is_err() });
    soon(async {
        while site.counters().requests < 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    soon(site.shutdown()).await;
    assert!(soon(waiting).await.unwrap());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn rejections_have_three_forms() {
    for (refusal, status, location, text) in [
        (Refusal::Forbidden, 403, None, "no session"),
        (Refusal::Page, 200, None, "session expired"),
        (Refusal::Redirect, 302, Some("/login"), ""),
    ] {
        let site = Site::start(SiteConfig { refusal, ..quick() }).await.unwrap();
        let response = Raw::new().get(&site.url("/page/1?acct=a"), "sid=none").await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().get(header::LOCATION).map(|to| to.to_str().unwrap()), location);
        assert!(body(response).await.contains(text));
        let form = Raw::new().get(&site.url("/login"), "").await.unwrap();
        assert_eq!((cookies(&form).len(), site.counters().accounts.len()), (0, 0));
    }
}

#[tokio::test]
async fn hops_set_a_cookie_and_redirect() {
    let (a, b) = (Site::start(quick()).await.unwrap(), Site::start(quick()).await.unwrap());
    let back = a.url("/echo").replace(':', "%3A");
    let there = b.url(&format!("/hop?cookie=b=2&to={back}")).replace(['&'], "%26");
    let raw = Raw::new();
    let first = raw.get(&a.url(&format!("/hop?cookie=a=1==&to={there}")), "").await.unwrap();
    assert_eq!((first.status().as_u16(), cookies(&first)), (302, vec!["a=1==; Path=/".to_owned()]));
    let second = raw.get(first.headers()[header::LOCATION].to_str().unwrap(), "").await.unwrap();
    assert_eq!(cookies(&second), ["b=2; Path=/"]);
    let last = raw.get(second.headers()[header::LOCATION].to_str().unwrap(), "q=\"x\\y\"").await.unwrap();
    let expected = format!(
        "{{\"method\": \"GET\", \"uri\": \"/echo\", \"headers\": \
         [[\"cookie\", \"q=\\\"x\\\\y\\\"\"], [\"host\", \"{}\"]]}}\n",
        a.addr(),
    );
    assert_eq!(body(last).await, expected);
}

#[tokio::test]
async fn responses_are_cut_as_configured() {
    let site = Site::start(quick()).await.unwrap();
    let raw = Raw::new();
    let sid = raw.login(&site, "a").await;
    assert!(raw.get(&site.url("/page/1?acct=a&cut=close"), &sid).await.is_err());

    let reset = raw.get(&site.url("/page/1?acct=a&cut=reset"), &sid).await.unwrap_err();
    let mut source: &dyn std::error::Error = &reset;
    while let Some(inner) = source.source() {
        source = inner;
    }
    let source: &std::io::Error = source.downcast_ref().expect("an error of the socket");
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionReset);

    let half = raw.get(&site.url("/page/1?acct=a&cut=half"), &sid).await.unwrap();
    assert_eq!(half.status(), StatusCode::OK);
    let mut half = half.into_body();
    assert_eq!(soon(half.frame()).await.unwrap().unwrap().into_data().unwrap(), "half a page");
    assert!(soon(half.frame()).await.unwrap().is_err());

    // Pages that were cut before their response do not count as served.
    assert_eq!(site.counters().pages_ok, 1);
}

#[tokio::test]
async fn an_exclusive_site_bans_an_account_with_two_concurrent_pages() {
    let site = Site::start(SiteConfig { exclusive: true, ..quick() }).await.unwrap();
    let raw = Raw::new();
    let sid = raw.login(&site, "a").await;
    for page in 0..20 {
        // The site knows the account by the `sid`.
        let response = raw.get(&site.url(&format!("/page/{page}")), &sid).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(body(response).await.contains("of a by"));
    }
    assert_eq!((site.counters().overlaps, site.counters().pages_in_flight_max), (0, 1));

    let unread = raw.get(&site.url("/page/1?drip_ms=60000"), &sid).await.unwrap();
    assert_eq!(unread.status(), 200);
    assert_eq!(raw.status(&site.url("/page/2"), &sid).await, 403);
    assert_eq!(raw.status(&site.url("/login?acct=a"), "").await, 403);
    assert_eq!(raw.status(&site.url("/login?acct=b"), "").await, 200);
    assert_eq!((site.counters().overlaps, site.counters().pages_in_flight_max), (1, 2));
    drop(unread);
}
