//! Pools: many sessions that work as one.
//!
//! A [`SessionPool`] has up to [`size`](SessionPoolBuilder::size) sessions, its *members*. [`PoolLayer`], above the renewal
//! layer, gives one to each request that names no session. The members are made when requests need them, under names of the
//! pool's own (`pool-1`, `pool-2` and so on), and warmed up by the renewal rule before they serve; where there is no rule, they
//! serve as they are. A request that names a session passes the pool by.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{PoolLayer, SessionLayer, SessionPool, Sessions, pool::Member};
//!
//! let sessions = Sessions::new();
//! let pool = SessionPool::builder(&sessions).size(8).exclusive().max_error_score(3.0).build().unwrap();
//! let client = ServiceBuilder::new()
//!     .layer(PoolLayer::new(&pool))
//!     // Here stands the `RenewalLayer`, if sessions have to log in.
//!     .layer(SessionLayer::new(&sessions))
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, tower::BoxError>(Response::new(Full::new(Bytes::from("hello")))) }));
//!
//! let response = client.oneshot(Request::get("https://shop.example/").body(())?).await?;
//! let member = response.extensions().get::<Member>().expect("every answer under a member has it").clone();
//! assert_eq!(member.id().to_string(), "pool-1");
//! assert_eq!(pool.snapshot().members[0].in_use, 1);
//!
//! let text = response.into_body().collect().await?.to_bytes();
//! if text.starts_with(b"you are blocked") {
//!     member.retire();
//! }
//! assert_eq!(pool.snapshot().members[0].in_use, 0, "the body was read");
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # Leases
//!
//! A request leases its session from the moment it gets it until the body of its answer has been read, has failed, or is
//! dropped; or until the request fails or is given up. [`exclusive`](SessionPoolBuilder::exclusive) and
//! [`max_in_flight`](SessionPoolBuilder::max_in_flight) bound the leases of a session at one moment, and
//! [`min_delay`](SessionPoolBuilder::min_delay) spaces them. [`SessionPool::lease`] leases a session for more than one request.
//!
//! A request that finds no session free waits, and holds nothing meanwhile. Those who wait are served first come, first
//! served: whenever a session becomes free, it is given to the one who has waited longest among those whom it can serve. One
//! that is dropped gives its place up. How long one waits and how many do is
//! [bounded](SessionPoolBuilder::max_wait).
//!
//! # Health
//!
//! Each answer, error and broken body is [judged](SessionPoolBuilder::judge), and so is whatever is said by the [`Member`] in
//! the response's extensions. A bad mark adds one to the session's score, a good one heals; at
//! [`max_error_score`](SessionPoolBuilder::max_error_score) the session is retired. A 429 makes it rest and is no bad mark. A retired
//! session serves no new request; those on their way end as they would, and then it is forgotten. Its successor is warmed up
//! at once, and in the last tenth of [`max_uses`](SessionPoolBuilder::max_uses) and [`max_age`](SessionPoolBuilder::max_age)
//! even before, so that it takes over without a pause.
//!
//! A session that is being renewed is passed over for others; if all are, requests wait for the first that is done.
//!
//! When [too many](SessionPoolBuilder::max_failed_warm_ups) sessions in a row could not be warmed up or renewed, the pool is
//! [broken](SessionPool::broken): members that still work serve on, and requests that none of them can serve get an error
//! with the cause. A request that comes after a [rest](SessionPoolBuilder::unavailable_backoff) makes it try once more, and one success
//! mends it.
//!
//! # Which one
//!
//! [`Strategy`] says which of those that can serve does, or [`Picker`] does. [`sticky_by_host`](SessionPoolBuilder::sticky_by_host)
//! and [`sticky_by`](SessionPoolBuilder::sticky_by) keep related requests on one session. A [`UnusedSession`] in a request's
//! extensions asks for one that nobody has used. A [`TriedSessionsLayer`] above a retry layer makes each try use another session.
//!
//! # Shared with other processes
//!
//! Of sessions that are [shared](crate::session::SessionsBuilder), each member belongs to one process at a time, and with it its
//! leases: `exclusive` holds for the whole fleet. Pools of one name take their members from the same numbered *seats*, as many as
//! [`seats`](SessionPoolBuilder::seats) says. A process holds a seat by a lease of the store, which it extends, so a request asks
//! nobody; the seats of a process that is gone are free when their leases have run out, and whoever takes one has its session with
//! it. A seat that nobody used for a while is given back, and while another process wants for one, each process gives one back
//! from time to time, as soon as its requests have ended. A session that is retired is ended for all. A store that forgets its
//! leases may let two processes have one seat, until the first of them notices after a third of its lease.
//!
//! # Saving and loading
//!
//! Members are sessions like any other and are saved with them. A pool that is built on loaded sessions finds its members by
//! their names, up to its size; their scores and uses start anew.

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
