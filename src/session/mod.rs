//! Sessions: named series of identities, each with its own cookies and profile.
//!
//! A [`Session`] has an id and one current [`Identity`] at a time. An identity is one generation of
//! the session: a cookie jar and a profile that are never mixed with those of another generation.
//!
//! A request takes the current identity when it is sent, and keeps it. Its response stores cookies
//! in that identity only, so a late response cannot change the cookies of a renewed session.
//!
//! # Selecting a session
//!
//! [`SessionLayer`] uses the first of these that a request has:
//!
//! 1. an [`Identity`], set by a [`RenewalLayer`](crate::RenewalLayer) above,
//! 2. a [`Session`] in its extensions,
//! 3. a [`SessionId`] in its extensions,
//! 4. the [default session](SessionsBuilder::default_session).
//!
//! A request that selects no session is not sent, and fails with
//! [`NoSession`](SessionErrorKind::NoSession). A request whose extensions contradict each other
//! fails with [`SessionMismatch`](SessionErrorKind::SessionMismatch).
//!
//! Services below the layer get the request's identity from [`Identity::of`].
//!
//! # Sending and storing cookies
//!
//! The layer adds the cookies of the jar that match the request's URL to its `Cookie` header. If
//! the request already has a `Cookie` header, its cookies take precedence by name. They are sent
//! with this request only, and not stored.
//!
//! The `Set-Cookie` headers of the response are stored. An invalid one is skipped, counted and
//! traced, and the response is delivered. The response gets a [`SessionInfo`] extension.
//!
//! Two extensions change this for one request: [`RequestCookies`] adds cookies to the session, and
//! [`CookieMode`] turns off sending, storing or both.
//!
//! # Examples
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{SessionId, SessionInfo, SessionLayer, Sessions};
//!
//! let sessions = Sessions::new();
//! let client = ServiceBuilder::new().layer(SessionLayer::new(&sessions)).service(service_fn(
//!     |request: Request<()>| async move {
//!         let received = request.headers().get("cookie").cloned();
//!         Response::builder().header("set-cookie", "sid=abc==; Path=/").body(received)
//!     },
//! ));
//!
//! let id = SessionId::from("alice");
//! let request = || Request::get("https://shop.example/cart").extension(id.clone()).body(());
//! let first = client.clone().oneshot(request()?).await?;
//! let info = first.extensions().get::<SessionInfo>().expect("every response has it");
//! assert_eq!(info.session(), &id);
//! assert_eq!(info.cookies()[0].value(), Some("abc=="));
//!
//! let second = client.oneshot(request()?).await?;
//! assert_eq!(second.body().as_ref().unwrap(), "sid=abc==");
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # Observability
//!
//! [`Stats`] are counters of one session or of all sessions. [`Events`] is a stream of everything
//! that happens to sessions, renewals and requests; `examples/timeline.rs` draws it.
//!
//! Without a subscriber or recorder, each instrumentation point costs one load and one branch, and
//! does not allocate.
//!
//! ## Tracing
//!
//! All spans and events have level `DEBUG`. They never contain the query of a URI, and contain
//! values of cookies only with [`trace_cookie_values`](SessionsBuilder::trace_cookie_values).
//!
//! | target | span | meaning |
//! |---|---|---|
//! | `tower_client_sessions::request` | `request` (`session`, `method`, `host`, `path`) | A request in the renewal layer until its response. Contains a span `wait` for each wait, and a span `send` (`generation`) for each send. |
//! | `tower_client_sessions::renewal` | `renewal` (`session`, `generation`, `reason`) | A renewal. Contains a span `send` for each of its requests, and follows from the span in which it was started. |
//! | `tower_client_sessions::cookies` | | Cookies sent, received and rejected. |
//!
//! ## Metrics
//!
//! With the feature `metrics`, these metrics are sent to the recorder of the
//! [`metrics`](https://docs.rs/metrics) crate. Install the recorder before building the sessions:
//! each metric is registered then. No metric has the id of a session as a label.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `client_sessions_live` | gauge | | sessions that exist |
//! | `client_sessions_created_total` | counter | | sessions created |
//! | `client_sessions_evicted_total` | counter | | sessions evicted because of `max_sessions` |
//! | `client_sessions_requests_sent_total` | counter | | requests sent by the session layer, including hops and replays |
//! | `client_sessions_requests_waited_total` | counter | | waits of requests at the gate |
//! | `client_sessions_requests_waiting` | gauge | | requests that are waiting at the gate |
//! | `client_sessions_wait_seconds` | histogram | | duration of each wait |
//! | `client_sessions_requests_replayed_total` | counter | `cause`: `expired`, `stale`, `ended_mid_redirect`, `cookies_changed` | replays |
//! | `client_sessions_renewals_started_total` | counter | `reason`: `initial`, `expired`, `cleared`, `requested`, `limit_reached` | renewals started |
//! | `client_sessions_renewals_ended_total` | counter | `outcome`: `committed`, `failed`, `abandoned` | renewals ended |
//! | `client_sessions_renewal_seconds` | histogram | `outcome` | duration of each renewal |
//! | `client_sessions_cookies_stored_total` | counter | | cookies set or deleted by responses |
//! | `client_sessions_cookies_rejected_total` | counter | | `Set-Cookie` headers that were rejected |

mod context;
#[cfg(feature = "formats")]
mod dirty;
mod error;
mod events;
mod future;
mod id;
mod identity;
mod initial;
mod layer;
mod metrics;
mod names;
mod outcome;
pub(crate) mod profile_wait;
pub(crate) mod renewal_backend;
pub(crate) mod request;
mod sent_cookies;
mod service;
#[expect(clippy::module_inception, reason = "the file defines the type of this name")]
mod session;
pub(crate) mod sessions;
#[cfg_attr(not(feature = "shared"), allow(dead_code))]
pub(crate) mod share;
#[cfg(feature = "shared")]
mod shared;
#[cfg(feature = "serde")]
pub mod snapshot;
mod source;
mod stats;
pub(crate) mod trace;

pub use self::{
    error::{SessionError, SessionErrorKind, SessionIdTaken},
    events::{Event, EventKind, Events, MissingBody, ReplayCause, RequestPhase},
    future::ResponseFuture,
    id::SessionId,
    identity::Identity,
    layer::SessionLayer,
    outcome::{NotReplayed, ResponseOutcome},
    request::{CookieMode, RequestCookies, SessionInfo},
    service::SessionService,
    session::Session,
    sessions::{Sessions, SessionsBuilder},
    stats::Stats,
};
#[doc(no_inline)]
pub use crate::gate::RenewalHandle;

#[cfg(feature = "serde")]
pub(crate) use self::initial::InitialIdentity;
pub(crate) use self::{identity::IdentityInner, outcome::Delivery, session::SessionInner};
