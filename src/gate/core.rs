//! The decisions of a gate: every state against every event, as plain data.
//!
//! Nothing here waits, reads a clock, or knows a runtime. Each event carries the time as a [`Duration`] since an origin of the
//! caller's choice and is applied in one step; what has to be done about values, wakers and drivers is told to a [`Host`], which
//! must only note it down, since it is called in the middle of a step.
//!
//! A *role* is the right of one request to act for the others: to lead (its answer decides whether the pending value becomes
//! current) or to probe (it goes first after a renewal). Roles and drivers carry the attempt number under which they were given;
//! every fence raises the number, and whatever carries an older one is ignored. Nothing else is compared.

use std::{collections::VecDeque, time::Duration};

use super::waiters::{Ticket, Waiters};

/// Numbers the values that a gate has held; it only grows.
pub(crate) type Generation = u64;

/// Numbers attempts. 0 is never live.
pub(crate) type Attempt = u64;

/// Failures that the core itself decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// The attempt ran past its deadline.
    DeadlineElapsed,
    /// More renewals were started in one window than are allowed.
    TooManyRenewals,
    /// The leading request was answered as expired, or failed.
    LeaderFailed,
    /// The renewal's own result was classified as expired, or nobody is left to bring one about.
    Lost,
}

/// What the core tells its owner in the middle of a step. Implementations note it down and act after the lock is released.
pub(crate) trait Host {
    /// Wakes a waiting task.
    type Waker;
    /// The error that waiters share.
    type Error: Clone + From<Fault>;

    /// Whether a rule exists that can renew without a request to lead.
    fn has_rule(&self) -> bool;
    /// The current value has ended; nothing may be sent under it any more.
    fn end_current(&mut self);
    /// A new pending base is made. A running candidate, if there is one, will take its place at a commit.
    fn fresh(&mut self);
    /// A candidate is made, of the pending base, or, in an overlap, by itself.
    fn candidate(&mut self, generation: Generation, overlap: bool);
    /// The candidate is dropped. `failed` tells an attempt that failed from one that was fenced.
    fn discard(&mut self, failed: bool);
    /// The candidate becomes current; the value that was current until now was not ended, only followed.
    fn promote(&mut self);
    /// A value given from outside becomes current.
    fn install(&mut self, generation: Generation);
    /// A driver is wanted for this attempt.
    fn drive(&mut self, attempt: Attempt, generation: Generation);
    /// The running driver is of no more use.
    fn abort(&mut self);
    /// A waker to wake.
    fn wake(&mut self, waker: Self::Waker);
    /// A waker whose task looked by itself; it is dropped with the rest, after the lock is released.
    fn forget(&mut self, waker: Self::Waker);
    /// An error that nobody reads any more. It may hold a type of the user's, whose drop must not run under the lock.
    fn forget_error(&mut self, error: Self::Error);
    /// A number to draw jitter from.
    fn random(&mut self) -> u64;
}

/// What goes with every event: whom to tell, within which bounds, and when it is.
pub(crate) struct Step<'a, H> {
    pub(crate) host: &'a mut H,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Duration,
}

impl<H> Step<'_, H> {
    /// The moment so much after this event.
    fn later(&self, by: Duration) -> Duration {
        self.now.saturating_add(by)
    }
}

/// The bounds of one gate.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Transient failures in a row before everybody is told.
    pub(crate) failures: u32,
    /// Renewals started within [`window`](Self::window).
    pub(crate) starts: usize,
    pub(crate) window: Duration,
    /// Requests held at once.
    pub(crate) held: usize,
    /// How long one attempt may take.
    pub(crate) attempt: Duration,
    /// The ceiling of the first back-off; it doubles with each failure.
    pub(crate) backoff: Duration,
    pub(crate) backoff_most: Duration,
    /// How long the gate stays failed before one request may try again; it doubles each time.
    pub(crate) rest: Duration,
    pub(crate) rest_most: Duration,
    /// How long after a failed overlap no budget starts another.
    pub(crate) cool: Duration,
    /// How long a waiter may leave a role untaken.
    pub(crate) role: Duration,
    pub(crate) release: Release,
}

