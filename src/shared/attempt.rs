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
    fleet::{Fleet, count, sure},
    payload::{self, Content},
};
use crate::{
    cookies::StoredCookie,
    gate::{
        RenewalError, RenewalErrorKind, RenewalReason, core::Failure, keeper::Drive, renewal_gate::failure,
    },
    session::{
        Kept, Session, SessionInner,
        lane::Lane,
        share::{Asked, Debt},
        snapshot::SnapshotOptions,
    },
};

type Renewed = Result<Option<Arc<Kept>>, Failure<RenewalError>>;

/// How long one who waits for another's renewal waits before it looks by itself; it doubles each time.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

fn refused(error: StoreError) -> Failure<RenewalError> {
    failure(error.into())
}

/// How often a commit is tried whose answer does not come.
const COMMITS: u32 = 3;

impl Fleet {
    /// Renews, and takes uses for what came of it where they are limited.
    pub(super) async fn attempt(
        self: &Arc<Self>,
        session: &Session,
        lane: Option<Arc<dyn Lane>>,
        drive: Drive<SessionInner>,
    ) -> Renewed {
        let candidate = drive.candidate.clone();
        let value = self.renewed(session, lane, drive).await?;
        if let Some(kept) = value.as_ref().or(candidate.as_ref()) {
            self.ration(session, kept).await;
        }
        Ok(value)
    }

