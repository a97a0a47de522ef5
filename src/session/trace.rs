//! Spans and events of `tracing`. Values of cookies are shown only with `trace_cookie_values`.

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

/// A span in the size of a pointer, because waiting requests have several. Empty if the span is
/// disabled.
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

/// The span of a request in a renewal layer. Omits the query of the URI, which may contain secrets.
pub(crate) fn request(session: &SessionId, method: &Method, uri: &Uri) -> Span {
    debug_span!(target: REQUEST, "request", %session, %method, host = uri.host(), path = uri.path())
}

/// The span of a wait at the gate.
pub(crate) fn wait() -> Span {
    debug_span!(target: REQUEST, "wait")
}

/// The span of one send, from the call of the inner service until the response.
pub(crate) fn send(generation: u64) -> Span {
    debug_span!(target: REQUEST, "send", generation)
}

/// The span of a renewal. It follows from the span in which the renewal was started.
pub(super) fn renewal(session: &SessionId, attempt: &AttemptContext<SessionInner>) -> Span {
    let (generation, reason) = (attempt.generation.get(), attempt.reason);
    let span = debug_span!(target: RENEWAL, "renewal", %session, generation, ?reason);
    if !span.is_disabled() {
        span.follows_from(&attempt.cause);
    }
    span
}

/// Reports a change of a session's identity or renewal.
pub(super) fn changed(session: &SessionId, kind: &EventKind) {
    match kind {
        EventKind::RenewalStarted { generation, reason } => {
            debug!(target: RENEWAL, %session, generation, ?reason, "renewal started");
        }
        EventKind::RenewalCommitted { generation, took } => {
            debug!(target: RENEWAL, %session, generation, ?took, "renewal committed");
        }
        EventKind::RenewalFailed { generation, error, took } => {
            debug!(target: RENEWAL, %session, generation, ?error, ?took, "renewal failed");
        }
        EventKind::RenewalAbandoned { generation, took } => {
            debug!(target: RENEWAL, %session, generation, ?took, "renewal abandoned");
        }
        EventKind::VerificationStarted { generation } => {
            debug!(target: RENEWAL, %session, generation, "verification started")
        }
        EventKind::Activated { generation } => {
            debug!(target: RENEWAL, %session, generation, "identity activated")
        }
        EventKind::Invalidated { generation } => {
            debug!(target: RENEWAL, %session, generation, "identity invalidated")
        }
        _ => {}
    }
}

/// Reports the cookies of a request.
pub(super) fn sent(identity: &Identity, uri: &Uri, header: &HeaderValue) {
    if enabled!(target: TARGET, Level::DEBUG) {
        let url = CookieUrl::from_uri(uri);
        let host = url.as_ref().map_or("", CookieUrl::host);
        let (session, generation) = (identity.session_id(), identity.generation());
        let cookies = shown_header(identity, header);
        debug!(target: TARGET, %session, generation, host, cookies, "cookies sent");
    }
}

/// Reports a cookie that a response has set or deleted.
pub(super) fn received(identity: &Identity, url: &CookieUrl<'_>, header: &HeaderValue) {
    if enabled!(target: TARGET, Level::DEBUG) {
        let (session, generation, host) = (identity.session_id(), identity.generation(), url.host());
        let cookie = shown_set_cookie(identity, header);
        debug!(target: TARGET, %session, generation, host, cookie, "cookie received");
    }
}

/// Reports a rejected cookie of a response. The error never contains its value.
pub(super) fn rejected(identity: &Identity, url: &CookieUrl<'_>, error: &CookieError) {
    let (session, generation, host) = (identity.session_id(), identity.generation(), url.host());
    debug!(target: TARGET, %session, generation, host, %error, "cookie rejected");
}

/// A `Cookie` header, without values unless the configuration shows them.
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

/// A `Set-Cookie` header as the names of its cookie and known attributes, or in full if the
/// configuration shows values.
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
