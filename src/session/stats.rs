//! The counters of sessions, by cause.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    (
        frequent { $($(#[doc = $frequent_doc:literal])* $frequent:ident,)* }
        rare { $($(#[doc = $doc:literal])* $name:ident,)* }
    ) => {
        /// A snapshot of the counters of one session, or of all sessions.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $frequent_doc])* pub $frequent: u64,)*
            $($(#[doc = $doc])* pub $name: u64,)*
            /// The largest number of requests that waited concurrently, over all sessions; 0 for a
            /// single session.
            pub waiting_peak: u64,
            /// Sessions evicted because of `max_sessions`; 0 for a single session.
            pub sessions_evicted: u64,
            /// Sessions created beyond `max_sessions`, because all others were in use; 0 for a
            /// single session.
            pub sessions_over_limit: u64,
        }

        /// The counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $frequent: Counter,)*
            /// Allocated on first use: idle sessions do not need them.
            rare: OnceLock<Box<RareCounters>>,
        }

        #[derive(Debug, Default)]
        pub(crate) struct RareCounters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn add_to(&self, stats: &mut Stats) {
                $(stats.$frequent += self.$frequent.get();)*
                if let Some(rare) = self.rare.get() {
                    $(stats.$name += rare.$name.get();)*
                }
            }

            /// Adds what `other` has counted since it was equal to `before`.
            pub(crate) fn add_since(&self, other: &Self, before: &Self) {
                $(self.$frequent.add_many(other.$frequent.get() - before.$frequent.get());)*
                if let Some(other) = other.rare.get() {
                    let before = before.rare();
                    $(self.rare().$name.add_many(other.$name.get() - before.$name.get());)*
                }
            }

            /// Adds what `other` has counted.
            pub(crate) fn add_all(&self, other: &Self) {
                $(self.$frequent.add_many(other.$frequent.get());)*
                if let Some(other) = other.rare.get() {
                    $(self.rare().$name.add_many(other.$name.get());)*
                }
            }
        }
    };
}

counters! {
    frequent {
        /// Requests sent by the session layer. Every hop and every replay counts.
        sent,
        /// Cookies that responses set or deleted.
        cookies_stored,
    }
    rare {
        /// Waits of requests at the gate. A request that waits twice counts twice.
        waited,
        /// Replays because the session had expired.
        replayed_expired,
        /// Replays because the session was renewed while the request was in flight.
        replayed_stale,
        /// Replays because the identity ended between two hops of a redirect.
        replayed_ended_mid_redirect,
        /// Replays because another response had changed the cookies while the request was in
        /// flight.
        replayed_cookies_changed,
        /// Responses that look as if the session has expired, delivered because it has and the
        /// request was not replayed.
        responses_expired,
        /// Responses that look as if the session has expired, delivered because nothing shows that
        /// it has.
        responses_refused,
        /// Renewals started, for any reason. A leading request, without a rule, counts as a
        /// renewal.
        renewals_started,
        /// Renewals that committed a new identity.
        renewals_committed,
        /// Renewals that failed.
        renewals_failed,
        /// `Set-Cookie` headers that were rejected.
        cookies_rejected,
    }
}

impl Counters {
    pub(crate) fn rare(&self) -> &RareCounters {
        self.rare.get_or_init(Box::default)
    }
}

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.add_many(1);
    }

    fn add_many(&self, many: u64) {
        self.0.fetch_add(many, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stats {
    /// Replays for any reason.
    pub fn replayed(&self) -> u64 {
        self.replayed_expired
            + self.replayed_stale
            + self.replayed_ended_mid_redirect
            + self.replayed_cookies_changed
    }
}

/// A current number and its maximum.
#[derive(Debug, Default)]
pub(crate) struct PeakGauge {
    now: AtomicU64,
    peak: AtomicU64,
}

impl PeakGauge {
    pub(crate) fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}
