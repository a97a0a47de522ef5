//! `RejectedResponse`: the error in place of a response that looks as if the session has expired.

use std::{error::Error, fmt};

use http::StatusCode;

use crate::session::{Delivery, NotReplayed, ResponseOutcome, SessionId};

/// The server rejected a request, and the layer returns
/// [errors instead of such responses](super::RenewalLayer::expired_as_error).
#[derive(Clone, Debug)]
pub struct RejectedResponse {
    session: SessionId,
    generation: u64,
    status: StatusCode,
    delivery: Delivery,
}

impl RejectedResponse {
    pub(super) fn new(session: &SessionId, generation: u64, status: StatusCode, delivery: Delivery) -> Self {
        Self { session: session.clone(), generation, status, delivery }
    }

    /// Returns the session of the request.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// Returns the generation under which the request was sent last.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns whether the session has expired, or the server refused this request only.
    pub fn outcome(&self) -> ResponseOutcome {
        self.delivery.outcome()
    }

    /// Returns why the request was not replayed.
    pub fn not_replayed(&self) -> Option<NotReplayed> {
        self.delivery.not_replayed()
    }
}

impl fmt::Display for RejectedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (session, status) = (&self.session, self.status.as_u16());
        match self.outcome() {
            ResponseOutcome::Refused => {
                write!(f, "session {session}: the server refused this request with status {status}")?;
            }
            _ => write!(f, "session {session} has expired: the response has status {status}")?,
        }
        f.write_str(match self.not_replayed() {
            Some(NotReplayed::Body) => "; the body of the request cannot be cloned for a replay",
            Some(NotReplayed::Method) => "; requests with this method are not replayed",
            Some(NotReplayed::LimitReached) => "; the request has no replays left",
            Some(NotReplayed::Stale) => "; the response is of an earlier identity",
            Some(NotReplayed::Alive) => "; the session works",
            Some(NotReplayed::NoEvidence) => "; a renewal did not help",
            Some(NotReplayed::RateLimited) => {
                "; the session works, and `renewal_rate_limit` allows no renewal now"
            }
            None => "",
        })
    }
}

impl Error for RejectedResponse {}
