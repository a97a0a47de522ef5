//! The settings of a renewal layer, which its service, its futures and its renewals share.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Expired, ReplayMethods, ResponseView, StaleResponse, replay::CloneBody, rule::Rule};
use crate::{
    cookies::{StoredCookie, Timestamp},
    gate::{ConfigError, GateConfig, UsageLimits},
    session::IdentityInner,
};

/// The settings of a layer.
pub(crate) struct Config<B> {
    pub(crate) expired: Expired,
    pub(crate) rule: Option<Arc<Rule<B>>>,
    pub(crate) renewed: Arc<dyn Fn(&ResponseView<'_>) -> bool + Send + Sync>,
    pub(crate) budget: UsageLimits,
    pub(crate) expiry_watch: Option<ExpiryWatch>,
    pub(crate) replay_limit: u32,
    pub(crate) replay_methods: ReplayMethods,
    pub(crate) clone_body: CloneBody<B>,
    pub(crate) empty_body: Option<fn() -> B>,
    pub(crate) late: StaleResponse,
    pub(crate) gate: GateConfig,
    /// The first setting that lets nothing through. It is told to every request, since a layer cannot fail.
    pub(crate) invalid: Option<ConfigError>,
}

/// The cookie that a session needs, and how long before its end it is renewed.
#[derive(Clone, Debug)]
pub(crate) struct ExpiryWatch {
    pub(super) name: String,
    pub(super) margin: Duration,
}

impl ExpiryWatch {
    /// Notes when `kept` is to be renewed, if one of these cookies is the one.
    pub(crate) fn note<'c>(&self, kept: &IdentityInner, cookies: impl IntoIterator<Item = &'c StoredCookie>) {
        if let Some(due) = self.due(kept, cookies) {
            kept.due.store(due, Ordering::Relaxed);
        }
    }

    fn due<'c>(
        &self,
        kept: &IdentityInner,
        cookies: impl IntoIterator<Item = &'c StoredCookie>,
    ) -> Option<i64> {
        let named = cookies.into_iter().filter(|cookie| cookie.name() == Some(&*self.name));
        let cookie = named.last()?;
        let margin = self.margin.as_secs_f64() * (1.0 + kept.version.jitter());
        let due = |end: Timestamp| end.as_millis().saturating_sub((margin * 1000.0) as i64);
        Some(cookie.expires().map_or(i64::MAX, due))
    }

    /// Whether `kept` is to be renewed now.
    pub(crate) fn is_near(&self, kept: &IdentityInner, now: impl FnOnce() -> Timestamp) -> bool {
        let mut due = kept.due.load(Ordering::Relaxed);
        if due == IdentityInner::UNKNOWN {
            // No answer has set its cookies: it was restored, forked or given.
            due = self.due(kept, kept.jar.lock().iter(Timestamp::MIN)).unwrap_or(i64::MAX);
            let noted =
                kept.due.compare_exchange(IdentityInner::UNKNOWN, due, Ordering::Relaxed, Ordering::Relaxed);
            due = noted.map_or_else(|due| due, |_| due);
        }
        due != i64::MAX && now().as_millis() >= due
    }
}

impl<B> Clone for Config<B> {
    fn clone(&self) -> Self {
        Self {
            expired: self.expired.clone(),
            rule: self.rule.clone(),
            renewed: self.renewed.clone(),
            budget: self.budget,
            expiry_watch: self.expiry_watch.clone(),
            replay_limit: self.replay_limit,
            replay_methods: self.replay_methods,
            clone_body: self.clone_body.clone(),
            empty_body: self.empty_body,
            late: self.late,
            gate: self.gate.clone(),
            invalid: self.invalid.clone(),
        }
    }
}
