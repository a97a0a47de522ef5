//! The effects of one step: what changes under the gate's lock, and what happens after it.

use std::{sync::Arc, task::Waker, time::Duration};

use tokio::task::AbortHandle;

use super::{
    error::RenewalError,
    source::{AttemptContext, GateEvent, RenewalSource},
    state::{Attempt, CandidateBase, DiscardReason, EffectSink, Generation, VerificationId},
};
use crate::jitter::spread;

/// A change of values or tasks; they are applied in order, under the lock.
#[derive(Debug)]
pub(super) enum Effect {
    EndCurrent,
    NewPending,
    Candidate(Generation, CandidateBase),
    Discard(DiscardReason),
    Promote,
    Install,
    StartAttempt(Attempt, Generation),
    AbortAttempt,
    Verify(VerificationId),
}

/// Records the effects of one step.
pub(crate) struct Effects {
    has_rule: bool,
    can_verify: bool,
    random: u64,
    pub(super) list: Vec<Effect>,
    pub(super) wakes: Vec<Waker>,
    pub(super) dropped_wakers: Vec<Waker>,
    pub(super) dropped_errors: Vec<RenewalError>,
}

impl Effects {
    /// Creates the record for a step of `source`.
    pub(super) fn of<S: RenewalSource>(source: &S, random: u64) -> Self {
        Self {
            has_rule: source.has_rule(),
            can_verify: source.can_verify(),
            random,
            list: Vec::new(),
            wakes: Vec::new(),
            dropped_wakers: Vec::new(),
            dropped_errors: Vec::new(),
        }
    }
}

impl EffectSink for Effects {
    type Waker = Waker;
    type Error = RenewalError;

    fn has_rule(&self) -> bool {
        self.has_rule
    }
    fn can_verify(&self) -> bool {
        self.can_verify
    }
    fn end_current(&mut self) {
        self.list.push(Effect::EndCurrent);
    }
    fn new_pending(&mut self) {
        self.list.push(Effect::NewPending);
    }
    fn candidate(&mut self, generation: Generation, base: CandidateBase) {
        self.list.push(Effect::Candidate(generation, base));
    }
    fn discard(&mut self, reason: DiscardReason) {
        self.list.push(Effect::Discard(reason));
    }
    fn promote(&mut self) {
        self.list.push(Effect::Promote);
    }
    fn install(&mut self, _generation: Generation) {
        self.list.push(Effect::Install);
    }
    fn start_attempt(&mut self, attempt: Attempt, generation: Generation) {
        self.list.push(Effect::StartAttempt(attempt, generation));
    }
    fn abort_attempt(&mut self) {
        self.list.push(Effect::AbortAttempt);
    }
    fn verify(&mut self, _generation: Generation, id: VerificationId) {
        self.list.push(Effect::Verify(id));
    }
    fn wake(&mut self, waker: Waker) {
        self.wakes.push(waker);
    }
    fn drop_waker(&mut self, waker: Waker) {
        self.dropped_wakers.push(waker);
    }
    fn drop_error(&mut self, error: RenewalError) {
        self.dropped_errors.push(error);
    }
    fn random(&mut self) -> u64 {
        self.random = spread(self.random);
        self.random
    }
}

/// What happens after the lock is released, because it wakes tasks, calls back or drops values of
/// the user's.
pub(super) struct Deferred<S: RenewalSource> {
    pub(super) wakes: Vec<Waker>,
    pub(super) aborted_attempt: Option<AbortHandle>,
    pub(super) aborted_timer: Option<AbortHandle>,
    pub(super) events: Vec<GateEvent>,
    pub(super) dropped_values: Vec<Arc<S::Value>>,
    pub(super) dropped_request: Option<S::Request>,
    pub(super) dropped_attempt: Option<Box<AttemptContext<S>>>,
    pub(super) dropped_wakers: Vec<Waker>,
    pub(super) dropped_errors: Vec<RenewalError>,
    pub(super) timer: Option<TimerSetting>,
    pub(super) attempt: Option<AttemptContext<S>>,
    pub(super) verification: Option<(VerificationId, Arc<S::Value>)>,
}

/// The tasks that a step starts.
pub(super) struct Starts<S: RenewalSource> {
    pub(super) timer: Option<TimerSetting>,
    pub(super) attempt: Option<AttemptContext<S>>,
    pub(super) verification: Option<(VerificationId, Arc<S::Value>)>,
}

/// A timer to spawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimerSetting {
    /// When it fires, by the source's clock.
    pub(super) at: Duration,
    /// Distinguishes this setting of the timer from later ones.
    pub(super) number: u64,
}

impl<S: RenewalSource> Deferred<S> {
    pub(super) fn new() -> Self {
        Self {
            wakes: Vec::new(),
            aborted_attempt: None,
            aborted_timer: None,
            events: Vec::new(),
            dropped_values: Vec::new(),
            dropped_request: None,
            dropped_attempt: None,
            dropped_wakers: Vec::new(),
            dropped_errors: Vec::new(),
            timer: None,
            attempt: None,
            verification: None,
        }
    }

    /// Does all of it but the start of tasks, and returns those.
    pub(super) fn run(self, source: &Arc<S>) -> Starts<S> {
        for waker in self.wakes {
            waker.wake();
        }
        for handle in [self.aborted_attempt, self.aborted_timer].into_iter().flatten() {
            handle.abort();
        }
        for event in self.events {
            source.on_event(event);
        }
        Starts { timer: self.timer, attempt: self.attempt, verification: self.verification }
    }
}
