//! Whether the sessions have changed since the last snapshot.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Notifies about the first change after a snapshot.
///
/// Further changes cost one load. A change is made before [`set`](Self::set), and
/// [`clear`](Self::clear) is called before a snapshot is taken, both under the locks of the data. A
/// change that the snapshot misses is therefore notified after it.
pub(crate) struct DirtyFlag {
    is_set: AtomicBool,
    sender: watch::Sender<()>,
}

impl DirtyFlag {
    pub(super) fn new() -> Self {
        // Set, so that nothing is sent before the first `watch`.
        Self { is_set: AtomicBool::new(true), sender: watch::Sender::new(()) }
    }

    /// Notes a change.
    pub(super) fn set(&self) {
        if !self.is_set.load(Ordering::Relaxed) && !self.is_set.swap(true, Ordering::AcqRel) {
            self.sender.send_replace(());
        }
    }

    /// Call this before taking a snapshot.
    pub(super) fn clear(&self) {
        self.is_set.store(false, Ordering::Release);
    }

    /// Subscribes to the first change after each snapshot. Earlier changes count as one.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.clear();
        let mut receiver = self.sender.subscribe();
        receiver.mark_changed();
        receiver
    }
}
