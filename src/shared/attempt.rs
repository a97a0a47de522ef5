//! One attempt at a renewal of a shared session: adopt, or lease, renew and commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    Commit, CommitOutcome, CookieSync, FencingToken, LeaseOutcome, OnUnreachable, Record, RecordVersion,
    StoreError, StoreErrorKind, VersionEvent,
    fleet::{Fleet, count, safe_ttl},
    payload::{self, Payload},
};
use crate::{
    cookies::StoredCookie,
    gate::{AttemptContext, Failure, RenewalError, RenewalErrorKind, RenewalReason, failure},
    rt,
    session::{
        IdentityInner, InitialIdentity, Session, SessionInner,
        renewal_backend::RenewalBackend,
        share::{PendingWrite, WriteEpoch},
        snapshot::SnapshotOptions,
    },
};

type Renewed = Result<Option<Arc<IdentityInner>>, Failure<RenewalError>>;

/// How often the record is read during another process's renewal; the interval doubles each time.
const MIN_POLL: Duration = Duration::from_millis(50);
const MAX_POLL: Duration = Duration::from_secs(1);

/// How often a commit without a response is sent.
const COMMIT_TRIES: u32 = 3;

/// What is known of the session that a commit writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It follows the version that the commit expects.
    UpToDate,
    /// It may follow an older version, and what it holds may have been used up since.
    MayBeStale,
}

/// What a commit depends on.
pub(super) struct CommitInput<'a> {
    /// The epoch of the session's changes before `base` was loaded.
    pub(super) epoch: WriteEpoch,
    /// The identity to write.
    pub(super) identity: &'a Arc<IdentityInner>,
    pub(super) key: &'a str,
    /// The record that the commit replaces.
    pub(super) base: &'a Record,
    /// The lease that the identity was renewed under.
    pub(super) lease: Option<&'a Lease>,
    pub(super) freshness: Freshness,
}

/// What an attempt adopts a record with.
struct Adoption<'a> {
    session: &'a Session,
    epoch: WriteEpoch,
    candidate: &'a Arc<IdentityInner>,
    key: &'a str,
    /// Only a version after this one is of use.
    ended_up_to: u64,
}

impl Adoption<'_> {
    fn accepts(&self, record: &Record) -> bool {
        !record.version.ended && record.version.number > self.ended_up_to
    }
}

impl Fleet {
    /// Adopts or renews, and takes uses for the result if they are limited.
    pub(super) async fn attempt(
        self: &Arc<Self>,
        session: &Session,
        backend: Option<Arc<dyn RenewalBackend>>,
        context: AttemptContext<SessionInner>,
    ) -> Renewed {
        let candidate = context.candidate.clone();
        let value = self.adopt_or_renew(session, backend, context).await?;
        if let Some(identity) = value.as_ref().or(candidate.as_ref()) {
            self.take_allowance(session, identity).await;
        }
        Ok(value)
    }

