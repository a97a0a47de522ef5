//! The tasks of a pool: sessions that are warmed up or renewed, and the timer. Each tells the pool how it ends, also when it is
//! dropped before its end.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{runtime::Pool, state::Key};
use crate::{
    gate::{RenewalError, RenewalErrorKind},
    session::Session,
};

/// A member that was ordered; lost if it is dropped without an outcome.
pub(crate) struct WarmUpGuard {
    pool: Weak<Pool>,
    key: Key,
}

impl WarmUpGuard {
    pub(crate) fn new(pool: &Arc<Pool>, key: Key) -> Self {
        Self { pool: Arc::downgrade(pool), key }
    }

    /// Whoever has the guard now tells the outcome.
    pub(crate) fn keep(mut self) {
        self.pool = Weak::new();
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn finish(mut self, result: Result<(), RenewalError>) {
        if let Some(pool) = std::mem::take(&mut self.pool).upgrade() {
            pool.warmed(self.key, result);
        }
    }
}

impl Drop for WarmUpGuard {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.lost(self.key);
        }
    }
}

/// Warms a new session up by the renewal rule. The renewal itself runs in the gate's own task; this one waits for its end.
pub(crate) fn warm_up(guard: WarmUpGuard, session: Session) {
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        let result = session.renew().await;
        // First, so that it can be forgotten if it came to nothing.
        drop(session);
        guard.finish(result.map(drop));
    });
}

/// Renews the session of a member that nobody works on.
pub(crate) fn renew(pool: &Arc<Pool>, key: Key, session: Session) {
    let renewed = WarmUpResult { pool: pool.clone(), key, result: None };
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        let mut renewed = renewed;
        renewed.result = Some(session.renew().await.map(drop));
        drop(session);
    });
}

/// Tells the pool how the renewal of a member's session has ended, or that it was lost.
struct WarmUpResult {
    pool: Arc<Pool>,
    key: Key,
    result: Option<Result<(), RenewalError>>,
}

impl Drop for WarmUpResult {
    fn drop(&mut self) {
        let lost = || Err(RenewalError::new(RenewalErrorKind::Aborted));
        let result = self.result.take().unwrap_or_else(lost);
        self.pool.opened(self.key, result);
    }
}

/// Ticks the pool at `at`; the timer is lost with its runtime.
pub(crate) fn set_timer(pool: &Arc<Pool>, at: Duration, number: u64) {
    let mut timer = Timer { pool: Arc::downgrade(pool), number };
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    let wait = at.saturating_sub(pool.now());
    let task = runtime.spawn(async move {
        tokio::time::sleep(wait).await;
        if let Some(pool) = std::mem::take(&mut timer.pool).upgrade() {
            pool.fire(number);
        }
    });
    pool.set_timer(number, task.abort_handle());
}

/// Tells its pool when it is dropped without having rung.
struct Timer {
    pool: Weak<Pool>,
    number: u64,
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.timer_lost(self.number);
        }
    }
}
