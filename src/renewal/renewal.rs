//! `Renewal`: a running renewal, as its rule sees it.

use std::{borrow::Cow, fmt, future::Future, pin::Pin, sync::Arc};

use http::{Request, Response, StatusCode};
use parking_lot::Mutex;

use super::{
    LoginError, RenewalBody,
    login_error::{LoginStep, Missing},
};
use crate::{
    cookies::StoredCookie,
    gate::{BoxError, PermanentError, RenewalReason},
    profile::Profile,
    session::{Identity, Session, SessionId},
};

/// A boxed future of user code or of the stack, whose type the layer cannot name.
pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// The stack below the layer, without its types.
pub(super) trait Downstream<B>: Send + Sync {
    /// Sends one request under `identity`, and classifies its response.
    fn send(&self, identity: Identity, request: Request<B>)
    -> BoxFuture<(Response<RenewalBody>, Classified)>;
}

/// How the layer classifies a response to a request of a renewal.
#[derive(Clone, Debug)]
pub(super) struct Classified {
    /// The response means that the session has expired.
    pub(super) expired: bool,
    /// The response would make a renewal with a single request succeed.
    pub(super) succeeds: bool,
    /// The path of the last page, after all redirects, including one that was not followed.
    pub(super) ended_at: String,
}

/// The requests that a renewal has sent.
#[derive(Default)]
struct Steps {
    sent: u32,
    /// The last one that got a response, with whether that means that the session has expired.
    last: Option<(LoginStep, bool)>,
}

/// A running renewal, passed to the rule of
/// [`RenewalLayer::renew_with`](super::RenewalLayer::renew_with).
///
/// [`send`](Self::send) sends requests under the candidate identity, through the stack below the
/// layer. These requests never wait at the gate. The candidate becomes the current identity if the
/// rule returns `Ok` and the last response does not mean that the session has expired. Otherwise
/// the candidate is dropped with its cookies, and the session does not change.
///
/// # Clone
///
/// Clones are the same renewal.
pub struct Renewal<B> {
    identity: Identity,
    reason: RenewalReason,
    downstream: Arc<dyn Downstream<B>>,
    steps: Arc<Mutex<Steps>>,
}

impl<B> Renewal<B> {
    pub(super) fn new(identity: Identity, reason: RenewalReason, downstream: Arc<dyn Downstream<B>>) -> Self {
        Self { identity, reason, downstream, steps: Arc::default() }
    }

    /// Sends a request under the candidate identity: with its cookies and its profile. Cookies of
    /// the response are stored in the candidate.
    ///
    /// The layer ignores the session that the request names.
    ///
    /// # Errors
    ///
    /// Returns the error of the stack below the layer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request. Cookies that were already stored stay in the
    /// candidate.
    pub async fn send(&self, request: Request<B>) -> Result<Response<RenewalBody>, BoxError> {
        self.send_classified(request).await.map(|(response, _)| response)
    }

