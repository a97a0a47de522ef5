//! `RenewalLayer`: builds the settings of a renewal layer, and applies them to a service.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Expired, Renewal, RenewalService, ReplayMethods, ResponseView, SessionSource, StaleResponse,
    config::{Config, ExpiryWatch},
    replay::CloneBody,
    rule::{Rule, Verification},
};
use crate::{
    cookies::Jar,
    gate::{BoxError, ConfigError, GateConfig, RenewalReason, UsageLimits},
    session::Sessions,
};

/// [`Layer`] that applies [`RenewalService`]: renews expired sessions, and replays their requests.
///
/// `B` is the type of request bodies; it is usually inferred from the inner service. The
/// [module](super) explains rules, replays and limits.
///
/// # Clone
///
/// Clones share the sessions and the closures. Handles ([`Session::renew`](crate::Session::renew),
/// [`Session::renew_with`](crate::Session::renew_with)) renew through the stack that was created
/// last by [`layer`](Layer::layer) and still exists. Its rule and its limits then apply to the
/// renewals of all stacks on these sessions.
#[must_use = "a layer does nothing until it is applied to a service"]
pub struct RenewalLayer<B> {
    sessions: Sessions,
    config: Arc<Config<B>>,
}

impl<B> RenewalLayer<B> {
    /// Creates a layer without a rule: the next request renews an expired session, while the others
    /// wait.
    ///
    /// By default, a response with status 401 means expired, and a request with an empty body is
    /// replayed at most four times.
    pub fn new(sessions: &Sessions) -> Self
    where
        B: Body + Default,
    {
        Self::with_config(sessions, CloneBody::empty_only(), Some(B::default))
    }

    /// Like [`new`](Self::new), for bodies that do not implement `Default`.
    ///
    /// `clone` returns `None` for a body that cannot be cloned.
    pub fn with_body_clone(
        sessions: &Sessions,
        clone: impl Fn(&B) -> Option<B> + Send + Sync + 'static,
    ) -> Self {
        Self::with_config(sessions, CloneBody::from_fn(clone), None)
    }

    fn with_config(sessions: &Sessions, clone_body: CloneBody<B>, empty_body: Option<fn() -> B>) -> Self {
        Self {
            sessions: sessions.clone(),
            config: Arc::new(Config {
                expired: Expired::status([401]),
                rule: None,
                verification: None,
                succeeds: Arc::new(|response| {
                    (response.status.is_success() || response.status.is_redirection())
                        && !response.cookies.is_empty()
                }),
                usage_limits: UsageLimits::default(),
                expiry_watch: None,
                replay_limit: 4,
                replay_methods: ReplayMethods::default(),
                clone_body,
                empty_body,
                stale_responses: StaleResponse::default(),
                expired_as_error: false,
                gate: GateConfig::new(),
                invalid: None,
            }),
        }
    }

    /// Sets which responses mean that the session has expired. Default: status 401.
    pub fn expired_when(self, expired: Expired) -> Self {
        self.set(|config| config.expired = expired)
    }

    /// Renews with a closure, which sends any number of requests with [`Renewal::send`]. Default:
    /// no rule.
    ///
    /// The renewal succeeds if the future returns `Ok`, unless the last response means that the
    /// session has expired. [`Renewal::ensure`] and the `require` methods of [`Renewal`] return
    /// errors that prevent another attempt, as a [`PermanentError`](crate::gate::PermanentError)
    /// does. Any other error is retried.
    pub fn renew_with<F, Fut>(self, steps: F) -> Self
    where
        F: Fn(Renewal<B>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.rule(Rule::Steps(Box::new(move |renewal| Box::pin(steps(renewal)))))
    }

    /// Renews with a single request. Default: no rule.
    ///
    /// The renewal succeeds if the response passes
    /// [`renewal_succeeds_when`](Self::renewal_succeeds_when). The attempt fails if the layer
    /// cannot clone the body of the request.
    pub fn renew_with_request(self, request: Request<B>) -> Self
    where
        B: Send + 'static,
    {
        let clone_body = self.config.clone_body.clone();
        // The body of a request need not be `Sync`, so the lock serialises the clones.
        let request = parking_lot::Mutex::new(request);
        self.rule(Rule::Request(Box::new(move || clone_body.clone_request(&request.lock()))))
    }

