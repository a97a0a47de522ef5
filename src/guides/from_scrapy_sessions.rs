//! From scrapy-sessions: its settings and methods, and their counterparts.
//!
//! | scrapy-sessions | this crate |
//! |---|---|
//! | `request.meta["session_id"]`, `request.meta["cookiejar"]` | a [`SessionId`] in the request's extensions |
//! | session 0, if a request names none | [`default_session`](crate::session::SessionsBuilder::default_session); an error without it |
//! | `request.meta["dont_merge_cookies"]` | [`CookieMode::Disabled`], or another [`CookieMode`] |
//! | `request.cookies` | [`RequestCookies`], which are stored; a `Cookie` header applies to one request |
//! | `COOKIES_ENABLED = False` | no [`SessionLayer`] |
//! | `COOKIES_DEBUG` | `tracing`, target `tower_client_sessions::cookies`; values only with [`trace_cookie_values`](crate::session::SessionsBuilder::trace_cookie_values) |
//! | `response.meta["cookies"]`, `response.meta["session_id"]` | [`SessionInfo::cookies`], [`SessionInfo::session`] |
//! | `response.sessions` | [`Sessions`], available everywhere |
//! | `sessions.get(id)` | [`Session::cookies`]; [`Sessions::get`] never creates a session |
//! | `sessions.get(id, domain=…)` | [`Session::cookies_for`] a URL |
//! | `sessions.get(id, mode=…)` | the methods of [`StoredCookie`](crate::cookies::StoredCookie), such as [`to_set_cookie`](crate::cookies::StoredCookie::to_set_cookie) |
//! | `sessions.get_profile(id)` | [`Session::profile`] |
//! | `sessions.add_cookies_manually(…)` | [`Session::add_cookies`], [`Session::set_cookie`] |
//! | `sessions.clear(id)` | [`Session::clear`] |
//! | `sessions.clear(id, renewal_request=…)` | [`Session::renew_with`], or a rule for all sessions: [`RenewalLayer::renew_with`](crate::RenewalLayer::renew_with) |
//! | `repr(sessions)` | `to_string()` of a [`Session`] or of [`Sessions`]; without values |
//! | `SESSIONS_PROFILES_SYNC`, `SESSIONS_PROFILES` | [`profiles`](crate::session::SessionsBuilder::profiles), from code, TOML or JSON; see [`crate::profile`] |
//! | stats `retry/…`, `sessions/renewal_events` | [`Sessions::stats`], [`Sessions::events`], the feature `metrics` |
//!
//! # A spider's callback
//!
//! In scrapy-sessions, each callback checks its response for an expired session, and clears it:
//!
//! ```python
//! def parse(self, response):
//!     if response.status == 403:
//!         response.sessions.clear(0, renewal_request=Request(LOGIN, meta={"session_id": 0}))
//!         yield response.request.replace(dont_filter=True)
//!         return
//!     …
//! ```
//!
//! With this crate, a layer does this for all requests, and callers do not see a 403 that a login
//! resolves:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{
//!     Expired, Renewal, RenewalLayer, SessionId, SessionInfo, SessionLayer, Sessions,
//! };
//! # type Body = http_body_util::Empty<bytes::Bytes>;
//! # let hyper_client = service_fn(|request: Request<Body>| async move {
//! #     let response = Response::builder();
//! #     let response = match (request.uri().path(), request.headers().get("cookie")) {
//! #         ("/login", _) => response.header("set-cookie", "sid=a=b==; Path=/"),
//! #         (_, Some(_)) => response,
//! #         (_, None) => response.status(403),
//! #     };
//! #     response.body(Body::new())
//! # });
//!
//! let sessions = Sessions::builder().default_session(0).build()?;
//! let login = || Request::get("https://shop.example/login").body(Body::new());
//! let client = ServiceBuilder::new()
//!     .layer(RenewalLayer::new(&sessions).expired_when(Expired::status([403])).renew_with(
//!         move |renewal: Renewal<_>| async move {
//!             renewal.send(login()?).await?;
//!             renewal.require_success()?;
//!             renewal.require_cookie("sid")
//!         },
//!     ))
//!     .layer(SessionLayer::new(&sessions))
//!     .service(hyper_client);
//!
//! let page = Request::get("https://shop.example/1").body(Body::new())?;
//! let response = client.clone().oneshot(page).await?;
//! assert_eq!(response.status(), 200);
//! let info = response.extensions().get::<SessionInfo>().unwrap();
//! assert_eq!((info.session(), info.replays()), (&SessionId::from(0), 1));
//!
//! // `clear` and `renew_with` are available too.
//! let session = sessions.session(0);
//! assert_eq!(session.cookies()[0].value(), Some("a=b=="), "the whole value is kept");
//! session.clear();
//! assert!(session.cookies().is_empty());
//! let generation = session.renew_with(login()?).await?;
//! assert_eq!(session.generation(), Some(generation));
//! assert_eq!(sessions.stats().renewals_committed, 2);
//! # drop(client);
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # Cookies
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{CookieMode, RequestCookies, SessionId, SessionLayer, Sessions};
//!
//! let sessions = Sessions::new();
//! let client = ServiceBuilder::new().layer(SessionLayer::new(&sessions)).service(service_fn(
//!     |request: Request<()>| async move {
//!         let header = request.headers().get("cookie");
//!         let seen = header.map(|cookies| cookies.to_str().unwrap().to_owned());
//!         Ok::<_, tower::BoxError>(http::Response::new(seen.unwrap_or_default()))
//!     },
//! ));
//! let request = || Request::get("https://shop.example/").extension(SessionId::from("alice"));
//!
//! // add_cookies_manually({"lang": "en"}, "https://shop.example/", "alice")
//! sessions.session("alice").add_cookies([("lang", "en")], "https://shop.example/")?;
//! // Request(url, cookies={"theme": "dark"}, meta={"session_id": "alice"})
//! let themed = request().extension(RequestCookies::new([("theme", "dark")])).body(())?;
//! assert_eq!(client.clone().oneshot(themed).await?.body(), "lang=en; theme=dark");
//! // Request(url, meta={"session_id": "alice", "dont_merge_cookies": True})
//! let alone = request().extension(CookieMode::Disabled).body(())?;
//! assert_eq!(client.oneshot(alone).await?.body(), "");
//!
//! // sessions.get("alice", domain="shop.example")
//! let alice = sessions.session("alice");
//! let cookies = alice.cookies_for("https://shop.example/")?;
//! let names: Vec<_> = cookies.iter().map(|cookie| cookie.name().unwrap()).collect();
//! assert_eq!(names, ["lang", "theme"]);
//! assert!(!alice.to_string().contains("dark"), "values are not shown");
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # Profiles
//!
//! ```
//! # #[cfg(feature = "profile-files")] {
//! use tower_client_sessions::{Profiles, Sessions};
//!
//! let profiles = Profiles::from_toml(r#"
//!     [[profile]]
//!     proxy = { url = "http://proxy.example:8080", username = "u", password = "p" }
//!     user-agent = "Mozilla/5.0"
//!
//!     [[profile]]
//!     proxy = "direct"
//!     user-agent = "crawler/1.0"
//! "#).unwrap();
//! let sessions = Sessions::builder().profiles(profiles).build().unwrap();
//! let alice = sessions.session("alice");
//! let first = alice.profile().unwrap();
//! alice.clear();
//! assert!(!alice.profile().unwrap().ptr_eq(&first), "a new identity has another profile");
//! # }
//! ```
//!
//! # Differences
//!
//! - One login serves all requests that found their session expired. A failed login is retried, and
//!   its cause is reported.
//! - A waiting request stays in its future. It returns neither to a scheduler nor to a callback.
//! - A successful response of a session that has ended in the meantime is returned.
//!   [`StaleResponse::ReplayAll`](crate::renewal::StaleResponse::ReplayAll) replays the request, as
//!   scrapy-sessions does.
//! - A request that names no session is an error, unless a default is configured.
//! - The name of a session is text or a number; 7 and `"7"` are equal.
//! - If the profile of a session has a proxy, all its requests use that proxy, including replays.
//!
//! # Python spiders
//!
//! `examples/gateway.rs` is an HTTP proxy built with this crate. A Scrapy spider names its session
//! in the header `x-session`, and gets sessions, profiles and renewal without Rust code.

// For the links in the documentation.
use crate::{CookieMode, RequestCookies, Session, SessionId, SessionInfo, SessionLayer, Sessions};
