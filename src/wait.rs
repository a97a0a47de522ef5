//! The future of a waiter: it resolves when its turn has come or its time is over.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::rt;

/// A place in a queue. Dropping it gives up the place.
pub(crate) trait Place {
    type Output;

    /// Returns the result and gives up the place, or stores the waker.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Self::Output>;

    /// Gives up the place because the wait took too long.
    fn time_out(&mut self) -> Self::Output;
}

pin_project! {
    /// Waits at a place for a limited time. It holds nothing but the place.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Wait<P> {
        place: P,
        until: Instant,
        #[pin]
        sleep: Sleep,
    }
}

impl<P: Place> Wait<P> {
    /// Waits for at most `max_wait`. The place is polled once more after `recheck`, if that is
    /// earlier.
    ///
    /// Returns `None` outside a runtime, where nothing would limit the wait.
    pub(crate) fn new(place: P, max_wait: Duration, recheck: Option<Duration>) -> Option<Self> {
        /// Longer than any wait, and short enough to be added to any instant.
        const FAR: Duration = Duration::from_secs(1 << 30);
        if !rt::is_available() {
            return None;
        }
        let now = Instant::now();
        let until = now.checked_add(max_wait).unwrap_or_else(|| now + FAR);
        let recheck = recheck.and_then(|delay| now.checked_add(delay));
        let sleep = sleep_until(recheck.map_or(until, |recheck| recheck.min(until)));
        Some(Self { place, until, sleep })
    }
}

impl<P: Place> Future for Wait<P> {
    type Output = P::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Poll::Ready(output) = this.place.poll(context) {
                return Poll::Ready(output);
            }
            ready!(this.sleep.as_mut().poll(context));
            if Instant::now() >= *this.until {
                return Poll::Ready(this.place.time_out());
            }
            this.sleep.as_mut().reset(*this.until);
        }
    }
}
