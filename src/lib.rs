//! Sessions for HTTP clients built on tower.

pub mod cookies;
pub mod gate;
pub mod profile;
pub mod profile_layer;
#[cfg(feature = "redirect")]
pub mod redirect;
pub mod renewal;
pub mod session;

pub use self::{
    profile::{Profile, Profiles},
    profile_layer::ProfileLayer,
    renewal::{Expired, Renewal, RenewalLayer},
    session::{
        CookieSwitch, Identity, RequestCookies, Session, SessionId, SessionInfo, SessionLayer, Sessions,
    },
};

// The README's stack compiles against the crate as it is.
#[cfg(all(doctest, feature = "redirect"))]
#[doc = include_str!("../README.md")]
struct Readme;
