//! Tests of single steps, with times and numbers that the search of small worlds does not cover.

use std::time::Duration;

use super::{
    Admission, Arrival, Attempt, CandidateBase, Charge, Core, CoreError, DiscardReason, DoubtOutcome,
    EffectSink, Ended, Epoch, Failure, FailureKind, Generation, Grant, Ignored, Limits, Refusal, Rejection,
    Release, ReportOutcome, State, Step, VerificationId, Verified,
};
use crate::waiters::Ticket;

use FailureKind::{Permanent, Transient};

fn generation(number: u64) -> Generation {
    Generation::new(number)
}

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Cause {
    CoreError(CoreError),
    Reported(u8),
}

impl From<CoreError> for Cause {
    fn from(error: CoreError) -> Self {
        Self::CoreError(error)
    }
}

/// Records some of the effects.
#[derive(Default)]
struct TestSink {
    rule: bool,
    woken: Vec<u8>,
    dropped: Vec<u8>,
    errors: Vec<Cause>,
    started: Vec<Attempt>,
    aborts: u32,
    verifies: bool,
    verifications: Vec<VerificationId>,
}

impl EffectSink for TestSink {
    type Waker = u8;
    type Error = Cause;

    fn has_rule(&self) -> bool {
        self.rule
    }
    fn can_verify(&self) -> bool {
        self.verifies
    }
    fn verify(&mut self, _generation: Generation, id: VerificationId) {
        self.verifications.push(id);
    }
    fn end_current(&mut self) {}
    fn new_pending(&mut self) {}
    fn candidate(&mut self, _generation: Generation, _base: CandidateBase) {}
    fn discard(&mut self, _reason: DiscardReason) {}
    fn promote(&mut self) {}
    fn install(&mut self, _generation: Generation) {}
    fn start_attempt(&mut self, attempt: Attempt, _generation: Generation) {
        self.started.push(attempt);
    }
    fn abort_attempt(&mut self) {
        self.aborts += 1;
    }
    fn wake(&mut self, waker: u8) {
        self.woken.push(waker);
    }
    fn drop_waker(&mut self, waker: u8) {
        self.dropped.push(waker);
    }
    fn drop_error(&mut self, error: Cause) {
        self.errors.push(error);
    }
    fn random(&mut self) -> u64 {
        u64::MAX
    }
}

/// A state machine with its effects, its limits and the time.
struct Gate {
    core: Core<TestSink>,
    effects: TestSink,
    limits: Limits,
    now: Duration,
}

impl Gate {
    fn new(core: Core<TestSink>, rule: bool) -> Self {
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
        Self { core, effects: TestSink { rule, ..TestSink::default() }, limits, now: Duration::ZERO }
    }

    fn open() -> Self {
        Self::new(Core::initially_open(), true)
    }

    fn pending() -> Self {
        Self::new(Core::initially_pending(), true)
    }

    /// Creates a gate without a rule: the first request leads.
    fn ruleless() -> Self {
        Self::new(Core::initially_pending(), false)
    }