    async fn adopt_or_renew(
        self: &Arc<Self>,
        session: &Session,
        backend: Option<Arc<dyn RenewalBackend>>,
        context: AttemptContext<SessionInner>,
    ) -> Renewed {
        let state = session.share_state();
        let _guard = state.lock().await;
        let key = session.id().to_string();
        let is_overlap = session.published().is_some();
        let (ended_up_to, spent) = {
            let mut known = state.known();
            let spent = known.limited.take();
            if !known.reload {
                known.ended_up_to = known.outdated_up_to();
            }
            (known.ended_up_to, spent)
        };
        if let Err(error) = self.flush_pending(session).await {
            return self.without_store(session, backend, context, error).await;
        }
        let epoch = state.epoch();
        // A renewal by an explicit request is sent, whatever other processes have.
        let (is_explicit, reason, generation) = (context.is_explicit, context.reason, context.generation);
        let candidate = context.candidate.clone().expect("a session's attempt has a candidate");
        let adoption = Adoption { session, epoch, candidate: &candidate, key: &key, ended_up_to };
        let is_adoptable = |record: &Record| {
            // The session may have been cleared since this attempt began.
            let ended_up_to = state.known().ended_up_to;
            !is_explicit && adoption.accepts(record) && record.version.number > ended_up_to
        };
        // While the store pushes changes, polling only covers a lost message.
        let mut pause = if self.is_watching.load(Ordering::Relaxed) { MAX_POLL } else { MIN_POLL };
        let (lease, found) = loop {
            let change = state.remote_change();
            let found = match self.load(&key).await {
                Ok(found) => found,
                Err(error) => return self.without_store(session, backend, context, error).await,
            };
            if is_adoptable(&found) {
                return self.adopt(&adoption, &found);
            }
            if let Some(spent) =
                spent.as_ref().filter(|_| !is_overlap && reason == RenewalReason::LimitReached)
                && let Some(identity) = self.continue_version(session, generation, &key, &found, spent).await
            {
                return Ok(Some(identity));
            }
            match self.lease(&key).await {
                // Another process may have committed between the first load and the lease.
                Ok(Ok(lease)) => match self.load(&key).await {
                    Ok(found) => break (lease, found),
                    Err(error) => return self.without_store(session, backend, context, error).await,
                },
                Ok(Err(left)) => {
                    let interval = self.jittered(pause).min(left);
                    pause = (pause * 2).min(MAX_POLL);
                    let _ = timeout(interval, change).await;
                }
                Err(error) => return self.without_store(session, backend, context, error).await,
            }
        };
        if is_adoptable(&found) {
            return self.adopt(&adoption, &found);
        }
        let is_first = reason == RenewalReason::Initial && !session.logs_in_first();
        let value = if is_first && !is_explicit {
            // The store has no session: the initial identity becomes the first version.
            None
        } else {
            match self.renew_under(session, backend, context, &lease, &found, is_adoptable).await {
                Ok(value) => value,
                Err(failed) => {
                    // If the lease was lost, its next holder may have committed.
                    return match self.load(&key).await {
                        Ok(found) if adoption.accepts(&found) => self.adopt(&adoption, &found),
                        _ => Err(failed),
                    };
                }
            }
        };
        let renewed = value.as_ref().unwrap_or(&candidate);
        let (mut base, mut lease) = (found, Some(&lease));
        loop {
            let input = CommitInput {
                epoch,
                identity: renewed,
                key: &key,
                base: &base,
                lease,
                freshness: Freshness::UpToDate,
            };
            return match self.commit(session, input).await {
                Ok(None) => Ok(value),
                Ok(Some(winner)) if adoption.accepts(&winner) => self.adopt(&adoption, &winner),
                // No process was faster: the store has lost the record, and the lease with it.
                Ok(Some(older)) if older.version.number < base.version.number => {
                    (base, lease) = (older, None);
                    continue;
                }
                Ok(Some(winner)) if winner.version.ended => {
                    Err(failure("the session was cleared by another process during its renewal".into()))
                }
                Ok(Some(_)) => Err(lease_lost()),
                Err(error) => {
                    // The login is still valid, so it is used here and committed later.
                    tracing::warn!(session = %session.id(), %error, "a renewed session could not be shared yet");
                    state.enqueue(PendingWrite::Renewed);
                    Ok(value)
                }
            };
        }
    }

    /// Adopts the data of a version that is renewed here without having been adopted.
    ///
    /// `false` if the record has data that cannot be read.
    pub(super) fn adopt_data(&self, session: &Session, key: &str, found: &Record) -> bool {
        let state = session.share_state();
        if found.payload.is_empty() || found.version.number <= state.known().newest() {
            return true;
        }
        match self.open(key, found) {
            Ok(payload) => {
                session.adopt_data(payload.session);
                let mut known = state.known();
                known.data_version = found.version.number;
                known.in_progress = false;
            }
            Err(error) => {
                tracing::warn!(session = %session.id(), %error, "the data of a shared session could not be read");
                return false;
            }
        }
        true
    }

