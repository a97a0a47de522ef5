//! Which of the ready members serves a request.

use std::fmt;

use http::{Extensions, HeaderMap, Method, Request, Uri};

use super::ready::SelectionOrder;
use crate::session::SessionId;

/// How a pool selects among the members that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The member that was used longest ago. The first requests fill the pool.
    #[default]
    RoundRobin,
    /// A random member. The first requests fill the pool.
    Random,
    /// The member with the fewest requests in flight. The pool grows when no member is idle.
    LeastLoaded,
    /// The same member until it is retired or at its limit. The pool grows when no member is free.
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

/// A custom strategy, for [`pick_with`](super::SessionPoolBuilder::pick_with).
///
/// It is called in the task of the request, and not under a lock. If the picked member cannot serve
/// by then, the pool selects another one; a request that has to wait gets the first member that
/// becomes free.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::pool::{MemberView, Picker, RequestView};
///
/// /// Picks the member with the lowest score.
/// struct LowestScore;
///
/// impl Picker for LowestScore {
///     fn pick(&self, _request: &RequestView<'_>, candidates: &[MemberView]) -> Option<usize> {
///         let score = |index: &usize| candidates[*index].score();
///         (0..candidates.len()).min_by(|one, other| score(one).total_cmp(&score(other)))
///     }
/// }
/// ```
pub trait Picker: Send + Sync + 'static {
    /// Returns the index of the candidate to use. `None`, or an index out of range, leaves the
    /// selection to the pool.
    ///
    /// There are at least two candidates; the first is the one that was used longest ago.
    fn pick(&self, request: &RequestView<'_>, candidates: &[MemberView]) -> Option<usize>;
}

/// The request for which a member is selected. All fields are `None` for
/// [`SessionPool::lease`](super::SessionPool::lease).
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

    /// Returns the method of the request.
    pub fn method(&self) -> Option<&'a Method> {
        self.0.map(|parts| parts.method)
    }

    /// Returns the URI of the request.
    pub fn uri(&self) -> Option<&'a Uri> {
        self.0.map(|parts| parts.uri)
    }

    /// Returns the headers of the request.
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        self.0.map(|parts| parts.headers)
    }

    /// Returns the extensions of the request.
    pub fn extensions(&self) -> Option<&'a Extensions> {
        self.0.map(|parts| parts.extensions)
    }

    /// Returns the host of the request's URI.
    pub fn host(&self) -> Option<&'a str> {
        self.uri()?.host()
    }
}

/// Omits the query of the URI and the headers, which may contain secrets.
impl fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestView")
            .field("method", &self.method())
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

/// A member that is ready, as seen by a [`Picker`].
#[derive(Clone, Debug)]
pub struct MemberView {
    pub(crate) id: SessionId,
    pub(crate) in_use: usize,
    pub(crate) uses: u64,
    pub(crate) score: f64,
}

impl MemberView {
    /// Returns the name of its session.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns the number of its requests in flight.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Returns how often it was leased.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// Returns its score: raised by bad marks, reduced by good ones.
    pub fn score(&self) -> f64 {
        self.score
    }
}