/// How held requests are let out after a renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Release {
    /// All at once, in the order in which they came. The default.
    #[default]
    All,
    /// One goes first; the rest follow once its answer is not an expired one.
    ProbeFirst,
    /// `burst` at once, then `burst` more after each `every`.
    Staggered {
        /// How many go at once; at least one does.
        burst: usize,
        /// The pause between two bursts.
        every: Duration,
    },
}

/// Permission to send under one generation, with the role that goes with it, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) generation: Generation,
    /// The attempt number of a role; 0 for none.
    pub(crate) role: Attempt,
}

/// The answer to an admission.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<E> {
    Pass(Grant),
    Wait(Ticket),
    Refuse(Refusal<E>),
}

/// Why a request was not let through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal<E> {
    Closed,
    Overloaded,
    Failed(E),
}

/// What a report meant to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The news was about the current value, or from the leader.
    Current,
    /// The news was about a value that is no longer current; nothing changed.
    Stale,
}

/// How an attempt failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure<E> {
    /// Trying again by itself is of no use.
    pub(crate) terminal: bool,
    pub(crate) error: E,
}

/// How a renewal that somebody asked for ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended<E> {
    Renewed(Generation),
    Failed(E),
    /// A `clear`, `replace` or `renew_with` came in between.
    Superseded,
    Closed,
}

/// Why a renewal could not be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    NoRule,
}

/// Where the gate stands. `current` is set exactly in `Open`, `Cool`, `Over` and `Release`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State<E> {
    /// Everybody passes.
    Open,
    /// Everybody passes; no budget starts a renewal before `until`.
    Cool {
        until: Duration,
        terminal: Option<E>,
    },
    /// Everybody passes while a driver runs.
    Over,
    /// The waiters are let out in order, behind a probe; who comes now waits behind them.
    Probe {
        taken: bool,
    },
    /// The waiters are let out a burst at a time; who comes now waits behind them.
    Stagger {
        next: Duration,
    },
    /// Nothing runs and nobody waits.
    Pending,
    /// A driver runs and everybody waits.
    Hold,
    /// One request runs under the candidate and everybody else waits.
    Lead {
        taken: bool,
    },
    /// An attempt failed; the next one starts at `until` if somebody waits.
    Backoff {
        until: Duration,
    },
    /// Attempts failed for good, or too often; from `retry_at` on one admission may try again.
    Failed {
        error: E,
        retry_at: Option<Duration>,
    },
    Closed,
}

/// What brings the pending value about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// The rule, or where there is none, a request that leads.
    Usual,
    /// The request that `renew_with` was given.
    Once,
}

/// The state of one gate.
#[derive(Clone)]
pub(crate) struct Core<H: Host> {
    state: State<H::Error>,
    current: Option<Generation>,
    candidate: Option<Generation>,
    last: Generation,
    attempt: Attempt,
    source: Source,
    /// When the running attempt, or a role not taken up, is overdue.
    deadline: Duration,
    failures: u32,
    /// How often the gate has failed since something went well.
    rests: u32,
    starts: VecDeque<Duration>,
    waiters: Waiters<H::Waker, H::Error>,
    /// Those who asked for a renewal and wait for how it ends.
    askers: Waiters<H::Waker, Ended<H::Error>>,
}

impl<H: Host> Core<H> {
    /// Open, with generation 1 as current.
    pub(crate) fn open() -> Self {
        Self::new(State::Open, Some(1))
    }

    /// Pending, with nothing current; the first admission starts the rule, or leads.
    pub(crate) fn pending() -> Self {
        Self::new(State::Pending, None)
    }

    fn new(state: State<H::Error>, current: Option<Generation>) -> Self {
        Self {
            state,
            current,
            candidate: None,
            last: 1,
            attempt: 1,
            source: Source::Usual,
            deadline: Duration::ZERO,
            failures: 0,
            rests: 0,
            starts: VecDeque::new(),
            waiters: Waiters::new(),
            askers: Waiters::new(),
        }
    }

    /// The same, as one that has given out generations up to `last`.
    pub(crate) fn going_on_from(mut self, last: Generation) -> Self {
        self.last = last.max(1);
        self.current = self.current.map(|_| self.last);
        self
    }

    pub(crate) fn current(&self) -> Option<Generation> {
        self.current
    }

    /// The newest generation that was given out.
    #[cfg(feature = "serde")]
    pub(crate) fn last(&self) -> Generation {
        self.last
    }

    pub(crate) fn state(&self) -> &State<H::Error> {
        &self.state
    }