    /// Takes the lease, or returns how long another process holds it.
    ///
    /// A lease that is granted after the caller stopped waiting is released when the response
    /// comes: it would keep every process from renewing until it expires.
    pub(super) async fn lease(self: &Arc<Self>, key: &str) -> Result<Result<Lease, Duration>, StoreError> {
        let (fleet, key, requested_at) = (self.clone(), key.to_owned(), Instant::now());
        let (sender, response) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = fleet.config.store.lease(&key, fleet.owner, fleet.config.lease_ttl).await;
            let _ = sender.send(outcome.map(|outcome| match outcome {
                LeaseOutcome::Granted(token) => {
                    Ok(Lease { fleet, key, token, requested_at, is_over: AtomicBool::new(false) })
                }
                LeaseOutcome::Held(left) => Err(left),
            }));
        });
        let lost = StoreError::new(StoreErrorKind::Unreachable);
        self.ask(async { response.await.unwrap_or(Err(lost)) }).await
    }

    /// Waits until the holder of a lease that the store has lost must have noticed.
    ///
    /// # Errors
    ///
    /// If that holder has committed in the meantime.
    async fn wait_for_lost_lease(
        &self,
        session: &Session,
        lease: &Lease,
        is_adoptable: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure<RenewalError>> {
        let over = Instant::now() + self.config.lease_ttl;
        loop {
            let change = session.share_state().remote_change();
            if is_adoptable(&self.load(&lease.key).await.map_err(store_failed)?) {
                return Err(lease_lost());
            }
            if Instant::now() >= over {
                return Ok(());
            }
            let _ = timeout_at(over.min(Instant::now() + MAX_POLL), change).await;
        }
    }

    /// Renews while the lease is held. The renewal is dropped when the lease may have expired.
    async fn renew_under(
        &self,
        session: &Session,
        backend: Option<Arc<dyn RenewalBackend>>,
        context: AttemptContext<SessionInner>,
        lease: &Lease,
        found: &Record,
        is_adoptable: impl Fn(&Record) -> bool,
    ) -> Renewed {
        let Some(backend) = backend else {
            return Err(no_service());
        };
        let state = session.share_state();
        let is_forgotten = {
            let is_readable = self.adopt_data(session, &lease.key, found);
            let mut known = state.known();
            let is_forgotten = found.version.number < known.newest();
            // A store that has lost the record has lost its mark of a started renewal as well.
            known.interrupted = found.interrupted || is_forgotten || !is_readable || known.in_progress;
            is_forgotten
        };
        let renew = async {
            if is_forgotten {
                self.wait_for_lost_lease(session, lease, is_adoptable).await?;
            }
            // Marked before anything is sent: from then on the record's data may be used up.
            let marked = self.config.store.mark_in_progress(&lease.key, self.owner, lease.token);
            match self.ask(marked).await {
                Ok(true) => {
                    state.known().in_progress = true;
                    backend.renew(session.clone(), context).await
                }
                Ok(false) => Err(lease_lost()),
                Err(error) => Err(store_failed(error)),
            }
        };
        tokio::select! {
            biased;
            () = lease.expired() => Err(lease_lost()),
            renewed = renew => renewed,
        }
    }

    /// Ends an attempt that cannot reach the store: fails, or renews locally.
    async fn without_store(
        &self,
        session: &Session,
        backend: Option<Arc<dyn RenewalBackend>>,
        context: AttemptContext<SessionInner>,
        error: StoreError,
    ) -> Renewed {
        if self.config.on_unreachable == OnUnreachable::Fail {
            return Err(store_failed(error));
        }
        tracing::warn!(session = %session.id(), %error, "the store is unreachable; renewing locally");
        let state = session.share_state();
        let is_first = context.reason == RenewalReason::Initial && !session.logs_in_first();
        let value = match backend {
            _ if is_first && !context.is_explicit => None,
            None => return Err(no_service()),
            Some(backend) => {
                {
                    // Other processes may renew from the same record.
                    let mut known = state.known();
                    known.interrupted = true;
                    known.in_progress = true;
                }
                let value = backend.renew(session.clone(), context).await?;
                state.known().in_progress = false;
                value
            }
        };
        state.enqueue(PendingWrite::Renewed);
        Ok(value)
    }

    /// Returns the identity of a record, under the generation of the candidate.
    fn adopt(&self, adoption: &Adoption<'_>, found: &Record) -> Renewed {
        let Adoption { session, epoch, candidate, key, .. } = *adoption;
        let adopt = || {
            let snapshot = self.open(key, found)?.session;
            let identity =
                session.adopt(candidate, &snapshot).map_err(|error| super::error::profile(error, key))?;
            Ok((identity, snapshot.cookies))
        };
        let (identity, cookies) = adopt().map_err(store_failed)?;
        self.record_current(session, epoch, found.version, &identity, cookies, Origin::Adopted);
        count(&self.counters.versions_adopted);
        tracing::debug!(session = %session.id(), version = found.version.number, "adopted a shared session");
        Ok(Some(identity))
    }

    /// Records that `identity`, with these cookies, is what this process has of `version`.
    ///
    /// A change after `epoch` stays pending.
    pub(super) fn record_current(
        &self,
        session: &Session,
        epoch: WriteEpoch,
        version: RecordVersion,
        identity: &Arc<IdentityInner>,
        cookies: Vec<StoredCookie>,
        origin: Origin,
    ) {
        {
            let mut known = session.share_state().known();
            if !known.epoch.has_name_of(epoch) {
                // The session was renamed: its record has another key, and is written as a new one.
                return;
            }
            known.uses_taken = 0;
            known.version = version.number;
            known.revision = version.revision;
            known.cookies = match self.config.cookie_sync {
                CookieSync::Merged => cookies,
                CookieSync::Local => Vec::new(),
            };
            known.generation = Some(identity.version.generation);
            known.mark_flushed(epoch);
            known.reload = false;
            known.in_progress = false;
            known.limited = None;
        }
        let (is_own, at) = match origin {
            Origin::Committed(sent) => (true, sent),
            Origin::Adopted => (false, SystemTime::now()),
        };
        let event = VersionEvent { session: session.id().clone(), number: version.number, is_own, at };
        // There may be no subscriber.
        let _ = self.versions.send(event);
    }

    /// Commits an identity in place of a record. Returns the winner if another process was faster.
    pub(super) async fn commit(
        &self,
        session: &Session,
        input: CommitInput<'_>,
    ) -> Result<Option<Record>, StoreError> {
        let CommitInput { epoch, identity, key, base, lease, freshness } = input;
        let state = session.share_state();
        let newest = state.known().newest();
        let expected = base.version.number;
        let version = self.next_version(expected, newest);
        let options = SnapshotOptions::new().profiles(self.config.profiles);
        let snapshot = session.snapshot_of(
            Some(identity),
            Some(identity.version.generation),
            InitialIdentity::Current,
            &options,
        );
        let content = Payload { session: snapshot, changes: Vec::new() };
        let payload = payload::write(self.config.encryption_key.as_ref(), key, version, &content);
        let commit = Commit {
            token: lease.map(|lease| lease.token),
            interrupted: freshness == Freshness::MayBeStale,
            ..Commit::new(self.owner, expected, version, payload)
        };
        let sent = SystemTime::now();
        let outcome = self.commit_with_retry(key, commit).await.inspect_err(|_| {
            // It may have been written: other processes may use this data as well.
            state.known().data_version = version;
        })?;
        Ok(match outcome {
            CommitOutcome::Written(version) => {
                count(&self.counters.commits);
                if let Some(lease) = lease {
                    lease.is_over.store(true, Ordering::Relaxed);
                }
                let cookies = content.session.cookies;
                self.record_current(session, epoch, version, identity, cookies, Origin::Committed(sent));
                None
            }
            CommitOutcome::Conflict(winner) => {
                count(&self.counters.conflicts);
                Some(winner)
            }
        })
    }

    /// Commits, and repeats a commit without a response, which may have been written nevertheless.
    pub(super) async fn commit_with_retry(
        &self,
        key: &str,
        commit: Commit,
    ) -> Result<CommitOutcome, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.ask(self.config.store.commit(key, commit.clone())).await {
                Ok(CommitOutcome::Conflict(found))
                    // The payload rules out an earlier commit that was abandoned, and written
                    // later.
                    if found.writer == Some(self.owner)
                        && (found.version.number, found.version.ended) == (commit.version, commit.ended)
                        && found.payload == commit.payload =>
                {
                    return Ok(CommitOutcome::Written(found.version));
                }
                Ok(outcome) => return Ok(outcome),
                Err(error) if tries == COMMIT_TRIES => return Err(error),
                Err(_) => sleep(self.jittered(MIN_POLL * tries)).await,
            }
        }
    }
}

