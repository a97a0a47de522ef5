//! `RenewalLayer`: the settings of a renewal layer.

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
    rule::Rule,
};
use crate::{
    cookies::Jar,
    gate::{BoxError, ConfigError, GateConfig, RenewalReason, UsageLimits},
    session::Sessions,
};

/// [`Layer`] that applies [`RenewalService`]: requests wait while their session is renewed, and are sent again when it had
/// expired.
///
/// `B` is the type of request bodies; it is usually inferred from the service below. See the [module](super) for the whole
/// story.
///
/// # Clone
///
/// Clones share the sessions and the closures. Each [`layer`](Layer::layer) makes its own stack the one that
/// [`Session::renew`](crate::Session::renew) and [`Session::renew_with`](crate::Session::renew_with) send through, in the place
/// of an earlier one's while it lives; renewals of all stacks on these sessions then follow its rule and its bounds.
pub struct RenewalLayer<B> {
    sessions: Sessions,
    config: Arc<Config<B>>,
}

impl<B> RenewalLayer<B> {
    /// Creates a layer without a rule: sessions that expire are renewed by the next request, which goes ahead alone.
    ///
    /// An answer with status 401 means expired, requests with an empty body are sent again, twice at most.
    pub fn new(sessions: &Sessions) -> Self
    where
        B: Body + Default,
    {
        Self::with_clone_body(sessions, CloneBody::empty_only(), Some(B::default))
    }

    /// As [`new`](Self::new) for bodies that are not `Default`: `clone` says how a body can be had again, or that it cannot.
    pub fn with_body_clone(
        sessions: &Sessions,
        clone: impl Fn(&B) -> Option<B> + Send + Sync + 'static,
    ) -> Self {
        Self::with_clone_body(sessions, CloneBody::from_fn(clone), None)
    }

    fn with_clone_body(sessions: &Sessions, clone_body: CloneBody<B>, empty_body: Option<fn() -> B>) -> Self {
        Self {
            sessions: sessions.clone(),
            config: Arc::new(Config {
                expired: Expired::status([401]),
                rule: None,
                renewed: Arc::new(|answer| {
                    (answer.status.is_success() || answer.status.is_redirection())
                        && !answer.cookies.is_empty()
                }),
                budget: UsageLimits::default(),
                expiry_watch: None,
                replay_limit: 2,
                replay_methods: ReplayMethods::default(),
                clone_body,
                empty_body,
                late: StaleResponse::default(),
                gate: GateConfig::new(),
                invalid: None,
            }),
        }
    }

    /// Sets which answers mean that the session has expired. Default: status 401.
    #[must_use]
    pub fn expired_when(self, expired: Expired) -> Self {
        self.set(|config| config.expired = expired)
    }

    /// Renews by steps of your own: as many requests as it takes, sent by [`Renewal::send`]. Default: no rule.
    ///
    /// The renewal succeeds if the future ends in `Ok`, unless the last answer says that the session has expired. To say that
    /// trying again is pointless, end in a [`Refused`](crate::gate::Refused).
    #[must_use]
    pub fn renew_with<F, Fut>(self, steps: F) -> Self
    where
        F: Fn(Renewal<B>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.rule(Rule::Steps(Box::new(move |renewal| Box::pin(steps(renewal)))))
    }

    /// Renews by one request. Default: no rule.
    ///
    /// The renewal succeeds if the answer passes [`renewal_succeeds_when`](Self::renewal_succeeds_when). The request's body must be one that the
    /// layer can clone; if it is not, the attempt fails.
    #[must_use]
    pub fn renew_with_request(self, request: Request<B>) -> Self
    where
        B: Send + 'static,
    {
        let clone_body = self.config.clone_body.clone();
        // A request's body need not be `Sync`; its copies are made one at a time.
        let request = parking_lot::Mutex::new(request);
        self.rule(Rule::Request(Box::new(move || clone_body.clone_request(&request.lock()))))
    }

    /// Renews by the next session of a [`SessionSource`]: nothing is sent. Default: no rule.
    #[must_use]
    pub fn renew_from(self, supply: impl Into<SessionSource>) -> Self {
        let supply = supply.into();
        self.rule(Rule::SessionSource(Box::new(move |session, reason| {
            let (supply, session) = (supply.clone(), session.clone());
            Box::pin(async move { supply.next(session, reason).await })
        })))
    }

