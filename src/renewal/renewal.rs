//! `Renewal`: a running renewal, as its rule sees it.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Request, Response};

use super::RenewalBody;
use crate::{
    cookies::StoredCookie,
    gate::{BoxError, RenewalReason},
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Classified {
    /// The response means that the session has expired.
    pub(super) expired: bool,
    /// The response would make a renewal with a single request succeed.
    pub(super) succeeds: bool,
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
    last_expired: Arc<AtomicBool>,
}

impl<B> Renewal<B> {
    pub(super) fn new(identity: Identity, reason: RenewalReason, downstream: Arc<dyn Downstream<B>>) -> Self {
        Self { identity, reason, downstream, last_expired: Arc::default() }
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
        let sent = self.downstream.send(self.identity.clone(), request).await?;
        self.last_expired.store(sent.1.expired, Ordering::Relaxed);
        Ok(sent)
    }

    /// Returns an error with `message` unless `condition` holds, so that the renewal fails.
    ///
    /// A response alone does not prove that a login worked. Use a condition that does.
    ///
    /// # Errors
    ///
    /// Returns `message` as an error if `condition` is false.
    pub fn ensure(&self, condition: bool, message: impl Into<Cow<'static, str>>) -> Result<(), BoxError> {
        if condition { Ok(()) } else { Err(message.into().into()) }
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

    pub(super) fn last_expired(&self) -> bool {
        self.last_expired.load(Ordering::Relaxed)
    }
}

impl<B> Clone for Renewal<B> {
    fn clone(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            reason: self.reason,
            downstream: self.downstream.clone(),
            last_expired: self.last_expired.clone(),
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
