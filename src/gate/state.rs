//! The state machine of a gate: every state against every event, as plain data.
//!
//! Nothing here waits, reads a clock or uses a runtime. Each event carries the time as a
//! [`Duration`] since an origin that the caller chooses, and is applied in one step. What has to
//! happen to values, wakers and tasks goes to an [`EffectSink`]. A sink only records, because it is
//! called in the middle of a step.
//!
//! A *role* is the right of one request to act for the others: to lead (its response decides
//! whether the pending value becomes current) or to probe (it is sent first after a renewal). Roles
//! and tasks carry the number of the attempt under which they were granted. Every cancellation
//! increments the number, and whatever carries an older one is ignored. Nothing else is compared.

use std::{collections::VecDeque, fmt, num::NonZeroU64, time::Duration};

use crate::{
    backoff::{doubled, jittered},
    waiters::{self, Ticket},
};

/// The number of a value within its gate; it only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(u64);

impl Generation {
    /// The generation of the value that a gate starts with.
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number, as the public API has it.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an attempt or of a role; it only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Attempt(NonZeroU64);

impl Attempt {
    const FIRST: Self = Self(NonZeroU64::MIN);

    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Waiting requests, each with the attempt under which it was given a role or a turn.
type Waiters<W, E> = waiters::Waiters<W, E, Option<Attempt>>;

/// A failure that the state machine itself detects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CoreError {
    /// The attempt timed out.
    TimedOut,
    /// More renewals were started in one window than allowed.
    TooManyRenewals,
    /// The leading request failed, or its response says that the session has expired.
    LeaderFailed,
    /// The renewal's own result was classified as expired, or no request is left to lead.
    Aborted,
    /// The renewed value was rejected before any request was accepted under it.
    Rejected,
}

/// Orders sends after doubts: a send has the number of the last doubt of its generation that was
/// raised before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch(pub(super) u64);

/// The number of a verification; it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct VerificationId(u64);

/// On what a candidate is based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CandidateBase {
    /// The pending value, with the edits made to it.
    Pending,
    /// Nothing: the current value stays in use while the attempt runs.
    New,
}

/// Why a candidate is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiscardReason {
    /// Its attempt failed.
    Failed,
    /// Its attempt was cancelled.
    Cancelled,
}

/// Records what a step asks for; the owner acts after it has released its lock.
pub(crate) trait EffectSink {
    /// Wakes a waiting task.
    type Waker;
    /// The error that waiters share.
    type Error: Clone + From<CoreError>;

    /// Whether a rule exists that can renew without a leading request.
    fn has_rule(&self) -> bool;
    /// Whether a request exists that asks the server whether the current value still works.
    fn can_verify(&self) -> bool;
    /// The current value has ended; no request may be sent under it any more.
    fn end_current(&mut self);
    /// A new pending value is made. A running candidate, if there is one, replaces it at a commit.
    fn new_pending(&mut self);
    /// A candidate is made.
    fn candidate(&mut self, generation: Generation, base: CandidateBase);
    /// The candidate is dropped.
    fn discard(&mut self, reason: DiscardReason);
    /// The candidate becomes current. The previous current value is superseded, not ended.
    fn promote(&mut self);
    /// A value given by the caller becomes current.
    fn install(&mut self, generation: Generation);
    /// A task is needed to run this attempt.
    fn start_attempt(&mut self, attempt: Attempt, generation: Generation);
    /// The task of the running attempt is no longer needed.
    fn abort_attempt(&mut self);
    /// A task is needed to verify the current value.
    fn verify(&mut self, generation: Generation, id: VerificationId);
    /// Wakes a task.
    fn wake(&mut self, waker: Self::Waker);
    /// Drops the waker of a task that was polled anyway.
    fn drop_waker(&mut self, waker: Self::Waker);
    /// Drops an error that no caller will read. Its source may be a type of the user's, whose drop
    /// must not run under the lock.
    fn drop_error(&mut self, error: Self::Error);
    /// Returns a random number.
    fn random(&mut self) -> u64;
}

/// What every event gets: the sink, the limits and the time.
pub(crate) struct Step<'a, S> {
    pub(crate) effects: &'a mut S,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Duration,
}

impl<S> Step<'_, S> {
    /// The time `delay` after this event.
    fn after(&self, delay: Duration) -> Duration {
        self.now.saturating_add(delay)
    }
}

/// The limits of one gate.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Consecutive transient failures before waiters get the error.
    pub(crate) max_attempts: u32,
    /// Renewals started within [`start_window`](Self::start_window).
    pub(crate) max_starts: usize,
    pub(crate) start_window: Duration,
    /// Requests that may wait.
    pub(crate) max_waiting: usize,
    /// How long one attempt may take.
    pub(crate) attempt_timeout: Duration,
    /// The ceiling of the first pause between attempts; it doubles with each failure.
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    /// How long the gate stays failed before one request may try again; it doubles each time.
    pub(crate) failed_backoff: Duration,
    pub(crate) failed_backoff_max: Duration,
    /// How long after a failed early renewal no limit starts another.
    pub(crate) cooldown: Duration,
    /// How long a waiter may leave a role unused.
    pub(crate) role_timeout: Duration,
    pub(crate) release: Release,
}

