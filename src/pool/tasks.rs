//! What the background tasks of a pool report to it.

use std::{collections::HashMap, sync::Arc};

use super::types::Key;
use crate::{
    gate::RenewalError,
    session::{Session, SessionId},
};

/// The pool, as its background tasks see it.
///
/// Tasks that wait for long hold a `Weak` to it, so that they do not keep the pool alive.
pub(crate) trait Tasks: Send + Sync {
    /// A warm-up has ended.
    fn warmed(self: Arc<Self>, key: Key, result: Result<(), RenewalError>);
    /// A warm-up was dropped without a result, for example with its runtime.
    fn warm_up_lost(self: Arc<Self>, key: Key);
    /// The renewal of a member's session has ended.
    fn renewed(self: Arc<Self>, key: Key, result: Result<(), RenewalError>);
    /// The gate of a member's session has changed.
    fn recheck(self: Arc<Self>, key: Key);
    /// The timer with this number has fired.
    fn timer_fired(self: Arc<Self>, number: u64);
    /// The timer with this number was dropped before it fired.
    fn timer_lost(self: Arc<Self>, number: u64);

    /// Returns the session with this name, creating it if it does not exist.
    fn session(&self, id: SessionId) -> Session;
    /// Sets the session of a member that is being warmed up.
    fn attach_session(&self, key: Key, session: Session);
    /// Lets another process take over a member once its leases have ended.
    fn release(self: Arc<Self>, key: Key);
    /// Returns how much each member is used.
    fn usage(&self) -> HashMap<Key, Usage>;
    fn has_waiters(&self) -> bool;
    fn random(&self) -> u64;
}

/// How much a member is used.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// The number of the member's last lease.
    pub(crate) last_lease: u64,
    pub(crate) is_leased: bool,
}
