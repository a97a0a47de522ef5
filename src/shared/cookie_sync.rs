//! Exchanges cookies that change within a version with other processes, in batches.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    CommitOutcome, CookieSync, StoreError,
    fleet::{Fleet, count},
    merge,
    payload::{self, Payload},
};
use crate::{rt, session::Session};

/// How often a batch is tried while other processes write. The rest goes with the next batch.
const TRIES: usize = 4;

impl Fleet {
    /// Shares changed cookies after the debounce, with whatever else changes until then.
    pub(super) fn sync_cookies_later(self: &Arc<Self>, session: &Session) {
        self.sync_cookies_after(session, self.config.sync_debounce);
    }

    /// Loads cookies that another process has changed.
    pub(super) fn apply_remote_changes(self: &Arc<Self>, session: &Session) {
        if session.share_state().dirty().mark_urgent() {
            self.sync_cookies_after(session, Duration::ZERO);
        }
    }

    fn sync_cookies_after(self: &Arc<Self>, session: &Session, delay: Duration) {
        if self.config.cookie_sync == CookieSync::Local {
            return;
        }
        // Outside a runtime, the next comparison with the store finds the session dirty.
        let (fleet, session) = (self.clone(), session.downgrade());
        rt::try_spawn(async move {
            sleep(delay).await;
            if let Some(session) = session.upgrade() {
                fleet.sync_cookies_now(&session).await;
            }
        });
    }

    pub(super) async fn sync_cookies_now(&self, session: &Session) {
        let state = session.share_state();
        if state.dirty().is_set() {
            let _guard = state.lock().await;
            self.sync_cookies_if_dirty(session).await;
        }
    }

    /// Exchanges cookies if some have changed. The caller holds the lock of the share state.
    pub(super) async fn sync_cookies_if_dirty(&self, session: &Session) {
        let dirty = session.share_state().dirty();
        if self.config.cookie_sync == CookieSync::Local || !dirty.is_set() {
            return;
        }
        // Cleared before anything is read, so that a change that is missed sets it again.
        dirty.clear();
        if let Err(error) = self.sync_cookies(session).await {
            dirty.mark_lazy();
            tracing::debug!(session = %session.id(), %error, "changed cookies could not be shared yet");
        }
    }

    async fn sync_cookies(&self, session: &Session) -> Result<(), StoreError> {
        let state = session.share_state();
        let key = session.id().to_string();
        for _ in 0..TRIES {
            let found = self.load(&key).await?;
            let (version, generation, is_pending, mut base) = {
                let known = state.known();
                (known.version, known.generation, known.pending.is_some(), known.cookies.clone())
            };
            let current =
                session.published().filter(|identity| Some(identity.version.generation) == generation);
            let is_same_version = found.version.number == version && !found.version.ended;
            let (Some(identity), true, false) = (current, is_same_version, is_pending) else {
                // Another version follows, here or in the store, and has its own cookies.
                return Ok(());
            };
            let Payload { session: mut snapshot, mut changes } = self.open(&key, &found)?;
            let (now, changed_at) = (session.timestamp(), state.dirty().changed_at());
            let mine = identity.jar.lock().by_creation(now);
            // Every process expires cookies by itself: that is no change.
            base.retain(|cookie| !cookie.is_expired(now));
            let mut stored = found.version;
            if merge::apply(&mut snapshot.cookies, &mut changes, &base, &mine, changed_at) {
                let payload = Payload { session: snapshot, changes };
                let bytes = payload::write(self.config.encryption_key.as_ref(), &key, version, &payload);
                match self.ask(self.config.store.update(&key, stored, self.owner, bytes)).await? {
                    CommitOutcome::Written(written) => stored = written,
                    CommitOutcome::Conflict(_) => continue,
                }
                count(&self.counters.updates);
                snapshot = payload.session;
            }
            {
                let mut jar = identity.jar.lock();
                let now_in_jar = jar.by_creation(now);
                let (set, removed) = merge::diff(&mine, &now_in_jar, &snapshot.cookies);
                jar.retain(|cookie| !removed.iter().any(|removed| removed.eq_within(cookie, merge::DRIFT)));
                for cookie in set {
                    jar.restore(cookie.clone(), now);
                }
            }
            session.mark_changed();
            let mut known = state.known();
            known.revision = stored.revision;
            known.cookies = snapshot.cookies;
            return Ok(());
        }
        // Other processes were faster each time.
        state.dirty().mark_lazy();
        Ok(())
    }
}
