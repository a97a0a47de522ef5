//! The settings of a pool that its state machine does not need.

use std::{sync::Arc, time::Duration};

use super::{
    classify::{Outcome, Verdict},
    strategy::{Picker, RequestView},
    types::Limits,
};

/// Computes the key by which a request sticks to a session; `None` leaves the choice to the pool.
pub(crate) type StickyKey = Arc<dyn Fn(&RequestView<'_>) -> Option<u64> + Send + Sync>;

/// Derives a verdict from an outcome.
pub(crate) type Classify = Arc<dyn Fn(&Outcome<'_>) -> Verdict + Send + Sync>;

pub(crate) struct Settings {
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) max_wait: Duration,
    pub(crate) max_cooldown: Duration,
    /// The number of sessions of all pools with this name, in all processes that share them.
    pub(crate) slots: Option<u32>,
    pub(crate) sticky: Option<StickyKey>,
    pub(crate) picker: Option<Arc<dyn Picker>>,
    pub(crate) classify: Classify,
}
