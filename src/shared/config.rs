//! How sessions are shared.

use std::{sync::Arc, time::Duration};

use super::{EncryptionKey, SharedStore};
use crate::{gate::ConfigError, session::snapshot::ProfileDetail};

/// How sessions are shared: through which store, and what happens when it is away.
///
/// A store can be given in its place, with these defaults. Lease, poll and deadline may be ten years at most.
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until sessions are built with them"]
pub struct SharingConfig {
    pub(super) store: Arc<dyn SharedStore>,
    pub(super) lease_ttl: Duration,
    pub(super) poll_interval: Duration,
    pub(super) store_timeout: Duration,
    pub(super) on_unreachable: OnUnreachable,
    pub(super) stale_after: Option<Duration>,
    pub(super) use_batch_size: u64,
    pub(super) encryption_key: Option<EncryptionKey>,
    pub(super) profiles: ProfileDetail,
    pub(super) cookie_sync: CookieSync,
    pub(super) sync_debounce: Duration,
}

/// What becomes of cookies that answers, or a program by hand, change while a version lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieSync {
    /// They are brought together, cookie by cookie, in batches: see [`SharingConfig::sync_debounce`]. Of two changes of one cookie the
    /// later one wins: a batch is as late as its last change, by the clock of its writer. The default.
    #[default]
    Merged,
    /// They stay with the process that they came to. What others adopt is what the renewal left.
    Local,
}

/// What happens to renewals while the store cannot be asked.
///
/// What is current serves on under either policy, unless [`SharingConfig::stale_after`] says otherwise: no request asks the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnUnreachable {
    /// Renewals fail, and are tried again as the gate does with any that fails. No login is made twice. The default.
    #[default]
    Fail,
    /// Each process renews for itself, and shares what it has when the store is back: the first one's session is adopted by the
    /// others. More logins than one may be made at a time.
    RenewLocally,
}

impl SharingConfig {
    /// Shares through `store`.
    pub fn new(store: impl SharedStore) -> Self {
        Self {
            store: Arc::new(store),
            lease_ttl: Duration::from_secs(10),
            poll_interval: Duration::from_secs(5),
            store_timeout: Duration::from_secs(2),
            on_unreachable: OnUnreachable::default(),
            stale_after: None,
            use_batch_size: 64,
            encryption_key: None,
            profiles: ProfileDetail::NameOnly,
            cookie_sync: CookieSync::default(),
            sync_debounce: Duration::from_secs(1),
        }
    }

    /// Sets for how long a process that says nothing more keeps others from renewing. Default: 10 seconds.
    ///
    /// Its holder extends it three times as often. If it cannot, it gives its renewal up before the lease ends.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets how often all sessions are compared with the store, whether or not it tells of changes. Default: every 5 seconds.
    ///
    /// A process is never further behind than this and the [store's deadline](Self::deadline), as long as the store answers.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long the store may take for one answer. Default: 2 seconds.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// Sets what happens to renewals while the store cannot be asked. Default: [`OnUnreachable::Fail`].
    pub fn on_unreachable(mut self, policy: OnUnreachable) -> Self {
        self.on_unreachable = policy;
        self
    }

    /// Sends nothing under what may be out of date: if the store was not heard of for so long, requests wait for it. Default:
    /// what is current serves on.
    ///
    /// Holds for [`OnUnreachable::Fail`] alone.
    pub fn stale_after(mut self, silence: Duration) -> Self {
        self.stale_after = Some(silence);
        self
    }

    /// Sets how many uses of a fleet's [`max_uses`](crate::RenewalLayer::max_uses) a process takes at a time. Default: 64.
    ///
    /// What a process has taken and not used when it ends is lost to the others.
    pub fn use_batch_size(mut self, uses: u64) -> Self {
        self.use_batch_size = uses;
        self
    }

    /// Seals what is put into the store. Default: it is readable there.
    pub fn encrypt_with(mut self, key: EncryptionKey) -> Self {
        self.encryption_key = Some(key);
        self
    }

    /// Sets how much of a profile is put into the store. Default: [`ProfileDetail::NameOnly`].
    pub fn profiles(mut self, profiles: ProfileDetail) -> Self {
        self.profiles = profiles;
        self
    }

    /// Sets what becomes of cookies that change while a version lasts. Default: [`CookieSync::Merged`].
    pub fn cookie_sync(mut self, sync: CookieSync) -> Self {
        self.cookie_sync = sync;
        self
    }

    /// Sets how long changed cookies of a session wait for more of their kind before the others are told. Default: a second.
    ///
    /// So a process writes at most once in this time for each session, however many cookies change, and the others have what it
    /// wrote as soon as they hear of it. That a cookie lasts a minute longer is not told.
    pub fn sync_debounce(mut self, delay: Duration) -> Self {
        self.sync_debounce = delay;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        /// Longer than anybody waits, and short enough to be added to any moment.
        const MOST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        let is_good = |time: Duration| !time.is_zero() && time <= MOST;
        ConfigError::unless(is_good(self.lease_ttl), "lease_ttl")?;
        ConfigError::unless(is_good(self.poll_interval), "poll_interval")?;
        ConfigError::unless(is_good(self.store_timeout), "store_timeout")?;
        ConfigError::unless(self.stale_after.is_none_or(|silence| !silence.is_zero()), "stale_after")?;
        ConfigError::unless(self.use_batch_size > 0, "use_batch_size")
    }
}

impl<S: SharedStore> From<S> for SharingConfig {
    fn from(store: S) -> Self {
        Self::new(store)
    }
}
