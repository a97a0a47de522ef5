//! Applies profiles to requests: the user agent, headers and proxy of each request's identity.
//!
//! Put [`ProfileLayer`] below [`SessionLayer`](crate::SessionLayer). Without a session layer,
//! create it with [`ProfileLayer::with_sessions`], and it resolves the session itself.
//!
//! The profiles themselves are defined in [`profile`](crate::profile).
//!
//! # Examples
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{
//!     Profile, ProfileLayer, Profiles, SessionId, SessionLayer, Sessions, profile::Proxy,
//! };
//!
//! let [first, second] = [
//!     Profile::builder().user_agent("first/1.0").proxy("http://user:secret@proxy.example:8080"),
//!     Profile::builder().user_agent("second/1.0").proxy(Proxy::direct()),
//! ];
//! let profiles = Profiles::new([first.build()?, second.build()?])?;
//! let sessions = Sessions::builder().profiles(profiles).build().unwrap();
//! let client = ServiceBuilder::new()
//!     .layer(SessionLayer::new(&sessions))
//!     .layer(ProfileLayer::new())
//!     .service(service_fn(|request: http::Request<()>| async move {
//!         // A client with proxy support reads this extension.
//!         let server = request.extensions().get::<Proxy>().and_then(Proxy::server);
//!         let proxy = server.map(|server| server.port());
//!         let agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
//!         Ok::<_, tower::BoxError>(http::Response::new((agent, proxy)))
//!     }));
//!
//! let id = SessionId::from("alice");
//! let request = || http::Request::get("https://shop.example/").extension(id.clone()).body(());
//! let first = client.clone().oneshot(request()?).await?;
//! assert_eq!(first.body(), &(String::from("first/1.0"), Some(8080)));
//!
//! // The next identity has another profile, and no header of the first one.
//! sessions.session("alice").clear();
//! let second = client.oneshot(request()?).await?;
//! assert_eq!(second.body(), &(String::from("second/1.0"), None));
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```

mod future;
mod layer;
mod service;

pub use self::{future::ResponseFuture, layer::ProfileLayer, service::ProfileService};