/// How waiting requests are released after a renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Release {
    /// All together, in order of arrival. The default.
    #[default]
    All,
    /// One goes first. The rest follow once its response shows that the session has not expired.
    ProbeFirst,
    /// `burst` requests together, then `burst` more after each `every`.
    Staggered {
        /// The number of requests per burst; at least 1.
        burst: usize,
        /// The pause between two bursts.
        every: Duration,
    },
}

/// Whether a request asks for admission for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    First,
    /// It was admitted before; it waits ahead of requests that were not.
    Returning,
}

/// The permission to send under one generation, with its role if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) generation: Generation,
    pub(crate) role: Option<Attempt>,
}

/// The result of an admission.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<E> {
    Pass(Grant),
    Wait(Ticket),
    Refuse(Refusal<E>),
}

/// Why a request was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal<E> {
    Closed,
    Overloaded,
    Failed(E),
}

/// Which rejection of one request is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rejection {
    /// The request was not rejected before.
    First,
    /// The request was rejected under an earlier generation, too.
    Repeated,
}

/// How the gate took the report of a rejected response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportOutcome {
    /// The value has ended because of this report, or the report came from the leader.
    Ended,
    /// The report was about a value that is no longer current; nothing changed.
    Stale,
    /// The rejection proves nothing yet. The request waits for evidence.
    InDoubt(Ticket),
    /// The value stays current, although the server rejected it: too many renewals were started, or
    /// too many requests are in doubt.
    Kept,
}

/// How a doubt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DoubtOutcome {
    /// A request that was sent later was accepted: the rejection concerns its own request only.
    Accepted,
    /// The value is no longer current.
    Ended,
    /// No evidence came in time, and this request has ended the value.
    Declared,
    /// No evidence came in time, or no renewal may start. The value stays current.
    Kept,
    /// The verification failed: the request decides as if no evidence had come in time.
    Unverified,
}

/// How an attempt failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure<E> {
    pub(crate) kind: FailureKind,
    pub(crate) error: E,
}

impl<E> Failure<E> {
    pub(crate) fn transient(error: E) -> Self {
        Self { kind: FailureKind::Transient, error }
    }

    pub(crate) fn permanent(error: E) -> Self {
        Self { kind: FailureKind::Permanent, error }
    }
}

/// Whether the gate retries after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Transient,
    Permanent,
}

/// How a renewal ended for a caller that started or joined it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended<E> {
    Renewed(Generation),
    Failed(E),
    /// A `clear`, `replace` or `renew_with` came first.
    Superseded,
    Closed,
}

/// Why a call had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ignored {
    Closed,
    NoRule,
}

/// The state of a gate. `Core::current` is set exactly in `Open`, `Cooldown`, `Overlap`, `Probe`
/// and `Stagger`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State<E> {
    /// All requests pass.
    Open,
    /// All requests pass; no limit starts a renewal before `until`.
    Cooldown {
        until: Duration,
        permanent_error: Option<E>,
    },
    /// All requests pass while an attempt runs.
    Overlap,
    /// The waiters are released in order, behind a probe; new requests wait behind them.
    Probe {
        taken: bool,
    },
    /// The waiters are released in bursts; new requests wait behind them.
    Stagger {
        next: Duration,
    },
    /// No attempt runs and no request waits.
    Pending,
    /// An attempt runs and all requests wait.
    Hold,
    /// One request is sent under the candidate and all others wait.
    Lead {
        taken: bool,
    },
    /// An attempt failed; the next one starts at `until` if a request waits for it.
    Backoff {
        until: Duration,
    },
    /// The attempts failed permanently, or too often. From `retry_at` on, one admission may try
    /// again.
    Failed {
        error: E,
        retry_at: Option<Duration>,
    },
    Closed,
}

/// How the pending value is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// By the rule or, without one, by a leading request.
    Standard,
    /// By the request that was given to `renew_with`.
    Explicit,
}

/// Who is served while an attempt runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The current value stays in use.
    Overlap,
    /// All requests wait. If the attempt needs a leader, it is the oldest waiter.
    Hold,
    /// The calling admission leads.
    CallerLeads,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Renewal,
    Caller,
}

/// Why the current value ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndCause {
    Rejected,
    Limit,
}

/// The state of one gate, with its waiters.
#[derive(Clone)]
pub(crate) struct Core<S: EffectSink> {
    state: State<S::Error>,
    current: Option<Generation>,
    candidate: Option<Generation>,
    last: Generation,
    attempt: Attempt,
    source: Source,
    /// When the running attempt, or an unused role, times out.
    deadline: Duration,
    /// Attempts that failed since a request was last accepted, an explicit call or a pause.
    failures: u32,
    /// How often the gate became `Failed` since the last success.
    failed_periods: u32,
    /// When the renewals of the current window were started that no accepted request has followed.
    recent_starts: VecDeque<Duration>,
    waiters: Waiters<S::Waker, S::Error>,
    /// Callers that wait for the result of a renewal.
    result_waiters: Waiters<S::Waker, Ended<S::Error>>,
    /// Whether the current value comes from a renewal of this gate.
    is_renewed: bool,
    /// Whether a request was accepted under the current value.
    is_proven: bool,
    /// Requests that were rejected and wait for evidence, each with the epoch of its doubt. All of
    /// them were sent under the current value.
    doubts: waiters::Waiters<S::Waker, DoubtOutcome, Epoch>,
    /// The epoch of the last doubt.
    epoch: Epoch,
    /// The running verification, with the last doubt that it can decide.
    verification: Option<(VerificationId, Epoch)>,
    last_verification: VerificationId,
}

