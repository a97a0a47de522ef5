use tower_layer::Layer;

use super::{PoolService, SessionPool};

/// [`Layer`] that applies [`PoolService`]: a session of the pool for each request that names none.
///
/// It belongs above the renewal layer and below retries.
///
/// # Clone
///
/// Clones and the services they make share the pool.
#[derive(Clone, Debug)]
#[must_use = "layers do nothing unless applied to a service"]
pub struct PoolLayer {
    pool: SessionPool,
}

impl PoolLayer {
    /// Creates a layer whose services take their sessions from `pool`.
    pub fn new(pool: &SessionPool) -> Self {
        Self { pool: pool.clone() }
    }
}

impl<S> Layer<S> for PoolLayer {
    type Service = PoolService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PoolService::new(inner, self.pool.clone())
    }
}
