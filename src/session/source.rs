//! How a session's gate makes identities, renews them and reports what happened.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use super::{
    EventKind, Identity, IdentityInner, Session, SessionInner, identity::PENDING,
    renewal_backend::ExplicitRequest, trace,
};
use crate::gate::{
    AttemptContext, Failure, Gate, GateEvent, GateOwner, Generation, Limits, RenewalError, RenewalErrorKind,
    RenewalFuture, RenewalSource, VerificationFuture, Verified, VersionState,
};

impl GateOwner for SessionInner {
    fn gate(&self) -> &Gate<Self> {
        &self.gate
    }
}

impl RenewalSource for SessionInner {
    type Value = IdentityInner;
    type Request = ExplicitRequest;

    fn version(value: &IdentityInner) -> &VersionState {
        &value.version
    }

    fn limits(&self) -> Limits {
        self.context.limits()
    }

    fn now(&self) -> Duration {
        self.context.now()
    }

    fn has_rule(&self) -> bool {
        // A shared session can at least adopt what another process has committed.
        self.context.share.is_some() || self.context.backend().is_some_and(|backend| backend.has_rule())
    }

    fn merge_edits(&self, pending: &IdentityInner, value: &IdentityInner) {
        if self.share_state.is_some() {
            self.add_edits(pending, value);
            self.cookies_changed_lazily(self.context.timestamp());
        }
    }

    fn on_allowance_low(self: &Arc<Self>, value: &Arc<IdentityInner>) {
        if let Some(share) = &self.context.share {
            share.clone().on_allowance_low(Session::of(self.clone()), value);
        }
    }

    fn pending(
        &self,
        candidate: Option<&Arc<IdentityInner>>,
        failed: Option<&Arc<IdentityInner>>,
    ) -> Option<Arc<IdentityInner>> {
        let version = VersionState::new(PENDING, self.context.now(), self.gate.random());
        Some(match (candidate, failed) {
            // The candidate will be current if its attempt commits. If not, the next attempt starts
            // like it.
            (Some(candidate), _) => {
                Arc::new(IdentityInner::new(version, self.context.jar(), candidate.profile.clone()))
            }
            // Edits survive a failed attempt. Its profile may have caused the failure.
            (None, Some(failed)) => {
                Arc::new(IdentityInner::new(version, failed.jar.lock().clone(), self.draw_profile()))
            }
            (None, None) => self.new_identity(PENDING),
        })
    }

    fn candidate(
        &self,
        pending: Option<&Arc<IdentityInner>>,
        generation: Generation,
    ) -> Option<Arc<IdentityInner>> {
        Some(match pending {
            Some(pending) => self.successor(pending, generation),
            None => self.new_identity(generation),
        })
    }

    fn can_verify(&self) -> bool {
        self.context.backend().is_some_and(|backend| backend.can_verify())
    }

    fn verify(self: &Arc<Self>, value: Arc<IdentityInner>) -> VerificationFuture {
        match self.context.backend() {
            Some(backend) => backend.verify(Identity { session: Session::of(self.clone()), inner: value }),
            None => Box::pin(std::future::ready(Verified::Failed)),
        }
    }

    fn renew(self: &Arc<Self>, attempt: AttemptContext<Self>) -> RenewalFuture<IdentityInner> {
        let span = trace::renewal(self.names.last(), &attempt);
        let session = Session::of(self.clone());
        let renewing = match (&self.context.share, self.context.backend()) {
            (Some(share), backend) => share.clone().renew(session, backend, attempt),
            (None, Some(backend)) => backend.renew(session, attempt),
            (None, None) => Box::pin(std::future::ready(Err(Failure::transient(RenewalError::new(
                RenewalErrorKind::NoService,
            ))))),
        };
        if span.is_disabled() { renewing } else { Box::pin(renewing.instrument(span)) }
    }

    fn on_event(&self, event: GateEvent) {
        self.context.changed();
        let (metrics, counters) = (&self.context.metrics, &self.counters);
        let kind = match event {
            GateEvent::Started { generation, reason } => {
                counters.rare().renewals_started.add();
                metrics.started(reason).add();
                EventKind::RenewalStarted { generation: generation.get(), reason }
            }
            GateEvent::Committed { generation, took } => {
                counters.rare().renewals_committed.add();
                metrics.committed.ended(took);
                EventKind::RenewalCommitted { generation: generation.get(), took }
            }
            GateEvent::Failed { generation, kind: error, took } => {
                counters.rare().renewals_failed.add();
                metrics.failed.ended(took);
                EventKind::RenewalFailed { generation: generation.get(), error, took }
            }
            GateEvent::Abandoned { generation, took } => {
                metrics.abandoned.ended(took);
                EventKind::RenewalAbandoned { generation: generation.get(), took }
            }
            GateEvent::Verifying { generation } => {
                EventKind::VerificationStarted { generation: generation.get() }
            }
            GateEvent::Activated { generation } => EventKind::Activated { generation: generation.get() },
            GateEvent::Invalidated { generation } => EventKind::Invalidated { generation: generation.get() },
        };
        let session = self.names.last();
        trace::changed(session, &kind);
        self.context.publish(session, kind);
    }
}
