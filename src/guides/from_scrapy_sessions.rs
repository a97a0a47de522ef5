//! From scrapy-sessions: each of its calls beside ours.
//!
//! | scrapy-sessions | here |
//! |---|---|
//! | `request.meta["session_id"]`, `request.meta["cookiejar"]` | a [`SessionId`] in the request's extensions |
//! | session 0, where none is named | [`default_session`](crate::session::SessionsBuilder::default_session); without it, an error |
//! | `request.meta["dont_merge_cookies"]` | [`CookieMode::Neither`], or one of its halves |
//! | `request.cookies` | [`RequestCookies`]: stored; a `Cookie` header is for its one request |
//! | `COOKIES_ENABLED = False` | no [`SessionLayer`] |
//! | `COOKIES_DEBUG` | `tracing`, target `tower_client_sessions::cookies`; values only by [`trace_cookie_values`](crate::session::SessionsBuilder::trace_cookie_values) |
//! | `response.meta["cookies"]`, `response.meta["session_id"]` | [`SessionInfo::cookies`], [`SessionInfo::session`] |
//! | `response.sessions` | [`Sessions`], from anywhere |
//! | `sessions.get(id)` | [`Session::cookies`]; [`Sessions::get`] never creates a session |
//! | `sessions.get(id, domain=…)` | [`Session::cookies_for`] a URL |
//! | `sessions.get(id, mode=…)` | a [`StoredCookie`](crate::cookies::StoredCookie)'s parts, or its [`to_set_cookie`](crate::cookies::StoredCookie::to_set_cookie) |
//! | `sessions.get_profile(id)` | [`Session::profile`] |
//! | `sessions.add_cookies_manually(…)` | [`Session::add_cookies`], [`Session::set_cookie`] |
//! | `sessions.clear(id)` | [`Session::clear`] |
//! | `sessions.clear(id, renewal_request=…)` | [`Session::renew_with`], or once and for all a rule: [`RenewalLayer::renew_with`](crate::RenewalLayer::renew_with) |
//! | `repr(sessions)` | `to_string()` of a [`Session`] or of all; never with values |
//! | `SESSIONS_PROFILES_SYNC`, `SESSIONS_PROFILES` | [`profiles`](crate::session::SessionsBuilder::profiles), from code, TOML or JSON: [`crate::profile`] |
//! | stats `retry/…`, `sessions/renewal_events` | [`Sessions::stats`], [`Sessions::events`], the feature `metrics` |
//!
//! # A spider's callback
//!
//! There, each callback looks whether its response is that of an expired session, and clears:
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
//! Here that is said once, and no caller sees a 403 that a login can mend:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{Expired, Renewal, RenewalLayer, SessionId, SessionInfo, SessionLayer, Sessions};
//! # type Body = http_body_util::Empty<bytes::Bytes>;
//! # let hyper_client = service_fn(|request: Request<Body>| async move {
//! #     let answer = Response::builder();
//! #     let answer = match (request.uri().path(), request.headers().get("cookie")) {
//! #         ("/login", _) => answer.header("set-cookie", "sid=a=b==; Path=/"),
//! #         (_, Some(_)) => answer,
//! #         (_, None) => answer.status(403),
//! #     };
//! #     answer.body(Body::new())
//! # });
//!
//! let sessions = Sessions::builder().default_session(0).build().unwrap();
//! let client = ServiceBuilder::new()
//!     .layer(RenewalLayer::new(&sessions).expired_when(Expired::status([403])).renew_with(
//!         |renewal: Renewal<_>| async move {
//!             let answer = renewal.send(Request::get("https://shop.example/login").body(Body::new())?).await?;
//!             renewal.ensure(answer.status().is_success() && renewal.has_cookie("sid"), "the login was not accepted")
//!         },
//!     ))
//!     .layer(SessionLayer::new(&sessions))
//!     .service(hyper_client);
//!
//! let response = client.clone().oneshot(Request::get("https://shop.example/1").body(Body::new())?).await?;
//! assert_eq!(response.status(), 200);
//! let info = response.extensions().get::<SessionInfo>().unwrap();
//! assert_eq!((info.session(), info.replays()), (&SessionId::from(0), 1));
//!
//! // `clear` and `renew_with` are still there, from anywhere.
//! let session = sessions.session(0);
//! assert_eq!(session.cookies()[0].value(), Some("a=b=="), "a value is kept whole");
//! session.clear();
//! assert!(session.cookies().is_empty());
//! let generation = session.renew_with(Request::get("https://shop.example/login").body(Body::new())?).await?;
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
//!         let seen = request.headers().get("cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
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
//! let alone = request().extension(CookieMode::Neither).body(())?;
//! assert_eq!(client.oneshot(alone).await?.body(), "");
//!
//! // sessions.get("alice", domain="shop.example")
//! let alice = sessions.session("alice");
//! let names: Vec<_> = alice.cookies_for("https://shop.example/")?.iter().map(|cookie| cookie.name().unwrap().to_owned()).collect();
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
//! assert!(!alice.profile().unwrap().same(&first), "a new identity has another profile");
//! # }
//! ```
//!
//! # What is different
//!
//! - One login for all who met the end of a session, however many; a login that did not work is tried again, and its cause told.
//! - A request that is held waits in its place. It goes to no scheduler and comes round to no callback.
//! - A good page of a session that has ended meanwhile is delivered. [`StaleResponse::ReplayAll`](crate::renewal::StaleResponse::ReplayAll)
//!   fetches it again, as the ancestor does.
//! - A request that names no session is an error, unless a default was configured.
//! - A session's name may be text or a number; 7 and `"7"` are the same.
//! - Where a profile says by which way a session goes, nothing of it goes by another way, replays included.
//!
//! # Spiders that stay in Python
//!
//! `examples/gateway.rs` is a proxy made of this crate: a Scrapy spider names its session by the header `x-session`, and gets
//! sessions, profiles and renewal without a line of Rust.

// For the links above.
use crate::{CookieMode, RequestCookies, Session, SessionId, SessionInfo, SessionLayer, Sessions};
