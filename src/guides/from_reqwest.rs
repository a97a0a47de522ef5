//! From a reqwest cookie jar: what a session adds, and how a client of reqwest's stands below.
//!
//! reqwest keeps one jar for a client. A session is a jar for whom a request is from, many of them over one stack, and one that can
//! be renewed while requests use it.
//!
//! | reqwest, `cookie_store` and `reqwest_cookie_store` | here |
//! |---|---|
//! | `ClientBuilder::cookie_store(true)` | a [`SessionLayer`], with a [default session](crate::session::SessionsBuilder::default_session) |
//! | `ClientBuilder::cookie_provider(jar)` | the same; the jar is in the [`Session`] |
//! | a client for each account | a [`SessionId`] for each account |
//! | `Jar::add_cookie_str(cookie, &url)` | [`Session::set_cookie`] |
//! | `CookieStore::cookies(&url)` | [`Session::cookies_for`] |
//! | `Response::cookies()` | [`SessionInfo::cookies`], those of the redirects included |
//! | `CookieStore::iter_any()`, `clear()` | [`Session::cookies`], [`Session::clear`] |
//! | `cookie_store::CookieStore` | [`Jar::from_cookie_store`](crate::cookies::Jar) and `to_cookie_store`, with the feature `cookie_store` |
//! | `ClientBuilder::proxy`, `user_agent`, `default_headers` | a [`Profile`](crate::Profile) for each session |
//!
//! # The stack
//!
//! Cookies and redirects are the layers' business: turn both off in the client. `examples/reqwest_client.rs` makes a client for
//! each identity, so that no two share connections or a proxy.
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
//!         async move { Ok::<Response<reqwest::Body>, BoxError>(client.execute(request.try_into()?).await?.into()) }
//!     },
//! ));
//!
//! let request = Request::get("http://shop.example/").extension(SessionId::from("alice")).body("")?;
//! let response = stack.oneshot(request).await?;
//! let info = response.extensions().get::<SessionInfo>().expect("every response has it");
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
//! // What a rule forbids is an error that names it, not a cookie that is silently missing.
//! assert!(alice.set_cookie("sid=2; Domain=stranger.example", url).is_err());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cookies that are already there
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
//! # What is different
//!
//! - Cookies follow rfc6265bis, public suffixes included; the client's own jar follows `cookie_store`'s older rules.
//! - A `Cookie` header of the request's own wins by name for that request. reqwest's jar leaves such a request alone.
//! - A redirect is followed above the [`SessionLayer`], by [`follow_redirects`](crate::redirect), so that each hop sends and
//!   stores its own cookies.

// For the links above.
use crate::{Session, SessionId, SessionInfo, SessionLayer};
