//! `Expired`: which responses mean that the session has expired.

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::{body_need::BodyNeed, peeked_body::PeekedBody};
use crate::{cookies::StoredCookie, session::MissingBody};

/// Head of a response, with the URI and the cookies of its request.
#[derive(Clone, Copy)]
pub struct ResponseView<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    pub(super) extensions: &'a Extensions,
    pub(super) request_uri: &'a Uri,
    pub(super) final_uri: &'a Uri,
    pub(super) cookies: &'a [StoredCookie],
}

impl<'a> ResponseView<'a> {
    /// Status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Headers of the response.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// Extensions of the response.
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }

    /// URI of the caller's request.
    pub fn request_uri(&self) -> &'a Uri {
        self.request_uri
    }

    /// URI of the last request, after redirects.
    pub fn final_uri(&self) -> &'a Uri {
        self.final_uri
    }

    /// Cookies that the response set, including those of the redirects before it.
    pub fn cookies(&self) -> &'a [StoredCookie] {
        self.cookies
    }

    /// Returns whether the response set a cookie named `name`.
    pub fn sets_cookie(&self, name: &str) -> bool {
        self.cookies.iter().any(|cookie| cookie.name() == Some(name))
    }

    /// Beginning of the body, if a [`PeekLayer`](super::PeekLayer) below has read it.
    pub fn body_prefix(&self) -> Option<&'a [u8]> {
        self.extensions.get::<PeekedBody>().map(PeekedBody::as_bytes)
    }

    /// Path of the last page, after all redirects, including one that was not followed.
    pub(super) fn ended_at(&self) -> String {
        self.location_path().unwrap_or_else(|| self.final_uri.path().to_owned())
    }

    /// Path that a redirect points to; `None` if the response is not a redirect.
    fn location_path(&self) -> Option<String> {
        if !self.status.is_redirection() {
            return None;
        }
        let location = self.headers.get(header::LOCATION)?.to_str().ok()?;
        Some(resolve_path(location, self.final_uri.path()))
    }
}

/// Resolves a `Location` against the path `base` (RFC 3986, section 5.2).
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
        f.debug_struct("ResponseView").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Test that matches responses which mean that the session has expired.
