//! Who of those that can serve is to serve a request.

use std::fmt;

use http::{Extensions, HeaderMap, Method, Request, Uri};

use super::ready::SelectionOrder;
use crate::session::SessionId;

/// How a pool chooses among the sessions that can serve at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The one that was used longest ago. The pool is filled by its first requests. The default.
    #[default]
    RoundRobin,
    /// Any of them. The pool is filled by its first requests.
    Random,
    /// The one with the fewest requests on their way. The pool grows by a request that finds nobody idle.
    LeastLoaded,
    /// The same one until it is retired or cannot take more. The pool grows by a request that finds nobody free.
    FillFirst,
}

impl From<Strategy> for SelectionOrder {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::RoundRobin => Self::RoundRobin,
            Strategy::Random => Self::Random,
            Strategy::LeastLoaded => Self::LeastLoaded,
            Strategy::FillFirst => Self::FillFirst,
        }
    }
}

/// A strategy of your own, for [`pick_with`](super::SessionPoolBuilder::pick_with).
///
/// It runs in the task of the request and under no lock. When the session that it chose has been given to another in the
/// meantime, or cannot serve after all, the pool takes another one; a request that waits gets whichever becomes free first.
///
/// ```
/// use tower_client_sessions::pool::{RequestView, MemberView, Picker};
///
/// /// The one with the cleanest record.
/// struct Cleanest;
///
/// impl Picker for Cleanest {
///     fn pick(&self, _request: &RequestView<'_>, candidates: &[MemberView]) -> Option<usize> {
///         let record = |index: &usize| candidates[*index].score();
///         (0..candidates.len()).min_by(|one, other| record(one).total_cmp(&record(other)))
///     }
/// }
/// ```
pub trait Picker: Send + Sync + 'static {
    /// The position of the candidate to use. `None`, or one that is out of range, leaves it to the pool.
    ///
    /// There are at least two candidates, the one that was used longest ago first.
    fn pick(&self, request: &RequestView<'_>, candidates: &[MemberView]) -> Option<usize>;
}

/// The request that a session is chosen for. A lease that was asked for by [`lease`](super::SessionPool::lease) has none.
#[derive(Clone, Copy)]
pub struct RequestView<'a>(Option<Parts<'a>>);

#[derive(Clone, Copy)]
struct Parts<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> RequestView<'a> {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        Self(Some(Parts {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }))
    }

    /// The request's method.
    pub fn method(&self) -> Option<&'a Method> {
        self.0.map(|parts| parts.method)
    }

    /// The request's URI.
    pub fn uri(&self) -> Option<&'a Uri> {
        self.0.map(|parts| parts.uri)
    }

    /// The request's headers.
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        self.0.map(|parts| parts.headers)
    }

    /// The request's extensions.
    pub fn extensions(&self) -> Option<&'a Extensions> {
        self.0.map(|parts| parts.extensions)
    }

    /// The host that the request goes to.
    pub fn host(&self) -> Option<&'a str> {
        self.uri()?.host()
    }
}

/// Without the query of the URI and without headers, which may hold secrets.
impl fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("method", &self.method())
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

/// A session that can serve at once, as [`Picker`] sees it.
#[derive(Clone, Debug)]
pub struct MemberView {
    pub(crate) id: SessionId,
    pub(crate) in_use: usize,
    pub(crate) uses: u64,
    pub(crate) score: f64,
}

impl MemberView {
    /// The session's name.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Its requests on their way.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// How often it was leased.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// Its score: what bad marks have added and good ones have healed.
    pub fn score(&self) -> f64 {
        self.score
    }
}
