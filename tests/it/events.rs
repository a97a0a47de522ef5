//! Events of sessions, renewals and requests.

use std::{
    future::Future,
    sync::{Arc, OnceLock, mpsc},
    task::{Context, Wake, Waker},
    time::Duration,
};

use http::StatusCode;
use tokio_test::{assert_pending, assert_ready, task};
use tower::ServiceExt;
use tower_client_sessions::{
    Sessions,
    gate::{GateConfig, RenewalErrorKind, RenewalReason},
    session::{EventKind, Events, ReplayCause, RequestPhase, ResponseOutcome},
};

use crate::support::*;

/// All events so far, each with its session.
fn received(events: &mut Events) -> Vec<(String, EventKind)> {
    std::iter::from_fn(|| events.try_recv()).map(|event| (event.session.to_string(), event.kind)).collect()
}

/// Removes the durations of renewals.
fn timeless(kind: EventKind) -> EventKind {
    match kind {
        EventKind::RenewalCommitted { generation, .. } => {
            EventKind::RenewalCommitted { generation, took: Duration::ZERO }
        }
        kind => kind,
    }
}

fn phases(events: &mut Events) -> Vec<(u64, RequestPhase)> {
    let request = |(_, kind)| match kind {
        EventKind::Request { number, phase } => Some((number, phase)),
        _ => None,
    };
    received(events).into_iter().filter_map(request).collect()
}

const OK: StatusCode = StatusCode::OK;

#[tokio::test(start_paused = true)]
async fn events_follow_a_request_from_start_to_response_including_its_renewal() {
    use EventKind::*;
    let (site, sessions) = (Site::new(), Sessions::new());
    let mut events = sessions.events();
    let client = client(&renewing(&sessions), &sessions, site);
    get(&client, "a", "/").await.unwrap();
    let request = |phase| Request { number: 0, phase };
    let kinds: Vec<_> = received(&mut events).into_iter().map(|(_, kind)| timeless(kind)).collect();
    assert_eq!(
        kinds,
        [
            Created,
            Activated { generation: 1 },
            request(RequestPhase::Started),
            request(RequestPhase::Sent { generation: 1 }),
            Invalidated { generation: 1 },
            RenewalStarted { generation: 2, reason: RenewalReason::Expired },
            request(RequestPhase::Replayed { generation: 1, cause: ReplayCause::Expired }),
            request(RequestPhase::Waiting),
            RenewalCommitted { generation: 2, took: Duration::ZERO },
            Activated { generation: 2 },
            request(RequestPhase::Released),
            request(RequestPhase::Sent { generation: 2 }),
            request(RequestPhase::Completed {
                generation: 2,
                status: OK,
                outcome: ResponseOutcome::Accepted
            }),
        ]
    );
    assert_eq!(events.lagged(), 0);
}

#[tokio::test(start_paused = true)]
async fn renewal_started_has_the_reason() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let mut events = sessions.events();
    let client = client(&renewing(&sessions).max_uses(2), &sessions, site);
    let mut reasons = || -> Vec<RenewalReason> {
        let reason = |(_, kind)| match kind {
            EventKind::RenewalStarted { reason, .. } => Some(reason),
            _ => None,
        };
        received(&mut events).into_iter().filter_map(reason).collect()
    };
    get(&client, "a", "/").await.unwrap();
    assert_eq!(reasons(), [RenewalReason::Expired]);
    for _ in 0..2 {
        get(&client, "a", "/").await.unwrap();
    }
    assert_eq!(reasons(), [RenewalReason::LimitReached], "the third use of an identity with a limit of two");
    sessions.session("a").renew().await.unwrap();
    assert_eq!(reasons(), [RenewalReason::Requested]);
    sessions.session("a").clear();
    get(&client, "a", "/").await.unwrap();
    assert_eq!(reasons(), [RenewalReason::Cleared]);
}

