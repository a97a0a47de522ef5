//! Single steps of the core, with times and numbers that no search of small worlds looks at.

use std::time::Duration;

use super::{
    Admission, Arrival, Attempt, CandidateBase, Core, CoreError, DiscardReason, EffectSink, Ended, Failure,
    FailureKind, Generation, Grant, Ignored, Limits, Refusal, Release, ReportOutcome, State, Step,
};
use crate::waiters::Ticket;

use FailureKind::{Permanent, Transient};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Cause {
    CoreError(CoreError),
    Told(u8),
}

impl From<CoreError> for Cause {
    fn from(fault: CoreError) -> Self {
        Self::CoreError(fault)
    }
}

/// A effects that writes down what it is told.
#[derive(Default)]
struct Told {
    rule: bool,
    woken: Vec<u8>,
    forgotten: Vec<u8>,
    errors: Vec<Cause>,
    driven: Vec<Attempt>,
    aborts: u32,
}

impl EffectSink for Told {
    type Waker = u8;
    type Error = Cause;

    fn has_rule(&self) -> bool {
        self.rule
    }
    fn end_current(&mut self) {}
    fn new_pending(&mut self) {}
    fn candidate(&mut self, _generation: Generation, _base: CandidateBase) {}
    fn discard(&mut self, _reason: DiscardReason) {}
    fn promote(&mut self) {}
    fn install(&mut self, _generation: Generation) {}
    fn start_attempt(&mut self, attempt: Attempt, _generation: Generation) {
        self.driven.push(attempt);
    }
    fn abort_attempt(&mut self) {
        self.aborts += 1;
    }
    fn wake(&mut self, waker: u8) {
        self.woken.push(waker);
    }
    fn drop_waker(&mut self, waker: u8) {
        self.forgotten.push(waker);
    }
    fn drop_error(&mut self, error: Cause) {
        self.errors.push(error);
    }
    fn random(&mut self) -> u64 {
        u64::MAX
    }
}

/// A core with its effects, its bounds and the time.
struct Gate {
    core: Core<Told>,
    effects: Told,
    limits: Limits,
    now: Duration,
}

impl Gate {
    fn new(core: Core<Told>, rule: bool) -> Self {
        let limits = Limits {
            max_attempts: 4,
            max_starts: 100,
            start_window: 100 * SECOND,
            max_waiting: 3,
            attempt_timeout: 10 * SECOND,
            retry_backoff: SECOND,
            retry_backoff_max: 3 * SECOND,
            failed_backoff: 20 * SECOND,
            failed_backoff_max: 50 * SECOND,
            cooldown: 7 * SECOND,
            role_timeout: 2 * SECOND,
            release: Release::All,
        };
        Self { core, effects: Told { rule, ..Told::default() }, limits, now: Duration::ZERO }
    }

    fn open() -> Self {
        Self::new(Core::initially_open(), true)
    }

    fn pending() -> Self {
        Self::new(Core::initially_pending(), true)
    }

    /// Without a rule: the first one leads.
    fn ruleless() -> Self {
        Self::new(Core::initially_pending(), false)
    }

