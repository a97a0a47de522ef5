//! The layer that applies a pool service.

use tower_layer::Layer;

use super::{PoolService, SessionPool};

/// [`Layer`] that applies [`PoolService`], which selects a session for each request that names
/// none.
///
/// It wraps the renewal layer, and retry layers wrap it.
///
/// # Clone
///
/// Clones, and the services that they create, share the pool.
#[derive(Clone, Debug)]
#[must_use = "layers do nothing unless applied to a service"]
pub struct PoolLayer {
    pool: SessionPool,
}

impl PoolLayer {
    /// Creates a layer whose services take sessions from `pool`.
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