    fn step<R>(&mut self, event: impl FnOnce(&mut Core<TestSink>, &mut Step<'_, TestSink>) -> R) -> R {
        event(&mut self.core, &mut Step { effects: &mut self.effects, limits: &self.limits, now: self.now })
    }

    fn reject(&mut self, rejection: Rejection) -> ReportOutcome {
        let grant = Grant { generation: self.core.current().unwrap(), role: None };
        self.step(|core, step| core.report_rejected(step, grant, rejection))
    }

    /// Reports the acceptance of a request that was sent in `epoch`.
    fn accept(&mut self, epoch: Epoch) {
        let grant = Grant { generation: self.core.current().unwrap(), role: None };
        self.step(|core, step| core.report_good(step, grant, epoch));
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

    /// The task that was started last ends.
    fn done(&mut self, result: Result<(), Failure<Cause>>) -> bool {
        let attempt = *self.effects.started.last().expect("one was started");
        self.step(|core, step| core.attempt_ended(step, attempt, result))
    }

    fn fail(&mut self, kind: FailureKind, number: u8) -> bool {
        self.done(Err(Failure { kind, error: Cause::Reported(number) }))
    }

    fn renew(&mut self) -> Result<Ticket, Ignored> {
        self.step(|core, step| core.renew(step))
    }

    fn clear(&mut self) {
        self.step(|core, step| core.clear(step)).expect("it is not closed");
    }

    fn store_waker(&mut self, ticket: Ticket, waker: u8) {
        *self.core.waker(ticket) = Some(waker);
    }
}

#[test]
fn a_timer_is_set_for_changes_that_no_poll_makes() {
    let mut gate = Gate::open();
    assert_eq!(gate.core.next_timer(), None);
    // Overlap: the task has its own timeout. A timer is set only while a handle waits.
    let result = gate.renew().unwrap();
    assert_eq!((gate.core.state(), gate.core.next_timer()), (&State::Overlap, Some(10 * SECOND)));
    assert_eq!(gate.core.attempt_deadline(), Some(10 * SECOND));
    gate.core.drop_result_waiter(result);
    assert_eq!(gate.core.next_timer(), None);
    assert_eq!(gate.core.attempt_deadline(), Some(10 * SECOND));

    // Hold, with a waiting request and no handle.
    let mut gate = Gate::pending();
    let waiter = gate.wait();
    assert_eq!((gate.core.state(), gate.core.next_timer()), (&State::Hold, None));
    // Backoff, while a caller waits.
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.next_timer(), Some(SECOND));
    assert_eq!(gate.core.attempt_deadline(), None);
    gate.step(|core, step| core.drop_waiter(step, waiter));
    assert_eq!(gate.core.next_timer(), None);
    let result = gate.renew().unwrap();
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.next_timer(), Some(SECOND), "a handle waits as well");
    gate.core.drop_result_waiter(result);
    assert_eq!(gate.core.next_timer(), None);

    // An explicit request is retried, with or without waiters.
    let result = gate.step(|core, step| core.renew_with(step)).unwrap();
    gate.core.drop_result_waiter(result);
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.next_timer(), Some(SECOND));

    // A lead, while a request waits behind it.
    let mut gate = Gate::ruleless();
    gate.pass();
    assert_eq!((gate.core.state(), gate.core.next_timer()), (&State::Lead { taken: true }, None));
    gate.wait();
    assert_eq!(gate.core.next_timer(), Some(10 * SECOND));

    // A staggered release.
    let mut gate = Gate::pending();
    gate.limits.release = Release::Staggered { burst: 1, every: 3 * SECOND };
    let waiters = [gate.wait(), gate.wait()];
    assert!(gate.done(Ok(())));
    assert_eq!(gate.core.next_timer(), Some(3 * SECOND));
    assert!(gate.poll(waiters[1]).is_none());
    gate.now = 3 * SECOND;
    assert!(gate.poll(waiters[1]).is_some(), "its turn comes exactly at that time");
    assert_eq!(gate.core.state(), &State::Open);
}

#[test]
fn a_gate_is_idle_while_no_attempt_runs_and_no_caller_waits() {
    let mut gate = Gate::open();
    assert!(gate.core.is_idle());
    let result = gate.renew().unwrap();
    assert!(!gate.core.is_idle());
    gate.core.drop_result_waiter(result);
    assert!(!gate.core.is_idle(), "a renewal runs without waiters");
    assert!(gate.done(Ok(())));
    assert!(gate.core.is_idle());

    let mut gate = Gate::pending();
    assert!(gate.core.is_idle());
    let waiter = gate.wait();
    assert!(!gate.core.is_idle());
    assert!(gate.fail(Transient, 1));
    assert!(!gate.core.is_idle(), "a request waits for the next attempt");
    gate.step(|core, step| core.drop_waiter(step, waiter));
    assert!(gate.core.is_idle(), "a backoff without waiters");
    let result = gate.renew().unwrap();
    assert!(gate.fail(Transient, 1));
    assert!(!gate.core.is_idle(), "a handle waits for the next attempt");
    gate.core.drop_result_waiter(result);
    assert!(gate.core.is_idle());
    let result = gate.step(|core, step| core.renew_with(step)).unwrap();
    assert!(gate.core.is_explicit());
    gate.core.drop_result_waiter(result);
    assert!(gate.fail(Transient, 1));
    assert!(!gate.core.is_idle(), "the explicit request is retried");
    gate.clear();
    assert!(gate.core.is_idle() && !gate.core.is_explicit());
}

