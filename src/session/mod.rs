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
//! # What is sent and stored
//!
//! The jar's cookies that match the request's URL go into its `Cookie` header. Cookies in a `Cookie` header that the request
//! already has win over the jar's by name, for this request only, and are not stored. [`RequestCookies`] in the extensions are
//! stored as if the URL had set them. A [`CookieSwitch`] in the extensions turns sending, storing or both off for one request.
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

#[cfg(feature = "formats")]
mod changes;
mod error;
mod future;
mod id;
mod identity;
pub(crate) mod lane;
mod layer;
pub(crate) mod request;
mod service;
#[expect(clippy::module_inception, reason = "the file is about the type of this name")]
pub(crate) mod session;
mod sessions;
#[cfg(feature = "serde")]
pub mod snapshot;
mod stats;
mod trace;
pub(crate) mod undressed;

pub use self::{
    error::{SessionError, SessionErrorKind},
    future::ResponseFuture,
    id::SessionId,
    identity::Identity,
    layer::SessionLayer,
    request::{CookieSwitch, RequestCookies, SessionInfo},
    service::SessionService,
    session::{RenewalHandle, Session, SessionExists},
    sessions::{Sessions, SessionsBuilder},
    stats::Stats,
};
pub(crate) use self::{identity::Kept, session::SessionInner};
