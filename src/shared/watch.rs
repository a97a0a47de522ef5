//! Follows the store: adopts newer versions, and publishes what was changed here besides renewals.

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
    attempt::{CommitInput, Freshness, Origin},
    fleet::{Fleet, count},
    payload::{self, Payload},
};
use crate::{
    gate::Generation,
    session::{
        InitialIdentity, Session, SessionId,
        sessions::Registry,
        share::{PendingWrite, WriteEpoch},
        snapshot::SnapshotOptions,
    },
};

/// How many sessions are compared with the store in one request.
const BATCH: usize = 1000;

/// How many events of the store are buffered; the store waits while the buffer is full.
const EVENTS: usize = 1024;

impl Fleet {
    /// Follows the store until the sessions are dropped.
    pub(super) async fn watch(self: Arc<Self>, registry: Weak<Registry>) {
        let (sender, events) = mpsc::channel(EVENTS);
        let pushes = async {
            loop {
                let ended = self.config.store.watch(sender.clone()).await;
                self.is_watching.store(false, Ordering::Relaxed);
                if let Err(error) = ended {
                    tracing::debug!(%error, "the session store no longer pushes changes");
                }
                // Polling finds the changes until the store pushes them again.
                sleep(self.jittered(self.config.poll_interval)).await;
            }
        };
        // One task does both, so that it knows how long the store has been silent.
        tokio::select! {
            biased;
            () = pushes => {}
            () = self.follow(&registry, events) => {}
        }
    }

