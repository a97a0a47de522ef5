//! What a gate needs from its owner, and what it reports to it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tracing::Span;

use super::{
    error::{RenewalError, RenewalErrorKind},
    state::{Attempt, Failure, Generation, Limits, Verified},
    version::VersionState,
};

/// The reason why a renewal was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RenewalReason {
    /// There was no identity yet.
    Initial,
    /// A response showed that the session has expired.
    Expired,
    /// The session was cleared.
    Cleared,
    /// `renew` or `renew_with` was called.
    Requested,
    /// A limit of uses or age was reached, or nearly reached.
    LimitReached,
}

/// The owner of a gate: makes its values, runs its renewals, and knows the time.
///
/// `pending`, `candidate` and `merge_edits` are called under the gate's lock: they must not wait,
/// call user code, or take the lock of a gate.
pub(crate) trait RenewalSource: Sized + Send + Sync + 'static {
    /// What is published, as an `Arc`.
    type Value: Send + Sync + 'static;
    /// What `renew_with` takes.
    type Request: Send + 'static;

    fn version(value: &Self::Value) -> &VersionState;
    fn limits(&self) -> Limits;
    /// The time since an origin that the source chooses; it never goes back.
    fn now(&self) -> Duration;
    fn has_rule(&self) -> bool;

    /// Whether [`verify`](Self::verify) can ask the server about a value.
    fn can_verify(&self) -> bool {
        false
    }

    /// Asks the server whether it still accepts this value.
    fn verify(self: &Arc<Self>, _value: Arc<Self::Value>) -> VerificationFuture {
        Box::pin(std::future::ready(Verified::Failed))
    }

    /// Makes the value that receives edits while none is current. `candidate` is the running one,
    /// if there is one; `failed` is the pending value whose candidate has just failed.
    fn pending(
        &self,
        candidate: Option<&Arc<Self::Value>>,
        failed: Option<&Arc<Self::Value>>,
    ) -> Option<Arc<Self::Value>>;

    /// Makes the value under which an attempt runs.
    fn candidate(
        &self,
        pending: Option<&Arc<Self::Value>>,
        generation: Generation,
    ) -> Option<Arc<Self::Value>>;

    /// Copies what was added to `pending` during the attempt to the value that replaces the
    /// candidate.
    fn merge_edits(&self, _pending: &Self::Value, _value: &Self::Value) {}

    /// Half of the uses that this value was last [allowed](super::allowance::Allowance::allow) are
    /// used up.
    fn on_allowance_low(self: &Arc<Self>, _value: &Arc<Self::Value>) {}

    /// Renews the value. `None` as a value means the candidate.
    fn renew(self: &Arc<Self>, attempt: AttemptContext<Self>) -> RenewalFuture<Self::Value>;

    /// Observes a change, after the lock is released.
    fn on_event(&self, _event: GateEvent) {}
}

/// A change that a source may count or publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GateEvent {
    /// An attempt has started.
    Started { generation: Generation, reason: RenewalReason },
    /// An attempt has succeeded.
    Committed { generation: Generation, took: Duration },
    /// An attempt has failed.
    Failed { generation: Generation, kind: RenewalErrorKind, took: Duration },
    /// An attempt was cancelled.
    Abandoned { generation: Generation, took: Duration },
    /// A value became current.
    Activated { generation: Generation },
    /// The current value has ended.
    Invalidated { generation: Generation },
    /// A verification of the current value has started.
    Verifying { generation: Generation },
}

/// A running verification.
pub(crate) type VerificationFuture = Pin<Box<dyn Future<Output = Verified> + Send>>;

/// A running renewal.
pub(crate) type RenewalFuture<V> =
    Pin<Box<dyn Future<Output = Result<Option<Arc<V>>, Failure<RenewalError>>> + Send>>;

/// An attempt, as its task gets it.
pub(crate) struct AttemptContext<S: RenewalSource> {
    pub(crate) attempt: Attempt,
    pub(crate) generation: Generation,
    pub(crate) candidate: Option<Arc<S::Value>>,
    pub(crate) request: Option<S::Request>,
    /// Whether the attempt is for the request given to `renew_with`, which may be used up.
    pub(crate) is_explicit: bool,
    pub(crate) reason: RenewalReason,
    /// The span in which the task was spawned; no span until then.
    pub(crate) cause: Span,
}