#[test]
fn wake_all_wakes_all_waiters_and_removes_none() {
    let mut gate = Gate::pending();
    let waiters = [gate.wait(), gate.wait()];
    gate.store_waker(waiters[0], 1);
    gate.store_waker(waiters[1], 2);
    let result = gate.renew().unwrap();
    *gate.core.result_waker(result) = Some(3);
    let mut woken = Vec::new();
    gate.core.wake_all(|waker| woken.push(waker));
    assert_eq!((woken, gate.core.waiting()), (vec![1, 2, 3], 2));
    assert!(gate.done(Ok(())));
    assert_eq!(gate.core.current(), Some(generation(2)));
    assert_eq!(gate.step(|core, step| core.poll_result(step, result)), Some(Ended::Renewed(generation(2))));
}

#[test]
fn hazard_26_the_limit_of_waiters_is_exact() {
    let mut gate = Gate::pending();
    for _ in 0..3 {
        gate.wait();
    }
    assert_eq!(gate.admit(), Admission::Refuse(Refusal::Overloaded));
    assert_eq!(gate.core.waiting(), 3);
}

#[test]
fn hazard_33_the_window_of_the_rate_limit_slides() {
    let mut gate = Gate::open();
    gate.limits.max_starts = 2;
    for second in [0, 30] {
        gate.now = second * SECOND;
        gate.renew().unwrap();
        assert!(gate.done(Ok(())));
    }
    gate.now = 60 * SECOND;
    let result = gate.renew().unwrap();
    // The current value stays in use until the first start leaves the window.
    assert_eq!(gate.core.state(), &State::Cooldown { until: 100 * SECOND, permanent_error: None });
    let ended = gate.step(|core, step| core.poll_result(step, result));
    assert_eq!(ended, Some(Ended::Failed(Cause::CoreError(CoreError::TooManyRenewals))));
    gate.now = 100 * SECOND;
    gate.tick();
    assert_eq!(gate.core.state(), &State::Open);
    gate.renew().unwrap();
    assert!(gate.done(Ok(())));

    // Without a current value, all requests get the error until the next start leaves the window.
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

    // A request that would lead gets the error immediately.
    let mut gate = Gate::ruleless();
    gate.limits.max_starts = 1;
    let lead = gate.pass();
    gate.step(|core, step| core.report_rejected(step, lead, Rejection::First));
    gate.now = 5 * SECOND;
    assert_eq!(
        gate.admit(),
        Admission::Refuse(Refusal::Failed(Cause::CoreError(CoreError::TooManyRenewals)))
    );
}

#[test]
fn pauses_double_up_to_their_maximum() {
    let mut gate = Gate::pending();
    gate.limits.max_attempts = 5;
    gate.wait();
    // Pauses of 1, 2, 3 and 3 seconds.
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
    // The sink drops the errors that no caller gets.
    assert_eq!(gate.effects.errors.len(), 4);
    // Failed for 20, 40 and 50 seconds.
    let mut failed_at = 9;
    for pause in [20, 40, 50] {
        assert!(gate.fail(Transient, 2));
        let failed =
            State::Failed { error: Cause::Reported(2), retry_at: Some((failed_at + pause) * SECOND) };
        assert_eq!(gate.core.state(), &failed);
        failed_at += pause;
        gate.now = failed_at * SECOND;
        gate.wait();
        assert_eq!(gate.core.state(), &State::Hold);
    }
    // The first accepted request resets all counts.
    assert!(gate.done(Ok(())));
    let current = gate.core.current().unwrap();
    gate.core.prove(current);
    gate.reject(Rejection::First);
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.state(), &State::Backoff { until: gate.now + SECOND });
}

