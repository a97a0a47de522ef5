//! Searches every schedule of a few threads on one gate.
//!
//! `RUSTFLAGS="--cfg sessions_loom" cargo test -p tower-client-sessions --lib loom` runs it. Under
//! that cfg the gate's mutex, its atomics and its published pointer are loom's; each attempt is a
//! thread that the source starts.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use loom::{
    future::block_on,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use super::{
    config::GateConfig,
    error::RenewalErrorKind,
    gate::{Gate, GateOwner, GateRef},
    permit::{Admitted, RawPermit},
    source::{AttemptContext, RenewalFuture, RenewalSource},
    state::{Arrival, Generation, Limits},
    task::TaskReports,
    version::{UsageLimits, VersionState},
};
use crate::jitter::Jitter;

struct Plain {
    gate: Gate<Self>,
    has_rule: bool,
    launched: AtomicU32,
}

struct Value {
    version: VersionState,
}

impl Plain {
    fn open(has_rule: bool) -> Arc<Self> {
        let gate = Gate::open(
            Arc::new(Value { version: VersionState::current(Generation::FIRST, Duration::ZERO, 0) }),
            Jitter::seeded(0),
        );
        Arc::new(Self { gate, has_rule, launched: AtomicU32::new(0) })
    }

    fn launched(&self) -> u32 {
        self.launched.load(Ordering::Relaxed)
    }
}

fn value(generation: Generation) -> Arc<Value> {
    Arc::new(Value { version: VersionState::new(generation, Duration::ZERO, 0) })
}

impl RenewalSource for Plain {
    type Value = Value;
    type Request = ();

    fn version(value: &Value) -> &VersionState {
        &value.version
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

    fn renew(self: &Arc<Self>, _attempt: AttemptContext<Self>) -> RenewalFuture<Value> {
        unreachable!("`launch` does not call it")
    }
}

impl GateOwner for Plain {
    fn gate(&self) -> &Gate<Self> {
        &self.gate
    }