impl<S: EffectSink> Core<S> {
    /// Creates an open gate, with generation 1 as current.
    pub(crate) fn initially_open() -> Self {
        Self::new(State::Open, Some(Generation::FIRST))
    }

    /// Creates a pending gate without a current value. The first admission starts the rule, or
    /// leads.
    pub(crate) fn initially_pending() -> Self {
        Self::new(State::Pending, None)
    }

    fn new(state: State<S::Error>, current: Option<Generation>) -> Self {
        Self {
            state,
            current,
            candidate: None,
            last: Generation::FIRST,
            attempt: Attempt::FIRST,
            source: Source::Standard,
            deadline: Duration::ZERO,
            failures: 0,
            failed_periods: 0,
            recent_starts: VecDeque::new(),
            waiters: Waiters::new(),
            result_waiters: Waiters::new(),
            is_renewed: false,
            is_proven: false,
            doubts: waiters::Waiters::new(),
            epoch: Epoch::default(),
            verification: None,
            last_verification: VerificationId::default(),
        }
    }

    /// Sets the newest generation that was used before.
    pub(crate) fn continuing_from(mut self, last: Generation) -> Self {
        self.last = last.max(Generation::FIRST);
        self.current = self.current.map(|_| self.last);
        self
    }

    pub(crate) fn current(&self) -> Option<Generation> {
        self.current
    }

    /// Returns the newest generation that was used.
    #[cfg(feature = "serde")]
    pub(crate) fn last(&self) -> Generation {
        self.last
    }

    pub(crate) fn state(&self) -> &State<S::Error> {
        &self.state
    }

    /// Returns the number of waiting requests.
    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Returns whether every request passes without a decision. The published pointer is set
    /// exactly then.
    pub(crate) fn admits_all(&self) -> bool {
        matches!(self.state, State::Open | State::Cooldown { .. } | State::Overlap)
    }

    /// Returns whether the gate may be dropped: no caller waits, no attempt runs, and no further
    /// attempt is due.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiters.is_empty()
            && self.result_waiters.is_empty()
            && self.doubts.is_empty()
            && !matches!(
                self.state,
                State::Overlap
                    | State::Probe { .. }
                    | State::Stagger { .. }
                    | State::Hold
                    | State::Lead { .. }
            )
            // A backoff without waiters does not end by itself, except that an explicit request is
            // sent again.
            && !(matches!(self.state, State::Backoff { .. }) && self.source == Source::Explicit)
    }

    /// Returns whether the running attempt sends the request that was given to `renew_with`.
    pub(crate) fn is_explicit(&self) -> bool {
        self.source == Source::Explicit
    }

    /// Wakes all waiters of both kinds, so that each polls again.
    pub(crate) fn wake_all(&mut self, mut wake: impl FnMut(S::Waker)) {
        self.waiters.wake_all(&mut wake);
        self.result_waiters.wake_all(&mut wake);
        self.doubts.wake_all(wake);
    }

    /// Returns whether a request may still be sent under this grant.
    pub(crate) fn may_send(&self, grant: Grant) -> bool {
        self.current == Some(grant.generation) || self.leads(grant)
    }

    /// Returns when a tick is due that no poll is sure to make in time.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        let has_waiters = !self.waiters.is_empty() || !self.result_waiters.is_empty();
        match self.state {
            // An explicit request is sent until it succeeds or fails permanently, with or without
            // waiters.
            State::Backoff { until } if has_waiters || self.source == Source::Explicit => Some(until),
            State::Hold | State::Overlap if !self.result_waiters.is_empty() => Some(self.deadline),
            State::Stagger { next } => Some(next),
            State::Probe { .. } | State::Lead { .. } if has_waiters => Some(self.deadline),
            // The task of an attempt has its own timeout. Waiters poll once more after it, in case
            // the task's runtime is not driven.
            _ => None,
        }
    }

    /// Returns when the running attempt times out, if one runs.
    pub(crate) fn attempt_deadline(&self) -> Option<Duration> {
        matches!(self.state, State::Hold | State::Overlap).then_some(self.deadline)
    }

    fn leads(&self, grant: Grant) -> bool {
        grant.role == Some(self.attempt)
            && matches!(self.state, State::Lead { .. })
            && self.candidate == Some(grant.generation)
    }

    fn probes(&self, grant: Grant) -> bool {
        grant.role == Some(self.attempt)
            && matches!(self.state, State::Probe { .. })
            && self.current == Some(grant.generation)
    }

    /// Whether a waiter has a live role or turn.
    fn has_role(&self, ticket: Ticket) -> bool {
        *self.waiters.note(ticket) == Some(self.attempt)
    }

    fn give_role(&mut self, ticket: Ticket) {
        *self.waiters.note_mut(ticket) = Some(self.attempt);
    }
}

