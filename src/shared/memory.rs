//! A store within one process.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, mpsc},
    time::Instant,
};

use super::{
    Commit, CommitOutcome, FencingToken, LeaseOutcome, Owner, Record, RecordVersion, SharedStore, StoreEvent,
    StoreFuture, UseGrant, record_entry::RecordEntry,
};

/// A store in the memory of one process: for tests, and for several `Sessions` of one program that share.
///
/// # Clone
///
/// Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    entries: Mutex<HashMap<String, RecordEntry>>,
    changes: broadcast::Sender<StoreEvent>,
    origin: Instant,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        /// Who watches and falls further behind is told that it has missed some.
        const CHANGES: usize = 1024;
        let (changes, _) = broadcast::channel(CHANGES);
        Self { shared: Arc::new(Shared { entries: Mutex::default(), changes, origin: Instant::now() }) }
    }

    /// Forgets everything, as a server does that is flushed.
    pub fn clear(&self) {
        self.shared.entries.lock().clear();
    }

    /// Ends all leases, as if their time were over.
    pub fn expire_leases(&self) {
        self.shared.entries.lock().values_mut().for_each(|entry| entry.lease = None);
    }

    /// A future that does one thing to one entry, at once, on its first poll.
    fn at_once<'a, T: 'a>(
        &'a self,
        key: &'a str,
        act: impl FnOnce(&mut RecordEntry, Duration) -> T + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let now = self.shared.origin.elapsed();
            let mut entries = self.shared.entries.lock();
            if !entries.contains_key(key) {
                entries.insert(key.to_owned(), RecordEntry::absent());
            }
            Ok(act(entries.get_mut(key).expect("it was just put there"), now))
        })
    }

    /// As [`at_once`](Self::at_once), for what others are told of.
    fn told<'a>(
        &'a self,
        key: &'a str,
        writer: Owner,
        act: impl FnOnce(&mut RecordEntry, Duration) -> CommitOutcome + Send + 'a,
    ) -> StoreFuture<'a, CommitOutcome> {
        self.at_once(key, move |entry, now| {
            let committed = act(entry, now);
            if let CommitOutcome::Written(version) = committed {
                // Nobody need be listening. Told under the lock, so that changes are told in their order.
                let _ =
                    self.shared.changes.send(StoreEvent::Updated { key: key.to_owned(), version, writer });
            }
            committed
        })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedStore for MemoryStore {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Record> {
        self.at_once(key, |entry, _| entry.record.clone())
    }

    fn versions<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<RecordVersion>> {
        Box::pin(async move {
            let entries = self.shared.entries.lock();
            let version = |key: &String| {
                entries.get(key).map_or_else(RecordVersion::default, |entry| entry.record.version)
            };
            Ok(keys.iter().map(version).collect())
        })
    }

    fn lease<'a>(&'a self, key: &'a str, owner: Owner, ttl: Duration) -> StoreFuture<'a, LeaseOutcome> {
        self.at_once(key, move |entry, now| entry.lease(owner, ttl, now))
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        fence: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        self.at_once(key, move |entry, now| entry.extend(owner, fence, ttl, now))
    }

    fn release<'a>(&'a self, key: &'a str, owner: Owner, fence: FencingToken) -> StoreFuture<'a, ()> {
        self.at_once(key, move |entry, now| entry.release(owner, fence, now))
    }

    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        fence: FencingToken,
    ) -> StoreFuture<'a, bool> {
        self.at_once(key, move |entry, now| entry.mark_in_progress(owner, fence, now))
    }

    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome> {
        self.told(key, commit.owner, move |entry, now| entry.commit(commit, now))
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome> {
        self.told(key, owner, move |entry, _| entry.update(version, owner, payload))
    }

    fn take_uses<'a>(
        &'a self,
        key: &'a str,
        version: u64,
        want: u64,
        limit: u64,
    ) -> StoreFuture<'a, UseGrant> {
        self.at_once(key, move |entry, _| entry.take_uses(version, want, limit))
    }

    fn watch<'a>(&'a self, changes: mpsc::Sender<StoreEvent>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut told = self.shared.changes.subscribe();
            let mut change = StoreEvent::Lagged;
            while changes.send(change).await.is_ok() {
                change = tokio::select! {
                    biased;
                    told = told.recv() => told.unwrap_or(StoreEvent::Lagged),
                    () = changes.closed() => break,
                };
            }
            Ok(())
        })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("len", &self.shared.entries.lock().len()).finish_non_exhaustive()
    }
}
