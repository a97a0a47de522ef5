//! One value, renewed by one.

mod config;
pub(crate) mod core;
pub(crate) mod driver;
mod error;
pub(crate) mod keeper;
#[cfg(all(test, sessions_loom))]
mod loom;
pub(crate) mod renewal_gate;
mod sync;
pub(crate) mod wait;
pub(crate) mod waiters;

pub use self::{
    config::{ConfigError, GateConfig},
    core::Release,
    error::{BoxError, Refused, RenewalError, RenewalErrorKind},
    keeper::Reason,
    renewal_gate::{GateRenewal, Pass, RenewalGate},
};
