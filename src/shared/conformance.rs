//! Tests of the contract of a store, for every implementation.

use std::time::Duration;

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Commit, CommitOutcome, FencingToken, LeaseOutcome, Owner, Record, RecordVersion, SharedStore, StoreError,
    StoreEvent, UseGrant,
};

/// Whether a store sends events from [`SharedStore::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notifications {
    /// The store sends an event for each change.
    Pushed,
    /// The store sends no events: changes are found by polling.
    Polled,
}

/// Tests a store against the contract of [`SharedStore`].
///
/// The test uses random keys and leaves its records in the store. It waits for leases to expire,
/// for a few tenths of a second in total, in real time or with a paused clock.
///
/// # Errors
///
/// The first error of the store.
///
/// # Panics
///
/// If the store violates the contract; the message describes the violation.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_client_sessions::shared::{MemoryStore, Notifications, test_conformance};
///
/// test_conformance(&MemoryStore::new(), Notifications::Pushed).await?;
/// # Ok::<_, tower_client_sessions::shared::StoreError>(())
/// # }).unwrap();
/// ```
pub async fn test_conformance(
    store: &dyn SharedStore,
    notifications: Notifications,
) -> Result<(), StoreError> {
    let test = Conformance { store, prefix: format!("conformance {}", Owner::random()) };
    test.a_key_that_was_never_written_has_no_record().await?;
    test.a_commit_compares_the_version().await?;
    test.an_update_compares_the_version_and_the_revision().await?;
    test.a_lease_has_one_holder_and_a_greater_token().await?;
    test.a_lease_expires().await?;
    test.a_commit_with_an_old_token_conflicts().await?;
    test.a_started_renewal_is_marked().await?;
    test.an_ended_record_stays_ended().await?;
    test.uses_are_granted_up_to_the_limit().await?;
    test.one_of_concurrent_commits_wins().await?;
    test.every_payload_and_every_key_is_stored().await?;
    if notifications == Notifications::Pushed {
        test.changes_are_pushed_in_order().await?;
    }
    Ok(())
}

/// A lease that does not expire during the test, even on a slow machine.
const TTL: Duration = Duration::from_secs(30);

struct Conformance<'a> {
    store: &'a dyn SharedStore,
    prefix: String,
}

fn commit(owner: Owner, expected: u64, version: u64, payload: &'static str) -> Commit {
    Commit::new(owner, expected, version, payload.into())
}

