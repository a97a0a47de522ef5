//! The gate: one value, renewed once, however many find that it no longer works.
//!
//! [`RenewalGate`] holds a versioned value. Everybody who needs it enters and gets the current one; whoever finds it rejected says
//! so, with the pass that it was given. The first to say so about a generation starts its renewal. Those who come later join it,
//! and those whose news is about an older generation get the current value at once. It knows no HTTP;
//! [`RenewalLayer`](crate::RenewalLayer) is its face in a tower stack.
//!
//! # Hold and overlap
//!
//! A value that was rejected or cleared is dead: everybody waits until its successor is there. A value that is renewed early, by a
//! budget or by `renew`, serves on meanwhile, and nobody waits. If it is rejected before its successor is there, the renewal that
//! runs is joined. If the early renewal fails, the value that works is left alone, and no budget starts another before a
//! [cool-down](GateConfig::cooldown).
//!
//! # When a renewal fails
//!
//! A failure is *transient* unless it is a [`PermanentError`]. After a transient one the gate waits, at random up to a
//! [ceiling](GateConfig::backoff) that doubles, and tries again; those who wait, wait on. After
//! [so many](GateConfig::max_attempts) in a row, everybody gets the same [`RenewalError`], and so does everybody who comes before a
//! rest is over; then one tries, and the rest doubles if it fails as well. After a [`PermanentError`] nothing is tried until somebody
//! clears, renews or replaces. A renewal whose result is itself rejected counts as failed, and
//! [renewals in a window are capped](GateConfig::renewal_rate_limit) even if each one succeeds.
//!
//! # Who runs it
//!
//! A renewal runs in a task on the runtime of whoever started it, so that a caller that gives up neither cancels nor repeats it. A
//! panic, an abort, or a runtime that shuts down counts as a transient failure. Started outside a runtime, it runs on that of the
//! first one who waits for it inside one. A renewal that enters its own gate, from its own task, gets
//! [`Reentrant`](RenewalErrorKind::Reentrant) instead of waiting for itself.
//!
//! # Waiting
//!
//! Waiters stand in one line and are let out first come, first served: all at once, or as [`Release`] says. A waiter that is
//! dropped gives up its place; one that had been given the lead or the probe hands it to the oldest of the others. A waiter that is
//! alive but not polled blocks nobody. Each has a [deadline](GateConfig::max_wait), their number has a
//! [bound](GateConfig::max_waiting), and so has [each attempt](GateConfig::attempt_timeout).
//!
//! # How it is built
//!
//! The decisions are one pure state machine, without a clock or a runtime: every state against every event. Around it stand the
//! values, the wakers and the task that drives a renewal; all of them follow its decisions under one lock and act after it, so that
//! no waker, no drop of a user's type and no user's code runs under the lock. While everybody may pass, the current value is one
//! published pointer, and nobody asks the machine at all.

mod config;
pub(crate) mod core;
pub(crate) mod driver;
mod error;
pub(crate) mod jitter;
pub(crate) mod keeper;
#[cfg(all(test, sessions_loom))]
mod loom;
pub(crate) mod ration;
pub(crate) mod renewal_gate;
mod sync;
pub(crate) mod wait;
pub(crate) mod waiters;

pub use self::{
    config::{ConfigError, GateConfig},
    core::Release,
    error::{BoxError, PermanentError, RenewalError, RenewalErrorKind},
    keeper::RenewalReason,
    renewal_gate::{Permit, RenewalGate, RenewalHandle},
};