    /// How many requests are held.
    pub(crate) fn held(&self) -> usize {
        self.waiters.len()
    }

    /// Whether everybody passes without being asked: what the published pointer stands for.
    pub(crate) fn is_free(&self) -> bool {
        matches!(self.state, State::Open | State::Cool { .. } | State::Over)
    }

    /// Whether nothing is under way for this gate: nobody waits, nothing runs, no error is waiting for its owner.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiters.is_empty()
            && self.askers.is_empty()
            && !matches!(
                self.state,
                State::Over
                    | State::Probe { .. }
                    | State::Stagger { .. }
                    | State::Hold
                    | State::Lead { .. }
            )
            // A back-off that nobody waits for is not left by itself, unless it is what `renew_with` was given that is tried on.
            && !(matches!(self.state, State::Backoff { .. }) && self.source == Source::Once)
    }

    /// Whether the running attempt is to send what `renew_with` was given.
    pub(crate) fn is_once(&self) -> bool {
        self.source == Source::Once
    }

    /// Wakes everybody, so that each looks for itself.
    pub(crate) fn rouse(&mut self, mut wake: impl FnMut(H::Waker)) {
        self.waiters.wake_all(&mut wake);
        self.askers.wake_all(wake);
    }

    /// Whether a pass or role is still good for a send.
    pub(crate) fn may_send(&self, grant: Grant) -> bool {
        self.current == Some(grant.generation) || self.leads(grant)
    }

    /// When a tick is due that nobody else will notice in time.
    pub(crate) fn alarm(&self) -> Option<Duration> {
        let waited_for = !self.waiters.is_empty() || !self.askers.is_empty();
        match self.state {
            // What `renew_with` was given is sent until it succeeds or has failed for good, whoever still waits for it.
            State::Backoff { until } if waited_for || self.source == Source::Once => Some(until),
            State::Hold | State::Over if !self.askers.is_empty() => Some(self.deadline),
            State::Stagger { next } => Some(next),
            State::Probe { .. } | State::Lead { .. } if waited_for => Some(self.deadline),
            // A driver bounds itself; waiters look once more when it is overdue, in case its runtime does not move.
            _ => None,
        }
    }

    /// When the running attempt is overdue, if one runs.
    pub(crate) fn attempt_timeout(&self) -> Option<Duration> {
        matches!(self.state, State::Hold | State::Over).then_some(self.deadline)
    }

    fn leads(&self, grant: Grant) -> bool {
        grant.role == self.attempt
            && matches!(self.state, State::Lead { .. })
            && self.candidate == Some(grant.generation)
    }

    fn probes(&self, grant: Grant) -> bool {
        grant.role == self.attempt
            && matches!(self.state, State::Probe { .. })
            && self.current == Some(grant.generation)
    }
}

/// Requests: coming, waiting, leaving, reporting.
impl<H: Host> Core<H> {
    /// A request asks to be sent. One that was `admitted` before stands ahead of those that were not, if it has to wait.
    pub(crate) fn admit(&mut self, step: &mut Step<'_, H>, admitted: bool) -> Admission<H::Error> {
        self.tick(step);
        match &self.state {
            State::Open | State::Cool { .. } | State::Over => Admission::Pass(self.plain_grant()),
            State::Closed => Admission::Refuse(Refusal::Closed),
            State::Lead { taken: false } if self.overdue(step.now) => self.take_overdue_lead(step),
            State::Probe { .. }
            | State::Stagger { .. }
            | State::Hold
            | State::Lead { .. }
            | State::Backoff { .. } => self.park(step.limits, admitted),
            State::Failed { retry_at: Some(at), .. } if step.now >= *at => self.begin(step, admitted),
            State::Failed { error, .. } => Admission::Refuse(Refusal::Failed(error.clone())),
            State::Pending => self.begin(step, admitted),
        }
    }

