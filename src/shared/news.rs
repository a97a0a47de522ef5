//! News out of the store and into it, besides renewals.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Commit, CommitOutcome, OnUnreachable, Record, RecordVersion, StoreError, StoreEvent,
    fleet::{Fleet, count},
    payload::{self, Content},
};
use crate::{
    gate::core::Generation,
    session::{
        Session, SessionId,
        sessions::Registry,
        share::{Asked, Debt},
        snapshot::SnapshotOptions,
    },
};

/// How many sessions are compared with the store in one request.
const AT_ONCE: usize = 1000;

/// How many changes may wait to be looked at; whoever sends more waits.
const CHANGES: usize = 1024;

impl Fleet {
    /// Follows what others do, until the sessions are gone.
    pub(super) async fn watch(self: Arc<Self>, registry: Weak<Registry>) {
        let (sender, changes) = mpsc::channel(CHANGES);
        let tells = async {
            loop {
                let ended = self.config.store.watch(sender.clone()).await;
                self.is_told.store(false, Ordering::Relaxed);
                if let Err(error) = ended {
                    tracing::debug!(%error, "the store of shared sessions tells of no changes");
                }
                // Until it does again, everything is compared from time to time.
                sleep(self.jittered(self.config.poll)).await;
            }
        };
        // One look-out for as long as there are sessions: it knows since when nothing was heard.
        tokio::select! {
            biased;
            () = tells => {}
            () = self.follow(&registry, changes) => {}
        }
    }