    /// Verifies a session before a rejected response renews it. Default: no verification.
    ///
    /// The closure sends a request whose response shows whether the server still accepts the
    /// session, and returns `true` if it does. [`Renewal::send`] sends it under the identity that
    /// was rejected. Then the rejection concerns its own request only, and its response is
    /// delivered. If the closure returns `false`, the session is renewed.
    ///
    /// An error, a panic, or a closure that takes longer than
    /// [`attempt_timeout`](GateConfig::attempt_timeout) proves nothing: a rejection then causes at
    /// most one renewal for each request, as without a verification. The rejected response keeps
    /// its connection meanwhile, so leave at least one connection for the verification.
    ///
    /// One verification of a session runs at a time. It decides all rejections that arrived before
    /// it started.
    pub fn verify_with<F, Fut>(self, steps: F) -> Self
    where
        F: Fn(Renewal<B>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<bool, BoxError>> + Send + 'static,
    {
        let verification = Verification::Steps(Box::new(move |renewal| Box::pin(steps(renewal))));
        self.set(|config| config.verification = Some(Arc::new(verification)))
    }

    /// Verifies a session with a single request before a rejected response renews it. Default: no
    /// verification.
    ///
    /// The session works unless the response looks as if it has [expired](Self::expired_when). See
    /// [`verify_with`](Self::verify_with).
    pub fn verify_with_request(self, request: Request<B>) -> Self
    where
        B: Send + 'static,
    {
        let clone_body = self.config.clone_body.clone();
        let request = parking_lot::Mutex::new(request);
        let verification = Verification::Request(Box::new(move || clone_body.clone_request(&request.lock())));
        self.set(|config| config.verification = Some(Arc::new(verification)))
    }

    /// Returns an error in place of a response that looks as if the session has expired. Default:
    /// the response.
    ///
    /// Such a response is otherwise delivered if the request cannot be replayed, or if the
    /// rejection concerns this request only; [`SessionInfo::outcome`](crate::SessionInfo::outcome)
    /// distinguishes it. The error is a [`RejectedResponse`](super::RejectedResponse).
    pub fn expired_as_error(self) -> Self {
        self.set(|config| config.expired_as_error = true)
    }

    /// Renews with the next session of a [`SessionSource`], and sends nothing. Default: no rule.
    pub fn renew_from(self, source: impl Into<SessionSource>) -> Self {
        let source = source.into();
        self.rule(Rule::SessionSource(Box::new(move |session, reason| {
            let (source, session) = (source.clone(), session.clone());
            Box::pin(async move { source.next(session, reason).await })
        })))
    }

    /// Renews with the cookies that a closure returns, and sends nothing. Default: no rule.
    pub fn renew_from_fn<F, Fut, J>(self, fetch: F) -> Self
    where
        F: Fn(RenewalReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<J, BoxError>> + Send + 'static,
        J: Into<Jar>,
    {
        self.rule(Rule::SessionSource(Box::new(move |_, reason| {
            let fetched = fetch(reason);
            Box::pin(async move { fetched.await.map(Into::into) })
        })))
    }

    /// Sets which response makes a renewal with a single request succeed.
    ///
    /// It applies to [`renew_with_request`](Self::renew_with_request) and to
    /// [`Session::renew_with`](crate::Session::renew_with). A response that means expired never
    /// makes a renewal succeed. Default: a status of success or redirection, and at least one
    /// cookie set.
    ///
    /// If the response does not pass, the renewal fails permanently; with status 408, 429 or 5xx it
    /// is retried.
    pub fn renewal_succeeds_when(
        self,
        succeeds: impl Fn(&ResponseView<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.set(|config| config.succeeds = Arc::new(succeeds))
    }

    /// Sets how many requests may be sent under one identity. Default: no limit.
    ///
    /// Each send of this layer counts once; the hops of a redirect are not counted. The limit is
    /// exact for any number of concurrent requests. A layer with a rule renews early, within the
    /// last tenth of the limit. Requests then wait only if the limit is reached before the renewal
    /// ends.
    pub fn max_uses(self, uses: u64) -> Self {
        let check = ConfigError::unless(uses > 0, "max_uses");
        self.checked(check).set(|config| config.usage_limits.uses = Some(uses))
    }

    /// Sets the age up to which an identity is used, checked when a request is sent. Default: no
    /// limit.
    ///
    /// A layer with a rule renews early, as for [`max_uses`](Self::max_uses).
    pub fn max_age(self, age: Duration) -> Self {
        let check = ConfigError::unless(age > Duration::ZERO, "max_age");
        self.checked(check).set(|config| config.usage_limits.age = Some(age))
    }

    /// Renews early when a cookie named `name` expires within `margin`; requests continue
    /// meanwhile. Default: the expiry of cookies does not start a renewal.
    ///
    /// The margin of each identity is random, between `margin` and 1.5 times `margin`, so that
    /// sessions which started together are not renewed together. A cookie without an expiry never
    /// starts a renewal.
    pub fn renew_before_expiry(self, name: impl Into<String>, margin: Duration) -> Self {
        let watch = ExpiryWatch::new(name.into(), margin);
        self.set(|config| config.expiry_watch = Some(watch))
    }

    /// Sets how many times a request is replayed; 0 turns replays off. Default: 4.
    ///
    /// A [`ReplayBudget`](super::ReplayBudget) in the extensions of a request replaces this limit.
    pub fn replay_limit(self, replays: u32) -> Self {
        self.set(|config| config.replay_limit = replays)
    }

    /// Replays requests with any body, by cloning it. Default: only requests with an empty body are
    /// replayed.
    pub fn clone_bodies(self) -> Self
    where
        B: Clone,
    {
        self.clone_bodies_with(|body| Some(body.clone()))
    }

    /// Sets how bodies are cloned for replays. Default: only empty bodies are cloned.
    ///
    /// If `clone` returns `None`, the request is sent once, and its response is returned as it is.
    pub fn clone_bodies_with(self, clone: impl Fn(&B) -> Option<B> + Send + Sync + 'static) -> Self {
        self.set(|config| config.clone_body = CloneBody::from_fn(clone))
    }

    /// Sets which methods are replayed. Default: [`ReplayMethods::All`].
    pub fn replay_methods(self, methods: ReplayMethods) -> Self {
        self.set(|config| config.replay_methods = methods)
    }

    /// Sets what happens to responses under an identity that is no longer current. Default:
    /// [`StaleResponse::ReplayIfExpired`].
    pub fn stale_responses(self, stale_responses: StaleResponse) -> Self {
        self.set(|config| config.stale_responses = stale_responses)
    }

    /// Sets the timeouts and limits of each session's gate. Default: [`GateConfig::new`].
    pub fn gate_config(self, gate: GateConfig) -> Self {
        let check = gate.validate();
        self.checked(check).set(|config| config.gate = gate)
    }

    /// Checks the settings. Without this call, every request through the layer fails with the same
    /// error.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is zero although it must not be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.config.invalid.clone().map_or(Ok(()), Err)
    }

    fn rule(self, rule: Rule<B>) -> Self {
        self.set(|config| config.rule = Some(Arc::new(rule)))
    }

    fn checked(self, check: Result<(), ConfigError>) -> Self {
        self.set(|config| {
            if let Err(error) = check {
                config.invalid.get_or_insert(error);
            }
        })
    }

    fn set(mut self, change: impl FnOnce(&mut Config<B>)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<S, B, R> Layer<S> for RenewalLayer<B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Service = RenewalService<S, B>;

    fn layer(&self, inner: S) -> Self::Service {
        let mut config = self.config.clone();
        if config.expired.lacks_layer() {
            let config = Arc::make_mut(&mut config);
            config.invalid.get_or_insert(ConfigError::missing_layer("PeekLayer::for_rule"));
        }
        RenewalService::new(inner, self.sessions.clone(), config)
    }
}

impl<B> Clone for RenewalLayer<B> {
    fn clone(&self) -> Self {
        Self { sessions: self.sessions.clone(), config: self.config.clone() }
    }
}

impl<B> fmt::Debug for RenewalLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { usage_limits, replay_limit, replay_methods, stale_responses, gate, .. } = &*self.config;
        f.debug_struct("RenewalLayer")
            .field("sessions", &self.sessions)
            .field("has_rule", &self.config.rule.is_some())
            .field("max_uses", &usage_limits.uses)
            .field("max_age", &usage_limits.age)
            .field("replay_limit", replay_limit)
            .field("replay_methods", replay_methods)
            .field("stale_responses", stale_responses)
            .field("gate", gate)
            .finish_non_exhaustive()
    }
}
