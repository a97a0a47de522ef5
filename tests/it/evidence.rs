//! Rejections that do not mean that the session has expired.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, StatusCode};
use tokio::{task::JoinSet, time::Instant};
use tower_client_sessions::{
    SessionInfo, Sessions,
    gate::{BoxError, RenewalErrorKind},
    renewal::{RejectedResponse, RenewalLayer},
    session::{NotReplayed, ResponseOutcome},
};

use crate::support::*;

/// What a crawl of one session came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    good: usize,
    refused: usize,
    expired: usize,
    errors: usize,
}

/// Fetches `paths` with `concurrency` workers.
async fn crawl(client: &Client, concurrency: usize, paths: impl IntoIterator<Item = String>) -> Tally {
    let paths = Arc::new(Mutex::new(paths.into_iter().collect::<VecDeque<_>>()));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let (client, paths) = (client.clone(), paths.clone());
        workers.spawn(async move {
            let mut tally = Tally::default();
            loop {
                let Some(path) = paths.lock().unwrap().pop_front() else { return tally };
                let Ok(response) = get(&client, "a", &path).await else {
                    tally.errors += 1;
                    continue;
                };
                let outcome = outcome(&response).0;
                assert_eq!(response.status() == StatusCode::OK, outcome == ResponseOutcome::Accepted);
                match outcome {
                    ResponseOutcome::Accepted => tally.good += 1,
                    ResponseOutcome::Refused => tally.refused += 1,
                    _ => tally.expired += 1,
                }
            }
        });
    }
    workers.join_all().await.into_iter().fold(Tally::default(), |sum, tally| Tally {
        good: sum.good + tally.good,
        refused: sum.refused + tally.refused,
        expired: sum.expired + tally.expired,
        errors: sum.errors + tally.errors,
    })
}

fn outcome(response: &http::Response<Body>) -> (ResponseOutcome, Option<NotReplayed>) {
    let info = response.extensions().get::<SessionInfo>().expect("every response has it");
    (info.outcome(), info.not_replayed())
}

/// Paths of `pages` pages, of which each `every`th is forbidden.
fn paths(pages: usize, every: usize) -> impl Iterator<Item = String> {
    (1..=pages).map(move |page| match page % every {
        0 => format!("/forbidden/{page}"),
        _ => format!("/page/{page}"),
    })
}

/// Logs in before the first request, on the defaults of the layer.
fn sessions() -> Sessions {
    Sessions::builder().login_first().build().unwrap()
}

