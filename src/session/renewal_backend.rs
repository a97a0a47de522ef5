//! How a session reaches the service that can renew it.

use std::{any::Any, sync::Arc};

use super::{Identity, IdentityInner, Session, SessionInner};
use crate::gate::{AttemptContext, Limits, RenewalError, RenewalFuture, VerificationFuture};

/// A request given to `renew_with`, checked by [`RenewalBackend::accept`].
pub(crate) type ExplicitRequest = Box<dyn Any + Send>;

/// The service below a renewal layer, as sessions see it.
///
/// Services own it. `Sessions` has a weak reference only, because the service holds the sessions.
pub(crate) trait RenewalBackend: Send + Sync {
    /// Whether the layer has a rule.
    fn has_rule(&self) -> bool;

    fn limits(&self) -> Limits;

    /// Whether the layer can ask the server if it still accepts an identity.
    fn can_verify(&self) -> bool;

    /// Asks the server whether it still accepts `identity`.
    fn verify(self: Arc<Self>, identity: Identity) -> VerificationFuture;

    /// The limits of uses and age of one identity.
    #[cfg(feature = "shared")]
    fn budget(&self) -> crate::gate::UsageLimits;

    /// Checks that the service can send `request`.
    fn accept(&self, request: Box<dyn Any + Send>) -> Result<ExplicitRequest, RenewalError>;

    /// Renews `session`: by the attempt's request, or else by the rule.
    fn renew(
        self: Arc<Self>,
        session: Session,
        attempt: AttemptContext<SessionInner>,
    ) -> RenewalFuture<IdentityInner>;
}
