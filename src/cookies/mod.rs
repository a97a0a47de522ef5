//! The cookies of one identity: parsing, storage and the `Cookie` header, by rfc6265bis.
//!
//! A [`Jar`] takes what responses set ([`store_set_cookie`](Jar::store_set_cookie)), gives requests their header
//! ([`header`](Jar::header)) and lets the user see and change all of it. Section numbers here
//! are those of [draft-ietf-httpbis-rfc6265bis].
//!
//! # The rules
//!
//! - Bytes in, bytes out: names and values are kept as they came, UTF-8 or not, and nothing is
//!   decoded. A cookie may lack its name.
//! - A domain from a response must be ASCII, cover the host and be no public suffix. One that
//!   the user gives may be internationalised.
//! - `Secure` cookies are set and sent over `https` and `wss`, and on this machine
//!   (`localhost`, 127.0.0.0/8, `[::1]`); an insecure response cannot replace or hide them.
//! - A cookie lives for 400 days at most after it was last set.
//! - `SameSite` and `Partitioned` are kept and can be read, but hold nothing back: a client
//!   that is no browser has no other site to speak of.
//!
//! # What the user gives
//!
//! Two cookies of one name and path may exist side by side, one for the host and one for the
//! domain, and by the RFC both are sent. That is a trap once the user has given one of them:
//! the server sets "the same" cookie, spelled with another domain, and is then sent both. So of
//! such a pair only one goes to a host, the one that came last. A broader one that gave way is
//! still sent to the hosts that only it reaches.
//!
//! # Time and cost
//!
//! No call reads a clock; the time is an argument. Cookies are kept by registrable domain, and
//! the header of each host is written once and cloned until a cookie of its site changes or
//! ends. A look-up costs the same with one site in the jar as with ten thousand.
//!
//! # Other tools
//!
//! With the feature `formats`, cookies are taken in and handed over as curl, Playwright and browsers have them: `CookieFormat` says how.
//! With the feature `cookie_store`, a jar becomes one of that crate and comes back.
//!
//! [draft-ietf-httpbis-rfc6265bis]: https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/

#[cfg(feature = "cookie_store")]
mod cookie_store;
mod cookie_url;
mod date;
mod domain;
mod error;
#[cfg(feature = "formats")]
mod formats;
mod header;
mod jar;
mod new_cookie;
#[cfg(test)]
mod oracle;
mod parse;
mod path;
#[cfg(any(feature = "cookie_store", feature = "formats"))]
mod report;
#[cfg(feature = "serde")]
mod serde_impls;
mod site_index;
mod stored;
#[cfg(test)]
mod tests;
mod time;

pub use self::cookie_url::CookieUrl;
pub use self::date::parse_date;
pub use self::error::{CookieError, CookieErrorKind};
#[cfg(feature = "formats")]
pub use self::formats::{CookieFormat, FormatError, FormatErrorKind, ImportedCookies};
pub use self::jar::{Jar, Limits, StoreOutcome};
pub use self::new_cookie::NewCookie;
#[cfg(any(feature = "cookie_store", feature = "formats"))]
pub use self::report::{ConversionReport, Loss, LossReason};
pub use self::stored::{SameSite, StoredCookie, StoredCookieBuilder};
pub use self::time::Timestamp;
