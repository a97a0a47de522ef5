//! The configuration of shared sessions.

use std::{sync::Arc, time::Duration};

use super::{EncryptionKey, SharedStore};
use crate::{gate::ConfigError, session::snapshot::ProfileDetail};

/// The configuration of shared sessions: the store, and what happens when it is unreachable.
///
/// A store can be passed in its place to use the defaults. Durations may be at most ten years.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_client_sessions::{
///     Sessions,
///     shared::{MemoryStore, SharingConfig},
/// };
///
/// let sharing = SharingConfig::new(MemoryStore::new()).poll_interval(Duration::from_secs(1));
/// let sessions = Sessions::builder().shared(sharing).build()?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
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

/// What happens to cookies that change within a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieSync {
    /// Processes merge their changes cookie by cookie, in batches: see
    /// [`SharingConfig::sync_debounce`]. The default.
    ///
    /// The later of two changes of one cookie wins. All changes of a batch have the time of its
    /// last change, by the clock of the writer.
    #[default]
    Merged,
    /// Changes stay in the process that made them. Other processes adopt the cookies of the
    /// renewal.
    Local,
}

/// What happens to renewals while the store is unreachable.
///
/// Current identities stay in use under both policies, except with [`SharingConfig::stale_after`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnUnreachable {
    /// Renewals fail, and the gate retries them like any failed renewal. There is never more than
    /// one login at a time. The default.
    #[default]
    Fail,
    /// Each process renews by itself, and shares the result when the store is back. The first
    /// result is adopted by the others. Several logins may run concurrently.
    RenewLocally,
}

impl SharingConfig {
    /// Creates the default configuration for `store`.
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

    /// Sets how long a process that has stopped can keep others from renewing. Default: 10 seconds.
    ///
    /// The holder extends its lease after a third of this time. If it cannot, it abandons its
    /// renewal before the lease expires.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets how often all sessions are compared with the store. Default: 5 seconds.
    ///
    /// Polling runs whether or not the store pushes changes. While the store responds, a process is
    /// behind by at most this interval and the [store timeout](Self::store_timeout).
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets the timeout of each request to the store. Default: 2 seconds.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// Sets what happens to renewals while the store is unreachable. Default:
    /// [`OnUnreachable::Fail`].
    pub fn on_unreachable(mut self, policy: OnUnreachable) -> Self {
        self.on_unreachable = policy;
        self
    }

    /// Ends all identities when the store has been unreachable for this long. Default: never.
    ///
    /// Nothing is then sent under an identity that may be out of date; requests wait for the store.
    /// Ignored with [`OnUnreachable::RenewLocally`].
    pub fn stale_after(mut self, silence: Duration) -> Self {
        self.stale_after = Some(silence);
        self
    }

    /// Sets how many uses a process takes at a time. Default: 64.
    ///
    /// Applies where [`max_uses`](crate::RenewalLayer::max_uses) limits the uses of all processes
    /// together. Uses that a process has taken and not used when it ends are lost.
    pub fn use_batch_size(mut self, uses: u64) -> Self {
        self.use_batch_size = uses;
        self
    }

    /// Encrypts the payloads in the store. Default: they are readable JSON.
    pub fn encrypt_with(mut self, key: EncryptionKey) -> Self {
        self.encryption_key = Some(key);
        self
    }

    /// Sets how much of a profile is stored. Default: [`ProfileDetail::NameOnly`].
    pub fn profiles(mut self, profiles: ProfileDetail) -> Self {
        self.profiles = profiles;
        self
    }

    /// Sets what happens to cookies that change within a version. Default: [`CookieSync::Merged`].
    pub fn cookie_sync(mut self, sync: CookieSync) -> Self {
        self.cookie_sync = sync;
        self
    }

    /// Sets how long changed cookies of a session are collected into a batch. Default: 1 second.
    ///
    /// A process writes each session at most once in this time, however many cookies change. An
    /// expiry time that moves by at most one minute is not written.
    pub fn sync_debounce(mut self, delay: Duration) -> Self {
        self.sync_debounce = delay;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// If a duration is zero or longer than ten years, or the batch size is zero.
    pub fn validate(&self) -> Result<(), ConfigError> {
        /// Longer than any use, and short enough to be added to every `Instant`.
        const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        let is_good = |time: Duration| !time.is_zero() && time <= MAX_DURATION;
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
