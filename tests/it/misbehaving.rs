//! A site that misbehaves on purpose, over real sockets, crawled at 512 at once.

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

const AT_ONCE: usize = 512;
const PAGES: usize = 4096;
const ACCOUNTS: usize = 8;
const OUTSIDE: u64 = 40;

/// What one crawler has met.
#[derive(Debug, Default)]
struct Met {
    answers: u64,
    good: u64,
    refused: u64,
    broken_off: u64,
    half_bodies: u64,
    /// Half answers whose connection was gone before even the head was read.
    lost_heads: u64,
    replays: u64,
}

/// How the site treats a page on the first try; later tries are treated well.
fn mood(page: usize) -> &'static str {
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

/// Fetches a page until it is there whole.
async fn fetch<S, R>(client: &S, site: &str, page: usize, met: &mut Met) -> Result<(), BoxError>
where
    S: tower::Service<Request<Body>, Response = http::Response<R>, Error = BoxError> + Clone,
    R: http_body::Body<Data = bytes::Bytes>,
    R::Error: Into<BoxError>,
{
    let account = format!("a{}", page % ACCOUNTS);
    for (number, mood) in [mood(page), "", "", "", ""].into_iter().enumerate() {
        let url = format!("{site}/page/{page}?acct={account}{mood}");
        let request = Request::get(url).extension(SessionId::from(account.as_str())).body(Body::default())?;
        let response = match client.clone().oneshot(request).await {
            Ok(response) => response,
            Err(error) if error.is::<legacy::Error>() => {
                assert!(number == 0 && mood.starts_with("&cut"), "page {page} broke off unasked: {error:?}");
                met.broken_off += 1;
                met.lost_heads += u64::from(mood == "&cut=half");
                continue;
            }
            Err(error) => return Err(error),
        };
        met.answers += 1;
        met.replays += u64::from(response.extensions().get::<SessionInfo>().unwrap().replays());
        if response.status() != 200 {
            met.refused += 1;
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
                assert_eq!(mood, "&cut=half", "page {page} was cut unasked");
                met.half_bodies += 1;
            }
        }
    }
    Err(format!("page {page} was never served").into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_27_nothing_is_lost_at_a_site_that_misbehaves_and_both_sides_count_the_same() {
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
                let answer = renewal.send(Request::get(url).body(Body::default())?).await?;
                renewal.ensure(
                    answer.status().is_success() && renewal.has_cookie("sid"),
                    "the login was not accepted",
                )
            }
        })
        .replay_limit(30)
        .gate_config(gate);
    let hyper = legacy::Client::builder(TokioExecutor::new()).build_http();
    let stack = SessionLayer::new(&sessions).layer(hyper.clone());
    let client = ServiceBuilder::new().layer(layer).service(stack);

    // Somebody else logs in to one account again and again: its session ends in the middle of bodies. It begins when more pages
    // were served than the logins that fail could have brought.
    let (begin, begun) = tokio::sync::oneshot::channel();
    let outsider = tokio::spawn({
        let url = site.url("/login?acct=a0");
        async move {
            begun.await.unwrap();
            for _ in 0..OUTSIDE {
                let request = Request::get(&url).body(Body::default()).unwrap();
                hyper.request(request).await.unwrap();
            }
        }
    });
    let begin = Arc::new(Mutex::new(Some(begin)));
    let next = Arc::new(AtomicUsize::new(0));
    let mut crawlers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, url, next, begin) = (client.clone(), url.clone(), next.clone(), begin.clone());
        crawlers.spawn(async move {
            let mut met = Met::default();
            loop {
                let page = next.fetch_add(1, Ordering::Relaxed);
                if page == AT_ONCE + 1000 {
                    begin.lock().unwrap().take().unwrap().send(()).unwrap();
                }
                if page >= PAGES {
                    return Ok::<_, BoxError>(met);
                }
                fetch(&client, &url, page, &mut met).await?;
            }
        });
    }
    let mut met = Met::default();
    let all = timeout(Duration::from_secs(60), crawlers.join_all()).await.expect("a stall");
    for one in all {
        let one = one.unwrap();
        met.answers += one.answers;
        met.good += one.good;
        met.refused += one.refused;
        met.broken_off += one.broken_off;
        met.half_bodies += one.half_bodies;
        met.lost_heads += one.lost_heads;
        met.replays += one.replays;
    }
    timeout(Duration::from_secs(20), outsider).await.expect("a stall").unwrap();
    let stats = sessions.stats();
    drop(client);
    let saw = site.shutdown().await;
    let tries: u32 = saw.accounts.values().map(|account| account.tries).sum();
    println!("{met:?}\n{stats:?}\nrequests {}, logins {tries}, {OUTSIDE} of them from outside", saw.requests);

    assert_eq!(met.good, PAGES as u64, "every page was fetched, once");
    assert_eq!(saw.requests, stats.sent + OUTSIDE, "every send arrived, and nothing else did");
    assert_eq!(u64::from(tries), stats.renewals_started + OUTSIDE, "one login to a renewal");
    assert!(stats.renewals_committed <= u64::from(saw.logins()) - OUTSIDE, "no renewal without a login");
    // What was retired was never sent.
    let replayed = stats.replayed_expired + stats.replayed_stale;
    let (served, refused) = (met.good + met.half_bodies, replayed + met.refused);
    assert!(saw.pages_ok >= served && saw.pages_refused >= refused);
    let unheard = saw.pages_ok - served + saw.pages_refused - refused;
    assert_eq!(unheard, met.lost_heads, "each page was delivered, and each refusal replayed or delivered");
    assert!(met.replays <= stats.replayed());
    assert!(met.broken_off >= PAGES as u64 / 16, "the site did misbehave");
    for (name, account) in &saw.accounts {
        // A login that was given up runs on at the site until its end of the connection is noticed.
        let given_up = account.tries - account.logins;
        let most = 1 + u32::from(name == "a0") + given_up;
        assert!(account.concurrent_max <= most, "{name}: {account:?}");
    }
    for session in sessions.all() {
        assert_eq!(session.waiting(), 0);
    }
}
