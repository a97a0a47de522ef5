//! The current id of a session, and the ids that it had before it was renamed.

use std::sync::OnceLock;

use super::SessionId;

/// A list that only grows: the last id is the current one.
pub(crate) struct Names {
    first: SessionId,
    renamed: OnceLock<Box<Names>>,
}

impl Names {
    pub(super) fn new(first: SessionId) -> Self {
        Self { first, renamed: OnceLock::new() }
    }

    /// The current id. For a session that was never renamed, this is one load of memory that is
    /// never written.
    pub(crate) fn last(&self) -> &SessionId {
        &self.last_entry().first
    }

    /// Whether this is the current id or an earlier one.
    pub(crate) fn has(&self, id: &SessionId) -> bool {
        self.first == *id || self.renamed.get().is_some_and(|renamed| renamed.has(id))
    }

    /// Appends the new id. Calls must not be concurrent; the registry's creation lock sees to that.
    pub(super) fn push(&self, id: SessionId) {
        let _ = self.last_entry().renamed.set(Box::new(Self::new(id)));
    }

    fn last_entry(&self) -> &Self {
        let mut names = self;
        while let Some(next) = names.renamed.get() {
            names = next;
        }
        names
    }
}