    fn step<R>(&mut self, event: impl FnOnce(&mut Core<Told>, &mut Step<'_, Told>) -> R) -> R {
        event(&mut self.core, &mut Step { effects: &mut self.effects, limits: &self.limits, now: self.now })
    }

    fn admit(&mut self) -> Admission<Cause> {
        self.step(|core, step| core.admit(step, Arrival::First))
    }

    #[track_caller]
    fn wait(&mut self) -> Ticket {
        match self.admit() {
            Admission::Wait(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn pass(&mut self) -> Grant {
        match self.admit() {
            Admission::Pass(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    fn poll(&mut self, ticket: Ticket) -> Option<Result<Grant, Refusal<Cause>>> {
        self.step(|core, step| core.poll(step, ticket))
    }

    fn tick(&mut self) {
        self.step(|core, step| core.tick(step));
    }

    /// The driver that was started last ends.
    fn done(&mut self, result: Result<(), Failure<Cause>>) -> bool {
        let attempt = *self.effects.driven.last().expect("one was started");
        self.step(|core, step| core.attempt_ended(step, attempt, result))
    }

    fn fail(&mut self, kind: FailureKind, number: u8) -> bool {
        self.done(Err(Failure { kind, error: Cause::Told(number) }))
    }

    fn renew(&mut self) -> Result<Ticket, Ignored> {
        self.step(|core, step| core.renew(step))
    }

    fn clear(&mut self) {
        self.step(|core, step| core.clear(step)).expect("it is not closed");
    }

    fn sees(&mut self, ticket: Ticket, waker: u8) {
        *self.core.waker(ticket) = Some(waker);
    }
}

#[test]
fn an_alarm_is_set_for_what_nobody_else_notices() {
    let mut gate = Gate::open();
    assert_eq!(gate.core.next_timer(), None);
    // Overlap: the driver bounds itself, unless somebody waits for how it ends.
    let result = gate.renew().unwrap();
    assert_eq!((gate.core.state(), gate.core.next_timer()), (&State::Overlap, Some(10 * SECOND)));
    assert_eq!(gate.core.attempt_deadline(), Some(10 * SECOND));
    gate.core.drop_result_waiter(result);
    assert_eq!(gate.core.next_timer(), None);
    assert_eq!(gate.core.attempt_deadline(), Some(10 * SECOND));

    // Hold, with one who waits and nobody who asked.
    let mut gate = Gate::pending();
    let waiter = gate.wait();
    assert_eq!((gate.core.state(), gate.core.next_timer()), (&State::Hold, None));
    // Backoff, for as long as somebody waits.
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.next_timer(), Some(SECOND));
    assert_eq!(gate.core.attempt_deadline(), None);
    gate.step(|core, step| core.drop_waiter(step, waiter));
    assert_eq!(gate.core.next_timer(), None);
    let result = gate.renew().unwrap();
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.next_timer(), Some(SECOND), "one who asked waits as well");
    gate.core.drop_result_waiter(result);
    assert_eq!(gate.core.next_timer(), None);

    // What `renew_with` was given is tried again, whoever waits.
    let result = gate.step(|core, step| core.renew_with(step)).unwrap();
    gate.core.drop_result_waiter(result);
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.next_timer(), Some(SECOND));

    // A lead, while somebody waits behind it.
    let mut gate = Gate::ruleless();
    gate.pass();
    assert_eq!((gate.core.state(), gate.core.next_timer()), (&State::Lead { taken: true }, None));
    gate.wait();
    assert_eq!(gate.core.next_timer(), Some(10 * SECOND));

    // A burst, whoever waits for it.
    let mut gate = Gate::pending();
    gate.limits.release = Release::Staggered { burst: 1, every: 3 * SECOND };
    let waiters = [gate.wait(), gate.wait()];
    assert!(gate.done(Ok(())));
    assert_eq!(gate.core.next_timer(), Some(3 * SECOND));
    assert!(gate.poll(waiters[1]).is_none());
    gate.now = 3 * SECOND;
    assert!(gate.poll(waiters[1]).is_some(), "its turn comes at the moment, not after it");
    assert_eq!(gate.core.state(), &State::Open);
}

#[test]
fn a_gate_is_idle_while_nothing_is_under_way() {
    let mut gate = Gate::open();
    assert!(gate.core.is_idle());
    let result = gate.renew().unwrap();
    assert!(!gate.core.is_idle());
    gate.core.drop_result_waiter(result);
    assert!(!gate.core.is_idle(), "a renewal runs that nobody waits for");
    assert!(gate.done(Ok(())));
    assert!(gate.core.is_idle());

    let mut gate = Gate::pending();
    assert!(gate.core.is_idle());
    let waiter = gate.wait();
    assert!(!gate.core.is_idle());
    assert!(gate.fail(Transient, 1));
    assert!(!gate.core.is_idle(), "somebody waits for the next attempt");
    gate.step(|core, step| core.drop_waiter(step, waiter));
    assert!(gate.core.is_idle(), "a back-off that nobody waits for");
    let result = gate.renew().unwrap();
    assert!(gate.fail(Transient, 1));
    assert!(!gate.core.is_idle(), "one who asked waits for the next attempt");
    gate.core.drop_result_waiter(result);
    assert!(gate.core.is_idle());
    let result = gate.step(|core, step| core.renew_with(step)).unwrap();
    assert!(gate.core.is_explicit());
    gate.core.drop_result_waiter(result);
    assert!(gate.fail(Transient, 1));
    assert!(!gate.core.is_idle(), "what was given is tried again");
    gate.clear();
    assert!(gate.core.is_idle() && !gate.core.is_explicit());
}

#[test]
fn everybody_is_roused_and_nobody_leaves() {
    let mut gate = Gate::pending();
    let waiters = [gate.wait(), gate.wait()];
    gate.sees(waiters[0], 1);
    gate.sees(waiters[1], 2);
    let result = gate.renew().unwrap();
    *gate.core.result_waker(result) = Some(3);
    let mut roused = Vec::new();
    gate.core.wake_all(|waker| roused.push(waker));
    assert_eq!((roused, gate.core.waiting()), (vec![1, 2, 3], 2));
    assert!(gate.done(Ok(())));
    assert_eq!(gate.core.current(), Some(2));
    assert_eq!(gate.step(|core, step| core.poll_result(step, result)), Some(Ended::Renewed(2)));
}

#[test]
fn hazard_26_the_bound_on_the_held_is_exact() {
    let mut gate = Gate::pending();
    for _ in 0..3 {
        gate.wait();
    }
    assert_eq!(gate.admit(), Admission::Refuse(Refusal::Overloaded));
    assert_eq!(gate.core.waiting(), 3);
}

#[test]
fn hazard_33_the_window_of_starts_slides() {
    let mut gate = Gate::open();
    gate.limits.max_starts = 2;
    for second in [0, 30] {
        gate.now = second * SECOND;
        gate.renew().unwrap();
        assert!(gate.done(Ok(())));
    }
    gate.now = 60 * SECOND;
    let result = gate.renew().unwrap();
    // The value that works is left alone, until the first start is out of the window.
    assert_eq!(gate.core.state(), &State::Cooldown { until: 100 * SECOND, permanent_error: None });
    let ended = gate.step(|core, step| core.poll_result(step, result));
    assert_eq!(ended, Some(Ended::Failed(Cause::CoreError(CoreError::TooManyRenewals))));
    gate.now = 100 * SECOND;
    gate.tick();
    assert_eq!(gate.core.state(), &State::Open);
    gate.renew().unwrap();
    assert!(gate.done(Ok(())));

    // With nothing that works, everybody is told, until the next start is out of it.
    let error = Cause::CoreError(CoreError::TooManyRenewals);
    gate.now = 110 * SECOND;
    gate.clear();
    assert!(matches!(gate.admit(), Admission::Wait(_)));
    assert_eq!(gate.core.state(), &State::Failed { error: error.clone(), retry_at: Some(130 * SECOND) });
    gate.now = 130 * SECOND - Duration::from_nanos(1);
    assert_eq!(gate.admit(), Admission::Refuse(Refusal::Failed(error.clone())));
    gate.now = 130 * SECOND;
    gate.wait();
    assert_eq!(gate.core.state(), &State::Hold);
    assert_eq!(gate.effects.errors, [error]);

    // One that would lead is told at once.
    let mut gate = Gate::ruleless();
    gate.limits.max_starts = 1;
    let lead = gate.pass();
    gate.step(|core, step| core.report_expired(step, lead));
    gate.now = 5 * SECOND;
    assert_eq!(
        gate.admit(),
        Admission::Refuse(Refusal::Failed(Cause::CoreError(CoreError::TooManyRenewals)))
    );
}

#[test]
fn pauses_double_up_to_their_ceilings() {
    let mut gate = Gate::pending();
    gate.limits.max_attempts = 5;
    gate.wait();
    // Backed off for 1, 2, 3 and 3 seconds.
    for until in [1, 3, 6, 9] {
        assert!(gate.fail(Transient, 1));
        assert_eq!(gate.core.state(), &State::Backoff { until: until * SECOND });
        gate.now = until * SECOND - Duration::from_nanos(1);
        gate.tick();
        assert_eq!(gate.core.state(), &State::Backoff { until: until * SECOND });
        gate.now = until * SECOND;
        gate.tick();
        assert_eq!(gate.core.state(), &State::Hold);
    }
    // The errors that nobody gets go out through the effects.
    assert_eq!(gate.effects.errors.len(), 4);
    // Rested for 20, 40 and 50 seconds.
    let mut told = 9;
    for rest in [20, 40, 50] {
        assert!(gate.fail(Transient, 2));
        let failed = State::Failed { error: Cause::Told(2), retry_at: Some((told + rest) * SECOND) };
        assert_eq!(gate.core.state(), &failed);
        told += rest;
        gate.now = told * SECOND;
        gate.wait();
        assert_eq!(gate.core.state(), &State::Hold);
    }
    // Something went well: all counts begin anew.
    assert!(gate.done(Ok(())));
    gate.step(|core, step| {
        core.report_expired(step, Grant { generation: core.current().unwrap(), role: None })
    });
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.state(), &State::Backoff { until: gate.now + SECOND });
}

#[test]
fn hazard_24_a_deadline_is_over_at_its_moment() {
    let mut gate = Gate::pending();
    gate.now = 5 * SECOND;
    gate.wait();
    gate.now = 15 * SECOND - Duration::from_nanos(1);
    gate.tick();
    assert_eq!(gate.core.state(), &State::Hold);
    gate.now = 15 * SECOND;
    gate.tick();
    assert_eq!(gate.core.state(), &State::Backoff { until: 16 * SECOND });
    assert_eq!(gate.effects.aborts, 1);
    assert!(!gate.done(Ok(())), "it is late");
}

#[test]
fn a_failed_overlap_cools_and_its_refusal_is_remembered() {
    let mut gate = Gate::open();
    let due = |gate: &mut Gate, generation| gate.step(|core, step| core.renew_early(step, generation));
    due(&mut gate, 2);
    assert_eq!(gate.core.state(), &State::Open, "that is another generation's budget");
    due(&mut gate, 1);
    assert_eq!(gate.core.state(), &State::Overlap);
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.state(), &State::Cooldown { until: 7 * SECOND, permanent_error: None });
    due(&mut gate, 1);
    assert_eq!(gate.effects.driven.len(), 1, "no budget starts another one yet");
    gate.now = 7 * SECOND;
    due(&mut gate, 1);
    assert!(gate.fail(Permanent, 2));
    let refused = State::Cooldown { until: Duration::MAX, permanent_error: Some(Cause::Told(2)) };
    assert_eq!(gate.core.state(), &refused);
    // When the value dies as well, the refusal is what everybody gets.
    let current = gate.pass();
    assert_eq!(gate.step(|core, step| core.report_expired(step, current)), ReportOutcome::Current);
    assert_eq!(gate.core.state(), &State::Failed { error: Cause::Told(2), retry_at: None });
    assert_eq!(gate.effects.errors, [Cause::Told(1)]);
    gate.clear();
    assert_eq!(gate.effects.errors, [Cause::Told(1), Cause::Told(2)]);

    let mut gate = Gate::new(Core::initially_open(), false);
    due(&mut gate, 1);
    assert_eq!(gate.core.state(), &State::Open, "nobody could renew it");
}

#[test]
fn a_renewal_is_refused_where_nobody_can_run_it() {
    let mut gate = Gate::ruleless();
    assert_eq!(gate.renew(), Err(Ignored::NoRule));
    // One that runs can be joined, whoever runs it.
    let lead = gate.pass();
    let result = gate.renew().unwrap();
    gate.step(|core, step| core.report_good(step, lead));
    assert_eq!(gate.step(|core, step| core.poll_result(step, result)), Some(Ended::Renewed(2)));
    // A later call ends what was under way and tells so.
    let first = gate.step(|core, step| core.renew_with(step)).unwrap();
    let second = gate.renew().unwrap();
    let third = gate.step(|core, step| core.renew_with(step)).unwrap();
    for result in [first, second] {
        assert_eq!(gate.step(|core, step| core.poll_result(step, result)), Some(Ended::Superseded));
    }
    // What `renew_with` was given can be tried again though there is no rule.
    assert!(gate.fail(Transient, 1));
    assert!(gate.renew().is_ok());
    *gate.core.result_waker(third) = Some(9);
    assert_eq!(gate.core.drop_result_waiter(third), (Some(9), None));
    gate.step(|core, step| core.close(step));
    assert_eq!(gate.renew(), Err(Ignored::Closed));
    assert_eq!(gate.step(|core, step| core.clear(step)), Err(Ignored::Closed));
    assert_eq!(gate.admit(), Admission::Refuse(Refusal::Closed));
}

#[test]
fn one_who_asked_for_a_lead_that_nobody_is_left_to_take_is_told() {
    let mut gate = Gate::ruleless();
    let lead = gate.pass();
    let result = gate.renew().unwrap();
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    assert_eq!(gate.core.state(), &State::Pending);
    let ended = gate.step(|core, step| core.poll_result(step, result));
    assert_eq!(ended, Some(Ended::Failed(Cause::CoreError(CoreError::Aborted))));
}

#[test]
fn whoever_leaves_leaves_its_waker_to_be_dropped_after_the_lock() {
    let mut gate = Gate::pending();
    let (goes, told) = (gate.wait(), gate.wait());
    gate.sees(goes, 1);
    gate.sees(told, 2);
    gate.step(|core, step| core.drop_waiter(step, goes));
    assert_eq!(gate.effects.forgotten, [1]);
    assert!(gate.fail(Permanent, 3));
    assert_eq!(gate.effects.woken, [2]);
    gate.step(|core, step| core.drop_waiter(step, told));
    assert_eq!(gate.effects.errors, [Cause::Told(3)], "an outcome that nobody fetched");
}

#[test]
fn a_role_is_good_for_its_own_attempt_and_value_alone() {
    let mut gate = Gate::ruleless();
    let lead = gate.pass();
    assert!(gate.core.may_send(lead));
    assert!(!gate.core.may_send(Grant { role: None, ..lead }));
    assert!(!gate.core.may_send(Grant { generation: lead.generation + 1, ..lead }));
    // A lead that is dropped costs no start, and its number never comes back.
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    assert!(!gate.core.may_send(lead));
    let next = gate.pass();
    assert!(next.role > lead.role && next.generation > lead.generation);
    gate.step(|core, step| core.report_good(step, lead));
    assert_eq!(gate.core.state(), &State::Lead { taken: true });
    gate.step(|core, step| core.report_good(step, next));
    assert_eq!((gate.core.state(), gate.core.current()), (&State::Open, Some(next.generation)));
    assert!(gate.core.may_send(Grant { generation: next.generation, role: None }));
}

#[test]
fn each_fence_raises_the_number() {
    let mut gate = Gate::pending();
    gate.limits.release = Release::ProbeFirst;
    let mut last = None;
    for round in 0..6 {
        let (first, second) = (gate.wait(), gate.wait());
        assert!(gate.done(Ok(())));
        let probe = gate.poll(first).unwrap().unwrap();
        assert!(probe.role > last, "round {round}");
        last = probe.role;
        assert!(gate.poll(second).is_none());
        match round {
            0 => gate.step(|core, step| core.report_good(step, probe)),
            1 => gate.step(|core, step| core.report_error(step, probe)),
            2 => gate.step(|core, step| core.drop_role(step, probe.role.unwrap())),
            3 => {
                gate.now += 10 * SECOND;
                gate.tick();
            }
            4 => {
                gate.renew().unwrap();
            }
            _ => {
                gate.step(|core, step| core.report_expired(step, probe));
            }
        }
        assert!(Some(gate.core.attempt) > probe.role, "round {round}");
        // Its role is over: whatever it says now changes nothing.
        let state = gate.core.state().clone();
        gate.step(|core, step| core.drop_role(step, probe.role.unwrap()));
        gate.step(|core, step| core.report_error(step, probe));
        assert_eq!(gate.core.state(), &state, "round {round}");
        gate.step(|core, step| core.drop_waiter(step, second));
        gate.clear();
    }
}

#[test]
fn each_start_and_each_end_raises_the_number() {
    let mut gate = Gate::open();
    let mut last = gate.core.attempt;
    let mut raised = |gate: &Gate, by: &str| {
        assert!(gate.core.attempt > last, "{by}");
        last = gate.core.attempt;
    };
    gate.renew().unwrap();
    raised(&gate, "a start");
    assert!(gate.fail(Transient, 1));
    raised(&gate, "a failure");
    gate.renew().unwrap();
    raised(&gate, "the next start");
    assert!(gate.done(Ok(())));
    raised(&gate, "a commit");
    gate.clear();
    raised(&gate, "a clear");
    gate.effects.rule = false;
    let lead = gate.pass();
    raised(&gate, "a lead");
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    assert_eq!(gate.core.state(), &State::Pending);
    raised(&gate, "a lead that was given up");
}

#[test]
fn a_lead_that_is_not_taken_goes_to_whoever_looks_first() {
    let mut gate = Gate::ruleless();
    let lead = gate.pass();
    let (first, second) = (gate.wait(), gate.wait());
    gate.sees(first, 1);
    gate.sees(second, 2);
    // Given up by its holder, it is the oldest one's, for so long as one may leave a role untaken.
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    assert_eq!(
        (gate.core.state(), gate.effects.woken.as_slice()),
        (&State::Lead { taken: false }, [1].as_slice())
    );
    assert!(gate.poll(second).is_none());
    let third = gate.wait();
    gate.now = 2 * SECOND - Duration::from_nanos(1);
    gate.tick();
    assert!(gate.poll(second).is_none());
    assert_eq!(gate.effects.woken, [1]);
    // Then the others are told, and the first of them to look has it.
    gate.now = 2 * SECOND;
    gate.tick();
    assert_eq!(gate.effects.woken, [1, 2]);
    let lead = gate.poll(second).unwrap().unwrap();
    assert_eq!(gate.core.state(), &State::Lead { taken: true });
    assert!(gate.core.may_send(lead));
    assert!(gate.poll(first).is_none(), "it comes too late");
    // One that comes may be the first to look as well.
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    gate.now = 4 * SECOND;
    let lead = gate.pass();
    assert!(gate.core.may_send(lead));
    // The oldest one takes it in time, and hands it on when it leaves.
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    gate.step(|core, step| core.drop_waiter(step, first));
    let lead = gate.poll(third).unwrap().unwrap();
    assert_eq!((gate.core.state(), gate.core.waiting()), (&State::Lead { taken: true }, 0));
    assert!(gate.core.may_send(lead));
}

#[test]
fn one_without_a_role_leaves_the_lead_where_it_is() {
    let mut gate = Gate::ruleless();
    let lead = gate.pass();
    let waiter = gate.wait();
    gate.step(|core, step| core.drop_waiter(step, waiter));
    assert!(gate.core.may_send(lead));
    assert_eq!(gate.core.state(), &State::Lead { taken: true });
}

#[test]
fn the_short_way_out_is_for_open_gates_and_those_without_an_outcome() {
    let mut gate = Gate::pending();
    let told = gate.wait();
    assert!(gate.fail(Permanent, 1));
    gate.clear();
    let waits = gate.wait();
    let last = gate.core.last;
    gate.sees(waits, 2);
    assert_eq!(gate.core.release_fast(waits), None, "the gate is shut");
    assert_eq!(gate.step(|core, step| core.replace(step)), Ok(last + 1));
    gate.sees(waits, 3);
    assert_eq!(gate.core.release_fast(told), None, "an error waits for it");
    assert_eq!(gate.core.release_fast(waits), Some(Some(3)));
    assert_eq!(gate.poll(told), Some(Err(Refusal::Failed(Cause::Told(1)))));
    assert_eq!(gate.core.waiting(), 0);
}

#[test]
fn what_was_given_is_tried_again_without_a_rule_and_with_nobody_waiting() {
    let mut gate = Gate::ruleless();
    let result = gate.step(|core, step| core.renew_with(step)).unwrap();
    gate.core.drop_result_waiter(result);
    assert!(gate.fail(Transient, 1));
    gate.now = SECOND;
    gate.tick();
    assert_eq!((gate.core.state(), gate.effects.driven.len()), (&State::Hold, 2));
}

#[test]
fn only_the_current_generations_budget_ends_it() {
    let mut gate = Gate::open();
    gate.step(|core, step| core.limit_reached(step, 2));
    assert_eq!(gate.core.state(), &State::Open);
    gate.step(|core, step| core.limit_reached(step, 1));
    assert_eq!((gate.core.state(), gate.core.current()), (&State::Hold, None));
}
