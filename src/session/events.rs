//! Events of sessions, renewals and requests, for subscribers.

use std::{
    fmt,
    sync::{
        OnceLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use super::{ResponseOutcome, SessionId, context::RegistryContext};
use crate::gate::{RenewalErrorKind, RenewalReason};

/// Something that happened to a session, received from [`Events`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The time since the [`Sessions`](super::Sessions) were built. It follows tokio's clock, also
    /// when that is paused.
    pub at: Duration,
    /// The session.
    pub session: SessionId,
    /// What happened.
    pub kind: EventKind,
}

/// The kind of an [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The session was created. If it has an identity, `Activated` follows.
    Created,
    /// The session was evicted because of `max_sessions`.
    Evicted,
    /// The session was removed.
    Removed,
    /// The session was renamed.
    Renamed {
        /// The new id.
        to: SessionId,
    },
    /// An identity became current: requests are sent under it from now on.
    Activated {
        /// The generation of the identity.
        generation: u64,
    },
    /// The current identity ended: no request is sent under it any more.
    ///
    /// An identity that is superseded by an early renewal does not end; another `Activated`
    /// follows.
    Invalidated {
        /// The generation of the identity.
        generation: u64,
    },
    /// A renewal started. If it is retried after a failure, each attempt has its own generation and
    /// events.
    RenewalStarted {
        /// The generation that becomes current if the renewal commits.
        generation: u64,
        /// Why the renewal was started.
        reason: RenewalReason,
    },
    /// The renewal committed; its generation is now current.
    RenewalCommitted {
        /// The generation, as in `RenewalStarted`.
        generation: u64,
        /// How long the renewal took.
        took: Duration,
    },
    /// The renewal failed.
    RenewalFailed {
        /// The generation, as in `RenewalStarted`. It never becomes current.
        generation: u64,
        /// The kind of the error.
        error: RenewalErrorKind,
        /// How long the renewal took.
        took: Duration,
    },
    /// The renewal was abandoned, because of a clear, a replacement or `renew_with`, or because the
    /// leading request was dropped.
    RenewalAbandoned {
        /// The generation, as in `RenewalStarted`. It never becomes current.
        generation: u64,
        /// How long the renewal ran.
        took: Duration,
    },
    /// A verification of the current identity has started.
    VerificationStarted {
        /// The generation that is verified.
        generation: u64,
    },
    /// A request entered a new phase in a renewal layer.
    Request {
        /// A number that identifies the request within its [`Sessions`](super::Sessions). A request
        /// that started without a subscriber has no number and no events.
        number: u64,
        /// The new phase.
        phase: RequestPhase,
    },
    /// A rule of a renewal layer reads response bodies, and got none. Sent once for each part of a
    /// rule.
    BodyMissing {
        /// Why it got none.
        missing: MissingBody,
    },
}

/// Why a rule that reads response bodies got none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingBody {
    /// No [`PeekLayer`](crate::renewal::PeekLayer) is below the renewal layer.
    NoPeekLayer,
    /// The body is compressed: the `PeekLayer` has to be above a layer that decompresses.
    Encoded,
    /// The body is longer than the limit of the `PeekLayer`, or did not arrive in time.
    Truncated,
}

/// A phase of a request.
///
/// The first phase is `Started`. The last one is `Completed`, `Failed`, `Rejected` or `Dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestPhase {
    /// The renewal layer was called, and the request selects a session.
    Started,
    /// The request waits at the gate.
    Waiting,
    /// The gate released the request.
    Released,
    /// The request was passed to the inner service.
    Sent {
        /// The generation of the request's identity.
        generation: u64,
    },
    /// The response is discarded, and the request will be sent again.
    Replayed {
        /// The generation of the request's identity.
        generation: u64,
        /// Why the request is replayed.
        cause: ReplayCause,
    },
    /// The response is delivered. Its body may still be in flight.
    Completed {
        /// The generation of the request's identity.
        generation: u64,
        /// The status of the response.
        status: StatusCode,
        /// What the layer made of the response.
        outcome: ResponseOutcome,
    },
    /// The inner service returned an error.
    Failed,
    /// The gate rejected the request, before it was sent or before a replay.
    Rejected {
        /// The kind of the error.
        error: RenewalErrorKind,
    },
    /// The future was dropped before it completed.
    Dropped,
    /// The response was rejected under a second identity, and waits for evidence.
    InDoubt,
}

