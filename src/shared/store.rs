//! What a store of shared sessions has to do.

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::StoreError;

/// What a store answers, in time.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps sessions where many processes find them.
///
/// A store keeps one [`Record`] a key and compares numbers; it never looks into a payload. That two processes never undo each
/// other's work rests on [`commit`](Self::commit) alone, which compares the version and writes in one step. The lease only
/// spares the others the work.
///
/// [`test_conformance`](super::test_conformance) runs the contract written here against an implementation.
///
/// # Cancel safety
///
/// Any of these futures may be dropped at any await: what it was about has then either happened whole or not at all, and the
/// caller finds out by [`load`](Self::load).
pub trait SharedStore: fmt::Debug + Send + Sync + 'static {
    /// The record of `key`; [`Record::absent`] if there is none.
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Record>;

    /// Where the records of `keys` stand, in the same order; what is absent stands at [`RecordVersion::default`].
    ///
    /// This is what polling asks for, so it should be one round trip.
    fn versions<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<RecordVersion>>;

    /// Takes the lease of `key` for `ttl`, if nobody holds it.
    ///
    /// Each lease that is granted has a greater [fence](LeaseOutcome::Granted) than the one before. A lease ends when it is released,
    /// when its record is committed by its holder, or when `ttl` is over.
    fn lease<'a>(&'a self, key: &'a str, owner: Owner, ttl: Duration) -> StoreFuture<'a, LeaseOutcome>;

    /// Lets the lease run for `ttl` from now. `false`: it has ended.
    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        fence: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool>;

    /// Ends the lease, if it is still this one.
    fn release<'a>(&'a self, key: &'a str, owner: Owner, fence: FencingToken) -> StoreFuture<'a, ()>;

    /// Notes down that the holder of this lease is about to use up what the record holds. `false`: the lease has ended, and
    /// nothing was noted.
    ///
    /// From then on [`Record::interrupted`] is set, until the next commit [under a lease](Commit::fence) that does not say the
    /// same.
    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        fence: FencingToken,
    ) -> StoreFuture<'a, bool>;

    /// Puts a new version in the place of the one expected, in one step, and ends the lease of its writer.
    ///
    /// Nothing is written, and the answer is what is there instead, if the record does not stand at the expected version, or if
    /// the writer has a [fence](Commit::fence) and a later lease was granted since.
    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome>;

    /// Puts another payload in the place of the one at `version`, under the same version and the next revision.
    ///
    /// Nothing is written, and the answer is what is there instead, if the record stands elsewhere or has ended.
    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome>;

    /// Takes at most `want` uses of what is left of `limit` for this version.
    ///
    /// Uses are counted for the version and begin at none with each commit. A version that is not the current one has none left.
    fn take_uses<'a>(
        &'a self,
        key: &'a str,
        version: u64,
        want: u64,
        limit: u64,
    ) -> StoreFuture<'a, UseGrant>;

    /// Tells every commit and amendment by any process, from the moment when it has sent [`StoreEvent::Lagged`].
    ///
    /// Ends with an error when it can tell no more, and is then called again. A store that can tell nothing stays with what this
    /// does by default: nothing, for ever; its changes are found by polling.
    ///
    /// Messages may be lost, if [`StoreEvent::Lagged`] follows.
    fn watch<'a>(&'a self, changes: mpsc::Sender<StoreEvent>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            changes.closed().await;
            Ok(())
        })
    }
}

/// Who writes: one `Sessions` of one process, told apart by a number drawn at random.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(u128);

impl Owner {
    /// Somebody new.
    pub fn random() -> Self {
        // The keys of a `RandomState` come from the operating system, once a thread.
        let half = |number: u64| RandomState::new().hash_one((std::process::id(), number));
        Self(u128::from(half(0)) << 64 | u128::from(half(1)))
    }

    /// The owner that [`Display`](fmt::Display) has written so, or `None` if it has not.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({self})")
    }
}

/// Numbers the leases of one key; each has a greater one than those before it.
pub type FencingToken = u64;

/// Where a record stands. Versions grow with each renewal, revisions count updates of one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordVersion {
    /// 0: there is no record.
    pub number: u64,
    /// 0 for the payload that the version was committed with.
    pub revision: u64,
    /// The version was [ended](Commit::ended): it has no session.
    pub ended: bool,
}

/// What a store keeps for one key.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where it stands.
    pub version: RecordVersion,
    /// Who wrote it last.
    pub writer: Option<Owner>,
    /// Somebody [began](SharedStore::begin) to renew this version and has not committed: what it holds may be used up.
    pub interrupted: bool,
    /// What the writer put there. Empty if the version was never written.
    pub payload: Bytes,
}

impl Record {
    /// A record that is not there.
    pub fn absent() -> Self {
        Self::new(RecordVersion::default(), None, Bytes::new())
    }

    /// A record that nobody is about to renew.
    pub fn new(version: RecordVersion, writer: Option<Owner>, payload: Bytes) -> Self {
        Self { version, writer, interrupted: false, payload }
    }
}

/// Without the payload.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("writer", &self.writer)
            .field("interrupted", &self.interrupted)
            .field("len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// The answer to a request for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// It is the caller's. The fence is greater than that of every lease of this key before.
    Granted(FencingToken),
    /// Somebody holds it, and for no longer than this unless it is extended.
    Held(Duration),
}

/// A new version.
#[derive(Clone)]
pub struct Commit {
    /// The version that this one follows; 0 if there is to be none.
    pub expected: u64,
    /// The version that this one becomes; greater than `expected`.
    pub version: u64,
    /// The fence of the writer's lease, if it writes under one.
    pub fence: Option<FencingToken>,
    /// Who writes.
    pub owner: Owner,
    /// The version has no session: the one before was cleared, and nobody is to bring it back.
    pub ended: bool,
    /// What the writer has of the session may be out of date, and used up by others.
    pub interrupted: bool,
    /// The session, or what outlives one that has ended.
    pub payload: Bytes,
}

/// Without the payload.
impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("expected", &self.expected)
            .field("version", &self.version)
            .field("fence", &self.fence)
            .field("owner", &self.owner)
            .field("ended", &self.ended)
            .field("interrupted", &self.interrupted)
            .field("len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// The answer to a commit or an amendment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It was written, and stands here.
    Written(RecordVersion),
    /// Somebody was faster: this is what is there.
    Conflict(Record),
}

/// The answer to a request for uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseGrant {
    /// How many the caller may use; 0 if none are left, or the version is not the current one.
    pub granted: u64,
    /// How many have been taken of this version by now, by everybody.
    pub total: u64,
}

/// What a store tells those who watch it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent {
    /// A record was committed or amended.
    Updated {
        /// Whose record.
        key: String,
        /// Where it stands now.
        version: RecordVersion,
        /// Who moved it.
        writer: Owner,
    },
    /// Changes before this moment may not have been told: look at everything once.
    Lagged,
}
