//! Permits: how a request passes a gate, counts its use of the value, and reports its response.

use std::{sync::Arc, task::Waker};

use super::{
    error::{RenewalError, RenewalErrorKind},
    gate::{GateOwner, GateRef},
    source::RenewalReason,
    state::{
        Admission, Arrival, Attempt, Charge, DoubtOutcome, Epoch, Generation, Grant, Refusal, Rejection,
        ReportOutcome,
    },
    sync::Ordering,
    version::UsageLimits,
};
use crate::waiters::Ticket;

/// The permission to send under one value. Dropping it gives up its role, if it has one.
pub(crate) struct RawPermit<S: GateOwner> {
    pub(crate) value: Arc<S::Value>,
    role: Option<Role<S>>,
    /// When the request was sent, relative to the doubts of the value.
    epoch: Epoch,
}

/// The right of one request to act for the others, until it reports or is dropped.
struct Role<S: GateOwner> {
    source: Arc<S>,
    /// `None` once the role has been used.
    attempt: Option<Attempt>,
}

impl<S: GateOwner> Drop for Role<S> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            GateRef::new(&self.source).event(|inner, step| inner.core.drop_role(step, attempt));
        }
    }
}

impl<S: GateOwner> RawPermit<S> {
    /// Creates a permit without a role.
    pub(crate) const fn plain(value: Arc<S::Value>) -> Self {
        Self { value, role: None, epoch: Epoch(0) }
    }

    fn grant(&self) -> Grant {
        Grant {
            generation: S::version(&self.value).generation,
            role: self.role.as_ref().and_then(|role| role.attempt),
        }
    }

    /// Marks the role as used: dropping it gives up nothing.
    fn disarm(&mut self) {
        if let Some(role) = &mut self.role {
            role.attempt = None;
        }
    }

    /// Returns the owner of the gate that the role is for, if there is one.
    pub(super) fn role_owner(&self) -> Option<Arc<S>> {
        self.role.as_ref().map(|role| role.source.clone())
    }

    /// Returns whether this request acts for the others.
    pub(crate) fn has_role(&self) -> bool {
        self.role.is_some()
    }
}

/// The result of an admission or of a poll.
pub(crate) enum Admitted<S: GateOwner> {
    Pass(RawPermit<S>),
    Wait(Ticket),
    Refuse(RenewalError),
}

/// An admission with its value, both from the same moment.
enum Polled<S: GateOwner> {
    Pass(Arc<S::Value>, Grant),
    Wait(Ticket),
    Refuse(Refusal<RenewalError>),
}

impl<S: GateOwner> Polled<S> {
    fn admitted(self, source: &Arc<S>) -> Admitted<S> {
        match self {
            Self::Wait(ticket) => Admitted::Wait(ticket),
            Self::Pass(value, grant) => {
                let role = grant.role.map(|attempt| Role { source: source.clone(), attempt: Some(attempt) });
                Admitted::Pass(RawPermit { value, role, epoch: Epoch::default() })
            }
            Self::Refuse(Refusal::Closed) => Admitted::Refuse(RenewalError::new(RenewalErrorKind::Closed)),
            Self::Refuse(Refusal::Overloaded) => {
                Admitted::Refuse(RenewalError::new(RenewalErrorKind::QueueFull))
            }
            Self::Refuse(Refusal::Failed(error)) => Admitted::Refuse(error),
        }
    }
}

/// Admission and waiting.
impl<S: GateOwner> GateRef<'_, S> {
    pub(crate) fn admit(self, arrival: Arrival) -> Admitted<S> {
        if let Some(value) = self.published() {
            return Admitted::Pass(RawPermit::plain(value));
        }
        let polled = self.event_and(
            |inner, step| inner.core.admit(step, arrival),
            |inner, admission| match admission {
                Admission::Pass(grant) => Polled::Pass(inner.value(grant), grant),
                Admission::Wait(ticket) => Polled::Wait(ticket),
                Admission::Refuse(refusal) => Polled::Refuse(refusal),
            },
        );
        polled.admitted(self.owner())
    }

    /// Polls a waiter. `Wait` means that `waker` was stored.
    pub(crate) fn poll(self, ticket: Ticket, waker: &Waker) -> Admitted<S> {
        if let Some(value) = self.release_fast(ticket) {
            return Admitted::Pass(RawPermit::plain(value));
        }
        // Cloned, and the old one dropped, outside the lock.
        let mut waker = Some(waker.clone());
        let polled = self.event_and(
            |inner, step| {
                let result = inner.core.poll(step, ticket);
                if result.is_none() {
                    std::mem::swap(inner.core.waker(ticket), &mut waker);
                }
                result
            },
            |inner, result| match result {
                None => Polled::Wait(ticket),
                Some(Ok(grant)) => Polled::Pass(inner.value(grant), grant),
                Some(Err(refusal)) => Polled::Refuse(refusal),
            },
        );
        drop(waker);
        polled.admitted(self.owner())
    }

    /// Releases a waiter of an open gate without an event, because there is nothing to decide. Many
    /// waiters pass this way after a renewal.
    fn release_fast(self, ticket: Ticket) -> Option<Arc<S::Value>> {
        let (value, waker) = {
            let mut inner = self.inner().lock();
            let waker = inner.core.release_fast(ticket)?;
            (inner.open_value(), waker)
        };
        drop(waker);
        Some(value)
    }

    /// Removes a waiter.
    pub(crate) fn leave(self, ticket: Ticket) {
        self.event(|inner, step| inner.core.drop_waiter(step, ticket));
    }
}

