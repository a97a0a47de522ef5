//! Tests of sessions that many processes share.

mod cookies;
mod fleets;
mod folder;
mod forgetful;
mod pools;
mod processes;
#[cfg(feature = "redis")]
mod server;
mod stores;