/// Why a request is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayCause {
    /// The response showed that the session has expired.
    Expired,
    /// The session was renewed while the request was in flight.
    Stale,
    /// The request's identity ended between two hops of a redirect.
    EndedMidRedirect,
    /// The server rejected cookies that another response of the same identity has changed
    /// meanwhile.
    CookiesChanged,
}

/// A subscription to events, returned by [`Sessions::events`](super::Sessions::events).
///
/// Slow subscribers never block senders. The last
/// [`event_capacity`](super::SessionsBuilder::event_capacity) events are buffered. A subscriber
/// that falls further behind misses the oldest ones, and [`lagged`](Self::lagged) counts them.
///
/// The events of one request are in order, and so are those of one renewal. Events of different
/// requests that happen at nearly the same time on two threads may be received in either order.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_client_sessions::{Sessions, session::EventKind};
///
/// let sessions = Sessions::new();
/// let mut events = sessions.events();
/// sessions.session("alice").clear();
///
/// let event = events.recv().await.unwrap();
/// assert_eq!((event.session.to_string().as_str(), event.kind), ("alice", EventKind::Created));
/// # let _ = events.recv().await;
/// drop(sessions);
/// while let Some(event) = events.recv().await {
///     println!("{:?} {}: {:?}", event.at, event.session, event.kind);
/// }
/// assert_eq!(events.lagged(), 0);
/// # });
/// ```
#[must_use = "a subscription does nothing unless its events are received"]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    context: Weak<RegistryContext>,
    lagged: u64,
}

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<Event>, context: Weak<RegistryContext>) -> Self {
        Self { receiver, context, lagged: 0 }
    }

    /// Receives the next event.
    ///
    /// Returns `None` once the sessions and everything that uses them are dropped, and all buffered
    /// events were received.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(events)) => self.lagged += events,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Returns the next event if one is buffered.
    pub fn try_recv(&mut self) -> Option<Event> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(events)) => self.lagged += events,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// The number of events before the last received one that this subscriber missed.
    pub fn lagged(&self) -> u64 {
        self.lagged
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(context) = self.context.upgrade() {
            context.events.subscribers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("lagged", &self.lagged).finish_non_exhaustive()
    }
}

/// Sends events to the subscribers. Nothing may be sent under a lock of this crate, because sending
/// wakes subscribers.
pub(crate) struct EventBus {
    /// Loaded before anything else is done for an event.
    subscribers: AtomicUsize,
    requests: AtomicU64,
    capacity: usize,
    /// Allocated for the first subscriber.
    sender: OnceLock<broadcast::Sender<Event>>,
}

impl EventBus {
    const MAX_CAPACITY: usize = 1 << 24;

    pub(super) fn new(capacity: usize) -> Self {
        Self {
            subscribers: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            capacity: capacity.clamp(1, Self::MAX_CAPACITY),
            sender: OnceLock::new(),
        }
    }

    pub(crate) fn has_subscribers(&self) -> bool {
        self.subscribers.load(Ordering::Relaxed) > 0
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        let sender = self.sender.get_or_init(|| broadcast::Sender::new(self.capacity));
        let receiver = sender.subscribe();
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        receiver
    }

    /// Returns the number of the next request.
    pub(crate) fn next_number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn send(&self, event: Event) {
        if let Some(sender) = self.sender.get() {
            // An error means that the last subscriber was dropped just now.
            let _ = sender.send(event);
        }
    }
}
