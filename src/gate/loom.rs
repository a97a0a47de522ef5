//! Every schedule of a few threads on one gate.
//!
//! Run with `RUSTFLAGS="--cfg sessions_loom" cargo test --lib loom`. Under that cfg the gate's mutex, its atomics and
//! its published pointer are loom's; the driver is a thread that the keeper starts.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use loom::{
    future::block_on,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use super::{
    config::GateConfig,
    core::{Generation, Limits},
    error::RenewalErrorKind,
    jitter::Jitter,
    keeper::{Budget, Drive, Entry, Gate, Keeper, Life, RawPermit, Renewing},
};

struct Plain {
    gate: Gate<Self>,
    has_rule: bool,
    launched: AtomicU32,
}

struct Value {
    life: Life,
}

impl Plain {
    fn open(has_rule: bool) -> Arc<Self> {
        let gate =
            Gate::open(Arc::new(Value { life: Life::current(1, Duration::ZERO, 0) }), Jitter::seeded(0));
        Arc::new(Self { gate, has_rule, launched: AtomicU32::new(0) })
    }

    fn launched(&self) -> u32 {
        self.launched.load(Ordering::Relaxed)
    }
}

fn value(generation: Generation) -> Arc<Value> {
    Arc::new(Value { life: Life::new(generation, Duration::ZERO, 0) })
}

impl Keeper for Plain {
    type Value = Value;
    type Request = ();

    fn gate(&self) -> &Gate<Self> {
        &self.gate
    }

    fn life(value: &Value) -> &Life {
        &value.life
    }