    /// Looks at what is told, and at everything from time to time. Ends when the sessions are gone.
    async fn follow(self: &Arc<Self>, registry: &Weak<Registry>, mut changes: mpsc::Receiver<StoreEvent>) {
        let mut heard = Instant::now();
        // At once: nobody has told what was changed until now.
        let mut compare_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(compare_at) => {
                    let Some(registry) = registry.upgrade() else { return };
                    if self.compare(&registry).await {
                        heard = Instant::now();
                    } else {
                        self.grow_stale(&registry, heard.elapsed());
                    }
                    compare_at = Instant::now() + self.jittered(self.config.poll);
                }
                change = changes.recv() => match change {
                    Some(StoreEvent::Updated { key, mark, writer }) => {
                        let Some(registry) = registry.upgrade() else { return };
                        if writer != self.owner
                            && let Some(session) = registry.find(&SessionId::from(key)) {
                                self.heard_of(&session, mark).await;
                            }
                    }
                    Some(StoreEvent::Lagged) => {
                        self.is_told.store(true, Ordering::Relaxed);
                        compare_at = Instant::now();
                    }
                    None => return std::future::pending().await,
                },
            }
        }
    }

    /// Compares all sessions with the store, and pays what it is owed. `false`: it did not answer.
    async fn compare(self: &Arc<Self>, registry: &Registry) -> bool {
        let sessions = registry.all();
        for some in sessions.chunks(AT_ONCE) {
            let keys: Vec<String> = some.iter().map(|session| session.id().to_string()).collect();
            let Ok(versions) = self.ask(self.config.store.versions(&keys)).await else { return false };
            for (session, mark) in some.iter().zip(versions) {
                self.heard_of(session, mark).await;
                // Whoever is busy may be waiting for the news that are told here.
                let ties = session.0.ties();
                let Ok(_busy) = ties.busy.try_lock() else { continue };
                let debt = ties.known.lock().debt;
                if debt != Debt::None && self.pay(session).await.is_err() {
                    return false;
                }
                self.exchange_if_touched(session).await;
            }
        }
        true
    }

    /// The record of this session stands at `mark`.
    async fn heard_of(self: &Arc<Self>, session: &Session, mark: RecordVersion) {
        let ties = session.0.ties();
        {
            let known = ties.known.lock();
            if mark.version == known.version && mark.revision > known.revision {
                self.take_news(session);
            }
            let is_to_be_told = matches!(known.debt, Debt::End | Debt::Identity);
            if mark.version <= known.version.max(known.dead) || is_to_be_told {
                return;
            }
        }
        ties.news.notify_waiters();
        if let Ok(_busy) = ties.busy.try_lock() {
            return self.catch_up(session).await;
        }
        // An attempt looks by itself, and decides; but whoever is busy may have looked already.
        let (fleet, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            let ties = session.0.ties();
            let _busy = ties.busy.lock().await;
            let known = {
                let known = ties.known.lock();
                known.version.max(known.dead)
            };
            if mark.version > known {
                fleet.catch_up(&session).await;
            }
        });
    }

    /// Pays what is owed, and takes over what is newer in the store than here.
    async fn catch_up(&self, session: &Session) {
        let caught_up = async {
            self.pay(session).await?;
            self.take_newer(session).await
        };
        if let Err(error) = caught_up.await {
            tracing::warn!(session = %session.id(), %error, "a newer shared session was not adopted");
        }
    }

    /// Takes over what is newer in the store than here, where somebody has a use for it.
    async fn take_newer(&self, session: &Session) -> Result<(), StoreError> {
        if session.0.gate.published().is_none() {
            // Nobody sends; the next request looks for itself.
            return Ok(());
        }
        let key = session.id().to_string();
        let ties = session.0.ties();
        let asked = ties.asked();
        let found = self.load(&key).await?;
        let (version, generation) = {
            let known = ties.known.lock();
            (known.version, known.generation)
        };
        // Cleared or replaced here meanwhile: whoever did that tells the store.
        let is_as_known =
            || session.0.gate.published().is_some_and(|kept| kept.life.generation == generation);
        if found.mark.version <= version || !is_as_known() {
            return Ok(());
        }
        self.take_over(session, asked, &key, &found, generation).await
    }

    /// Puts what the store has in the place of this generation, or ends it if the store has none.
    async fn take_over(
        &self,
        session: &Session,
        asked: Asked,
        key: &str,
        found: &Record,
        generation: Generation,
    ) -> Result<(), StoreError> {
        if found.mark.ended {
            self.take_data(session, key, found);
            {
                let mut known = session.0.ties().known.lock();
                known.version = found.mark.version;
                known.dead = found.mark.version;
                known.pay(asked);
            }
            session.0.end_here();
            return Ok(());
        }
        let snapshot = self.open(key, found)?.session;
        let kept =
            session.0.install(generation, &snapshot).map_err(|error| super::error::profile(error, key))?;
        if let Some(kept) = kept {
            self.stands(session, asked, found.mark, &kept, snapshot.cookies, None);
            count(&self.counted.versions_adopted);
            self.ration(session, &kept).await;
        }
        Ok(())
    }

    /// Where nothing may be sent that may be out of date, ends it.
    fn grow_stale(&self, registry: &Registry, silence: Duration) {
        let Some(bound) = self.config.stale_after else { return };
        if self.config.unreachable != OnUnreachable::Fail || silence < bound {
            return;
        }
        for session in registry.all() {
            if session.0.gate.published().is_some() {
                session.0.ties().known.lock().reload = true;
                session.0.end_here();
            }
        }
    }

    /// Ends whatever version there is.
    pub(super) async fn tell_end(&self, session: &Session) -> Result<(), StoreError> {
        let key = session.id().to_string();
        let ties = session.0.ties();
        loop {
            let found = self.load(&key).await?;
            // What outlives the session is there for whoever logs in next.
            let is_read = self.take_data(session, &key, &found);
            let known = ties.known.lock().newest();
            let version = self.next_version(found.mark.version, known);
            let options = SnapshotOptions::new().profiles(self.config.profiles);
            let snapshot = session.snapshot_of(None, 0, false, &options);
            let content = Content { session: snapshot, touched: Vec::new() };
            let commit = Commit {
                expected: found.mark.version,
                version,
                fence: None,
                owner: self.owner,
                ended: true,
                interrupted: !is_read || found.mark.version < known,
                payload: payload::write(self.config.seal.as_ref(), &key, version, &content),
            };
            if found.mark.ended
                || matches!(self.commit_surely(&key, commit).await?, CommitOutcome::Written(_))
            {
                let mut known = ties.known.lock();
                let ended = if found.mark.ended { found.mark.version } else { version };
                known.version = known.version.max(ended);
                known.dead = known.version;
                if known.debt == Debt::End {
                    known.debt = Debt::None;
                }
                return Ok(());
            }
        }
    }

    /// Lets others have the identity that is current here.
    pub(super) async fn tell_identity(&self, session: &Session, debt: Debt) -> Result<(), StoreError> {
        let key = session.id().to_string();
        loop {
            let asked = session.0.ties().asked();
            let found = self.load(&key).await?;
            let Some(kept) = session.0.gate.current() else {
                // It has ended again; the attempt that follows has another.
                let mut known = session.0.ties().known.lock();
                if debt == Debt::Renewed && found.writer == Some(self.owner) {
                    // That the store has it was never told here.
                    known.version = known.version.max(found.mark.version);
                    known.dead = known.dead.max(known.version);
                }
                known.pay(asked);
                return Ok(());
            };
            if debt == Debt::Renewed && found.mark.version > session.0.ties().known.lock().version {
                return self.take_over(session, asked, &key, &found, kept.life.generation).await;
            }
            // What was given by hand says nothing of what was used up in versions that were missed here.
            let is_stale =
                debt == Debt::Identity && found.mark.version != session.0.ties().known.lock().version;
            if self.commit(session, asked, &kept, &key, &found, None, is_stale).await?.is_none() {
                self.ration(session, &kept).await;
                return Ok(());
            }
        }
    }
}