    async fn renewed(
        self: &Arc<Self>,
        session: &Session,
        lane: Option<Arc<dyn Lane>>,
        drive: Drive<SessionInner>,
    ) -> Renewed {
        let ties = session.0.ties();
        let _busy = ties.busy.lock().await;
        let key = session.id().to_string();
        let is_overlap = session.0.gate.published().is_some();
        // The version that has to be surpassed for a record to be of use.
        let (dead, spent) = {
            let mut known = ties.known.lock();
            let spent = known.rationed.take();
            if !known.reload {
                known.dead = known.dead.max(known.version);
            }
            (known.dead, spent)
        };
        if let Err(error) = self.pay(session).await {
            return self.without_store(session, lane, drive, error).await;
        }
        let asked = ties.asked();
        // What was asked for by a request of the caller's own is sent, whatever others have.
        let (is_own, reason, generation) = (drive.once, drive.reason, drive.generation);
        let candidate = drive.candidate.clone().expect("a session's attempt has a candidate");
        let is_adoptable = |record: &Record| {
            !is_own && !record.mark.ended && record.mark.version > ties.known.lock().dead.max(dead)
        };
        // Where changes are told, looking is only there for one that was not.
        let mut pause = if self.is_told.load(Ordering::Relaxed) { LAST_LOOK } else { FIRST_LOOK };
        let (lease, found) = loop {
            let heard = ties.news.notified();
            let found = match self.load(&key).await {
                Ok(found) => found,
                Err(error) => return self.without_store(session, lane, drive, error).await,
            };
            if is_adoptable(&found) {
                return self.adopted(session, asked, &candidate, &key, &found).map(Some).map_err(refused);
            }
            if let Some(spent) =
                spent.as_ref().filter(|_| !is_overlap && reason == RenewalReason::LimitReached)
                && let Some(kept) = self.go_on(session, generation, &key, &found, spent).await
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
                    pause = (pause * 2).min(LAST_LOOK);
                    let _ = timeout(look, heard).await;
                }
                Err(error) => return self.without_store(session, lane, drive, error).await,
            }
        };
        if is_adoptable(&found) {
            return self.adopted(session, asked, &candidate, &key, &found).map(Some).map_err(refused);
        }
        let is_first = reason == RenewalReason::Initial && !session.0.shared.login_first;
        let value = if is_first && !is_own {
            // Nobody has anything yet: what this process begins with is everybody's.
            None
        } else {
            match self.renew_under(session, lane, drive, &lease, &found, is_adoptable).await {
                Ok(value) => value,
                Err(failed) => {
                    // Somebody may have done it meanwhile, with a lease that this process has lost.
                    return match self.load(&key).await {
                        Ok(found) if is_adoptable_after(&found, dead) => {
                            self.adopted(session, asked, &candidate, &key, &found).map(Some).map_err(refused)
                        }
                        _ => Err(failed),
                    };
                }
            }
        };
        let renewed = value.clone().unwrap_or_else(|| candidate.clone());
        let (mut base, mut under) = (found, Some(&lease));
        loop {
            return match self.commit(session, asked, &renewed, &key, &base, under, false).await {
                Ok(None) => Ok(value),
                Ok(Some(winner)) if is_adoptable_after(&winner, dead) => {
                    self.adopted(session, asked, &candidate, &key, &winner).map(Some).map_err(refused)
                }
                // Nobody was faster: the store has forgotten what it had, and all its leases.
                Ok(Some(older)) if older.mark.version < base.mark.version => {
                    (base, under) = (older, None);
                    continue;
                }
                Ok(Some(winner)) if winner.mark.ended => Err(failure(
                    "the session was cleared by another process while this one renewed it".into(),
                )),
                Ok(Some(_)) => Err(lost()),
                Err(error) => {
                    // What the site has given out is not thrown away because the store is silent.
                    tracing::warn!(session = %session.id(), %error, "a renewed session is yet to be shared");
                    session.0.ties().owe(Debt::Renewed);
                    Ok(value)
                }
            };
        }
    }

    /// Takes over what the program keeps with the session, from a version that is renewed here without having been adopted.
    /// `false`: there is one, and it cannot be read.
    pub(super) fn take_data(&self, session: &Session, key: &str, found: &Record) -> bool {
        if found.payload.is_empty() || found.mark.version <= session.0.ties().known.lock().newest() {
            return true;
        }
        match self.open(key, found) {
            Ok(content) => {
                session.0.take_data(content.session);
                let mut known = session.0.ties().known.lock();
                known.data = found.mark.version;
                known.begun = false;
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
        let (fleet, key, asked) = (self.clone(), key.to_owned(), Instant::now());
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            let answer = fleet.config.store.lease(&key, fleet.owner, fleet.config.lease).await;
            let _ = sender.send(answer.map(|leased| match leased {
                LeaseOutcome::Granted(fence) => {
                    Ok(Lease { fleet, key, fence, asked, is_over: AtomicBool::new(false) })
                }
                LeaseOutcome::Held(left) => Err(left),
            }));
        });
        let lost = StoreError::new(StoreErrorKind::Unreachable);
        self.ask(async { answer.await.unwrap_or(Err(lost)) }).await
    }

    /// Waits until whoever held a lease that the store has forgotten must have noticed. An error: it has renewed in time.
    async fn outlast(
        &self,
        session: &Session,
        lease: &Lease,
        is_adoptable: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure<RenewalError>> {
        let over = Instant::now() + self.config.lease;
        loop {
            let heard = session.0.ties().news.notified();
            if is_adoptable(&self.load(&lease.key).await.map_err(refused)?) {
                return Err(lost());
            }
            if Instant::now() >= over {
                return Ok(());
            }
            let _ = timeout_at(over.min(Instant::now() + LAST_LOOK), heard).await;
        }
    }

    /// Renews while the lease is held, and no longer.
    async fn renew_under(
        &self,
        session: &Session,
        lane: Option<Arc<dyn Lane>>,
        drive: Drive<SessionInner>,
        lease: &Lease,
        found: &Record,
        is_adoptable: impl Fn(&Record) -> bool,
    ) -> Renewed {
        let Some(lane) = lane else {
            return Err(no_stack());
        };
        let is_forgotten = {
            let is_current = self.take_data(session, &lease.key, found);
            let mut known = session.0.ties().known.lock();
            let is_forgotten = found.mark.version < known.newest();
            // With its record, a store has forgotten who began to renew it.
            known.interrupted = found.interrupted || is_forgotten || !is_current || known.begun;
            is_forgotten
        };
        let renew = async {
            if is_forgotten {
                self.outlast(session, lease, is_adoptable).await?;
            }
            // Before anything is sent: what the record holds may be used up from here on.
            match self.ask(self.config.store.mark_in_progress(&lease.key, self.owner, lease.fence)).await {
                Ok(true) => {
                    session.0.ties().known.lock().begun = true;
                    lane.renew(session.clone(), drive).await
                }
                Ok(false) => Err(lost()),
                Err(error) => Err(refused(error)),
            }
        };
        tokio::select! {
            biased;
            () = lease.held() => Err(lost()),
            renewed = renew => renewed,
        }
    }

    /// What becomes of an attempt that cannot ask the store.
    async fn without_store(
        &self,
        session: &Session,
        lane: Option<Arc<dyn Lane>>,
        drive: Drive<SessionInner>,
        error: StoreError,
    ) -> Renewed {
        if self.config.unreachable == OnUnreachable::Fail {
            return Err(refused(error));
        }
        tracing::warn!(session = %session.id(), %error, "renewed without the store of shared sessions");
        let is_first = drive.reason == RenewalReason::Initial && !session.0.shared.login_first;
        let value = match lane {
            _ if is_first && !drive.once => None,
            None => return Err(no_stack()),
            Some(lane) => {
                // Others may be at it, too, with what this process has from the store.
                {
                    let mut known = session.0.ties().known.lock();
                    known.interrupted = true;
                    known.begun = true;
                }
                let value = lane.renew(session.clone(), drive).await?;
                session.0.ties().known.lock().begun = false;
                value
            }
        };
        session.0.ties().owe(Debt::Renewed);
        Ok(value)
    }

    /// The identity that a record holds, in the place of `candidate`.
    fn adopted(
        &self,
        session: &Session,
        asked: Asked,
        candidate: &Arc<Kept>,
        key: &str,
        found: &Record,
    ) -> Result<Arc<Kept>, StoreError> {
        let snapshot = self.open(key, found)?.session;
        let kept =
            session.0.taken_over(candidate, &snapshot).map_err(|error| super::error::profile(error, key))?;
        self.stands(session, asked, found.mark, &kept, snapshot.cookies, None);
        count(&self.counted.versions_adopted);
        tracing::debug!(session = %session.id(), version = found.mark.version, "adopted from the store of shared sessions");
        Ok(kept)
    }

    /// From now on `kept` is what this version is here, and came with these cookies. One of its own was `sent` to the store. What
    /// was asked for later than `asked` is still to be told.
    pub(super) fn stands(
        &self,
        session: &Session,
        asked: Asked,
        mark: RecordVersion,
        kept: &Arc<Kept>,
        cookies: Vec<StoredCookie>,
        sent: Option<SystemTime>,
    ) {
        let version = mark.version;
        {
            let mut known = session.0.ties().known.lock();
            if known.asked.names != asked.names {
                // It has another name, under which the store is told anew.
                return;
            }
            known.taken = 0;
            known.version = version;
            known.revision = mark.revision;
            known.cookies = match self.config.cookie_sync {
                CookieSync::Merged => cookies,
                CookieSync::Local => Vec::new(),
            };
            known.generation = kept.life.generation;
            known.pay(asked);
            known.reload = false;
            known.begun = false;
            known.rationed = None;
        }
        let (is_own, at) = (sent.is_some(), sent.unwrap_or_else(SystemTime::now));
        let told = VersionEvent { session: session.id().clone(), number: version, is_own, at };
        // Nobody need be listening.
        let _ = self.versions.send(told);
    }

    /// Puts an identity into the store, in the place of what was found there. `Some`: another process was faster.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the commit depends on")]
    pub(super) async fn commit(
        &self,
        session: &Session,
        asked: Asked,
        kept: &Arc<Kept>,
        key: &str,
        found: &Record,
        lease: Option<&Lease>,
        is_stale: bool,
    ) -> Result<Option<Record>, StoreError> {
        let known = session.0.ties().known.lock().newest();
        let expected = found.mark.version;
        let version = self.next_version(expected, known);
        let options = SnapshotOptions::new().profiles(self.config.profiles);
        let snapshot = session.snapshot_of(Some(kept), kept.life.generation, true, &options);
        let content = Content { session: snapshot, touched: Vec::new() };
        let payload = payload::write(self.config.seal.as_ref(), key, version, &content);
        let fence = lease.map(|lease| lease.fence);
        let owner = self.owner;
        let commit = Commit { expected, version, fence, owner, ended: false, interrupted: is_stale, payload };
        let sent = SystemTime::now();
        let committed = self.commit_surely(key, commit).await.inspect_err(|_| {
            // It may have been written: what is here is in others' hands, too.
            session.0.ties().known.lock().data = version;
        })?;
        Ok(match committed {
            CommitOutcome::Written(mark) => {
                count(&self.counted.commits);
                if let Some(lease) = lease {
                    lease.is_over.store(true, Ordering::Relaxed);
                }
                self.stands(session, asked, mark, kept, content.session.cookies, Some(sent));
                None
            }
            CommitOutcome::Conflict(winner) => {
                count(&self.counted.conflicts);
                Some(winner)
            }
        })
    }

    /// Tries a commit whose answer does not come again; it may have been written all the same.
    pub(super) async fn commit_surely(&self, key: &str, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.ask(self.config.store.commit(key, commit.clone())).await {
                Ok(CommitOutcome::Conflict(found))
                    // Not one that was given up before, and was written all the same.
                    if found.writer == Some(self.owner)
                        && (found.mark.version, found.mark.ended) == (commit.version, commit.ended)
                        && found.payload == commit.payload =>
                {
                    return Ok(CommitOutcome::Written(found.mark));
                }
                Ok(committed) => return Ok(committed),
                Err(error) if tries == COMMITS => return Err(error),
                Err(_) => sleep(self.jittered(FIRST_LOOK * tries)).await,
            }
        }
    }
}