    fn limits(&self) -> Limits {
        GateConfig::new().limits
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn has_rule(&self) -> bool {
        self.has_rule
    }

    fn pending(&self, _candidate: Option<&Arc<Value>>, _failed: Option<&Arc<Value>>) -> Option<Arc<Value>> {
        None
    }

    fn candidate(&self, _pending: Option<&Arc<Value>>, generation: Generation) -> Option<Arc<Value>> {
        Some(value(generation))
    }

    fn renew(self: &Arc<Self>, _drive: Drive<Self>) -> Renewing<Value> {
        unreachable!("launch does not poll it")
    }

    fn launch(self: &Arc<Self>, drive: Drive<Self>) {
        self.launched.fetch_add(1, Ordering::Relaxed);
        let keeper = self.clone();
        thread::spawn(move || Gate::driver_done(&keeper, drive.attempt, Ok(None)));
    }
}

/// Asks for admission and waits, as a request does.
fn enter(keeper: &Arc<Plain>) -> Result<RawPermit<Plain>, RenewalErrorKind> {
    let ticket = match Gate::admit(keeper, false) {
        Entry::Pass(permit) => return Ok(permit),
        Entry::Refuse(error) => return Err(error.kind()),
        Entry::Wait(ticket) => ticket,
    };
    block_on(poll_fn(|context| match Gate::poll(keeper, ticket, context.waker()) {
        Entry::Pass(permit) => Poll::Ready(Ok(permit)),
        Entry::Refuse(error) => Poll::Ready(Err(error.kind())),
        Entry::Wait(_) => Poll::Pending,
    }))
}

fn generation(permit: &RawPermit<Plain>) -> Generation {
    permit.value.life.generation
}

#[test]
fn hazard_03_two_reports_of_one_generation_start_one_renewal_and_both_get_its_value() {
    // With the driver these are four threads: every schedule of two preemptions, since all of them take hours.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let keeper = Plain::open(true);
        let passes: Vec<_> = (0..2).map(|_| enter(&keeper).unwrap()).collect();
        let threads: Vec<_> = passes
            .into_iter()
            .map(|pass| {
                let keeper = keeper.clone();
                thread::spawn(move || {
                    Gate::report_expired(&keeper, pass);
                    assert_eq!(generation(&enter(&keeper).unwrap()), 2);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(keeper.launched(), 1);
    });
}

#[test]
fn hazard_43_after_clear_has_returned_nobody_is_admitted_under_the_old_value() {
    loom::model(|| {
        let keeper = Plain::open(true);
        let cleared = Arc::new(AtomicU32::new(0));
        let other = {
            let (keeper, cleared) = (keeper.clone(), cleared.clone());
            thread::spawn(move || {
                let seen = cleared.load(Ordering::Acquire);
                let pass = enter(&keeper).unwrap();
                if seen == 1 {
                    assert!(generation(&pass) > 1);
                }
            })
        };
        Gate::clear(&keeper).unwrap();
        cleared.store(1, Ordering::Release);
        other.join().unwrap();
    });
}

#[test]
fn a_clear_and_a_commit_leave_one_value_at_most() {
    loom::model(|| {
        let keeper = Plain::open(true);
        drop(Gate::renew(&keeper).unwrap());
        Gate::clear(&keeper).unwrap();
        // The driver of the renewal is under way; whatever it does, what it brings must not be current.
        assert!(keeper.gate.current().is_none_or(|value| value.life.generation > 2));
        assert!(generation(&enter(&keeper).unwrap()) > 2);
    });
}

#[test]
fn hazard_22_a_waiter_that_leaves_while_the_value_comes_takes_nothing_with_it() {
    loom::model(|| {
        let keeper = Plain::open(true);
        Gate::clear(&keeper).unwrap();
        let Entry::Wait(ticket) = Gate::admit(&keeper, false) else {
            return;
        };
        let other = {
            let keeper = keeper.clone();
            thread::spawn(move || enter(&keeper).unwrap())
        };
        Gate::leave(&keeper, ticket);
        assert_eq!(generation(&other.join().unwrap()), 2);
        assert_eq!(keeper.gate.held(), 0);
    });
}

#[test]
fn a_lead_that_is_dropped_reaches_the_one_who_waits() {
    loom::model(|| {
        let keeper = Plain::open(false);
        Gate::clear(&keeper).unwrap();
        let leader = enter(&keeper).unwrap();
        assert!(leader.has_role());
        let other = {
            let keeper = keeper.clone();
            thread::spawn(move || {
                let mut pass = enter(&keeper).unwrap();
                assert!(pass.has_role());
                Gate::report_good(&keeper, &mut pass);
            })
        };
        drop(leader);
        other.join().unwrap();
        assert!(keeper.gate.published().is_some());
    });
}

#[test]
fn hazard_42_a_budget_of_one_is_used_once() {
    loom::model(|| {
        let keeper = Plain::open(false);
        let budget = Budget { uses: Some(1), age: None };
        let first = enter(&keeper).unwrap();
        let second = enter(&keeper).unwrap();
        let other = {
            let keeper = keeper.clone();
            thread::spawn(move || u32::from(Gate::count_send(&keeper, &second, &budget)))
        };
        let here = u32::from(Gate::count_send(&keeper, &first, &budget));
        assert_eq!(here + other.join().unwrap(), 1);
    });
}

#[test]
fn hazard_14_one_who_queues_for_readiness_learns_of_a_clear() {
    loom::model(|| {
        let keeper = Plain::open(true);
        let pass = enter(&keeper).unwrap();
        let other = {
            let keeper = keeper.clone();
            thread::spawn(move || Gate::clear(&keeper).unwrap())
        };
        let mut place = None;
        block_on(poll_fn(|context| {
            Gate::queue(&keeper, &mut place, context.waker());
            if keeper.gate.still_good(&pass) { Poll::Pending } else { Poll::Ready(()) }
        }));
        Gate::unqueue(&keeper, place.unwrap());
        other.join().unwrap();
    });
}

#[test]
fn one_who_asked_learns_how_it_ended_whoever_comes_first() {
    loom::model(|| {
        let keeper = Plain::open(true);
        let mut asker = Gate::renew(&keeper).unwrap();
        let other = {
            let keeper = keeper.clone();
            thread::spawn(move || Gate::close(&keeper))
        };
        match block_on(poll_fn(|context| asker.poll(context))) {
            Ok(generation) => assert_eq!(generation, 2),
            Err(error) => assert_eq!(error.kind(), RenewalErrorKind::Closed),
        }
        other.join().unwrap();
    });
}
