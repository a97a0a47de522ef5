//! What is kept of a request until its response arrives.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts};
use smallvec::SmallVec;

use crate::session::{Session, SessionId, request::SendContext};

/// Headers that are kept without an allocation.
const INLINE_HEADERS: usize = 8;

/// The head of a request, in a form that costs little to make and to drop.
///
/// A clone of the header map takes two allocations, and one of the extensions at least three.
#[derive(Debug)]
pub(super) struct KeptHead {
    method: Method,
    uri: Uri,
    version: Version,
    headers: SmallVec<[(HeaderName, HeaderValue); INLINE_HEADERS]>,
    extensions: KeptExtensions,
}

impl KeptHead {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            extensions: KeptExtensions::of(request.extensions()),
        }
    }

    /// Makes a head that can be changed and sent.
    pub(super) fn into_parts(self) -> Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method;
        parts.uri = self.uri;
        parts.version = self.version;
        parts.headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in self.headers {
            parts.headers.append(name, value);
        }
        parts.extensions = self.extensions.into_extensions();
        parts
    }
}

/// The extensions of a request. Those that select a session are kept without an allocation.
#[derive(Debug)]
enum KeptExtensions {
    Selection { context: Option<SendContext>, id: Option<SessionId>, session: Option<Session> },
    All(Extensions),
}

impl KeptExtensions {
    fn of(extensions: &Extensions) -> Self {
        let mut left = extensions.len();
        let context = find::<SendContext>(extensions, &mut left);
        let id = find::<SessionId>(extensions, &mut left);
        let session = find::<Session>(extensions, &mut left);
        if left > 0 {
            return Self::All(extensions.clone());
        }
        Self::Selection { context: context.cloned(), id: id.cloned(), session: session.cloned() }
    }

    fn into_extensions(self) -> Extensions {
        let mut extensions = Extensions::new();
        match self {
            Self::All(all) => return all,
            Self::Selection { context, id, session } => {
                if let Some(context) = context {
                    extensions.insert(context);
                }
                if let Some(id) = id {
                    extensions.insert(id);
                }
                if let Some(session) = session {
                    extensions.insert(session);
                }
            }
        }
        extensions
    }
}

/// Looks up an extension, unless all that exist were found.
fn find<'e, T: Send + Sync + 'static>(extensions: &'e Extensions, left: &mut usize) -> Option<&'e T> {
    if *left == 0 {
        return None;
    }
    let found = extensions.get();
    *left -= usize::from(found.is_some());
    found
}
