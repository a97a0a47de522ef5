//! How many connections are open, in all and of one identity.

use std::sync::{
    Arc,
    atomic::{AtomicIsize, AtomicUsize, Ordering::SeqCst},
};

/// The connections of a whole client.
#[derive(Default)]
pub(super) struct Totals {
    /// All that are open or being opened.
    open: AtomicUsize,
    /// Those of identities that have not been let go. The others close as soon as they are done, whatever is done about them.
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

/// The connections of one identity.
pub(super) struct ConnectionCount {
    totals: Arc<Totals>,
    /// Far below nought once the identity was let go, and its connections count no more.
    open: AtomicIsize,
}

/// More connections than there can be.
const CLOSING: isize = isize::MIN / 2;

impl ConnectionCount {
    pub(super) fn new(totals: &Arc<Totals>) -> Arc<Self> {
        Arc::new(Self { totals: totals.clone(), open: AtomicIsize::new(0) })
    }

    pub(super) fn open(self: &Arc<Self>) -> OpenGuard {
        self.totals.open.fetch_add(1, SeqCst);
        if self.open.fetch_add(1, SeqCst) >= 0 {
            self.totals.live.fetch_add(1, SeqCst);
        }
        OpenGuard(self.clone())
    }

    /// Takes the connections out of the living ones.
    pub(super) fn close_when_idle(&self) {
        let open = self.open.swap(CLOSING, SeqCst);
        if open > 0 {
            self.totals.live.fetch_sub(open, SeqCst);
        }
    }
}

/// A connection, from before it is opened until after it is closed.
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
    fn those_let_go_are_open_and_count_no_more() {
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
