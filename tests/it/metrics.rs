//! The metrics of the `metrics` crate, as documented.

use std::{collections::BTreeMap, time::Duration};

use metrics_util::{
    CompositeKey,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};
use tokio_test::{assert_pending, task};
use tower_client_sessions::{SessionPool, Sessions, gate::GateConfig, session::EventKind};

use crate::support::*;

/// The metrics by name and labels; for a histogram, the number of its values.
///
/// Reading resets the recorder: the values of two snapshots add up.
fn values(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let entry = |(key, value): (CompositeKey, DebugValue)| {
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
    snapshot.into_iter().map(|(key, _, _, value)| entry((key, value))).collect()
}

#[tokio::test(start_paused = true)]
async fn every_documented_metric_exists_and_counts() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let sessions =
        metrics::with_local_recorder(&recorder, || Sessions::builder().max_sessions(3).build().unwrap());
    let site = Site::held();
    let gate = GateConfig::new().max_attempts(9).backoff(Duration::ZERO, Duration::ZERO);
    let client = client(&renewing(&sessions).gate_config(gate), &sessions, site.clone());
    // Two requests are rejected by the site and a third one waits. One login fails, the next
    // succeeds.
    site.logins_go([Login::Error]);
    let tasks = spawn_pages(&client, "a", 2);
    settle().await;
    site.respond(2);
    settle().await;
    let mut waiting = task::spawn(get(&client, "a", "/?set=a%3Db"));
    assert_pending!(waiting.poll());
    let meanwhile = values(&snapshotter);
    assert_eq!(meanwhile["client_sessions_requests_waiting"], 3.0);
    site.end_logins(9);
    site.respond(99);
    assert_eq!(good(tasks).await, 2);
    assert!(waiting.await.is_ok());
    // The current identity is cleared.
    sessions.session("a").clear();
    for name in ["b", "c", "d"] {
        drop(sessions.session(name));
    }
    let mut metrics = values(&snapshotter);
    for (name, value) in meanwhile {
        *metrics.get_mut(&name).unwrap() += value;
    }
    let documented = include_str!("../../src/session/mod.rs");
    for name in metrics.keys().filter_map(|name| name.split(' ').next()) {
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is not documented");
    }
    let count = metrics.len();
    let rows = documented.lines().filter(|line| line.starts_with("//! | `client_sessions_"));
    let variants = rows.map(|row| match row {
        row if row.contains("`cause`") => 4,
        row if row.contains("`outcome`") => 3,
        row if row.contains("`reason`") => 5,
        _ => 1,
    });
    assert_eq!(count, variants.sum::<usize>(), "{metrics:?}");
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
        assert_eq!(metrics[name], expected, "{name} in {metrics:?}");
    }
    let stats = sessions.stats();
    for (name, counted) in [
        ("client_sessions_requests_sent_total", stats.sent),
        ("client_sessions_requests_waited_total", stats.waited),
        ("client_sessions_wait_seconds", stats.waited),
        ("client_sessions_cookies_stored_total", stats.cookies_stored),
        ("client_sessions_cookies_rejected_total", stats.cookies_rejected),
    ] {
        assert_eq!(metrics[name], counted as f64, "{name}");
    }
    assert!(stats.waited >= 3 && stats.cookies_stored > 0);
    drop((client, sessions));
    let gone: BTreeMap<_, _> = self::values(&snapshotter);
    assert_eq!(metrics["client_sessions_live"] + gone["client_sessions_live"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_retired_member_is_reported_as_removed_and_no_longer_counted_as_live() {
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
    let live = values(&snapshotter)["client_sessions_live"];
    assert_eq!((live, sessions.len()), (1.0, 1), "the session of its successor");
}
