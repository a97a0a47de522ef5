//! Sessions that many processes share, through a store that all of them reach.

mod attempt;
mod config;
mod contract;
mod entry;
mod error;
mod exchange;
mod file;
mod fleet;
mod memory;
mod merge;
mod news;
mod payload;
#[cfg(feature = "redis")]
mod redis;
mod store;
mod uses;

#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use self::{
    config::{CookieChanges, Sharing, Unreachable},
    contract::check_store,
    error::{StoreError, StoreErrorKind},
    file::FileStore,
    fleet::{SharedVersion, SharedVersions, SharingStats},
    memory::MemoryStore,
    payload::SealKey,
    store::{Change, Commit, Committed, Fence, Leased, Mark, Owner, Record, SharedStore, StoreFuture, Taken},
};
