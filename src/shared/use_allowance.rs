//! Batches of uses of a session whose `max_uses` applies to all processes together.

use std::sync::Arc;

use super::{Record, fleet::Fleet};
use crate::{
    gate::Generation,
    session::{IdentityInner, Session},
};

impl Fleet {
    /// Takes the next batch for an identity that has used up its last one.
    ///
    /// Returns the identity under another generation of the same version, or `None` if it has to be
    /// renewed.
    pub(super) async fn continue_version(
        &self,
        session: &Session,
        generation: Generation,
        key: &str,
        found: &Record,
        spent: &Arc<IdentityInner>,
    ) -> Option<Arc<IdentityInner>> {
        let limit = session.use_limit()?;
        let is_too_old = || {
            session
                .age_limit()
                .is_some_and(|age| session.now().saturating_sub(spent.version.created_at) >= age)
        };
        let state = session.share_state();
        let version = {
            let known = state.known();
            (known.generation == Some(spent.version.generation)).then_some(known.version)?
        };
        if found.version.ended || found.version.number != version || is_too_old() {
            return None;
        }
        let granted = match spent.version.take_remaining() {
            0 => self.take_batch(session, key, version, limit).await?,
            // A batch was granted just after the one before was used up.
            remaining => remaining,
        };
        if granted == 0 {
            return None;
        }
        let identity = session.continue_version(spent, generation, granted);
        // The version has not ended: only the uses of this process were used up.
        let mut known = state.known();
        known.ended_up_to = version - 1;
        known.generation = Some(identity.version.generation);
        known.limited = Some(identity.clone());
        drop(known);
        Some(identity)
    }

    /// Limits an identity that the store has to the uses that this process takes, if uses are
    /// limited.
    pub(super) async fn take_allowance(&self, session: &Session, identity: &Arc<IdentityInner>) {
        let state = session.share_state();
        let is_limited = session.use_limit().is_some();
        let is_stored = {
            let known = state.known();
            known.generation == Some(identity.version.generation) && known.pending.is_none()
        };
        if is_limited && is_stored && !identity.version.allowance.allows_some() {
            identity.version.allowance.begin();
            state.known().limited = Some(identity.clone());
            self.refill_allowance(session, identity).await;
        }
    }

    /// Takes the next batch before the last one is used up.
    pub(super) async fn refill_allowance(&self, session: &Session, identity: &Arc<IdentityInner>) {
        let Some(limit) = session.use_limit() else { return };
        let state = session.share_state();
        let version = {
            let known = state.known();
            if known.generation != Some(identity.version.generation) {
                return;
            }
            known.version
        };
        let key = session.id().to_string();
        // If this fails, an attempt takes the next batch when this one is used up.
        let Some(granted) = self.take_batch(session, &key, version, limit).await else { return };
        identity.version.allowance.allow(granted);
        if state.known().uses_taken >= limit - limit / 10 {
            session.renew_early(identity);
        }
    }

    /// Takes a batch of uses. Batches get smaller towards the limit, so that few uses are left
    /// over.
    async fn take_batch(&self, session: &Session, key: &str, version: u64, limit: u64) -> Option<u64> {
        let state = session.share_state();
        let left = limit.saturating_sub(state.known().uses_taken);
        let want = self.config.use_batch_size.min(left / 4).max(1);
        let grant = self.ask(self.config.store.take_uses(key, version, want, limit)).await.ok()?;
        let mut known = state.known();
        if known.version == version {
            known.uses_taken = grant.total;
        }
        Some(grant.granted)
    }
}
