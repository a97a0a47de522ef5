//! The rules of a hop: its method, its headers and its extensions.

use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::Scheme};

use crate::{
    profile::Proxy,
    renewal::ReplayBudget,
    session::{CookieMode, Identity, RequestCookies, Session, SessionId, request::SendContext},
};

/// What a redirect does to the method and the body of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The hop has the same method and body.
    Keep,
    /// The hop is a GET or HEAD without a body.
    DropBody,
}

/// Returns what a response does to its request, or `None` if it is not a redirect to follow.
pub(super) fn change(status: StatusCode, method: &Method) -> Option<Change> {
    match status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND if *method == Method::POST => {
            Some(Change::DropBody)
        }
        StatusCode::SEE_OTHER => Some(Change::DropBody),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => Some(Change::Keep),
        _ => None,
    }
}

/// Removes the headers that describe a body.
pub(super) fn remove_body_headers(headers: &mut HeaderMap) {
    for name in [
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LENGTH,
        header::CONTENT_LOCATION,
        header::CONTENT_TYPE,
        header::EXPECT,
        header::TRAILER,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
}

/// Removes what another origin must not get.
pub(super) fn cross_origin(headers: &mut HeaderMap, from: &Uri, to: &Uri) {
    for name in [
        header::AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::PROXY_AUTHORIZATION,
        header::WWW_AUTHENTICATE,
    ] {
        headers.remove(name);
    }
    headers.remove("cookie2");
    let sensitive: Vec<_> =
        headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(name, _)| name.clone()).collect();
    for name in sensitive {
        headers.remove(name);
    }
    if let Some(referer) = headers.remove(header::REFERER)
        && !(from.scheme() == Some(&Scheme::HTTPS) && to.scheme() == Some(&Scheme::HTTP))
        && let Some(origin) = origin(&referer)
    {
        headers.insert(header::REFERER, origin);
    }
}

/// The origin of a URL, as a `Referer`.
fn origin(url: &HeaderValue) -> Option<HeaderValue> {
    let uri = Uri::try_from(url.as_bytes()).ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    let origin = match uri.port() {
        Some(port) => format!("{scheme}://{host}:{port}/"),
        None => format!("{scheme}://{host}/"),
    };
    origin.try_into().ok()
}

/// Returns the extensions that another origin may get: those of this crate.
pub(super) fn own_extensions(extensions: &Extensions) -> Extensions {
    fn copy<T: Clone + Send + Sync + 'static>(from: &Extensions, to: &mut Extensions) {
        if let Some(extension) = from.get::<T>() {
            to.insert(extension.clone());
        }
    }
    let mut own = Extensions::new();
    copy::<CookieMode>(extensions, &mut own);
    copy::<Identity>(extensions, &mut own);
    copy::<Proxy>(extensions, &mut own);
    copy::<ReplayBudget>(extensions, &mut own);
    copy::<SendContext>(extensions, &mut own);
    copy::<Session>(extensions, &mut own);
    copy::<SessionId>(extensions, &mut own);
    own
}

/// Removes the extensions that apply to the first URL only.
pub(super) fn remove_first_only(extensions: &mut Extensions) {
    extensions.remove::<RequestCookies>();
}
