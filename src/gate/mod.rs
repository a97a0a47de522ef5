//! A versioned value that is renewed once, however many callers find that it no longer works.
//!
//! Callers of a [`RenewalGate`] acquire a permit for the current value. A caller whose value was
//! rejected reports it with that permit. The first report about a generation starts its renewal;
//! later ones join it. A report about an older generation returns the current value. The gate knows
//! no HTTP; [`RenewalLayer`](crate::RenewalLayer) applies a gate to each session in a tower stack.
//!
//! # Waiting and early renewal
//!
//! When a value was rejected or cleared, all callers wait for its successor. During an early
//! renewal (a limit of uses or age, or `renew`) the current value stays in use and no caller waits.
//! If it is rejected before its successor is there, its callers join the running renewal. If the
//! early renewal fails, the current value stays in use, and no limit starts another renewal during
//! a [cooldown](GateConfig::cooldown).
//!
//! # Failed renewals
//!
//! A failure is transient unless it is a [`PermanentError`]. After a transient failure the gate
//! pauses and retries; waiters keep waiting. The pause is random, up to a
//! [ceiling](GateConfig::backoff) that doubles. After [`max_attempts`](GateConfig::max_attempts)
//! consecutive failures all waiters get the same [`RenewalError`], as do new callers until a
//! backoff ends. Then a single attempt is made; if it fails, the backoff doubles.
//!
//! After a permanent error no attempt is made until `clear`, `renew` or `replace` is called. A
//! renewal whose result is itself rejected counts as failed. Even successful renewals are
//! [limited per window](GateConfig::renewal_rate_limit).
//!
//! # The task of a renewal
//!
//! A renewal runs in a task on the runtime of the caller that started it, so that dropping a caller
//! neither cancels nor repeats it. A panic, an abort, or a runtime that shuts down counts as a
//! transient failure. A renewal that is started outside a runtime runs on that of the first waiter
//! inside one. A renewal that acquires a permit of its own gate from its own task gets
//! [`Reentrant`](RenewalErrorKind::Reentrant) instead of waiting for itself.
//!
//! # The queue
//!
//! Waiters are released in order of arrival: all together, or as [`Release`] says. A waiter that is
//! dropped gives up its place; if it leads or probes, the oldest of the others takes over. A waiter
//! that is not polled blocks no other. The [time](GateConfig::max_wait) and the
//! [number](GateConfig::max_waiting) of waiters are bounded, and so is the
//! [time of each attempt](GateConfig::attempt_timeout).

pub(crate) mod allowance;
mod config;
mod effects;
mod error;
#[expect(clippy::module_inception, reason = "the module of a gate has the type")]
pub(crate) mod gate;
pub(crate) mod handle;
#[cfg(all(test, sessions_loom))]
mod loom;
pub(crate) mod permit;
pub(crate) mod renewal_gate;
pub(crate) mod source;
pub(crate) mod state;
mod sync;
mod task;
pub(crate) mod version;
pub(crate) mod wait;

pub use self::{
    config::{ConfigError, GateConfig},
    error::{BoxError, PermanentError, RenewalError, RenewalErrorKind},
    handle::RenewalHandle,
    renewal_gate::{Permit, RenewalGate},
    source::RenewalReason,
    state::Release,
};
pub(crate) use self::{
    gate::{Availability, Gate, GateOwner, GateRef, GateSnapshot},
    permit::{Admitted, RawPermit},
    renewal_gate::failure,
    source::{AttemptContext, GateEvent, RenewalFuture, RenewalSource, VerificationFuture},
    state::{Arrival, Charge, DoubtOutcome, Failure, Generation, Limits, Rejection, ReportOutcome, Verified},
    version::{UsageLimits, VersionState},
    wait::{DoubtWait, Wait, wait, wait_for_evidence},
};
