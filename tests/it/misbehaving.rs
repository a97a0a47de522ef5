//! A crawl with 512 concurrent requests of a site that misbehaves on purpose, over real sockets.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use http_body_util::BodyExt;
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::{task::JoinSet, time::timeout};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, RenewalLayer, SessionId, SessionInfo, SessionLayer, Sessions,
    gate::{BoxError, GateConfig},
};

use crate::{
    embedded::{LoginFault, Site, SiteConfig},
    support::Body,
};

const CONCURRENCY: usize = 512;
const PAGES: usize = 4096;
const ACCOUNTS: usize = 8;
const OUTSIDE: u64 = 40;

/// What happened to the requests of one crawler.
#[derive(Debug, Default)]
struct Outcomes {
    responses: u64,
    good: u64,
    rejected: u64,
    failed: u64,
    half_bodies: u64,
    /// Half responses whose connection closed before the head was read.
    lost_heads: u64,
    replays: u64,
}

/// The fault of the site for the first request of a page. Later requests of the page get no fault.
fn fault(page: usize) -> &'static str {
    match page % 16 {
        1 => "&cut=close",
        3 => "&cut=reset",
        5 => "&cut=half",
        7 => "&drip_ms=2",
        9 => "&late_ms=40",
        11 => "&late_ms=15",
        13 => "&resend_sid",
        _ => "",
    }
}

