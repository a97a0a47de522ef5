//! Tests of `RenewalGate`, with values of any type.

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

type Fetch = Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;

/// A fetch that counts its calls and takes one second.
fn counting() -> (Arc<AtomicU32>, impl Fn() -> Fetch) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let fetch = move || -> Fetch {
        let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(number)
        })
    };
    (count, fetch)
}

#[tokio::test(start_paused = true)]
async fn many_rejections_of_one_value_fetch_one() {
    let (count, fetch) = counting();
    let gate = RenewalGate::new(0, fetch);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let gate = gate.clone();
        let permit = gate.acquire().await.unwrap();
        tasks.spawn(async move {
            let generation = permit.generation();
            let next = gate.reject(&permit).await.unwrap();
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
    let (count, fetch) = counting();
    let gate = RenewalGate::new(0, fetch);
    let old = gate.acquire().await.unwrap();
    assert_eq!(*gate.reject(&old).await.unwrap(), 1);
    assert_eq!(*gate.reject(&old).await.unwrap(), 1);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_07_close_during_a_renewal_is_never_undone() {
    let (_, fetch) = counting();
    let gate = RenewalGate::new(0, fetch);
    let permit = gate.acquire().await.unwrap();
    let mut waiting = task::spawn(gate.reject(&permit));
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
async fn hazard_20_a_panic_before_the_future_is_one_failed_attempt() {
    let first = Arc::new(AtomicU32::new(0));
    let calls = first.clone();
    let gate = RenewalGate::pending(move || {
        assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "intended panic");
        async { Ok::<_, BoxError>(5) }
    });
    assert_eq!(*gate.acquire().await.unwrap(), 5);
    assert_eq!(first.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn hazard_22_a_waiter_that_polls_late_still_gets_the_value() {
    let (_, fetch) = counting();
    let gate = RenewalGate::pending(fetch);
    let mut waiting: Vec<_> = (0..3).map(|_| task::spawn(gate.acquire())).collect();
    // One was polled before the value is there, and the others were not.
    assert_pending!(waiting[0].poll());
    tokio::time::sleep(Duration::from_secs(2)).await;
    for task in &mut waiting {
        assert_eq!(*assert_ready!(task.poll()).unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_09_the_end_of_an_attempt_affects_only_that_attempt() {
    let (count, fetch) = counting();
    let gate = RenewalGate::new(0, fetch);
    let first = gate.renew().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.replace(10).unwrap();
    assert_eq!(first.await.unwrap_err().kind(), RenewalErrorKind::Superseded);
    let second = gate.renew().unwrap();
    // The first attempt would have ended now.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(*gate.acquire().await.unwrap(), 10);
    second.await.unwrap();
    assert_eq!((*gate.acquire().await.unwrap(), count.load(Ordering::Relaxed)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn hazard_16_the_drop_of_a_value_may_use_the_gate() {
    struct LocksOnDrop(Option<RenewalGate<LocksOnDrop>>);
    impl Drop for LocksOnDrop {
        fn drop(&mut self) {
            // Deadlocks if values are dropped under the gate's lock.
            if let Some(gate) = &self.0 {
                gate.waiting();
                let _ = gate.try_acquire();
            }
        }
    }
    let gate = RenewalGate::new(LocksOnDrop(None), || async { Ok::<_, BoxError>(LocksOnDrop(None)) });
    gate.replace(LocksOnDrop(Some(gate.clone()))).unwrap();
    gate.replace(LocksOnDrop(Some(gate.clone()))).unwrap();
    gate.clear().unwrap();
    assert!(gate.acquire().await.is_ok());
    gate.close();
}

#[tokio::test(start_paused = true)]
async fn an_early_renewal_keeps_the_value_until_the_next_is_there() {
    let (_, fetch) = counting();
    let gate = RenewalGate::new(0, fetch);
    let renewal = gate.renew().unwrap();
    assert_eq!(*gate.acquire().await.unwrap(), 0);
    assert_eq!(renewal.await.unwrap(), 2);
    assert_eq!(*gate.acquire().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_acquires_from_its_own_gate_gets_an_error() {
    let slot: Arc<std::sync::Mutex<Option<RenewalGate<u32>>>> = Arc::default();
    let inside = slot.clone();
    let gate = RenewalGate::pending(move || {
        let gate = inside.lock().unwrap().clone().unwrap();
        async move { gate.acquire().await.map(|permit| *permit).map_err(PermanentError::new) }
    });
    *slot.lock().unwrap() = Some(gate.clone());
    let error = gate.acquire().await.unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::Permanent);
    let permanent = std::error::Error::source(&error).unwrap();
    assert_eq!(permanent.to_string(), "permanent error");
    assert!(permanent.source().unwrap().to_string().contains("its own gate"));
    *slot.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_without_a_rejection_releases_the_others() {
    let (_, fetch) = counting();
    let config = GateConfig::new().release(Release::ProbeFirst);
    let gate = RenewalGate::with_config(None, fetch, config).unwrap();
    let mut tasks: Vec<_> = (0..3).map(|_| task::spawn(gate.acquire())).collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let probe = assert_ready!(tasks[0].poll()).unwrap();
    assert_pending!(tasks[1].poll());
    drop(probe);
    // Both are released, although neither has been dropped.
    let _second = assert_ready!(tasks[1].poll()).unwrap();
    assert!(assert_ready!(tasks[2].poll()).is_ok());
}

#[tokio::test]
async fn a_limit_of_zero_is_an_error() {
    let error = RenewalGate::with_config(
        Some(1),
        || async { Ok::<_, BoxError>(2) },
        GateConfig::new().max_waiting(0),
    );
    assert_eq!(error.unwrap_err().setting(), "max_waiting");
}

/// Creates a runtime that a test drives and drops.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// A fetch whose first calls end as given; later ones succeed.
fn fetching(first: impl IntoIterator<Item = Call>) -> impl Fn() -> Fetch {
    let first = std::sync::Mutex::new(first.into_iter().collect::<std::collections::VecDeque<_>>());
    let count = AtomicU32::new(0);
    move || -> Fetch {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let call = first.lock().unwrap().pop_front();
        Box::pin(async move {
            match call {
                Some(Call::Fails) => Err("the server is down".into()),
                Some(Call::Panics) => panic!("intended panic"),
                Some(Call::Hangs) => std::future::pending().await,
                None => Ok(number),
            }
        })
    }
}

enum Call {
    Fails,
    Panics,
    Hangs,
}

fn one_failure() -> GateConfig {
    GateConfig::new().max_attempts(1)
}

#[tokio::test(start_paused = true)]
async fn hazard_19_a_panic_and_a_timeout_are_different_errors() {
    let fetch = fetching([Call::Panics, Call::Hangs, Call::Fails]);
    let gate = RenewalGate::with_config(None, fetch, one_failure()).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(gate.acquire().await.unwrap_err().kind());
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(kinds, [RenewalErrorKind::Panicked, RenewalErrorKind::TimedOut, RenewalErrorKind::Failed]);
    assert_eq!(*gate.acquire().await.unwrap(), 4);
}

#[test]
fn hazard_21_a_renewal_whose_runtime_shuts_down_is_a_failed_attempt() {
    // The timer of a backoff is lost with the runtime as well.
    for first in [Call::Hangs, Call::Fails] {
        let gate = RenewalGate::pending(fetching([first]));
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
        let acquired = here.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), waiting.into_inner())
                .await
                .expect("it does not wait for a runtime that shut down")
        });
        assert!(acquired.is_ok());
    }
}

#[test]
fn hazard_21_the_last_attempt_that_is_aborted_is_an_error() {
    let gate = RenewalGate::with_config(None, fetching([Call::Hangs]), one_failure()).unwrap();
    let (here, away) = (runtime(), runtime());
    let mut waiting = task::spawn(gate.acquire());
    away.block_on(async { assert_pending!(task::spawn(gate.acquire()).poll()) });
    here.block_on(async { assert_pending!(waiting.poll()) });
    drop(away);
    let error = here.block_on(async { assert_ready!(waiting.poll()) }).unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::Aborted);
}

#[test]
fn hazard_21_a_renewal_on_a_runtime_that_is_not_driven_times_out() {
    let gate = RenewalGate::pending(fetching([Call::Hangs]));
    let (here, away) = (runtime(), runtime());
    away.block_on(async {
        assert_pending!(task::spawn(gate.acquire()).poll());
        tokio::task::yield_now().await;
    });
    // The other runtime is not driven from now on, and so the timeout of its task does not fire.
    let acquired =
        here.block_on(async { tokio::time::timeout(Duration::from_secs(60), gate.acquire()).await });
    assert!(acquired.expect("it does not wait for a runtime that is not driven").is_ok());
}

#[test]
fn outside_a_runtime_no_caller_waits() {
    let gate = RenewalGate::pending(fetching([]));
    let error = assert_ready!(task::spawn(gate.acquire()).poll()).unwrap_err();
    assert_eq!((error.kind(), gate.waiting()), (RenewalErrorKind::NoRuntime, 0));
    // The renewal that it started waits for a caller inside a runtime.
    let error = assert_ready!(task::spawn(gate.renew().unwrap()).poll()).unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::NoRuntime);
    assert_eq!(*runtime().block_on(gate.acquire()).unwrap(), 1);
    assert_eq!(*gate.try_acquire().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backoff_and_a_staggered_release_end_by_a_timer() {
    let release = Release::Staggered { burst: 1, every: Duration::from_secs(1) };
    let config = GateConfig::new().release(release).backoff(Duration::from_secs(8), Duration::from_secs(8));
    let gate = RenewalGate::with_config(None, fetching([Call::Fails]), config).unwrap();
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
async fn a_renewal_may_acquire_from_another_gate() {
    let other = RenewalGate::pending(fetching([]));
    let inner = other.clone();
    let gate = RenewalGate::pending(move || {
        let inner = inner.clone();
        async move { inner.acquire().await.map(|permit| *permit + 10).map_err(PermanentError::new) }
    });
    assert_eq!(*gate.acquire().await.unwrap(), 11);
    // The thread no longer runs a renewal of the first gate.
    assert_eq!(*other.acquire().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_23_a_waiter_that_times_out_leaves_the_queue() {
    let config = GateConfig::new().max_wait(Duration::from_secs(3)).attempt_timeout(Duration::from_secs(60));
    let gate = RenewalGate::with_config(None, fetching([Call::Hangs]), config).unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(gate.acquire().await.unwrap_err().kind(), RenewalErrorKind::WaitTimedOut);
    assert_eq!((start.elapsed().as_secs(), gate.waiting()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn debug_shows_the_generation_and_no_value() {
    let gate = RenewalGate::new(4711, fetching([]));
    let permit = gate.acquire().await.unwrap();
    let clone = gate.clone();
    assert_eq!(
        format!("{gate:?} {permit:?}"),
        "RenewalGate { generation: Some(1), waiting: 0 } Permit { generation: 1, .. }"
    );
    clone.clear().unwrap();
    assert!(gate.try_acquire().is_none());
    let mut waiting = task::spawn(gate.acquire());
    assert_pending!(waiting.poll());
    assert_eq!(format!("{gate:?}"), "RenewalGate { generation: None, waiting: 1 }");
    drop(waiting);
    assert_eq!(gate.waiting(), 0);
    assert_eq!(format!("{:?}", gate.renew().unwrap()), "RenewalHandle { .. }");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_renewal_leaves_no_task() {
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
    // The first renewal has a handle that is not polled, the second one a waiter.
    let handle = gate.renew().unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&held), 3);
    gate.clear().unwrap();
    assert_eq!(handle.await.unwrap_err().kind(), RenewalErrorKind::Superseded);
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
async fn each_pause_is_drawn_at_random() {
    let times: Arc<std::sync::Mutex<Vec<_>>> = Arc::default();
    let noted = times.clone();
    let fetch = move || {
        noted.lock().unwrap().push(tokio::time::Instant::now());
        async { Err::<u32, BoxError>("the server is down".into()) }
    };
    let config = GateConfig::new().backoff(Duration::from_secs(8), Duration::from_secs(8));
    let gate = RenewalGate::with_config(None, fetch, config).unwrap();
    assert_eq!(gate.acquire().await.unwrap_err().kind(), RenewalErrorKind::Failed);
    let times = times.lock().unwrap();
    let pauses: Vec<_> = times.windows(2).map(|times| times[1] - times[0]).collect();
    assert_eq!(pauses.len(), 4);
    assert!(pauses.windows(2).any(|pauses| pauses[0] != pauses[1]), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_without_waiters_is_not_retried() {
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
fn a_handle_can_be_polled_outside_the_runtime_of_its_renewal() {
    let gate = RenewalGate::pending(fetching([Call::Fails]));
    let away = runtime();
    let inside = away.enter();
    let mut handle = task::spawn(gate.renew().unwrap());
    drop(inside);
    away.block_on(async {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
    });
    // The first attempt has failed; the timer that starts the next one is on that runtime.
    assert_pending!(handle.poll());
    away.block_on(async { tokio::time::sleep(Duration::from_secs(1)).await });
    assert_eq!(assert_ready!(handle.poll()).unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_maximum_wait_may_be_duration_max() {
    let (_, fetch) = counting();
    let config = GateConfig::new().max_wait(Duration::MAX);
    let gate = RenewalGate::with_config(None, fetch, config).unwrap();
    assert_eq!(*gate.acquire().await.unwrap(), 1);
}

/// Locks a gate when it is dropped, which deadlocks if the lock is held.
struct LocksOnDrop(Arc<std::sync::Mutex<Option<RenewalGate<u32>>>>);

impl Drop for LocksOnDrop {
    fn drop(&mut self) {
        if let Some(gate) = &*self.0.lock().unwrap() {
            gate.waiting();
        }
    }
}

impl std::fmt::Debug for LocksOnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocksOnDrop")
    }
}

impl std::fmt::Display for LocksOnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an error that locks the gate")
    }
}

impl std::error::Error for LocksOnDrop {}

#[tokio::test(start_paused = true)]
async fn errors_are_dropped_after_the_lock() {
    let slot: Arc<std::sync::Mutex<Option<RenewalGate<u32>>>> = Arc::default();
    let (count, _) = counting();
    let inside = Arc::clone(&slot);
    let gate = RenewalGate::pending(move || {
        let fails = count.fetch_add(1, Ordering::Relaxed) == 0;
        let error = fails.then(|| LocksOnDrop(inside.clone()));
        async move { error.map_or(Ok(2), Err) }
    });
    *slot.lock().unwrap() = Some(gate.clone());
    assert_eq!(*gate.acquire().await.unwrap(), 2);
    *slot.lock().unwrap() = None;
}
