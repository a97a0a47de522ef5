//! Evidence: what proves that a value still works after the server has rejected a request.
//!
//! A rejection proves nothing by itself, because a server may reject one page whatever the session.
//! Nor does it help that the value has served other requests, before or after the rejected one was
//! sent: a session can end between two requests that overtake each other. Only an accepted response
//! to a request that was sent after the rejection had *arrived* proves that the value still works.
//!
//! The first rejection of a request therefore starts a renewal. A request that is rejected again is
//! *in doubt*: nothing ends, and the request waits for evidence. Without evidence, each request may
//! end at most one value, so that the renewals never outnumber the requests that were rejected.

use super::{
    Core, DoubtOutcome, EffectSink, EndCause, Epoch, Generation, Origin, ReportOutcome, State, Step,
    VerificationId,
};
use crate::waiters::Ticket;

/// Whether a request that is in doubt may end the value when no evidence comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Charge {
    /// It has not caused a renewal yet.
    Free,
    /// One of its rejections has caused a renewal.
    Used,
}

/// What a verification found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verified {
    /// The server accepts the value.
    Accepted,
    /// The server rejects the value.
    Rejected,
    /// The verification has no result, which proves nothing about the value.
    Failed,
}

impl<S: EffectSink> Core<S> {
    /// Returns the epoch that a send gets now.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns whether a request is in doubt.
    pub(crate) fn has_doubts(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// A request was accepted under this generation. If it is current, its renewal was a success.
    pub(crate) fn prove(&mut self, generation: Generation) {
        if self.current == Some(generation) && !self.is_proven {
            self.is_proven = true;
            self.failures = 0;
            self.failed_periods = 0;
            self.recent_starts.clear();
        }
    }

    /// A request that was sent in `epoch` was accepted: the doubts that were raised before its send
    /// are settled.
    pub(super) fn accepted(&mut self, step: &mut Step<'_, S>, generation: Generation, epoch: Epoch) {
        self.prove(generation);
        if self.current == Some(generation) {
            self.settle_doubts(step, epoch, DoubtOutcome::Accepted);
        }
    }

    /// A request waits for evidence, or for the verification.
    pub(super) fn doubt(&mut self, step: &mut Step<'_, S>) -> ReportOutcome {
        if self.doubts.len() >= step.limits.max_waiting {
            return ReportOutcome::Kept;
        }
        self.epoch = Epoch(self.epoch.0 + 1);
        let ticket = self.doubts.push_with(self.epoch);
        if step.effects.can_verify() && self.verification.is_none() {
            self.start_verification(step);
        }
        ReportOutcome::InDoubt(ticket)
    }

    /// The current value is taken for expired.
    pub(super) fn expire(&mut self, step: &mut Step<'_, S>) -> ReportOutcome {
        let is_running = matches!(self.state, State::Overlap);
        if self.is_proven && !is_running && self.is_cap_reached(step) {
            return ReportOutcome::Kept;
        }
        self.invalidate(step, EndCause::Rejected);
        ReportOutcome::Ended
    }

    /// Returns how a doubt ended. `None` means that the request keeps waiting and that its waker
    /// should be stored.
    ///
    /// A result frees the slot: the ticket must not be used again.
    pub(crate) fn poll_doubt(&mut self, ticket: Ticket) -> Option<DoubtOutcome> {
        self.doubts
            .has_outcome(ticket)
            .then(|| self.doubts.remove(ticket).1.expect("it was there a line ago"))
    }

    /// No evidence came in time. Frees the slot.
    pub(crate) fn doubt_elapsed(
        &mut self,
        step: &mut Step<'_, S>,
        ticket: Ticket,
        charge: Charge,
    ) -> DoubtOutcome {
        let (waker, outcome) = self.doubts.remove(ticket);
        if let Some(waker) = waker {
            step.effects.drop_waker(waker);
        }
        match outcome {
            Some(DoubtOutcome::Unverified) | None => self.without_evidence(step, charge),
            Some(outcome) => outcome,
        }
    }

    /// The verification of a request in doubt has failed. `generation` is the one that was
    /// rejected.
    pub(crate) fn unverified(
        &mut self,
        step: &mut Step<'_, S>,
        generation: Generation,
        charge: Charge,
    ) -> DoubtOutcome {
        if self.current != Some(generation) {
            return DoubtOutcome::Ended;
        }
        self.without_evidence(step, charge)
    }

    fn without_evidence(&mut self, step: &mut Step<'_, S>, charge: Charge) -> DoubtOutcome {
        // A renewal has not helped this request, and no other request shows that another one would.
        // If many requests of one page are left, each would end a value, and the renewals would
        // count as failures.
        let is_pointless = self.is_renewed && !self.is_proven && !step.effects.can_verify();
        match charge {
            Charge::Free if self.current.is_none() => DoubtOutcome::Ended,
            Charge::Free if is_pointless => DoubtOutcome::Kept,
            Charge::Free if self.expire(step) == ReportOutcome::Ended => DoubtOutcome::Declared,
            _ => DoubtOutcome::Kept,
        }
    }

    /// A request that is in doubt is dropped.
    pub(crate) fn drop_doubt(&mut self, step: &mut Step<'_, S>, ticket: Ticket) {
        if let Some(waker) = self.doubts.remove(ticket).0 {
            step.effects.drop_waker(waker);
        }
    }

    pub(crate) fn doubt_waker(&mut self, ticket: Ticket) -> &mut Option<S::Waker> {
        self.doubts.waker_mut(ticket)
    }

    /// Returns whether this verification runs.
    pub(crate) fn verifies(&self, id: VerificationId) -> bool {
        self.verification.is_some_and(|(running, _)| running == id)
    }

    /// A verification has ended. One that was about an earlier value is ignored.
    pub(crate) fn verified(&mut self, step: &mut Step<'_, S>, id: VerificationId, result: Verified) {
        let Some((_, epoch)) = self.verification.take_if(|(running, _)| *running == id) else {
            return;
        };
        let Some(generation) = self.current else {
            return;
        };
        match result {
            Verified::Accepted => {
                self.accepted(step, generation, epoch);
                if self.has_doubts() {
                    // They were raised after the verification was sent.
                    self.start_verification(step);
                }
            }
            Verified::Rejected => {
                if self.expire(step) == ReportOutcome::Kept {
                    let newest = self.epoch;
                    self.settle_doubts(step, newest, DoubtOutcome::Kept);
                }
            }
            Verified::Failed => {
                let newest = self.epoch;
                self.settle_doubts(step, newest, DoubtOutcome::Unverified);
            }
        }
    }

    fn start_verification(&mut self, step: &mut Step<'_, S>) {
        let generation = self.current.expect("a doubt is about the current value");
        self.last_verification = VerificationId(self.last_verification.0 + 1);
        self.verification = Some((self.last_verification, self.epoch));
        step.effects.verify(generation, self.last_verification);
    }

    /// Another value has become current.
    pub(super) fn replaced(&mut self, step: &mut Step<'_, S>, origin: Origin) {
        self.end_doubts(step, DoubtOutcome::Ended);
        self.is_renewed = origin == Origin::Renewal;
        self.is_proven = false;
    }

    /// The current value is the result of another process's renewal: if the server rejects it, no
    /// renewal of this gate has failed.
    pub(crate) fn not_renewed_here(&mut self) {
        self.is_renewed = false;
    }

    /// Ends all doubts, and forgets the verification.
    pub(super) fn end_doubts(&mut self, step: &mut Step<'_, S>, outcome: DoubtOutcome) {
        self.verification = None;
        self.doubts.end_all(|| outcome, |waker| step.effects.wake(waker));
    }

    /// Ends the doubts that were raised up to `epoch`.
    fn settle_doubts(&mut self, step: &mut Step<'_, S>, epoch: Epoch, outcome: DoubtOutcome) {
        while let Some(oldest) = self.doubts.oldest().filter(|oldest| *self.doubts.note(*oldest) <= epoch) {
            if let Some(waker) = self.doubts.end(oldest, outcome) {
                step.effects.wake(waker);
            }
        }
    }
}
