use tower_layer::Layer;

use super::{SessionService, Sessions};

/// [`Layer`] that applies [`SessionService`].
///
/// # Clone
///
/// Clones and the services they make share the sessions.
#[derive(Clone, Debug)]
pub struct SessionLayer {
    sessions: Sessions,
}

impl SessionLayer {
    /// Creates a layer whose services find their sessions in `sessions`.
    pub fn new(sessions: &Sessions) -> Self {
        Self { sessions: sessions.clone() }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, self.sessions.clone())
    }
}
