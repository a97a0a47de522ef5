//! From the cookie jar of reqwest: what a session adds, and how to use a reqwest client below.
//!
//! A reqwest client has one cookie jar. With this crate, one stack serves many sessions. Each has a
//! jar of its own, and can be renewed while requests use it.
//!
//! | reqwest, `cookie_store` and `reqwest_cookie_store` | this crate |
//! |---|---|
//! | `ClientBuilder::cookie_store(true)` | a [`SessionLayer`], with a [default session](crate::session::SessionsBuilder::default_session) |
//! | `ClientBuilder::cookie_provider(jar)` | the same; the jar is part of the [`Session`] |
//! | one client per account | one [`SessionId`] per account |
//! | `Jar::add_cookie_str(cookie, &url)` | [`Session::set_cookie`] |
//! | `CookieStore::cookies(&url)` | [`Session::cookies_for`] |
//! | `Response::cookies()` | [`SessionInfo::cookies`], including the cookies of redirects |
//! | `CookieStore::iter_any()`, `clear()` | [`Session::cookies`], [`Session::clear`] |
//! | `cookie_store::CookieStore` | [`Jar::from_cookie_store`](crate::cookies::Jar) and `to_cookie_store`, with the feature `cookie_store` |
//! | `ClientBuilder::proxy`, `user_agent`, `default_headers` | one [`Profile`](crate::Profile) per session |
//!
//! # The stack
//!
//! The layers handle cookies and redirects, so disable both in the client.
//! `examples/reqwest_client.rs` creates a client for each identity, so that identities share
//! neither connections nor proxies.
//!
//! ```no_run
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use http::{Request, Response};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{SessionId, SessionInfo, SessionLayer, Sessions};
//!
//! let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
//! let sessions = Sessions::new();
//! let stack = ServiceBuilder::new().layer(SessionLayer::new(&sessions)).service(service_fn(
//!     move |request: Request<&'static str>| {
//!         let client = client.clone();
//!         async move {
//!             let response = client.execute(request.try_into()?).await?;
//!             Ok::<_, BoxError>(Response::<reqwest::Body>::from(response))
//!         }
//!     },
//! ));
//!
//! let request = Request::get("http://shop.example/").extension(SessionId::from("alice"));
//! let response = stack.oneshot(request.body("")?).await?;
//! let info = response.extensions().get::<SessionInfo>().expect("each response has it");
//! println!("{} cookies were set", info.cookies().len());
//! println!("{}", reqwest::Response::from(response).text().await?);
//! # Ok::<_, BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # The jar
//!
//! ```
//! use tower_client_sessions::Sessions;
//!
//! let url = "https://shop.example/";
//! let jar = reqwest::cookie::Jar::default();
//! jar.add_cookie_str("sid=1; Secure", &url.parse()?);
//!
//! let sessions = Sessions::new();
//! let alice = sessions.session("alice");
//! alice.set_cookie("sid=1; Secure", url)?;
//! assert_eq!(alice.cookies_for(url)?.len(), 1);
//! // A cookie that violates a rule is an error, and is not silently ignored.
//! assert!(alice.set_cookie("sid=2; Domain=other.example", url).is_err());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Existing cookies
//!
//! ```
//! # #[cfg(feature = "cookie_store")] {
//! use std::time::SystemTime;
//! use tower_client_sessions::{Sessions, cookies::Jar};
//!
//! let mut store = cookie_store::CookieStore::default();
//! let url = "https://shop.example/".parse().unwrap();
//! store.parse("sid=abc==; Max-Age=3600", &url).unwrap();
//!
//! let now = SystemTime::now().into();
//! let (jar, report) = Jar::from_cookie_store(&store, now);
//! assert!(report.is_lossless());
//! let alice = Sessions::new().session("alice");
//! alice.replace(jar);
//! assert_eq!(alice.cookies()[0].value(), Some("abc=="));
//! # }
//! ```
//!
//! # Differences
//!
//! - Cookies follow RFC 6265bis, including public suffixes. The jar of reqwest follows the older
//!   rules of `cookie_store`.
//! - The cookies in a `Cookie` header of the request replace cookies of the jar with the same name,
//!   for this request. reqwest does not add cookies to such a request.
//! - [`RedirectLayer`] follows redirects above the [`SessionLayer`]. Each
//!   redirect therefore sends and stores its own cookies.

// For the links in the documentation.
use crate::{RedirectLayer, Session, SessionId, SessionInfo, SessionLayer};
