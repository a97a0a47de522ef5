//! `ConnectionCount`: counts open connections, of one identity and of a whole client.

use std::sync::{
    Arc,
    atomic::{AtomicIsize, AtomicUsize, Ordering::SeqCst},
};

/// Number of connections of a whole client.
#[derive(Default)]
pub(super) struct Totals {
    /// All connections, including those that are being opened.
    open: AtomicUsize,
    /// Connections that do not close when they become idle. Those of evicted identities do, so they
    /// need no eviction.
    live: AtomicIsize,
}

impl Totals {
    pub(super) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(SeqCst).max(0) as usize
    }
}

/// Evicts identities when there are too many connections.
pub(super) trait EvictIdle: Send + Sync {
    /// Called when the identity that `count` belongs to is about to open a connection.
    fn evict_idle(&self, count: &Arc<ConnectionCount>);
}

/// Number of connections of one identity.
pub(super) struct ConnectionCount {
    totals: Arc<Totals>,
    /// Starts again at [`CLOSING`], far below zero, when the connections are to close.
    open: AtomicIsize,
}

/// Below any count that open connections can raise to zero.
const CLOSING: isize = isize::MIN / 2;

impl ConnectionCount {
    pub(super) fn new(totals: &Arc<Totals>) -> Arc<Self> {
        Arc::new(Self { totals: totals.clone(), open: AtomicIsize::new(0) })
    }

    /// Counts a connection that is about to be opened.
    pub(super) fn open(self: &Arc<Self>) -> OpenGuard {
        self.totals.open.fetch_add(1, SeqCst);
        if self.open.fetch_add(1, SeqCst) >= 0 {
            self.totals.live.fetch_add(1, SeqCst);
        }
        OpenGuard(self.clone())
    }

    /// Removes the connections from the live ones, because they close when they become idle.
    pub(super) fn close_when_idle(&self) {
        let open = self.open.swap(CLOSING, SeqCst);
        if open > 0 {
            self.totals.live.fetch_sub(open, SeqCst);
        }
    }
}

/// Counts one connection, from before it is opened until after it is closed.
pub(super) struct OpenGuard(Arc<ConnectionCount>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let ConnectionCount { totals, open } = &*self.0;
        totals.open.fetch_sub(1, SeqCst);
        if open.fetch_sub(1, SeqCst) > 0 {
            totals.live.fetch_sub(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_connections_are_open_but_not_live() {
        let totals = Arc::<Totals>::default();
        let (a, b) = (ConnectionCount::new(&totals), ConnectionCount::new(&totals));
        let (first, second, third) = (a.open(), a.open(), b.open());
        assert_eq!((totals.open(), totals.live()), (3, 3));
        a.close_when_idle();
        assert_eq!((totals.open(), totals.live()), (3, 1));
        drop(first);
        let late = a.open();
        assert_eq!((totals.open(), totals.live()), (3, 1));
        drop((late, second, third));
        assert_eq!((totals.open(), totals.live()), (0, 0));
    }
}
