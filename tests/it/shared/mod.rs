//! Sessions that many processes share.

mod folder;
mod processes;
#[cfg(feature = "redis")]
mod server;
mod stores;
