//! A store in the memory of one process.

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

/// A store in the memory of one process, for tests and for several `Sessions` of one program.
///
/// # Clone
///
/// Clones are handles to the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    entries: Mutex<HashMap<String, RecordEntry>>,
    events: broadcast::Sender<StoreEvent>,
    origin: Instant,
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        /// How many events are kept for a slow watcher, which receives `Lagged` beyond that.
        const EVENTS: usize = 1024;
        let (events, _) = broadcast::channel(EVENTS);
        Self { shared: Arc::new(Shared { entries: Mutex::default(), events, origin: Instant::now() }) }
    }

    /// Deletes all records and leases, like a server that was flushed.
    pub fn clear(&self) {
        self.shared.entries.lock().clear();
    }

    /// Ends all leases, as if they had expired.
    pub fn expire_leases(&self) {
        self.shared.entries.lock().values_mut().for_each(|entry| entry.lease = None);
    }

    /// Returns a future that applies `act` to one entry when it is first polled.
    fn with_entry<'a, T: 'a>(
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
            Ok(act(entries.get_mut(key).expect("it was just inserted"), now))
        })
    }

    /// Like [`with_entry`](Self::with_entry), and sends an event for what was written.
    fn write_entry<'a>(
        &'a self,
        key: &'a str,
        writer: Owner,
        act: impl FnOnce(&mut RecordEntry, Duration) -> CommitOutcome + Send + 'a,
    ) -> StoreFuture<'a, CommitOutcome> {
        self.with_entry(key, move |entry, now| {
            let outcome = act(entry, now);
            if let CommitOutcome::Written(version) = outcome {
                // There may be no watcher. Sent under the lock, so that events are in order.
                let _ = self.shared.events.send(StoreEvent::Updated { key: key.to_owned(), version, writer });
            }
            outcome
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
        self.with_entry(key, |entry, _| entry.record.clone())
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
        self.with_entry(key, move |entry, now| entry.lease(owner, ttl, now))
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        self.with_entry(key, move |entry, now| entry.extend(owner, token, ttl, now))
    }

    fn release<'a>(&'a self, key: &'a str, owner: Owner, token: FencingToken) -> StoreFuture<'a, ()> {
        self.with_entry(key, move |entry, now| entry.release(owner, token, now))
    }

    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
    ) -> StoreFuture<'a, bool> {
        self.with_entry(key, move |entry, now| entry.mark_in_progress(owner, token, now))
    }

    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome> {
        self.write_entry(key, commit.owner, move |entry, now| entry.commit(commit, now))
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome> {
        self.write_entry(key, owner, move |entry, _| entry.update(version, owner, payload))
    }

    fn take_uses<'a>(
        &'a self,
        key: &'a str,
        version: u64,
        want: u64,
        limit: u64,
    ) -> StoreFuture<'a, UseGrant> {
        self.with_entry(key, move |entry, _| entry.take_uses(version, want, limit))
    }

    fn watch<'a>(&'a self, events: mpsc::Sender<StoreEvent>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut written = self.shared.events.subscribe();
            let mut event = StoreEvent::Lagged;
            while events.send(event).await.is_ok() {
                event = tokio::select! {
                    biased;
                    written = written.recv() => written.unwrap_or(StoreEvent::Lagged),
                    () = events.closed() => break,
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
