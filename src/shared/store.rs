//! The contract of a session store.

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

/// The future of a request to a [`SharedStore`].
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store for sessions that many processes share.
///
/// A store keeps one [`Record`] for each key and compares numbers; it never interprets a payload.
/// Only [`commit`](Self::commit) guarantees that processes never overwrite each other's work: it
/// compares the version and writes in one step. Leases only avoid duplicate work.
///
/// [`test_conformance`](super::test_conformance) tests an implementation against this contract.
///
/// # Cancel safety
///
/// Each future may be dropped at any await point. Its request has then happened completely or not
/// at all; the caller finds out with [`load`](Self::load).
pub trait SharedStore: fmt::Debug + Send + Sync + 'static {
    /// Loads the record of `key`, or [`Record::absent`] if there is none.
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Record>;

    /// Returns the versions of the records of `keys`, in the same order.
    ///
    /// The version of an absent record is [`RecordVersion::default`]. Polling calls this method, so
    /// it should take one round trip.
    fn versions<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<RecordVersion>>;

    /// Grants the lease of `key` for `ttl`, unless it is held.
    ///
    /// Each granted lease has a greater [token](LeaseOutcome::Granted) than all leases of this key
    /// before. A lease ends when it is released, when its holder commits, or when `ttl` is over.
    fn lease<'a>(&'a self, key: &'a str, owner: Owner, ttl: Duration) -> StoreFuture<'a, LeaseOutcome>;

    /// Extends the lease to `ttl` from now. Returns `false` if the lease has ended.
    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool>;

    /// Ends the lease, if it is still held with this token.
    fn release<'a>(&'a self, key: &'a str, owner: Owner, token: FencingToken) -> StoreFuture<'a, ()>;

    /// Marks the record as about to be renewed by the holder of the lease.
    ///
    /// Sets [`Record::interrupted`] until the next commit [under a lease](Commit::token) that does
    /// not set it itself. Returns `false`, and changes nothing, if the lease has ended.
    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
    ) -> StoreFuture<'a, bool>;

    /// Replaces the expected version by a new one in one step, and ends the lease of the writer.
    ///
    /// Writes nothing and returns the current record if the record does not have the expected
    /// version, or if the commit has a [token](Commit::token) and a later lease was granted since.
    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome>;

    /// Replaces the payload of `version` by another one, with the next revision.
    ///
    /// Writes nothing and returns the current record if the record has another version or revision,
    /// or has ended.
    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome>;

    /// Takes at most `want` of the uses that are left of `limit` for this version.
    ///
    /// Uses are counted per version and start at zero with each commit. A version that is not the
    /// current one has none left.
    fn take_uses<'a>(
        &'a self,
        key: &'a str,
        version: u64,
        want: u64,
        limit: u64,
    ) -> StoreFuture<'a, UseGrant>;

    /// Sends an event for each commit and update by any process, after an initial
    /// [`StoreEvent::Lagged`].
    ///
    /// Resolves with an error when the store can push no more events, and is then called again.
    /// Resolves when the receiver is closed. Events may be lost if [`StoreEvent::Lagged`] follows.
    /// The default implementation sends nothing; changes are then found by polling.
    fn watch<'a>(&'a self, events: mpsc::Sender<StoreEvent>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            events.closed().await;
            Ok(())
        })
    }
}

/// The identity of a writer: one `Sessions` of one process, as a random number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(u128);

impl Owner {
    /// Creates a new random owner.
    pub fn random() -> Self {
        // The keys of a `RandomState` come from the operating system, once per thread.
        let half = |number: u64| RandomState::new().hash_one((std::process::id(), number));
        Self(u128::from(half(0)) << 64 | u128::from(half(1)))
    }

    /// Parses the format of [`Display`](fmt::Display). `None` if `text` is in another format.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

/// Writes 32 hexadecimal digits.
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

/// The number of a lease, which is greater than that of every earlier lease of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// Creates the token with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number of the token.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version and revision of a record.
///
/// Each renewal raises the number; each update of its payload raises the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct RecordVersion {
    /// The number of the version; 0 if there is no record.
    pub number: u64,
    /// The number of updates since the version was committed.
    pub revision: u64,
    /// Whether the version was committed as [ended](Commit::ended): it has no session.
    pub ended: bool,
}

impl RecordVersion {
    /// Creates a version that has not ended.
    pub const fn new(number: u64, revision: u64) -> Self {
        Self { number, revision, ended: false }
    }
}

/// What a store keeps for one key.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The version of the record.
    pub version: RecordVersion,
    /// The last writer.
    pub writer: Option<Owner>,
    /// Whether a renewal of this version was [started](SharedStore::mark_in_progress) and not
    /// committed: what the payload holds may be used up.
    pub interrupted: bool,
    /// The payload of the last writer; empty if there is no record.
    pub payload: Bytes,
}

impl Record {
    /// Returns the record of a key that was never written.
    pub fn absent() -> Self {
        Self::new(RecordVersion::default(), None, Bytes::new())
    }

    /// Creates a record that is not [`interrupted`](Self::interrupted).
    pub fn new(version: RecordVersion, writer: Option<Owner>, payload: Bytes) -> Self {
        Self { version, writer, interrupted: false, payload }
    }
}

/// Omits the payload.
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

/// The outcome of [`SharedStore::lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// The lease was granted, with a greater token than every lease of this key before.
    Granted(FencingToken),
    /// The lease is held. It ends within this time, unless it is extended.
    Held(Duration),
}

/// A new version for [`SharedStore::commit`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Commit {
    /// The number of the version to replace; 0 if there must be no record.
    pub expected: u64,
    /// The number of the new version, which is greater than `expected`.
    pub version: u64,
    /// The token of the writer's lease, if it holds one.
    pub token: Option<FencingToken>,
    /// The writer.
    pub owner: Owner,
    /// Whether the new version has no session, because the one before was cleared.
    pub ended: bool,
    /// Whether the payload may be out of date, and used up by other processes.
    pub interrupted: bool,
    /// The payload of the new version.
    pub payload: Bytes,
}

impl Commit {
    /// Creates a commit without a lease, of a version that has not ended.
    pub fn new(owner: Owner, expected: u64, version: u64, payload: Bytes) -> Self {
        Self { expected, version, token: None, owner, ended: false, interrupted: false, payload }
    }
}

/// Omits the payload.
impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("expected", &self.expected)
            .field("version", &self.version)
            .field("token", &self.token)
            .field("owner", &self.owner)
            .field("ended", &self.ended)
            .field("interrupted", &self.interrupted)
            .field("len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// The outcome of [`SharedStore::commit`] and [`SharedStore::update`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The payload was written; the record has this version now.
    Written(RecordVersion),
    /// Nothing was written; this is the current record.
    Conflict(Record),
}

/// The outcome of [`SharedStore::take_uses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UseGrant {
    /// The uses that the caller got, at most as many as it wanted.
    pub granted: u64,
    /// The uses of this version that all processes have taken so far.
    pub total: u64,
}

impl UseGrant {
    /// Creates a grant of `granted` uses, which make `total` taken uses.
    pub const fn new(granted: u64, total: u64) -> Self {
        Self { granted, total }
    }
}

/// An event of [`SharedStore::watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent {
    /// A record was committed or updated.
    Updated {
        /// The key of the record.
        key: String,
        /// The version of the record after the write.
        version: RecordVersion,
        /// The writer.
        writer: Owner,
    },
    /// Events before this one may be lost: the receiver compares all records once.
    Lagged,
}
