//! The client that makes profiles real.
//!
//! [`IdentityClient`] is the end of a stack: below [`SessionLayer`](crate::SessionLayer) and
//! [`ProfileLayer`](crate::ProfileLayer) it sends each request over connections that belong to the request's
//! [`Identity`](crate::Identity) alone, by way of its proxy, from its local address. Two sessions never share a connection, and
//! neither do two generations of one session: after a renewal there are new connections, and no TLS session of the old ones is
//! resumed. What the old ones are in the middle of is finished, then they close.
//!
//! # Ways out
//!
//! The [`Proxy`](crate::profile::Proxy) in the request's extensions says by which way it goes, or else its identity's profile. A
//! request for which neither says anything is an error, as is one without an identity: nothing goes out directly unless
//! [`Proxy::direct`](crate::profile::Proxy::direct) or [`allow_direct`](IdentityClientBuilder::allow_direct) said so.
//!
//! | proxy | `http` origins | `https` origins |
//! | --- | --- | --- |
//! | `http://` | forwarded | `CONNECT` |
//! | `https://` | forwarded, over TLS to the proxy | `CONNECT`, over TLS to the proxy |
//! | `socks5://` | tunnel | tunnel |
//!
//! Names of origins are resolved by the proxy. `Proxy-Authorization` is for the proxy alone: it is put onto forwarded requests
//! and into `CONNECT`, and one that comes from above is removed.
//!
//! A connection to a proxy that forwards is used again only if the proxy answers with `Connection: keep-alive`: some say nothing
//! and close it, and requests would be lost to the race.
//!
//! # Errors
//!
//! A [`ClientError`] says which hop failed. That a forwarding proxy refuses a request is an error, too, though the proxy says so
//! by a response: it must not be taken for the origin's, or a renewal would follow. The client knows such a response by its
//! status 407, by `Proxy-Authenticate`, `Proxy-Status` or `X-Squid-Error`, or by the `Server` of a proxy without the `Via` that
//! it puts onto what it passes on.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use bytes::Bytes;
//! use http_body_util::Empty;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_client_sessions::{
//!     IdentityClient, Profile, ProfileLayer, Profiles, SessionId, SessionLayer, Sessions,
//!     client::{ClientError, ClientErrorKind},
//! };
//!
//! // Nobody listens there, so nothing is sent: least of all directly.
//! let profile = Profile::builder().proxy("http://user:secret@127.0.0.1:1").build()?;
//! let sessions = Sessions::builder().profiles(Profiles::new([profile])?).build().unwrap();
//! let client = ServiceBuilder::new()
//!     .layer(SessionLayer::new(&sessions))
//!     .layer(ProfileLayer::new())
//!     .service(IdentityClient::builder().build::<Empty<Bytes>>()?);
//!
//! let request = http::Request::get("http://shop.example/").extension(SessionId::from("alice")).body(Empty::new())?;
//! let error = client.oneshot(request).await.unwrap_err();
//! assert_eq!(error.downcast_ref::<ClientError>().unwrap().kind(), ClientErrorKind::ProxyUnreachable);
//! assert_eq!(error.to_string(), "the proxy cannot be reached (by way of http://***@127.0.0.1:1)");
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```

//! # Other clients
//!
//! The layers stand on any `Service<http::Request<B>, Response = http::Response<R>>`. What a client of another crate does about
//! identities:
//!
//! - hyper-util's legacy `Client` has one pool by scheme and authority: all sessions share its connections, and it connects
//!   directly. `examples/hyper_client.rs` has a stack on it, for profiles without proxies.
//! - `reqwest::Client` has one pool and one proxy, and drops the request's extensions: `examples/reqwest_client.rs` makes a client
//!   for each identity, and reads identity and proxy before.
//! - `wreq::Client` takes a proxy (`RequestBuilder::proxy`) and a local address for each request; and, where its version has it,
//!   a group (`RequestBuilder::group`) that keeps connections apart: name it by session *and* generation, both of the request's
//!   [`Identity`](crate::Identity), so that a renewed session gets new connections. In a version without it, make a client for
//!   each identity, as for reqwest. A request without a [`Proxy`](crate::profile::Proxy) in its extensions has to be an error
//!   there, too; wreq would send it directly.
//! - axum's `Router` knows no connections: in tests it stands for the site itself. Requests need a `Host` header or a whole URI.

mod builder;
mod cache;
mod connection_count;
mod connector;
mod error;
mod future;
mod handshake;
mod service;

pub use self::{
    builder::IdentityClientBuilder,
    error::{ClientError, ClientErrorKind},
    future::ResponseFuture,
    service::IdentityClient,
};
