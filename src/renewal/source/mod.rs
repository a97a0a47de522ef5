//! `SessionSource`: cookies of sessions that come from outside the stack, one session per renewal.

#[cfg(feature = "formats")]
mod command;
#[cfg(feature = "formats")]
mod directory;
mod error;
mod queue;

#[cfg(feature = "formats")]
use std::path::PathBuf;
use std::{fmt, sync::Arc, time::Duration};

use tokio::time::timeout;

#[cfg(feature = "formats")]
pub use self::{command::SessionCommand, directory::SessionDirectory};
pub use self::{
    error::{SessionSourceError, SessionSourceErrorKind},
    queue::SessionQueue,
};
use super::renewal::BoxFuture;
use crate::{
    cookies::Jar,
    gate::{BoxError, PermanentError, RenewalReason},
    session::SessionId,
};

/// Source of sessions that were collected elsewhere. A renewal takes the next one, and sends
/// nothing.
///
/// [`RenewalLayer::renew_from`](super::RenewalLayer::renew_from) makes a source the rule of a
/// layer. A source is a [queue](SessionSource::queue) that the program fills or, with the feature
/// `formats`, a directory or a command.
/// [`RenewalLayer::renew_from_fn`](super::RenewalLayer::renew_from_fn) takes sessions from anywhere
/// else. Each session is used once. Build the registry with
/// [`login_first`](crate::session::SessionsBuilder::login_first), so that the first request waits
/// for a session.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_client_sessions::{
///     RenewalLayer, SessionId, SessionLayer, Sessions,
///     cookies::{Jar, Timestamp},
///     renewal::SessionSource,
/// };
/// # type Body = http_body_util::Empty<bytes::Bytes>;
///
/// let (source, queue) = SessionSource::queue();
/// let mut jar = Jar::default();
/// jar.set("sid=collected; Path=/", "http://shop.example/", Timestamp::now())?;
/// queue.push(jar);
///
/// let sessions = Sessions::builder().login_first().build().unwrap();
/// let client = ServiceBuilder::new()
///     .layer(RenewalLayer::new(&sessions).renew_from(source))
///     .layer(SessionLayer::new(&sessions))
///     .service(service_fn(|request: http::Request<Body>| async move {
///         assert_eq!(request.headers()["cookie"], "sid=collected");
///         http::Response::builder().body(Body::new())
///     }));
/// let request = http::Request::get("http://shop.example/")
///     .extension(SessionId::from("alice"))
///     .body(Body::new())?;
/// client.oneshot(request).await?;
/// assert!(queue.is_empty());
/// # Ok::<_, tower::BoxError>(())
/// # }).unwrap();
/// ```
///
/// # Clone
///
/// Clones take sessions from the same source.
#[derive(Clone)]
#[must_use = "a source does nothing until it is given to a layer"]
pub struct SessionSource {
    source: Arc<dyn Source>,
    on_empty: OnEmpty,
}

/// What a renewal does when its source is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnEmpty {
    /// The attempt fails. The gate retries it, and waiters get the error after
    /// [`max_attempts`](crate::gate::GateConfig::max_attempts) failures. The default.
    #[default]
    Fail,
    /// The attempt waits up to this duration for the next session, and then fails. The wait also
    /// counts towards [`attempt_timeout`](crate::gate::GateConfig::attempt_timeout) and
    /// [`max_wait`](crate::gate::GateConfig::max_wait); raise them accordingly.
    Wait(Duration),
    /// The renewal fails permanently. Waiters and later requests get the error until
    /// [`renew`](crate::Session::renew), [`clear`](crate::Session::clear) or
    /// [`replace`](crate::Session::replace) is called.
    FailPermanently,
}

/// The session that is renewed, and why.
#[cfg_attr(not(feature = "formats"), expect(dead_code, reason = "a queue ignores which session is renewed"))]
struct Demand {
    session: SessionId,
    reason: RenewalReason,
}

/// What a source does when it has no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfEmpty {
    ReturnNone,
    Wait,
}

/// An implementation of a source.
trait Source: Send + Sync {
    /// Takes the next session.
    ///
    /// A future that is dropped before it is ready has taken nothing.
    fn next(self: Arc<Self>, demand: Demand, if_empty: IfEmpty) -> BoxFuture<Option<Jar>>;
}

impl SessionSource {
    /// Creates a source that takes sessions from a queue, first in, first out.
    pub fn queue() -> (Self, SessionQueue) {
        let queue = SessionQueue::new();
        (Self::new(queue.source()), queue)
    }

    /// Creates a source that takes sessions from the files of a directory. See
    /// [`SessionDirectory`].
    #[cfg(feature = "formats")]
    pub fn directory(path: impl Into<PathBuf>) -> SessionDirectory {
        SessionDirectory::new(path.into())
    }

    /// Creates a source that takes sessions from the output of a command. See [`SessionCommand`].
    #[cfg(feature = "formats")]
    pub fn command(program: impl AsRef<std::ffi::OsStr>) -> SessionCommand {
        SessionCommand::new(program.as_ref())
    }

    fn new(source: Arc<dyn Source>) -> Self {
        Self { source, on_empty: OnEmpty::default() }
    }

    /// Sets what a renewal does when the source is empty. Default: [`OnEmpty::Fail`].
    pub fn on_empty(mut self, on_empty: OnEmpty) -> Self {
        self.on_empty = on_empty;
        self
    }

    pub(super) async fn next(&self, session: SessionId, reason: RenewalReason) -> Result<Jar, BoxError> {
        let source = self.source.clone();
        let demand = Demand { session, reason };
        let next = match self.on_empty {
            OnEmpty::Wait(limit) => {
                timeout(limit, source.next(demand, IfEmpty::Wait)).await.unwrap_or(Ok(None))?
            }
            OnEmpty::Fail | OnEmpty::FailPermanently => source.next(demand, IfEmpty::ReturnNone).await?,
        };
        let empty = || SessionSourceError::new(SessionSourceErrorKind::Empty);
        next.ok_or_else(|| match self.on_empty {
            OnEmpty::FailPermanently => PermanentError::new(empty()).into(),
            _ => empty().into(),
        })
    }
}

impl fmt::Debug for SessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSource").field("on_empty", &self.on_empty).finish_non_exhaustive()
    }
}