/// Requests a page until the whole body arrives.
async fn fetch<S, R>(client: &S, site: &str, page: usize, met: &mut Outcomes) -> Result<(), BoxError>
where
    S: tower::Service<Request<Body>, Response = http::Response<R>, Error = BoxError> + Clone,
    R: http_body::Body<Data = bytes::Bytes>,
    R::Error: Into<BoxError>,
{
    let account = format!("a{}", page % ACCOUNTS);
    for (number, fault) in [fault(page), "", "", "", ""].into_iter().enumerate() {
        let url = format!("{site}/page/{page}?acct={account}{fault}");
        let request = Request::get(url).extension(SessionId::from(account.as_str())).body(Body::default())?;
        let response = match client.clone().oneshot(request).await {
            Ok(response) => response,
            Err(error) if error.is::<legacy::Error>() => {
                assert!(
                    number == 0 && fault.starts_with("&cut"),
                    "page {page} failed without a fault: {error:?}"
                );
                met.failed += 1;
                met.lost_heads += u64::from(fault == "&cut=half");
                continue;
            }
            Err(error) => return Err(error),
        };
        met.responses += 1;
        met.replays += u64::from(response.extensions().get::<SessionInfo>().unwrap().replays());
        if response.status() != 200 {
            met.rejected += 1;
            continue;
        }
        match std::pin::pin!(response.into_body()).collect().await {
            Ok(body) => {
                let text = String::from_utf8(body.to_bytes().to_vec())?;
                assert!(text.starts_with(&format!("page {page} of {account}")), "{text}");
                met.good += 1;
                return Ok(());
            }
            Err(_) => {
                assert_eq!(fault, "&cut=half", "page {page} was cut without a fault");
                met.half_bodies += 1;
            }
        }
    }
    Err(format!("page {page} was never served").into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_27_no_request_is_lost_at_a_misbehaving_site_and_both_sides_count_the_same() {
    rlimit::increase_nofile_limit(4096).unwrap();
    let login_faults = vec![
        LoginFault::Error,
        LoginFault::Close,
        LoginFault::NoCookie,
        LoginFault::Never,
        LoginFault::Delay(30),
        LoginFault::Error,
        LoginFault::Error,
        LoginFault::Never,
    ];
    let config =
        SiteConfig { budget: 40, login_ms: 10, latency_ms: 1, login_faults, ..SiteConfig::default() };
    let site = Site::start(config).await.unwrap();
    let sessions = Sessions::new();
    let url = site.url("");
    let login = url.clone();
    let gate = GateConfig::new()
        .attempt_timeout(Duration::from_secs(2))
        .renewal_rate_limit(10_000, Duration::from_secs(60))
        .max_attempts(20)
        .backoff(Duration::from_millis(5), Duration::from_millis(50));
    let layer = RenewalLayer::new(&sessions)
        .expired_when(Expired::status([403]))
        .renew_with(move |renewal| {
            let url = format!("{login}/login?acct={}", renewal.session_id());
            async move {
                let response = renewal.send(Request::get(url).body(Body::default())?).await?;
                renewal.ensure_transient(
                    response.status().is_success() && renewal.has_cookie("sid"),
                    "the login was not accepted",
                )
            }
        })
        .replay_limit(30)
        .gate_config(gate);
    let hyper = legacy::Client::builder(TokioExecutor::new()).build_http();
    let stack = SessionLayer::new(&sessions).layer(hyper.clone());
    let client = ServiceBuilder::new().layer(layer).service(stack);

    // An outsider logs in to one account repeatedly, which ends its session in the middle of
    // responses. It starts after more pages than the failing logins could have served.
    let (start, started) = tokio::sync::oneshot::channel();
    let outsider = tokio::spawn({
        let url = site.url("/login?acct=a0");
        async move {
            started.await.unwrap();
            for _ in 0..OUTSIDE {
                let request = Request::get(&url).body(Body::default()).unwrap();
                hyper.request(request).await.unwrap();
            }
        }
    });
    let start = Arc::new(Mutex::new(Some(start)));
    let next = Arc::new(AtomicUsize::new(0));
    let mut crawlers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (client, url, next, start) = (client.clone(), url.clone(), next.clone(), start.clone());
        crawlers.spawn(async move {
            let mut met = Outcomes::default();
            loop {
                let page = next.fetch_add(1, Ordering::Relaxed);
                if page == CONCURRENCY + 1000 {
                    start.lock().unwrap().take().unwrap().send(()).unwrap();
                }
                if page >= PAGES {
                    return Ok::<_, BoxError>(met);
                }
                fetch(&client, &url, page, &mut met).await?;
            }
        });
    }
    let mut met = Outcomes::default();
    let all = timeout(Duration::from_secs(60), crawlers.join_all()).await.expect("a stall");
    for one in all {
        let one = one.unwrap();
        met.responses += one.responses;
        met.good += one.good;
        met.rejected += one.rejected;
        met.failed += one.failed;
        met.half_bodies += one.half_bodies;
        met.lost_heads += one.lost_heads;
        met.replays += one.replays;
    }
    timeout(Duration::from_secs(20), outsider).await.expect("a stall").unwrap();
    let stats = sessions.stats();
    drop(client);
    let saw = site.shutdown().await;
    let tries: u32 = saw.accounts.values().map(|account| account.tries).sum();
    println!(
        "{met:?}\n{stats:?}\nrequests {}, logins {tries}, {OUTSIDE} of them by the outsider",
        saw.requests
    );

    assert_eq!(met.good, PAGES as u64, "each page was fetched once");
    assert_eq!(saw.requests, stats.sent + OUTSIDE, "each send arrived, and nothing else");
    assert_eq!(u64::from(tries), stats.renewals_started + OUTSIDE, "one login per renewal");
    assert!(stats.renewals_committed <= u64::from(saw.logins()) - OUTSIDE, "no renewal without a login");
    // Replays after an ended redirect were not sent.
    let replayed = stats.replayed_expired + stats.replayed_stale;
    let (served, rejected) = (met.good + met.half_bodies, replayed + met.rejected);
    assert!(saw.pages_ok >= served && saw.pages_refused >= rejected);
    let unread = saw.pages_ok - served + saw.pages_refused - rejected;
    assert_eq!(unread, met.lost_heads, "each page was delivered, and each rejection replayed or delivered");
    assert!(met.replays <= stats.replayed());
    assert!(met.failed >= PAGES as u64 / 16, "the site misbehaved");
    for (name, account) in &saw.accounts {
        // An abandoned login continues at the site until the site sees that the connection closed.
        let abandoned = account.tries - account.logins;
        let max = 1 + u32::from(name == "a0") + abandoned;
        assert!(account.concurrent_max <= max, "{name}: {account:?}");
    }
    for session in sessions.all() {
        assert_eq!(session.waiting(), 0);
    }
}