fn verifying(sessions: &Sessions) -> RenewalLayer<Body> {
    renewing(sessions).verify_with_request(Request::get("http://a/alive").body(Body::default()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn hazard_52_forbidden_pages_cost_at_most_one_login_each_and_no_good_page() {
    for concurrency in [1, 8, 64, 512] {
        for every in [2, 10] {
            let (site, sessions) = (Site::new(), sessions());
            let client = client(&renewing(&sessions), &sessions, site.clone());
            let tally = crawl(&client, concurrency, paths(200, every)).await;
            let forbidden = 200 / every;
            let what = format!("{concurrency} concurrent, 1 in {every} forbidden: {tally:?}");
            assert_eq!((tally.good, tally.errors), (200 - forbidden, 0), "{what}");
            assert_eq!(tally.refused + tally.expired, forbidden, "{what}");
            assert!(site.logins() as usize <= 1 + forbidden, "{what}, {} logins", site.logins());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_verification_saves_the_login_of_a_forbidden_page() {
    for concurrency in [1, 8, 64] {
        let (site, sessions) = (Site::new(), sessions());
        let client = client(&verifying(&sessions), &sessions, site.clone());
        let tally = crawl(&client, concurrency, paths(200, 10)).await;
        let expected = Tally { good: 180, refused: 20, ..Tally::default() };
        assert_eq!((tally, site.logins()), (expected, 1), "{concurrency} concurrent");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verification_that_is_rejected_renews() {
    let (site, sessions) = (Site::new().budget(50), sessions());
    let client = client(&verifying(&sessions).replay_limit(20), &sessions, site.clone());
    let tally = crawl(&client, 8, paths(200, 201)).await;
    assert_eq!((tally.good, tally.errors), (200, 0), "{tally:?}, {} logins", site.logins());
    assert_eq!(site.logins(), 4);
}

#[tokio::test(start_paused = true)]
async fn hazard_55_a_session_that_expires_is_renewed_with_the_fewest_logins() {
    for (pages, budget, concurrency, logins) in
        [(2000, 500, 1, 4), (2000, 500, 64, 4), (2000, 500, 512, 4), (5000, 50, 64, 100)]
    {
        let (site, sessions) = (Site::new().budget(budget), sessions());
        let client = client(&renewing(&sessions).replay_limit(20), &sessions, site.clone());
        let tally = crawl(&client, concurrency, paths(pages, pages + 1)).await;
        let what = format!("{concurrency} concurrent, budget {budget}");
        assert_eq!((tally.good, tally.errors), (pages, 0), "{what}");
        assert_eq!(site.logins(), logins, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn forbidden_pages_among_real_expiries_lose_no_good_page() {
    for concurrency in [1, 8, 64] {
        let (site, sessions) = (Site::new().budget(50), sessions());
        let client = client(&renewing(&sessions).replay_limit(20), &sessions, site.clone());
        let tally = crawl(&client, concurrency, paths(1000, 10)).await;
        assert_eq!((tally.good, tally.errors), (900, 0), "{concurrency} concurrent: {tally:?}");
        // 18 logins are needed for the good pages; each forbidden page may cost one more.
        assert!(site.logins() <= 18 + 100, "{} logins", site.logins());
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_53_a_token_of_two_seconds_is_renewed_as_long_as_it_works() {
    let (site, sessions) = (Site::new(), sessions());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let started = Instant::now();
    let mut logins = 1;
    while started.elapsed() < Duration::from_secs(70) {
        assert_eq!(good(spawn_pages(&client, "a", 64)).await, 64);
        tokio::time::advance(Duration::from_secs(2)).await;
        site.expire("a");
        logins += 1;
    }
    assert_eq!(good(spawn_pages(&client, "a", 64)).await, 64);
    assert_eq!(site.logins(), logins);
}

#[tokio::test(start_paused = true)]
async fn a_site_that_rejects_everything_for_a_while_gets_few_logins() {
    let (site, sessions) = (Site::new(), sessions());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        let mut pages = JoinSet::new();
        for page in 0..16 {
            let client = client.clone();
            pages.spawn(async move { get(&client, "a", &format!("/forbidden/{page}")).await });
        }
        pages.join_all().await;
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert!(site.logins() <= 12, "{} logins", site.logins());
    // The backoff of the failed renewals ends, and the site has recovered.
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn hazard_34_a_renewed_session_that_is_always_rejected_ends_in_a_named_error() {
    let (site, sessions) = (Site::new(), sessions());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let mut error = None;
    for page in 0..50 {
        if let Err(failed) = get(&client, "a", &format!("/forbidden/{page}")).await {
            error = Some(failed);
            break;
        }
    }
    assert_eq!(kind(&Err(error.expect("it does not go on for ever"))), RenewalErrorKind::Rejected);
    assert!(site.logins() <= 6, "{} logins", site.logins());
}

#[tokio::test(start_paused = true)]
async fn hazard_51_a_response_to_an_earlier_request_is_no_evidence() {
    let (site, sessions) = (Site::held_pages(), sessions());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let spawn = |path: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { get(&client, "a", path).await })
    };
    site.respond(1);
    assert_eq!(spawn("/").await.unwrap().unwrap().status(), 200);
    // The first rejection renews the session; the page is sent again.
    let forbidden = spawn("/forbidden");
    settle().await;
    site.respond(1);
    settle().await;
    assert_eq!(site.logins(), 2);
    // A good page is sent before the second rejection arrives, and is returned after it.
    let earlier = spawn("/earlier");
    settle().await;
    site.respond(1);
    settle().await;
    assert!(!forbidden.is_finished());
    site.respond(1);
    settle().await;
    assert!(earlier.await.unwrap().unwrap().status().is_success());
    assert!(!forbidden.is_finished(), "that page may have been served before the session ended");
    let later = spawn("/later");
    settle().await;
    site.respond(1);
    settle().await;
    assert!(later.is_finished() && forbidden.is_finished());
    let response = forbidden.await.unwrap().unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(outcome(&response), (ResponseOutcome::Refused, Some(NotReplayed::Alive)));
    assert_eq!(site.logins(), 2);
    let stats = sessions.stats();
    assert_eq!((stats.responses_refused, stats.responses_expired), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_in_doubt_that_is_dropped_leaves_nothing_behind() {
    let (site, sessions) = (Site::new(), sessions());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let mut forbidden = Box::pin(get(&client, "a", "/forbidden"));
    let in_time = tokio::time::timeout(Duration::from_millis(10), &mut forbidden).await;
    assert!(in_time.is_err(), "it waits for evidence");
    drop(forbidden);
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(site.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clear_replays_a_request_in_doubt() {
    let (site, sessions) = (Site::new(), sessions());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    let forbidden = tokio::spawn({
        let client = client.clone();
        async move { get(&client, "a", "/forbidden").await }
    });
    settle().await;
    assert_eq!(site.pages_seen(), 3);
    sessions.session("a").clear();
    let response = forbidden.await.unwrap().unwrap();
    assert_eq!((response.status(), site.pages_seen()), (StatusCode::FORBIDDEN, 4));
    assert_eq!(outcome(&response), (ResponseOutcome::Refused, Some(NotReplayed::NoEvidence)));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_delivered_though_expired_says_so() {
    let (site, sessions) = (Site::new(), sessions());
    let client = client(&renewing(&sessions).replay_limit(0), &sessions, site.clone());
    let response = get(&client, "a", "/").await.unwrap();
    assert_eq!(outcome(&response), (ResponseOutcome::Accepted, None));
    site.expire("a");
    let response = get(&client, "a", "/").await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(outcome(&response), (ResponseOutcome::Expired, Some(NotReplayed::LimitReached)));
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    let post = Request::post("http://a/").extension(tower_client_sessions::SessionId::from("a"));
    site.expire("a");
    let client = client_for_posts(&sessions, &site);
    let response = tower::ServiceExt::oneshot(client, post.body(Body::from("x=1")).unwrap()).await.unwrap();
    assert_eq!(outcome(&response), (ResponseOutcome::Expired, Some(NotReplayed::Body)));
}

fn client_for_posts(sessions: &Sessions, site: &Site) -> Client {
    client(&renewing(sessions), sessions, site.clone())
}

#[tokio::test(start_paused = true)]
async fn expired_as_error_returns_an_error_in_place_of_the_response() {
    let (site, sessions) = (Site::new(), sessions());
    let client = client(&renewing(&sessions).expired_as_error(), &sessions, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    let error: BoxError = get(&client, "a", "/forbidden").await.unwrap_err();
    let rejected = error.downcast_ref::<RejectedResponse>().expect("a typed error");
    assert_eq!((rejected.outcome(), rejected.status()), (ResponseOutcome::Refused, StatusCode::FORBIDDEN));
    assert_eq!(rejected.not_replayed(), Some(NotReplayed::NoEvidence));
    assert_eq!(rejected.session(), &"a".into());
    assert!(error.to_string().contains("status 403"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn hazard_56_a_verification_that_fails_proves_nothing() {
    for concurrency in [1, 8, 64] {
        let (site, sessions) = (Site::new(), sessions());
        let layer = renewing(&sessions).verify_with(|_| async { Err("the page is unavailable".into()) });
        let client = client(&layer, &sessions, site.clone());
        let tally = crawl(&client, concurrency, paths(200, 10)).await;
        let what = format!("{concurrency} concurrent: {tally:?}, {} logins", site.logins());
        assert_eq!((tally.good, tally.errors, tally.refused + tally.expired), (180, 0, 20), "{what}");
        // As without a verification: at most one login for each forbidden page.
        assert!(site.logins() <= 21, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_57_the_wait_for_evidence_counts_as_waiting() {
    let (site, sessions) = (Site::new(), sessions());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    let started = Instant::now();
    let response = get(&client, "a", "/forbidden").await.unwrap();
    assert_eq!(outcome(&response), (ResponseOutcome::Refused, Some(NotReplayed::NoEvidence)));
    let waited = response.extensions().get::<SessionInfo>().unwrap().time_waiting();
    assert!(waited >= Duration::from_millis(20), "{waited:?} of {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn hazard_57_the_wait_for_a_verification_is_part_of_max_wait() {
    let (site, sessions) = (Site::new(), sessions());
    let config = tower_client_sessions::gate::GateConfig::new().max_wait(Duration::from_secs(3));
    let layer = renewing(&sessions).gate_config(config).verify_with(|_| std::future::pending());
    let client = client(&layer, &sessions, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    let started = Instant::now();
    // The verification has used up the time that the request may wait for a renewal.
    assert_eq!(kind(&get(&client, "a", "/forbidden").await), RenewalErrorKind::WaitTimedOut);
    assert!(started.elapsed() < Duration::from_millis(3500), "{:?}", started.elapsed());
}
