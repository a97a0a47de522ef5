//! Sessions as data: what outlives the program.
//!
//! [`Session::snapshot`](crate::Session::snapshot) says what a session is at one moment, and [`Session::restore`](crate::Session::restore) makes a session that again, here or in
//! another program. [`Sessions::snapshot`](crate::Sessions::snapshot) and
//! [`Sessions::restore_all`](crate::Sessions::restore_all) do the same for all of them.
//!
//! # What is kept
//!
//! Name, generation, whether the identity was current, when it was made and how often it was used, its profile, every cookie with
//! every attribute and moment, session cookies included, and the [data](crate::Session::data) that the program keeps with the session.
//! What is under way is not: requests, renewals, counters. [`SnapshotOptions`] leaves out session cookies, or says how profiles
//! are kept; credentials of proxies and sensitive headers are written only if asked for.
//!
//! # The form
//!
//! Snapshots implement serde's traits. As JSON, one session is
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
//! # use std::time::{Duration, UNIX_EPOCH};
//! # use tower_client_sessions::{Sessions, session::snapshot::SessionSnapshot};
//! let sessions = Sessions::builder().clock(|| UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)).build().unwrap();
//! let alice = sessions.session("alice");
//! alice.set_cookie("sid=abc; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600", "https://shop.example/")?;
//! alice.set_data("csrf", "4711");
//!
//! let written = serde_json::to_string_pretty(&alice.snapshot())?;
//! assert_eq!(written, r#"{
//!   "version": 1,
//!   "id": "alice",
//!   "generation": 1,
//!   "current": true,
//!   "born": 1700000000123,
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
//! - `version` is 1. It grows whenever a field comes in or changes its meaning; a reader refuses one that it does not know.
//! - Moments are milliseconds since the Unix epoch. Age goes on while nobody has the session: it is counted from `born`.
//! - `current` is `false` for a session without a current identity, which waits for its renewal; `generation` is then the last.
//! - Of a cookie, `expires`, `same_site` and `partition_key` may be missing, and so may `secure`, `http_only`, `partitioned` and
//!   `given` where they are `false`. `given` is said of a cookie that the program set, not a response. Cookies come in the
//!   order in which they were created. A name, value or path that is not UTF-8 is written as `{"base64": "…"}`.
//! - `profile`, if the identity has one, is `{"name": …, "proxy": {"url": …, "username": …, "password": …}, "user_agent": …,
//!   "headers": [[name, value], …], "local_address": …, "withheld": true}`, all of them optional; `proxy` may be `"direct"`.
//!   `redacted` says that there is more to the profile: it has secrets that were not written, or only its name was.
//! - `data` may be missing where it is empty.
//!
//! All sessions are `{"format": "tower-client-sessions", "version": 1, "saved": …, "sessions": […]}`, those that were used last
//! at the end.
//!
//! # Files
//!
//! With the feature `formats`, `Sessions::save` writes all sessions into one file, and `Sessions::load` reads it: an error says
//! what is wrong and where, and changes nothing. `Sessions::autosave` saves from time to time. Saves are whole or not made at all.
//!
//! # Profiles
//!
//! A session comes back under the profile that it had, or not at all: its cookies never go out by another way. Of the profiles
//! that the sessions were built with, that is the one of the same name, or, for one without a name, the one that says the same.
//! Where there is none, it is made from what was written, unless something of it was withheld. Of an
//! [exclusive](crate::Profiles::exclusive) list, a session whose profile another one wears waits for it. A session that had none gets the next, if there are profiles now.

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
