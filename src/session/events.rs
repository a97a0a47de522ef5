//! What happens to sessions, renewals and requests, told to whoever wants to see it.

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

use super::{SessionId, sessions::RegistryContext};
use crate::gate::{RenewalErrorKind, RenewalReason};

/// Something that happened, as [`Events`] tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When, as the time since the [`Sessions`](super::Sessions) were built. It follows tokio's clock, paused or not.
    pub at: Duration,
    /// The session that it happened to.
    pub session: SessionId,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The session was created. If it has an identity to start with, `Activated` follows.
    Created,
    /// The session was dropped to keep within `max_sessions`.
    Evicted,
    /// The session was removed.
    Removed,
    /// The session was given another name.
    Renamed {
        /// The name that it has now.
        to: SessionId,
    },
    /// An identity became current: requests go under it from now on.
    Activated {
        /// The generation of that identity.
        generation: u64,
    },
    /// The current identity has ended: nothing goes under it any more. One that is renewed while it still serves does not end;
    /// it is followed by another `Activated`.
    Invalidated {
        /// The generation of that identity.
        generation: u64,
    },
    /// A renewal has started. Where it is tried again after a failure, each try is a renewal with a generation of its own.
    RenewalStarted {
        /// The generation that it is to bring about.
        generation: u64,
        /// Why it was started.
        reason: RenewalReason,
    },
    /// The renewal has brought its generation about.
    RenewalCommitted {
        /// The generation, as in `RenewalStarted`.
        generation: u64,
        /// How long the renewal took.
        took: Duration,
    },
    /// The renewal has failed.
    RenewalFailed {
        /// The generation that will never be, as in `RenewalStarted`.
        generation: u64,
        /// In which way it failed.
        error: RenewalErrorKind,
        /// How long the renewal took.
        took: Duration,
    },
    /// The renewal was given up: by a clear, a replacement or a `renew_with`, or because the request that led was dropped.
    RenewalAbandoned {
        /// The generation that will never be, as in `RenewalStarted`.
        generation: u64,
        /// How long the renewal took.
        took: Duration,
    },
    /// A request of the session has come a step further on its way through a renewal layer.
    Request {
        /// Tells the requests of one [`Sessions`](super::Sessions) apart. Requests that began while nobody had subscribed have no number
        /// and are never told.
        number: u64,
        /// How far it is.
        step: RequestPhase,
    },
}

/// How far a request is.
///
/// Each begins with `Started` and ends with one of `Completed`, `Failed`, `Rejected` and `Dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestPhase {
    /// It was given to the renewal layer, and names its session.
    Started,
    /// It waits at the gate.
    Waiting,
    /// It waits no more.
    Released,
    /// It was handed to the service below.
    Sent {
        /// The generation of the identity that it goes under.
        generation: u64,
    },
    /// Its answer is not delivered; it will be sent again.
    Replayed {
        /// The generation of the identity that it went under.
        generation: u64,
        /// Why it is sent again.
        cause: ReplayCause,
    },
    /// It has its answer. The body may still be on its way.
    Completed {
        /// The generation of the identity that it went under.
        generation: u64,
        /// The status of the answer.
        status: StatusCode,
    },
    /// The service below failed, and the request with it.
    Failed,
    /// The gate refused it, before it was sent or after an answer that was not delivered.
    Rejected {
        /// Why.
        error: RenewalErrorKind,
    },
    /// Its future was dropped before it was answered.
    Dropped,
}

/// Why a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayCause {
    /// Its answer said that the session had expired.
    Expired,
    /// The session had been renewed while it was on its way.
    Stale,
    /// The session had ended between two hops of a redirect.
    EndedMidRedirect,
}

/// A subscription to what happens, made by [`Sessions::events`](super::Sessions::events).
///
/// Nobody waits for a subscriber. The last events, so many as
/// [`event_capacity`](super::SessionsBuilder::event_capacity) says, are kept until every subscriber has read them; one that falls
/// further behind misses the oldest, and [`missed`](Self::missed) counts them.
///
/// What one request does is told in order, and so is what one renewal does. Between two of them, what happened at nearly the same
/// moment on two threads may be told in either order.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_client_sessions::{Sessions, session::EventKind};
///
/// let sessions = Sessions::new();
/// let mut events = sessions.events();
/// sessions.session("alice").clear();
///
/// let event = events.next().await.unwrap();
/// assert_eq!((event.session.to_string().as_str(), event.kind), ("alice", EventKind::Created));
/// # let _ = events.next().await;
/// drop(sessions);
/// while let Some(event) = events.next().await {
///     println!("{:?} {}: {:?}", event.at, event.session, event.kind);
/// }
/// assert_eq!(events.missed(), 0);
/// # });
/// ```
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    context: Weak<RegistryContext>,
    missed: u64,
}

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<Event>, context: Weak<RegistryContext>) -> Self {
        Self { receiver, context, missed: 0 }
    }

    /// The next event, as soon as there is one; `None` once the sessions and all that used them are gone and everything was told.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(events)) => self.missed += events,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next event, if there is one already.
    pub fn try_recv(&mut self) -> Option<Event> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(events)) => self.missed += events,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// How many events happened that this subscriber was too slow for, before the last one it was given.
    pub fn lagged(&self) -> u64 {
        self.missed
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
        f.debug_struct("Events").field("missed", &self.missed).finish_non_exhaustive()
    }
}

/// Where events are told. Nothing may be told under a lock of ours: it wakes the subscribers.
pub(crate) struct EventBus {
    /// What is looked at before anything else is done.
    subscribers: AtomicUsize,
    requests: AtomicU64,
    capacity: usize,
    /// Made for the first subscriber.
    sender: OnceLock<broadcast::Sender<Event>>,
}

impl EventBus {
    /// The most that a channel is made for.
    const CAPACITY: usize = 1 << 24;

    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            subscribers: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            capacity: capacity.clamp(1, Self::CAPACITY),
            sender: OnceLock::new(),
        }
    }

    /// Whether anybody listens.
    pub(crate) fn is_watched(&self) -> bool {
        self.subscribers.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        let sender = self.sender.get_or_init(|| broadcast::Sender::new(self.capacity));
        let receiver = sender.subscribe();
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        receiver
    }

    /// A number for a request.
    pub(crate) fn number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn send(&self, event: Event) {
        if let Some(sender) = self.sender.get() {
            // The last subscriber may just have gone.
            let _ = sender.send(event);
        }
    }
}

impl RegistryContext {
    /// Tells an event, if anybody listens.
    pub(crate) fn tell(&self, session: &SessionId, kind: EventKind) {
        if self.events.is_watched() {
            self.events.send(Event { at: self.now(), session: session.clone(), kind });
        }
    }
}
