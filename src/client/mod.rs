//! A client that keeps identities apart on the network, and uses their proxies.
//!
//! [`IdentityClient`] is the last service of a stack, below [`SessionLayer`](crate::SessionLayer)
//! and [`ProfileLayer`](crate::ProfileLayer). It sends each request on connections that belong only
//! to the [`Identity`](crate::Identity) of the request, through the proxy and from the local
//! address of its profile. Two sessions never share a connection, and neither do two generations of
//! one session. After a renewal, the new identity opens new connections and resumes no TLS session
//! of the old one. Requests in flight on the old connections finish; then these connections close.
//!
//! # Proxies
//!
//! The client uses the [`Proxy`](crate::profile::Proxy) in the extensions of the request, or else
//! the one in the profile of its identity. A request without a proxy fails, and so does a request
//! without an identity. To connect directly, set [`Proxy::direct`](crate::profile::Proxy::direct),
//! or build the client with [`allow_direct`](IdentityClientBuilder::allow_direct).
//!
//! | proxy | `http` origins | `https` origins |
//! | --- | --- | --- |
//! | `http://` | forwarded | `CONNECT` |
//! | `https://` | forwarded, with TLS to the proxy | `CONNECT`, with TLS to the proxy |
//! | `socks5://` | tunnel | tunnel |
//!
//! The proxy resolves the host names of origins. The client sends `Proxy-Authorization` only to the
//! proxy, with forwarded requests and with `CONNECT`. It removes this header from requests that it
//! receives.
//!
//! The client reuses a connection to a forwarding proxy only if the proxy responds with
//! `Connection: keep-alive`. Some proxies close the connection without announcing it, and a request
//! could be sent on a closing connection.
//!
//! # Errors
//!
//! A [`ClientError`] names the hop that failed. If a forwarding proxy rejects a request, the client
//! returns an error and not the response of the proxy. Otherwise a `403` of the proxy could be
//! mistaken for one of the origin, and start a renewal. The client recognises a response of a proxy
//! by its status 407, by the headers `Proxy-Authenticate`, `Proxy-Status` or `X-Squid-Error`, or by
//! the `Server` of a known proxy without the `Via` that it adds to responses of origins.
//!
//! # Examples
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
//! // No proxy listens on this port. The request fails and is not sent directly.
//! let profile = Profile::builder().proxy("http://user:secret@127.0.0.1:1").build()?;
//! let sessions = Sessions::builder().profiles(Profiles::new([profile])?).build()?;
//! let client = ServiceBuilder::new()
//!     .layer(SessionLayer::new(&sessions))
//!     .layer(ProfileLayer::new())
//!     .service(IdentityClient::builder().build::<Empty<Bytes>>()?);
//!
//! let request = http::Request::get("http://shop.example/")
//!     .extension(SessionId::from("alice"))
//!     .body(Empty::new())?;
//! let error = client.oneshot(request).await.unwrap_err();
//! let kind = error.downcast_ref::<ClientError>().map(ClientError::kind);
//! assert_eq!(kind, Some(ClientErrorKind::ProxyUnreachable));
//! assert_eq!(error.to_string(), "the proxy cannot be reached (via http://***@127.0.0.1:1)");
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # Other clients
//!
//! The layers work with any `Service<http::Request<B>, Response = http::Response<R>>`. Other
//! clients treat identities as follows:
//!
//! - **hyper-util** (`legacy::Client`) pools connections by scheme and authority, so all sessions
//!   share connections, and it connects directly. `examples/hyper_client.rs` uses it for profiles
//!   without proxies.
//! - **reqwest** (`Client`) has one pool and one proxy, and ignores the extensions of a request.
//!   `examples/reqwest_client.rs` creates a client per identity, and reads the identity and the
//!   proxy from the extensions first.
//! - **wreq** (`Client`) accepts a proxy (`RequestBuilder::proxy`) and a local address per request.
//!   Some versions also have a group (`RequestBuilder::group`) that keeps connections apart. Name
//!   the group by session *and* generation of the [`Identity`](crate::Identity), so that a renewed
//!   session opens new connections. With other versions, create a client per identity, as for
//!   reqwest. Reject a request without a [`Proxy`](crate::profile::Proxy) in its extensions,
//!   because wreq would send it directly.
//! - **axum** (`Router`) has no connections. In tests it stands in for the site. Requests need a
//!   `Host` header or an absolute URI.

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
