//! `Renewal`: one running renewal, as its rule sees it.

use std::{
    borrow::Cow,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use super::rule::BoxFuture;
use crate::{
    cookies::StoredCookie,
    gate::{BoxError, RenewalReason},
    profile::Profile,
    session::{Identity, Session, SessionId},
};

/// What a renewal sends through: the stack below the gate, erased.
pub(crate) trait Downstream<B>: Send + Sync {
    /// Sends one request under `identity`. `Sent::expired` says how the layer would classify its answer.
    fn send(&self, identity: Identity, request: Request<B>)
    -> BoxFuture<(Response<RenewalBody>, Classified)>;
}

/// What the layer thinks of an answer to a renewal's request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Classified {
    /// It says that the session has expired.
    pub(crate) expired: bool,
    /// It would do as the answer to a renewal of one request.
    pub(crate) renewed: bool,
}

/// One renewal under way, as the rule of [`RenewalLayer::renew_with`](super::RenewalLayer::renew_with) gets it.
///
/// Its requests go under the candidate identity, through the stack below the gate; they never wait at the gate. The candidate
/// becomes the session's identity if the rule ends in `Ok`, and the answer to the last request does not say that the session has
/// expired. Otherwise it is dropped with its cookies, and nothing was touched.
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
    pub(crate) fn new(identity: Identity, reason: RenewalReason, downstream: Arc<dyn Downstream<B>>) -> Self {
        Self { identity, reason, downstream, last_expired: Arc::default() }
    }

    /// Sends a request under the candidate identity: with its cookies and its profile, storing what the answer sets.
    ///
    /// Which session the request names does not matter.
    ///
    /// # Errors
    ///
    /// What the stack below the gate makes of it.
    pub async fn send(&self, request: Request<B>) -> Result<Response<RenewalBody>, BoxError> {
        self.send_classified(request).await.map(|(response, _)| response)
    }

    pub(crate) async fn send_classified(
        &self,
        request: Request<B>,
    ) -> Result<(Response<RenewalBody>, Classified), BoxError> {
        let sent = self.downstream.send(self.identity.clone(), request).await?;
        self.last_expired.store(sent.1.expired, Ordering::Relaxed);
        Ok(sent)
    }

    /// Returns an error with `message` unless `condition` holds, so that the renewal fails.
    ///
    /// A response alone does not mean that a login worked; state here what proves that it did.
    ///
    /// # Errors
    ///
    /// If `condition` is false.
    pub fn ensure(&self, condition: bool, message: impl Into<Cow<'static, str>>) -> Result<(), BoxError> {
        if condition { Ok(()) } else { Err(message.into().into()) }
    }

    /// Why the renewal was started.
    pub fn reason(&self) -> RenewalReason {
        self.reason
    }

    /// The session being renewed. Its cookies and profile are those it has now, or is about to have; the candidate's are
    /// [`cookies`](Self::cookies) and [`profile`](Self::profile).
    pub fn session(&self) -> &Session {
        self.identity.session()
    }

    /// Whether somebody else in the fleet began to renew this session and did not end: whatever can be used once, such as a
    /// refresh token, may be used up, and a full login is in place.
    #[cfg(feature = "shared")]
    pub fn follows_interrupted(&self) -> bool {
        self.identity.session.0.is_interrupted()
    }

    /// The name of the session being renewed.
    pub fn session_id(&self) -> &SessionId {
        self.identity.session_id()
    }

    /// The generation that the session will have.
    pub fn generation(&self) -> u64 {
        self.identity.generation()
    }

    /// The profile that the session will have.
    pub fn profile(&self) -> Option<&Profile> {
        self.identity.profile()
    }

    /// The cookies of the candidate identity so far.
    pub fn cookies(&self) -> Vec<StoredCookie> {
        let now = self.identity.session.0.context.timestamp();
        self.identity.inner.jar.lock().iter(now).cloned().collect()
    }

    /// Whether the candidate identity has a cookie of this name, for whatever domain and path.
    pub fn has_cookie(&self, name: &str) -> bool {
        self.cookies().iter().any(|cookie| cookie.name() == Some(name))
    }

    pub(crate) fn last_expired(&self) -> bool {
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

/// The body of an answer to a renewal's request, whatever body the stack answers with.
pub struct RenewalBody(UnsyncBoxBody<Bytes, BoxError>);

impl RenewalBody {
    pub(crate) fn new<R>(body: R) -> Self
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }

    /// Reads the body whole.
    ///
    /// # Errors
    ///
    /// If it is longer than `limit` bytes, or cannot be read.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, BoxError> {
        // By hand: a future that holds http-body-util's `Limited` over a boxed error cannot be shown to be `Send`, and a rule's
        // has to be.
        let mut body = self.0;
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if limit - whole.len() < data.len() {
                return Err(format!("the body of the answer is longer than {limit} bytes").into());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    /// Reads the body whole, as text; what is not UTF-8 is replaced.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub async fn text(self, limit: usize) -> Result<String, BoxError> {
        let bytes = self.bytes(limit).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Body for RenewalBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for RenewalBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewalBody")
    }
}
