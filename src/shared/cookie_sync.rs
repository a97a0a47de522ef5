//! Cookies that change while a version lasts: given to the others and taken from them, in batches.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::{
    CommitOutcome, CookieSync, StoreError,
    fleet::{Fleet, count},
    merge,
    payload::{self, Payload},
};
use crate::session::{Session, share::PendingWrite};

/// How often a batch is tried when others write at the same time; what is left goes with the next one.
const TRIES: usize = 4;

impl Fleet {
    /// A cookie has changed here: the others are told with whatever else changes within the delay.
    pub(super) fn sync_cookies_later(self: &Arc<Self>, session: &Session) {
        self.sync_cookies_after(session, self.config.sync_debounce);
    }

    /// The others have changed cookies.
    pub(super) fn apply_remote_changes(self: &Arc<Self>, session: &Session) {
        if session.0.share_state().dirty.mark_urgent() {
            self.sync_cookies_after(session, Duration::ZERO);
        }
    }

    fn sync_cookies_after(self: &Arc<Self>, session: &Session, delay: Duration) {
        if self.config.cookie_sync == CookieSync::Local {
            return;
        }
        // Outside a runtime, whoever compares the sessions with the store sees to it.
        let Ok(runtime) = Handle::try_current() else { return };
        let (fleet, session) = (self.clone(), Arc::downgrade(&session.0));
        runtime.spawn(async move {
            sleep(delay).await;
            if let Some(session) = session.upgrade() {
                fleet.sync_cookies_now(&Session::of(session)).await;
            }
        });
    }

    /// Gives and takes, if there is anything to.
    pub(super) async fn sync_cookies_now(&self, session: &Session) {
        let share_state = session.0.share_state();
        if share_state.dirty.is_set() {
            let _guard = share_state.sync_lock.lock().await;
            self.sync_cookies_if_dirty(session).await;
        }
    }

    /// The same. Whoever calls this is the one that is busy with the session.
    pub(super) async fn sync_cookies_if_dirty(&self, session: &Session) {
        let share_state = session.0.share_state();
        if self.config.cookie_sync == CookieSync::Local || !share_state.dirty.is_set() {
            return;
        }
        // Lowered before anything is looked at, so that a change that is not seen raises it again.
        share_state.dirty.clear();
        if let Err(error) = self.sync_cookies(session).await {
            share_state.dirty.mark_lazy();
            tracing::debug!(session = %session.id(), %error, "changed cookies are yet to be shared");
        }
    }

    async fn sync_cookies(&self, session: &Session) -> Result<(), StoreError> {
        let share_state = session.0.share_state();
        let key = session.id().to_string();
        for _ in 0..TRIES {
            let found = self.load(&key).await?;
            let (version, generation, is_owing, mut base) = {
                let known = share_state.known.lock();
                (known.version, known.generation, known.pending != PendingWrite::None, known.cookies.clone())
            };
            let current = session.gate().published().filter(|kept| kept.life.generation == generation);
            let (Some(kept), true) = (current, found.version.number == version && !found.version.ended)
            else {
                // Another version is on its way, here or there, and has cookies of its own.
                return Ok(());
            };
            if is_owing {
                return Ok(());
            }
            let Payload { session: mut snapshot, mut changes } = self.open(&key, &found)?;
            let (now, at) = (session.0.context.timestamp(), share_state.dirty.last());
            let mine = kept.jar.lock().by_creation(now);
            // That a cookie's time is over needs no telling.
            base.retain(|cookie| !cookie.is_expired(now));
            let mut stored = found.version;
            if merge::apply(&mut snapshot.cookies, &mut changes, &base, &mine, at) {
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
                let mut jar = kept.jar.lock();
                let is = jar.by_creation(now);
                let (set, removed) = merge::diff(&mine, &is, &snapshot.cookies);
                jar.retain(|cookie| !removed.iter().any(|removed| removed.eq_within(cookie, merge::DRIFT)));
                for cookie in set {
                    jar.restore(cookie.clone(), now);
                }
            }
            session.0.context.changed();
            let mut known = share_state.known.lock();
            known.revision = stored.revision;
            known.cookies = snapshot.cookies;
            return Ok(());
        }
        // Many write at once.
        share_state.dirty.mark_lazy();
        Ok(())
    }
}
