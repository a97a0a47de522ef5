//! What is told of one request on its way through the gate.

use http::StatusCode;
use tracing::debug;

use crate::{
    gate::RenewalErrorKind,
    session::{EventKind, ReplayCause, RequestPhase, Session, SessionInner, trace::REQUEST},
};

/// One request as its watchers see it, from its beginning or not at all.
pub(crate) struct RequestObserver(Option<Box<ObserverState>>);

/// A request that began while somebody had subscribed to events.
struct ObserverState {
    session: Session,
    number: u64,
    has_ended: bool,
}

impl RequestObserver {
    pub(crate) fn begin(session: &Session) -> Self {
        let events = &session.0.context.events;
        let watched = events.has_subscribers().then(|| {
            Box::new(ObserverState {
                session: session.clone(),
                number: events.next_number(),
                has_ended: false,
            })
        });
        if let Some(watched) = &watched {
            watched.tell(RequestPhase::Started);
        }
        Self(watched)
    }

    pub(crate) fn held(&self) {
        debug!(target: REQUEST, "held");
        self.step(RequestPhase::Waiting);
    }

    pub(crate) fn released(&self) {
        debug!(target: REQUEST, "released");
        self.step(RequestPhase::Released);
    }

    pub(crate) fn sent(&self, generation: u64) {
        debug!(target: REQUEST, generation, "sent");
        self.step(RequestPhase::Sent { generation });
    }

    pub(crate) fn replayed(&self, session: &SessionInner, generation: u64, cause: ReplayCause) {
        let counters = session.counters.rare();
        match cause {
            ReplayCause::Expired => &counters.replayed_expired,
            ReplayCause::Stale => &counters.replayed_stale,
            ReplayCause::EndedMidRedirect => &counters.replayed_ended_mid_redirect,
        }
        .add();
        session.context.metrics.replayed(cause).add();
        debug!(target: REQUEST, generation, ?cause, "sent again");
        self.step(RequestPhase::Replayed { generation, cause });
    }

    pub(crate) fn answered(&mut self, generation: u64, status: StatusCode) {
        debug!(target: REQUEST, generation, status = status.as_u16(), "answered");
        self.end(RequestPhase::Completed { generation, status });
    }

    pub(crate) fn failed(&mut self) {
        debug!(target: REQUEST, "failed");
        self.end(RequestPhase::Failed);
    }

    pub(crate) fn refused(&mut self, error: RenewalErrorKind) {
        debug!(target: REQUEST, ?error, "refused");
        self.end(RequestPhase::Rejected { error });
    }

    fn step(&self, step: RequestPhase) {
        if let Some(watched) = &self.0 {
            watched.tell(step);
        }
    }

    fn end(&mut self, step: RequestPhase) {
        if let Some(watched) = &mut self.0 {
            watched.has_ended = true;
            watched.tell(step);
        }
    }
}

impl ObserverState {
    fn tell(&self, step: RequestPhase) {
        let kind = EventKind::Request { number: self.number, phase: step };
        self.session.0.context.publish(self.session.id(), kind);
    }
}

impl Drop for ObserverState {
    fn drop(&mut self) {
        if !self.has_ended {
            self.tell(RequestPhase::Dropped);
        }
    }
}