/// Where the current version comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// This process committed it; the commit was sent at this time.
    Committed(SystemTime),
    /// Another process committed it.
    Adopted,
}

fn store_failed(error: StoreError) -> Failure<RenewalError> {
    failure(error.into())
}

fn no_service() -> Failure<RenewalError> {
    Failure::transient(RenewalError::new(RenewalErrorKind::NoService))
}

fn lease_lost() -> Failure<RenewalError> {
    failure("the lease for renewing the shared session was lost".into())
}

/// A lease that is released when it is dropped.
pub(super) struct Lease {
    fleet: Arc<Fleet>,
    key: String,
    token: FencingToken,
    /// The lease lasts at least its TTL from this time.
    requested_at: Instant,
    /// The store has ended it with a commit, or another task holds it.
    is_over: AtomicBool,
}

impl Lease {
    /// Passes the lease to the caller, who extends and releases it.
    pub(super) fn into_parts(self) -> (FencingToken, Instant) {
        self.is_over.store(true, Ordering::Relaxed);
        (self.token, self.requested_at)
    }

    /// Extends the lease while it is polled. Resolves when the lease may have expired.
    async fn expired(&self) {
        let Fleet { config, owner, .. } = &*self.fleet;
        let ttl = config.lease_ttl;
        let safe_ttl = safe_ttl(ttl);
        let mut until = self.requested_at + safe_ttl;
        loop {
            let extend = async {
                sleep(ttl / 3).await;
                let requested_at = Instant::now();
                let extended = config.store.extend(&self.key, *owner, self.token, ttl);
                (requested_at, self.fleet.ask(extended).await)
            };
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                (requested_at, extended) = extend => match extended {
                    Ok(true) => until = requested_at + safe_ttl,
                    Ok(false) => return,
                    // The lease lasts for the rest of its TTL; the next try may get a response.
                    Err(_) => {}
                },
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if *self.is_over.get_mut() {
            return;
        }
        // Outside a runtime the lease expires by itself.
        let (fleet, key, token) = (self.fleet.clone(), std::mem::take(&mut self.key), self.token);
        rt::try_spawn(async move {
            let _ = fleet.ask(fleet.config.store.release(&key, fleet.owner, token)).await;
        });
    }
}
