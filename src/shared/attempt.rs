//! One attempt at a renewal of a shared session: adopt, or lease, renew and commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    runtime::Handle,
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
    session::{
        IdentityInner, Session, SessionInner,
        renewal_backend::RenewalBackend,
        share::{PendingWrite, WriteEpoch},
        snapshot::SnapshotOptions,
    },
};

type Renewed = Result<Option<Arc<IdentityInner>>, Failure<RenewalError>>;

/// How long one who waits for another's renewal waits before it looks by itself; it doubles each time.
const MIN_POLL: Duration = Duration::from_millis(50);
const MAX_POLL: Duration = Duration::from_secs(1);

fn store_failed(error: StoreError) -> Failure<RenewalError> {
    failure(error.into())
}

/// How often a commit is tried whose answer does not come.
const COMMIT_TRIES: u32 = 3;

impl Fleet {
    /// Renews, and takes uses for what came of it where they are limited.
    pub(super) async fn attempt(
        self: &Arc<Self>,
        session: &Session,
        lane: Option<Arc<dyn RenewalBackend>>,
        drive: AttemptContext<SessionInner>,
    ) -> Renewed {
        let candidate = drive.candidate.clone();
        let value = self.adopt_or_renew(session, lane, drive).await?;
        if let Some(kept) = value.as_ref().or(candidate.as_ref()) {
            self.take_allowance(session, kept).await;
        }
        Ok(value)
    }

    async fn adopt_or_renew(
        self: &Arc<Self>,
        session: &Session,
        lane: Option<Arc<dyn RenewalBackend>>,
        drive: AttemptContext<SessionInner>,
    ) -> Renewed {
        let share_state = session.0.share_state();
        let _guard = share_state.sync_lock.lock().await;
        let key = session.id().to_string();
        let is_overlap = session.gate().published().is_some();
        // The version that has to be surpassed for a record to be of use.
        let (ended_up_to, spent) = {
            let mut known = share_state.known.lock();
            let spent = known.limited.take();
            if !known.reload {
                known.ended_up_to = known.ended_up_to.max(known.version);
            }
            (known.ended_up_to, spent)
        };
        if let Err(error) = self.flush_pending(session).await {
            return self.without_store(session, lane, drive, error).await;
        }
        let epoch = share_state.epoch();
        // What was asked for by a request of the caller's own is sent, whatever others have.
        let (is_own, reason, generation) = (drive.is_explicit, drive.reason, drive.generation);
        let candidate = drive.candidate.clone().expect("a session's attempt has a candidate");
        let is_adoptable = |record: &Record| {
            !is_own
                && !record.version.ended
                && record.version.number > share_state.known.lock().ended_up_to.max(ended_up_to)
        };
        // Where changes are told, looking is only there for one that was not.
        let mut pause = if self.is_watching.load(Ordering::Relaxed) { MAX_POLL } else { MIN_POLL };
        let (lease, found) = loop {
            let heard = share_state.remote_change.notified();
            let found = match self.load(&key).await {
                Ok(found) => found,
                Err(error) => return self.without_store(session, lane, drive, error).await,
            };
            if is_adoptable(&found) {
                return self
                    .adopted(session, epoch, &candidate, &key, &found)
                    .map(Some)
                    .map_err(store_failed);
            }
            if let Some(spent) =
                spent.as_ref().filter(|_| !is_overlap && reason == RenewalReason::LimitReached)
                && let Some(kept) = self.continue_version(session, generation, &key, &found, spent).await
            {
                return Ok(Some(kept));
            }
            match self.lease(&key).await {
                Ok(Ok(lease)) => match self.load(&key).await {
                    Ok(found) => break (lease, found),
                    Err(error) => return self.without_store(session, lane, drive, error).await,
                },
                Ok(Err(left)) => {
                    let look = self.jittered(pause).min(left);
                    pause = (pause * 2).min(MAX_POLL);
                    let _ = timeout(look, heard).await;
                }
                Err(error) => return self.without_store(session, lane, drive, error).await,
            }
        };
        if is_adoptable(&found) {
            return self.adopted(session, epoch, &candidate, &key, &found).map(Some).map_err(store_failed);
        }
        let is_first = reason == RenewalReason::Initial && !session.0.context.login_first;
        let value = if is_first && !is_own {
            // Nobody has anything yet: what this process begins with is everybody's.
            None
        } else {
            match self.renew_under(session, lane, drive, &lease, &found, is_adoptable).await {
                Ok(value) => value,
                Err(failed) => {
                    // Somebody may have done it meanwhile, with a lease that this process has lost.
                    return match self.load(&key).await {
                        Ok(found) if is_adoptable_after(&found, ended_up_to) => self
                            .adopted(session, epoch, &candidate, &key, &found)
                            .map(Some)
                            .map_err(store_failed),
                        _ => Err(failed),
                    };
                }
            }
        };
        let adopt_or_renew = value.clone().unwrap_or_else(|| candidate.clone());
        let (mut base, mut under) = (found, Some(&lease));
        loop {
            return match self.commit(session, epoch, &adopt_or_renew, &key, &base, under, false).await {
                Ok(None) => Ok(value),
                Ok(Some(winner)) if is_adoptable_after(&winner, ended_up_to) => {
                    self.adopted(session, epoch, &candidate, &key, &winner).map(Some).map_err(store_failed)
                }
                // Nobody was faster: the store has forgotten what it had, and all its leases.
                Ok(Some(older)) if older.version.number < base.version.number => {
                    (base, under) = (older, None);
                    continue;
                }
                Ok(Some(winner)) if winner.version.ended => Err(failure(
                    "the session was cleared by another process while this one renewed it".into(),
                )),
                Ok(Some(_)) => Err(lease_lost()),
                Err(error) => {
                    // What the site has given out is not thrown away because the store is silent.
                    tracing::warn!(session = %session.id(), %error, "a renewed session is yet to be shared");
                    session.0.share_state().enqueue(PendingWrite::Renewed);
                    Ok(value)
                }
            };
        }
    }

