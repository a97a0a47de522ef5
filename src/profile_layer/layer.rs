use tower_layer::Layer;

use super::ProfileService;
use crate::session::Sessions;

/// [`Layer`] that applies [`ProfileService`].
///
/// # Clone
///
/// Clones and the services they make share the sessions, if they were given some.
#[derive(Clone, Debug, Default)]
pub struct ProfileLayer {
    sessions: Option<Sessions>,
}

impl ProfileLayer {
    /// Creates a layer that wears the profile of the identity which a [`SessionLayer`](crate::SessionLayer) above has put into
    /// the request. A request without one is an error.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a layer that finds the session of a request by itself, for stacks without a session layer.
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
