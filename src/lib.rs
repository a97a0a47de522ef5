//! Sessions for HTTP **clients** built on [tower](https://docs.rs/tower): each session has its own
//! cookie jar and profile, and when it expires, exactly one login runs.
//!
//! # The idea
//!
//! A [`Session`] is a name and a series of identities, one at a time. An [`Identity`] is one
//! *generation* of the session: a cookie jar and a profile, which are never mixed with those of
//! another generation.
//!
//! A request takes the current identity when it is sent, and keeps it: the cookies of its response
//! are stored in that identity and nowhere else. A renewal creates a *candidate* identity, logs in
//! under it, and makes it current by swapping one pointer. If the login fails, the candidate is
//! dropped, and the session is unchanged. A late response therefore cannot affect a renewed
//! session: it only has access to the identity that its request was sent under.
//!
//! # A complete stack
//!
//! ```
//! # fn main() -> Result<(), tower::BoxError> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{
//!     Expired, ProfileLayer, RedirectLayer, Renewal, RenewalLayer, SessionId, SessionInfo,
//!     SessionLayer, Sessions,
//! };
//! # type Body = Empty<bytes::Bytes>;
//! # // Replaces a client: a site whose pages require the cookie that its login sets.
//! # let hyper_client = service_fn(|request: Request<Body>| async move {
//! #     let response = Response::builder();
//! #     let response = match (request.uri().path(), request.headers().get("cookie")) {
//! #         ("/login", _) => {
//! #             response.status(303).header("location", "/").header("set-cookie", "sid=1; Path=/")
//! #         }
//! #         (_, Some(_)) => response,
//! #         (_, None) => response.status(403),
//! #     };
//! #     response.body(Body::new())
//! # });
//!
//! let sessions = Sessions::new();
//! let client = ServiceBuilder::new()
//!     // Makes requests wait while their session is renewed, and replays rejected requests.
//!     .layer(
//!         RenewalLayer::new(&sessions)
//!             .expired_when(Expired::status([401, 403]).or(Expired::redirect_to("/login")))
//!             .renew_with(|renewal: Renewal<_>| async move {
//!                 let login = Request::post("https://shop.example/login").body(Body::new())?;
//!                 renewal.send(login).await?;
//!                 // A wrong password shows the form again, and is not tried again.
//!                 renewal.require_not_at("/login")
//!             }),
//!     )
//!     // Follows redirects, and keeps the session of the request.
//!     .layer(RedirectLayer::new(10))
//!     // Sends and stores cookies, also for each redirect.
//!     .layer(SessionLayer::new(&sessions))
//!     // Sets the user agent and headers of the profile, and passes its proxy to the client.
//!     .layer(ProfileLayer::new())
//!     .service(hyper_client);
//!
//! let request = Request::get("https://shop.example/cart")
//!     .extension(SessionId::from("alice"))
//!     .body(Body::new())?;
//! let response = client.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//!
//! let info = response.extensions().get::<SessionInfo>().expect("each response has it");
//! assert_eq!((info.generation(), info.replays()), (2, 1));
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! The [guides] compare this crate with scrapy-sessions and with the cookie jar of reqwest.
//!
//! # Order of layers
//!
//! From the outermost layer to the innermost service:
//!
//! | layer | reason for its position |
//! |---|---|
//! | `Timeout`, `LoadShed`, `ConcurrencyLimit` for admission | [`RenewalLayer`] is always ready, so limits on incoming requests belong above it |
//! | [`ReplayBudgetLayer`](renewal::ReplayBudgetLayer), `Retry` | a retry calls the stack again; the budget limits the replays of all these calls together |
//! | [`PoolLayer`] | assigns a session to requests that name none; a retry above it gets another session |
//! | [`RenewalLayer`] | replays the request of the caller |
//! | [`RedirectLayer`] | the layers below handle the cookies of each redirect |
//! | [`PeekLayer`](renewal::PeekLayer) | sees the decompressed body of each response |
//! | [`SessionLayer`] | adds the cookies and the identity to the request |
//! | [`ProfileLayer`] | applies the profile of that identity |
//! | `ConcurrencyLimit`, `RateLimit` behind `Buffer`, `Trace` | a request that waits for a renewal holds none of their permits |
//! | any `Service<http::Request<B>, Response = http::Response<R>>` | `IdentityClient`, hyper-util's client, an adapter for reqwest, axum's `Router`, `service_fn` |
//!
//! [`SessionLayer`] and [`ProfileLayer`] work without the other layers. [`gate::RenewalGate`] works
//! without HTTP, for example to renew a token.
//!
//! # Guarantees
//!
//! - The cookies of a response are stored in the identity that its request was sent under. Cookies,
//!   profile and generation of a request always belong together.
//! - At most one renewal of a session runs at a time, in a task of its own. Dropping a request
//!   neither cancels nor repeats it.
//! - A waiting request holds no permit, connection, lock or body. Each wait has a time limit.
//! - A request is sent once, and replayed at most as often as its limit allows. A request whose
//!   body cannot be replayed is never sent again in part.
//! - A request that names no session fails. It never uses the session of another request.
//! - Cookie values and proxy credentials never appear in `Debug` or `Display` output or in errors,
//!   and in traces only on request.
//!
//! # Observability
//!
//! [`Sessions::stats`] returns counters, and [`Sessions::events`] subscribes to the events of
//! sessions, renewals and requests. `tracing` spans follow a request through its waits, replays and
//! renewals. The feature `metrics` adds counters, gauges and histograms. See [`session`].
//!
//! # Features
//!
//! - `profile-files` (default): profiles from TOML and JSON files.
//! - `redirect` (default): `redirect::follow_redirects`, a policy for the redirect layer of
//!   tower-http.
//! - `json`: [`Expired`] rules on JSON bodies.
//! - `client`: `IdentityClient`, an HTTP client that uses the proxies of profiles, and separates
//!   the connections and TLS sessions of identities.
//! - `serde`: `session::snapshot`, snapshots of sessions.
//! - `formats`: sessions in files, cookies in the formats of curl, Playwright and browsers, and a
//!   [`renewal::SessionSource`] from a directory or a command.
//! - `shared`: `shared`, sessions shared between processes, through files or a custom store.
//! - `redis`: a store for `shared` in Redis or Valkey.
//! - `metrics`: metrics for the crate `metrics`. [`session`] lists their names.
//! - `cookie_store`: conversion of a [`cookies::Jar`] to and from the jar of the crate
//!   `cookie_store`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod jitter;
mod rt;
mod wait;
mod waiters;

#[cfg(feature = "client")]
pub mod client;
pub mod cookies;
mod error_chain;
#[cfg(any(feature = "formats", feature = "shared"))]
mod fs;
pub mod gate;
#[cfg(any(doc, doctest))]
pub mod guides;
mod hash;
pub mod pool;
pub mod profile;
pub mod profile_layer;
pub mod redirect;
pub mod renewal;
pub mod session;
#[cfg(feature = "shared")]
pub mod shared;

#[cfg(feature = "client")]
pub use self::client::IdentityClient;
pub use self::{
    gate::RenewalGate,
    pool::{PoolLayer, SessionPool},
    profile::{Profile, Profiles},
    profile_layer::ProfileLayer,
    redirect::RedirectLayer,
    renewal::{Expired, Renewal, RenewalLayer},
    session::{
        CookieMode, Identity, RequestCookies, Session, SessionId, SessionInfo, SessionLayer, Sessions,
    },
};

// Compiles the example of the README.
#[cfg(all(doctest, feature = "redirect"))]
#[doc = include_str!("../README.md")]
struct Readme;
