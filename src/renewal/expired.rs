//! When an answer means that the session has expired.

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::PeekedBody;
use crate::cookies::StoredCookie;

/// The head of an answer, with what is known about its way here.
#[derive(Clone, Copy)]
pub struct ResponseView<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) extensions: &'a Extensions,
    pub(crate) requested: &'a Uri,
    pub(crate) served: &'a Uri,
    pub(crate) cookies: &'a [StoredCookie],
}

impl<'a> ResponseView<'a> {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The extensions of the response.
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }

    /// The URI that the caller asked for.
    pub fn request_uri(&self) -> &'a Uri {
        self.requested
    }

    /// The URI that was finally served, after redirects.
    pub fn final_uri(&self) -> &'a Uri {
        self.served
    }

    /// The cookies that this answer set, those of redirects on the way included.
    pub fn cookies(&self) -> &'a [StoredCookie] {
        self.cookies
    }

    /// Whether this answer set a cookie of this name.
    pub fn sets_cookie(&self, name: &str) -> bool {
        self.cookies.iter().any(|cookie| cookie.name() == Some(name))
    }

    /// The beginning of the body, if a [`PeekLayer`](super::PeekLayer) below has looked at it.
    pub fn body_prefix(&self) -> Option<&'a [u8]> {
        self.extensions.get::<PeekedBody>().map(|peeked| &*peeked.0)
    }

    /// Where a redirect points to, if this answer is one.
    fn location_path(&self) -> Option<String> {
        if !self.status.is_redirection() {
            return None;
        }
        let location = self.headers.get(header::LOCATION)?.to_str().ok()?;
        Some(resolve_path(location, self.served.path()))
    }
}

/// The path that a `Location` means, seen from `base` (RFC 3986, section 5.2).
fn resolve_path(location: &str, base: &str) -> String {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let reference = &location[..end];
    let after_scheme = match reference.split_once(':') {
        Some((scheme, rest)) if !scheme.contains('/') && rest.starts_with("//") => rest,
        _ => reference,
    };
    let path = match after_scheme.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => after_scheme,
    };
    if path.is_empty() {
        return base.to_owned();
    }
    let directory =
        if path.starts_with('/') { "" } else { &base[..=base.rfind('/').unwrap_or(0).min(base.len() - 1)] };
    let mut segments: Vec<&str> = Vec::new();
    let whole = format!("{directory}{path}");
    for segment in whole.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    if whole.ends_with("/.") || whole.ends_with("/..") {
        segments.push("");
    }
    format!("/{}", segments.join("/"))
}

impl fmt::Debug for ResponseView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A test of answers: does this one mean that the session has expired?
///
/// ```
/// use tower_client_sessions::renewal::Expired;
///
/// let expired = Expired::status([401, 403])
///     .or(Expired::redirect_to("/login"))
///     .or(Expired::header("x-session", "expired"));
/// # let _ = expired;
/// ```
///
/// # Clone
///
/// Clones share closures.
#[derive(Clone)]
pub struct Expired(Arc<dyn Fn(&ResponseView<'_>) -> bool + Send + Sync>);

impl Expired {
    /// Matches what `test` says.
    pub fn from_fn(test: impl Fn(&ResponseView<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(test))
    }

    /// Matches answers with one of these status codes.
    pub fn status(codes: impl IntoIterator<Item = u16>) -> Self {
        let codes: Vec<u16> = codes.into_iter().collect();
        Self::from_fn(move |answer| codes.contains(&answer.status.as_u16()))
    }

    /// Matches answers that have this header with this value, byte for byte. The name is not case-sensitive.
    ///
    /// A name that cannot be a header's matches nothing.
    pub fn header(name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        let holds = move |found: &HeaderValue| found.as_bytes() == value.as_slice();
        Self::from_fn(move |answer| answer.headers.get_all(name.as_str()).iter().any(&holds))
    }

    /// Matches a redirect to this path, or, where redirects are followed below, an answer that was finally served from it
    /// although the caller did not ask for it. Queries are not looked at.
    pub fn redirect_to(path: impl Into<String>) -> Self {
        let path = path.into();
        Self::from_fn(move |answer| {
            answer.location_path().as_deref() == Some(&*path)
                || (answer.served.path() == path && answer.requested.path() != path)
        })
    }

    /// Matches answers whose body's beginning passes `test`. Answers that no [`PeekLayer`](super::PeekLayer) has looked at do
    /// not match.
    pub fn body(test: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self::from_fn(move |answer| answer.body_prefix().is_some_and(&test))
    }

    /// Matches nothing: sessions end by their budgets or by hand.
    pub fn never() -> Self {
        Self::from_fn(|_| false)
    }

    /// Matches what either matches.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::from_fn(move |answer| self.matches(answer) || other.matches(answer))
    }

    /// Matches what both match.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::from_fn(move |answer| self.matches(answer) && other.matches(answer))
    }

    /// Matches what this does not match.
    #[expect(clippy::should_implement_trait, reason = "it stands with `or` and `and`")]
    #[must_use]
    pub fn not(self) -> Self {
        Self::from_fn(move |answer| !self.matches(answer))
    }

    pub(crate) fn matches(&self, answer: &ResponseView<'_>) -> bool {
        (self.0)(answer)
    }
}

