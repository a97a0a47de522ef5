//! The short tasks of a pool: warm-ups, renewals and the timer.
//!
//! Each reports to the pool how it ends, including when it is dropped before its end.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, task::AbortHandle};

use super::{tasks::Tasks, types::Key};
use crate::{
    gate::{RenewalError, RenewalErrorKind},
    rt::{self, OnTimer},
    session::Session,
};

/// A warm-up that has started; it is reported as lost if this is dropped without a result.
pub(crate) struct WarmUpGuard {
    /// `None` once the result was reported.
    pool: Option<Weak<dyn Tasks>>,
    key: Key,
}

impl WarmUpGuard {
    pub(crate) fn new(pool: Weak<dyn Tasks>, key: Key) -> Self {
        Self { pool: Some(pool), key }
    }

    /// Leaves it to the caller to report the result.
    pub(crate) fn disarm(mut self) {
        self.pool = None;
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn finish(mut self, result: Result<(), RenewalError>) {
        if let Some(pool) = self.pool.take().and_then(|pool| pool.upgrade()) {
            pool.warmed(self.key, result);
        }
    }
}

impl Drop for WarmUpGuard {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take().and_then(|pool| pool.upgrade()) {
            pool.warm_up_lost(self.key);
        }
    }
}

/// Warms up a new session by the renewal rule.
///
/// The renewal runs in a task of the gate; the task spawned here waits for its result.
pub(crate) fn warm_up(guard: WarmUpGuard, session: Session) {
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        let result = session.renew().await;
        // Before the report, so that a session that could not be warmed up can be removed.
        drop(session);
        guard.finish(result.map(drop));
    });
}

/// Renews the session of a member whose gate is idle.
pub(crate) fn renew(pool: Arc<dyn Tasks>, key: Key, session: Session) {
    let report = WarmUpResult { pool, key, result: None };
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        let mut report = report;
        report.result = Some(session.renew().await.map(drop));
        drop(session);
    });
}

/// Reports how the renewal of a member's session has ended, or that it was aborted.
struct WarmUpResult {
    pool: Arc<dyn Tasks>,
    key: Key,
    result: Option<Result<(), RenewalError>>,
}

impl Drop for WarmUpResult {
    fn drop(&mut self) {
        let aborted = || Err(RenewalError::new(RenewalErrorKind::Aborted));
        let result = self.result.take().unwrap_or_else(aborted);
        self.pool.clone().renewed(self.key, result);
    }
}

/// Starts the timer with this number; `None` outside a runtime, where it is reported as lost.
pub(crate) fn start_timer(pool: Weak<dyn Tasks>, number: u64, wait: Duration) -> Option<AbortHandle> {
    rt::spawn_timer(wait, Timer { pool, number })
}

struct Timer {
    pool: Weak<dyn Tasks>,
    number: u64,
}

impl OnTimer for Timer {
    fn fired(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.timer_fired(self.number);
        }
    }

    fn lost(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.timer_lost(self.number);
        }
    }
}