/// Requests: admission, waiting, reports.
impl<S: EffectSink> Core<S> {
    /// A request asks to be sent.
    pub(crate) fn admit(&mut self, step: &mut Step<'_, S>, arrival: Arrival) -> Admission<S::Error> {
        self.tick(step);
        match &self.state {
            State::Open | State::Cooldown { .. } | State::Overlap => Admission::Pass(self.plain_grant()),
            State::Closed => Admission::Refuse(Refusal::Closed),
            State::Lead { taken: false } if self.is_overdue(step.now) => self.take_overdue_lead(step),
            State::Probe { .. }
            | State::Stagger { .. }
            | State::Hold
            | State::Lead { .. }
            | State::Backoff { .. } => self.enqueue(step.limits, arrival),
            State::Failed { retry_at: Some(at), .. } if step.now >= *at => self.begin(step, arrival),
            State::Failed { error, .. } => Admission::Refuse(Refusal::Failed(error.clone())),
            State::Pending => self.begin(step, arrival),
        }
    }

    /// A waiter is polled. `None` means that it keeps waiting and that its waker should be stored.
    ///
    /// Any other result frees the slot: the ticket must not be used again.
    pub(crate) fn poll(
        &mut self,
        step: &mut Step<'_, S>,
        ticket: Ticket,
    ) -> Option<Result<Grant, Refusal<S::Error>>> {
        self.tick(step);
        if self.waiters.has_outcome(ticket) {
            let (_, outcome) = self.waiters.remove(ticket);
            let error = outcome.expect("it was there a line ago");
            let closed = matches!(self.state, State::Closed);
            return Some(Err(if closed { Refusal::Closed } else { Refusal::Failed(error) }));
        }
        let has_role = self.has_role(ticket);
        let role = Some(self.attempt);
        let grant = match self.state {
            State::Open | State::Cooldown { .. } | State::Overlap => self.plain_grant(),
            State::Stagger { .. } if has_role => self.plain_grant(),
            State::Lead { .. } if has_role => {
                self.state = State::Lead { taken: true };
                self.deadline = step.after(step.limits.attempt_timeout);
                Grant { generation: self.candidate.expect("a lead has a candidate"), role }
            }
            State::Probe { .. } if has_role => {
                self.state = State::Probe { taken: true };
                self.deadline = step.after(step.limits.attempt_timeout);
                Grant { role, ..self.plain_grant() }
            }
            State::Lead { taken: false } if self.is_overdue(step.now) => {
                self.waiters.remove(ticket);
                return match self.take_overdue_lead(step) {
                    Admission::Pass(grant) => Some(Ok(grant)),
                    Admission::Refuse(refusal) => Some(Err(refusal)),
                    Admission::Wait(_) => unreachable!("an overdue lead is taken or refused"),
                };
            }
            _ => return None,
        };
        self.leave(step, ticket);
        Some(Ok(grant))
    }

    /// Releases a waiter of an open gate and returns its waker: what [`poll`](Self::poll) does in
    /// that state, without a step. `None` means that `poll` has to decide.
    pub(crate) fn release_fast(&mut self, ticket: Ticket) -> Option<Option<S::Waker>> {
        let is_plain = matches!(self.state, State::Open) && !self.waiters.has_outcome(ticket);
        is_plain.then(|| self.waiters.remove(ticket).0)
    }

    /// A waiter is dropped. Its role, if it has one, goes to the oldest of the others.
    pub(crate) fn drop_waiter(&mut self, step: &mut Step<'_, S>, ticket: Ticket) {
        let has_role = self.has_role(ticket) && !self.waiters.has_outcome(ticket);
        self.leave(step, ticket);
        if has_role {
            self.drop_role(step, self.attempt);
        }
    }

    /// The holder of a role was dropped without a report.
    pub(crate) fn drop_role(&mut self, step: &mut Step<'_, S>, role: Attempt) {
        if role != self.attempt {
            return;
        }
        match self.state {
            State::Lead { .. } => {
                self.refund_start(step);
                self.start_if_wanted(step);
            }
            State::Probe { .. } => {
                self.advance_attempt();
                self.release(step);
            }
            _ => {}
        }
    }

    /// The response to a request was accepted. `epoch` is that of its send.
    pub(crate) fn report_good(&mut self, step: &mut Step<'_, S>, grant: Grant, epoch: Epoch) {
        if self.leads(grant) {
            // Lead => Open: the leader's own response was the probe.
            self.commit(step);
            self.open(step);
        } else if self.probes(grant) {
            self.advance_attempt();
            self.open(step);
        } else {
            self.tick(step);
        }
        self.accepted(step, grant.generation, epoch);
    }

    /// The response to a request was rejected: it looks as if the session has expired.
    pub(crate) fn report_rejected(
        &mut self,
        step: &mut Step<'_, S>,
        grant: Grant,
        rejection: Rejection,
    ) -> ReportOutcome {
        if self.leads(grant) {
            self.fail_transiently(step, CoreError::LeaderFailed.into());
            return ReportOutcome::Ended;
        }
        if self.current != Some(grant.generation) {
            return ReportOutcome::Stale;
        }
        let is_probe = self.probes(grant);
        let outcome = match rejection {
            Rejection::First if !step.effects.can_verify() => self.expire(step),
            _ => self.doubt(step),
        };
        if is_probe && self.probes(grant) {
            // Probe => Probe: this response decides nothing, so the next waiter goes first.
            self.advance_attempt();
            self.release(step);
        }
        outcome
    }

