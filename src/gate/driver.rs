//! Where a renewal runs: a spawned task, so that no request that gives up cancels or repeats it.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use super::{
    core::{Attempt, Failure, Fault},
    error::{RenewalError, RenewalErrorKind},
    keeper::{Drive, Gate, Keeper},
};

/// Whether the caller runs inside a tokio runtime.
pub(crate) fn is_in_runtime() -> bool {
    Handle::try_current().is_ok()
}

/// Runs one attempt on the runtime of the caller.
///
/// The runtime is taken at the start of each attempt, never kept: a gate outlives the runtime that it was first used on. Where
/// there is none, the attempt waits for somebody who is inside one.
pub(crate) fn spawn<K: Keeper>(keeper: &Arc<K>, mut drive: Drive<K>) {
    let Ok(runtime) = Handle::try_current() else {
        return keeper.gate().keep_unlaunched(drive);
    };
    drive.cause = tracing::Span::current();
    let attempt = drive.attempt;
    let mut guard = Guard { keeper: keeper.clone(), attempt, request: drive.request.take() };
    let deadline = keeper.limits().attempt;
    let ancestors = Ancestors::here().with(identify(keeper));
    let run = async move {
        drive.request = guard.request.take();
        let renewal = Scope { ancestors, inner: renew(&guard.keeper, drive) };
        let result = match tokio::time::timeout(deadline, renewal).await {
            Ok(result) => result,
            Err(_) => Err(Failure { terminal: false, error: Fault::DeadlineElapsed.into() }),
        };
        guard.finish(result);
    };
    let task = runtime.spawn(run);
    keeper.gate().set_driver(attempt, task.abort_handle());
}

/// The keeper's own closure is called on the first poll, inside the task: a panic in it is a lost driver like any other.
async fn renew<K: Keeper>(
    keeper: &Arc<K>,
    drive: Drive<K>,
) -> Result<Option<Arc<K::Value>>, Failure<RenewalError>> {
    keeper.renew(drive).await
}

/// Ticks the gate at `at`; the alarm is lost where there is no runtime to wait on, and with its runtime.
pub(crate) fn set_alarm<K: Keeper>(keeper: &Arc<K>, at: Duration, number: u64) {
    let alarm = Alarm { keeper: Arc::downgrade(keeper), number };
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    let wait = at.saturating_sub(keeper.now());
    let task = runtime.spawn(async move {
        tokio::time::sleep(wait).await;
        alarm.ring();
    });
    keeper.gate().set_alarm(number, task.abort_handle());
}

/// Tells its gate when it is dropped without having rung.
struct Alarm<K: Keeper> {
    keeper: Weak<K>,
    number: u64,
}

impl<K: Keeper> Alarm<K> {
    fn ring(mut self) {
        if let Some(keeper) = std::mem::take(&mut self.keeper).upgrade() {
            Gate::tick(&keeper);
        }
    }
}

impl<K: Keeper> Drop for Alarm<K> {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.gate().lose_alarm(self.number);
        }
    }
}

fn transient(kind: RenewalErrorKind) -> Failure<RenewalError> {
    Failure { terminal: false, error: RenewalError::new(kind) }
}

/// Reports its attempt as lost unless the attempt has reported by itself.
struct Guard<K: Keeper> {
    keeper: Arc<K>,
    attempt: Attempt,
    /// The attempt's request, until the task is polled for the first time.
    request: Option<K::Request>,
}

impl<K: Keeper> Guard<K> {
    fn finish(mut self, result: Result<Option<Arc<K::Value>>, Failure<RenewalError>>) {
        let attempt = std::mem::replace(&mut self.attempt, 0);
        Gate::driver_done(&self.keeper, attempt, result);
    }
}

impl<K: Keeper> Drop for Guard<K> {
    fn drop(&mut self) {
        if self.attempt != 0 {
            if let Some(request) = self.request.take() {
                Gate::keep_request(&self.keeper, self.attempt, request);
            }
            let kind =
                if std::thread::panicking() { RenewalErrorKind::Panicked } else { RenewalErrorKind::Aborted };
            Gate::driver_done(&self.keeper, self.attempt, Err(transient(kind)));
        }
    }
}

thread_local! {
    /// The gates whose renewals are being polled on this thread.
    static ANCESTORS: RefCell<Ancestors> = const { RefCell::new(Ancestors(None)) };
}

/// The gates that wait for what runs here, innermost first.
#[derive(Clone)]
struct Ancestors(Option<Arc<(usize, Ancestors)>>);

impl Ancestors {
    fn here() -> Self {
        ANCESTORS.with_borrow(Clone::clone)
    }

    fn with(self, gate: usize) -> Self {
        Self(Some(Arc::new((gate, self))))
    }

    fn contains(&self, gate: usize) -> bool {
        self.0.as_deref().is_some_and(|(own, outer)| *own == gate || outer.contains(gate))
    }
}

fn identify<K>(keeper: &Arc<K>) -> usize {
    Arc::as_ptr(keeper) as usize
}

/// Whether the caller runs inside a renewal of this gate, and would wait for itself.
pub(crate) fn is_reentrant<K: Keeper>(keeper: &Arc<K>) -> bool {
    ANCESTORS.with_borrow(|ancestors| ancestors.0.is_some() && ancestors.contains(identify(keeper)))
}

pin_project! {
    /// A future that is polled with its ancestors in place.
    struct Scope<F> {
        ancestors: Ancestors,
        #[pin]
        inner: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        /// Puts the outer ancestors back, also when the poll panics.
        struct Restore(Option<Ancestors>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let outer = self.0.take().expect("it is taken once");
                ANCESTORS.with_borrow_mut(|ancestors| *ancestors = outer);
            }
        }
        let this = self.project();
        let own = this.ancestors.clone();
        let outer = ANCESTORS.with_borrow_mut(|ancestors| std::mem::replace(ancestors, own));
        let _restore = Restore(Some(outer));
        this.inner.poll(context)
    }
}
