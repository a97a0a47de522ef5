//! The settings of a renewal layer, which its service, its futures and its renewals share.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Expired, ReplayMethods, ResponseView, StaleResponse,
    replay::CloneBody,
    rule::{Rule, Verification},
};
use crate::{
    cookies::{StoredCookie, Timestamp},
    gate::{ConfigError, GateConfig, UsageLimits},
    session::IdentityInner,
};

/// The settings of a layer.
pub(super) struct Config<B> {
    pub(super) expired: Expired,
    pub(super) rule: Option<Arc<Rule<B>>>,
    pub(super) verification: Option<Arc<Verification<B>>>,
    /// Whether the response to a renewal of one request makes it succeed.
    pub(super) succeeds: Arc<dyn Fn(&ResponseView<'_>) -> bool + Send + Sync>,
    pub(super) usage_limits: UsageLimits,
    pub(super) expiry_watch: Option<ExpiryWatch>,
    pub(super) replay_limit: u32,
    pub(super) replay_methods: ReplayMethods,
    pub(super) clone_body: CloneBody<B>,
    /// Makes the body of requests that handles send, if the body type has an empty value.
    pub(super) empty_body: Option<fn() -> B>,
    pub(super) stale_responses: StaleResponse,
    /// Whether the caller gets an error instead of a response that looks as if the session has
    /// expired.
    pub(super) expired_as_error: bool,
    pub(super) gate: GateConfig,
    /// The first invalid setting. Every request fails with it, because `Layer::layer` cannot fail.
    pub(super) invalid: Option<ConfigError>,
}

/// The cookie that a session needs, and how long before its expiry the session is renewed.
#[derive(Clone, Debug)]
pub(super) struct ExpiryWatch {
    name: String,
    margin: Duration,
}

impl ExpiryWatch {
    pub(super) fn new(name: String, margin: Duration) -> Self {
        Self { name, margin }
    }

    /// Records when the identity is due for renewal, if the watched cookie is among `cookies`.
    pub(super) fn record<'c>(
        &self,
        inner: &IdentityInner,
        cookies: impl IntoIterator<Item = &'c StoredCookie>,
    ) {
        if let Some(due) = self.due(inner, cookies) {
            inner.due.store(due, Ordering::Relaxed);
        }
    }

    fn due<'c>(
        &self,
        inner: &IdentityInner,
        cookies: impl IntoIterator<Item = &'c StoredCookie>,
    ) -> Option<i64> {
        let named = cookies.into_iter().filter(|cookie| cookie.name() == Some(&*self.name));
        let cookie = named.last()?;
        let margin = self.margin.as_secs_f64() * (1.0 + inner.version.jitter());
        let due = |end: Timestamp| end.as_millis().saturating_sub((margin * 1000.0) as i64);
        Some(cookie.expires().map_or(i64::MAX, due))
    }

    /// Returns whether the identity is due for renewal now.
    pub(super) fn is_due(&self, inner: &IdentityInner, now: impl FnOnce() -> Timestamp) -> bool {
        let mut due = inner.due.load(Ordering::Relaxed);
        if due == IdentityInner::UNKNOWN {
            // No response has set its cookies: the identity was restored, forked or replaced.
            due = self.due(inner, inner.jar.lock().iter(Timestamp::MIN)).unwrap_or(i64::MAX);
            let stored =
                inner.due.compare_exchange(IdentityInner::UNKNOWN, due, Ordering::Relaxed, Ordering::Relaxed);
            due = stored.map_or_else(|due| due, |_| due);
        }
        due != i64::MAX && now().as_millis() >= due
    }
}

impl<B> Clone for Config<B> {
    fn clone(&self) -> Self {
        Self {
            expired: self.expired.clone(),
            rule: self.rule.clone(),
            verification: self.verification.clone(),
            succeeds: self.succeeds.clone(),
            usage_limits: self.usage_limits,
            expiry_watch: self.expiry_watch.clone(),
            replay_limit: self.replay_limit,
            replay_methods: self.replay_methods,
            clone_body: self.clone_body.clone(),
            empty_body: self.empty_body,
            stale_responses: self.stale_responses,
            expired_as_error: self.expired_as_error,
            gate: self.gate.clone(),
            invalid: self.invalid.clone(),
        }
    }
}
