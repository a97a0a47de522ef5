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
    payload::{self, Payload},
};
use crate::{
    gate::Generation,
    session::{
        Session, SessionId,
        sessions::Registry,
        share::{PendingWrite, WriteEpoch},
        snapshot::SnapshotOptions,
    },
};

/// How many sessions are compared with the store in one request.
const BATCH: usize = 1000;

/// How many changes may wait to be looked at; whoever sends more waits.
const CHANGES: usize = 1024;

impl Fleet {
    /// Follows what others do, until the sessions are gone.
    pub(super) async fn watch(self: Arc<Self>, registry: Weak<Registry>) {
        let (sender, changes) = mpsc::channel(CHANGES);
        let tells = async {
            loop {
                let ended = self.config.store.watch(sender.clone()).await;
                self.is_watching.store(false, Ordering::Relaxed);
                if let Err(error) = ended {
                    tracing::debug!(%error, "the store of shared sessions tells of no changes");
                }
                // Until it does again, everything is compared from time to time.
                sleep(self.jittered(self.config.poll_interval)).await;
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
                    compare_at = Instant::now() + self.jittered(self.config.poll_interval);
                }
                change = changes.recv() => match change {
                    Some(StoreEvent::Updated { key, version, writer }) => {
                        let Some(registry) = registry.upgrade() else { return };
                        if writer != self.owner
                            && let Some(session) = registry.find(&SessionId::from(key)) {
                                self.on_remote_version(&session, version).await;
                            }
                    }
                    Some(StoreEvent::Lagged) => {
                        self.is_watching.store(true, Ordering::Relaxed);
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
        for some in sessions.chunks(BATCH) {
            let keys: Vec<String> = some.iter().map(|session| session.id().to_string()).collect();
            let Ok(versions) = self.ask(self.config.store.versions(&keys)).await else { return false };
            for (session, version) in some.iter().zip(versions) {
                self.on_remote_version(session, version).await;
                // Whoever is busy may be waiting for the news that are told here.
                let share_state = session.0.share_state();
                let Ok(_guard) = share_state.sync_lock.try_lock() else { continue };
                let pending = share_state.known.lock().pending;
                if pending != PendingWrite::None && self.flush_pending(session).await.is_err() {
                    return false;
                }
                self.sync_cookies_if_dirty(session).await;
            }
        }
        true
    }

    /// The record of this session stands at `version`.
    async fn on_remote_version(self: &Arc<Self>, session: &Session, version: RecordVersion) {
        let share_state = session.0.share_state();
        {
            let known = share_state.known.lock();
            if version.number == known.version && version.revision > known.revision {
                self.apply_remote_changes(session);
            }
            let is_to_be_told = matches!(known.pending, PendingWrite::End | PendingWrite::Identity);
            if version.number <= known.version.max(known.ended_up_to) || is_to_be_told {
                return;
            }
        }
        share_state.remote_change.notify_waiters();
        if let Ok(_guard) = share_state.sync_lock.try_lock() {
            return self.catch_up(session).await;
        }
        // An attempt looks by itself, and decides; but whoever is busy may have looked already.
        let (fleet, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            let share_state = session.0.share_state();
            let _guard = share_state.sync_lock.lock().await;
            let known = {
                let known = share_state.known.lock();
                known.version.max(known.ended_up_to)
            };
            if version.number > known {
                fleet.catch_up(&session).await;
            }
        });
    }

    /// Pays what is owed, and takes over what is newer in the store than here.
    async fn catch_up(&self, session: &Session) {
        let caught_up = async {
            self.flush_pending(session).await?;
            self.take_newer(session).await
        };
        if let Err(error) = caught_up.await {
            tracing::warn!(session = %session.id(), %error, "a newer shared session was not adopted");
        }
    }

    /// Takes over what is newer in the store than here, where somebody has a use for it.
    async fn take_newer(&self, session: &Session) -> Result<(), StoreError> {
        if session.gate().published().is_none() {
            // Nobody sends; the next request looks for itself.
            return Ok(());
        }
        let key = session.id().to_string();
        let share_state = session.0.share_state();
        let epoch = share_state.epoch();
        let found = self.load(&key).await?;
        let (version, generation) = {
            let known = share_state.known.lock();
            (known.version, known.generation)
        };
        // Cleared or replaced here meanwhile: whoever did that tells the store.
        let is_as_known =
            || session.gate().published().is_some_and(|kept| kept.life.generation == generation);
        if found.version.number <= version || !is_as_known() {
            return Ok(());
        }
        self.take_over(session, epoch, &key, &found, generation).await
    }

    /// Puts what the store has in the place of this generation, or ends it if the store has none.
    async fn take_over(
        &self,
        session: &Session,
        epoch: WriteEpoch,
        key: &str,
        found: &Record,
        generation: Generation,
    ) -> Result<(), StoreError> {
        if found.version.ended {
            self.take_data(session, key, found);
            {
                let mut known = session.0.share_state().known.lock();
                known.version = found.version.number;
                known.ended_up_to = found.version.number;
                known.mark_flushed(epoch);
            }
            session.0.end_here();
            return Ok(());
        }
        let snapshot = self.open(key, found)?.session;
        let kept =
            session.0.install(generation, &snapshot).map_err(|error| super::error::profile(error, key))?;
        if let Some(kept) = kept {
            self.record_current(session, epoch, found.version, &kept, snapshot.cookies, None);
            count(&self.counters.versions_adopted);
            self.take_allowance(session, &kept).await;
        }
        Ok(())
    }

    /// Where nothing may be sent that may be out of date, ends it.
    fn grow_stale(&self, registry: &Registry, silence: Duration) {
        let Some(bound) = self.config.stale_after else { return };
        if self.config.on_unreachable != OnUnreachable::Fail || silence < bound {
            return;
        }
        for session in registry.all() {
            if session.gate().published().is_some() {
                session.0.share_state().known.lock().reload = true;
                session.0.end_here();
            }
        }
    }

    /// Ends whatever version there is.
    pub(super) async fn publish_end(&self, session: &Session) -> Result<(), StoreError> {
        let key = session.id().to_string();
        let share_state = session.0.share_state();
        loop {
            let found = self.load(&key).await?;
            // What outlives the session is there for whoever logs in next.
            let is_read = self.take_data(session, &key, &found);
            let known = share_state.known.lock().newest();
            let version = self.next_version(found.version.number, known);
            let options = SnapshotOptions::new().profiles(self.config.profiles);
            let snapshot = session.snapshot_of(None, 0, false, &options);
            let content = Payload { session: snapshot, changes: Vec::new() };
            let commit = Commit {
                expected: found.version.number,
                version,
                fence: None,
                owner: self.owner,
                ended: true,
                interrupted: !is_read || found.version.number < known,
                payload: payload::write(self.config.encryption_key.as_ref(), &key, version, &content),
            };
            if found.version.ended
                || matches!(self.commit_with_retry(&key, commit).await?, CommitOutcome::Written(_))
            {
                let mut known = share_state.known.lock();
                let ended = if found.version.ended { found.version.number } else { version };
                known.version = known.version.max(ended);
                known.ended_up_to = known.version;
                if known.pending == PendingWrite::End {
                    known.pending = PendingWrite::None;
                }
                return Ok(());
            }
        }
    }

    /// Lets others have the identity that is current here.
    pub(super) async fn publish_identity(
        &self,
        session: &Session,
        pending: PendingWrite,
    ) -> Result<(), StoreError> {
        let key = session.id().to_string();
        loop {
            let epoch = session.0.share_state().epoch();
            let found = self.load(&key).await?;
            let Some(kept) = session.gate().current() else {
                // It has ended again; the attempt that follows has another.
                let mut known = session.0.share_state().known.lock();
                if pending == PendingWrite::Renewed && found.writer == Some(self.owner) {
                    // That the store has it was never told here.
                    known.version = known.version.max(found.version.number);
                    known.ended_up_to = known.ended_up_to.max(known.version);
                }
                known.mark_flushed(epoch);
                return Ok(());
            };
            if pending == PendingWrite::Renewed
                && found.version.number > session.0.share_state().known.lock().version
            {
                return self.take_over(session, epoch, &key, &found, kept.life.generation).await;
            }
            // What was given by hand says nothing of what was used up in versions that were missed here.
            let is_stale = pending == PendingWrite::Identity
                && found.version.number != session.0.share_state().known.lock().version;
            if self.commit(session, epoch, &kept, &key, &found, None, is_stale).await?.is_none() {
                self.take_allowance(session, &kept).await;
                return Ok(());
            }
        }
    }
}
