//! Why a cookie or a URL was rejected.

use std::{convert::Infallible, error::Error, fmt};

/// A cookie, or the URL it was set for, was rejected.
///
/// The error has the violated rule ([`kind`](Self::kind)), the name of the cookie, its index in a
/// list, and the URL. It never contains the value of the cookie.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::cookies::{CookieErrorKind, Jar, Timestamp};
///
/// let mut jar = Jar::default();
/// let error = jar
///     .set("id=1; Domain=co.uk", "https://shop.co.uk/", Timestamp::now())
///     .unwrap_err();
/// assert_eq!(error.kind(), CookieErrorKind::PublicSuffix);
/// assert_eq!(
///     error.to_string(),
///     "cookie `id` rejected: its domain is a public suffix",
/// );
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct CookieError(Box<Inner>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Inner {
    kind: CookieErrorKind,
    name: Option<Box<str>>,
    index: Option<usize>,
    url: Option<Box<str>>,
}

/// The rule behind a [`CookieError`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CookieErrorKind {
    /// The cookie has neither a name nor a value (RFC 6265bis §5.7, step 2).
    Empty,
    /// The cookie contains a control character other than the tab (§5.6, step 1).
    ControlCharacter,
    /// The name and the value together are longer than 4096 bytes (§5.6, step 5).
    TooLong,
    /// The name or the value would be parsed as something else: it contains a `;`, the name
    /// contains a `=`, or it begins or ends with whitespace.
    Syntax,
    /// The domain is not ASCII (§5.7, step 8), or not a host name.
    InvalidDomain,
    /// The domain is a public suffix and not the host itself (§5.7, step 9).
    PublicSuffix,
    /// The domain does not cover the host (§5.7, step 10).
    DomainMismatch,
    /// A path set by the user does not begin with `/`, contains a `;`, or is longer than 1024
    /// bytes.
    InvalidPath,
    /// A `Secure` cookie came over an insecure connection (§5.7, step 13).
    SecureOverInsecure,
    /// A cookie from an insecure connection would hide or replace a `Secure` cookie (§5.7, step
    /// 16).
    OverlaysSecure,
    /// The cookie is `SameSite=None` but not `Secure` (§5.7, step 19).
    SameSiteNoneInsecure,
    /// The name begins with `__Secure-` and the cookie is not `Secure` (§5.4.1).
    SecurePrefix,
    /// The name begins with `__Host-` and the cookie is not `Secure`, not host-only, or without an
    /// explicit path `/` (§5.4.2).
    HostPrefix,
    /// The value of a nameless cookie begins with `__Secure-` or `__Host-` (§5.7, step 22).
    NamelessPrefix,
    /// The URL is invalid or has no host.
    InvalidUrl,
}

impl CookieErrorKind {
    const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "it has neither a name nor a value",
            Self::ControlCharacter => "it contains a control character",
            Self::TooLong => "its name and value are longer than 4096 bytes",
            Self::Syntax => "its name or value contains a separator",
            Self::InvalidDomain => "its domain is not an ascii host name",
            Self::PublicSuffix => "its domain is a public suffix",
            Self::DomainMismatch => "its domain does not cover the host",
            Self::InvalidPath => "its path does not begin with `/`, or cannot be an attribute",
            Self::SecureOverInsecure => "it is secure and the connection is not",
            Self::OverlaysSecure => "it would hide a secure cookie",
            Self::SameSiteNoneInsecure => "it is `samesite=none` without `secure`",
            Self::SecurePrefix => "its name requires `secure`",
            Self::HostPrefix => "its name requires `secure`, a single host and the path `/`",
            Self::NamelessPrefix => "it has no name and its value begins with a reserved prefix",
            Self::InvalidUrl => "the url is invalid or has no host",
        }
    }
}

impl CookieError {
    pub(super) fn new(kind: CookieErrorKind) -> Self {
        Self(Box::new(Inner { kind, name: None, index: None, url: None }))
    }

    /// An error about the cookie `name`, which is truncated because it may be long.
    pub(super) fn for_cookie(kind: CookieErrorKind, name: &[u8]) -> Self {
        const MAX_NAME: usize = 64;
        let shown = String::from_utf8_lossy(&name[..name.len().min(MAX_NAME)]);
        let mut error = Self::new(kind);
        error.0.name = Some(shown.into());
        error
    }

    pub(super) fn invalid_url(url: &str) -> Self {
        let mut error = Self::new(CookieErrorKind::InvalidUrl);
        error.0.url = Some(without_secrets(url).into());
        error
    }

    pub(super) fn at_index(mut self, index: usize) -> Self {
        self.0.index = Some(index);
        self
    }

    /// Returns the violated rule.
    pub fn kind(&self) -> CookieErrorKind {
        self.0.kind
    }

    /// Returns the first 64 bytes of the name of the cookie, if the error is about a cookie.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Returns the index of the cookie in the list, counted from 0.
    pub fn index(&self) -> Option<usize> {
        self.0.index
    }

    /// Returns the invalid URL without its user, password, query and fragment.
    pub fn url(&self) -> Option<&str> {
        self.0.url.as_deref()
    }
}

impl fmt::Debug for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieError")
            .field("kind", &self.0.kind)
            .field("name", &self.0.name)
            .field("index", &self.0.index)
            .field("url", &self.0.url)
            .finish()
    }
}

impl fmt::Display for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(url) = &self.0.url {
            return write!(f, "url `{}` rejected: {}", url.escape_debug(), self.0.kind.reason());
        }
        f.write_str("cookie")?;
        if let Some(name) = &self.0.name {
            write!(f, " `{}`", name.escape_debug())?;
        }
        if let Some(index) = self.0.index {
            write!(f, " (entry {index})")?;
        }
        write!(f, " rejected: {}", self.0.kind.reason())
    }
}

impl Error for CookieError {}

impl From<Infallible> for CookieError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Removes the parts of a URL that may be secret: user, password, query and fragment.
fn without_secrets(url: &str) -> String {
    let url = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let start = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[start..].find('/').map_or(url.len(), |path| start + path);
    let host = url[start..end].rfind('@').map_or(start, |at_sign| start + at_sign + 1);
    format!("{}{}", &url[..start], &url[host..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_url_has_no_secrets() {
        let error = CookieError::invalid_url("https://user:secret@/path?token=secret#secret");
        assert_eq!(error.to_string(), "url `https:///path` rejected: the url is invalid or has no host");
        assert_eq!(error.url(), Some("https:///path"));
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[test]
    fn the_error_of_a_list_has_the_index() {
        let error = CookieError::for_cookie(CookieErrorKind::Syntax, b"a\nb").at_index(3);
        assert_eq!(error.index(), Some(3));
        assert_eq!(
            error.to_string(),
            r"cookie `a\nb` (entry 3) rejected: its name or value contains a separator",
        );
    }
}
