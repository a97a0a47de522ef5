//! Sessions for HTTP **clients** built on tower: cookies and a profile per session, and a renewal that holds under load.
//!
//! # The idea
//!
//! A [`Session`] is a name and a series of identities, one at a time. An [`Identity`] is one *generation*: a cookie jar and a
//! profile that never mix with those of another. A request takes the current identity when it is sent and keeps it; its answer
//! stores cookies there and nowhere else. A renewal builds a *candidate*, logs in under it, and makes it current by swapping one
//! pointer; if it fails, the candidate is dropped and nothing was touched. So an old answer cannot pollute a renewed session,
//! however late it comes: there is no check that could be got wrong.
//!
//! # A whole stack
//!
//! ```
//! # #[cfg(feature = "redirect")]
//! # fn main() -> Result<(), tower::BoxError> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{
//!     Expired, ProfileLayer, Renewal, RenewalLayer, SessionId, SessionInfo, SessionLayer,
//!     Sessions, redirect::follow_redirects,
//! };
//! # type Body = Empty<bytes::Bytes>;
//! # // Stands for a client: a site whose pages want the cookie that its login hands out.
//! # let hyper_client = service_fn(|request: Request<Body>| async move {
//! #     let answer = Response::builder();
//! #     let answer = match (request.uri().path(), request.headers().get("cookie")) {
//! #         ("/login", _) => answer.header("set-cookie", "sid=1; Path=/"),
//! #         (_, Some(_)) => answer,
//! #         (_, None) => answer.status(403),
//! #     };
//! #     answer.body(Body::new())
//! # });
//!
//! let sessions = Sessions::new();
//! let client = ServiceBuilder::new()
//!     // Holds requests while their session is renewed; sends those again that met its end.
//!     .layer(
//!         RenewalLayer::new(&sessions)
//!             .expired_when(Expired::status([401, 403]).or(Expired::redirect_to("/login")))
//!             .renew_with(|renewal: Renewal<_>| async move {
//!                 let login = Request::get("https://shop.example/login").body(Body::new())?;
//!                 let answer = renewal.send(login).await?;
//!                 renewal.ensure(answer.status().is_success() && renewal.has_cookie("sid"), "the login was not accepted")
//!             }),
//!     )
//!     // tower-http's redirects, with a policy that keeps the session.
//!     .layer(follow_redirects(10))
//!     // Sends and stores cookies, at every hop.
//!     .layer(SessionLayer::new(&sessions))
//!     // Puts on the profile's user agent and headers, and hands its proxy down.
//!     .layer(ProfileLayer::new())
//!     .service(hyper_client);
//!
//! let request = Request::get("https://shop.example/cart")
//!     .extension(SessionId::from("alice"))
//!     .body(Body::new())?;
//! let response = client.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//!
//! let info = response.extensions().get::<SessionInfo>().expect("every response has it");
//! assert_eq!((info.generation(), info.replays()), (2, 1));
//! # Ok(())
//! # })
//! # }
//! # #[cfg(not(feature = "redirect"))]
//! # fn main() {}
//! ```
//!
//! Coming from elsewhere? There are [guides].
//!
//! # The order of layers
//!
//! | from above | why there |
//! |---|---|
//! | `Timeout`, `LoadShed`, an admission `ConcurrencyLimit` | the renewal layer is always ready; who wants to bound what comes in, does it above |
//! | [`ReplayBudgetLayer`](renewal::ReplayBudgetLayer), `Retry` | a retry calls again; the budget bounds the replays of all its calls together |
//! | [`PoolLayer`] | a session for each request that names none; a retry above gets another one |
//! | [`RenewalLayer`] | a replay starts from the caller's request |
//! | [`follow_redirects`](redirect::follow_redirects) | each hop below has cookies of its own |
//! | [`PeekLayer`](renewal::PeekLayer) | sees decompressed text, of each hop |
//! | [`SessionLayer`] | puts the cookies on and the identity into the request |
//! | [`ProfileLayer`] | wears that identity's profile |
//! | `ConcurrencyLimit`, `RateLimit` behind `Buffer`, `Trace` | a request that waits at the gate holds none of their permits |
//! | any `Service<http::Request<B>, Response = http::Response<R>>` | `IdentityClient`, hyper-util's client, an adapter for reqwest, axum's `Router`, `service_fn` |
//!
//! [`SessionLayer`] and [`ProfileLayer`] are useful alone, in any stack. [`gate::RenewalGate`] is useful without HTTP, for a token.
//!
//! # What always holds
//!
//! - An answer's cookies go into the identity that its request was sent under. Cookies, profile and generation are read together.
//! - One renewal of a session runs at a time, in a task of its own: dropping any request neither cancels nor repeats it.
//! - A request that waits holds nothing: no permit, no connection, no lock, no body. Every wait has a bound.
//! - A request is sent once and at most as often again as its limit says; what cannot be had again is never half sent.
//! - A request that names no session is an error, not another session's request.
//! - Values of cookies and credentials of proxies appear in no `Debug`, no `Display`, no error and, unless asked for, no trace.
//!
//! # Seeing what happens
//!
//! [`Sessions::stats`] counts, [`Sessions::events`] tells each step of sessions, renewals and requests, `tracing` has spans that
//! follow a request through hold, replay and renewal, and the feature `metrics` has figures. [`session`] says more.
//!
//! # Imports point one way
//!
//! `renewal → session → gate, cookies, profile`, and `pool`, `shared`, `profile_layer`, `redirect`, `client → session`. `gate` knows no HTTP; `cookies` and
//! `profile` know no tower, no runtime and no clock. A test holds this.
//!
//! # Features
//!
//! - `profile-files` (default): profiles from TOML and JSON.
//! - `redirect` (default): [`redirect`], on tower-http.
//! - `client`: `IdentityClient`, the end of a stack that makes proxies real and keeps identities apart on the wire.
//! - `serde`: `session::snapshot`, sessions as data.
//! - `formats`: sessions in files; cookies as curl, Playwright and browsers have them; [`renewal::Supply`] from folders and commands.
//! - `shared`: `shared`, sessions that many processes share, through files or a store of your own.
//! - `redis`: the same through Redis or Valkey.
//! - `metrics`: figures for the recorder of the crate `metrics`; [`session`] has their names.
//! - `cookie_store`: conversion between [`cookies::Jar`] and the jar of the crate `cookie_store`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod jitter;
mod rt;
mod wait;
mod waiters;

#[cfg(feature = "client")]
pub mod client;
pub mod cookies;
#[cfg(any(feature = "formats", feature = "shared"))]
mod fs;
pub mod gate;
#[cfg(any(doc, doctest))]
pub mod guides;
mod hash;
pub mod pool;
pub mod profile;
pub mod profile_layer;
#[cfg(feature = "redirect")]
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
    renewal::{Expired, Renewal, RenewalLayer},
    session::{
        CookieMode, Identity, RequestCookies, Session, SessionId, SessionInfo, SessionLayer, Sessions,
    },
};

// The README's stack compiles against the crate as it is.
#[cfg(all(doctest, feature = "redirect"))]
#[doc = include_str!("../README.md")]
struct Readme;
