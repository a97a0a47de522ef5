//! What a renewal layer made of a response, and why it did not replay the request.

/// What a renewal layer made of the response that it delivered.
///
/// Without a renewal layer, every response is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseOutcome {
    /// The response does not look as if the session has expired.
    Accepted,
    /// The session has expired, and the request was not replayed.
    Expired,
    /// The server rejected this request, although nothing shows that the session has expired.
    /// Examples are a page that the account may not see, or an item that was deleted.
    Refused,
}

/// Why a request was not replayed, although its response looks as if the session has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotReplayed {
    /// Its body cannot be cloned.
    Body,
    /// Its method may not be replayed.
    Method,
    /// Its replays are used up.
    LimitReached,
    /// The response is of an earlier identity, and the layer delivers such responses.
    Stale,
    /// A later request, or the verification, showed that the session works.
    Alive,
    /// The request was rejected under two identities, and no other request has shown whether the
    /// second one works.
    NoEvidence,
    /// The session works, and too many renewals were started in a short time.
    RateLimited,
}

/// What happened to a response, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Delivery {
    Accepted,
    Expired(NotReplayed),
    Refused(NotReplayed),
}

impl Delivery {
    pub(crate) const fn outcome(self) -> ResponseOutcome {
        match self {
            Self::Accepted => ResponseOutcome::Accepted,
            Self::Expired(_) => ResponseOutcome::Expired,
            Self::Refused(_) => ResponseOutcome::Refused,
        }
    }

    pub(crate) const fn not_replayed(self) -> Option<NotReplayed> {
        match self {
            Self::Accepted => None,
            Self::Expired(reason) | Self::Refused(reason) => Some(reason),
        }
    }
}