    /// Takes over what the program keeps with the session, from a version that is renewed here without having been adopted.
    /// `false`: there is one, and it cannot be read.
    pub(super) fn take_data(&self, session: &Session, key: &str, found: &Record) -> bool {
        if found.payload.is_empty() || found.version.number <= session.0.share_state().known.lock().newest() {
            return true;
        }
        match self.open(key, found) {
            Ok(content) => {
                session.0.take_data(content.session);
                let mut known = session.0.share_state().known.lock();
                known.data = found.version.number;
                known.in_progress = false;
            }
            Err(error) => {
                tracing::warn!(session = %session.id(), %error, "the data of a shared session was not taken over");
                return false;
            }
        }
        true
    }

    /// Takes the lease, or tells for how long another process holds it.
    ///
    /// A lease whose answer nobody waits for any more is given back when it comes: nobody else would get one before its end.
    pub(super) async fn lease(self: &Arc<Self>, key: &str) -> Result<Result<Lease, Duration>, StoreError> {
        let (fleet, key, epoch) = (self.clone(), key.to_owned(), Instant::now());
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            let answer = fleet.config.store.lease(&key, fleet.owner, fleet.config.lease_ttl).await;
            let _ = sender.send(answer.map(|leased| match leased {
                LeaseOutcome::Granted(fence) => {
                    Ok(Lease { fleet, key, fence, epoch, is_over: AtomicBool::new(false) })
                }
                LeaseOutcome::Held(left) => Err(left),
            }));
        });
        let lease_lost = StoreError::new(StoreErrorKind::Unreachable);
        self.ask(async { answer.await.unwrap_or(Err(lease_lost)) }).await
    }

    /// Waits until whoever held a lease that the store has forgotten must have noticed. An error: it has renewed in time.
    async fn wait_for_lost_lease(
        &self,
        session: &Session,
        lease: &Lease,
        is_adoptable: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure<RenewalError>> {
        let over = Instant::now() + self.config.lease_ttl;
        loop {
            let heard = session.0.share_state().remote_change.notified();
            if is_adoptable(&self.load(&lease.key).await.map_err(store_failed)?) {
                return Err(lease_lost());
            }
            if Instant::now() >= over {
                return Ok(());
            }
            let _ = timeout_at(over.min(Instant::now() + MAX_POLL), heard).await;
        }
    }

    /// Renews while the lease is held, and no longer.
    async fn renew_under(
        &self,
        session: &Session,
        lane: Option<Arc<dyn RenewalBackend>>,
        drive: AttemptContext<SessionInner>,
        lease: &Lease,
        found: &Record,
        is_adoptable: impl Fn(&Record) -> bool,
    ) -> Renewed {
        let Some(lane) = lane else {
            return Err(no_service());
        };
        let is_forgotten = {
            let is_current = self.take_data(session, &lease.key, found);
            let mut known = session.0.share_state().known.lock();
            let is_forgotten = found.version.number < known.newest();
            // With its record, a store has forgotten who began to renew it.
            known.interrupted = found.interrupted || is_forgotten || !is_current || known.in_progress;
            is_forgotten
        };
        let renew = async {
            if is_forgotten {
                self.wait_for_lost_lease(session, lease, is_adoptable).await?;
            }
            // Before anything is sent: what the record holds may be used up from here on.
            match self.ask(self.config.store.mark_in_progress(&lease.key, self.owner, lease.fence)).await {
                Ok(true) => {
                    session.0.share_state().known.lock().in_progress = true;
                    lane.renew(session.clone(), drive).await
                }
                Ok(false) => Err(lease_lost()),
                Err(error) => Err(store_failed(error)),
            }
        };
        tokio::select! {
            biased;
            () = lease.held() => Err(lease_lost()),
            adopt_or_renew = renew => adopt_or_renew,
        }
    }

    /// What becomes of an attempt that cannot ask the store.
    async fn without_store(
        &self,
        session: &Session,
        lane: Option<Arc<dyn RenewalBackend>>,
        drive: AttemptContext<SessionInner>,
        error: StoreError,
    ) -> Renewed {
        if self.config.on_unreachable == OnUnreachable::Fail {
            return Err(store_failed(error));
        }
        tracing::warn!(session = %session.id(), %error, "renewed without the store of shared sessions");
        let is_first = drive.reason == RenewalReason::Initial && !session.0.context.login_first;
        let value = match lane {
            _ if is_first && !drive.is_explicit => None,
            None => return Err(no_service()),
            Some(lane) => {
                // Others may be at it, too, with what this process has from the store.
                {
                    let mut known = session.0.share_state().known.lock();
                    known.interrupted = true;
                    known.in_progress = true;
                }
                let value = lane.renew(session.clone(), drive).await?;
                session.0.share_state().known.lock().in_progress = false;
                value
            }
        };
        session.0.share_state().enqueue(PendingWrite::Renewed);
        Ok(value)
    }

    /// The identity that a record holds, in the place of `candidate`.
    fn adopted(
        &self,
        session: &Session,
        epoch: WriteEpoch,
        candidate: &Arc<IdentityInner>,
        key: &str,
        found: &Record,
    ) -> Result<Arc<IdentityInner>, StoreError> {
        let snapshot = self.open(key, found)?.session;
        let kept =
            session.0.adopt(candidate, &snapshot).map_err(|error| super::error::profile(error, key))?;
        self.record_current(session, epoch, found.version, &kept, snapshot.cookies, None);
        count(&self.counters.versions_adopted);
        tracing::debug!(session = %session.id(), version = found.version.number, "adopted from the store of shared sessions");
        Ok(kept)
    }

    /// From now on `kept` is what this version is here, and came with these cookies. One of its own was `sent` to the store. What
    /// was asked for later than `epoch` is still to be told.
    pub(super) fn record_current(
        &self,
        session: &Session,
        epoch: WriteEpoch,
        version: RecordVersion,
        kept: &Arc<IdentityInner>,
        cookies: Vec<StoredCookie>,
        sent: Option<SystemTime>,
    ) {
        {
            let mut known = session.0.share_state().known.lock();
            if known.epoch.names != epoch.names {
                // It has another name, under which the store is told anew.
                return;
            }
            known.taken = 0;
            known.version = version.number;
            known.revision = version.revision;
            known.cookies = match self.config.cookie_sync {
                CookieSync::Merged => cookies,
                CookieSync::Local => Vec::new(),
            };
            known.generation = kept.life.generation;
            known.mark_flushed(epoch);
            known.reload = false;
            known.in_progress = false;
            known.limited = None;
        }
        let (is_own, at) = (sent.is_some(), sent.unwrap_or_else(SystemTime::now));
        let told = VersionEvent { session: session.id().clone(), number: version.number, is_own, at };
        // Nobody need be listening.
        let _ = self.versions.send(told);
    }

    /// Puts an identity into the store, in the place of what was found there. `Some`: another process was faster.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the commit depends on")]
    pub(super) async fn commit(
        &self,
        session: &Session,
        epoch: WriteEpoch,
        kept: &Arc<IdentityInner>,
        key: &str,
        found: &Record,
        lease: Option<&Lease>,
        is_stale: bool,
    ) -> Result<Option<Record>, StoreError> {
        let known = session.0.share_state().known.lock().newest();
        let expected = found.version.number;
        let version = self.next_version(expected, known);
        let options = SnapshotOptions::new().profiles(self.config.profiles);
        let snapshot = session.snapshot_of(Some(kept), kept.life.generation, true, &options);
        let content = Payload { session: snapshot, changes: Vec::new() };
        let payload = payload::write(self.config.encryption_key.as_ref(), key, version, &content);
        let fence = lease.map(|lease| lease.fence);
        let owner = self.owner;
        let commit = Commit { expected, version, fence, owner, ended: false, interrupted: is_stale, payload };
        let sent = SystemTime::now();
        let committed = self.commit_with_retry(key, commit).await.inspect_err(|_| {
            // It may have been written: what is here is in others' hands, too.
            session.0.share_state().known.lock().data = version;
        })?;
        Ok(match committed {
            CommitOutcome::Written(version) => {
                count(&self.counters.commits);
                if let Some(lease) = lease {
                    lease.is_over.store(true, Ordering::Relaxed);
                }
                self.record_current(session, epoch, version, kept, content.session.cookies, Some(sent));
                None
            }
            CommitOutcome::Conflict(winner) => {
                count(&self.counters.conflicts);
                Some(winner)
            }
        })
    }

    /// Tries a commit whose answer does not come again; it may have been written all the same.
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
                    // Not one that was given up before, and was written all the same.
                    if found.writer == Some(self.owner)
                        && (found.version.number, found.version.ended) == (commit.version, commit.ended)
                        && found.payload == commit.payload =>
                {
                    return Ok(CommitOutcome::Written(found.version));
                }
                Ok(committed) => return Ok(committed),
                Err(error) if tries == COMMIT_TRIES => return Err(error),
                Err(_) => sleep(self.jittered(MIN_POLL * tries)).await,
            }
        }
    }
}

