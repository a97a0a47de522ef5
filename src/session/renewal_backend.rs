//! The way from a session's handle to the stack that can renew it.

use std::{any::Any, sync::Arc};

use super::{IdentityInner, Session, session::SessionInner};
use crate::gate::{AttemptContext, Limits, RenewalError, RenewalFuture};

/// A request that was given to `renew_with`, of the lane's own body type.
pub(crate) type ExplicitRequest = Box<dyn Any + Send>;

/// The stack below a renewal layer, as sessions see it.
///
/// The services own it; `Sessions` only knows where it is, since the stack itself holds the sessions.
pub(crate) trait RenewalBackend: Send + Sync {
    /// Whether the layer was given a rule to renew by.
    fn has_rule(&self) -> bool;

    fn limits(&self) -> Limits;

    /// How many uses one identity is good for, and for how long.
    #[cfg(feature = "shared")]
    fn budget(&self) -> crate::gate::UsageLimits;

    /// Checks that `request` is one that this stack can send.
    fn accept(&self, request: Box<dyn Any + Send>) -> Result<ExplicitRequest, RenewalError>;

    /// Renews `session`: by the request that comes with the attempt, or by the rule.
    fn renew(
        self: Arc<Self>,
        session: Session,
        drive: AttemptContext<SessionInner>,
    ) -> RenewalFuture<IdentityInner>;
}
