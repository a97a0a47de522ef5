//! A request that waits for a session.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::{
    error::{PoolError, PoolErrorKind},
    lease::Lease,
    runtime::{PollResult, Pool},
    types::WaiterRef,
};
use crate::gate::driver;

/// Longer than anybody waits, and short enough to be added to any moment.
const FAR: Duration = Duration::from_secs(1 << 30);

pin_project! {
    /// A waiter in a pool's line: resolves to a lease, or to the reason why there is none.
    ///
    /// It holds nothing but its waiter. Dropping it gives the waiter up, and with it a session that may have been given to it.
    pub(crate) struct Wait {
        pool: Arc<Pool>,
        waiter: Option<WaiterRef>,
        #[pin]
        sleep: Sleep,
    }

    impl PinnedDrop for Wait {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(waiter) = this.waiter.take() {
                this.pool.leave(waiter);
            }
        }
    }
}

impl Wait {
    /// Takes over a waiter in the line.
    ///
    /// # Errors
    ///
    /// Outside a runtime, where nothing would bound the wait.
    pub(crate) fn new(pool: Arc<Pool>, waiter: WaiterRef) -> Result<Self, PoolError> {
        if !driver::is_in_runtime() {
            pool.leave(waiter);
            return Err(PoolError::new(PoolErrorKind::NoRuntime, &pool.settings.name));
        }
        let since = Instant::now();
        let until = since.checked_add(pool.settings.max_wait).unwrap_or_else(|| since + FAR);
        let sleep = tokio::time::sleep_until(until);
        Ok(Self { pool, waiter: Some(waiter), sleep })
    }
}

impl Future for Wait {
    type Output = Result<Lease, PoolError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let waiter = this.waiter.expect("a wait is not polled after it has ended");
        match this.pool.poll(waiter, context.waker()) {
            PollResult::Leased(key, session) => {
                *this.waiter = None;
                Poll::Ready(Ok(Lease::new(this.pool.clone(), key, session)))
            }
            PollResult::Rejected(error) => {
                *this.waiter = None;
                Poll::Ready(Err(error))
            }
            PollResult::Pending => this.sleep.poll(context).map(|()| {
                let waiter = this.waiter.take().expect("it was there a line ago");
                this.pool.time_out(waiter);
                Err(PoolError::new(PoolErrorKind::TimedOut, &this.pool.settings.name))
            }),
        }
    }
}
