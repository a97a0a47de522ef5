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
    has_info: bool,
}

impl SessionLayer {
    /// Creates a layer whose services find their sessions in `sessions`.
    pub fn new(sessions: &Sessions) -> Self {
        Self { sessions: sessions.clone(), has_info: true }
    }

    /// Leaves the [`SessionInfo`](super::SessionInfo) out of answers, for programs that do not look at it: it is the one thing that
    /// a request through this layer allocates. Default: every answer has it.
    ///
    /// A renewal layer above puts its own there all the same.
    #[must_use]
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