    /// A request failed without a response.
    pub(crate) fn report_error(&mut self, step: &mut Step<'_, S>, grant: Grant) {
        if self.leads(grant) {
            self.fail_transiently(step, CoreError::LeaderFailed.into());
        } else if self.probes(grant) {
            // An error says nothing about the session: the others find out for themselves.
            self.advance_attempt();
            self.open(step);
        }
    }

    /// This generation has reached its limit of uses or age.
    pub(crate) fn limit_reached(&mut self, step: &mut Step<'_, S>, generation: Generation) {
        if self.current == Some(generation) {
            self.invalidate(step, EndCause::Limit);
        }
    }

    /// This generation is close to a limit: renew it while it still works.
    pub(crate) fn renew_early(&mut self, step: &mut Step<'_, S>, generation: Generation) {
        self.tick(step);
        if self.current == Some(generation) && matches!(self.state, State::Open) && step.effects.has_rule() {
            self.start(step, Start::Overlap);
        }
    }

    fn plain_grant(&self) -> Grant {
        Grant { generation: self.current.expect("an open gate has a current value"), role: None }
    }

    fn is_overdue(&self, now: Duration) -> bool {
        now >= self.deadline
    }

    fn enqueue(&mut self, limits: &Limits, arrival: Arrival) -> Admission<S::Error> {
        if self.waiters.len() >= limits.max_waiting {
            return Admission::Refuse(Refusal::Overloaded);
        }
        Admission::Wait(match arrival {
            Arrival::First => self.waiters.push(),
            Arrival::Returning => self.waiters.push_returned(),
        })
    }

    /// Frees a waiter's slot. The sink gets the waker, so that it is not dropped under the lock.
    fn leave(&mut self, step: &mut Step<'_, S>, ticket: Ticket) {
        let (waker, outcome) = self.waiters.remove(ticket);
        if let Some(waker) = waker {
            step.effects.drop_waker(waker);
        }
        if let Some(error) = outcome {
            step.effects.drop_error(error);
        }
        if matches!(self.state, State::Stagger { .. }) && self.all_have_turns() {
            self.open(step);
        }
    }

    /// The first admission of a pending gate, or of a failed one after its backoff.
    fn begin(&mut self, step: &mut Step<'_, S>, arrival: Arrival) -> Admission<S::Error> {
        if self.source == Source::Standard && !step.effects.has_rule() {
            return self.lead(step);
        }
        let enqueued = self.enqueue(step.limits, arrival);
        self.start(step, Start::Hold);
        enqueued
    }

    /// The calling admission leads.
    fn lead(&mut self, step: &mut Step<'_, S>) -> Admission<S::Error> {
        if self.start(step, Start::CallerLeads) {
            let generation = self.candidate.expect("a lead has a candidate");
            return Admission::Pass(Grant { generation, role: Some(self.attempt) });
        }
        Admission::Refuse(match &self.state {
            State::Failed { error, .. } => Refusal::Failed(error.clone()),
            _ => Refusal::Failed(CoreError::TooManyRenewals.into()),
        })
    }

    /// Lead => Lead: the waiter with the role is not polled, so the caller leads instead.
    fn take_overdue_lead(&mut self, step: &mut Step<'_, S>) -> Admission<S::Error> {
        self.refund_start(step);
        self.lead(step)
    }

    /// Lead => Pending: a dropped lead counts as one request, not as one of the allowed starts.
    fn refund_start(&mut self, step: &mut Step<'_, S>) {
        self.recent_starts.pop_back();
        self.advance_attempt();
        self.candidate = None;
        step.effects.discard(DiscardReason::Cancelled);
        self.state = State::Pending;
    }

    /// Whether every waiter has had its turn in a staggered release.
    fn all_have_turns(&self) -> bool {
        self.waiters.iter().all(|ticket| self.has_role(ticket))
    }
}

/// Time.
impl<S: EffectSink> Core<S> {
    /// Applies whatever is due.
    pub(crate) fn tick(&mut self, step: &mut Step<'_, S>) {
        match self.state {
            State::Cooldown { until, permanent_error: None } if step.now >= until => {
                self.state = State::Open;
            }
            State::Backoff { until } if step.now >= until => self.backoff_elapsed(step),
            State::Hold | State::Overlap | State::Lead { taken: true } if self.is_overdue(step.now) => {
                self.attempt_timed_out(step);
            }
            State::Lead { taken: false } if self.is_overdue(step.now) => {
                // The first waiter that is polled now takes the lead.
                self.waiters.wake_all(|waker| step.effects.wake(waker));
            }
            State::Probe { .. } if self.is_overdue(step.now) => self.probe_timed_out(step),
            State::Stagger { next } if step.now >= next => self.release_next_burst(step),
            _ => {}
        }
    }

    /// Backoff => Pending, then the next attempt if a request waits for it.
    pub(super) fn backoff_elapsed(&mut self, step: &mut Step<'_, S>) {
        self.state = State::Pending;
        self.start_if_wanted(step);
    }

