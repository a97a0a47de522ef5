//! Figures for the recorder of the crate `metrics`. Without the feature, all of this is nothing.
//!
//! Each figure is looked up once, when the sessions are built: from then on it is a shared counter, or nothing at all where no
//! recorder was installed.

use std::time::Duration;

use super::ReplayCause;
use crate::gate::RenewalReason;

/// A figure that only grows.
pub(crate) struct Total(#[cfg(feature = "metrics")] metrics::Counter);

/// A figure that goes up and down.
pub(crate) struct Level(#[cfg(feature = "metrics")] metrics::Gauge);

/// Times, by how many there were of each.
pub(crate) struct Times(#[cfg(feature = "metrics")] metrics::Histogram);

/// A label and its value.
type Label = (&'static str, &'static str);

impl Total {
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

impl Level {
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

impl Times {
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
pub(crate) struct Renewals {
    total: Total,
    seconds: Times,
}

impl Renewals {
    fn new(outcome: &'static [Label]) -> Self {
        Self {
            total: Total::new(
                "client_sessions_renewals_ended_total",
                outcome,
                "Renewals that have ended, by outcome.",
            ),
            seconds: Times::new(
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
pub(crate) struct Meters {
    pub(crate) live: Level,
    pub(crate) created: Total,
    pub(crate) evicted: Total,
    pub(crate) sent: Total,
    pub(crate) held: Total,
    pub(crate) holding: Level,
    pub(crate) hold_seconds: Times,
    replayed: [Total; 3],
    started: [Total; 5],
    pub(crate) committed: Renewals,
    pub(crate) failed: Renewals,
    pub(crate) abandoned: Renewals,
    pub(crate) cookies_stored: Total,
    pub(crate) cookies_refused: Total,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let replayed = |cause| {
            Total::new("client_sessions_requests_replayed_total", cause, "Requests sent again, by cause.")
        };
        let started = |reason| {
            Total::new("client_sessions_renewals_started_total", reason, "Renewals started, by reason.")
        };
        Self {
            live: Level::new("client_sessions_live", "Sessions there are."),
            created: Total::new("client_sessions_created_total", &[], "Sessions created."),
            evicted: Total::new(
                "client_sessions_evicted_total",
                &[],
                "Sessions dropped to keep within max_sessions.",
            ),
            sent: Total::new(
                "client_sessions_requests_sent_total",
                &[],
                "Requests that left through the session layer, every hop and every replay.",
            ),
            held: Total::new(
                "client_sessions_requests_held_total",
                &[],
                "Requests that had to wait at the gate.",
            ),
            holding: Level::new("client_sessions_requests_held", "Requests that wait at the gate now."),
            hold_seconds: Times::new(
                "client_sessions_hold_seconds",
                &[],
                "How long a request waited at the gate.",
            ),
            replayed: [
                replayed(&[("cause", "expired")]),
                replayed(&[("cause", "stale")]),
                replayed(&[("cause", "retired")]),
            ],
            started: [
                started(&[("reason", "first")]),
                started(&[("reason", "expired")]),
                started(&[("reason", "cleared")]),
                started(&[("reason", "requested")]),
                started(&[("reason", "budget")]),
            ],
            committed: Renewals::new(&[("outcome", "committed")]),
            failed: Renewals::new(&[("outcome", "failed")]),
            abandoned: Renewals::new(&[("outcome", "abandoned")]),
            cookies_stored: Total::new(
                "client_sessions_cookies_stored_total",
                &[],
                "Cookies that responses set or deleted.",
            ),
            cookies_refused: Total::new(
                "client_sessions_cookies_refused_total",
                &[],
                "Set-Cookie headers that were refused.",
            ),
        }
    }

    pub(crate) fn replayed(&self, cause: ReplayCause) -> &Total {
        let [expired, stale, retired] = &self.replayed;
        match cause {
            ReplayCause::Expired => expired,
            ReplayCause::Stale => stale,
            ReplayCause::EndedMidRedirect => retired,
        }
    }

    pub(crate) fn started(&self, reason: RenewalReason) -> &Total {
        let [first, expired, cleared, requested, budget] = &self.started;
        match reason {
            RenewalReason::Initial => first,
            RenewalReason::Expired => expired,
            RenewalReason::Cleared => cleared,
            RenewalReason::Requested => requested,
            RenewalReason::LimitReached => budget,
        }
    }
}
