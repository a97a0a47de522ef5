//! Counters by cause.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    (
        often { $($(#[doc = $often_doc:literal])* $often:ident,)* }
        rare { $($(#[doc = $doc:literal])* $name:ident,)* }
    ) => {
        /// What happened so far, to one session or to all of them: a snapshot.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $often_doc])* pub $often: u64,)*
            $($(#[doc = $doc])* pub $name: u64,)*
            /// The most requests that were held at one moment. For all sessions together, over all of them.
            pub waiting_peak: u64,
            /// Sessions dropped to keep within `max_sessions`; 0 for a single session.
            pub sessions_evicted: u64,
            /// How often a session was created beyond `max_sessions` because all others were in use; 0 for a single session.
            pub sessions_over_limit: u64,
        }

        /// The counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $often: Counter,)*
            /// Of a million sessions that nothing happens to, none has these.
            rare: OnceLock<Box<RareCounters>>,
        }

        #[derive(Debug, Default)]
        pub(crate) struct RareCounters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn add_to(&self, stats: &mut Stats) {
                $(stats.$often += self.$often.get();)*
                if let Some(rare) = self.rare.get() {
                    $(stats.$name += rare.$name.get();)*
                }
            }

            /// Adds what another set has counted since it was `before`.
            pub(crate) fn add_since(&self, other: &Self, before: &Self) {
                $(self.$often.add_many(other.$often.get() - before.$often.get());)*
                if let Some(other) = other.rare.get() {
                    let before = before.rare();
                    $(self.rare().$name.add_many(other.$name.get() - before.$name.get());)*
                }
            }

            /// Adds what another set has counted.
            pub(crate) fn add_all(&self, other: &Self) {
                $(self.$often.add_many(other.$often.get());)*
                if let Some(other) = other.rare.get() {
                    $(self.rare().$name.add_many(other.$name.get());)*
                }
            }
        }
    };
}

counters! {
    often {
        /// Requests that left through the session layer: every hop and every replay is one.
        sent,
        /// Cookies that responses set or deleted.
        cookies_stored,
    }
    rare {
        /// Requests that had to wait at the gate. A request that waits twice counts twice.
        waited,
        /// Requests sent again because their session had expired.
        replayed_expired,
        /// Requests sent again because their session had been renewed while they were on their way.
        replayed_stale,
        /// Requests started again because their session ended between two hops of a redirect.
        replayed_ended_mid_redirect,
        /// Renewals started, whatever brought them about; a request that leads where there is no rule is one.
        renewals_started,
        /// Renewals that brought a new identity about.
        renewals_committed,
        /// Renewals that failed.
        renewals_failed,
        /// `Set-Cookie` headers that were refused.
        cookies_rejected,
    }
}

impl Counters {
    pub(crate) fn rare(&self) -> &RareCounters {
        self.rare.get_or_init(Box::default)
    }
}

/// One counter.
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
    /// Requests sent again for any reason.
    pub fn replayed(&self) -> u64 {
        self.replayed_expired + self.replayed_stale + self.replayed_ended_mid_redirect
    }
}

/// How many are held now, and at most.
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