    pub(super) fn attempt_timed_out(&mut self, step: &mut Step<'_, S>) {
        self.fail_transiently(step, CoreError::TimedOut.into());
    }

    /// Probe => Open: the others do not wait for a probe that takes too long.
    pub(super) fn probe_timed_out(&mut self, step: &mut Step<'_, S>) {
        self.advance_attempt();
        self.open(step);
    }

    /// Stagger => (Stagger | Open). A waiter whose turn has come passes whenever it is polled, so
    /// that it delays no other waiter.
    pub(super) fn release_next_burst(&mut self, step: &mut Step<'_, S>) {
        let Release::Staggered { burst, every } = step.limits.release else {
            return self.open(step);
        };
        let without_turn = self.waiters.iter().filter(|ticket| !self.has_role(*ticket));
        let next: Vec<_> = without_turn.take(burst.max(1)).collect();
        for ticket in next {
            self.give_role(ticket);
            if let Some(waker) = self.waiters.waker_mut(ticket).take() {
                step.effects.wake(waker);
            }
        }
        if self.all_have_turns() {
            self.open(step);
        } else {
            self.state = State::Stagger { next: step.after(every) };
        }
    }
}

/// The tasks of attempts.
impl<S: EffectSink> Core<S> {
    /// Returns whether this attempt runs.
    pub(crate) fn runs(&self, attempt: Attempt) -> bool {
        attempt == self.attempt && matches!(self.state, State::Hold | State::Overlap)
    }

    /// The task of an attempt has ended. `false` means that the attempt was cancelled before and
    /// nothing changed.
    pub(crate) fn attempt_ended(
        &mut self,
        step: &mut Step<'_, S>,
        attempt: Attempt,
        result: Result<(), Failure<S::Error>>,
    ) -> bool {
        if !self.runs(attempt) {
            return false;
        }
        match result {
            Ok(()) => {
                self.commit(step);
                self.release(step);
            }
            Err(Failure { kind: FailureKind::Transient, error }) => self.fail_transiently(step, error),
            Err(Failure { kind: FailureKind::Permanent, error }) => self.fail_permanently(step, error),
        }
        true
    }
}

/// Calls of users.
impl<S: EffectSink> Core<S> {
    /// Ends the current value; the next admission starts a renewal.
    pub(crate) fn clear(&mut self, step: &mut Step<'_, S>) -> Result<(), Ignored> {
        self.reset(step)?;
        self.start_if_wanted(step);
        Ok(())
    }

    /// Ends the current value and starts a renewal by the request that the owner holds.
    pub(crate) fn renew_with(&mut self, step: &mut Step<'_, S>) -> Result<Ticket, Ignored> {
        self.reset(step)?;
        self.source = Source::Explicit;
        let ticket = self.result_waiters.push();
        self.start(step, Start::Hold);
        Ok(ticket)
    }

    /// Starts a renewal, or joins the running one. The current value, if there is one, stays in
    /// use.
    pub(crate) fn renew(&mut self, step: &mut Step<'_, S>) -> Result<Ticket, Ignored> {
        self.tick(step);
        match self.state {
            State::Closed => return Err(Ignored::Closed),
            State::Overlap | State::Hold | State::Lead { .. } => return Ok(self.result_waiters.push()),
            _ if !step.effects.has_rule() && self.source == Source::Standard => {
                return Err(Ignored::NoRule);
            }
            _ => {}
        }
        self.failures = 0;
        if matches!(self.state, State::Probe { .. } | State::Stagger { .. }) {
            self.advance_attempt();
            self.open(step);
        }
        let ticket = self.result_waiters.push();
        self.start(step, if self.current.is_some() { Start::Overlap } else { Start::Hold });
        Ok(ticket)
    }

    /// Makes a value given by the caller current. The sink installs it.
    pub(crate) fn replace(&mut self, step: &mut Step<'_, S>) -> Result<Generation, Ignored> {
        self.replace_from(step, Generation::FIRST)
    }

    /// Like [`replace`](Self::replace), with `least` as the lowest generation to use.
    pub(crate) fn replace_from(
        &mut self,
        step: &mut Step<'_, S>,
        least: Generation,
    ) -> Result<Generation, Ignored> {
        self.reset(step)?;
        self.last = least.max(self.last.next());
        self.current = Some(self.last);
        step.effects.install(self.last);
        self.replaced(step, Origin::Caller);
        self.release(step);
        Ok(self.last)
    }

    /// Closes the gate permanently.
    pub(crate) fn close(&mut self, step: &mut Step<'_, S>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.cancel_attempt(step, DiscardReason::Cancelled);
        self.end_current(step);
        self.transition(step, State::Closed);
        self.waiters.end_all(|| CoreError::Aborted.into(), |waker| step.effects.wake(waker));
        self.result_waiters.end_all(|| Ended::Closed, |waker| step.effects.wake(waker));
    }

    /// A caller asks how its renewal ended. `None` means that it keeps waiting.
    pub(crate) fn poll_result(&mut self, step: &mut Step<'_, S>, ticket: Ticket) -> Option<Ended<S::Error>> {
        self.tick(step);
        let has_ended = self.result_waiters.has_outcome(ticket);
        has_ended.then(|| self.result_waiters.remove(ticket).1.expect("it was there a line ago"))
    }