///
/// # Examples
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
/// Clones share the closures.
#[derive(Clone)]
#[must_use = "a test does nothing until it is given to a layer"]
pub struct Expired {
    test: Arc<dyn Fn(&ResponseView<'_>) -> bool + Send + Sync>,
    /// What its parts read of bodies.
    bodies: Vec<Arc<BodyNeed>>,
}

impl Expired {
    /// Matches if `test` returns `true`.
    pub fn from_fn(test: impl Fn(&ResponseView<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self { test: Arc::new(test), bodies: Vec::new() }
    }

    /// Matches a response with one of these status codes.
    pub fn status(codes: impl IntoIterator<Item = u16>) -> Self {
        let codes: Vec<u16> = codes.into_iter().collect();
        Self::from_fn(move |response| codes.contains(&response.status.as_u16()))
    }

    /// Matches a response with this header and exactly this value. The name is not case-sensitive.
    ///
    /// An invalid header name matches nothing.
    pub fn header(name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        let holds = move |found: &HeaderValue| found.as_bytes() == value.as_slice();
        Self::from_fn(move |response| response.headers.get_all(name.as_str()).iter().any(&holds))
    }

    /// Matches a redirect to this path, and a response from this path after a layer below has
    /// followed redirects.
    ///
    /// A request for the path itself does not match. Queries are ignored.
    pub fn redirect_to(path: impl Into<String>) -> Self {
        let path = path.into();
        Self::from_fn(move |response| {
            response.location_path().as_deref() == Some(&*path)
                || (response.final_uri.path() == path && response.request_uri.path() != path)
        })
    }

    /// Matches if `test` returns `true` for the beginning of the body.
    ///
    /// A response whose body no [`PeekLayer`](super::PeekLayer) has read does not match. A layer
    /// that reads no body, or only a compressed one, is reported once.
    pub fn body(test: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self::with_body(BodyNeed::of_pages(), move |_, body| test(body.as_bytes()))
    }

    /// Matches if the beginning of a page, of plain text or of JSON contains `text`.
    ///
    /// It works only with [`PeekLayer::for_rule`](super::PeekLayer::for_rule). Without it, every
    /// request fails with an error that names the layer.
    pub fn body_contains(text: impl Into<String>) -> Self {
        const TYPES: &[&str] =
            &["text/html", "text/plain", "application/xhtml+xml", "application/json", "+json"];
        let text = text.into();
        Self::with_body(BodyNeed::of_types(TYPES), move |_, body| {
            memchr::memmem::find(body.as_bytes(), text.as_bytes()).is_some()
        })
    }

    /// Matches if `test` returns `true` for the value at `pointer` in a JSON body.
    ///
    /// The pointer has the form of RFC 6901, such as `/error/code`; the empty pointer is the whole
    /// body. A body without this value does not match. It works only with
    /// [`PeekLayer::for_rule`](super::PeekLayer::for_rule). Without it, every request fails with an
    /// error that names the layer. A body that is longer than the limit of the layer does not
    /// match, and is reported once.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::Expired;
    ///
    /// let expired = Expired::body_json("/error/code", |code| code == "session_expired");
    /// # drop(expired);
    /// ```
    #[cfg(feature = "json")]
    pub fn body_json(
        pointer: impl Into<String>,
        test: impl Fn(&serde_json::Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        let pointer = pointer.into();
        Self::with_body(BodyNeed::of_types(&["application/json", "+json"]), move |need, body| {
            match serde_json::from_slice::<serde_json::Value>(body.as_bytes()) {
                Ok(json) => json.pointer(&pointer).is_some_and(&test),
                Err(_) => {
                    if !body.is_complete() {
                        need.miss(MissingBody::Truncated);
                    }
                    false
                }
            }
        })
    }

    fn with_body(
        need: Arc<BodyNeed>,
        test: impl Fn(&BodyNeed, &PeekedBody) -> bool + Send + Sync + 'static,
    ) -> Self {
        let bodies = vec![need.clone()];
        let expired = Self::from_fn(move |response| {
            need.body(response.extensions).is_some_and(|body| test(&need, body))
        });
        Self { bodies, ..expired }
    }

    /// Matches nothing: sessions end when a limit is reached, or explicitly.
    pub fn never() -> Self {
        Self::from_fn(|_| false)
    }

    /// Matches if this or `other` matches.
    pub fn or(self, other: Self) -> Self {
        let bodies = [self.bodies.clone(), other.bodies.clone()].concat();
        let either = Self::from_fn(move |response| self.matches(response) || other.matches(response));
        Self { bodies, ..either }
    }

    /// Matches if both this and `other` match.
    pub fn and(self, other: Self) -> Self {
        let bodies = [self.bodies.clone(), other.bodies.clone()].concat();
        let both = Self::from_fn(move |response| self.matches(response) && other.matches(response));
        Self { bodies, ..both }
    }

    /// Matches if this does not match.
    #[expect(clippy::should_implement_trait, reason = "part of one set with `or` and `and`")]
    pub fn not(self) -> Self {
        let bodies = self.bodies.clone();
        Self { bodies, ..Self::from_fn(move |response| !self.matches(response)) }
    }

    pub(super) fn matches(&self, response: &ResponseView<'_>) -> bool {
        (self.test)(response)
    }

    /// Records that a layer reads bodies for this rule. Returns the content types that it reads.
    pub(super) fn attach_layer(&self) -> Vec<&'static str> {
        self.bodies.iter().for_each(|need| need.attach());
        self.bodies.iter().flat_map(|need| need.content_types).copied().collect()
    }

    /// Returns whether a part of the rule cannot work, because no layer reads bodies for it.
    pub(super) fn lacks_layer(&self) -> bool {
        self.bodies.iter().any(|need| need.lacks_layer())
    }

    /// Returns what a part of the rule has missed, once for each part.
    pub(super) fn take_missing_body(&self) -> Option<MissingBody> {
        self.bodies.iter().find_map(|need| need.take_missing())
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
    fn check(expired: &Expired, response: http::response::Builder, final_uri: &str, expected: bool) {
        let response: Response<()> = response.body(()).unwrap();
        let request_uri = Uri::from_static("http://a.example/page");
        let final_uri: Uri = final_uri.parse().unwrap();
        let response = ResponseView {
            status: response.status(),
            headers: response.headers(),
            extensions: response.extensions(),
            request_uri: &request_uri,
            final_uri: &final_uri,
            cookies: &[],
        };
        assert_eq!(expired.matches(&response), expected);
    }

    #[test]
    fn a_redirect_to_the_login_page_matches_before_and_after_it_is_followed() {
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
    fn a_location_is_resolved_as_browsers_do() {
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
    fn a_request_for_the_login_page_itself_does_not_match() {
        let expired = Expired::redirect_to("/page");
        check(&expired, Response::builder(), "http://a.example/page", false);
    }

    #[test]
    fn statuses_headers_bodies_and_their_combinations_match() {
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
        check(&body, plain().extension(PeekedBody::new("Please log in again".into(), true)), page, true);
        check(&body.clone().not(), plain(), page, true);
        check(&body.clone().and(Expired::status([200])), plain(), page, false);
        check(&body.or(Expired::status([200])), plain(), page, true);
        check(&Expired::never(), plain().status(401), page, false);
    }
}
