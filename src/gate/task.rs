//! The task of an attempt: it is spawned, so that dropping a request neither cancels nor repeats a
//! renewal.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{runtime::Handle, task::AbortHandle};

use super::{
    effects::TimerSetting,
    error::{RenewalError, RenewalErrorKind},
    source::{AttemptContext, RenewalSource},
    state::{Attempt, CoreError, Failure, VerificationId, Verified},
};
use crate::rt::{self, OnTimer};

/// The result of an attempt. `None` as a value means the candidate.
pub(super) type AttemptResult<S> = Result<Option<Arc<<S as RenewalSource>::Value>>, Failure<RenewalError>>;

/// What a task reports to the gate that started it.
pub(super) trait TaskReports: RenewalSource {
    /// The attempt has a task.
    fn attempt_spawned(&self, attempt: Attempt, task: AbortHandle);
    /// There is no runtime to spawn the attempt on.
    fn attempt_not_spawned(&self, attempt: AttemptContext<Self>);
    /// The attempt's request was not sent.
    fn request_unused(self: &Arc<Self>, attempt: Attempt, request: Self::Request);
    fn attempt_ended(self: &Arc<Self>, attempt: Attempt, result: AttemptResult<Self>);

    fn verification_ended(self: &Arc<Self>, id: VerificationId, result: Verified);

    /// The timer has a task.
    fn timer_spawned(&self, number: u64, task: AbortHandle);
    fn timer_fired(self: &Arc<Self>);
    /// The timer will not fire.
    fn timer_lost(&self, number: u64);
}

/// Runs one attempt on the caller's runtime.
///
/// Each attempt looks up the runtime, because a gate may outlive the runtime that it was first used
/// on. Without a runtime, the attempt waits for a caller inside one.
pub(super) fn spawn<S: TaskReports>(source: &Arc<S>, mut context: AttemptContext<S>) {
    let Ok(runtime) = Handle::try_current() else {
        return source.attempt_not_spawned(context);
    };
    context.cause = tracing::Span::current();
    let attempt = context.attempt;
    let request = context.request.take();
    let mut guard = Guard { source: source.clone(), attempt: Some(attempt), request };
    let timeout = source.limits().attempt_timeout;
    let stack = RenewalStack::here().with(identify(source));
    let run = async move {
        context.request = guard.request.take();
        let renewal = Scope { stack, inner: renew(&guard.source, context) };
        let result = match tokio::time::timeout(timeout, renewal).await {
            Ok(result) => result,
            Err(_) => Err(Failure::transient(CoreError::TimedOut.into())),
        };
        guard.finish(result);
    };
    let task = runtime.spawn(run);
    source.attempt_spawned(attempt, task.abort_handle());
}

/// Calls the source on the first poll, inside the task, so that a panic in it is reported like any
/// other panic of the task.
async fn renew<S: RenewalSource>(source: &Arc<S>, context: AttemptContext<S>) -> AttemptResult<S> {
    source.renew(context).await
}

/// Runs one verification on the caller's runtime. Without a runtime, it fails.
pub(super) fn spawn_verification<S: TaskReports>(source: &Arc<S>, id: VerificationId, value: Arc<S::Value>) {
    let mut guard = VerificationGuard { source: source.clone(), id: Some(id) };
    let timeout = source.limits().attempt_timeout;
    let stack = RenewalStack::here().with(identify(source));
    rt::try_spawn(async move {
        let verification = Scope { stack, inner: verify(&guard.source, value) };
        let result = tokio::time::timeout(timeout, verification).await.unwrap_or(Verified::Failed);
        if let Some(id) = guard.id.take() {
            guard.source.verification_ended(id, result);
        }
    });
}

/// Calls the source inside the task, like [`renew`].
async fn verify<S: RenewalSource>(source: &Arc<S>, value: Arc<S::Value>) -> Verified {
    source.verify(value).await
}

/// Reports that its verification failed, unless it has reported a result.
struct VerificationGuard<S: TaskReports> {
    source: Arc<S>,
    id: Option<VerificationId>,
}

impl<S: TaskReports> Drop for VerificationGuard<S> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.source.verification_ended(id, Verified::Failed);
        }
    }
}

/// Spawns a timer. It is lost where there is no runtime, and with its runtime.
pub(super) fn spawn_timer<S: TaskReports>(source: &Arc<S>, TimerSetting { at, number }: TimerSetting) {
    let delay = at.saturating_sub(source.now());
    let target = GateTimer { source: Arc::downgrade(source), number };
    if let Some(task) = rt::spawn_timer(delay, target) {
        source.timer_spawned(number, task);
    }
}

struct GateTimer<S> {
    source: Weak<S>,
    number: u64,
}

impl<S: TaskReports> OnTimer for GateTimer<S> {
    fn fired(&mut self) {
        if let Some(source) = self.source.upgrade() {
            source.timer_fired();
        }
    }

    fn lost(&mut self) {
        if let Some(source) = self.source.upgrade() {
            source.timer_lost(self.number);
        }
    }
}

/// Reports that its attempt was aborted, unless the attempt has reported a result.
struct Guard<S: TaskReports> {
    source: Arc<S>,
    attempt: Option<Attempt>,
    /// The attempt's request, until the task is polled for the first time.
    request: Option<S::Request>,
}

impl<S: TaskReports> Guard<S> {
    fn finish(mut self, result: AttemptResult<S>) {
        if let Some(attempt) = self.attempt.take() {
            self.source.attempt_ended(attempt, result);
        }
    }
}

impl<S: TaskReports> Drop for Guard<S> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            if let Some(request) = self.request.take() {
                self.source.request_unused(attempt, request);
            }
            let is_panic = std::thread::panicking();
            let kind = if is_panic { RenewalErrorKind::Panicked } else { RenewalErrorKind::Aborted };
            self.source.attempt_ended(attempt, Err(Failure::transient(RenewalError::new(kind))));
        }
    }
}

thread_local! {
    /// The gates whose renewals are being polled on this thread.
    static STACK: RefCell<RenewalStack> = const { RefCell::new(RenewalStack(None)) };
}

/// The gates that wait for the code that runs here, innermost first.
#[derive(Clone)]
struct RenewalStack(Option<Arc<(usize, RenewalStack)>>);

impl RenewalStack {
    fn here() -> Self {
        STACK.with_borrow(Clone::clone)
    }

    fn with(self, gate: usize) -> Self {
        Self(Some(Arc::new((gate, self))))
    }

    fn contains(&self, gate: usize) -> bool {
        self.0.as_deref().is_some_and(|(own, outer)| *own == gate || outer.contains(gate))
    }
}

fn identify<S>(source: &Arc<S>) -> usize {
    Arc::as_ptr(source) as usize
}

/// Returns whether the caller runs inside a renewal of this gate, and would wait for itself.
pub(super) fn is_reentrant<S: RenewalSource>(source: &Arc<S>) -> bool {
    STACK.with_borrow(|stack| stack.0.is_some() && stack.contains(identify(source)))
}

pin_project! {
    /// Sets the thread's stack of renewals while the inner future is polled.
    struct Scope<F> {
        stack: RenewalStack,
        #[pin]
        inner: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        /// Restores the outer stack, also when the poll panics.
        struct Restore(Option<RenewalStack>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let outer = self.0.take().expect("it is taken once");
                STACK.with_borrow_mut(|stack| *stack = outer);
            }
        }
        let this = self.project();
        let own = this.stack.clone();
        let outer = STACK.with_borrow_mut(|stack| std::mem::replace(stack, own));
        let _restore = Restore(Some(outer));
        this.inner.poll(context)
    }
}