    /// A caller no longer waits for its result; the renewal continues.
    pub(crate) fn drop_result_waiter(
        &mut self,
        ticket: Ticket,
    ) -> (Option<S::Waker>, Option<Ended<S::Error>>) {
        self.result_waiters.remove(ticket)
    }

    pub(crate) fn result_waker(&mut self, ticket: Ticket) -> &mut Option<S::Waker> {
        self.result_waiters.waker_mut(ticket)
    }

    pub(crate) fn waker(&mut self, ticket: Ticket) -> &mut Option<S::Waker> {
        self.waiters.waker_mut(ticket)
    }

    /// Ends the current value and the running attempt, and makes a new pending value.
    fn reset(&mut self, step: &mut Step<'_, S>) -> Result<(), Ignored> {
        if matches!(self.state, State::Closed) {
            return Err(Ignored::Closed);
        }
        self.cancel_attempt(step, DiscardReason::Cancelled);
        self.end_current(step);
        self.new_pending(step);
        self.failures = 0;
        self.failed_periods = 0;
        self.transition(step, State::Pending);
        self.result_waiters.end_all(|| Ended::Superseded, |waker| step.effects.wake(waker));
        Ok(())
    }
}

/// Procedures that several events share.
impl<S: EffectSink> Core<S> {
    /// Starts an attempt. `false` means that the window has too many starts; the state says so.
    fn start(&mut self, step: &mut Step<'_, S>, start: Start) -> bool {
        let limits = step.limits;
        if self.is_cap_reached(step) {
            let oldest = self.recent_starts.front();
            let until = oldest.map_or(step.now, |oldest| oldest.saturating_add(limits.start_window));
            let error = S::Error::from(CoreError::TooManyRenewals);
            if self.current.is_some() {
                self.transition(step, State::Cooldown { until, permanent_error: None });
                let ended = || Ended::Failed(error.clone());
                self.result_waiters.end_all(ended, |waker| step.effects.wake(waker));
            } else {
                self.fail(step, error, Some(until));
            }
            return false;
        }
        self.recent_starts.push_back(step.now);
        self.advance_attempt();
        self.last = self.last.next();
        self.candidate = Some(self.last);
        let base = if start == Start::Overlap { CandidateBase::New } else { CandidateBase::Pending };
        step.effects.candidate(self.last, base);
        self.deadline = step.after(limits.attempt_timeout);
        if start == Start::Overlap {
            self.transition(step, State::Overlap);
            step.effects.start_attempt(self.attempt, self.last);
        } else if self.source == Source::Explicit || step.effects.has_rule() {
            self.transition(step, State::Hold);
            step.effects.start_attempt(self.attempt, self.last);
        } else if start == Start::CallerLeads {
            self.transition(step, State::Lead { taken: true });
        } else {
            self.transition(step, State::Lead { taken: false });
            self.grant_role(step);
        }
        true
    }

    /// Forgets the starts that have left the window, and returns whether it has no room for
    /// another.
    fn is_cap_reached(&mut self, step: &Step<'_, S>) -> bool {
        let window = step.limits.start_window;
        let is_old = |start: &Duration| step.now.saturating_sub(*start) >= window;
        while self.recent_starts.front().is_some_and(is_old) {
            self.recent_starts.pop_front();
        }
        self.recent_starts.len() >= step.limits.max_starts
    }

    /// Makes all tasks and roles of the present attempt stale. A waiter that had a role keeps its
    /// place.
    fn advance_attempt(&mut self) {
        self.attempt = self.attempt.next();
    }

    /// Ends the running attempt.
    fn cancel_attempt(&mut self, step: &mut Step<'_, S>, reason: DiscardReason) {
        self.advance_attempt();
        if matches!(self.state, State::Hold | State::Overlap) {
            step.effects.abort_attempt();
        }
        if self.candidate.take().is_some() {
            step.effects.discard(reason);
        }
    }

    fn new_pending(&mut self, step: &mut Step<'_, S>) {
        step.effects.new_pending();
        self.source = Source::Standard;
    }

    /// Pending => (Hold | Lead), if a request or a caller waits for it.
    fn start_if_wanted(&mut self, step: &mut Step<'_, S>) {
        let needs_no_leader = self.source == Source::Explicit || step.effects.has_rule();
        let is_wanted = self.source == Source::Explicit || !self.result_waiters.is_empty();
        if !self.waiters.is_empty() || (needs_no_leader && is_wanted) {
            self.start(step, Start::Hold);
        } else if !needs_no_leader {
            // No request is left to lead, and the next one may never come.
            let ended = || Ended::Failed(CoreError::Aborted.into());
            self.result_waiters.end_all(ended, |waker| step.effects.wake(waker));
        }
    }

    /// The candidate becomes current.
    fn commit(&mut self, step: &mut Step<'_, S>) {
        let generation = self.candidate.take().expect("an attempt has a candidate");
        self.current = Some(generation);
        step.effects.promote();
        self.replaced(step, Origin::Renewal);
        self.source = Source::Standard;
        self.advance_attempt();
        self.result_waiters.end_all(|| Ended::Renewed(generation), |waker| step.effects.wake(waker));
    }

