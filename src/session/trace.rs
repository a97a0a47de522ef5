//! Cookies as they are shown in traces: without their values, unless the user asked for them.

use http::HeaderValue;
use tracing::{Level, debug, enabled};

use super::Identity;
use crate::cookies::{CookieError, Target};

/// The target of all events about cookies.
const TARGET: &str = "tower_client_sessions::cookies";

/// A request leaves with cookies.
pub(crate) fn sent(identity: &Identity, target: &Target<'_>, header: &HeaderValue) {
    if enabled!(target: TARGET, Level::DEBUG) {
        let (session, generation, host) = (identity.session_id(), identity.generation(), target.host());
        let cookies = shown_header(identity, header);
        debug!(target: TARGET, %session, generation, host, cookies, "cookies sent");
    }
}

/// A response has set or deleted a cookie.
pub(crate) fn received(identity: &Identity, target: &Target<'_>, header: &HeaderValue) {
    if enabled!(target: TARGET, Level::DEBUG) {
        let (session, generation, host) = (identity.session_id(), identity.generation(), target.host());
        let cookie = shown_set_cookie(identity, header);
        debug!(target: TARGET, %session, generation, host, cookie, "cookie received");
    }
}

/// A response's cookie was refused; the error never has its value.
pub(crate) fn refused(identity: &Identity, target: &Target<'_>, error: &CookieError) {
    let (session, generation, host) = (identity.session_id(), identity.generation(), target.host());
    debug!(target: TARGET, %session, generation, host, %error, "cookie refused");
}

/// The names in a `Cookie` header, with values only where they are wanted.
fn shown_header(identity: &Identity, header: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(header.as_bytes());
    if identity.session.0.shared.show_values {
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
    if identity.session.0.shared.show_values {
        return text.into_owned();
    }
    let mut parts = text.split(';');
    let name = parts.next().and_then(|pair| pair.split_once('=')).map_or("", |(name, _)| name.trim());
    let attributes = parts
        .map(|attribute| attribute.split('=').next().unwrap_or("").trim())
        .filter(|attribute| KNOWN.iter().any(|known| attribute.eq_ignore_ascii_case(known)));
    attributes.fold(format!("{name}=…"), |shown, attribute| shown + "; " + attribute)
}
