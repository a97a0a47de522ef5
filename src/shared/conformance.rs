//! The contract of a store, as a check that every implementation can be put to.

use std::time::Duration;

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Commit, CommitOutcome, FencingToken, LeaseOutcome, Owner, Record, RecordVersion, SharedStore, StoreError,
    StoreEvent, UseGrant,
};

/// Puts a store to the contract that [`SharedStore`] states.
///
/// It works under keys of its own, drawn at random, and leaves records there. Leases are waited for in real time, a few tenths
/// of a second in all, or on a clock that is paused. `pushes` says whether the store tells of changes.
///
/// # Errors
///
/// The first one that the store answers with.
///
/// # Panics
///
/// If the store breaks the contract; the message says where.
pub async fn test_conformance(store: &dyn SharedStore, pushes: bool) -> Result<(), StoreError> {
    let check = Conformance { store, prefix: format!("check {}", Owner::random()) };
    check.what_is_absent().await?;
    check.commits_are_compared().await?;
    check.amendments_are_compared().await?;
    check.leases_exclude_and_grow().await?;
    check.leases_run_out().await?;
    check.a_late_holder_is_refused().await?;
    check.what_was_begun_is_seen().await?;
    check.an_end_is_kept().await?;
    check.uses_are_exact().await?;
    check.one_of_many_commits().await?;
    check.any_bytes_and_any_key().await?;
    if pushes {
        check.changes_are_told().await?;
    }
    Ok(())
}

/// Long enough for any of the moves below, on a slow machine too.
const TTL: Duration = Duration::from_secs(30);

struct Conformance<'a> {
    store: &'a dyn SharedStore,
    prefix: String,
}

fn mark(version: u64, revision: u64) -> RecordVersion {
    RecordVersion { number: version, revision, ended: false }
}

fn commit(owner: Owner, expected: u64, version: u64, payload: &'static str) -> Commit {
    Commit {
        expected,
        version,
        fence: None,
        owner,
        ended: false,
        interrupted: false,
        payload: payload.into(),
    }
}

