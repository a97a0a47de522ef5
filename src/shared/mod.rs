//! Sessions that many processes share, through a store that all of them reach.
//!
//! Each process builds its [`Sessions`](crate::Sessions) on the same store, and a session of one name is one session in all of
//! them: one process logs in, the others take over what it got. The store is [`MemoryStore`] for tests, [`FileStore`] for the
//! processes of one machine, `RedisStore` (feature `redis`) for a fleet, or a [`SharedStore`] of your own, for which
//! [`test_conformance`] is the test.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_client_sessions::{
//!     Expired, Renewal, RenewalLayer, SessionId, SessionLayer, Sessions, shared::MemoryStore,
//! };
//! # use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
//! # type Body = http_body_util::Empty<bytes::Bytes>;
//! # let logins = Arc::new(AtomicU32::new(0));
//! # let counted = logins.clone();
//! # let site = service_fn(move |request: Request<Body>| {
//! #     let is_login = request.uri().path() == "/login";
//! #     if is_login { counted.fetch_add(1, Ordering::Relaxed); }
//! #     let answer = if is_login { Response::builder().header("set-cookie", "sid=1; Path=/") } else { Response::builder() };
//! #     std::future::ready(answer.body(Body::new()))
//! # });
//!
//! // In a fleet: RedisStore::connect("redis://127.0.0.1/", "crawl:").await?
//! let store = MemoryStore::new();
//! let process = || {
//!     let sessions = Sessions::builder().login_first().shared(store.clone()).build().unwrap();
//!     let renewal = RenewalLayer::new(&sessions).expired_when(Expired::status([401])).renew_with(
//!         |renewal: Renewal<_>| async move {
//!             renewal.send(Request::get("https://shop.example/login").body(Body::new())?).await?;
//!             renewal.ensure(renewal.has_cookie("sid"), "the login was not accepted")
//!         },
//!     );
//!     ServiceBuilder::new().layer(renewal).layer(SessionLayer::new(&sessions)).service(site.clone())
//! };
//! for client in [process(), process(), process()] {
//!     let page = Request::get("https://shop.example/").extension(SessionId::from("alice")).body(Body::new())?;
//!     assert_eq!(client.oneshot(page).await?.status(), 200);
//! }
//! assert_eq!(logins.load(Ordering::Relaxed), 1);
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # A renewal
//!
//! The store keeps one [`Record`] for each session, with a version that every renewal raises. Whoever is to renew looks first
//! whether there is a newer version than the one that has ended, and takes it over (*adopts* it) if so. Else it takes the lease
//! of the session, looks again, renews, and [commits](SharedStore::commit) the next version, which compares the version and the
//! lease's number in one step. Who does not get the lease waits until there is a newer version, or the lease ends. A renewal that
//! fails looks once more. So the others' work is spared by the lease, and nobody's is undone by the comparison, whatever the
//! clocks say: a process that was stopped for an hour in the middle of its renewal finds that it has lost, and adopts.
//!
//! Something that is good once, such as a refresh token, is in the session's [data](crate::Session::set_data), and goes with it.
//! A process that dies while it is using it up leaves a note: the next one sees
//! [`Renewal::is_interrupted`](crate::Renewal::is_interrupted), and logs in from the start.
//!
//! # What a request costs
//!
//! Nothing: requests ask their own process, as without a store. A newer version is taken over when the store tells of it, or when
//! the sessions are next [compared](SharingConfig::poll) with it. Until then a process may send under a version that another has
//! replaced: for as long as a message takes, or up to the poll and the [deadline](SharingConfig::deadline) if none comes. If that
//! version is refused, the gate sends the request again under the new one.
//!
//! # What goes along
//!
//! A version is the whole identity: cookies, the profile [as far as said](SharingConfig::profiles), its age, and the session's data.
//! Cookies that change within a version are [brought together](CookieSync); data that is set between two renewals goes with
//! the next. [`Session::clear`](crate::Session::clear) ends a session for all, and what was renewed meanwhile is not brought
//! back; [`replace`](crate::Session::replace) and [`restore`](crate::Session::restore) are for all, too;
//! [`Sessions::remove`](crate::Sessions::remove) forgets it here and ends it for nobody. The limit of
//! [`max_uses`](crate::RenewalLayer::max_uses) holds for all processes together: each takes uses in
//! [blocks](SharingConfig::use_batch_size). Members of a [pool](crate::pool) are one process's at a time.
//!
//! # When the store is away
//!
//! What is current serves on, and [`stale_after`](SharingConfig::stale_after) bounds for how long. Renewals fail, with the gate's pauses
//! between them, or are made [alone](OnUnreachable): a stated choice between a login too many and none. Each request to the store
//! has a deadline, and everything recovers by itself when it is back. A store that has lost everything costs nothing until a
//! session ends. A record that cannot be read is refused with its key, and is left alone.
//!
//! # Secrets
//!
//! A record holds live cookies. It is readable in the store unless it is [sealed](SharingConfig::seal), and `Debug` shows none of it.

mod attempt;
mod config;
mod conformance;
mod cookie_sync;
mod error;
mod file;
mod fleet;
mod memory;
mod merge;
mod payload;
mod record_entry;
#[cfg(feature = "redis")]
mod redis;
mod store;
mod use_allowance;
mod watch;

#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use self::{
    config::{CookieSync, OnUnreachable, SharingConfig},
    conformance::test_conformance,
    error::{StoreError, StoreErrorKind},
    file::FileStore,
    fleet::{SharingStats, VersionEvent, VersionEvents},
    memory::MemoryStore,
    payload::EncryptionKey,
    store::{
        Commit, CommitOutcome, FencingToken, LeaseOutcome, Owner, Record, RecordVersion, SharedStore,
        StoreEvent, StoreFuture, UseGrant,
    },
};