    pub(super) async fn send_classified(
        &self,
        request: Request<B>,
    ) -> Result<(Response<RenewalBody>, Classified), BoxError> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let number = {
            let mut steps = self.steps.lock();
            steps.sent += 1;
            steps.sent
        };
        let (response, classified) = self.downstream.send(self.identity.clone(), request).await?;
        let ended_at = classified.ended_at.clone();
        let step = LoginStep { number, method, path, status: response.status(), ended_at };
        self.steps.lock().last = Some((step, classified.expired));
        Ok((response, classified))
    }

    /// Fails the renewal with `message` unless `condition` holds. The failure is permanent, so that
    /// a wrong password is tried once.
    ///
    /// It is transient if the last response has status 408, 429 or 5xx. For any other condition
    /// that a later attempt may meet, use [`ensure_transient`](Self::ensure_transient).
    ///
    /// A response alone does not prove that a login worked, and neither does a cookie that exists
    /// before the login. Use a condition that does, such as
    /// [`require_not_at`](Self::require_not_at).
    ///
    /// # Errors
    ///
    /// Returns a [`LoginError`] if `condition` is false, as the source of a [`PermanentError`] if
    /// it is permanent.
    pub fn ensure(&self, condition: bool, message: impl Into<Cow<'static, str>>) -> Result<(), BoxError> {
        self.require(condition, || Missing::Condition(message.into()))
    }

    /// Fails the renewal with `message` unless `condition` holds, and lets the gate retry.
    ///
    /// # Errors
    ///
    /// Returns a [`LoginError`] if `condition` is false.
    pub fn ensure_transient(
        &self,
        condition: bool,
        message: impl Into<Cow<'static, str>>,
    ) -> Result<(), BoxError> {
        if condition { Ok(()) } else { Err(self.error(Missing::Condition(message.into())).into()) }
    }

    /// Fails the renewal unless the candidate identity has a cookie named `name`.
    ///
    /// Many sites set the cookie of a session before the login. There it proves nothing.
    ///
    /// # Errors
    ///
    /// The same as [`ensure`](Self::ensure).
    pub fn require_cookie(&self, name: &str) -> Result<(), BoxError> {
        self.require(self.has_cookie(name), || Missing::Cookie(name.to_owned()))
    }

    /// Fails the renewal unless the last response has a status of success or redirection.
    ///
    /// Many sites respond to a wrong password with status 200 and the form. There it proves
    /// nothing.
    ///
    /// # Errors
    ///
    /// The same as [`ensure`](Self::ensure).
    pub fn require_success(&self) -> Result<(), BoxError> {
        let status = self.last().map(|step| step.status);
        self.require(status.is_some_and(is_success), || Missing::Success)
    }

    /// Fails the renewal if the last response ended at `path`, or has a status of failure.
    ///
    /// Most sites redirect after a login, and show the form again after a wrong password. The
    /// response ends at the path of the last request, or at the one that a redirect points to which
    /// no layer below has followed. Queries are ignored.
    ///
    /// # Errors
    ///
    /// The same as [`ensure`](Self::ensure).
    pub fn require_not_at(&self, path: &str) -> Result<(), BoxError> {
        let last = self.last();
        let has_left = last.as_ref().is_some_and(|step| step.ended_at != path);
        let is_success = last.is_some_and(|step| is_success(step.status));
        self.require(has_left && is_success, || {
            if has_left { Missing::Success } else { Missing::OtherPage(path.to_owned()) }
        })
    }

    /// Fails the renewal if the last response means that the session has expired.
    pub(super) fn require_live_session(&self) -> Result<(), BoxError> {
        let has_expired = self.steps.lock().last.as_ref().is_some_and(|(_, has_expired)| *has_expired);
        self.require(!has_expired, || Missing::LiveSession)
    }

    /// Fails the renewal, permanently unless the last response says otherwise.
    pub(super) fn require(&self, holds: bool, missing: impl FnOnce() -> Missing) -> Result<(), BoxError> {
        if holds {
            return Ok(());
        }
        let error = self.error(missing());
        Err(if error.is_transient() { error.into() } else { PermanentError::new(error).into() })
    }

    fn error(&self, missing: Missing) -> LoginError {
        LoginError::new(self.session_id(), self.last(), missing)
    }

    fn last(&self) -> Option<LoginStep> {
        self.steps.lock().last.as_ref().map(|(step, _)| step.clone())
    }

    /// Reason why the renewal was started.
    pub fn reason(&self) -> RenewalReason {
        self.reason
    }

    /// The session that is renewed.
    ///
    /// Its cookies and profile are those of the current identity, or of the pending one. For those
    /// of the candidate, see [`cookies`](Self::cookies) and [`profile`](Self::profile).
    pub fn session(&self) -> &Session {
        self.identity.session()
    }

    /// Returns whether another process started to renew this session and did not finish.
    ///
    /// A single-use credential, such as a refresh token, may then be used up, and a full login is
    /// needed.
    #[cfg(feature = "shared")]
    pub fn follows_interrupted(&self) -> bool {
        self.identity.session.0.is_interrupted()
    }

    /// The id of the session that is renewed.
    pub fn session_id(&self) -> &SessionId {
        self.identity.session_id()
    }

    /// Generation of the candidate identity.
    pub fn generation(&self) -> u64 {
        self.identity.generation()
    }

    /// Profile of the candidate identity.
    pub fn profile(&self) -> Option<&Profile> {
        self.identity.profile()
    }

    /// Cookies that the candidate identity has so far.
    pub fn cookies(&self) -> Vec<StoredCookie> {
        let now = self.identity.session.0.context.timestamp();
        self.identity.inner.jar.lock().iter(now).cloned().collect()
    }

    /// Returns whether the candidate identity has a cookie named `name`, for any domain and path.
    pub fn has_cookie(&self, name: &str) -> bool {
        self.cookies().iter().any(|cookie| cookie.name() == Some(name))
    }
}

fn is_success(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

impl<B> Clone for Renewal<B> {
    fn clone(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            reason: self.reason,
            downstream: self.downstream.clone(),
            steps: self.steps.clone(),
        }
    }
}

impl<B> fmt::Debug for Renewal<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("session", self.session_id())
            .field("generation", &self.generation())
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}