    /// Releases the waiters as configured.
    fn release(&mut self, step: &mut Step<'_, S>) {
        match step.limits.release {
            _ if self.waiters.is_empty() => self.open(step),
            Release::All => self.open(step),
            Release::ProbeFirst => {
                self.state = State::Probe { taken: false };
                self.grant_role(step);
            }
            Release::Staggered { .. } => self.release_next_burst(step),
        }
    }

    /// Changes the state. The sink gets the error that the previous state held.
    fn transition(&mut self, step: &mut Step<'_, S>, next: State<S::Error>) {
        match std::mem::replace(&mut self.state, next) {
            State::Cooldown { permanent_error: Some(error), .. } | State::Failed { error, .. } => {
                step.effects.drop_error(error)
            }
            _ => {}
        }
    }

    fn open(&mut self, step: &mut Step<'_, S>) {
        self.transition(step, State::Open);
        self.waiters.wake_all(|waker| step.effects.wake(waker));
    }

    /// Gives the role of the present attempt to the oldest waiter.
    fn grant_role(&mut self, step: &mut Step<'_, S>) {
        let oldest = self.waiters.oldest().expect("a role is granted while a request waits");
        self.give_role(oldest);
        self.deadline = step.after(step.limits.role_timeout);
        if let Some(waker) = self.waiters.waker_mut(oldest).take() {
            step.effects.wake(waker);
        }
    }

    /// The attempt failed, and a retry may succeed.
    fn fail_transiently(&mut self, step: &mut Step<'_, S>, error: S::Error) {
        let limits = step.limits;
        let is_overlap = matches!(self.state, State::Overlap);
        self.cancel_attempt(step, DiscardReason::Failed);
        self.failures = (self.failures + 1).min(limits.max_attempts);
        if is_overlap {
            // Overlap => Cooldown: the current value still works and stays.
            let until = step.after(limits.cooldown);
            self.state = State::Cooldown { until, permanent_error: None };
            let ended = || Ended::Failed(error.clone());
            self.result_waiters.end_all(ended, |waker| step.effects.wake(waker));
            step.effects.drop_error(error);
        } else if self.failures < limits.max_attempts {
            let ceiling = doubled(limits.retry_backoff, self.failures - 1, limits.retry_backoff_max);
            step.effects.drop_error(error);
            let pause = jittered(ceiling, step.effects.random());
            self.state = State::Backoff { until: step.after(pause) };
        } else {
            let pause = doubled(limits.failed_backoff, self.failed_periods, limits.failed_backoff_max);
            self.failed_periods += 1;
            self.fail(step, error, Some(step.after(pause)));
        }
    }

    /// The attempt failed, and a retry cannot succeed.
    fn fail_permanently(&mut self, step: &mut Step<'_, S>, error: S::Error) {
        let is_overlap = matches!(self.state, State::Overlap);
        self.cancel_attempt(step, DiscardReason::Failed);
        if is_overlap {
            let ended = || Ended::Failed(error.clone());
            self.result_waiters.end_all(ended, |waker| step.effects.wake(waker));
            self.state = State::Cooldown { until: Duration::MAX, permanent_error: Some(error) };
        } else {
            self.fail(step, error, None);
        }
    }

    /// All waiters, and all requests that arrive before `retry_at`, get this error.
    fn fail(&mut self, step: &mut Step<'_, S>, error: S::Error, retry_at: Option<Duration>) {
        self.waiters.end_all(|| error.clone(), |waker| step.effects.wake(waker));
        let ended = || Ended::Failed(error.clone());
        self.result_waiters.end_all(ended, |waker| step.effects.wake(waker));
        self.transition(step, State::Failed { error, retry_at });
    }

    /// The current value may not be used any more.
    fn invalidate(&mut self, step: &mut Step<'_, S>, cause: EndCause) {
        self.end_current(step);
        self.new_pending(step);
        if matches!(self.state, State::Overlap) {
            // Overlap => Hold: the requests join the running attempt.
            self.state = State::Hold;
            return;
        }
        let permanent_error = match &mut self.state {
            State::Cooldown { permanent_error, .. } => permanent_error.take(),
            _ => None,
        };
        if let Some(error) = permanent_error {
            return self.fail(step, error, None);
        }
        if cause == EndCause::Rejected && self.is_renewed && !self.is_proven {
            // The renewal that made this value failed after all.
            return self.fail_transiently(step, CoreError::Rejected.into());
        }
        self.advance_attempt();
        self.state = State::Pending;
        if step.effects.has_rule() {
            self.start(step, Start::Hold);
        } else {
            self.start_if_wanted(step);
        }
    }

    /// No value is current any more, if one was.
    fn end_current(&mut self, step: &mut Step<'_, S>) {
        if self.current.take().is_some() {
            step.effects.end_current();
        }
        self.end_doubts(step, DoubtOutcome::Ended);
    }
}

#[path = "doubt.rs"]
mod doubt;

pub(crate) use self::doubt::{Charge, Verified};

#[cfg(test)]
#[path = "model.rs"]
mod model;
#[cfg(test)]
#[path = "state_tests.rs"]
mod state_tests;
