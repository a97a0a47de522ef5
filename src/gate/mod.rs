//! One value, renewed by one.

mod config;
mod core;
mod driver;
mod error;
mod keeper;
mod renewal_gate;
mod sync;
mod wait;
mod waiters;

pub use self::{
    config::{ConfigError, GateConfig},
    core::Release,
    error::{BoxError, Refused, RenewalError, RenewalErrorKind},
    keeper::Reason,
    renewal_gate::{GateRenewal, Pass, RenewalGate},
};