fn is_adoptable_after(record: &Record, dead: u64) -> bool {
    !record.mark.ended && record.mark.version > dead
}

fn no_stack() -> Failure<RenewalError> {
    Failure { terminal: false, error: RenewalError::new(RenewalErrorKind::NoService) }
}

fn lost() -> Failure<RenewalError> {
    failure("the lease to renew this session for the fleet was lost".into())
}

/// A lease that is given back when it is dropped.
pub(super) struct Lease {
    fleet: Arc<Fleet>,
    key: String,
    fence: FencingToken,
    /// It holds for its time from then on at least.
    asked: Instant,
    /// The store has ended it with a commit.
    is_over: AtomicBool,
}

impl Lease {
    /// Whoever has the lease now gives it back, and extends it until then.
    pub(super) fn keep(self) -> (FencingToken, Instant) {
        self.is_over.store(true, Ordering::Relaxed);
        (self.fence, self.asked)
    }

    /// Extends the lease as long as it is polled; ready when it may no longer hold.
    async fn held(&self) {
        let Fleet { config, owner, .. } = &*self.fleet;
        let ttl = config.lease;
        let sure = sure(ttl);
        let mut until = self.asked + sure;
        loop {
            let extend = async {
                sleep(ttl / 3).await;
                let asked = Instant::now();
                (asked, self.fleet.ask(config.store.extend(&self.key, *owner, self.fence, ttl)).await)
            };
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                (asked, extended) = extend => match extended {
                    Ok(true) => until = asked + sure,
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
