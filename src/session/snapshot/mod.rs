//! Snapshots: sessions as data, to store them or move them to another process.
//!
//! [`Session::snapshot`](crate::Session::snapshot) copies the state of a session at one moment.
//! [`Session::restore`](crate::Session::restore) applies it to a session, in the same process or
//! another. [`Sessions::snapshot`](crate::Sessions::snapshot) and
//! [`Sessions::restore_all`](crate::Sessions::restore_all) do the same for all sessions.
//!
//! # Contents
//!
//! A snapshot of a session contains:
//!
//! - its id, its generation, and whether that identity was current,
//! - when the identity was created and how often it was used,
//! - the profile, without the credentials of its proxy and without sensitive headers,
//! - all cookies with all attributes and timestamps, including session cookies,
//! - the session's [data](crate::Session::data).
//!
//! Requests, running renewals and counters are not included. [`SnapshotOptions`] excludes session
//! cookies, or changes how much of a profile is included.
//!
//! # Format
//!
//! Snapshots implement serde's traits. As JSON, a session looks like this:
//!
//! ```
//! # let mut runtime = tokio::runtime::Builder::new_current_thread();
//! # runtime.enable_time().start_paused(true).build()?.block_on(async {
//! # use std::time::{Duration, UNIX_EPOCH};
//! # use tower_client_sessions::{Sessions, session::snapshot::SessionSnapshot};
//! let now = || UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
//! let sessions = Sessions::builder().clock(now).build()?;
//! let alice = sessions.session("alice");
//! let cookie = "sid=abc; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600";
//! alice.set_cookie(cookie, "https://shop.example/")?;
//! alice.set_data("csrf", "4711");
//!
//! let written = serde_json::to_string_pretty(&alice.snapshot())?;
//! assert_eq!(written, r#"{
//!   "version": 1,
//!   "id": "alice",
//!   "generation": 1,
//!   "current": true,
//!   "created_at": 1700000000123,
//!   "uses": 0,
//!   "cookies": [
//!     {
//!       "name": "sid",
//!       "value": "abc",
//!       "domain": "shop.example",
//!       "host_only": true,
//!       "path": "/",
//!       "expires": 1700000600123,
//!       "secure": true,
//!       "http_only": true,
//!       "same_site": "Lax",
//!       "user_set": true,
//!       "created": 1700000000123,
//!       "last_used": 1700000000123
//!     }
//!   ],
//!   "data": {
//!     "csrf": "4711"
//!   }
//! }"#);
//!
//! let elsewhere = Sessions::new();
//! let alice = elsewhere.restore(&serde_json::from_str::<SessionSnapshot>(&written)?)?;
//! assert_eq!((alice.generation(), alice.data("csrf").as_deref()), (Some(1), Some("4711")));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # Ok::<_, std::io::Error>(())
//! ```
//!
//! - `version` is 1. It changes whenever a field is added or changes its meaning. A reader rejects
//!   a version that it does not know.
//! - Times are milliseconds since the Unix epoch. An identity's age is counted from `created_at`,
//!   so it also grows while the snapshot is stored.
//! - `current` is `false` for a session without a current identity, which waits for its renewal.
//!   `generation` is then the last one.
//! - In a cookie, `expires`, `same_site` and `partition_key` may be missing, and so may `secure`,
//!   `http_only`, `partitioned` and `user_set` if they are `false`. `user_set` marks cookies that
//!   were set by the application and not by a response. Cookies are in the order of their creation.
//!   A name, value or path that is not UTF-8 is written as `{"base64": "…"}`.
//! - `profile` is present if the identity has one. Its fields are `name`, `proxy`, `user_agent`,
//!   `headers` (a list of `[name, value]`), `local_address` and `redacted`, all optional. `proxy`
//!   is `"direct"`, or has the fields `url`, `username` and `password`. `redacted` says that the
//!   profile has more than what is written: secrets, or all but its name.
//! - `data` may be missing if it is empty.
//!
//! A snapshot of all sessions is `{"format": "tower-client-sessions", "version": 1, "saved_at": …,
//! "sessions": […]}`. The most recently used sessions are at the end.
//!
//! # Files
//!
//! With the feature `formats`, `Sessions::save` writes all sessions to a file, and `Sessions::load`
//! reads it. A save replaces the whole file or does not change it. A load that fails says what is
//! wrong and where, and changes no session. `Sessions::autosave` saves periodically.
//!
//! # Profiles
//!
//! A session is restored with the profile that it had, or not at all: its cookies are never sent
//! through another proxy. Its profile is, in this order:
//!
//! 1. the configured profile with the same name; for a profile without a name, the one with the
//!    same content,
//! 2. a profile made from the snapshot, unless the snapshot is redacted.
//!
//! With [exclusive](crate::Profiles::exclusive) profiles, a session whose profile is assigned to
//! another one waits for it. A session that had no profile gets the next one, if there are profiles
//! now.

#[cfg(feature = "formats")]
mod autosave;
#[cfg(feature = "formats")]
mod error;
#[cfg(feature = "formats")]
mod file;
mod model;
mod restore;
mod take;

#[cfg(feature = "formats")]
pub use self::{
    autosave::{Autosave, AutosaveBuilder},
    error::{SnapshotError, SnapshotErrorKind},
};
pub use self::{
    model::{ProfileSnapshot, ProxySnapshot, SessionSnapshot, SessionsSnapshot},
    restore::{RestoreError, RestoreReport, SkipReason, Skipped},
    take::{ProfileDetail, SnapshotOptions},
};
