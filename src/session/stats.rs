//! Counters by cause.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    (
        often { $($(#[doc = $often_doc:literal])* $often:ident,)* }
        seldom { $($(#[doc = $doc:literal])* $name:ident,)* }
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
            seldom: OnceLock<Box<Seldom>>,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Seldom {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn add_to(&self, stats: &mut Stats) {
                $(stats.$often += self.$often.get();)*
                if let Some(seldom) = self.seldom.get() {
                    $(stats.$name += seldom.$name.get();)*
                }
            }

            /// Adds what another set has counted since it was `before`.
            pub(crate) fn absorb_since(&self, other: &Self, before: &Self) {
                $(self.$often.add_many(other.$often.get() - before.$often.get());)*
                if let Some(other) = other.seldom.get() {
                    let before = before.seldom();
                    $(self.seldom().$name.add_many(other.$name.get() - before.$name.get());)*
                }
            }

            /// Adds what another set has counted.
            pub(crate) fn store_set_cookie(&self, other: &Self) {
                $(self.$often.add_many(other.$often.get());)*
                if let Some(other) = other.seldom.get() {
                    $(self.seldom().$name.add_many(other.$name.get());)*
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
    seldom {
        /// Requests that had to wait at the gate. A request that waits twice counts twice.
        held,
        /// Requests sent again because their session had expired.
        replayed_expired,
        /// Requests sent again because their session had been renewed while they were on their way.
        replayed_stale,
        /// Requests started again because their session ended between two hops of a redirect.
        replayed_retired,
        /// Renewals started, whatever brought them about; a request that leads where there is no rule is one.
        renewals_started,
        /// Renewals that brought a new identity about.
        renewals_succeeded,
        /// Renewals that failed.
        renewals_failed,
        /// `Set-Cookie` headers that were refused.
        cookies_refused,
    }
}

impl Counters {
    pub(crate) fn seldom(&self) -> &Seldom {
        self.seldom.get_or_init(Box::default)
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
        self.replayed_expired + self.replayed_stale + self.replayed_retired
    }
}

/// How many are held now, and at most.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Gauge {
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
