//! The promises of the crate, one module each.

#[path = "../../examples/site/mod.rs"]
mod embedded;

mod bodies;
#[cfg(feature = "client")]
mod client;
mod events;
mod evidence;
#[cfg(feature = "formats")]
mod files;
#[cfg(feature = "formats")]
mod formats;
mod gate;
mod handles;
mod hazards;
mod layout;
mod logins;
#[cfg(feature = "metrics")]
mod metrics;
mod misbehaving;
mod pool;
mod pool_soak;
mod profiles;
mod redirects;
mod renewal;
mod rotation;
mod session_sources;
mod sessions;
#[cfg(feature = "shared")]
mod shared;
mod site;
#[cfg(feature = "serde")]
mod snapshots;
mod soak;
mod stacks;
mod support;
mod traces;
