//! A held request.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::{
    driver,
    error::{RenewalError, RenewalErrorKind},
    keeper::{Entry, Gate, Keeper, RawPermit},
    waiters::Ticket,
};

/// Longer than anybody waits, and short enough to be added to any moment.
const FAR: Duration = Duration::from_secs(1 << 30);

pin_project! {
    /// A place in a gate's line: resolves to a permit, or to the error that everybody gets.
    ///
    /// It holds nothing but its place. Dropping it gives the place up, and with it a role that may have been given to it.
    pub(crate) struct Wait<K: Keeper> {
        keeper: Arc<K>,
        ticket: Option<Ticket>,
        until: Instant,
        #[pin]
        sleep: Sleep,
    }

    impl<K: Keeper> PinnedDrop for Wait<K> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(ticket) = this.ticket.take() {
                Gate::leave(this.keeper, ticket);
            }
        }
    }
}

impl<K: Keeper> Wait<K> {
    /// Takes over a place in the line, for at most `hold`.
    ///
    /// # Errors
    ///
    /// Outside a runtime, where nothing would bound the wait.
    pub(crate) fn new(keeper: Arc<K>, ticket: Ticket, hold: Duration) -> Result<Self, RenewalError> {
        if !driver::is_in_runtime() {
            Gate::leave(&keeper, ticket);
            return Err(RenewalError::new(RenewalErrorKind::NoRuntime));
        }
        let now = Instant::now();
        let until = now.checked_add(hold).unwrap_or_else(|| now + FAR);
        // One look when the running attempt is overdue: its own runtime may be the reason.
        let overdue = keeper.gate().attempt_timeout().and_then(|deadline| {
            let left = deadline.saturating_sub(keeper.now());
            now.checked_add(left)?.checked_add(Duration::from_millis(100))
        });
        let sleep = tokio::time::sleep_until(overdue.map_or(until, |overdue| overdue.min(until)));
        Ok(Self { keeper, ticket: Some(ticket), until, sleep })
    }
}

impl<K: Keeper> Future for Wait<K> {
    type Output = Result<RawPermit<K>, RenewalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let ticket = this.ticket.expect("a wait is not polled after it has ended");
            match Gate::poll(this.keeper, ticket, context.waker()) {
                Entry::Pass(permit) => {
                    *this.ticket = None;
                    return Poll::Ready(Ok(permit));
                }
                Entry::Refuse(error) => {
                    *this.ticket = None;
                    return Poll::Ready(Err(error));
                }
                Entry::Wait(again) => *this.ticket = Some(again),
            }
            ready!(this.sleep.as_mut().poll(context));
            if Instant::now() >= *this.until {
                return Poll::Ready(Err(RenewalError::new(RenewalErrorKind::WaitTimedOut)));
            }
            this.sleep.as_mut().reset(*this.until);
        }
    }
}
