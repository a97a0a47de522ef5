//! The position of a waiting request in a queue of a pool.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    error::{PoolError, PoolErrorKind},
    lease::Lease,
    runtime::{PollResult, Pool},
    types::WaiterRef,
};
use crate::wait::{self, Place};

/// Resolves to a lease, or to the error that ends the wait.
pub(crate) type Wait = wait::Wait<PoolPlace>;

/// A position in a queue of a pool. Dropping it leaves the queue and returns a member that it was
/// given.
pub(crate) struct PoolPlace {
    pool: Arc<Pool>,
    waiter: Option<WaiterRef>,
}

impl Drop for PoolPlace {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.pool.leave(waiter);
        }
    }
}

/// Waits for a lease, at most for the pool's `max_wait`.
///
/// # Errors
///
/// Returns [`NoRuntime`](PoolErrorKind::NoRuntime) outside a runtime, where nothing would bound the
/// wait.
pub(crate) fn wait(pool: &Arc<Pool>, waiter: WaiterRef) -> Result<Wait, PoolError> {
    let place = PoolPlace { pool: pool.clone(), waiter: Some(waiter) };
    Wait::new(place, pool.settings.max_wait, None)
        .ok_or_else(|| PoolError::new(PoolErrorKind::NoRuntime, &pool.settings.name))
}

impl Place for PoolPlace {
    type Output = Result<Lease, PoolError>;

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiter = self.waiter.expect("polled after completion");
        let result = match self.pool.poll(waiter, context.waker()) {
            PollResult::Pending => return Poll::Pending,
            PollResult::Leased(key, session) => Ok(Lease::new(self.pool.clone(), key, session)),
            PollResult::Rejected(error) => Err(error),
        };
        self.waiter = None;
        Poll::Ready(result)
    }

    fn time_out(&mut self) -> Self::Output {
        if let Some(waiter) = self.waiter.take() {
            self.pool.time_out(waiter);
        }
        Err(PoolError::new(PoolErrorKind::TimedOut, &self.pool.settings.name))
    }
}
