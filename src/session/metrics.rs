//! Metrics for the recorder of the `metrics` crate. Without the feature, they do nothing.
//!
//! Each metric is registered once, when the sessions are built. Afterwards it is a shared counter,
//! or does nothing if no recorder was installed.

use std::time::Duration;

use super::ReplayCause;
use crate::gate::RenewalReason;

/// A number that only grows.
pub(crate) struct Counter(#[cfg(feature = "metrics")] metrics::Counter);

/// A number that goes up and down.
pub(crate) struct Gauge(#[cfg(feature = "metrics")] metrics::Gauge);

/// A distribution of durations.
pub(crate) struct Histogram(#[cfg(feature = "metrics")] metrics::Histogram);

/// A label and its value.
type Label = (&'static str, &'static str);

impl Counter {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only the recorder uses them"))]
    fn new(name: &'static str, labels: &'static [Label], description: &'static str) -> Self {
        Self(
            #[cfg(feature = "metrics")]
            {
                metrics::describe_counter!(name, description);
                metrics::counter!(name, labels)
            },
        )
    }

    pub(crate) fn add(&self) {
        #[cfg(feature = "metrics")]
        self.0.increment(1);
    }
}

impl Gauge {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only the recorder uses them"))]
    fn new(name: &'static str, description: &'static str) -> Self {
        Self(
            #[cfg(feature = "metrics")]
            {
                metrics::describe_gauge!(name, description);
                metrics::gauge!(name)
            },
        )
    }

    pub(crate) fn up(&self) {
        #[cfg(feature = "metrics")]
        self.0.increment(1.0);
    }

    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only the recorder uses it"))]
    pub(crate) fn down(&self, by: usize) {
        #[cfg(feature = "metrics")]
        self.0.decrement(by as f64);
    }
}

impl Histogram {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only the recorder uses them"))]
    fn new(name: &'static str, labels: &'static [Label], description: &'static str) -> Self {
        Self(
            #[cfg(feature = "metrics")]
            {
                metrics::describe_histogram!(name, metrics::Unit::Seconds, description);
                metrics::histogram!(name, labels)
            },
        )
    }

    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only the recorder uses it"))]
    pub(crate) fn record(&self, time: Duration) {
        #[cfg(feature = "metrics")]
        self.0.record(time);
    }
}

/// The renewals with one outcome.
pub(crate) struct RenewalMetrics {
    total: Counter,
    seconds: Histogram,
}

impl RenewalMetrics {
    fn new(outcome: &'static [Label]) -> Self {
        Self {
            total: Counter::new(
                "client_sessions_renewals_ended_total",
                outcome,
                "Renewals ended, by outcome.",
            ),
            seconds: Histogram::new(
                "client_sessions_renewal_seconds",
                outcome,
                "Duration of renewals, by outcome.",
            ),
        }
    }

    pub(crate) fn ended(&self, took: Duration) {
        self.total.add();
        self.seconds.record(took);
    }
}

/// The metrics of one `Sessions`.
pub(crate) struct SessionMetrics {
    pub(crate) live: Gauge,
    pub(crate) created: Counter,
    pub(crate) evicted: Counter,
    pub(crate) sent: Counter,
    pub(crate) waited: Counter,
    pub(crate) waiting: Gauge,
    pub(crate) wait_seconds: Histogram,
    replayed: [Counter; 4],
    started: [Counter; 5],
    pub(crate) committed: RenewalMetrics,
    pub(crate) failed: RenewalMetrics,
    pub(crate) abandoned: RenewalMetrics,
    pub(crate) cookies_stored: Counter,
    pub(crate) cookies_rejected: Counter,
}

impl SessionMetrics {
    pub(crate) fn new() -> Self {
        let replayed =
            |cause| Counter::new("client_sessions_requests_replayed_total", cause, "Replays, by cause.");
        let started = |reason| {
            Counter::new("client_sessions_renewals_started_total", reason, "Renewals started, by reason.")
        };
        Self {
            live: Gauge::new("client_sessions_live", "Sessions that exist."),
            created: Counter::new("client_sessions_created_total", &[], "Sessions created."),
            evicted: Counter::new(
                "client_sessions_evicted_total",
                &[],
                "Sessions evicted because of max_sessions.",
            ),
            sent: Counter::new(
                "client_sessions_requests_sent_total",
                &[],
                "Requests sent by the session layer, including hops and replays.",
            ),
            waited: Counter::new(
                "client_sessions_requests_waited_total",
                &[],
                "Waits of requests at the gate.",
            ),
            waiting: Gauge::new("client_sessions_requests_waiting", "Requests that are waiting at the gate."),
            wait_seconds: Histogram::new(
                "client_sessions_wait_seconds",
                &[],
                "Duration of waits at the gate.",
            ),
            replayed: [
                replayed(&[("cause", "expired")]),
                replayed(&[("cause", "stale")]),
                replayed(&[("cause", "ended_mid_redirect")]),
                replayed(&[("cause", "cookies_changed")]),
            ],
            started: [
                started(&[("reason", "initial")]),
                started(&[("reason", "expired")]),
                started(&[("reason", "cleared")]),
                started(&[("reason", "requested")]),
                started(&[("reason", "limit_reached")]),
            ],
            committed: RenewalMetrics::new(&[("outcome", "committed")]),
            failed: RenewalMetrics::new(&[("outcome", "failed")]),
            abandoned: RenewalMetrics::new(&[("outcome", "abandoned")]),
            cookies_stored: Counter::new(
                "client_sessions_cookies_stored_total",
                &[],
                "Cookies set or deleted by responses.",
            ),
            cookies_rejected: Counter::new(
                "client_sessions_cookies_rejected_total",
                &[],
                "Set-Cookie headers that were rejected.",
            ),
        }
    }

    pub(crate) fn replayed(&self, cause: ReplayCause) -> &Counter {
        let [expired, stale, ended, cookies_changed] = &self.replayed;
        match cause {
            ReplayCause::Expired => expired,
            ReplayCause::Stale => stale,
            ReplayCause::EndedMidRedirect => ended,
            ReplayCause::CookiesChanged => cookies_changed,
        }
    }

    pub(crate) fn started(&self, reason: RenewalReason) -> &Counter {
        let [initial, expired, cleared, requested, limit_reached] = &self.started;
        match reason {
            RenewalReason::Initial => initial,
            RenewalReason::Expired => expired,
            RenewalReason::Cleared => cleared,
            RenewalReason::Requested => requested,
            RenewalReason::LimitReached => limit_reached,
        }
    }
}
