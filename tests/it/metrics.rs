//! The figures for a recorder, by the names that the documentation gives.

use std::{collections::BTreeMap, time::Duration};

use metrics_util::{
    CompositeKey,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};
use tokio_test::{assert_pending, task};
use tower_client_sessions::{SessionPool, Sessions, gate::GateConfig, session::EventKind};

use crate::support::*;

/// The figures by name and labels. Of a histogram, how many values it has.
///
/// What was taken once is not taken again: those of two snapshots add up.
fn figures(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let figure = |(key, value): (CompositeKey, DebugValue)| {
        let labels: Vec<_> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(level) => level.into_inner(),
            DebugValue::Histogram(times) => {
                assert!(times.iter().all(|time| (0.0..60.0).contains(&time.into_inner())), "{times:?}");
                times.len() as f64
            }
        };
        (format!("{} {}", key.key().name(), labels.join(",")).trim_end().to_owned(), value)
    };
    let snapshot = snapshotter.snapshot().into_vec();
    snapshot.into_iter().map(|(key, _, _, value)| figure((key, value))).collect()
}

#[tokio::test(start_paused = true)]
async fn every_documented_figure_is_there_and_says_what_happened() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let sessions =
        metrics::with_local_recorder(&recorder, || Sessions::builder().max_sessions(3).build().unwrap());
    let site = Site::held();
    let gate = GateConfig::new().max_attempts(9).backoff(Duration::ZERO, Duration::ZERO);
    let client = client(&renewing(&sessions).gate_config(gate), &sessions, site.clone());
    // Two are refused and the one after them is held, one login fails, and the next is good.
    site.logins_go([Login::Error]);
    let tasks = spawn_pages(&client, "a", 2);
    settle().await;
    site.respond(2);
    settle().await;
    let mut held = task::spawn(get(&client, "a", "/?set=a%3Db"));
    assert_pending!(held.poll());
    let meanwhile = figures(&snapshotter);
    assert_eq!(meanwhile["client_sessions_requests_waiting"], 3.0);
    site.end_logins(9);
    site.respond(99);
    assert_eq!(good(tasks).await, 2);
    assert!(held.await.is_ok());
    // The next is cleared away while it runs.
    sessions.session("a").clear();
    for name in ["b", "c", "d"] {
        drop(sessions.session(name));
    }
    let mut figures = figures(&snapshotter);
    for (name, value) in meanwhile {
        *figures.get_mut(&name).unwrap() += value;
    }
    let documented = include_str!("../../src/session/mod.rs");
    for name in figures.keys().filter_map(|name| name.split(' ').next()) {
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is not documented");
    }
    let told = figures.len();
    let rows = documented.lines().filter(|line| line.starts_with("//! | `client_sessions_"));
    let variants = rows.map(|row| match row {
        row if row.contains("`cause`") | row.contains("`outcome`") => 3,
        row if row.contains("`reason`") => 5,
        _ => 1,
    });
    assert_eq!(told, variants.sum::<usize>(), "{figures:?}");
    for (name, expected) in [
        ("client_sessions_created_total", 4.0),
        ("client_sessions_evicted_total", 1.0),
        ("client_sessions_live", 3.0),
        ("client_sessions_requests_waiting", 0.0),
        ("client_sessions_renewals_started_total reason=expired", 2.0),
        ("client_sessions_renewals_started_total reason=limit_reached", 0.0),
        ("client_sessions_renewals_ended_total outcome=committed", 1.0),
        ("client_sessions_renewals_ended_total outcome=failed", 1.0),
        ("client_sessions_renewal_seconds outcome=failed", 1.0),
        ("client_sessions_requests_replayed_total cause=expired", 1.0),
        ("client_sessions_requests_replayed_total cause=stale", 1.0),
    ] {
        assert_eq!(figures[name], expected, "{name} in {figures:?}");
    }
    let stats = sessions.stats();
    for (name, counted) in [
        ("client_sessions_requests_sent_total", stats.sent),
        ("client_sessions_requests_waited_total", stats.waited),
        ("client_sessions_wait_seconds", stats.waited),
        ("client_sessions_cookies_stored_total", stats.cookies_stored),
        ("client_sessions_cookies_rejected_total", stats.cookies_rejected),
    ] {
        assert_eq!(figures[name], counted as f64, "{name}");
    }
    assert!(stats.waited >= 3 && stats.cookies_stored > 0);
    drop((client, sessions));
    let gone: BTreeMap<_, _> = self::figures(&snapshotter);
    assert_eq!(figures["client_sessions_live"] + gone["client_sessions_live"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_its_pool_forgets_is_told_as_removed_and_leaves_the_figures() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let sessions = metrics::with_local_recorder(&recorder, Sessions::new);
    let pool = SessionPool::builder(&sessions).size(1).build().unwrap();
    let mut events = sessions.events();
    let lease = pool.lease().await.unwrap();
    lease.member().retire();
    drop(lease);
    settle().await;
    let removed = std::iter::from_fn(|| events.try_recv()).filter(|event| event.kind == EventKind::Removed);
    let removed: Vec<_> = removed.map(|event| event.session.to_string()).collect();
    assert_eq!(removed, ["pool-1"]);
    let live = figures(&snapshotter)["client_sessions_live"];
    assert_eq!((live, sessions.len()), (1.0, 1), "its successor's");
}
