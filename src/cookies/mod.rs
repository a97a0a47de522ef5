//! The cookie jar of an identity, and its formats, by RFC 6265bis.
//!
//! A [`Jar`] stores the cookies of responses with [`store_set_cookie`](Jar::store_set_cookie), and
//! returns the `Cookie` header of requests with [`cookie_header`](Jar::cookie_header). All cookies
//! can be read and changed. Section numbers refer to [draft-ietf-httpbis-rfc6265bis].
//!
//! # Rules
//!
//! - Names and values are bytes. They are stored and sent unchanged, are not decoded, and need not
//!   be UTF-8. A cookie may be nameless.
//! - The domain of a cookie from a response must be ASCII, cover the host, and not be a public
//!   suffix. A domain set by the user may be internationalised.
//! - `Secure` cookies are set and sent over `https` and `wss`, and to loopback hosts (`localhost`,
//!   127.0.0.0/8, `[::1]`). An insecure response cannot replace or hide them.
//! - The lifetime of a cookie is at most 400 days after it was last set.
//! - `SameSite` and `Partitioned` are stored and can be read, but do not restrict requests: a
//!   client that is not a browser has no initiating site.
//!
//! # Cookies set by the user
//!
//! A host-only cookie and a domain cookie may have the same name and path, and the RFC sends both.
//! If the user set one of them, this is rarely wanted: the server sets what it considers the same
//! cookie, with another domain, and would then receive two. Of such a pair, a host receives only
//! the newer cookie. A broader cookie that was displaced is still sent to the hosts that only it
//! reaches.
//!
//! # Time and cost
//!
//! The jar does not read a clock; the time is an argument. Cookies are grouped by registrable
//! domain, and the header of each host is cached until a cookie of its site changes or expires. The
//! cost of a look-up does not depend on the number of sites in the jar.
//!
//! # Other formats
//!
//! With the feature `formats`, `CookieFormat` reads and writes the cookies of curl, Playwright and
//! browsers. With the feature `cookie_store`, a jar converts to and from the jar of that crate.
//!
//! [draft-ietf-httpbis-rfc6265bis]: https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/

mod builder;
#[cfg(feature = "cookie_store")]
mod cookie_store;
mod cookie_url;
mod date;
mod domain;
mod error;
mod flags;
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
mod rules;
mod same_site;
#[cfg(feature = "serde")]
mod serde_impls;
mod session_jar;
mod site_index;
mod stored;
#[cfg(test)]
mod tests;
mod time;

pub(crate) use self::domain::canonical_host;
#[cfg(feature = "formats")]
pub use self::formats::{CookieFormat, FormatError, FormatErrorKind, ImportedCookies};
#[cfg(any(feature = "cookie_store", feature = "formats"))]
pub use self::report::{ConversionReport, Loss, LossReason};
pub(crate) use self::session_jar::SessionJar;
pub use self::{
    builder::StoredCookieBuilder,
    cookie_url::CookieUrl,
    date::parse_date,
    error::{CookieError, CookieErrorKind},
    jar::{Jar, Limits, StoreOutcome},
    new_cookie::NewCookie,
    same_site::SameSite,
    stored::StoredCookie,
    time::Timestamp,
};