impl Conformance<'_> {
    fn key(&self, name: &str) -> String {
        format!("{} {name}", self.prefix)
    }

    async fn granted(&self, key: &str, owner: Owner, ttl: Duration) -> Result<FencingToken, StoreError> {
        match self.store.lease(key, owner, ttl).await? {
            LeaseOutcome::Granted(fence) => Ok(fence),
            LeaseOutcome::Held(by) => panic!("a lease that nobody holds is granted, not held for {by:?}"),
        }
    }

    async fn what_is_absent(&self) -> Result<(), StoreError> {
        let key = self.key("absent");
        assert_eq!(self.store.load(&key).await?, Record::absent());
        assert_eq!(self.store.versions(std::slice::from_ref(&key)).await?, [RecordVersion::default()]);
        assert_eq!(self.store.versions(&[]).await?, []);
        let owner = Owner::random();
        self.store.release(&key, owner, 1).await?;
        assert!(!self.store.extend(&key, owner, 1, TTL).await?, "there is no lease to extend");
        assert!(!self.store.mark_in_progress(&key, owner, 1).await?, "there is no lease to begin under");
        assert_eq!(self.store.take_uses(&key, 1, 5, 10).await?.granted, 0, "there is no version to use");
        // A lease leaves no record behind.
        let fence = self.granted(&key, owner, TTL).await?;
        self.store.release(&key, owner, fence).await?;
        assert_eq!(self.store.load(&key).await?, Record::absent());
        Ok(())
    }

    async fn commits_are_compared(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("commit"), Owner::random(), Owner::random());
        let first = Record::new(mark(1, 0), Some(owner), "one".into());
        assert_eq!(
            self.store.commit(&key, commit(owner, 0, 1, "one")).await?,
            CommitOutcome::Written(mark(1, 0))
        );
        assert_eq!(self.store.load(&key).await?, first);
        for expected in [0, 2, 7] {
            let late = self.store.commit(&key, commit(other, expected, 9, "late")).await?;
            assert_eq!(late, CommitOutcome::Conflict(first.clone()), "expected {expected}");
        }
        assert_eq!(self.store.load(&key).await?, first, "a conflict changes nothing");
        // Versions may be left out.
        assert_eq!(
            self.store.commit(&key, commit(other, 1, 7, "two")).await?,
            CommitOutcome::Written(mark(7, 0))
        );
        assert_eq!(self.store.load(&key).await?, Record::new(mark(7, 0), Some(other), "two".into()));
        let versions = self.store.versions(&[self.key("none"), key]).await?;
        assert_eq!(versions, [RecordVersion::default(), mark(7, 0)]);
        Ok(())
    }

    async fn amendments_are_compared(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("amend"), Owner::random(), Owner::random());
        let nothing = self.store.update(&key, RecordVersion::default(), owner, "x".into()).await?;
        assert_eq!(nothing, CommitOutcome::Conflict(Record::absent()), "there is nothing to amend");
        self.store.commit(&key, commit(owner, 0, 3, "a")).await?;
        let amended = self.store.update(&key, mark(3, 0), other, "b".into()).await?;
        assert_eq!(amended, CommitOutcome::Written(mark(3, 1)));
        let stands = Record::new(mark(3, 1), Some(other), "b".into());
        for at in [mark(3, 0), mark(3, 2), mark(2, 1)] {
            let late = self.store.update(&key, at, owner, "late".into()).await?;
            assert_eq!(late, CommitOutcome::Conflict(stands.clone()), "at {at:?}");
        }
        // A commit expects a version, whatever its revision.
        assert_eq!(
            self.store.commit(&key, commit(owner, 3, 4, "c")).await?,
            CommitOutcome::Written(mark(4, 0))
        );
        Ok(())
    }

    async fn leases_exclude_and_grow(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("lease"), Owner::random(), Owner::random());
        let first = self.granted(&key, owner, TTL).await?;
        for who in [owner, other] {
            match self.store.lease(&key, who, TTL).await? {
                LeaseOutcome::Held(by) => assert!(by <= TTL && !by.is_zero(), "held for {by:?}"),
                LeaseOutcome::Granted(_) => panic!("a lease was granted twice"),
            }
        }
        assert!(self.store.extend(&key, owner, first, TTL).await?);
        assert!(!self.store.extend(&key, other, first, TTL).await?, "of another owner");
        self.store.release(&key, other, first).await?;
        self.store.release(&key, owner, first + 1).await?;
        assert!(
            matches!(self.store.lease(&key, other, TTL).await?, LeaseOutcome::Held(_)),
            "released by nobody"
        );
        self.store.release(&key, owner, first).await?;
        let second = self.granted(&key, other, TTL).await?;
        assert!(second > first, "fences grow: {first}, {second}");
        assert!(!self.store.extend(&key, owner, first, TTL).await?, "of a lease that ended");
        // A commit under the lease ends it, and fences grow on.
        let by_lease = Commit { fence: Some(second), ..commit(other, 0, 1, "") };
        assert_eq!(self.store.commit(&key, by_lease).await?, CommitOutcome::Written(mark(1, 0)));
        let third = self.granted(&key, owner, TTL).await?;
        assert!(third > second, "fences grow over a commit: {second}, {third}");
        // One lease is not another's.
        self.granted(&self.key("another lease"), owner, TTL).await?;
        Ok(())
    }

    async fn leases_run_out(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("run out"), Owner::random(), Owner::random());
        let first = self.granted(&key, owner, Duration::from_millis(50)).await?;
        let second = loop {
            match self.store.lease(&key, other, TTL).await? {
                LeaseOutcome::Granted(fence) => break fence,
                LeaseOutcome::Held(by) => {
                    assert!(by <= Duration::from_millis(50), "held for {by:?} of 50 ms");
                    tokio::time::sleep(by).await;
                }
            }
        };
        assert!(second > first, "fences grow: {first}, {second}");
        assert!(!self.store.extend(&key, owner, first, TTL).await?);
        self.store.release(&key, owner, first).await?;
        assert!(self.store.extend(&key, other, second, TTL).await?, "a late release ended another's lease");
        Ok(())
    }

    async fn a_late_holder_is_refused(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("late"), Owner::random(), Owner::random());
        let first = self.granted(&key, owner, TTL).await?;
        self.store.release(&key, owner, first).await?;
        let second = self.granted(&key, other, TTL).await?;
        let late = Commit { fence: Some(first), ..commit(owner, 0, 1, "late") };
        let refused = self.store.commit(&key, late).await?;
        assert!(
            matches!(refused, CommitOutcome::Conflict(_)),
            "the version is right, the lease is not: {refused:?}"
        );
        // One without a lease is not stopped by one that somebody holds; the holder's own commit then is.
        assert_eq!(
            self.store.commit(&key, commit(owner, 0, 1, "free")).await?,
            CommitOutcome::Written(mark(1, 0))
        );
        let held = Commit { fence: Some(second), ..commit(other, 0, 2, "held") };
        assert!(matches!(self.store.commit(&key, held).await?, CommitOutcome::Conflict(_)));
        Ok(())
    }

    async fn what_was_begun_is_seen(&self) -> Result<(), StoreError> {
        let (key, owner, other) = (self.key("begin"), Owner::random(), Owner::random());
        // Also where there is nothing yet.
        let first = self.key("begin the first");
        let fence = self.granted(&first, owner, TTL).await?;
        assert!(self.store.mark_in_progress(&first, owner, fence).await?);
        assert_eq!(self.store.load(&first).await?, Record { interrupted: true, ..Record::absent() });
        self.store.commit(&key, commit(owner, 0, 1, "once")).await?;
        let fence = self.granted(&key, owner, TTL).await?;
        assert!(!self.store.load(&key).await?.interrupted, "a lease alone uses nothing up");
        assert!(!self.store.mark_in_progress(&key, other, fence).await?, "of another owner");
        assert!(!self.store.load(&key).await?.interrupted);
        assert!(self.store.mark_in_progress(&key, owner, fence).await?);
        self.store.release(&key, owner, fence).await?;
        let found = self.store.load(&key).await?;
        assert!(found.interrupted && found.payload == "once", "{found:?}");
        self.store.update(&key, mark(1, 0), other, "once more".into()).await?;
        assert!(self.store.load(&key).await?.interrupted, "an amendment is no renewal");
        // Not even what somebody commits by hand meanwhile.
        self.store.commit(&key, commit(other, 1, 2, "by hand")).await?;
        assert!(self.store.load(&key).await?.interrupted);
        let fence = self.granted(&key, other, TTL).await?;
        let renewed = Commit { fence: Some(fence), ..commit(other, 2, 3, "twice") };
        self.store.commit(&key, renewed).await?;
        assert!(!self.store.load(&key).await?.interrupted);
        let stale = Commit { interrupted: true, ..commit(other, 3, 4, "stale") };
        self.store.commit(&key, stale).await?;
        assert!(self.store.load(&key).await?.interrupted, "by its own words");
        Ok(())
    }

    async fn an_end_is_kept(&self) -> Result<(), StoreError> {
        let (key, owner) = (self.key("end"), Owner::random());
        self.store.commit(&key, commit(owner, 0, 1, "alive")).await?;
        let end = Commit { ended: true, payload: Bytes::new(), ..commit(owner, 1, 2, "") };
        let ended = RecordVersion { ended: true, ..mark(2, 0) };
        assert_eq!(self.store.commit(&key, end).await?, CommitOutcome::Written(ended));
        let record = Record::new(ended, Some(owner), Bytes::new());
        assert_eq!(self.store.load(&key).await?, record);
        let back = self.store.commit(&key, commit(owner, 1, 3, "back")).await?;
        assert_eq!(back, CommitOutcome::Conflict(record.clone()));
        let back = self.store.update(&key, ended, owner, "back".into()).await?;
        assert_eq!(back, CommitOutcome::Conflict(record));
        assert_eq!(
            self.store.commit(&key, commit(owner, 2, 3, "anew")).await?,
            CommitOutcome::Written(mark(3, 0))
        );
        Ok(())
    }

    async fn uses_are_exact(&self) -> Result<(), StoreError> {
        let (key, owner) = (self.key("uses"), Owner::random());
        self.store.commit(&key, commit(owner, 0, 1, "")).await?;
        let takes = (0..20).map(|_| self.store.take_uses(&key, 1, 7, 100));
        let mut granted = 0;
        for taken in join_all(takes).await {
            let taken = taken?;
            assert!(taken.granted <= 7 && taken.total <= 100, "{taken:?}");
            granted += taken.granted;
        }
        assert_eq!(granted, 100, "20 takers of 7 get what is there, and no more");
        assert_eq!(self.store.take_uses(&key, 1, 1, 100).await?, UseGrant { granted: 0, total: 100 });
        self.store.commit(&key, commit(owner, 1, 2, "")).await?;
        assert_eq!(self.store.take_uses(&key, 1, 1, 100).await?.granted, 0, "of a version that is gone");
        assert_eq!(self.store.take_uses(&key, 2, 5, 100).await?, UseGrant { granted: 5, total: 5 });
        Ok(())
    }

    async fn one_of_many_commits(&self) -> Result<(), StoreError> {
        let key = self.key("race");
        let mut version = 0;
        for round in 1..=3 {
            let commits =
                (0..8).map(|_| self.store.commit(&key, commit(Owner::random(), version, round, "")));
            let mut won = 0;
            for committed in join_all(commits).await {
                won += usize::from(matches!(committed?, CommitOutcome::Written(_)));
            }
            assert_eq!(won, 1, "of 8 commits at once, one is written");
            version = round;
        }
        let leases = (0..8).map(|_| self.store.lease(&key, Owner::random(), TTL));
        let mut granted = 0;
        for leased in join_all(leases).await {
            granted += usize::from(matches!(leased?, LeaseOutcome::Granted(_)));
        }
        assert_eq!(granted, 1, "of 8 leases at once, one is granted");
        Ok(())
    }

    async fn any_bytes_and_any_key(&self) -> Result<(), StoreError> {
        let owner = Owner::random();
        let payload: Bytes = (0..100_000).map(|number| (number % 251) as u8).collect();
        for name in ["", "a/../b", "{a}:*?[", "Ünïcödé \n\"'\\", "CON", &"long ".repeat(100)] {
            let key = self.key(name);
            let new = Commit { payload: payload.clone(), ..commit(owner, 0, 1, "") };
            assert_eq!(
                self.store.commit(&key, new).await?,
                CommitOutcome::Written(mark(1, 0)),
                "key {name:?}"
            );
            assert_eq!(self.store.load(&key).await?.payload, payload, "key {name:?}");
        }
        // Keys that differ in case alone are two.
        assert_eq!(self.store.load(&self.key("con")).await?, Record::absent());
        Ok(())
    }

    async fn changes_are_told(&self) -> Result<(), StoreError> {
        let (key, owner) = (self.key("watch"), Owner::random());
        let (sender, mut changes) = mpsc::channel(64);
        let moves = async {
            assert_eq!(changes.recv().await, Some(StoreEvent::Lagged), "first of all");
            self.store.commit(&key, commit(owner, 0, 1, "a")).await?;
            self.store.update(&key, mark(1, 0), owner, "b".into()).await?;
            let end = Commit { ended: true, ..commit(owner, 1, 2, "") };
            self.store.commit(&key, end).await?;
            for expected in [mark(1, 0), mark(1, 1), RecordVersion { ended: true, ..mark(2, 0) }] {
                loop {
                    match changes.recv().await.expect("the watch goes on") {
                        StoreEvent::Updated { key: moved, version, writer } if moved == key => {
                            assert_eq!((version, writer), (expected, owner));
                            break;
                        }
                        _ => {}
                    }
                }
            }
            drop(changes);
            Ok::<_, StoreError>(())
        };
        let watched = async { tokio::join!(self.store.watch(sender), moves) };
        let (ended, moved) =
            timeout(TTL, watched).await.expect("changes are told, and a watch ends with its receiver");
        ended.and(moved)
    }
}

async fn join_all<T: Send>(
    futures: impl Iterator<Item = super::StoreFuture<'_, T>>,
) -> Vec<Result<T, StoreError>> {
    // All are under way before the first is awaited.
    let mut futures: Vec<_> = futures.collect();
    let mut answers: Vec<Option<Result<T, StoreError>>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (future, answer) in futures.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *answer = Some(ready),
                    std::task::Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    answers.into_iter().map(|answer| answer.expect("all have answered")).collect()
}
