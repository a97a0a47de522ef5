//! Whether anything has changed since somebody last looked.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The changes of all sessions of one registry.
///
/// To say that something has changed costs the look at a flag, unless somebody has looked since: only then is anybody told. The
/// change is made before it is said, and the flag is lowered before anybody looks, both under the locks of what is looked at; so
/// a change that is not seen by a look is told after it.
pub(crate) struct DirtyFlag {
    told: AtomicBool,
    sender: watch::Sender<()>,
}

impl DirtyFlag {
    pub(crate) fn new() -> Self {
        // Nobody looks yet.
        Self { told: AtomicBool::new(true), sender: watch::Sender::new(()) }
    }

    /// Something has changed.
    pub(crate) fn tell(&self) {
        if !self.told.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::AcqRel) {
            self.sender.send_replace(());
        }
    }

    /// Somebody is about to look.
    pub(crate) fn look(&self) {
        self.told.store(false, Ordering::Release);
    }

    /// Is told of each first change after a look. What has changed before counts as a change.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.look();
        let mut receiver = self.sender.subscribe();
        receiver.mark_changed();
        receiver
    }
}
