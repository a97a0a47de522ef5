//! Checks that each hazard of `hazards.md` has a test, and holds the tests that fit no other file.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::time::Instant;
use tower::ServiceExt;
use tower_client_sessions::{
    Expired, Sessions,
    gate::{BoxError, GateConfig, RenewalGate},
};

use crate::support::*;

/// The text of every file that may have a hazard's test.
const SOURCES: [&str; 22] = [
    include_str!("../../src/cookies/session_jar.rs"),
    include_str!("evidence.rs"),
    include_str!("gate.rs"),
    include_str!("handles.rs"),
    include_str!("hazards.rs"),
    include_str!("logins.rs"),
    include_str!("misbehaving.rs"),
    include_str!("renewal.rs"),
    include_str!("rotation.rs"),
    include_str!("sessions.rs"),
    include_str!("shared/processes.rs"),
    include_str!("shared/stores.rs"),
    include_str!("soak.rs"),
    include_str!("stacks.rs"),
    include_str!("../../src/gate/state.rs"),
    include_str!("../../src/jitter.rs"),
    include_str!("../../src/gate/version.rs"),
    include_str!("../../src/gate/loom.rs"),
    include_str!("../../src/gate/model.rs"),
    include_str!("../../src/gate/state_tests.rs"),
    include_str!("../../src/waiters.rs"),
    include_str!("../../src/shared/file.rs"),
];

#[test]
fn every_hazard_has_a_test_that_exists() {
    let mut table: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for row in include_str!("hazards.md").lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        if let Some(number) = cells.get(1).and_then(|cell| cell.parse().ok()) {
            let tests = cells[3].split(", ").map(|name| name.trim_matches('`')).collect();
            assert!(table.insert(number, tests).is_none(), "{number} appears twice");
        }
    }
    assert!((1..=55).all(|number| table.contains_key(&number)), "{:?}", table.keys());
    for (number, tests) in &table {
        for test in tests {
            assert!(test.starts_with("hazard_"), "{number}: {test}");
            assert!(test.contains(&format!("_{number:02}_")), "{test} is not named for {number}");
            let head = format!("fn {test}()");
            assert_eq!(SOURCES.iter().filter(|source| source.contains(&head)).count(), 1, "{number}: {test}");
        }
    }
    // Conversely, every test that is named for a hazard is in the table.
    for line in SOURCES.iter().flat_map(|source| source.lines()) {
        let head = line.strip_prefix("async ").unwrap_or(line);
        if let Some(name) = head.strip_prefix("fn ").filter(|head| head.starts_with("hazard_")) {
            let name = name.split('(').next().unwrap();
            assert!(table.values().flatten().any(|test| *test == name), "{name} is not in the table");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hazard_03_rejections_from_many_threads_fetch_one() {
    let fetched = Arc::new(AtomicU32::new(0));
    let count = fetched.clone();
    let fetch = move || {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok::<_, BoxError>(number) }
    };
    let config = GateConfig::new().renewal_rate_limit(1000, Duration::from_secs(60));
    let gate = RenewalGate::with_config(Some(0), fetch, config).unwrap();
    for round in 1..=200 {
        let mut tasks = tokio::task::JoinSet::new();
        let together = Arc::new(tokio::sync::Barrier::new(8));
        for _ in 0..8 {
            let (gate, together) = (gate.clone(), together.clone());
            let permit = gate.acquire().await.unwrap();
            tasks.spawn(async move {
                together.wait().await;
                *gate.reject(&permit).await.unwrap()
            });
        }
        assert_eq!(tasks.join_all().await, [round; 8]);
        assert_eq!(fetched.load(Ordering::Relaxed), round);
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_16_a_waker_may_use_the_gate() {
    struct LocksOnDrop(RenewalGate<u32>);
    impl Wake for LocksOnDrop {
        fn wake(self: Arc<Self>) {
            // Deadlocks if tasks are woken under the gate's lock.
            self.0.waiting();
            let _ = self.0.try_acquire();
        }
    }
    impl Drop for LocksOnDrop {
        fn drop(&mut self) {
            self.0.waiting();
        }
    }
    let gate = RenewalGate::pending(|| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, BoxError>(1)
    });
    let waker = || Waker::from(Arc::new(LocksOnDrop(gate.clone())));
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(gate.acquire())).collect();
    for future in &mut waiting {
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
        // A second poll drops the first waker.
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
    }
    waiting.pop();
    assert_eq!(gate.waiting(), 3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for mut future in waiting {
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker())).is_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_19_a_classifier_that_panics_costs_one_attempt_or_one_request() {
    let (site, sessions) = (Site::new(), Sessions::new());
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    // The first call is for a page of the first identity, the second for the response to the login.
    let expired = Expired::from_fn(move |response| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        assert!(number != 1 && number != 4, "intended panic in the classifier");
        response.status() == 403
    });
    let client = client(&renewing(&sessions).expired_when(expired), &sessions, site.clone());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);
    assert_eq!(
        (site.logins(), sessions.stats().renewals_failed),
        (2, 1),
        "the panic in the renewal was one attempt"
    );
    let lost = tokio::spawn(client.clone().oneshot(page("a", "/")));
    assert!(lost.await.unwrap_err().is_panic());
    assert_eq!(get(&client, "a", "/").await.unwrap().status(), 200);

    // The same where the request with the panic leads.
    let (site, sessions) = (Site::new(), Sessions::builder().login_first().build().unwrap());
    let calls = Arc::new(AtomicU32::new(0));
    let expired = Expired::from_fn(move |response| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) != 0, "intended panic in the classifier");
        response.status() == 403
    });
    let client = self::client(&ruleless(&sessions).expired_when(expired), &sessions, site.clone());
    let leader = tokio::spawn(client.clone().oneshot(page("a", "/login")));
    let follower = tokio::spawn(client.clone().oneshot(page("a", "/login")));
    assert!(leader.await.unwrap_err().is_panic());
    let response = tokio::time::timeout(Duration::from_secs(60), follower).await.expect("a stall");
    assert_eq!(response.unwrap().unwrap().status(), 200);
    assert_eq!(sessions.session("a").waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn hazard_44_many_sessions_of_one_age_are_renewed_at_different_times() {
    const AGE: Duration = Duration::from_secs(1000);
    let sessions = Sessions::builder().jitter_seed(44).build().unwrap();
    let renewed: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let (recorded, start) = (renewed.clone(), Instant::now());
    let layer = ruleless(&sessions).max_age(AGE).renew_with(move |renewal| {
        recorded.lock().unwrap().push(start.elapsed());
        log_in(renewal)
    });
    let client = client(&layer, &sessions, Site::new());
    let names: Vec<_> = (0..50).map(|number| format!("s{number}")).collect();
    let request_all = async || {
        for name in &names {
            assert_eq!(get(&client, name, "/").await.unwrap().status(), 200);
        }
        settle().await;
    };
    request_all().await;
    renewed.lock().unwrap().clear();
    let waited = sessions.stats().waited;
    for _ in 0..999 {
        tokio::time::advance(Duration::from_secs(1)).await;
        request_all().await;
    }
    let renewed = renewed.lock().unwrap().clone();
    assert_eq!(renewed.len(), 50, "each session was renewed once");
    let (first, last) = (renewed[0].as_secs(), renewed[49].as_secs());
    assert!((900..915).contains(&first) && (935..=951).contains(&last), "{first} to {last}");
    let max = (0..50).map(|at| renewed.iter().filter(|time| **time == renewed[at]).count()).max().unwrap();
    assert!(max <= 6, "{max} in one second");
    assert_eq!(sessions.stats().waited, waited, "no request waited");
}