#[test]
fn hazard_34_a_renewed_value_that_is_rejected_first_counts_as_a_failed_renewal() {
    let mut gate = Gate::pending();
    gate.limits.max_attempts = 3;
    gate.limits.max_starts = 10;
    for failures in 1..=3 {
        gate.wait();
        assert!(gate.done(Ok(())));
        assert_eq!(gate.reject(Rejection::First), ReportOutcome::Ended);
        assert_eq!(gate.core.failures, failures);
        if failures < 3 {
            assert!(matches!(gate.core.state(), State::Backoff { .. }), "{failures}");
            gate.now += 10 * SECOND;
            gate.tick();
        }
    }
    let error = Cause::CoreError(CoreError::Rejected);
    assert!(matches!(gate.core.state(), State::Failed { error: last, .. } if *last == error));
    // A value that the caller gave is not the result of a renewal.
    gate.step(|core, step| core.replace(step)).unwrap();
    assert_eq!(gate.reject(Rejection::First), ReportOutcome::Ended);
    assert_eq!((gate.core.state(), gate.core.failures), (&State::Hold, 0));
}

#[test]
fn hazard_53_renewals_that_work_never_reach_the_cap() {
    let mut gate = Gate::open();
    gate.limits.max_starts = 2;
    for _ in 0..10 {
        let current = gate.core.current().unwrap();
        gate.core.prove(current);
        assert_eq!(gate.reject(Rejection::First), ReportOutcome::Ended);
        assert!(gate.done(Ok(())));
    }
}

#[test]
fn hazard_54_the_cap_keeps_a_value_that_works() {
    let mut gate = Gate::open();
    gate.limits.max_starts = 2;
    gate.core.prove(generation(1));
    // Two early renewals fail.
    for _ in 0..2 {
        gate.step(|core, step| core.renew(step)).unwrap();
        assert!(gate.fail(Transient, 1));
    }
    assert_eq!(gate.reject(Rejection::First), ReportOutcome::Kept);
    assert_eq!(gate.core.current(), Some(generation(1)));
    // A value without evidence of life is not kept.
    gate.core.is_proven = false;
    assert_eq!(gate.reject(Rejection::First), ReportOutcome::Ended);
    assert!(matches!(gate.core.state(), State::Failed { .. }));
}

#[test]
fn a_doubt_is_settled_by_a_later_request_only() {
    let mut gate = Gate::open();
    let before = gate.core.epoch();
    let ReportOutcome::InDoubt(doubt) = gate.reject(Rejection::Repeated) else { panic!("it is in doubt") };
    *gate.core.doubt_waker(doubt) = Some(7);
    let after = gate.core.epoch();
    gate.accept(before);
    assert_eq!(gate.core.poll_doubt(doubt), None);
    assert!(!gate.core.is_idle());
    gate.accept(after);
    assert_eq!(gate.effects.woken, [7]);
    assert_eq!(gate.core.poll_doubt(doubt), Some(DoubtOutcome::Accepted));
    assert!(gate.core.is_idle());
}

#[test]
fn a_doubt_without_evidence_ends_the_value_once_per_request() {
    let mut gate = Gate::open();
    let [used, free, other] = [(); 3].map(|()| match gate.reject(Rejection::Repeated) {
        ReportOutcome::InDoubt(doubt) => doubt,
        outcome => panic!("{outcome:?}"),
    });
    let elapsed =
        |gate: &mut Gate, doubt, charge| gate.step(|core, step| core.doubt_elapsed(step, doubt, charge));
    assert_eq!(elapsed(&mut gate, used, Charge::Used), DoubtOutcome::Kept);
    assert_eq!(gate.core.state(), &State::Open);
    assert_eq!(elapsed(&mut gate, free, Charge::Free), DoubtOutcome::Declared);
    assert_eq!(gate.core.state(), &State::Hold);
    assert_eq!(elapsed(&mut gate, other, Charge::Used), DoubtOutcome::Ended, "it ended with the value");
}