#[tokio::test(start_paused = true)]
async fn event_times_follow_the_clock_and_never_go_back() {
    let (site, sessions) = (Site::held(), Sessions::new());
    let mut events = sessions.events();
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let mut request = task::spawn(get(&client, "a", "/"));
    let second = Duration::from_secs(1);
    assert_pending!(request.poll());
    tokio::time::advance(second).await;
    site.respond(2);
    assert_pending!(request.poll());
    settle().await;
    tokio::time::advance(second).await;
    site.end_logins(1);
    settle().await;
    assert!(assert_ready!(request.poll()).is_ok());
    let events: Vec<_> = std::iter::from_fn(|| events.try_recv()).collect();
    assert!(events.is_sorted_by_key(|event| event.at));
    let at =
        |wanted: &dyn Fn(&EventKind) -> bool| events.iter().find(|event| wanted(&event.kind)).unwrap().at;
    let created = at(&|kind| matches!(kind, EventKind::Created));
    let started = at(&|kind| matches!(kind, EventKind::RenewalStarted { .. }));
    let committed = at(&|kind| matches!(kind, EventKind::RenewalCommitted { took, .. } if *took >= second));
    assert!(started - created >= second && committed - started >= second, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_is_reported_as_the_cause_of_the_replay() {
    let (site, sessions) = (Site::held_pages(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    let session = sessions.session("a");
    session.renew().await.unwrap();
    site.respond(1);
    get(&client, "a", "/").await.unwrap();
    // The site rejects both. The first response starts the renewal; the second one arrives after
    // it.
    site.expire("a");
    let mut first = task::spawn(get(&client, "a", "/"));
    assert_pending!(first.poll());
    let mut events = sessions.events();
    let mut late = task::spawn(get(&client, "a", "/"));
    assert_pending!(late.poll());
    site.respond(1);
    assert_pending!(first.poll());
    settle().await;
    assert_pending!(first.poll());
    assert_eq!(session.generation(), Some(3));
    site.respond(1);
    assert_pending!(late.poll());
    site.respond(2);
    for request in [&mut first, &mut late] {
        assert_eq!(assert_ready!(request.poll()).unwrap().status(), 200);
    }
    // The first request started before the subscription, so it has no number and no events.
    assert_eq!(
        phases(&mut events),
        [
            (0, RequestPhase::Started),
            (0, RequestPhase::Sent { generation: 2 }),
            (0, RequestPhase::Replayed { generation: 2, cause: ReplayCause::Stale }),
            (0, RequestPhase::Sent { generation: 3 }),
            (0, RequestPhase::Completed { generation: 3, status: OK, outcome: ResponseOutcome::Accepted }),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn dropped_rejected_and_failed_requests_are_reported() {
    let (site, sessions) = (Site::held_logins(), Sessions::builder().login_first().build().unwrap());
    let mut events = sessions.events();
    let layer = renewing(&sessions).gate_config(
        GateConfig::new().max_waiting(1).max_attempts(1).backoff(Duration::ZERO, Duration::ZERO),
    );
    let client = client(&layer, &sessions, site.clone());
    let mut waiting = task::spawn(get(&client, "a", "/"));
    assert_pending!(waiting.poll());
    assert!(get(&client, "a", "/").await.is_err());
    drop(waiting);
    let response = async {
        site.logins_go([Login::Good]);
        get(&client, "b", "/").await
    };
    let mut response = task::spawn(response);
    assert_pending!(response.poll());
    settle().await;
    sessions.session("b").clear();
    settle().await;
    site.end_logins(3);
    settle().await;
    assert!(assert_ready!(response.poll()).is_ok());
    let all = received(&mut events);
    let of_a: Vec<_> =
        all.iter().filter(|(session, _)| session == "a").map(|(_, kind)| kind.clone()).collect();
    let request = |number, phase| EventKind::Request { number, phase };
    let rejected = RequestPhase::Rejected { error: RenewalErrorKind::QueueFull };
    for expected in
        [request(1, rejected), request(0, RequestPhase::Waiting), request(0, RequestPhase::Dropped)]
    {
        assert!(of_a.contains(&expected), "{expected:?} in {of_a:?}");
    }
    let abandoned = |(session, kind): &(String, EventKind)| {
        session == "b" && matches!(kind, EventKind::RenewalAbandoned { .. })
    };
    assert!(all.iter().any(abandoned), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn renewal_failed_has_the_kind_of_the_error() {
    let kinds = |login| async move {
        let (site, sessions) = (Site::new(), Sessions::builder().login_first().build().unwrap());
        site.logins_go([login; 9]);
        let mut events = sessions.events();
        let gate = GateConfig::new().max_attempts(2).attempt_timeout(Duration::from_secs(1));
        let client = client(&renewing(&sessions).gate_config(gate), &sessions, site);
        assert!(get(&client, "a", "/").await.is_err());
        let failed = |(_, kind)| match kind {
            EventKind::RenewalFailed { generation, error, .. } => Some((generation, error)),
            _ => None,
        };
        received(&mut events).into_iter().filter_map(failed).collect::<Vec<_>>()
    };
    assert_eq!(kinds(Login::Error).await, [(2, RenewalErrorKind::Failed), (3, RenewalErrorKind::Failed)]);
    assert_eq!(kinds(Login::Never).await, [(2, RenewalErrorKind::TimedOut), (3, RenewalErrorKind::TimedOut)]);

    let (site, sessions) = (Site::new(), Sessions::new());
    let mut events = sessions.events();
    let client = client(&ruleless(&sessions), &sessions, site);
    sessions.session("a").clear();
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 403);
    let leader_failed = |(_, kind): &(String, EventKind)| {
        matches!(kind, EventKind::RenewalFailed { error: RenewalErrorKind::LeaderFailed, .. })
    };
    assert!(received(&mut events).iter().any(leader_failed));
}

#[tokio::test(start_paused = true)]
async fn creation_renaming_eviction_and_removal_of_sessions_are_reported() {
    let sessions = Sessions::builder().max_sessions(1).build().unwrap();
    let mut events = sessions.events();
    drop(sessions.session("a"));
    drop(sessions.session("b"));
    let session = sessions.session("b");
    session.replace(tower_client_sessions::cookies::Jar::default());
    session.rename("c").unwrap();
    sessions.remove("c");
    let names: Vec<_> =
        received(&mut events).into_iter().map(|(session, kind)| format!("{session} {kind:?}")).collect();
    assert_eq!(
        names,
        [
            "a Created",
            "a Activated { generation: 1 }",
            "b Created",
            "b Activated { generation: 1 }",
            "a Invalidated { generation: 1 }",
            "a Evicted",
            "b Invalidated { generation: 1 }",
            "b Activated { generation: 2 }",
            "b Renamed { to: SessionId(\"c\") }",
            "c Removed",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_lags_misses_the_oldest_events_and_can_count_them() {
    let (site, sessions) = (Site::new(), Sessions::builder().event_capacity(8).build().unwrap());
    let client = client(&renewing(&sessions), &sessions, site);
    sessions.session("a").renew().await.unwrap();
    let (mut slow, mut quick) = (sessions.events(), sessions.events());
    let mut seen = 0;
    for _ in 0..1000 {
        // Started, sent, completed.
        get(&client, "a", "/").await.unwrap();
        seen += received(&mut quick).len();
    }
    assert_eq!((seen, quick.lagged()), (3000, 0), "a slow subscriber does not affect others");
    let buffered = phases(&mut slow);
    assert_eq!(buffered.len(), 8);
    assert_eq!(slow.lagged(), 3000 - 8);
    assert_eq!(
        buffered[7],
        (999, RequestPhase::Completed { generation: 2, status: OK, outcome: ResponseOutcome::Accepted }),
        "the newest events are buffered"
    );
    get(&client, "a", "/").await.unwrap();
    assert_eq!(phases(&mut slow).len(), 3);
    assert_eq!(slow.lagged(), 3000 - 8, "it continues from there");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_started_without_a_subscriber_is_never_reported() {
    let (site, sessions) = (Site::held_pages(), Sessions::new());
    let client = client(&renewing(&sessions), &sessions, site.clone());
    sessions.session("a").renew().await.unwrap();
    let first = sessions.events();
    let mut seen = task::spawn(get(&client, "a", "/"));
    assert_pending!(seen.poll());
    drop(first);
    let mut unseen = task::spawn(get(&client, "a", "/"));
    assert_pending!(unseen.poll());
    site.respond(2);
    assert!(assert_ready!(seen.poll()).is_ok());
    let mut second = sessions.events();
    assert!(assert_ready!(unseen.poll()).is_ok());
    assert_eq!(second.try_recv(), None);
}

#[tokio::test(start_paused = true)]
async fn buffered_events_are_received_after_the_sessions_are_dropped_and_then_none() {
    let sessions = Sessions::new();
    let mut events = sessions.events();
    let mut next = task::spawn(events.recv());
    assert_pending!(next.poll());
    drop(sessions.session("a"));
    assert!(next.is_woken());
    drop(next);
    drop(sessions);
    assert_eq!(events.recv().await.unwrap().kind, EventKind::Created);
    assert_eq!(events.recv().await.unwrap().kind, EventKind::Activated { generation: 1 });
    assert_eq!(events.recv().await, None);
}

/// Waking a subscriber runs its waker, which may do anything, so no lock may be held.
#[test]
fn a_woken_subscriber_may_use_the_sessions() {
    struct Meddler(OnceLock<Sessions>);
    impl Wake for Meddler {
        fn wake(self: Arc<Self>) {
            let sessions = self.0.get().unwrap();
            let all = sessions.all();
            all.iter().for_each(|session| session.add_cookies([("seen", "1")], "http://a/").unwrap());
            sessions.get("none");
            let _ = (sessions.stats(), all.iter().map(|session| session.waiting()).sum::<usize>());
        }
    }
    let (done, waits) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (site, sessions) = (Site::new(), Sessions::builder().max_sessions(2).build().unwrap());
            let mut events = sessions.events();
            let meddler = Arc::new(Meddler(OnceLock::from(sessions.clone())));
            let waker = Waker::from(meddler);
            let client = client(&renewing(&sessions), &sessions, site);
            let mut woken = 0;
            for account in ["a", "b", "c"] {
                let mut request = task::spawn(client.clone().oneshot(page(account, "/")));
                loop {
                    // It waits while the request continues, and is woken while an event is sent.
                    let mut next = Box::pin(events.recv());
                    if next.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                        woken += 1;
                        continue;
                    }
                    if request.poll().is_ready() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            done.send(woken).unwrap();
        });
    });
    let woken =
        waits.recv_timeout(Duration::from_secs(20)).expect("a lock is held while subscribers are woken");
    assert!(woken > 20, "{woken}");
}

#[test]
fn an_event_capacity_of_zero_is_an_error() {
    let error = Sessions::builder().event_capacity(0).build().unwrap_err();
    assert_eq!(error.setting(), "event_capacity");
}