fn is_adoptable_after(record: &Record, ended_up_to: u64) -> bool {
    !record.version.ended && record.version.number > ended_up_to
}

fn no_service() -> Failure<RenewalError> {
    Failure::transient(RenewalError::new(RenewalErrorKind::NoService))
}

fn lease_lost() -> Failure<RenewalError> {
    failure("the lease to renew this session for the fleet was lost".into())
}

/// A lease that is given back when it is dropped.
pub(super) struct Lease {
    fleet: Arc<Fleet>,
    key: String,
    fence: FencingToken,
    /// It holds for its time from then on at least.
    epoch: Instant,
    /// The store has ended it with a commit.
    is_over: AtomicBool,
}

impl Lease {
    /// Whoever has the lease now gives it back, and extends it until then.
    pub(super) fn keep(self) -> (FencingToken, Instant) {
        self.is_over.store(true, Ordering::Relaxed);
        (self.fence, self.epoch)
    }

    /// Extends the lease as long as it is polled; ready when it may no longer hold.
    async fn held(&self) {
        let Fleet { config, owner, .. } = &*self.fleet;
        let ttl = config.lease_ttl;
        let safe_ttl = safe_ttl(ttl);
        let mut until = self.epoch + safe_ttl;
        loop {
            let extend = async {
                sleep(ttl / 3).await;
                let epoch = Instant::now();
                (epoch, self.fleet.ask(config.store.extend(&self.key, *owner, self.fence, ttl)).await)
            };
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                (epoch, extended) = extend => match extended {
                    Ok(true) => until = epoch + safe_ttl,
                    Ok(false) => return,
                    // It holds for the rest of its time; the next try may be answered.
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
        // Where there is no runtime any more it runs out by itself.
        let Ok(runtime) = Handle::try_current() else { return };
        let (fleet, key, fence) = (self.fleet.clone(), std::mem::take(&mut self.key), self.fence);
        runtime.spawn(async move {
            let _ = fleet.ask(fleet.config.store.release(&key, fleet.owner, fence)).await;
        });
    }
}