#[test]
fn a_doubt_without_evidence_keeps_a_renewed_value_that_no_request_has_proven() {
    let mut gate = Gate::pending();
    gate.wait();
    assert!(gate.done(Ok(())));
    let ReportOutcome::InDoubt(doubt) = gate.reject(Rejection::Repeated) else { panic!("it is in doubt") };
    let outcome = gate.step(|core, step| core.doubt_elapsed(step, doubt, Charge::Free));
    assert_eq!((outcome, gate.core.failures), (DoubtOutcome::Kept, 0));
}

#[test]
fn the_number_of_doubts_is_limited() {
    let mut gate = Gate::open();
    gate.limits.max_waiting = 1;
    assert!(matches!(gate.reject(Rejection::Repeated), ReportOutcome::InDoubt(_)));
    assert_eq!(gate.reject(Rejection::Repeated), ReportOutcome::Kept);
}

#[test]
fn one_verification_runs_at_a_time_and_decides_the_doubts_before_it() {
    let mut gate = Gate::open();
    gate.effects.verifies = true;
    let mut doubts = Vec::new();
    for _ in 0..3 {
        match gate.reject(Rejection::First) {
            ReportOutcome::InDoubt(doubt) => doubts.push(doubt),
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(gate.effects.verifications.len(), 1);
    let first = gate.effects.verifications[0];
    gate.step(|core, step| core.verified(step, first, Verified::Accepted));
    assert_eq!(gate.core.poll_doubt(doubts[0]), Some(DoubtOutcome::Accepted));
    assert_eq!(gate.core.poll_doubt(doubts[1]), None);
    assert_eq!(gate.effects.verifications.len(), 2, "the others were raised after it was sent");
    gate.step(|core, step| core.verified(step, first, Verified::Rejected));
    assert_eq!(gate.core.state(), &State::Open, "the first has ended");
    let second = gate.effects.verifications[1];
    gate.step(|core, step| core.verified(step, second, Verified::Rejected));
    assert_eq!(gate.core.state(), &State::Hold);
    assert_eq!(gate.core.poll_doubt(doubts[2]), Some(DoubtOutcome::Ended));
}

#[test]
fn hazard_24_an_attempt_times_out_exactly_at_its_deadline() {
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
    assert!(!gate.done(Ok(())), "it is too late");
}

#[test]
fn a_permanent_error_of_an_early_renewal_is_kept_until_the_value_expires() {
    let mut gate = Gate::open();
    let renew_early =
        |gate: &mut Gate, generation| gate.step(|core, step| core.renew_early(step, generation));
    renew_early(&mut gate, generation(2));
    assert_eq!(gate.core.state(), &State::Open, "another generation is near its limit");
    renew_early(&mut gate, generation(1));
    assert_eq!(gate.core.state(), &State::Overlap);
    assert!(gate.fail(Transient, 1));
    assert_eq!(gate.core.state(), &State::Cooldown { until: 7 * SECOND, permanent_error: None });
    renew_early(&mut gate, generation(1));
    assert_eq!(gate.effects.started.len(), 1, "no limit starts another attempt during the cooldown");
    gate.now = 7 * SECOND;
    renew_early(&mut gate, generation(1));
    assert!(gate.fail(Permanent, 2));
    let cooldown = State::Cooldown { until: Duration::MAX, permanent_error: Some(Cause::Reported(2)) };
    assert_eq!(gate.core.state(), &cooldown);
    // When the value expires as well, all requests get the permanent error.
    let current = gate.pass();
    assert_eq!(
        gate.step(|core, step| core.report_rejected(step, current, Rejection::First)),
        ReportOutcome::Ended
    );
    assert_eq!(gate.core.state(), &State::Failed { error: Cause::Reported(2), retry_at: None });
    assert_eq!(gate.effects.errors, [Cause::Reported(1)]);
    gate.clear();
    assert_eq!(gate.effects.errors, [Cause::Reported(1), Cause::Reported(2)]);

    let mut gate = Gate::new(Core::initially_open(), false);
    renew_early(&mut gate, generation(1));
    assert_eq!(gate.core.state(), &State::Open, "there is no rule to renew it by");
}

#[test]
fn a_renewal_without_a_rule_is_ignored() {
    let mut gate = Gate::ruleless();
    assert_eq!(gate.renew(), Err(Ignored::NoRule));
    // A running attempt can be joined, also when a request leads.
    let lead = gate.pass();
    let result = gate.renew().unwrap();
    gate.step(|core, step| core.report_good(step, lead, Epoch::default()));
    assert_eq!(gate.step(|core, step| core.poll_result(step, result)), Some(Ended::Renewed(generation(2))));
    // A later call supersedes the earlier ones.
    let first = gate.step(|core, step| core.renew_with(step)).unwrap();
    let second = gate.renew().unwrap();
    let third = gate.step(|core, step| core.renew_with(step)).unwrap();
    for result in [first, second] {
        assert_eq!(gate.step(|core, step| core.poll_result(step, result)), Some(Ended::Superseded));
    }
    // An explicit request is retried without a rule.
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
fn a_handle_gets_an_error_when_no_request_is_left_to_lead() {
    let mut gate = Gate::ruleless();
    let lead = gate.pass();
    let result = gate.renew().unwrap();
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    assert_eq!(gate.core.state(), &State::Pending);
    let ended = gate.step(|core, step| core.poll_result(step, result));
    assert_eq!(ended, Some(Ended::Failed(Cause::CoreError(CoreError::Aborted))));
}

#[test]
fn the_waker_and_error_of_a_dropped_waiter_go_to_the_sink() {
    let mut gate = Gate::pending();
    let (dropped, failed) = (gate.wait(), gate.wait());
    gate.store_waker(dropped, 1);
    gate.store_waker(failed, 2);
    gate.step(|core, step| core.drop_waiter(step, dropped));
    assert_eq!(gate.effects.dropped, [1]);
    assert!(gate.fail(Permanent, 3));
    assert_eq!(gate.effects.woken, [2]);
    gate.step(|core, step| core.drop_waiter(step, failed));
    assert_eq!(gate.effects.errors, [Cause::Reported(3)], "an error that was not fetched");
}

#[test]
fn a_role_is_valid_only_for_its_own_attempt_and_value() {
    let mut gate = Gate::ruleless();
    let lead = gate.pass();
    assert!(gate.core.may_send(lead));
    assert!(!gate.core.may_send(Grant { role: None, ..lead }));
    assert!(!gate.core.may_send(Grant { generation: lead.generation.next(), ..lead }));
    // A dropped lead uses up no start, and its number is not used again.
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    assert!(!gate.core.may_send(lead));
    let next = gate.pass();
    assert!(next.role > lead.role && next.generation > lead.generation);
    gate.step(|core, step| core.report_good(step, lead, Epoch::default()));
    assert_eq!(gate.core.state(), &State::Lead { taken: true });
    gate.step(|core, step| core.report_good(step, next, Epoch::default()));
    assert_eq!((gate.core.state(), gate.core.current()), (&State::Open, Some(next.generation)));
    assert!(gate.core.may_send(Grant { generation: next.generation, role: None }));
}

#[test]
fn each_end_of_a_probe_increments_the_attempt() {
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
            0 => gate.step(|core, step| core.report_good(step, probe, Epoch::default())),
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
                gate.step(|core, step| core.report_rejected(step, probe, Rejection::First));
            }
        }
        assert!(Some(gate.core.attempt) > probe.role, "round {round}");
        // Its role has ended: later reports change nothing.
        let state = gate.core.state().clone();
        gate.step(|core, step| core.drop_role(step, probe.role.unwrap()));
        gate.step(|core, step| core.report_error(step, probe));
        assert_eq!(gate.core.state(), &state, "round {round}");
        gate.step(|core, step| core.drop_waiter(step, second));
        gate.clear();
    }
}

