//! Cookies that change while a version lasts: given to the others and taken from them, in batches.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::{
    CommitOutcome, CookieSync, StoreError,
    fleet::{Fleet, count},
    merge,
    payload::{self, Content},
};
use crate::session::{Session, share::Debt};

/// How often a batch is tried when others write at the same time; what is left goes with the next one.
const TRIES: usize = 4;

impl Fleet {
    /// A cookie has changed here: the others are told with whatever else changes within the delay.
    pub(super) fn exchange_later(self: &Arc<Self>, session: &Session) {
        self.exchange_after(session, self.config.sync_debounce);
    }

    /// The others have changed cookies.
    pub(super) fn take_news(self: &Arc<Self>, session: &Session) {
        if session.0.ties().touch.firmly() {
            self.exchange_after(session, Duration::ZERO);
        }
    }

    fn exchange_after(self: &Arc<Self>, session: &Session, delay: Duration) {
        if self.config.cookie_sync == CookieSync::Local {
            return;
        }
        // Outside a runtime, whoever compares the sessions with the store sees to it.
        let Ok(runtime) = Handle::try_current() else { return };
        let (fleet, session) = (self.clone(), Arc::downgrade(&session.0));
        runtime.spawn(async move {
            sleep(delay).await;
            if let Some(session) = session.upgrade() {
                fleet.exchange_now(&Session::of(session)).await;
            }
        });
    }

    /// Gives and takes, if there is anything to.
    pub(super) async fn exchange_now(&self, session: &Session) {
        let ties = session.0.ties();
        if ties.touch.is_there() {
            let _busy = ties.busy.lock().await;
            self.exchange_if_touched(session).await;
        }
    }

    /// The same. Whoever calls this is the one that is busy with the session.
    pub(super) async fn exchange_if_touched(&self, session: &Session) {
        let ties = session.0.ties();
        if self.config.cookie_sync == CookieSync::Local || !ties.touch.is_there() {
            return;
        }
        // Lowered before anything is looked at, so that a change that is not seen raises it again.
        ties.touch.lower();
        if let Err(error) = self.exchange(session).await {
            ties.touch.lightly();
            tracing::debug!(session = %session.id(), %error, "changed cookies are yet to be shared");
        }
    }

    async fn exchange(&self, session: &Session) -> Result<(), StoreError> {
        let ties = session.0.ties();
        let key = session.id().to_string();
        for _ in 0..TRIES {
            let found = self.load(&key).await?;
            let (version, generation, is_owing, mut base) = {
                let known = ties.known.lock();
                (known.version, known.generation, known.debt != Debt::None, known.cookies.clone())
            };
            let current = session.0.gate.published().filter(|kept| kept.life.generation == generation);
            let (Some(kept), true) = (current, found.mark.version == version && !found.mark.ended) else {
                // Another version is on its way, here or there, and has cookies of its own.
                return Ok(());
            };
            if is_owing {
                return Ok(());
            }
            let Content { session: mut snapshot, mut touched } = self.open(&key, &found)?;
            let (now, at) = (session.0.shared.timestamp(), ties.touch.last());
            let mine = kept.jar.lock().by_creation(now);
            // That a cookie's time is over needs no telling.
            base.retain(|cookie| !cookie.is_expired(now));
            let mut mark = found.mark;
            if merge::bring(&mut snapshot.cookies, &mut touched, &base, &mine, at) {
                let content = Content { session: snapshot, touched };
                let payload = payload::write(self.config.seal.as_ref(), &key, version, &content);
                match self.ask(self.config.store.update(&key, mark, self.owner, payload)).await? {
                    CommitOutcome::Written(stands) => mark = stands,
                    CommitOutcome::Conflict(_) => continue,
                }
                count(&self.counted.updates);
                snapshot = content.session;
            }
            {
                let mut jar = kept.jar.lock();
                let is = jar.by_creation(now);
                let (set, removed) = merge::steps(&mine, &is, &snapshot.cookies);
                jar.retain(|cookie| !removed.iter().any(|removed| removed.eq_within(cookie, merge::DRIFT)));
                for cookie in set {
                    jar.restore(cookie.clone(), now);
                }
            }
            session.0.shared.changed();
            let mut known = ties.known.lock();
            known.revision = mark.revision;
            known.cookies = snapshot.cookies;
            return Ok(());
        }
        // Many write at once.
        ties.touch.lightly();
        Ok(())
    }
}
