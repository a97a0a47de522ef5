//! The layer that applies [`SessionService`].

use tower_layer::Layer;

use super::{SessionService, Sessions};

/// [`Layer`] that applies [`SessionService`].
///
/// # Clone
///
/// Clones and their services share the sessions.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct SessionLayer {
    sessions: Sessions,
    has_info: bool,
}

impl SessionLayer {
    /// Creates a layer whose services find their sessions in `sessions`.
    pub fn new(sessions: &Sessions) -> Self {
        Self { sessions: sessions.clone(), has_info: true }
    }

    /// Does not add a [`SessionInfo`](super::SessionInfo) to responses. Default: every response has
    /// one.
    ///
    /// The info is the only allocation that this layer makes for a request. A renewal layer above
    /// adds its own info regardless.
    pub fn without_info(mut self) -> Self {
        self.has_info = false;
        self
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let service = SessionService::new(inner, self.sessions.clone());
        if self.has_info { service } else { service.without_info() }
    }
}