#[test]
fn each_start_and_each_end_of_an_attempt_increments_its_number() {
    let mut gate = Gate::open();
    let mut last = gate.core.attempt;
    let mut incremented = |gate: &Gate, by: &str| {
        assert!(gate.core.attempt > last, "{by}");
        last = gate.core.attempt;
    };
    gate.renew().unwrap();
    incremented(&gate, "a start");
    assert!(gate.fail(Transient, 1));
    incremented(&gate, "a failure");
    gate.renew().unwrap();
    incremented(&gate, "the next start");
    assert!(gate.done(Ok(())));
    incremented(&gate, "a commit");
    gate.clear();
    incremented(&gate, "a clear");
    gate.effects.rule = false;
    let lead = gate.pass();
    incremented(&gate, "a lead");
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    assert_eq!(gate.core.state(), &State::Pending);
    incremented(&gate, "a dropped lead");
}

#[test]
fn an_unused_lead_goes_to_the_first_request_that_polls() {
    let mut gate = Gate::ruleless();
    let lead = gate.pass();
    let (first, second) = (gate.wait(), gate.wait());
    gate.store_waker(first, 1);
    gate.store_waker(second, 2);
    // A dropped lead goes to the oldest waiter, until the role times out.
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
    // Then the other waiters are woken, and the first that polls leads.
    gate.now = 2 * SECOND;
    gate.tick();
    assert_eq!(gate.effects.woken, [1, 2]);
    let lead = gate.poll(second).unwrap().unwrap();
    assert_eq!(gate.core.state(), &State::Lead { taken: true });
    assert!(gate.core.may_send(lead));
    assert!(gate.poll(first).is_none(), "it polls too late");
    // A new request may be the first as well.
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    gate.now = 4 * SECOND;
    let lead = gate.pass();
    assert!(gate.core.may_send(lead));
    // A waiter that is dropped hands its lead on.
    gate.step(|core, step| core.drop_role(step, lead.role.unwrap()));
    gate.step(|core, step| core.drop_waiter(step, first));
    let lead = gate.poll(third).unwrap().unwrap();
    assert_eq!((gate.core.state(), gate.core.waiting()), (&State::Lead { taken: true }, 0));
    assert!(gate.core.may_send(lead));
}