    /// A waiter looks. `None` means that it has to wait on, and its waker should be stored.
    ///
    /// Any other answer gives the slot back: the ticket must not be used again.
    pub(crate) fn poll(
        &mut self,
        step: &mut Step<'_, H>,
        ticket: Ticket,
    ) -> Option<Result<Grant, Refusal<H::Error>>> {
        self.tick(step);
        if self.waiters.has_outcome(ticket) {
            let (_, outcome) = self.waiters.remove(ticket);
            let error = outcome.expect("it was there a line ago");
            let closed = matches!(self.state, State::Closed);
            return Some(Err(if closed { Refusal::Closed } else { Refusal::Failed(error) }));
        }
        let role = self.waiters.role(ticket) == self.attempt;
        let grant = match self.state {
            State::Open | State::Cool { .. } | State::Over => self.plain_grant(),
            State::Stagger { .. } if role => self.plain_grant(),
            State::Lead { .. } if role => {
                self.state = State::Lead { taken: true };
                self.deadline = step.later(step.limits.attempt);
                Grant { generation: self.candidate.expect("a lead has a candidate"), role: self.attempt }
            }
            State::Probe { .. } if role => {
                self.state = State::Probe { taken: true };
                self.deadline = step.later(step.limits.attempt);
                Grant { role: self.attempt, ..self.plain_grant() }
            }
            State::Lead { taken: false } if self.overdue(step.now) => {
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

    /// Lets a waiter out of an open gate, with its waker: what [`poll`](Self::poll) does there, without a step. `None` says that
    /// the gate is not open, or that there is more to it.
    pub(crate) fn let_out(&mut self, ticket: Ticket) -> Option<Option<H::Waker>> {
        let plain = matches!(self.state, State::Open) && !self.waiters.has_outcome(ticket);
        plain.then(|| self.waiters.remove(ticket).0)
    }

    /// A waiter gives up. Its role, if it has one, goes to the oldest of the others.
    pub(crate) fn drop_waiter(&mut self, step: &mut Step<'_, H>, ticket: Ticket) {
        let role = self.waiters.role(ticket) == self.attempt && !self.waiters.has_outcome(ticket);
        self.leave(step, ticket);
        if role {
            self.drop_role(step, self.attempt);
        }
    }

    /// The holder of a role is gone without a report.
    pub(crate) fn drop_role(&mut self, step: &mut Step<'_, H>, role: Attempt) {
        if role != self.attempt {
            return;
        }
        match self.state {
            State::Lead { .. } => {
                self.give_start_back(step);
                self.settle(step);
            }
            State::Probe { .. } => {
                self.attempt += 1;
                self.release(step);
            }
            _ => {}
        }
    }

    /// The answer to a send was not an expired one.
    pub(crate) fn report_good(&mut self, step: &mut Step<'_, H>, grant: Grant) {
        if self.leads(grant) {
            // Lead => Open: the leader's own answer was the probe.
            self.commit(step);
            self.open_up(step);
        } else if self.probes(grant) {
            self.attempt += 1;
            self.open_up(step);
        } else {
            self.tick(step);
        }
    }

    /// The answer to a send was an expired one.
    pub(crate) fn report_expired(&mut self, step: &mut Step<'_, H>, grant: Grant) -> Verdict {
        if self.leads(grant) {
            self.transient(step, Fault::LeaderFailed.into());
            Verdict::Current
        } else if self.current == Some(grant.generation) {
            self.dead(step);
            Verdict::Current
        } else {
            Verdict::Stale
        }
    }

    /// A send ended without an answer.
    pub(crate) fn report_error(&mut self, step: &mut Step<'_, H>, grant: Grant) {
        if self.leads(grant) {
            self.transient(step, Fault::LeaderFailed.into());
        } else if self.probes(grant) {
            // An error says nothing about the session: the others find out by themselves.
            self.attempt += 1;
            self.open_up(step);
        }
    }

    /// The hard budget of this generation is spent.
    pub(crate) fn spent(&mut self, step: &mut Step<'_, H>, generation: Generation) {
        if self.current == Some(generation) {
            self.dead(step);
        }
    }

    /// The early mark of this generation's budget is passed: renew it while it still serves.
    pub(crate) fn due(&mut self, step: &mut Step<'_, H>, generation: Generation) {
        self.tick(step);
        if self.current == Some(generation) && matches!(self.state, State::Open) && step.host.has_rule() {
            self.start(step, true, false);
        }
    }

    fn plain_grant(&self) -> Grant {
        Grant { generation: self.current.expect("a free gate has a current value"), role: 0 }
    }

    fn overdue(&self, now: Duration) -> bool {
        now >= self.deadline
    }

    fn park(&mut self, limits: &Limits, admitted: bool) -> Admission<H::Error> {
        if self.waiters.len() >= limits.held {
            return Admission::Refuse(Refusal::Overloaded);
        }
        Admission::Wait(if admitted { self.waiters.push_returned() } else { self.waiters.push() })
    }

    /// Leaves the line; the waker goes out through the host, so that it is not dropped under the lock.
    fn leave(&mut self, step: &mut Step<'_, H>, ticket: Ticket) {
        let (waker, outcome) = self.waiters.remove(ticket);
        if let Some(waker) = waker {
            step.host.forget(waker);
        }
        if let Some(error) = outcome {
            step.host.forget_error(error);
        }
        if matches!(self.state, State::Stagger { .. }) && self.without_turn().is_none() {
            self.open_up(step);
        }
    }

    /// The first admission of a pending or rested gate.
    fn begin(&mut self, step: &mut Step<'_, H>, admitted: bool) -> Admission<H::Error> {
        if self.source == Source::Usual && !step.host.has_rule() {
            return self.lead(step);
        }
        let parked = self.park(step.limits, admitted);
        self.start(step, false, false);
        parked
    }

    /// The calling admission leads at once.
    fn lead(&mut self, step: &mut Step<'_, H>) -> Admission<H::Error> {
        if self.start(step, false, true) {
            let generation = self.candidate.expect("a lead has a candidate");
            return Admission::Pass(Grant { generation, role: self.attempt });
        }
        Admission::Refuse(match &self.state {
            State::Failed { error, .. } => Refusal::Failed(error.clone()),
            _ => Refusal::Failed(Fault::TooManyRenewals.into()),
        })
    }

    /// Lead => Lead: the waiter that was given the role is not being polled; who sees it goes instead.
    fn take_overdue_lead(&mut self, step: &mut Step<'_, H>) -> Admission<H::Error> {
        self.give_start_back(step);
        self.lead(step)
    }

    /// A lead that was dropped costs one request, not one of the allowed starts.
    fn give_start_back(&mut self, step: &mut Step<'_, H>) {
        self.starts.pop_back();
        self.attempt += 1;
        self.candidate = None;
        step.host.discard(false);
        self.state = State::Pending;
    }

    fn without_turn(&self) -> Option<Ticket> {
        self.waiters.iter().find(|ticket| self.waiters.role(*ticket) != self.attempt)
    }
}

/// Time.
impl<H: Host> Core<H> {
    /// Applies whatever is due.
    pub(crate) fn tick(&mut self, step: &mut Step<'_, H>) {
        match self.state {
            State::Cool { until, terminal: None } if step.now >= until => self.state = State::Open,
            State::Backoff { until } if step.now >= until => self.back_off_over(step),
            State::Hold | State::Over | State::Lead { taken: true } if self.overdue(step.now) => {
                self.attempt_overdue(step);
            }
            State::Lead { taken: false } if self.overdue(step.now) => {
                // Whoever of the others looks first takes the lead.
                self.waiters.wake_all(|waker| step.host.wake(waker));
            }
            State::Probe { .. } if self.overdue(step.now) => self.probe_overdue(step),
            State::Stagger { next } if step.now >= next => self.next_turn(step),
            _ => {}
        }
    }

    /// Backoff => Pending, and on to the next attempt if somebody waits.
    pub(super) fn back_off_over(&mut self, step: &mut Step<'_, H>) {
        self.state = State::Pending;
        self.settle(step);
    }

    pub(super) fn attempt_overdue(&mut self, step: &mut Step<'_, H>) {
        self.transient(step, Fault::DeadlineElapsed.into());
    }

    /// Probe => Open: the rest need not wait for one that does not move.
    pub(super) fn probe_overdue(&mut self, step: &mut Step<'_, H>) {
        self.attempt += 1;
        self.open_up(step);
    }

    /// Lets out the next burst. A waiter whose turn has come passes whenever it is polled, so that it holds nobody up.
    pub(super) fn next_turn(&mut self, step: &mut Step<'_, H>) {
        let Release::Staggered { burst, every } = step.limits.release else {
            return self.open_up(step);
        };
        let turn: Vec<_> = self
            .waiters
            .iter()
            .filter(|ticket| self.waiters.role(*ticket) != self.attempt)
            .take(burst.max(1))
            .collect();
        for ticket in turn {
            self.waiters.give_role(ticket, self.attempt);
            if let Some(waker) = self.waiters.waker_mut(ticket).take() {
                step.host.wake(waker);
            }
        }
        if self.without_turn().is_none() {
            self.open_up(step);
        } else {
            self.state = State::Stagger { next: step.later(every) };
        }
    }
}

/// Drivers.
impl<H: Host> Core<H> {
    /// Whether this attempt is the one that runs.
    pub(crate) fn runs(&self, attempt: Attempt) -> bool {
        attempt == self.attempt && matches!(self.state, State::Hold | State::Over)
    }

    /// A driver has ended. `false` means that its attempt was fenced and nothing changed.
    pub(crate) fn driver_done(
        &mut self,
        step: &mut Step<'_, H>,
        attempt: Attempt,
        result: Result<(), Failure<H::Error>>,
    ) -> bool {
        if !self.runs(attempt) {
            return false;
        }
        match result {
            Ok(()) => {
                self.commit(step);
                self.release(step);
            }
            Err(Failure { terminal: false, error }) => self.transient(step, error),
            Err(Failure { terminal: true, error }) => self.terminal(step, error),
        }
        true
    }
}

/// What users ask for.
impl<H: Host> Core<H> {
    /// Ends the current value; the next admission brings a new one about.
    pub(crate) fn clear(&mut self, step: &mut Step<'_, H>) -> Result<(), Refused> {
        self.wipe(step)?;
        self.settle(step);
        Ok(())
    }

    /// Ends the current value and starts a renewal by the request that the host was given.
    pub(crate) fn renew_with(&mut self, step: &mut Step<'_, H>) -> Result<Ticket, Refused> {
        self.wipe(step)?;
        self.source = Source::Once;
        let asker = self.askers.push();
        self.start(step, false, false);
        Ok(asker)
    }

    /// Starts a renewal, or joins the one that runs. The current value, if there is one, serves on.
    pub(crate) fn renew(&mut self, step: &mut Step<'_, H>) -> Result<Ticket, Refused> {
        self.tick(step);
        match self.state {
            State::Closed => return Err(Refused::Closed),
            State::Over | State::Hold | State::Lead { .. } => return Ok(self.askers.push()),
            _ if !step.host.has_rule() && self.source == Source::Usual => return Err(Refused::NoRule),
            _ => {}
        }
        self.failures = 0;
        if matches!(self.state, State::Probe { .. } | State::Stagger { .. }) {
            self.attempt += 1;
            self.open_up(step);
        }
        let asker = self.askers.push();
        self.start(step, self.current.is_some(), false);
        Ok(asker)
    }

    /// Makes a value from outside current. The host installs it.
    pub(crate) fn replace(&mut self, step: &mut Step<'_, H>) -> Result<Generation, Refused> {
        self.replace_from(step, 0)
    }

    /// The same, as a generation that is `least` at least.
    pub(crate) fn replace_from(
        &mut self,
        step: &mut Step<'_, H>,
        least: Generation,
    ) -> Result<Generation, Refused> {
        self.wipe(step)?;
        self.last = least.max(self.last + 1);
        self.current = Some(self.last);
        step.host.install(self.last);
        self.release(step);
        Ok(self.last)
    }

    /// Ends the gate for good.
    pub(crate) fn close(&mut self, step: &mut Step<'_, H>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.fence(step, false);
        if self.current.take().is_some() {
            step.host.end_current();
        }
        self.turn(step, State::Closed);
        self.waiters.end_all(|| Fault::Lost.into(), |waker| step.host.wake(waker));
        self.askers.end_all(|| Ended::Closed, |waker| step.host.wake(waker));
    }

    /// One who asked for a renewal looks at how it ended. `None` means that it has to wait on.
    pub(crate) fn poll_asker(&mut self, step: &mut Step<'_, H>, asker: Ticket) -> Option<Ended<H::Error>> {
        self.tick(step);
        self.askers.has_outcome(asker).then(|| self.askers.remove(asker).1.expect("it was there a line ago"))
    }

    /// One who asked no longer wants to know; the renewal goes on.
    pub(crate) fn drop_asker(&mut self, asker: Ticket) -> (Option<H::Waker>, Option<Ended<H::Error>>) {
        self.askers.remove(asker)
    }

    pub(crate) fn asker_waker(&mut self, asker: Ticket) -> &mut Option<H::Waker> {
        self.askers.waker_mut(asker)
    }

    pub(crate) fn waiter_waker(&mut self, waiter: Ticket) -> &mut Option<H::Waker> {
        self.waiters.waker_mut(waiter)
    }

    /// Whatever was current or under way has ended; a fresh pending value stands in its place.
    fn wipe(&mut self, step: &mut Step<'_, H>) -> Result<(), Refused> {
        if matches!(self.state, State::Closed) {
            return Err(Refused::Closed);
        }
        self.fence(step, false);
        if self.current.take().is_some() {
            step.host.end_current();
        }
        self.fresh(step);
        self.failures = 0;
        self.rests = 0;
        self.turn(step, State::Pending);
        self.askers.end_all(|| Ended::Superseded, |waker| step.host.wake(waker));
        Ok(())
    }
}

/// The procedures that the events share.
impl<H: Host> Core<H> {
    /// Starts an attempt. `false`: there were too many of late, and the gate has taken note.
    fn start(&mut self, step: &mut Step<'_, H>, overlap: bool, caller_leads: bool) -> bool {
        while self.starts.front().is_some_and(|start| step.now.saturating_sub(*start) >= step.limits.window) {
            self.starts.pop_front();
        }
        if self.starts.len() >= step.limits.starts {
            let until =
                self.starts.front().map_or(step.now, |oldest| oldest.saturating_add(step.limits.window));
            let error = H::Error::from(Fault::TooManyRenewals);
            if self.current.is_some() {
                self.turn(step, State::Cool { until, terminal: None });
                self.askers.end_all(|| Ended::Failed(error.clone()), |waker| step.host.wake(waker));
            } else {
                self.fail(step, error, Some(until));
            }
            return false;
        }
        self.starts.push_back(step.now);
        self.attempt += 1;
        self.last += 1;
        self.candidate = Some(self.last);
        step.host.candidate(self.last, overlap);
        self.deadline = step.later(step.limits.attempt);
        if overlap {
            self.turn(step, State::Over);
            step.host.drive(self.attempt, self.last);
        } else if self.source == Source::Once || step.host.has_rule() {
            self.turn(step, State::Hold);
            step.host.drive(self.attempt, self.last);
        } else if caller_leads {
            self.turn(step, State::Lead { taken: true });
        } else {
            self.turn(step, State::Lead { taken: false });
            self.grant(step);
        }
        true
    }

    /// Ends the running attempt, whoever runs it. Roles are void; a waiter that had one keeps its place.
    fn fence(&mut self, step: &mut Step<'_, H>, failed: bool) {
        self.attempt += 1;
        if matches!(self.state, State::Hold | State::Over) {
            step.host.abort();
        }
        if self.candidate.take().is_some() {
            step.host.discard(failed);
        }
    }

    fn fresh(&mut self, step: &mut Step<'_, H>) {
        step.host.fresh();
        self.source = Source::Usual;
    }

    /// Pending => Hold or Lead, for those who wait.
    fn settle(&mut self, step: &mut Step<'_, H>) {
        let driven = self.source == Source::Once || step.host.has_rule();
        let wanted = self.source == Source::Once || !self.askers.is_empty();
        if !self.waiters.is_empty() || (driven && wanted) {
            self.start(step, false, false);
        } else if !driven {
            // Nobody is left who could lead: those who asked are not kept waiting for a stranger.
            self.askers.end_all(|| Ended::Failed(Fault::Lost.into()), |waker| step.host.wake(waker));
        }
    }

    /// The candidate becomes current.
    fn commit(&mut self, step: &mut Step<'_, H>) {
        let generation = self.candidate.take().expect("an attempt has a candidate");
        self.current = Some(generation);
        step.host.promote();
        self.source = Source::Usual;
        self.failures = 0;
        self.rests = 0;
        self.attempt += 1;
        self.askers.end_all(|| Ended::Renewed(generation), |waker| step.host.wake(waker));
    }

    /// Lets the waiters out in the configured way.
    fn release(&mut self, step: &mut Step<'_, H>) {
        match step.limits.release {
            _ if self.waiters.is_empty() => self.open_up(step),
            Release::All => self.open_up(step),
            Release::ProbeFirst => {
                self.state = State::Probe { taken: false };
                self.grant(step);
            }
            Release::Staggered { .. } => self.next_turn(step),
        }
    }

    /// Leaves a state for the next one; an error that the old one remembered goes out through the host.
    fn turn(&mut self, step: &mut Step<'_, H>, next: State<H::Error>) {
        match std::mem::replace(&mut self.state, next) {
            State::Cool { terminal: Some(error), .. } | State::Failed { error, .. } => {
                step.host.forget_error(error)
            }
            _ => {}
        }
    }

    fn open_up(&mut self, step: &mut Step<'_, H>) {
        self.turn(step, State::Open);
        self.waiters.wake_all(|waker| step.host.wake(waker));
    }

    /// Gives the role of the moment to the one that has waited longest.
    fn grant(&mut self, step: &mut Step<'_, H>) {
        let oldest = self.waiters.oldest().expect("a role is given when somebody waits");
        self.waiters.give_role(oldest, self.attempt);
        self.deadline = step.later(step.limits.role);
        if let Some(waker) = self.waiters.waker_mut(oldest).take() {
            step.host.wake(waker);
        }
    }

    /// The attempt failed in a way that may pass.
    fn transient(&mut self, step: &mut Step<'_, H>, error: H::Error) {
        let over = matches!(self.state, State::Over);
        self.fence(step, true);
        self.failures = (self.failures + 1).min(step.limits.failures);
        if over {
            // Over => Cool: the value that works is left alone.
            self.state = State::Cool { until: step.later(step.limits.cool), terminal: None };
            self.askers.end_all(|| Ended::Failed(error.clone()), |waker| step.host.wake(waker));
            step.host.forget_error(error);
        } else if self.failures < step.limits.failures {
            let ceiling = doubled(step.limits.backoff, self.failures - 1, step.limits.backoff_most);
            step.host.forget_error(error);
            let pause = jittered(ceiling, step.host.random());
            self.state = State::Backoff { until: step.later(pause) };
        } else {
            let rest = doubled(step.limits.rest, self.rests, step.limits.rest_most);
            self.rests += 1;
            self.fail(step, error, Some(step.later(rest)));
        }
    }

    /// The attempt failed for good.
    fn terminal(&mut self, step: &mut Step<'_, H>, error: H::Error) {
        let over = matches!(self.state, State::Over);
        self.fence(step, true);
        if over {
            self.askers.end_all(|| Ended::Failed(error.clone()), |waker| step.host.wake(waker));
            self.state = State::Cool { until: Duration::MAX, terminal: Some(error) };
        } else {
            self.fail(step, error, None);
        }
    }

    /// Everybody who waits, and everybody who comes before `retry_at`, gets one error.
    fn fail(&mut self, step: &mut Step<'_, H>, error: H::Error, retry_at: Option<Duration>) {
        self.waiters.end_all(|| error.clone(), |waker| step.host.wake(waker));
        self.askers.end_all(|| Ended::Failed(error.clone()), |waker| step.host.wake(waker));
        self.turn(step, State::Failed { error, retry_at });
    }

    /// The current value has expired.
    fn dead(&mut self, step: &mut Step<'_, H>) {
        self.current = None;
        step.host.end_current();
        self.fresh(step);
        if matches!(self.state, State::Over) {
            // Over => Hold: the attempt that runs is joined.
            self.state = State::Hold;
            return;
        }
        let memo = match &mut self.state {
            State::Cool { terminal, .. } => terminal.take(),
            _ => None,
        };
        if let Some(error) = memo {
            return self.fail(step, error, None);
        }
        self.attempt += 1;
        self.state = State::Pending;
        if step.host.has_rule() {
            self.start(step, false, false);
        } else {
            self.settle(step);
        }
    }
}

/// `base` doubled `times`, at most `most`.
fn doubled(base: Duration, times: u32, most: Duration) -> Duration {
    base.saturating_mul(2u32.saturating_pow(times)).min(most)
}

/// Somewhere between nothing and all of `ceiling` ("full jitter").
fn jittered(ceiling: Duration, random: u64) -> Duration {
    let share = (random >> 11) as f64 / (1u64 << 53) as f64;
    Duration::try_from_secs_f64(ceiling.as_secs_f64() * share).unwrap_or(ceiling)
}

#[cfg(test)]
#[path = "model.rs"]
mod model;
#[cfg(test)]
#[path = "steps.rs"]
mod steps;
