//! `SessionQueue`: a source of sessions that the program fills.

use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Demand, IfEmpty, Source};
use crate::{cookies::Jar, renewal::renewal::BoxFuture};

/// Queue that the program fills for a [`SessionSource::queue`](super::SessionSource::queue).
///
/// # Clone
///
/// Clones are the same queue.
#[derive(Clone)]
pub struct SessionQueue(Arc<Queue>);

struct Queue {
    jars: Mutex<VecDeque<Jar>>,
    /// One permit per jar. Renewals wait here, first come, first served.
    filled: Semaphore,
}

impl SessionQueue {
    pub(super) fn new() -> Self {
        Self(Arc::new(Queue { jars: Mutex::default(), filled: Semaphore::new(0) }))
    }

    pub(super) fn source(&self) -> Arc<dyn Source> {
        self.0.clone()
    }

    /// Adds the cookies of one session.
    pub fn push(&self, cookies: impl Into<Jar>) {
        self.0.jars.lock().push_back(cookies.into());
        self.0.filled.add_permits(1);
    }

    /// Number of sessions in the queue.
    pub fn len(&self) -> usize {
        self.0.jars.lock().len()
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for Queue {
    fn next(self: Arc<Self>, _demand: Demand, if_empty: IfEmpty) -> BoxFuture<Option<Jar>> {
        Box::pin(async move {
            let permit = match if_empty {
                IfEmpty::Wait => self.filled.acquire().await.ok(),
                IfEmpty::ReturnNone => self.filled.try_acquire().ok(),
            };
            let Some(permit) = permit else {
                return Ok(None);
            };
            permit.forget();
            Ok(self.jars.lock().pop_front())
        })
    }
}

impl fmt::Debug for SessionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionQueue").field("len", &self.len()).finish()
    }
}