#[test]
fn a_waiter_without_a_role_does_not_affect_the_lead() {
    let mut gate = Gate::ruleless();
    let lead = gate.pass();
    let waiter = gate.wait();
    gate.step(|core, step| core.drop_waiter(step, waiter));
    assert!(gate.core.may_send(lead));
    assert_eq!(gate.core.state(), &State::Lead { taken: true });
}

#[test]
fn release_fast_needs_an_open_gate_and_no_outcome() {
    let mut gate = Gate::pending();
    let failed = gate.wait();
    assert!(gate.fail(Permanent, 1));
    gate.clear();
    let waits = gate.wait();
    let last = gate.core.last;
    gate.store_waker(waits, 2);
    assert_eq!(gate.core.release_fast(waits), None, "the gate is not open");
    assert_eq!(gate.step(|core, step| core.replace(step)), Ok(last.next()));
    gate.store_waker(waits, 3);
    assert_eq!(gate.core.release_fast(failed), None, "it has an error to fetch");
    assert_eq!(gate.core.release_fast(waits), Some(Some(3)));
    assert_eq!(gate.poll(failed), Some(Err(Refusal::Failed(Cause::Reported(1)))));
    assert_eq!(gate.core.waiting(), 0);
}

#[test]
fn an_explicit_request_is_retried_without_a_rule_and_without_waiters() {
    let mut gate = Gate::ruleless();
    let result = gate.step(|core, step| core.renew_with(step)).unwrap();
    gate.core.drop_result_waiter(result);
    assert!(gate.fail(Transient, 1));
    gate.now = SECOND;
    gate.tick();
    assert_eq!((gate.core.state(), gate.effects.started.len()), (&State::Hold, 2));
}

#[test]
fn only_the_limit_of_the_current_generation_ends_it() {
    let mut gate = Gate::open();
    gate.step(|core, step| core.limit_reached(step, generation(2)));
    assert_eq!(gate.core.state(), &State::Open);
    gate.step(|core, step| core.limit_reached(step, generation(1)));
    assert_eq!((gate.core.state(), gate.core.current()), (&State::Hold, None));
}
