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
use tower_client_sessions::gate::{BoxError, GateConfig, Refused, Release, RenewalErrorKind, RenewalGate};

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
        let pass = gate.enter().await.unwrap();
        tasks.spawn(async move {
            let generation = pass.generation();
            let next = gate.renew(&pass).await.unwrap();
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
    let old = gate.enter().await.unwrap();
    assert_eq!(*gate.renew(&old).await.unwrap(), 1);
    assert_eq!(*gate.renew(&old).await.unwrap(), 1);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn hazard_07_close_during_a_renewal_is_never_undone() {
    let (_, supply) = counting();
    let gate = RenewalGate::new(0, supply);
    let pass = gate.enter().await.unwrap();
    let mut waiting = task::spawn(gate.renew(&pass));
    assert_pending!(waiting.poll());
    gate.close();
    assert!(waiting.is_woken());
    assert_eq!(assert_ready!(waiting.poll()).unwrap_err().kind(), RenewalErrorKind::Closed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(gate.enter().await.unwrap_err().kind(), RenewalErrorKind::Closed);
    assert_eq!(gate.replace(7).unwrap_err().kind(), RenewalErrorKind::Closed);
    assert!(gate.try_enter().is_none());
}

#[tokio::test(start_paused = true)]
async fn hazard_20_a_supplier_that_panics_before_its_future_poisons_nothing() {
    let first = Arc::new(AtomicU32::new(0));
    let calls = first.clone();
    let gate = RenewalGate::pending(move || {
        assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "panic wanted by the test");
        async { Ok::<_, BoxError>(5) }
    });
    assert_eq!(*gate.enter().await.unwrap(), 5);
    assert_eq!(first.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn hazard_22_waiters_are_level_triggered() {
    let (_, supply) = counting();
    let gate = RenewalGate::pending(supply);
    let mut waiting: Vec<_> = (0..3).map(|_| task::spawn(gate.enter())).collect();
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
    let first = gate.renew_now().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.replace(10).unwrap();
    assert_eq!(first.await.unwrap_err().kind(), RenewalErrorKind::Superseded);
    let second = gate.renew_now().unwrap();
    // The first one's end would have been now.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(*gate.enter().await.unwrap(), 10);
    second.await.unwrap();
    assert_eq!((*gate.enter().await.unwrap(), count.load(Ordering::Relaxed)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn hazard_16_the_supplier_and_the_values_drop_may_use_the_gate() {
    struct Nosy(Option<RenewalGate<Nosy>>);
    impl Drop for Nosy {
        fn drop(&mut self) {
            // Would deadlock if values were dropped under the gate's lock.
            if let Some(gate) = &self.0 {
                gate.held();
                let _ = gate.try_enter();
            }
        }
    }
    let gate = RenewalGate::new(Nosy(None), || async { Ok::<_, BoxError>(Nosy(None)) });
    gate.replace(Nosy(Some(gate.clone()))).unwrap();
    gate.replace(Nosy(Some(gate.clone()))).unwrap();
    gate.clear().unwrap();
    assert!(gate.enter().await.is_ok());
    gate.close();
}

#[tokio::test(start_paused = true)]
async fn an_early_renewal_keeps_the_value_until_the_next_is_there() {
    let (_, supply) = counting();
    let gate = RenewalGate::new(0, supply);
    let renewal = gate.renew_now().unwrap();
    assert_eq!(*gate.enter().await.unwrap(), 0);
    assert_eq!(renewal.await.unwrap(), 2);
    assert_eq!(*gate.enter().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_supplier_that_enters_its_own_gate_is_told() {
    let slot: Arc<std::sync::Mutex<Option<RenewalGate<u32>>>> = Arc::default();
    let inside = slot.clone();
    let gate = RenewalGate::pending(move || {
        let gate = inside.lock().unwrap().clone().unwrap();
        async move { gate.enter().await.map(|pass| *pass).map_err(Refused::new) }
    });
    *slot.lock().unwrap() = Some(gate.clone());
    let error = gate.enter().await.unwrap_err();
    assert_eq!(error.kind(), RenewalErrorKind::Refused);
    let refused = std::error::Error::source(&error).unwrap();
    assert!(refused.source().unwrap().to_string().contains("its own gate"));
    *slot.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_comes_back_unrejected_lets_the_others_out() {
    let (_, supply) = counting();
    let config = GateConfig::new().release(Release::ProbeFirst);
    let gate = RenewalGate::with_config(None, supply, config).unwrap();
    let mut tasks: Vec<_> = (0..3).map(|_| task::spawn(gate.enter())).collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let probe = assert_ready!(tasks[0].poll()).unwrap();
    assert_pending!(tasks[1].poll());
    drop(probe);
    assert!(assert_ready!(tasks[1].poll()).is_ok());
    assert!(assert_ready!(tasks[2].poll()).is_ok());
}

#[tokio::test]
async fn zero_bounds_are_refused() {
    let error =
        RenewalGate::with_config(Some(1), || async { Ok::<_, BoxError>(2) }, GateConfig::new().max_held(0));
    assert_eq!(error.unwrap_err().setting(), "max_held");
}
