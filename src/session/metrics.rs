//! Figures for the recorder of the crate `metrics`. Without the feature, all of this is nothing.
//!
//! Each figure is looked up once, when the sessions are built: from then on it is a shared counter, or nothing at all where no
//! recorder was installed.

use std::time::Duration;

use super::ReplayCause;
use crate::gate::RenewalReason;

/// A figure that only grows.
pub(crate) struct Counter(#[cfg(feature = "metrics")] metrics::Counter);

/// A figure that goes up and down.
pub(crate) struct Gauge(#[cfg(feature = "metrics")] metrics::Gauge);

/// Times, by how many there were of each.
pub(crate) struct Histogram(#[cfg(feature = "metrics")] metrics::Histogram);

/// A label and its value.
type Label = (&'static str, &'static str);

impl Counter {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "they are the recorder's"))]
    fn new(name: &'static str, labels: &'static [Label], what: &'static str) -> Self {
        Self(
            #[cfg(feature = "metrics")]
            {
                metrics::describe_counter!(name, what);
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
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "they are the recorder's"))]
    fn new(name: &'static str, what: &'static str) -> Self {
        Self(
            #[cfg(feature = "metrics")]
            {
                metrics::describe_gauge!(name, what);
                metrics::gauge!(name)
            },
        )
    }

    pub(crate) fn up(&self) {
        #[cfg(feature = "metrics")]
        self.0.increment(1.0);
    }

    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "it is the recorder's"))]
    pub(crate) fn down(&self, by: usize) {
        #[cfg(feature = "metrics")]
        self.0.decrement(by as f64);
    }
}

impl Histogram {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "they are the recorder's"))]
    fn new(name: &'static str, labels: &'static [Label], what: &'static str) -> Self {
        Self(
            #[cfg(feature = "metrics")]
            {
                metrics::describe_histogram!(name, metrics::Unit::Seconds, what);
                metrics::histogram!(name, labels)
            },
        )
    }

    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "it is the recorder's"))]
    pub(crate) fn record(&self, time: Duration) {
        #[cfg(feature = "metrics")]
        self.0.record(time);
    }
}

/// How renewals of one outcome went.
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
                "Renewals that have ended, by outcome.",
            ),
            seconds: Histogram::new(
                "client_sessions_renewal_seconds",
                outcome,
                "How long a renewal took, by outcome.",
            ),
        }
    }

    pub(crate) fn ended(&self, took: Duration) {
        self.total.add();
        self.seconds.record(took);
    }
}

/// All figures of one `Sessions`.
pub(crate) struct SessionMetrics {
    pub(crate) live: Gauge,
    pub(crate) created: Counter,
    pub(crate) evicted: Counter,
    pub(crate) sent: Counter,
    pub(crate) waited: Counter,
    pub(crate) waiting: Gauge,
    pub(crate) wait_seconds: Histogram,
    replayed: [Counter; 3],
    started: [Counter; 5],
    pub(crate) committed: RenewalMetrics,
    pub(crate) failed: RenewalMetrics,
    pub(crate) abandoned: RenewalMetrics,
    pub(crate) cookies_stored: Counter,
    pub(crate) cookies_rejected: Counter,
}

impl SessionMetrics {
    pub(crate) fn new() -> Self {
        let replayed = |cause| {
            Counter::new("client_sessions_requests_replayed_total", cause, "Requests sent again, by cause.")
        };
        let started = |reason| {
            Counter::new("client_sessions_renewals_started_total", reason, "Renewals started, by reason.")
        };
        Self {
            live: Gauge::new("client_sessions_live", "Sessions there are."),
            created: Counter::new("client_sessions_created_total", &[], "Sessions created."),
            evicted: Counter::new(
                "client_sessions_evicted_total",
                &[],
                "Sessions dropped to keep within max_sessions.",
            ),
            sent: Counter::new(
                "client_sessions_requests_sent_total",
                &[],
                "Requests that left through the session layer, every hop and every replay.",
            ),
            waited: Counter::new(
                "client_sessions_requests_waited_total",
                &[],
                "Requests that had to wait at the gate.",
            ),
            waiting: Gauge::new("client_sessions_requests_waiting", "Requests that wait at the gate now."),
            wait_seconds: Histogram::new(
                "client_sessions_wait_seconds",
                &[],
                "How long a request waited at the gate.",
            ),
            replayed: [
                replayed(&[("cause", "expired")]),
                replayed(&[("cause", "stale")]),
                replayed(&[("cause", "ended_mid_redirect")]),
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
                "Cookies that responses set or deleted.",
            ),
            cookies_rejected: Counter::new(
                "client_sessions_cookies_rejected_total",
                &[],
                "Set-Cookie headers that were refused.",
            ),
        }
    }

    pub(crate) fn replayed(&self, cause: ReplayCause) -> &Counter {
        let [expired, stale, ended] = &self.replayed;
        match cause {
            ReplayCause::Expired => expired,
            ReplayCause::Stale => stale,
            ReplayCause::EndedMidRedirect => ended,
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
