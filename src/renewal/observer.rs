//! `RequestObserver`: reports the phases of one request in a renewal layer as events, counters and
//! traces.

use http::StatusCode;
use tracing::{debug, warn};

use crate::{
    gate::RenewalErrorKind,
    session::{
        Delivery, EventKind, MissingBody, ReplayCause, RequestPhase, ResponseOutcome, Session, SessionInner,
        trace::REQUEST,
    },
};

/// Reports the phases of one request.
///
/// Events are sent for the whole request, or not at all: a subscriber that comes later does not see
/// it.
pub(super) struct RequestObserver(Option<Box<ObserverState>>);

/// A request that started while events had a subscriber.
struct ObserverState {
    session: Session,
    number: u64,
    has_ended: bool,
}

impl RequestObserver {
    pub(super) fn started(session: &Session) -> Self {
        let events = &session.0.context.events;
        let state = events.has_subscribers().then(|| {
            Box::new(ObserverState {
                session: session.clone(),
                number: events.next_number(),
                has_ended: false,
            })
        });
        if let Some(state) = &state {
            state.send(RequestPhase::Started);
        }
        Self(state)
    }

    pub(super) fn waiting(&self) {
        debug!(target: REQUEST, "waiting");
        self.continues(RequestPhase::Waiting);
    }

    pub(super) fn released(&self) {
        debug!(target: REQUEST, "released");
        self.continues(RequestPhase::Released);
    }

    pub(super) fn sent(&self, generation: u64) {
        debug!(target: REQUEST, generation, "sent");
        self.continues(RequestPhase::Sent { generation });
    }

    pub(super) fn replayed(&self, session: &SessionInner, generation: u64, cause: ReplayCause) {
        let counters = session.counters.rare();
        match cause {
            ReplayCause::Expired => &counters.replayed_expired,
            ReplayCause::Stale => &counters.replayed_stale,
            ReplayCause::EndedMidRedirect => &counters.replayed_ended_mid_redirect,
            ReplayCause::CookiesChanged => &counters.replayed_cookies_changed,
        }
        .add();
        session.context.metrics.replayed(cause).add();
        debug!(target: REQUEST, generation, ?cause, "replayed");
        self.continues(RequestPhase::Replayed { generation, cause });
    }

    /// Reports that the rule needed a body. Also reported if the request has no events.
    pub(super) fn body_missing(&self, session: &Session, missing: MissingBody) {
        warn!(target: REQUEST, session = %session.id(), ?missing, "a rule reads the body, but got none");
        session.0.context.publish(session.id(), EventKind::BodyMissing { missing });
    }

    pub(super) fn in_doubt(&self) {
        debug!(target: REQUEST, "in doubt");
        self.continues(RequestPhase::InDoubt);
    }

    pub(super) fn completed(
        &mut self,
        session: &Session,
        generation: u64,
        status: StatusCode,
        delivery: Delivery,
    ) {
        let outcome = delivery.outcome();
        match outcome {
            ResponseOutcome::Accepted => {}
            ResponseOutcome::Expired => session.0.counters.rare().responses_expired.add(),
            ResponseOutcome::Refused => session.0.counters.rare().responses_refused.add(),
        }
        if let Some(reason) = delivery.not_replayed() {
            debug!(target: REQUEST, generation, status = status.as_u16(), ?outcome, ?reason, "not replayed");
        }
        debug!(target: REQUEST, generation, status = status.as_u16(), "completed");
        self.ends(RequestPhase::Completed { generation, status, outcome });
    }

    pub(super) fn failed(&mut self) {
        debug!(target: REQUEST, "failed");
        self.ends(RequestPhase::Failed);
    }

    pub(super) fn rejected(&mut self, error: RenewalErrorKind) {
        debug!(target: REQUEST, ?error, "rejected");
        self.ends(RequestPhase::Rejected { error });
    }

    fn continues(&self, phase: RequestPhase) {
        if let Some(state) = &self.0 {
            state.send(phase);
        }
    }

    fn ends(&mut self, phase: RequestPhase) {
        if let Some(state) = &mut self.0 {
            state.has_ended = true;
            state.send(phase);
        }
    }
}

impl ObserverState {
    fn send(&self, phase: RequestPhase) {
        let kind = EventKind::Request { number: self.number, phase };
        self.session.0.context.publish(self.session.id(), kind);
    }
}

impl Drop for ObserverState {
    fn drop(&mut self) {
        if !self.has_ended {
            self.send(RequestPhase::Dropped);
        }
    }
}
