//! Sessions that were collected elsewhere, one for each renewal.

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
use super::rule::BoxFuture;
use crate::{
    cookies::Jar,
    gate::{BoxError, PermanentError, RenewalReason},
    session::SessionId,
};

/// Where sessions collected elsewhere come from: a renewal takes the next one, and nothing is sent.
///
/// [`RenewalLayer::supply`](super::RenewalLayer::supply) makes it the rule. There are a [queue](SessionSource::queue) that the program
/// feeds, and with the feature `formats` a folder and a command; [`RenewalLayer::renew_from_fn`](super::RenewalLayer::renew_from_fn)
/// takes them from anywhere else. Each is used once. Give the layer [`login_first`](crate::session::SessionsBuilder::login_first)
/// sessions, so that the first request waits for the first of them.
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
/// let (supply, queue) = SessionSource::queue();
/// let mut jar = Jar::default();
/// jar.set("sid=collected; Path=/", "http://shop.example/", Timestamp::now())?;
/// queue.push(jar);
///
/// let sessions = Sessions::builder().login_first().build().unwrap();
/// let client = ServiceBuilder::new()
///     .layer(RenewalLayer::new(&sessions).supply(supply))
///     .layer(SessionLayer::new(&sessions))
///     .service(service_fn(|request: http::Request<Body>| async move {
///         assert_eq!(request.headers()["cookie"], "sid=collected");
///         http::Response::builder().body(Body::new())
///     }));
/// let request = http::Request::get("http://shop.example/").extension(SessionId::from("alice")).body(Body::new())?;
/// client.oneshot(request).await?;
/// assert!(queue.is_empty());
/// # Ok::<_, tower::BoxError>(())
/// # }).unwrap();
/// ```
///
/// # Clone
///
/// Clones take from the same source.
#[derive(Clone)]
pub struct SessionSource {
    source: Arc<dyn Source>,
    on_empty: OnEmpty,
}

/// What a renewal does when there is nothing left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnEmpty {
    /// The attempt fails; the gate tries again by its own rules, and tells those who wait when it has tried often enough.
    #[default]
    Fail,
    /// The attempt waits for the next one, so long at most, and then fails. The gate's attempt deadline and hold deadline bound
    /// the wait as well: give it as much.
    Wait(Duration),
    /// The renewal is refused: those who wait are told at once, and so is everybody after them until
    /// [`renew`](crate::Session::renew), [`clear`](crate::Session::clear) or [`replace`](crate::Session::replace) is called.
    Refuse,
}

/// Who wants a session, and why.
#[cfg_attr(not(feature = "formats"), expect(dead_code, reason = "a queue gives to everybody alike"))]
pub(super) struct Demand {
    pub(super) session: SessionId,
    pub(super) reason: RenewalReason,
}

/// What sessions are taken from.
pub(super) trait Source: Send + Sync {
    /// Takes the next one; `None` if there is none. With `wait`, waits until there is.
    ///
    /// Dropped before it is ready, it has taken nothing.
    fn next(self: Arc<Self>, demand: Demand, wait: bool) -> BoxFuture<Option<Jar>>;
}

impl SessionSource {
    /// A queue that the program feeds, first in, first out.
    pub fn queue() -> (Self, SessionQueue) {
        let queue = SessionQueue::new();
        (Self::new(queue.source()), queue)
    }

    /// The files of a folder, each used once: see [`SessionDirectory`].
    #[cfg(feature = "formats")]
    pub fn directory(path: impl Into<PathBuf>) -> SessionDirectory {
        SessionDirectory::new(path.into())
    }

    /// A command that prints cookies: see [`SessionCommand`].
    #[cfg(feature = "formats")]
    pub fn command(program: impl AsRef<std::ffi::OsStr>) -> SessionCommand {
        SessionCommand::new(program.as_ref())
    }

    fn new(source: Arc<dyn Source>) -> Self {
        Self { source, on_empty: OnEmpty::default() }
    }

    /// Sets what happens when there is nothing left. Default: [`OnEmpty::Fail`].
    #[must_use]
    pub fn on_empty(mut self, on_empty: OnEmpty) -> Self {
        self.on_empty = on_empty;
        self
    }

    pub(super) async fn next(&self, session: SessionId, reason: RenewalReason) -> Result<Jar, BoxError> {
        let source = self.source.clone();
        let demand = Demand { session, reason };
        let next = match self.on_empty {
            OnEmpty::Wait(bound) => timeout(bound, source.next(demand, true)).await.unwrap_or(Ok(None))?,
            OnEmpty::Fail | OnEmpty::Refuse => source.next(demand, false).await?,
        };
        let empty = || SessionSourceError::new(SessionSourceErrorKind::Empty);
        next.ok_or_else(|| match self.on_empty {
            OnEmpty::Refuse => PermanentError::new(empty()).into(),
            _ => empty().into(),
        })
    }
}

impl fmt::Debug for SessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supply").field("on_empty", &self.on_empty).finish_non_exhaustive()
    }
}