    /// Renews by cookies collected elsewhere: nothing is sent. Default: no rule.
    #[must_use]
    pub fn renew_from_fn<F, Fut, J>(self, supply: F) -> Self
    where
        F: Fn(RenewalReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<J, BoxError>> + Send + 'static,
        J: Into<Jar>,
    {
        self.rule(Rule::SessionSource(Box::new(move |_, reason| {
            let supplied = supply(reason);
            Box::pin(async move { supplied.await.map(Into::into) })
        })))
    }

    /// Sets which answers make a renewal of one request succeed: [`renew_with_request`](Self::renew_with_request) and
    /// [`Session::renew_with`](crate::Session::renew_with). Default: a status of success or redirection, and at least one
    /// cookie set. An answer that means expired never does.
    #[must_use]
    pub fn renewal_succeeds_when(
        self,
        renewed: impl Fn(&ResponseView<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.set(|config| config.renewed = Arc::new(renewed))
    }

    /// Lets an identity serve so many requests. Default: no limit.
    ///
    /// One use is one send by this layer; hops of a redirect are not counted. The limit is exact, however many requests there
    /// are at once. Where there is a rule, the last tenth of the limit, less some jitter, is left for renewing early: requests go
    /// on meanwhile and nobody waits, unless the limit is reached before the renewal has ended.
    #[must_use]
    pub fn max_uses(self, uses: u64) -> Self {
        let check = ConfigError::unless(uses > 0, "max_uses");
        self.checked(check).set(|config| config.budget.uses = Some(uses))
    }

    /// Lets an identity serve for so long, counted when a request is sent. Default: no limit.
    ///
    /// Renewed early, as with [`max_uses`](Self::max_uses).
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        let check = ConfigError::unless(age > Duration::ZERO, "max_age");
        self.checked(check).set(|config| config.budget.age = Some(age))
    }

    /// Renews early when a cookie of this name is less than `margin` from its end; requests go on meanwhile. Default: cookies
    /// end when they end.
    ///
    /// The margin is drawn anew for each identity, between `margin` and one and a half of it, so that sessions that began
    /// together are not renewed together. A cookie without an end is never near it.
    #[must_use]
    pub fn renew_before_expiry(self, name: impl Into<String>, margin: Duration) -> Self {
        let expiry_watch = ExpiryWatch { name: name.into(), margin };
        self.set(|config| config.expiry_watch = Some(expiry_watch))
    }

    /// Sets how often a request may be sent again; 0 turns replays off. Default: 2.
    ///
    /// A [`ReplayBudget`](super::ReplayBudget) in the request's extensions takes the place of this limit.
    #[must_use]
    pub fn replay_limit(self, replays: u32) -> Self {
        self.set(|config| config.replay_limit = replays)
    }

    /// Sends requests with any body again, by cloning it. Default: only requests with an empty body.
    #[must_use]
    pub fn clone_bodies(self) -> Self
    where
        B: Clone,
    {
        self.clone_bodies_with(|body| Some(body.clone()))
    }

    /// Sets how a body can be had again. A request whose body cannot, by `None`, is never half sent: its answer is returned as
    /// it came. Default: only empty bodies.
    #[must_use]
    pub fn clone_bodies_with(self, clone: impl Fn(&B) -> Option<B> + Send + Sync + 'static) -> Self {
        self.set(|config| config.clone_body = CloneBody::from_fn(clone))
    }

    /// Sets which methods may be sent again. Default: [`ReplayMethods::All`].
    #[must_use]
    pub fn replay_methods(self, methods: ReplayMethods) -> Self {
        self.set(|config| config.replay_methods = methods)
    }

    /// Sets what becomes of answers of an older identity. Default: [`StaleResponse::ReplayIfExpired`].
    #[must_use]
    pub fn stale_responses(self, late: StaleResponse) -> Self {
        self.set(|config| config.late = late)
    }

    /// Sets the bounds of the gate. Default: [`GateConfig::new`].
    #[must_use]
    pub fn gate_config(self, gate: GateConfig) -> Self {
        let check = gate.validate();
        self.checked(check).set(|config| config.gate = gate)
    }

    /// Checks the settings now instead of at the first request.
    ///
    /// # Errors
    ///
    /// Names the limit that is zero.
    pub fn validate(self) -> Result<Self, ConfigError> {
        match &self.config.invalid {
            None => Ok(self),
            Some(error) => Err(error.clone()),
        }
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
        RenewalService::new(inner, self.sessions.clone(), self.config.clone())
    }
}

impl<B> Clone for RenewalLayer<B> {
    fn clone(&self) -> Self {
        Self { sessions: self.sessions.clone(), config: self.config.clone() }
    }
}

impl<B> fmt::Debug for RenewalLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { budget, replay_limit, replay_methods, late, gate, .. } = &*self.config;
        f.debug_struct("RenewalLayer")
            .field("sessions", &self.sessions)
            .field("has_rule", &self.config.rule.is_some())
            .field("max_uses", &budget.uses)
            .field("max_age", &budget.age)
            .field("replay_limit", replay_limit)
            .field("replay_methods", replay_methods)
            .field("stale_responses", late)
            .field("gate", gate)
            .finish_non_exhaustive()
    }
}