impl fmt::Debug for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expired(..)")
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    #[track_caller]
    fn check(expired: &Expired, response: http::response::Builder, served: &str, expected: bool) {
        let response: Response<()> = response.body(()).unwrap();
        let requested = Uri::from_static("http://a.example/page");
        let served: Uri = served.parse().unwrap();
        let answer = ResponseView {
            status: response.status(),
            headers: response.headers(),
            extensions: response.extensions(),
            requested: &requested,
            served: &served,
            cookies: &[],
        };
        assert_eq!(expired.matches(&answer), expected);
    }

    #[test]
    fn a_redirect_to_the_login_is_seen_before_and_after_it_is_followed() {
        let expired = Expired::redirect_to("/login");
        let to = |location: &str| Response::builder().status(302).header("location", location);
        let page = "http://a.example/page";
        check(&expired, to("/login"), page, true);
        check(&expired, to("/login?next=%2Fpage"), page, true);
        check(&expired, to("https://b.example/login#form"), page, true);
        check(&expired, to("https://b.example"), page, false);
        check(&expired, to("/login/help"), page, false);
        check(&expired, Response::builder().status(200).header("location", "/login"), page, false);
        check(&expired, Response::builder(), "http://a.example/login", true);
        check(&expired, Response::builder(), page, false);
    }

    #[test]
    fn a_location_is_resolved_like_a_browser_does() {
        for (location, path) in [
            ("/login", "/login"),
            ("login", "/a/login"),
            ("./login", "/a/login"),
            ("../login", "/login"),
            ("../../login", "/login"),
            ("//b.example/login", "/login"),
            ("https://b.example", "/"),
            ("https://b.example?x=/login", "/"),
            ("/sso?next=https://b.example/login", "/sso"),
            ("?page=2", "/a/page"),
            ("x:/y", "/a/x:/y"),
            ("/a/..", "/"),
        ] {
            assert_eq!(resolve_path(location, "/a/page"), path, "{location}");
        }
    }

    #[test]
    fn a_login_page_that_was_asked_for_is_no_expiry() {
        let expired = Expired::redirect_to("/page");
        check(&expired, Response::builder(), "http://a.example/page", false);
    }

    #[test]
    fn status_header_body_and_their_combinations() {
        let page = "http://a.example/page";
        let plain = Response::builder;
        check(&Expired::status([401, 403]), plain().status(403), page, true);
        check(&Expired::status([401, 403]), plain().status(404), page, false);
        let header = Expired::header("X-Session", "expired");
        check(&header, plain().header("x-session", "live").header("x-session", "expired"), page, true);
        check(&header, plain().header("x-session", "live"), page, false);
        check(&Expired::header("not a name", "x"), plain(), page, false);
        let body = Expired::body(|bytes| bytes.starts_with(b"Please log in"));
        check(&body, plain(), page, false);
        check(&body, plain().extension(PeekedBody("Please log in again".into())), page, true);
        check(&body.clone().not(), plain(), page, true);
        check(&body.clone().and(Expired::status([200])), plain(), page, false);
        check(&body.or(Expired::status([200])), plain(), page, true);
        check(&Expired::never(), plain().status(401), page, false);
    }
}
