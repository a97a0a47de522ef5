use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Demand, Source};
use crate::{cookies::Jar, renewal::rule::BoxFuture};

/// The end of a [`SessionSource::queue`](super::SessionSource::queue) that the program feeds.
///
/// # Clone
///
/// Clones feed the same queue.
#[derive(Clone)]
pub struct SessionQueue(Arc<Queue>);

struct Queue {
    jars: Mutex<VecDeque<Jar>>,
    /// As many permits as there are jars; those who wait for one stand in line here.
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

    /// How many sessions are left.
    pub fn len(&self) -> usize {
        self.0.jars.lock().len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for Queue {
    fn next(self: Arc<Self>, _demand: Demand, wait: bool) -> BoxFuture<Option<Jar>> {
        Box::pin(async move {
            let permit = match wait {
                true => self.filled.acquire().await.ok(),
                false => self.filled.try_acquire().ok(),
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
