//! Sessions that many processes share through a store.
//!
//! Each process builds its [`Sessions`](crate::Sessions) with the same store. A session name then
//! stands for one session in all processes: one process logs in, and the others adopt the result.
//! Use [`MemoryStore`] for tests, [`FileStore`] for the processes of one machine, `RedisStore`
//! (feature `redis`) for a fleet, or implement [`SharedStore`] and test it with
//! [`test_conformance`].
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
//! # let counter = logins.clone();
//! # let site = service_fn(move |request: Request<Body>| {
//! #     let is_login = request.uri().path() == "/login";
//! #     if is_login { counter.fetch_add(1, Ordering::Relaxed); }
//! #     let mut response = Response::builder();
//! #     if is_login { response = response.header("set-cookie", "sid=1; Path=/"); }
//! #     std::future::ready(response.body(Body::new()))
//! # });
//!
//! // In a fleet: RedisStore::connect("redis://127.0.0.1/", "crawl:").await?
//! let store = MemoryStore::new();
//! let process = || {
//!     let sessions = Sessions::builder().login_first().shared(store.clone()).build().unwrap();
//!     let renewal = RenewalLayer::new(&sessions).expired_when(Expired::status([401])).renew_with(
//!         |renewal: Renewal<_>| async move {
//!             let login = Request::get("https://shop.example/login").body(Body::new())?;
//!             renewal.send(login).await?;
//!             renewal.require_cookie("sid")
//!         },
//!     );
//!     ServiceBuilder::new()
//!         .layer(renewal)
//!         .layer(SessionLayer::new(&sessions))
//!         .service(site.clone())
//! };
//! for client in [process(), process(), process()] {
//!     let page = Request::get("https://shop.example/");
//!     let page = page.extension(SessionId::from("alice")).body(Body::new())?;
//!     assert_eq!(client.oneshot(page).await?.status(), 200);
//! }
//! assert_eq!(logins.load(Ordering::Relaxed), 1);
//! # Ok::<_, tower::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # Renewals
//!
//! The store keeps one [`Record`] for each session, with a version that each renewal raises. An
//! attempt first loads the record. If its version is newer than the one that has ended here, the
//! attempt *adopts* it. Otherwise it takes the lease of the session, loads the record again,
//! renews, and [commits](SharedStore::commit) the next version. While another process holds the
//! lease, the attempt waits for a newer version or the end of the lease. A renewal that fails loads
//! the record once more.
//!
//! The lease prevents duplicate logins. It is not needed for correctness: a commit compares the
//! version and the fencing token of the lease in one step, whatever the clocks of the processes. A
//! process that was suspended for an hour during its renewal finds that its commit conflicts, and
//! adopts the winner.
//!
//! Keep anything that works only once, such as a refresh token, in the session's
//! [data](crate::Session::set_data), which is part of the record. A process marks the record before
//! it renews. If it dies during the renewal, the next process sees
//! [`Renewal::follows_interrupted`](crate::Renewal::follows_interrupted) and should log in without
//! the token.
//!
//! # Cost per request
//!
//! Requests do not access the store. Newer versions are adopted when the store pushes an event, or
//! when the sessions are next [compared](SharingConfig::poll_interval) with the store. Until then a
//! process may send under a version that another process has replaced: for the latency of an event,
//! or up to the poll interval and the [store timeout](SharingConfig::store_timeout) without events.
//! If the server rejects that version, the renewal layer replays the request under the new one.
//!
//! # What is shared
//!
//! - A version is a complete identity: its cookies, its profile (see
//!   [`SharingConfig::profiles`]), its age, and the session's data.
//! - Cookies that change within a version are [merged](CookieSync). Data that is set between two
//!   renewals is shared with the next renewal.
//! - [`Session::clear`](crate::Session::clear) ends the session in all processes, and a renewal
//!   that runs at that time is not committed. [`replace`](crate::Session::replace) and
//!   [`restore`](crate::Session::restore) apply to all processes, too.
//! - [`Sessions::remove`](crate::Sessions::remove) removes the session from this process only.
//! - The limit of [`max_uses`](crate::RenewalLayer::max_uses) applies to all processes together.
//!   Each process takes uses in [batches](SharingConfig::use_batch_size).
//! - A member of a [pool](crate::pool) belongs to one process at a time.
//!
//! # Store failures
//!
//! Current identities stay in use; [`stale_after`](SharingConfig::stale_after) limits for how long.
//! Renewals fail and are retried with the backoff of the gate, or run
//! [locally](OnUnreachable::RenewLocally), at the risk of concurrent logins. Each request to the
//! store has a timeout, and everything recovers without intervention when the store is back. A
//! store that has lost its records has no effect until a session ends. A record that cannot be read
//! is an error that names its key; it is not overwritten.
//!
//! # Secrets
//!
//! A record contains live cookies. It is readable in the store unless it is
//! [encrypted](SharingConfig::encrypt_with). `Debug` never shows a payload.

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
    conformance::{Notifications, test_conformance},
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
