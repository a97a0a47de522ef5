//! The gate alone, around a value of any type.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready, task};
use tower_client_sessions::gate::{
    BoxError, GateConfig, PermanentError, Release, RenewalErrorKind, RenewalGate,
};

type Supply = Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;

/// A supplier that counts, and takes a second.
fn counting() -> (Arc<AtomicU32>, impl Fn() -> Supply) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let supply = move || -> Supply {
        let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(number)
        })
    };
    (count, supply)
}

#[tokio::test(start_paused = true)]
async fn many_rejections_of_one_value_fetch_one() {
    let (count, supply) = counting();
    let gate = RenewalGate::new(0, supply);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let gate = gate.clone();
        let pass = gate.acquire().await.unwrap();
        tasks.spawn(async move {
            let generation = pass.generation();
            let next = gate.reject(&pass).await.unwrap();
            (generation, next.generation(), *next)
        });
    }
    for (before, after, value) in tasks.join_all().await {
        assert_eq!((before, after, value), (1, 2, 1));
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_gets_the_current_value() {
    let (count, supply) = counting();
    let gate = RenewalGate::new(0, supply);
    let old = gate.acquire().await.unwrap();
    assert_eq!(*gate.reject(&old).await.unwrap(), 1);
    assert_eq!(*gate.reject(&old).await.unwrap(), 1);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_07_close_during_a_renewal_is_never_undone() {
    let (_, supply) = counting();
    let gate = RenewalGate::new(0, supply);
    let pass = gate.acquire().await.unwrap();
    let mut waiting = task::spawn(gate.reject(&pass));
    assert_pending!(waiting.poll());
    gate.close();
    assert!(waiting.is_woken());
    assert_eq!(assert_ready!(waiting.poll()).unwrap_err().kind(), RenewalErrorKind::Closed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(gate.acquire().await.unwrap_err().kind(), RenewalErrorKind::Closed);
    assert_eq!(gate.replace(7).unwrap_err().kind(), RenewalErrorKind::Closed);
    assert!(gate.try_acquire().is_none());
}

#[tokio::test(start_paused = true)]
async fn hazard_20_a_supplier_that_panics_before_its_future_poisons_nothing() {
    let first = Arc::new(AtomicU32::new(0));
    let calls = first.clone();
    let gate = RenewalGate::pending(move || {
        assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "panic wanted by the test");
        async { Ok::<_, BoxError>(5) }
    });
    assert_eq!(*gate.acquire().await.unwrap(), 5);
    assert_eq!(first.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn hazard_22_waiters_are_level_triggered() {
    let (_, supply) = counting();
    let gate = RenewalGate::pending(supply);
    let mut waiting: Vec<_> = (0..3).map(|_| task::spawn(gate.acquire())).collect();
    // One has polled, the others have not even begun when the value is there.
    assert_pending!(waiting[0].poll());
    tokio::time::sleep(Duration::from_secs(2)).await;
    for task in &mut waiting {
        assert_eq!(*assert_ready!(task.poll()).unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_09_ending_a_flight_removes_only_that_flight() {
    let (count, supply) = counting();
    let gate = RenewalGate::new(0, supply);
    let first = gate.renew().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.replace(10).unwrap();
    assert_eq!(first.await.unwrap_err().kind(), RenewalErrorKind::Superseded);
    let second = gate.renew().unwrap();
    // The first one's end would have been now.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(*gate.acquire().await.unwrap(), 10);
    second.await.unwrap();
    assert_eq!((*gate.acquire().await.unwrap(), count.load(Ordering::Relaxed)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn hazard_16_the_supplier_and_the_values_drop_may_use_the_gate() {
    struct Nosy(Option<RenewalGate<Nosy>>);
    impl Drop for Nosy {
        fn drop(&mut self) {
            // Would deadlock if values were dropped under the gate's lock.
            if let Some(gate) = &self.0 {
                gate.waiting();
                let _ = gate.try_acquire();
            }
        }
    }
    let gate = RenewalGate::new(Nosy(None), || async { Ok::<_, BoxError>(Nosy(None)) });
    gate.replace(Nosy(Some(gate.clone()))).unwrap();
    gate.replace(Nosy(Some(gate.clone()))).unwrap();
    gate.clear().unwrap();
    assert!(gate.acquire().await.is_ok());
    gate.close();
}

#[tokio::test(start_paused = true)]
async fn an_early_renewal_keeps_the_value_until_the_next_is_there() {
    let (_, supply) = counting();
    let gate = RenewalGate::new(0, supply);
    let renewal = gate.renew().unwrap();
    assert_eq!(*gate.acquire().await.unwrap(), 0);
    assert_eq!(renewal.await.unwrap(), 2);
    assert_eq!(*gate.acquire().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_supplier_that_enters_its_own_gate_is_told() {
    let slot: Arc<std::sync::Mutex<Option<RenewalGate<u32>>>> = Arc::default();
    let inside = slot.clone();
    let gate = RenewalGate::pending(move || {
        let gate = inside.lock().unwrap().clone().unwrap();
        async move { gate.acquire().await.map(|pass| *pass).map_err(PermanentError::new) }
    });
    *slot.lock().unwrap() = Some(gate.clone());
    let error = gate.acquire().await.unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::Permanent);
    let refused = std::error::Error::source(&error).unwrap();
    assert_eq!(refused.to_string(), "refused for good");
    assert!(refused.source().unwrap().to_string().contains("its own gate"));
    *slot.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_comes_back_unrejected_lets_the_others_out() {
    let (_, supply) = counting();
    let config = GateConfig::new().release(Release::ProbeFirst);
    let gate = RenewalGate::with_config(None, supply, config).unwrap();
    let mut tasks: Vec<_> = (0..3).map(|_| task::spawn(gate.acquire())).collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let probe = assert_ready!(tasks[0].poll()).unwrap();
    assert_pending!(tasks[1].poll());
    drop(probe);
    // All of them, though none of the others has come back.
    let _second = assert_ready!(tasks[1].poll()).unwrap();
    assert!(assert_ready!(tasks[2].poll()).is_ok());
}

#[tokio::test]
async fn zero_bounds_are_refused() {
    let error = RenewalGate::with_config(
        Some(1),
        || async { Ok::<_, BoxError>(2) },
        GateConfig::new().max_waiting(0),
    );
    assert_eq!(error.unwrap_err().setting(), "max_waiting");
}

/// A runtime of its own, which a test can drive and drop.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// A supplier whose first calls go as told; later ones are good.
fn going(first: impl IntoIterator<Item = Going>) -> impl Fn() -> Supply {
    let first = std::sync::Mutex::new(first.into_iter().collect::<std::collections::VecDeque<_>>());
    let count = AtomicU32::new(0);
    move || -> Supply {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let going = first.lock().unwrap().pop_front();
        Box::pin(async move {
            match going {
                Some(Going::Fails) => Err("the server is down".into()),
                Some(Going::Panics) => panic!("panic wanted by the test"),
                Some(Going::Hangs) => std::future::pending().await,
                None => Ok(number),
            }
        })
    }
}

enum Going {
    Fails,
    Panics,
    Hangs,
}

fn one_failure() -> GateConfig {
    GateConfig::new().max_attempts(1)
}

#[tokio::test(start_paused = true)]
async fn hazard_19_a_future_that_panics_and_one_that_hangs_are_told_apart() {
    let supply = going([Going::Panics, Going::Hangs, Going::Fails]);
    let gate = RenewalGate::with_config(None, supply, one_failure()).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(gate.acquire().await.unwrap_err().kind());
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(kinds, [RenewalErrorKind::Panicked, RenewalErrorKind::TimedOut, RenewalErrorKind::Failed]);
    assert_eq!(*gate.acquire().await.unwrap(), 4);
}

#[test]
fn hazard_21_a_renewal_whose_runtime_goes_away_is_a_failed_attempt() {
    // And with the runtime goes the alarm of whatever waits for a pause to be over.
    for first in [Going::Hangs, Going::Fails] {
        let gate = RenewalGate::pending(going([first]));
        let (here, away) = (runtime(), runtime());
        let mut starts = task::spawn(gate.acquire());
        let mut waiting = task::spawn(Box::pin(gate.acquire()));
        away.block_on(async {
            assert_pending!(starts.poll());
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        });
        here.block_on(async { assert_pending!(waiting.poll()) });
        drop(away);
        assert!(waiting.is_woken());
        let entered = here.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), waiting.into_inner())
                .await
                .expect("it waits for a dead runtime")
        });
        assert!(entered.is_ok());
    }
}

#[test]
fn hazard_21_a_renewal_that_is_lost_for_good_says_so() {
    let gate = RenewalGate::with_config(None, going([Going::Hangs]), one_failure()).unwrap();
    let (here, away) = (runtime(), runtime());
    let mut waiting = task::spawn(gate.acquire());
    away.block_on(async { assert_pending!(task::spawn(gate.acquire()).poll()) });
    here.block_on(async { assert_pending!(waiting.poll()) });
    drop(away);
    let error = here.block_on(async { assert_ready!(waiting.poll()) }).unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::Aborted);
}

#[test]
fn hazard_21_a_renewal_on_a_runtime_that_does_not_move_is_given_up() {
    let gate = RenewalGate::pending(going([Going::Hangs]));
    let (here, away) = (runtime(), runtime());
    away.block_on(async {
        assert_pending!(task::spawn(gate.acquire()).poll());
        tokio::task::yield_now().await;
    });
    // Nobody drives the other runtime from now on, and its driver's deadline with it.
    let entered =
        here.block_on(async { tokio::time::timeout(Duration::from_secs(60), gate.acquire()).await });
    assert!(entered.expect("it waits for a runtime that stands still").is_ok());
}

#[test]
fn outside_a_runtime_nobody_waits() {
    let gate = RenewalGate::pending(going([]));
    let error = assert_ready!(task::spawn(gate.acquire()).poll()).unwrap_err();
    assert_eq!((error.kind(), gate.waiting()), (RenewalErrorKind::NoRuntime, 0));
    // What it started waits for somebody who is inside one, and so does one who asks.
    let error = assert_ready!(task::spawn(gate.renew().unwrap()).poll()).unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::NoRuntime);
    assert_eq!(*runtime().block_on(gate.acquire()).unwrap(), 1);
    assert_eq!(*gate.try_acquire().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_and_a_burst_end_though_nobody_looks() {
    let release = Release::Staggered { burst: 1, every: Duration::from_secs(1) };
    let config = GateConfig::new().release(release).backoff(Duration::from_secs(8), Duration::from_secs(8));
    let gate = RenewalGate::with_config(None, going([Going::Fails]), config).unwrap();
    let start = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let gate = gate.clone();
        tasks.spawn(async move { gate.acquire().await.map(|_| start.elapsed()).unwrap() });
    }
    let mut times: Vec<_> = tasks.join_all().await;
    times.sort();
    assert!(times[0] <= Duration::from_secs(8), "{times:?}");
    assert!((950..1050).contains(&(times[1] - times[0]).as_millis()), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_may_enter_another_gate() {
    let other = RenewalGate::pending(going([]));
    let inner = other.clone();
    let gate = RenewalGate::pending(move || {
        let inner = inner.clone();
        async move { inner.acquire().await.map(|pass| *pass + 10).map_err(PermanentError::new) }
    });
    assert_eq!(*gate.acquire().await.unwrap(), 11);
    // And after it, on the same thread, this one is nobody's own.
    assert_eq!(*other.acquire().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_23_one_who_is_held_too_long_leaves_the_line() {
    let config = GateConfig::new().max_wait(Duration::from_secs(3)).attempt_timeout(Duration::from_secs(60));
    let gate = RenewalGate::with_config(None, going([Going::Hangs]), config).unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(gate.acquire().await.unwrap_err().kind(), RenewalErrorKind::WaitTimedOut);
    assert_eq!((start.elapsed().as_secs(), gate.waiting()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_gate_shows_its_generation_and_no_value() {
    let gate = RenewalGate::new(4711, going([]));
    let pass = gate.acquire().await.unwrap();
    let waiting = gate.clone();
    assert_eq!(
        format!("{gate:?} {pass:?}"),
        "RenewalGate { generation: Some(1), held: 0 } Pass { generation: 1, .. }"
    );
    waiting.clear().unwrap();
    assert!(gate.try_acquire().is_none());
    let mut held = task::spawn(gate.acquire());
    assert_pending!(held.poll());
    assert_eq!(format!("{gate:?}"), "RenewalGate { generation: None, held: 1 }");
    drop(held);
    assert_eq!(gate.waiting(), 0);
    assert_eq!(format!("{:?}", gate.renew().unwrap()), "GateRenewal { .. }");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_no_longer_counts_is_stopped_and_leaves_no_task() {
    let held = Arc::new(());
    let inside = held.clone();
    let gate = RenewalGate::pending(move || {
        let held = inside.clone();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok::<_, BoxError>(1)
        }
    });
    // A first one that is only asked for, and a second one that somebody waits for.
    let asked = gate.renew().unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&held), 3);
    gate.clear().unwrap();
    assert_eq!(asked.await.unwrap_err().kind(), RenewalErrorKind::Superseded);
    let waiting = task::spawn(gate.renew().unwrap());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&held), 3);
    gate.replace(7).unwrap();
    drop(waiting);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&held), 2);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_drawn_anew_each_time() {
    let times: Arc<std::sync::Mutex<Vec<_>>> = Arc::default();
    let noted = times.clone();
    let supply = move || {
        noted.lock().unwrap().push(tokio::time::Instant::now());
        async { Err::<u32, BoxError>("the server is down".into()) }
    };
    let config = GateConfig::new().backoff(Duration::from_secs(8), Duration::from_secs(8));
    let gate = RenewalGate::with_config(None, supply, config).unwrap();
    assert_eq!(gate.acquire().await.unwrap_err().kind(), RenewalErrorKind::Failed);
    let times = times.lock().unwrap();
    let pauses: Vec<_> = times.windows(2).map(|times| times[1] - times[0]).collect();
    assert_eq!(pauses.len(), 4);
    assert!(pauses.windows(2).any(|pauses| pauses[0] != pauses[1]), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_nobody_waits_for_any_more_is_not_tried_again() {
    let (count, _) = counting();
    let counted = count.clone();
    let gate = RenewalGate::pending(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err::<u32, BoxError>("the server is down".into()) }
    });
    drop(gate.renew().unwrap());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn outside_a_runtime_one_may_wait_for_what_runs_inside_one() {
    let gate = RenewalGate::pending(going([Going::Fails]));
    let away = runtime();
    let inside = away.enter();
    let mut asked = task::spawn(gate.renew().unwrap());
    drop(inside);
    away.block_on(async {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
    });
    // The first attempt has failed; the alarm that starts the next one is over there.
    assert_pending!(asked.poll());
    away.block_on(async { tokio::time::sleep(Duration::from_secs(1)).await });
    assert_eq!(assert_ready!(asked.poll()).unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wait_may_be_as_long_as_time_itself() {
    let (_, supply) = counting();
    let config = GateConfig::new().max_wait(Duration::MAX);
    let gate = RenewalGate::with_config(None, supply, config).unwrap();
    assert_eq!(*gate.acquire().await.unwrap(), 1);
}

/// Looks at a gate when it is dropped, which would deadlock under the gate's lock.
struct Nosy(Arc<std::sync::Mutex<Option<RenewalGate<u32>>>>);

impl Drop for Nosy {
    fn drop(&mut self) {
        if let Some(gate) = &*self.0.lock().unwrap() {
            gate.waiting();
        }
    }
}

impl std::fmt::Debug for Nosy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nosy")
    }
}

impl std::fmt::Display for Nosy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a failure that is nosy")
    }
}

impl std::error::Error for Nosy {}

#[tokio::test(start_paused = true)]
async fn errors_are_dropped_after_the_lock() {
    let slot: Arc<std::sync::Mutex<Option<RenewalGate<u32>>>> = Arc::default();
    let (count, _) = counting();
    let inside = Arc::clone(&slot);
    let gate = RenewalGate::pending(move || {
        let fails = count.fetch_add(1, Ordering::Relaxed) == 0;
        let nosy = fails.then(|| Nosy(inside.clone()));
        async move { nosy.map_or(Ok(2), Err) }
    });
    *slot.lock().unwrap() = Some(gate.clone());
    assert_eq!(*gate.acquire().await.unwrap(), 2);
    *slot.lock().unwrap() = None;
}
