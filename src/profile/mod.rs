//! Profiles: the client that a session presents, and its network route.
//!
//! A [`Profile`] is data: a proxy with its credentials (or an explicit *direct*), a user agent,
//! further headers in order, and a local address. It sets at least one of these. Each new identity
//! of a session draws a profile from a [`Profiles`] list and keeps it until the identity ends. Its
//! successor gets a different profile if another one is free. The list decides which profile is
//! drawn, whether sessions share it, what happens when none is free, and how long a bad profile
//! cools down.
//!
//! This module sends nothing. The profile layer sets the headers and passes the [`Proxy`] on in the
//! extensions of the request; the client connects by it. A client must reject a request without a
//! `Proxy`. To connect without a proxy, use [`Proxy::direct`].
//!
//! # In code
//!
//! ```
//! use tower_client_sessions::profile::{OnExhausted, Profile, Profiles, Proxy};
//!
//! # fn main() -> Result<(), tower_client_sessions::profile::ProfileError> {
//! let berlin = Profile::builder()
//!     .name("de-1")
//!     .proxy("http://user:p%40ss@proxy.example:8080")
//!     .user_agent("Mozilla/5.0 (X11; Linux x86_64)")
//!     .header("accept-language", "de-DE")
//!     .build()?;
//! let plain = Profile::builder().proxy(Proxy::direct()).user_agent("crawler/1.0").build()?;
//!
//! let server = berlin.proxy().and_then(Proxy::server).unwrap();
//! assert_eq!((server.host(), server.port()), ("proxy.example", 8080));
//! assert_eq!(server.credentials().unwrap().password(), "p@ss");
//!
//! let profiles = Profiles::new([berlin, plain])?.on_exhausted(OnExhausted::Reuse);
//! assert_eq!(profiles.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # In files
//!
//! With the feature `profile-files`, profiles can be read from TOML or JSON. `Profiles::from_path`
//! selects the format by the file's extension.
//!
//! ```
//! # #[cfg(feature = "profile-files")]
//! # fn main() -> Result<(), tower_client_sessions::profile::ProfileError> {
//! use tower_client_sessions::profile::{Profiles, Proxy};
//!
//! let profiles = Profiles::from_toml(r#"
//!     [[profile]]
//!     proxy = { url = "http://proxy.example:8080", username = "u", password = "p" }
//!     user-agent = "Mozilla/5.0 (X11; Linux x86_64)"
//!
//!     [[profile]]
//!     name = "at-home"
//!     proxy = "direct"
//!     headers = { accept-language = "en-GB" }
//! "#)?;
//! let at_home = profiles.iter().last().unwrap();
//! assert_eq!(at_home.name(), Some("at-home"));
//! assert_eq!(at_home.proxy(), Some(&Proxy::direct()));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "profile-files"))]
//! # fn main() {}
//! ```
//!
//! The fields are `name`, `proxy`, `user-agent`, `headers` and `local-address`; any other field is
//! an error. In JSON, the list is `{"profile": [...]}`, `{"profiles": [...]}` or the array alone.
//! The user name and password in a proxy URL are percent-decoded; in fields of their own, they are
//! used as written.
//!
//! # Errors
//!
//! A [`ProfileError`] reports all issues of a file or a builder, not only the first, each with its
//! file, entry and field. User names, passwords and header values never appear in an error or in
//! `Debug` output.

mod assignment;
mod error;
#[cfg(feature = "profile-files")]
mod load;
#[expect(clippy::module_inception, reason = "the file is about the type of this name")]
mod profile;
mod profiles;
mod proxy;
mod rotation;
mod strategy;

pub(crate) use self::assignment::{PollProfile, ProfileAssignment, ProfilePicker, RequestPos};
pub use self::{
    error::{ProfileError, ProfileErrorKind, ProfileIssue, UnknownProfile},
    profile::{Profile, ProfileBuilder},
    profiles::Profiles,
    proxy::{Credentials, Proxy, ProxyScheme, ProxyServer},
    strategy::{OnExhausted, ProfileStrategy},
};
