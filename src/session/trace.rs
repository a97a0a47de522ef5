//! What is traced. Cookies are shown without their values, unless the user asked for them.

use http::{HeaderValue, Method, Uri};
use tracing::{Level, Span, debug, debug_span, enabled, span::Entered};

use super::{EventKind, Identity, SessionId, SessionInner};
use crate::{
    cookies::{CookieError, CookieUrl},
    gate::AttemptContext,
};

/// The target of all events about cookies.
const TARGET: &str = "tower_client_sessions::cookies";

/// The target of the spans and events of requests.
pub(crate) const REQUEST: &str = "tower_client_sessions::request";

/// The target of the spans and events of renewals.
const RENEWAL: &str = "tower_client_sessions::renewal";

/// A span that takes the room of a pointer, since a request that waits has several: nothing where nobody listens.
pub(crate) struct Scope(Option<Box<Span>>);

impl Scope {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn new(span: Span) -> Self {
        Self((!span.is_disabled()).then(|| Box::new(span)))
    }

    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        self.0.as_ref().map(|span| span.enter())
    }

    pub(crate) fn in_scope<T>(&self, run: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        run()
    }
}

/// A request on its way through a renewal layer. The query of its URI may hold secrets, and is left away.
pub(crate) fn request(session: &SessionId, method: &Method, uri: &Uri) -> Span {
    debug_span!(target: REQUEST, "request", %session, %method, host = uri.host(), path = uri.path())
}

/// A request while it waits at the gate.
pub(crate) fn wait() -> Span {
    debug_span!(target: REQUEST, "wait")
}

/// A request, or one of a renewal, from the moment when it is handed to the service below until its answer.
pub(crate) fn send(generation: u64) -> Span {
    debug_span!(target: REQUEST, "send", generation)
}

/// A renewal, which follows from what has started it.
pub(super) fn renewal(session: &SessionId, drive: &AttemptContext<SessionInner>) -> Span {
    let (generation, reason) = (drive.generation, drive.reason);
    let span = debug_span!(target: RENEWAL, "renewal", %session, generation, ?reason);
    if !span.is_disabled() {
        span.follows_from(&drive.cause);
    }
    span
}

/// A session's identity or renewal has changed.
pub(super) fn changed(session: &SessionId, kind: &EventKind) {
    match kind {
        EventKind::RenewalStarted { generation, reason } => {
            debug!(target: RENEWAL, %session, generation, ?reason, "renewal started");
        }
        EventKind::RenewalCommitted { generation, took } => {
            debug!(target: RENEWAL, %session, generation, ?took, "renewal succeeded");
        }
        EventKind::RenewalFailed { generation, error, took } => {
            debug!(target: RENEWAL, %session, generation, ?error, ?took, "renewal failed");
        }
        EventKind::RenewalAbandoned { generation, took } => {
            debug!(target: RENEWAL, %session, generation, ?took, "renewal abandoned");
        }
        EventKind::Activated { generation } => {
            debug!(target: RENEWAL, %session, generation, "identity current")
        }
        EventKind::Invalidated { generation } => {
            debug!(target: RENEWAL, %session, generation, "identity ended")
        }
        _ => {}
    }
}

/// A request leaves with cookies.
pub(crate) fn sent(identity: &Identity, uri: &Uri, header: &HeaderValue) {
    if enabled!(target: TARGET, Level::DEBUG) {
        let target = CookieUrl::from_uri(uri);
        let host = target.as_ref().map_or("", CookieUrl::host);
        let (session, generation) = (identity.session_id(), identity.generation());
        let cookies = shown_header(identity, header);
        debug!(target: TARGET, %session, generation, host, cookies, "cookies sent");
    }
}

/// A response has set or deleted a cookie.
pub(crate) fn received(identity: &Identity, target: &CookieUrl<'_>, header: &HeaderValue) {
    if enabled!(target: TARGET, Level::DEBUG) {
        let (session, generation, host) = (identity.session_id(), identity.generation(), target.host());
        let cookie = shown_set_cookie(identity, header);
        debug!(target: TARGET, %session, generation, host, cookie, "cookie received");
    }
}

/// A response's cookie was refused; the error never has its value.
pub(crate) fn refused(identity: &Identity, target: &CookieUrl<'_>, error: &CookieError) {
    let (session, generation, host) = (identity.session_id(), identity.generation(), target.host());
    debug!(target: TARGET, %session, generation, host, %error, "cookie refused");
}

/// The names in a `Cookie` header, with values only where they are wanted.
fn shown_header(identity: &Identity, header: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(header.as_bytes());
    if identity.session.0.context.trace_cookie_values {
        return text.into_owned();
    }
    let names = text.split("; ").map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=…"),
        None => String::from("…"),
    });
    names.collect::<Vec<_>>().join("; ")
}

/// A `Set-Cookie` header as the names of its cookie and of the attributes it knows; all of it only where values are wanted.
fn shown_set_cookie(identity: &Identity, header: &HeaderValue) -> String {
    const KNOWN: [&str; 8] =
        ["domain", "path", "expires", "max-age", "secure", "httponly", "samesite", "partitioned"];
    let text = String::from_utf8_lossy(header.as_bytes());
    if identity.session.0.context.trace_cookie_values {
        return text.into_owned();
    }
    let mut parts = text.split(';');
    let name = parts.next().and_then(|pair| pair.split_once('=')).map_or("", |(name, _)| name.trim());
    let attributes = parts
        .map(|attribute| attribute.split('=').next().unwrap_or("").trim())
        .filter(|attribute| KNOWN.iter().any(|known| attribute.eq_ignore_ascii_case(known)));
    attributes.fold(format!("{name}=…"), |shown, attribute| shown + "; " + attribute)
}
