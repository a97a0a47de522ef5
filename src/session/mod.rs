//! Sessions: who a request belongs to, with which cookies it goes, and where those of its answer are kept.
//!
//! A [`Session`] is a name and a series of identities, one at a time. An [`Identity`] is one generation: a cookie jar and a
//! profile that never mix with those of another. A request takes the current identity when it is sent and keeps it, so that its
//! answer stores cookies there and nowhere else, however late it comes.
//!
//! # Which session a request belongs to
//!
//! [`SessionLayer`] looks into the request's extensions: for the [`Identity`] that a renewal layer above has put there, then for
//! a [`Session`], then for a [`SessionId`], and then for the default session of [`Sessions`]. A request that names none, where
//! no default was configured, is an error and is not sent. So is one that names a session other than its identity's.
//!
//! Layers below find out whom a request goes under by [`Identity::of`].
//!
//! # What is sent and stored
//!
//! The jar's cookies that match the request's URL go into its `Cookie` header. Cookies in a `Cookie` header that the request
//! already has win over the jar's by name, for this request only, and are not stored. [`RequestCookies`] in the extensions are
//! stored as if the URL had set them. A [`CookieMode`] in the extensions turns sending, storing or both off for one request.
//!
//! Every `Set-Cookie` of the response that the rules allow is stored; one that they refuse is skipped, counted and traced, and the
//! response is delivered. The response carries a [`SessionInfo`] in its extensions.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{SessionId, SessionInfo, SessionLayer, Sessions};
//!
//! let sessions = Sessions::new();
//! let client = ServiceBuilder::new().layer(SessionLayer::new(&sessions)).service(service_fn(
//!     |request: http::Request<()>| async move {
//!         let seen = request.headers().get("cookie").cloned();
//!         let answer = http::Response::builder().header("set-cookie", "sid=abc==; Path=/");
//!         answer.body(seen)
//!     },
//! ));
//!
//! let request = || http::Request::get("https://shop.example/cart").extension(SessionId::from("alice")).body(());
//! let first = client.clone().oneshot(request()?).await?;
//! let info = first.extensions().get::<SessionInfo>().expect("every response has it");
//! assert_eq!(info.session(), &SessionId::from("alice"));
//! assert_eq!(info.cookies()[0].value(), Some("abc=="));
//!
//! let second = client.oneshot(request()?).await?;
//! assert_eq!(second.body().as_ref().unwrap(), "sid=abc==");
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # Seeing what happens
//!
//! [`Stats`] are counters, of a session or of all. [`Events`] tell every step of sessions, renewals and requests to whoever
//! subscribes; `examples/timeline.rs` draws a picture of them.
//!
//! Where nobody listens, each place that has something to tell costs a load and a branch, and allocates nothing: it looks at the
//! number of subscribers, at the level that `tracing` is set to, and at a figure that is not there.
//!
//! Spans and events of `tracing`, all at the level `DEBUG` and without the values of cookies and the queries of URIs:
//!
//! | target | span | what happens in it |
//! |---|---|---|
//! | `tower_client_sessions::request` | `request` (`session`, `method`, `host`, `path`) | a request from the renewal layer to its answer, with the spans `hold` and `send` (`generation`) in it, as often as it is held and sent |
//! | `tower_client_sessions::renewal` | `renewal` (`session`, `generation`, `reason`) | a renewal, with a span `send` for each request that it sends; it follows from the request that has started it |
//! | `tower_client_sessions::cookies` | | cookies sent, received and refused |
//!
//! Figures for the recorder of the crate [`metrics`](https://docs.rs/metrics), with the feature `metrics`. The recorder has to be
//! installed before the sessions are built: each figure is looked up then, once. No figure has the name of a session as a label.
//!
//! | name | kind | labels | what it is |
//! |---|---|---|---|
//! | `client_sessions_live` | gauge | | sessions there are |
//! | `client_sessions_created_total` | counter | | sessions created |
//! | `client_sessions_evicted_total` | counter | | sessions dropped to keep within `max_sessions` |
//! | `client_sessions_requests_sent_total` | counter | | requests that left through the session layer, every hop and every replay |
//! | `client_sessions_requests_waited_total` | counter | | requests that had to wait at the gate |
//! | `client_sessions_requests_waiting` | gauge | | requests that wait at the gate now |
//! | `client_sessions_wait_seconds` | histogram | | how long a request waited, once for each wait |
//! | `client_sessions_requests_replayed_total` | counter | `cause`: `expired`, `stale`, `retired` | requests sent again |
//! | `client_sessions_renewals_started_total` | counter | `reason`: `first`, `expired`, `cleared`, `requested`, `budget` | renewals started |
//! | `client_sessions_renewals_ended_total` | counter | `outcome`: `committed`, `failed`, `abandoned` | renewals that have ended |
//! | `client_sessions_renewal_seconds` | histogram | `outcome` | how long a renewal took |
//! | `client_sessions_cookies_stored_total` | counter | | cookies that responses set or deleted |
//! | `client_sessions_cookies_rejected_total` | counter | | `Set-Cookie` headers that were refused |

#[cfg(feature = "formats")]
mod dirty;
mod error;
mod events;
mod future;
mod id;
mod identity;
mod layer;
mod metrics;
pub(crate) mod profile_wait;
pub(crate) mod renewal_backend;
pub(crate) mod request;
mod service;
#[expect(clippy::module_inception, reason = "the file is about the type of this name")]
pub(crate) mod session;
pub(crate) mod sessions;
#[cfg_attr(not(feature = "shared"), allow(dead_code))]
pub(crate) mod share;
#[cfg(feature = "serde")]
pub mod snapshot;
mod stats;
pub(crate) mod trace;

pub use self::{
    error::{SessionError, SessionErrorKind},
    events::{Event, EventKind, Events, ReplayCause, RequestPhase},
    future::ResponseFuture,
    id::SessionId,
    identity::Identity,
    layer::SessionLayer,
    request::{CookieMode, RequestCookies, SessionInfo},
    service::SessionService,
    session::{RenewalHandle, Session, SessionIdTaken},
    sessions::{Sessions, SessionsBuilder},
    stats::Stats,
};
pub(crate) use self::{identity::IdentityInner, session::SessionInner};
