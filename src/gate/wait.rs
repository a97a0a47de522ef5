//! The place of a waiting request in the queue of a gate.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    error::{RenewalError, RenewalErrorKind},
    gate::{GateOwner, GateRef},
    permit::{Admitted, RawPermit},
    state::{Charge, DoubtOutcome},
};
use crate::{
    wait::{self, Place},
    waiters::Ticket,
};

/// Resolves to a permit, or to the error that all waiters get.
pub(crate) type Wait<S> = wait::Wait<GatePlace<S>>;

/// A place in a gate's queue. Dropping it gives up the place, with any role given to it.
pub(crate) struct GatePlace<S: GateOwner> {
    source: Arc<S>,
    ticket: Option<Ticket>,
}

impl<S: GateOwner> Drop for GatePlace<S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            GateRef::new(&self.source).leave(ticket);
        }
    }
}

/// Waits at this place for at most `max_wait`.
///
/// # Errors
///
/// [`NoRuntime`](RenewalErrorKind::NoRuntime), outside a runtime.
pub(crate) fn wait<S: GateOwner>(
    source: &Arc<S>,
    ticket: Ticket,
    max_wait: Duration,
) -> Result<Wait<S>, RenewalError> {
    let place = GatePlace { source: source.clone(), ticket: Some(ticket) };
    // One poll after the running attempt has timed out: its runtime may no longer be driven.
    let recheck = source
        .gate()
        .attempt_deadline()
        .map(|deadline| deadline.saturating_sub(source.now()).saturating_add(Duration::from_millis(100)));
    Wait::new(place, max_wait, recheck).ok_or_else(|| RenewalError::new(RenewalErrorKind::NoRuntime))
}

/// Resolves when evidence has settled a doubt, or when none has come in time.
pub(crate) type DoubtWait<S> = wait::Wait<DoubtPlace<S>>;

/// A request in doubt. Dropping it ends the doubt.
pub(crate) struct DoubtPlace<S: GateOwner> {
    source: Arc<S>,
    ticket: Option<Ticket>,
    charge: Charge,
}

/// Waits for evidence for at most `max_wait`. Outside a runtime, the doubt ends and `None` is
/// returned.
pub(crate) fn wait_for_evidence<S: GateOwner>(
    source: &Arc<S>,
    ticket: Ticket,
    charge: Charge,
    max_wait: Duration,
) -> Option<DoubtWait<S>> {
    wait::Wait::new(DoubtPlace { source: source.clone(), ticket: Some(ticket), charge }, max_wait, None)
}

impl<S: GateOwner> Drop for DoubtPlace<S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            GateRef::new(&self.source).leave_doubt(ticket);
        }
    }
}

impl<S: GateOwner> Place for DoubtPlace<S> {
    type Output = DoubtOutcome;

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<DoubtOutcome> {
        let ticket = self.ticket.expect("polled after completion");
        match GateRef::new(&self.source).poll_doubt(ticket, context.waker()) {
            None => Poll::Pending,
            Some(outcome) => {
                self.ticket = None;
                Poll::Ready(outcome)
            }
        }
    }

    fn time_out(&mut self) -> DoubtOutcome {
        let ticket = self.ticket.take().expect("polled after completion");
        GateRef::new(&self.source).doubt_elapsed(ticket, self.charge)
    }
}

impl<S: GateOwner> Place for GatePlace<S> {
    type Output = Result<RawPermit<S>, RenewalError>;

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = self.ticket.expect("polled after completion");
        let result = match GateRef::new(&self.source).poll(ticket, context.waker()) {
            Admitted::Wait(_) => return Poll::Pending,
            Admitted::Pass(permit) => Ok(permit),
            Admitted::Refuse(error) => Err(error),
        };
        self.ticket = None;
        Poll::Ready(result)
    }

    fn time_out(&mut self) -> Self::Output {
        Err(RenewalError::new(RenewalErrorKind::WaitTimedOut))
    }
}
