//! The layer that applies [`ProfileService`].

use tower_layer::Layer;

use super::ProfileService;
use crate::session::Sessions;

/// [`Layer`] that applies [`ProfileService`].
///
/// # Clone
///
/// Clones and their services share the sessions, if there are any.
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ProfileLayer {
    sessions: Option<Sessions>,
}

impl ProfileLayer {
    /// Creates a layer that applies the profile of the identity that a
    /// [`SessionLayer`](crate::SessionLayer) above has set. A request without an identity fails.
    pub const fn new() -> Self {
        Self { sessions: None }
    }

    /// Creates a layer that resolves the session of each request itself, for stacks without a
    /// session layer.
    pub fn with_sessions(sessions: &Sessions) -> Self {
        Self { sessions: Some(sessions.clone()) }
    }
}

impl<S> Layer<S> for ProfileLayer {
    type Service = ProfileService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ProfileService::new(inner, self.sessions.clone())
    }
}