    /// Handles pushed events and polls all sessions. Returns when the sessions are dropped.
    async fn follow(self: &Arc<Self>, registry: &Weak<Registry>, mut events: mpsc::Receiver<StoreEvent>) {
        let mut last_contact = Instant::now();
        // Immediately: earlier changes were not pushed.
        let mut compare_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(compare_at) => {
                    let Some(registry) = registry.upgrade() else { return };
                    if self.compare(&registry).await {
                        last_contact = Instant::now();
                    } else {
                        self.end_stale(&registry, last_contact.elapsed());
                    }
                    compare_at = Instant::now() + self.jittered(self.config.poll_interval);
                }
                event = events.recv() => match event {
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

    /// Compares all sessions with the store and writes what is pending. `false` if a request
    /// failed.
    async fn compare(self: &Arc<Self>, registry: &Registry) -> bool {
        let sessions = registry.all();
        for batch in sessions.chunks(BATCH) {
            let keys: Vec<String> = batch.iter().map(|session| session.id().to_string()).collect();
            let Ok(versions) = self.ask(self.config.store.versions(&keys)).await else { return false };
            for (session, version) in batch.iter().zip(versions) {
                self.on_remote_version(session, version).await;
                // Not awaited: the holder of the lock may wait for an event that this task
                // delivers.
                let state = session.share_state();
                let Some(_guard) = state.try_lock() else { continue };
                let is_pending = state.known().pending.is_some();
                if is_pending && self.flush_pending(session).await.is_err() {
                    return false;
                }
                self.sync_cookies_if_dirty(session).await;
            }
        }
        true
    }

    /// Handles the version of a session's record: adopts what is newer than here.
    async fn on_remote_version(self: &Arc<Self>, session: &Session, version: RecordVersion) {
        let state = session.share_state();
        {
            let known = state.known();
            if version.number == known.version && version.revision > known.revision {
                self.apply_remote_changes(session);
            }
            let is_overwritten = matches!(known.pending, Some(PendingWrite::End | PendingWrite::Identity));
            if version.number <= known.outdated_up_to() || is_overwritten {
                return;
            }
        }
        state.notify_remote_change();
        if let Some(_guard) = state.try_lock() {
            return self.catch_up(session).await;
        }
        // An attempt loads the record itself. Other holders of the lock may have loaded it before.
        let (fleet, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            let state = session.share_state();
            let _guard = state.lock().await;
            let outdated_up_to = state.known().outdated_up_to();
            if version.number > outdated_up_to {
                fleet.catch_up(&session).await;
            }
        });
    }

    /// Writes what is pending, and adopts what the store has that is newer.
    async fn catch_up(&self, session: &Session) {
        let caught_up = async {
            self.flush_pending(session).await?;
            self.adopt_newer(session).await
        };
        if let Err(error) = caught_up.await {
            tracing::warn!(session = %session.id(), %error, "a newer version of a shared session was not adopted");
        }
    }

    /// Adopts a newer version, if the session has an identity that it can replace.
    async fn adopt_newer(&self, session: &Session) -> Result<(), StoreError> {
        if session.published().is_none() {
            // The next request starts an attempt, which loads the record.
            return Ok(());
        }
        let key = session.id().to_string();
        let state = session.share_state();
        let epoch = state.epoch();
        let found = self.load(&key).await?;
        let (version, Some(generation)) = ({
            let known = state.known();
            (known.version, known.generation)
        }) else {
            return Ok(());
        };
        // False if the session was cleared or replaced in the meantime: that has its own pending
        // write.
        let is_as_known =
            || session.published().is_some_and(|identity| identity.version.generation == generation);
        if found.version.number <= version || !is_as_known() {
            return Ok(());
        }
        self.take_over(session, epoch, &key, &found, generation).await
    }

    /// Replaces the identity of this generation with the record's, or ends it if the record has
    /// ended.
    async fn take_over(
        &self,
        session: &Session,
        epoch: WriteEpoch,
        key: &str,
        found: &Record,
        generation: Generation,
    ) -> Result<(), StoreError> {
        if found.version.ended {
            self.adopt_data(session, key, found);
            {
                let mut known = session.share_state().known();
                known.mark_ended(found.version.number);
                known.mark_flushed(epoch);
            }
            session.end_locally();
            return Ok(());
        }
        let snapshot = self.open(key, found)?.session;
        let identity =
            session.install(generation, &snapshot).map_err(|error| super::error::profile(error, key))?;
        if let Some(identity) = identity {
            self.record_current(session, epoch, found.version, &identity, snapshot.cookies, Origin::Adopted);
            count(&self.counters.versions_adopted);
            self.take_allowance(session, &identity).await;
        }
        Ok(())
    }

    /// Ends all sessions if the store has been silent for longer than `stale_after`.
    fn end_stale(&self, registry: &Registry, silence: Duration) {
        let Some(stale_after) = self.config.stale_after else { return };
        if self.config.on_unreachable != OnUnreachable::Fail || silence < stale_after {
            return;
        }
        for session in registry.all() {
            if session.published().is_some() {
                session.share_state().known().reload = true;
                session.end_locally();
            }
        }
    }

    /// Ends the record, whatever its version.
    pub(super) async fn publish_end(&self, session: &Session) -> Result<(), StoreError> {
        let key = session.id().to_string();
        let state = session.share_state();
        loop {
            let found = self.load(&key).await?;
            // The data outlives the identity: the next login reads it.
            let is_readable = self.adopt_data(session, &key, &found);
            let newest = state.known().newest();
            let version = self.next_version(found.version.number, newest);
            let options = SnapshotOptions::new().profiles(self.config.profiles);
            let snapshot = session.snapshot_of(None, None, InitialIdentity::Pending, &options);
            let content = Payload { session: snapshot, changes: Vec::new() };
            let payload = payload::write(self.config.encryption_key.as_ref(), &key, version, &content);
            let commit = Commit {
                ended: true,
                interrupted: !is_readable || found.version.number < newest,
                ..Commit::new(self.owner, found.version.number, version, payload)
            };
            if found.version.ended
                || matches!(self.commit_with_retry(&key, commit).await?, CommitOutcome::Written(_))
            {
                let mut known = state.known();
                let ended = if found.version.ended { found.version.number } else { version };
                let ended = known.version.max(ended);
                known.mark_ended(ended);
                if known.pending == Some(PendingWrite::End) {
                    known.pending = None;
                }
                return Ok(());
            }
        }
    }

    /// Commits the current identity.
    pub(super) async fn publish_identity(
        &self,
        session: &Session,
        pending: PendingWrite,
    ) -> Result<(), StoreError> {
        let key = session.id().to_string();
        let state = session.share_state();
        loop {
            let epoch = state.epoch();
            let found = self.load(&key).await?;
            let Some(identity) = session.current() else {
                // It has ended; the next attempt has another identity.
                let mut known = state.known();
                if pending == PendingWrite::Renewed && found.writer == Some(self.owner) {
                    // The commit was written, although its response was lost.
                    let version = known.version.max(found.version.number);
                    known.version = version;
                    known.ended_up_to = known.ended_up_to.max(version);
                }
                known.mark_flushed(epoch);
                return Ok(());
            };
            let known_version = state.known().version;
            if pending == PendingWrite::Renewed && found.version.number > known_version {
                return self.take_over(session, epoch, &key, &found, identity.version.generation).await;
            }
            // An identity that the program has set may lack what was used up in a version missed
            // here.
            let freshness = if pending == PendingWrite::Identity && found.version.number != known_version {
                Freshness::MayBeStale
            } else {
                Freshness::UpToDate
            };
            let input =
                CommitInput { epoch, identity: &identity, key: &key, base: &found, lease: None, freshness };
            if self.commit(session, input).await?.is_none() {
                self.take_allowance(session, &identity).await;
                return Ok(());
            }
        }
    }
}
