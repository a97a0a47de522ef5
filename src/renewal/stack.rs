//! The stack below a renewal layer, as renewals send through it.

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
    renewal::{Classified, Downstream},
    rule::{BoxFuture, Rule},
};
use crate::{
    gate::{
        AttemptContext, BoxError, Failure, Limits, RenewalError, RenewalErrorKind, RenewalFuture, failure,
    },
    session::{
        Identity, IdentityInner, Session, SessionId, SessionInfo, SessionInner,
        renewal_backend::{ExplicitRequest, RenewalBackend},
        request::{EndedHop, SendContext, SendLog},
        trace,
    },
};

/// A stack and the settings of the layer above it.
pub(crate) struct StackBackend<S, B> {
    /// Behind a lock only because services need not be `Sync`; it is held for a clone.
    inner: Mutex<S>,
    config: Arc<Config<B>>,
}

impl<S, B> StackBackend<S, B> {
    pub(crate) fn new(inner: S, config: Arc<Config<B>>) -> Self {
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
            let requested = request.uri().clone();
            let log = SendLog::new(EndedHop::Send, None);
            let extensions = request.extensions_mut();
            // The renewal says whose it is.
            extensions.remove::<Session>();
            extensions.remove::<SessionId>();
            extensions.insert(SendContext { identity: identity.clone(), log: log.clone() });
            poll_fn(|context| service.poll_ready(context)).await.map_err(Into::into)?;
            let sent = service.call(request);
            drop(service);
            let response = sent.await.map_err(Into::into)?;
            let (cookies, served) = log.with(|log| (log.cookies.clone(), log.uri.take()));
            let answer = ResponseView {
                status: response.status(),
                headers: response.headers(),
                extensions: response.extensions(),
                requested: &requested,
                served: served.as_ref().unwrap_or(&requested),
                cookies: &cookies,
            };
            let expired = config.expired.matches(&answer);
            let classified = Classified { expired, renewed: !expired && (config.renewed)(&answer) };
            let mut response = response.map(RenewalBody::new);
            let info = SessionInfo::new(identity.session_id(), identity.generation(), cookies, served);
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

    fn limits(&self) -> Limits {
        self.config.gate.limits.clone()
    }

    #[cfg(feature = "shared")]
    fn budget(&self) -> crate::gate::UsageLimits {
        self.config.budget
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
        drive: AttemptContext<SessionInner>,
    ) -> RenewalFuture<IdentityInner> {
        Box::pin(async move {
            let inner = drive.candidate.expect("a session's attempt has a candidate");
            let identity = Identity { session, inner };
            let renewal = Renewal::new(identity.clone(), drive.reason, self.clone());
            let (result, repeatable) = match drive.request {
                None if drive.is_explicit => {
                    (Err("the request to renew by was sent, and cannot be had again".into()), false)
                }
                Some(once) => {
                    let request = *once.downcast::<Request<B>>().expect("`accept` has checked it");
                    // The next attempt sends it again, if this one fails and it can be had again.
                    let copy = self.config.clone_body.clone_request(&request);
                    let repeatable = copy.is_some();
                    if let Some(copy) = copy {
                        identity.session.gate().return_request(drive.attempt, Box::new(copy));
                    }
                    (by_request(&renewal, request).await, repeatable)
                }
                None => (self.by_rule(&renewal, &identity).await, true),
            };
            match result {
                Ok(()) if renewal.last_expired() => {
                    Err(failure("the renewed session was answered as expired".into()))
                }
                Ok(()) => {
                    if let Some(expiry_watch) = &self.config.expiry_watch {
                        expiry_watch.note(&identity.inner, &renewal.cookies());
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
    async fn by_rule(&self, renewal: &Renewal<B>, identity: &Identity) -> Result<(), BoxError> {
        match self.config.rule.as_deref() {
            Some(Rule::Steps(steps)) => steps(renewal.clone()).await,
            Some(Rule::Request(make)) => {
                let request = make().ok_or(
                    "the body of the request to renew by cannot be had again; allow it by clone_bodies or clone_body",
                )?;
                by_request(renewal, request).await
            }
            Some(Rule::SessionSource(supply)) => {
                let mut supplied = supply(renewal.session_id(), renewal.reason()).await?;
                let now = identity.session.0.context.timestamp();
                let mut jar = identity.inner.jar.lock();
                // What was added to the session while it waited is in the candidate already, and stays.
                for edit in jar.iter(now) {
                    supplied.insert(edit.clone(), now);
                }
                *jar = supplied;
                Ok(())
            }
            None => Err("no renewal rule is set".into()),
        }
    }
}

async fn by_request<B>(renewal: &Renewal<B>, request: Request<B>) -> Result<(), BoxError> {
    let (response, classified) = renewal.send_classified(request).await?;
    if classified.renewed {
        return Ok(());
    }
    Err(format!(
        "the renewal was answered with status {} and does not pass renewal_succeeds_when",
        response.status()
    )
    .into())
}
