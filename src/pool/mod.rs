//! Pools: groups of sessions that serve requests without a session name.
//!
//! A [`SessionPool`] has up to [`size`](SessionPoolBuilder::size) sessions, its *members*.
//! [`PoolLayer`] wraps the renewal layer and selects a member for each request that names no
//! session. Members are created when requests need them. They are named `pool-1`, `pool-2` and so
//! on, and are warmed up by the renewal rule before they serve; without a rule, they serve as they
//! are. Requests that name a session bypass the pool.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{PoolLayer, SessionLayer, SessionPool, Sessions, pool::Member};
//!
//! let sessions = Sessions::new();
//! let pool = SessionPool::builder(&sessions).size(8).exclusive().max_error_score(3.0).build()?;
//! let client = ServiceBuilder::new()
//!     .layer(PoolLayer::new(&pool))
//!     // Add the `RenewalLayer` here if sessions have to log in.
//!     .layer(SessionLayer::new(&sessions))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new(Full::new(Bytes::from("hello"))))
//!     }));
//!
//! let response = client.oneshot(Request::get("https://shop.example/").body(())?).await?;
//! let member = response.extensions().get::<Member>().expect("from a member").clone();
//! assert_eq!(member.id().to_string(), "pool-1");
//! assert_eq!(pool.snapshot().members[0].in_use, 1);
//!
//! let text = response.into_body().collect().await?.to_bytes();
//! if text.starts_with(b"you are blocked") {
//!     member.retire();
//! }
//! assert_eq!(pool.snapshot().members[0].in_use, 0, "the body was read");
//! # Ok::<_, BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # Leases
//!
//! A request leases a member until its response body is read to the end, fails or is dropped, or
//! until the request itself fails or is cancelled. [`exclusive`](SessionPoolBuilder::exclusive) and
//! [`max_in_flight`](SessionPoolBuilder::max_in_flight) limit the concurrent leases of a member,
//! and [`min_delay`](SessionPoolBuilder::min_delay) spaces them. [`SessionPool::lease`] leases a
//! member for more than one request.
//!
//! A request waits if no member is free. It reserves nothing in the services below while it waits.
//! A member that becomes free goes to the request that has waited longest, among those that it can
//! serve. A dropped request leaves the queue. [`max_wait`](SessionPoolBuilder::max_wait) and
//! [`max_waiting`](SessionPoolBuilder::max_waiting) limit the duration of a wait and the number of
//! waiters.
//!
//! # Health
//!
//! The pool [classifies](SessionPoolBuilder::classify_with) each response, error and body error,
//! and applies the resulting [`Verdict`]. The [`Member`] in the extensions of a response accepts
//! verdicts as well. A bad mark adds one to the score of a member, and a good mark reduces it; at
//! [`max_error_score`](SessionPoolBuilder::max_error_score) the member is retired. A 429 makes the
//! member cool down and is not a bad mark.
//!
//! A retired member serves no new requests. Its requests in flight complete, and then its session
//! is removed. The successor is warmed up immediately, or already in the last tenth of
//! [`max_uses`](SessionPoolBuilder::max_uses) or [`max_age`](SessionPoolBuilder::max_age), so that
//! it takes over without a pause.
//!
//! Members under renewal are skipped. If every member is under renewal, requests wait for the first
//! renewal to finish.
//!
//! The pool has a circuit breaker: it becomes [unavailable](SessionPool::unavailable) when [too
//! many](SessionPoolBuilder::max_failed_warm_ups) warm-ups or renewals fail in a row. Working
//! members continue to serve, and requests that none of them can serve fail with the cause. After a
//! [backoff](SessionPoolBuilder::unavailable_backoff), the next request starts one warm-up; the
//! pool is available again if that succeeds.
//!
//! # Selection
//!
//! A [`Strategy`] selects among the members that are ready, or a custom [`Picker`] does.
//! [`sticky_by_host`](SessionPoolBuilder::sticky_by_host) and
//! [`sticky_by`](SessionPoolBuilder::sticky_by) keep related requests on one member.
//! [`UnusedSession`] in the extensions of a request requires a member that was not used before. A
//! [`TriedSessionsLayer`] around a retry layer makes each attempt use a different member.
//!
//! # Shared with other processes
//!
//! If sessions are [shared](crate::session::SessionsBuilder), each member belongs to one process at
//! a time, and so do its leases: `exclusive` holds for all processes together. Pools with the same
//! name take their members from the same numbered *slots*, whose number is set by
//! [`slots`](SessionPoolBuilder::slots).
//!
//! A process holds a slot by a lease of the store and extends that lease in the background, so that
//! requests do not access the store. The slots of a crashed process are free once its leases
//! expire; the process that acquires such a slot continues its session. Idle slots are released.
//! While another process is short of slots, each process periodically releases one of its own, once
//! the requests of that slot have ended. A retired session ends for all processes.
//!
//! If the store loses its leases, two processes may use the same slot until the first of them
//! extends its lease, which is after a third of the lease's duration.
//!
//! # Saving and loading
//!
//! Members are ordinary sessions and are saved with them. A pool that is built from loaded sessions
//! finds its members by name, up to its size. Scores and use counts are not saved.

mod affinity;
mod body;
mod classify;
mod effects;
mod error;
mod future;
mod layer;
mod lease;
#[expect(clippy::module_inception, reason = "the file is about the type of this name")]
mod pool;
mod ready;
mod runtime;
mod service;
mod settings;
mod slot_leases;
mod state;
mod stats;
mod strategy;
mod tasks;
mod tried_sessions;
mod types;
mod wait;
mod warm_up;

pub use self::{
    body::LeasedBody,
    classify::{Outcome, Verdict},
    error::{PoolConfigError, PoolConfigErrorKind, PoolError, PoolErrorKind},
    future::ResponseFuture,
    layer::PoolLayer,
    lease::{Lease, Member},
    pool::{SessionPool, SessionPoolBuilder},
    service::PoolService,
    stats::{MemberSnapshot, MemberState, PoolSnapshot, PoolStats},
    strategy::{MemberView, Picker, RequestView, Strategy},
    tried_sessions::{TriedSessions, TriedSessionsLayer, TriedSessionsService, UnusedSession},
};