    fn launch(self: &Arc<Self>, context: AttemptContext<Self>) {
        self.launched.fetch_add(1, Ordering::Relaxed);
        let source = self.clone();
        thread::spawn(move || source.attempt_ended(context.attempt, Ok(None)));
    }
}

/// Acquires a permit, as a request does.
fn acquire(source: &Arc<Plain>) -> Result<RawPermit<Plain>, RenewalErrorKind> {
    let ticket = match GateRef::new(source).admit(Arrival::First) {
        Admitted::Pass(permit) => return Ok(permit),
        Admitted::Refuse(error) => return Err(error.kind()),
        Admitted::Wait(ticket) => ticket,
    };
    block_on(poll_fn(|context| match GateRef::new(source).poll(ticket, context.waker()) {
        Admitted::Pass(permit) => Poll::Ready(Ok(permit)),
        Admitted::Refuse(error) => Poll::Ready(Err(error.kind())),
        Admitted::Wait(_) => Poll::Pending,
    }))
}

fn generation(permit: &RawPermit<Plain>) -> u64 {
    permit.value.version.generation.get()
}

#[test]
fn hazard_03_two_reports_of_one_generation_start_one_renewal_and_both_get_its_value() {
    // With the attempt these are four threads. All schedules take hours, so this searches those
    // with two preemptions.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let source = Plain::open(true);
        let permits: Vec<_> = (0..2).map(|_| acquire(&source).unwrap()).collect();
        let threads: Vec<_> = permits
            .into_iter()
            .map(|permit| {
                let source = source.clone();
                thread::spawn(move || {
                    GateRef::new(&source).report_first_rejection(&permit);
                    assert_eq!(generation(&acquire(&source).unwrap()), 2);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(source.launched(), 1);
    });
}

#[test]
fn hazard_43_no_request_is_admitted_under_the_old_value_after_clear_returned() {
    loom::model(|| {
        let source = Plain::open(true);
        let cleared = Arc::new(AtomicU32::new(0));
        let other = {
            let (source, cleared) = (source.clone(), cleared.clone());
            thread::spawn(move || {
                let seen = cleared.load(Ordering::Acquire);
                let permit = acquire(&source).unwrap();
                if seen == 1 {
                    assert!(generation(&permit) > 1);
                }
            })
        };
        GateRef::new(&source).clear().unwrap();
        cleared.store(1, Ordering::Release);
        other.join().unwrap();
    });
}

#[test]
fn a_clear_and_a_commit_leave_at_most_one_value() {
    loom::model(|| {
        let source = Plain::open(true);
        drop(GateRef::new(&source).renew().unwrap());
        GateRef::new(&source).clear().unwrap();
        // The attempt still runs. In no schedule does its value become current.
        assert!(source.gate.current().is_none_or(|value| value.version.generation.get() > 2));
        assert!(generation(&acquire(&source).unwrap()) > 2);
    });
}

#[test]
fn hazard_22_a_waiter_that_is_dropped_during_a_commit_loses_no_wake() {
    loom::model(|| {
        let source = Plain::open(true);
        GateRef::new(&source).clear().unwrap();
        let Admitted::Wait(ticket) = GateRef::new(&source).admit(Arrival::First) else {
            return;
        };
        let other = {
            let source = source.clone();
            thread::spawn(move || acquire(&source).unwrap())
        };
        GateRef::new(&source).leave(ticket);
        assert_eq!(generation(&other.join().unwrap()), 2);
        assert_eq!(source.gate.waiting(), 0);
    });
}

#[test]
fn a_dropped_lead_goes_to_the_waiter() {
    loom::model(|| {
        let source = Plain::open(false);
        GateRef::new(&source).clear().unwrap();
        let leader = acquire(&source).unwrap();
        assert!(leader.has_role());
        let other = {
            let source = source.clone();
            thread::spawn(move || {
                let mut permit = acquire(&source).unwrap();
                assert!(permit.has_role());
                GateRef::new(&source).report_good(&mut permit);
            })
        };
        drop(leader);
        other.join().unwrap();
        assert!(source.gate.published().is_some());
    });
}

#[test]
fn hazard_42_a_value_with_one_allowed_use_is_used_once() {
    loom::model(|| {
        let source = Plain::open(false);
        let limits = UsageLimits { uses: Some(1), age: None };
        let mut first = acquire(&source).unwrap();
        let mut second = acquire(&source).unwrap();
        let other = {
            let source = source.clone();
            thread::spawn(move || u32::from(GateRef::new(&source).count_use(&mut second, &limits)))
        };
        let here = u32::from(GateRef::new(&source).count_use(&mut first, &limits));
        assert_eq!(here + other.join().unwrap(), 1);
    });
}

#[test]
fn hazard_14_a_request_that_waits_for_readiness_is_woken_by_a_clear() {
    loom::model(|| {
        let source = Plain::open(true);
        let permit = acquire(&source).unwrap();
        let other = {
            let source = source.clone();
            thread::spawn(move || GateRef::new(&source).clear().unwrap())
        };
        let mut place = None;
        block_on(poll_fn(|context| {
            GateRef::new(&source).watch(&mut place, context.waker());
            if GateRef::new(&source).is_valid(&permit) { Poll::Pending } else { Poll::Ready(()) }
        }));
        GateRef::new(&source).unwatch(place.unwrap());
        other.join().unwrap();
    });
}

#[test]
fn a_renewal_handle_resolves_in_every_order_of_commit_and_close() {
    loom::model(|| {
        let source = Plain::open(true);
        let mut waiter = GateRef::new(&source).renew().unwrap();
        let other = {
            let source = source.clone();
            thread::spawn(move || GateRef::new(&source).close())
        };
        match block_on(poll_fn(|context| Pin::new(&mut waiter).poll(context))) {
            Ok(generation) => assert_eq!(generation, 2),
            Err(error) => assert_eq!(error.kind(), RenewalErrorKind::Closed),
        }
        other.join().unwrap();
    });
}