/// The use of a permit.
impl<S: GateOwner> GateRef<'_, S> {
    /// Returns whether a request may still be sent under this permit.
    pub(crate) fn is_valid(self, permit: &RawPermit<S>) -> bool {
        S::version(&permit.value).is_current()
            || (permit.has_role() && self.inner().lock().core.may_send(permit.grant()))
    }

    /// Counts one use of this permit's value. `false` means that the value has ended or is used up,
    /// and that the request has to be admitted again.
    pub(crate) fn count_use(self, permit: &mut RawPermit<S>, limits: &UsageLimits) -> bool {
        if !self.is_valid(permit) {
            return false;
        }
        let source = self.owner();
        let version = S::version(&permit.value);
        let mut is_early = false;
        // The candidate of a leading request is as old as the lead, which has its own timeout.
        if let Some(max_age) = limits.age.filter(|_| version.is_current()) {
            let age = source.now().saturating_sub(version.created_at);
            if age >= max_age {
                self.limit_reached(version.generation);
                return false;
            }
            is_early = age.as_secs_f64() >= UsageLimits::early(max_age.as_secs_f64(), version.jitter());
        }
        match limits.uses {
            None => {
                version.uses.fetch_add(1, Ordering::Relaxed);
            }
            Some(max_uses) => {
                let allowed = version.allowance.limit(max_uses);
                let counted = version.uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| {
                    (uses < allowed).then_some(uses + 1)
                });
                let Ok(before) = counted else {
                    self.limit_reached(version.generation);
                    return false;
                };
                let uses = before + 1;
                if version.allowance.is_low(uses) {
                    source.on_allowance_low(&permit.value);
                }
                is_early |=
                    uses as f64 >= UsageLimits::early(max_uses as f64, version.jitter()) && uses < max_uses;
            }
        }
        let epoch = version.epoch();
        if is_early {
            self.renew_early(version);
        }
        permit.epoch = epoch;
        true
    }

    fn limit_reached(self, generation: Generation) {
        self.event(|inner, step| {
            if inner.core.current() == Some(generation) {
                inner.reason = RenewalReason::LimitReached;
            }
            inner.core.limit_reached(step, generation);
        });
    }

    /// Reports that a response was accepted. An event is needed only if other requests wait for it.
    pub(crate) fn report_good(self, permit: &mut RawPermit<S>) {
        let is_awaited = S::version(&permit.value).prove();
        if is_awaited || permit.has_role() {
            let (grant, epoch) = (permit.grant(), permit.epoch);
            self.event(|inner, step| inner.core.report_good(step, grant, epoch));
            permit.disarm();
        }
    }

    /// Reports that a response was rejected: it looks as if the session has expired. The caller
    /// keeps the permit, without its role.
    pub(crate) fn report_rejected(self, permit: &mut RawPermit<S>, rejection: Rejection) -> ReportOutcome {
        let grant = permit.grant();
        let outcome = self.reject(grant, rejection);
        permit.disarm();
        outcome
    }

    /// Like [`report_rejected`](Self::report_rejected), for a permit that others still use.
    pub(super) fn report_first_rejection(self, permit: &RawPermit<S>) -> ReportOutcome {
        self.reject(permit.grant(), Rejection::First)
    }

    fn reject(self, grant: Grant, rejection: Rejection) -> ReportOutcome {
        self.event(|inner, step| {
            if inner.core.current() == Some(grant.generation) {
                inner.reason = RenewalReason::Expired;
            }
            inner.core.report_rejected(step, grant, rejection)
        })
    }

    /// Polls a request that is in doubt. `None` means that `waker` was stored.
    pub(super) fn poll_doubt(self, ticket: Ticket, waker: &Waker) -> Option<DoubtOutcome> {
        // Cloned, and the old one dropped, outside the lock.
        let mut waker = Some(waker.clone());
        let outcome = {
            let mut inner = self.inner().lock();
            let outcome = inner.core.poll_doubt(ticket);
            if outcome.is_none() {
                std::mem::swap(inner.core.doubt_waker(ticket), &mut waker);
            }
            outcome
        };
        drop(waker);
        outcome
    }

    /// No evidence about a request in doubt came in time.
    pub(super) fn doubt_elapsed(self, ticket: Ticket, charge: Charge) -> DoubtOutcome {
        self.event(|inner, step| {
            if inner.core.current().is_some() {
                inner.reason = RenewalReason::Expired;
            }
            inner.core.doubt_elapsed(step, ticket, charge)
        })
    }

    /// The verification of a request in doubt has failed.
    pub(crate) fn unverified(self, generation: Generation, charge: Charge) -> DoubtOutcome {
        self.event(|inner, step| {
            if inner.core.current() == Some(generation) {
                inner.reason = RenewalReason::Expired;
            }
            inner.core.unverified(step, generation, charge)
        })
    }

    /// Removes a request that is in doubt.
    pub(super) fn leave_doubt(self, ticket: Ticket) {
        self.event(|inner, step| inner.core.drop_doubt(step, ticket));
    }

    /// Reports that a request failed without a response.
    pub(crate) fn report_error(self, mut permit: RawPermit<S>) {
        if permit.has_role() {
            let grant = permit.grant();
            self.event(|inner, step| inner.core.report_error(step, grant));
            permit.disarm();
        }
    }
}
