//! Handles to renewals: callers that wait for a result.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    error::{RenewalError, RenewalErrorKind},
    gate::{GateOwner, GateRef},
    state::Ended,
};
use crate::{rt, waiters::Ticket};

impl<S: GateOwner> GateRef<'_, S> {
    /// Starts a renewal, or joins the running one.
    pub(crate) fn renew(self) -> Result<ResultWaiter<S>, RenewalError> {
        self.start_renewal().map(|ticket| ResultWaiter::new(self.owner(), ticket))
    }

    /// Ends the current value and starts a renewal by `request`.
    pub(crate) fn renew_with(self, request: S::Request) -> Result<ResultWaiter<S>, RenewalError> {
        self.start_renewal_with(request).map(|ticket| ResultWaiter::new(self.owner(), ticket))
    }
}

/// A caller that waits for the result of a renewal. Dropping it cancels nothing.
#[must_use = "futures do nothing unless polled; the renewal runs without it"]
pub(crate) struct ResultWaiter<S: GateOwner> {
    source: Arc<S>,
    ticket: Option<Ticket>,
    /// Polls again when something is overdue: the runtime that has the gate's timer may no longer
    /// be driven.
    recheck: Option<Pin<Box<Sleep>>>,
}

impl<S: GateOwner> ResultWaiter<S> {
    fn new(source: &Arc<S>, ticket: Ticket) -> Self {
        Self { source: source.clone(), ticket: Some(ticket), recheck: None }
    }

    /// Ready when the gate's timer, which is due at `at` by the source's clock, is overdue.
    fn poll_recheck(&mut self, context: &mut Context<'_>, at: Option<Duration>) -> Poll<()> {
        /// The gate's own timer goes first.
        const GRACE: Duration = Duration::from_millis(100);
        let left = at.map(|at| at.saturating_sub(self.source.now()).saturating_add(GRACE));
        let Some(at) = left.and_then(|left| Instant::now().checked_add(left)) else {
            self.recheck = None;
            return Poll::Pending;
        };
        let recheck = self.recheck.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if recheck.deadline() != at && !recheck.is_elapsed() {
            recheck.as_mut().reset(at);
        }
        ready!(recheck.as_mut().poll(context));
        self.recheck = None;
        Poll::Ready(())
    }
}

impl<S: GateOwner> Future for ResultWaiter<S> {
    type Output = Result<u64, RenewalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let ticket = this.ticket.expect("polled after completion");
        let ended = loop {
            let mut waker = Some(context.waker().clone());
            let (ended, timer) = GateRef::new(&this.source).event(|inner, step| {
                let ended = inner.core.poll_result(step, ticket);
                if ended.is_none() {
                    std::mem::swap(inner.core.result_waker(ticket), &mut waker);
                }
                (ended, inner.core.next_timer())
            });
            drop(waker);
            if let Some(ended) = ended {
                break ended;
            }
            if !rt::is_available() {
                if this.source.gate().needs_runtime() {
                    // Nothing would ever wake this future.
                    return Poll::Ready(Err(RenewalError::new(RenewalErrorKind::NoRuntime)));
                }
                return Poll::Pending;
            }
            ready!(this.poll_recheck(context, timer));
            GateRef::new(&this.source).tick();
        };
        this.ticket = None;
        this.recheck = None;
        Poll::Ready(match ended {
            Ended::Renewed(generation) => Ok(generation.get()),
            Ended::Failed(error) => Err(error),
            Ended::Superseded => Err(RenewalError::new(RenewalErrorKind::Superseded)),
            Ended::Closed => Err(RenewalError::new(RenewalErrorKind::Closed)),
        })
    }
}

impl<S: GateOwner> Drop for ResultWaiter<S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let removed = self.source.gate().inner().lock().core.drop_result_waiter(ticket);
            drop(removed);
        }
    }
}

impl<S: GateOwner> fmt::Debug for ResultWaiter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultWaiter").finish_non_exhaustive()
    }
}

/// A renewal that was requested by `renew` or `renew_with`. It resolves to the new generation.
///
/// # Cancel safety
///
/// The renewal runs in its own task. Dropping the handle cancels nothing.
#[must_use = "futures do nothing unless polled; the renewal runs without it"]
pub struct RenewalHandle(Pin<Box<dyn Future<Output = Result<u64, RenewalError>> + Send + Sync>>);

impl RenewalHandle {
    pub(crate) fn new(waiter: ResultWaiter<impl GateOwner>) -> Self {
        Self(Box::pin(waiter))
    }

    /// Creates the handle of a renewal that could not be started.
    pub(crate) fn rejected(error: RenewalError) -> Self {
        Self(Box::pin(std::future::ready(Err(error))))
    }
}

impl Future for RenewalHandle {
    type Output = Result<u64, RenewalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for RenewalHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalHandle").finish_non_exhaustive()
    }
}