impl Conformance<'_> {
    fn key(&self, name: &str) -> String {
        format!("{} {name}", self.prefix)
    }

    async fn granted(&self, key: &str, owner: Owner, ttl: Duration) -> Result<FencingToken, StoreError> {
        match self.store.lease(key, owner, ttl).await? {
            LeaseOutcome::Granted(token) => Ok(token),
            LeaseOutcome::Held(by) => panic!("a free lease is granted, not held for {by:?}"),
        }
    }

    async fn a_key_that_was_never_written_has_no_record(&self) -> Result<(), StoreError> {
        let key = self.key("absent");
        assert_eq!(self.store.load(&key).await?, Record::absent());
        assert_eq!(self.store.versions(std::slice::from_ref(&key)).await?, [RecordVersion::default()]);
        assert_eq!(self.store.versions(&[]).await?, []);
        let owner = Owner::random();
        self.store.release(&key, owner, FencingToken::new(1)).await?;
        assert!(!self.store.extend(&key, owner, FencingToken::new(1), TTL).await?, "no lease to extend");
        assert!(!self.store.mark_in_progress(&key, owner, FencingToken::new(1)).await?, "no lease is held");
        assert_eq!(self.store.take_uses(&key, 1, 5, 10).await?.granted, 0, "no version has uses");
        // A lease alone creates no record.
        let token = self.granted(&key, owner, TTL).await?;
        self.store.release(&key, owner, token).await?;
        assert_eq!(self.store.load(&key).await?, Record::absent());
        Ok(())
    }

    async fn a_commit_compares_the_version(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("commit"), Owner::random(), Owner::random());
        let first = Record::new(RecordVersion::new(1, 0), Some(owner), "one".into());
        assert_eq!(
            self.store.commit(&key, commit(owner, 0, 1, "one")).await?,
            CommitOutcome::Written(RecordVersion::new(1, 0))
        );
        assert_eq!(self.store.load(&key).await?, first);
        for expected in [0, 2, 7] {
            let late = self.store.commit(&key, commit(other, expected, 9, "late")).await?;
            assert_eq!(late, CommitOutcome::Conflict(first.clone()), "expected {expected}");
        }
        assert_eq!(self.store.load(&key).await?, first, "a conflict changes nothing");
        // Version numbers may have gaps.
        assert_eq!(
            self.store.commit(&key, commit(other, 1, 7, "two")).await?,
            CommitOutcome::Written(RecordVersion::new(7, 0))
        );
        assert_eq!(
            self.store.load(&key).await?,
            Record::new(RecordVersion::new(7, 0), Some(other), "two".into())
        );
        let versions = self.store.versions(&[self.key("none"), key]).await?;
        assert_eq!(versions, [RecordVersion::default(), RecordVersion::new(7, 0)]);
        Ok(())
    }

    async fn an_update_compares_the_version_and_the_revision(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("update"), Owner::random(), Owner::random());
        let absent = self.store.update(&key, RecordVersion::default(), owner, "x".into()).await?;
        assert_eq!(absent, CommitOutcome::Conflict(Record::absent()), "no record to update");
        self.store.commit(&key, commit(owner, 0, 3, "a")).await?;
        let updated = self.store.update(&key, RecordVersion::new(3, 0), other, "b".into()).await?;
        assert_eq!(updated, CommitOutcome::Written(RecordVersion::new(3, 1)));
        let current = Record::new(RecordVersion::new(3, 1), Some(other), "b".into());
        for at in [RecordVersion::new(3, 0), RecordVersion::new(3, 2), RecordVersion::new(2, 1)] {
            let late = self.store.update(&key, at, owner, "late".into()).await?;
            assert_eq!(late, CommitOutcome::Conflict(current.clone()), "at {at:?}");
        }
        // A commit compares the version, not the revision.
        assert_eq!(
            self.store.commit(&key, commit(owner, 3, 4, "c")).await?,
            CommitOutcome::Written(RecordVersion::new(4, 0))
        );
        Ok(())
    }

    async fn a_lease_has_one_holder_and_a_greater_token(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("lease"), Owner::random(), Owner::random());
        let first = self.granted(&key, owner, TTL).await?;
        for applicant in [owner, other] {
            match self.store.lease(&key, applicant, TTL).await? {
                LeaseOutcome::Held(by) => assert!(by <= TTL && !by.is_zero(), "held for {by:?}"),
                LeaseOutcome::Granted(_) => panic!("a lease was granted twice"),
            }
        }
        assert!(self.store.extend(&key, owner, first, TTL).await?);
        assert!(!self.store.extend(&key, other, first, TTL).await?, "another owner");
        self.store.release(&key, other, first).await?;
        self.store.release(&key, owner, FencingToken::new(first.get() + 1)).await?;
        assert!(
            matches!(self.store.lease(&key, other, TTL).await?, LeaseOutcome::Held(_)),
            "only the holder releases a lease"
        );
        self.store.release(&key, owner, first).await?;
        let second = self.granted(&key, other, TTL).await?;
        assert!(second > first, "tokens grow: {first}, {second}");
        assert!(!self.store.extend(&key, owner, first, TTL).await?, "a lease that has ended");
        // A commit under the lease ends it, and tokens still grow.
        let by_lease = Commit { token: Some(second), ..commit(other, 0, 1, "") };
        assert_eq!(
            self.store.commit(&key, by_lease).await?,
            CommitOutcome::Written(RecordVersion::new(1, 0))
        );
        let third = self.granted(&key, owner, TTL).await?;
        assert!(third > second, "tokens grow across a commit: {second}, {third}");
        // Each key has its own lease.
        self.granted(&self.key("another lease"), owner, TTL).await?;
        Ok(())
    }

    async fn a_lease_expires(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("expire"), Owner::random(), Owner::random());
        let first = self.granted(&key, owner, Duration::from_millis(50)).await?;
        let second = loop {
            match self.store.lease(&key, other, TTL).await? {
                LeaseOutcome::Granted(token) => break token,
                LeaseOutcome::Held(by) => {
                    assert!(by <= Duration::from_millis(50), "held for {by:?} of 50 ms");
                    tokio::time::sleep(by).await;
                }
            }
        };
        assert!(second > first, "tokens grow: {first}, {second}");
        assert!(!self.store.extend(&key, owner, first, TTL).await?);
        self.store.release(&key, owner, first).await?;
        assert!(
            self.store.extend(&key, other, second, TTL).await?,
            "a late release does not end the next lease"
        );
        Ok(())
    }

    async fn a_commit_with_an_old_token_conflicts(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("late"), Owner::random(), Owner::random());
        let first = self.granted(&key, owner, TTL).await?;
        self.store.release(&key, owner, first).await?;
        let second = self.granted(&key, other, TTL).await?;
        let late = Commit { token: Some(first), ..commit(owner, 0, 1, "late") };
        let conflict = self.store.commit(&key, late).await?;
        assert!(
            matches!(conflict, CommitOutcome::Conflict(_)),
            "the version matches, but the token is old: {conflict:?}"
        );
        // A commit without a lease succeeds while one is held. The holder's commit then conflicts.
        assert_eq!(
            self.store.commit(&key, commit(owner, 0, 1, "free")).await?,
            CommitOutcome::Written(RecordVersion::new(1, 0))
        );
        let held = Commit { token: Some(second), ..commit(other, 0, 2, "held") };
        assert!(matches!(self.store.commit(&key, held).await?, CommitOutcome::Conflict(_)));
        Ok(())
    }

    async fn a_started_renewal_is_marked(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("in progress"), Owner::random(), Owner::random());
        // Also without a record.
        let first = self.key("in progress without a record");
        let token = self.granted(&first, owner, TTL).await?;
        assert!(self.store.mark_in_progress(&first, owner, token).await?);
        assert_eq!(self.store.load(&first).await?, Record { interrupted: true, ..Record::absent() });
        self.store.commit(&key, commit(owner, 0, 1, "once")).await?;
        let token = self.granted(&key, owner, TTL).await?;
        assert!(!self.store.load(&key).await?.interrupted, "a lease alone marks nothing");
        assert!(!self.store.mark_in_progress(&key, other, token).await?, "another owner");
        assert!(!self.store.load(&key).await?.interrupted);
        assert!(self.store.mark_in_progress(&key, owner, token).await?);
        self.store.release(&key, owner, token).await?;
        let found = self.store.load(&key).await?;
        assert!(found.interrupted && found.payload == "once", "{found:?}");
        self.store.update(&key, RecordVersion::new(1, 0), other, "once more".into()).await?;
        assert!(self.store.load(&key).await?.interrupted, "an update is no renewal");
        // Neither is a commit without a lease.
        self.store.commit(&key, commit(other, 1, 2, "explicit")).await?;
        assert!(self.store.load(&key).await?.interrupted);
        let token = self.granted(&key, other, TTL).await?;
        let renewed = Commit { token: Some(token), ..commit(other, 2, 3, "twice") };
        self.store.commit(&key, renewed).await?;
        assert!(!self.store.load(&key).await?.interrupted);
        let stale = Commit { interrupted: true, ..commit(other, 3, 4, "stale") };
        self.store.commit(&key, stale).await?;
        assert!(self.store.load(&key).await?.interrupted, "a commit can set the mark itself");
        Ok(())
    }

    async fn an_ended_record_stays_ended(&self) -> Result<(), StoreError> {
        let (key, owner) = (self.key("end"), Owner::random());
        self.store.commit(&key, commit(owner, 0, 1, "alive")).await?;
        let end = Commit { ended: true, payload: Bytes::new(), ..commit(owner, 1, 2, "") };
        let ended = RecordVersion { ended: true, ..RecordVersion::new(2, 0) };
        assert_eq!(self.store.commit(&key, end).await?, CommitOutcome::Written(ended));
        let record = Record::new(ended, Some(owner), Bytes::new());
        assert_eq!(self.store.load(&key).await?, record);
        let back = self.store.commit(&key, commit(owner, 1, 3, "back")).await?;
        assert_eq!(back, CommitOutcome::Conflict(record.clone()));
        let back = self.store.update(&key, ended, owner, "back".into()).await?;
        assert_eq!(back, CommitOutcome::Conflict(record));
        assert_eq!(
            self.store.commit(&key, commit(owner, 2, 3, "new")).await?,
            CommitOutcome::Written(RecordVersion::new(3, 0))
        );
        Ok(())
    }

    async fn uses_are_granted_up_to_the_limit(&self) -> Result<(), StoreError> {
        let (key, owner) = (self.key("uses"), Owner::random());
        self.store.commit(&key, commit(owner, 0, 1, "")).await?;
        let takes = (0..20).map(|_| self.store.take_uses(&key, 1, 7, 100));
        let mut granted = 0;
        for taken in join_all(takes).await {
            let grant = taken?;
            assert!(grant.granted <= 7 && grant.total <= 100, "{grant:?}");
            granted += grant.granted;
        }
        assert_eq!(granted, 100, "20 requests for 7 uses get exactly the limit");
        assert_eq!(self.store.take_uses(&key, 1, 1, 100).await?, UseGrant::new(0, 100));
        self.store.commit(&key, commit(owner, 1, 2, "")).await?;
        assert_eq!(self.store.take_uses(&key, 1, 1, 100).await?.granted, 0, "a replaced version");
        assert_eq!(self.store.take_uses(&key, 2, 5, 100).await?, UseGrant::new(5, 5));
        Ok(())
    }

    async fn one_of_concurrent_commits_wins(&self) -> Result<(), StoreError> {
        let key = self.key("race");
        let mut version = 0;
        for round in 1..=3 {
            let commits =
                (0..8).map(|_| self.store.commit(&key, commit(Owner::random(), version, round, "")));
            let mut won = 0;
            for committed in join_all(commits).await {
                won += usize::from(matches!(committed?, CommitOutcome::Written(_)));
            }
            assert_eq!(won, 1, "one of 8 concurrent commits is written");
            version = round;
        }
        let leases = (0..8).map(|_| self.store.lease(&key, Owner::random(), TTL));
        let mut granted = 0;
        for leased in join_all(leases).await {
            granted += usize::from(matches!(leased?, LeaseOutcome::Granted(_)));
        }
        assert_eq!(granted, 1, "one of 8 concurrent leases is granted");
        Ok(())
    }

    async fn every_payload_and_every_key_is_stored(&self) -> Result<(), StoreError> {
        let owner = Owner::random();
        let payload: Bytes = (0..100_000).map(|number| (number % 251) as u8).collect();
        for name in ["", "a/../b", "{a}:*?[", "Ünïcödé \n\"'\\", "CON", &"long ".repeat(100)] {
            let key = self.key(name);
            let new = Commit { payload: payload.clone(), ..commit(owner, 0, 1, "") };
            assert_eq!(
                self.store.commit(&key, new).await?,
                CommitOutcome::Written(RecordVersion::new(1, 0)),
                "key {name:?}"
            );
            assert_eq!(self.store.load(&key).await?.payload, payload, "key {name:?}");
        }
        // Keys are case-sensitive.
        assert_eq!(self.store.load(&self.key("con")).await?, Record::absent());
        Ok(())
    }

    async fn changes_are_pushed_in_order(&self) -> Result<(), StoreError> {
        let (key, owner) = (self.key("watch"), Owner::random());
        let (sender, mut events) = mpsc::channel(64);
        let writes = async {
            assert_eq!(events.recv().await, Some(StoreEvent::Lagged), "the first event");
            self.store.commit(&key, commit(owner, 0, 1, "a")).await?;
            self.store.update(&key, RecordVersion::new(1, 0), owner, "b".into()).await?;
            let end = Commit { ended: true, ..commit(owner, 1, 2, "") };
            self.store.commit(&key, end).await?;
            for expected in [
                RecordVersion::new(1, 0),
                RecordVersion::new(1, 1),
                RecordVersion { ended: true, ..RecordVersion::new(2, 0) },
            ] {
                loop {
                    match events.recv().await.expect("the watch continues") {
                        StoreEvent::Updated { key: written, version, writer } if written == key => {
                            assert_eq!((version, writer), (expected, owner));
                            break;
                        }
                        _ => {}
                    }
                }
            }
            drop(events);
            Ok::<_, StoreError>(())
        };
        let watched = async { tokio::join!(self.store.watch(sender), writes) };
        let (ended, written) =
            timeout(TTL, watched).await.expect("changes are pushed, and the watch ends with its receiver");
        ended.and(written)
    }
}

async fn join_all<T: Send>(
    futures: impl Iterator<Item = super::StoreFuture<'_, T>>,
) -> Vec<Result<T, StoreError>> {
    // All futures are polled concurrently.
    let mut futures: Vec<_> = futures.collect();
    let mut responses: Vec<Option<Result<T, StoreError>>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (future, response) in futures.iter_mut().zip(&mut responses) {
            if response.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *response = Some(ready),
                    std::task::Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    responses.into_iter().map(|response| response.expect("every future is ready")).collect()
}
