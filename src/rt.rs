//! Tasks and timers on the caller's tokio runtime, which may be missing or shut down at any time.

use std::{future::Future, time::Duration};

use tokio::{runtime::Handle, task::AbortHandle};

/// Returns whether the caller runs inside a tokio runtime.
pub(crate) fn is_available() -> bool {
    Handle::try_current().is_ok()
}

/// Spawns `future` on the caller's runtime. Outside a runtime the future is dropped and `None` is
/// returned.
pub(crate) fn try_spawn<F>(future: F) -> Option<AbortHandle>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let runtime = Handle::try_current().ok()?;
    Some(runtime.spawn(future).abort_handle())
}

/// What a [timer](spawn_timer) reports to.
pub(crate) trait OnTimer: Send + 'static {
    /// The delay is over.
    fn fired(&mut self);

    /// The timer was dropped before it fired, because it was aborted or its runtime shut down.
    fn lost(&mut self);
}

/// Reports to `target` after `delay`, by a task on the caller's runtime.
///
/// Outside a runtime, [`OnTimer::lost`] is called before this returns `None`.
pub(crate) fn spawn_timer(delay: Duration, target: impl OnTimer) -> Option<AbortHandle> {
    let mut timer = Timer { target, has_fired: false };
    try_spawn(async move {
        tokio::time::sleep(delay).await;
        timer.has_fired = true;
        timer.target.fired();
    })
}

struct Timer<T: OnTimer> {
    target: T,
    has_fired: bool,
}

impl<T: OnTimer> Drop for Timer<T> {
    fn drop(&mut self) {
        if !self.has_fired {
            self.target.lost();
        }
    }
}
