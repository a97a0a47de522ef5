//! `StackBackend`: runs renewals through the stack below a renewal layer.

use std::{any::Any, future::poll_fn, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use parking_lot::Mutex;
use tower_service::Service;
use tracing::Instrument;

use super::{
    Renewal, RenewalBody, ResponseView,
    config::Config,
    login_error::Missing,
    renewal::{BoxFuture, Classified, Downstream},
    rule::{Rule, Verification},
};
use crate::{
    gate::{
        AttemptContext, BoxError, Failure, Limits, RenewalError, RenewalErrorKind, RenewalFuture,
        RenewalReason, VerificationFuture, Verified, failure,
    },
    session::{
        Identity, IdentityInner, Session, SessionId, SessionInfo, SessionInner,
        renewal_backend::{ExplicitRequest, RenewalBackend},
        request::{EndedHop, SendContext, SendLog},
        trace,
    },
};

/// The stack below a renewal layer, and the settings of the layer.
pub(super) struct StackBackend<S, B> {
    /// Locked only to clone it, because a service need not be `Sync`.
    inner: Mutex<S>,
    config: Arc<Config<B>>,
}

impl<S, B> StackBackend<S, B> {
    pub(super) fn new(inner: S, config: Arc<Config<B>>) -> Self {
        Self { inner: Mutex::new(inner), config }
    }
}

impl<S, B, R> Downstream<B> for StackBackend<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    fn send(
        &self,
        identity: Identity,
        mut request: Request<B>,
    ) -> BoxFuture<(Response<RenewalBody>, Classified)> {
        let mut service = self.inner.lock().clone();
        let config = self.config.clone();
        let span = trace::send(identity.generation());
        let sent = async move {
            let request_uri = request.uri().clone();
            let log = SendLog::new(EndedHop::Send, None);
            let extensions = request.extensions_mut();
            // The renewal determines the identity, whatever session the request names.
            extensions.remove::<Session>();
            extensions.remove::<SessionId>();
            extensions.insert(SendContext { identity: identity.clone(), log: log.clone() });
            poll_fn(|context| service.poll_ready(context)).await.map_err(Into::into)?;
            let sent = service.call(request);
            drop(service);
            let response = sent.await.map_err(Into::into)?;
            let (cookies, final_uri) = log.with(|log| (log.cookies.clone(), log.uri.take()));
            let view = ResponseView {
                status: response.status(),
                headers: response.headers(),
                extensions: response.extensions(),
                request_uri: &request_uri,
                final_uri: final_uri.as_ref().unwrap_or(&request_uri),
                cookies: &cookies,
            };
            let expired = config.expired.matches(&view);
            let succeeds = !expired && (config.succeeds)(&view);
            let classified = Classified { expired, succeeds, ended_at: view.ended_at() };
            let mut response = response.map(RenewalBody::new);
            let info = SessionInfo::new(identity.session_id(), identity.generation(), cookies, final_uri);
            response.extensions_mut().insert(info);
            Ok((response, classified))
        };
        if span.is_disabled() { Box::pin(sent) } else { Box::pin(sent.instrument(span)) }
    }
}

impl<S, B, R> RenewalBackend for StackBackend<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    fn has_rule(&self) -> bool {
        self.config.rule.is_some()
    }

    fn can_verify(&self) -> bool {
        self.config.verification.is_some()
    }

    fn verify(self: Arc<Self>, identity: Identity) -> VerificationFuture {
        Box::pin(async move {
            let renewal = Renewal::new(identity, RenewalReason::Expired, self.clone());
            let is_accepted = match self.config.verification.as_deref() {
                Some(Verification::Steps(steps)) => steps(renewal.clone()).await.ok(),
                Some(Verification::Request(make)) => match make() {
                    Some(request) => {
                        let sent = renewal.send_classified(request).await;
                        sent.ok().map(|(_, classified)| !classified.expired)
                    }
                    None => None,
                },
                None => None,
            };
            match is_accepted {
                Some(true) => Verified::Accepted,
                Some(false) => Verified::Rejected,
                None => Verified::Failed,
            }
        })
    }

    fn limits(&self) -> Limits {
        self.config.gate.limits.clone()
    }

    #[cfg(feature = "shared")]
    fn budget(&self) -> crate::gate::UsageLimits {
        self.config.usage_limits
    }

    fn accept(&self, request: Box<dyn Any + Send>) -> Result<ExplicitRequest, RenewalError> {
        if request.is::<Request<B>>() {
            return Ok(request);
        }
        match (request.downcast::<Request<()>>(), self.config.empty_body) {
            (Ok(request), Some(empty)) => Ok(Box::new(request.map(|()| empty()))),
            _ => Err(RenewalError::new(RenewalErrorKind::BodyTypeMismatch)),
        }
    }

    fn renew(
        self: Arc<Self>,
        session: Session,
        attempt: AttemptContext<SessionInner>,
    ) -> RenewalFuture<IdentityInner> {
        Box::pin(async move {
            let inner = attempt.candidate.expect("a session's attempt has a candidate");
            let identity = Identity { session, inner };
            let renewal = Renewal::new(identity.clone(), attempt.reason, self.clone());
            let (result, repeatable) = match attempt.request {
                None if attempt.is_explicit => {
                    (Err("the renewal request was already sent, and its body cannot be cloned".into()), false)
                }
                Some(once) => {
                    let request = *once.downcast::<Request<B>>().expect("`accept` has checked it");
                    // The next attempt sends the clone if this one fails.
                    let clone = self.config.clone_body.clone_request(&request);
                    let repeatable = clone.is_some();
                    if let Some(clone) = clone {
                        identity.session.gate().return_request(attempt.attempt, Box::new(clone));
                    }
                    (send_request(&renewal, request).await, repeatable)
                }
                None => (self.run_rule(&renewal, &identity).await, true),
            };
            match result.and_then(|()| renewal.require_live_session()) {
                Ok(()) => {
                    if let Some(expiry_watch) = &self.config.expiry_watch {
                        expiry_watch.record(&identity.inner, &renewal.cookies());
                    }
                    Ok(None)
                }
                Err(error) => {
                    let failure = failure(error);
                    Err(if repeatable { failure } else { Failure::permanent(failure.error) })
                }
            }
        })
    }
}

impl<S, B> StackBackend<S, B> {
    async fn run_rule(&self, renewal: &Renewal<B>, identity: &Identity) -> Result<(), BoxError> {
        match self.config.rule.as_deref() {
            Some(Rule::Steps(steps)) => steps(renewal.clone()).await,
            Some(Rule::Request(make)) => {
                let request = make().ok_or(
                    "the body of the renewal request cannot be cloned; set clone_bodies or clone_bodies_with on the layer",
                )?;
                send_request(renewal, request).await
            }
            Some(Rule::SessionSource(fetch)) => {
                let mut fetched = fetch(renewal.session_id(), renewal.reason()).await?;
                let now = identity.session.0.context.timestamp();
                let mut jar = identity.inner.jar.lock();
                // Cookies that were added to the session during the wait are already in the
                // candidate, and stay.
                for edit in jar.iter(now) {
                    fetched.insert(edit.clone(), now);
                }
                *jar = fetched;
                Ok(())
            }
            None => Err("the layer has no renewal rule".into()),
        }
    }
}

async fn send_request<B>(renewal: &Renewal<B>, request: Request<B>) -> Result<(), BoxError> {
    let (_, classified) = renewal.send_classified(request).await?;
    renewal.require(classified.succeeds, || Missing::SuccessRule)
}
