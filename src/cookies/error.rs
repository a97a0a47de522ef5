use std::convert::Infallible;
use std::error::Error;
use std::fmt;

/// Why a cookie, or the URL it was given for, was refused.
///
/// Tells the rule ([`kind`](Self::kind)), the cookie's name, its place in a list, and the URL;
/// never the cookie's value.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::cookies::{CookieErrorKind, Jar, Timestamp};
///
/// let mut jar = Jar::default();
/// let refused = jar
///     .set("id=1; Domain=co.uk", "https://shop.co.uk/", Timestamp::now())
///     .unwrap_err();
/// assert_eq!(refused.kind(), CookieErrorKind::PublicSuffix);
/// assert_eq!(
///     refused.to_string(),
///     "cookie `id` refused: its domain is a public suffix",
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
    /// Neither a name nor a value (RFC 6265bis §5.7, step 2).
    Empty,
    /// A control character other than the tab (§5.6, step 1).
    ControlCharacter,
    /// Name and value together are longer than 4096 bytes (§5.6, step 5).
    TooLong,
    /// A given name or value would read as something else: a `;` in it, a `=` in the name, or
    /// white space at an end.
    Syntax,
    /// The domain is not ASCII (§5.7, step 8), or no host name at all.
    InvalidDomain,
    /// The domain is a public suffix and not the host itself (§5.7, step 9).
    PublicSuffix,
    /// The host is not within the domain (§5.7, step 10).
    DomainMismatch,
    /// A given path does not begin with `/`, has a `;` in it, or is longer than 1024 bytes.
    InvalidPath,
    /// `Secure` from a connection that is not secure (§5.7, step 13).
    SecureOverInsecure,
    /// It would hide or replace a `Secure` cookie from a connection that is not secure (§5.7,
    /// step 16).
    OverlaysSecure,
    /// `SameSite=None` without `Secure` (§5.7, step 19).
    SameSiteNoneInsecure,
    /// The name begins with `__Secure-` and the cookie is not `Secure` (§5.4.1).
    SecurePrefix,
    /// The name begins with `__Host-` and the cookie is not `Secure`, not for the host alone, or
    /// not given the path `/` (§5.4.2).
    HostPrefix,
    /// A cookie without a name whose value begins like a prefixed name (§5.7, step 22).
    NamelessPrefix,
    /// The URL cannot be read, or has no host.
    InvalidUrl,
}

impl CookieErrorKind {
    fn reason(self) -> &'static str {
        match self {
            Self::Empty => "it has neither a name nor a value",
            Self::ControlCharacter => "it contains a control character",
            Self::TooLong => "its name and value are longer than 4096 bytes",
            Self::Syntax => "its name or value contains a separator",
            Self::InvalidDomain => "its domain is not a host name in ascii",
            Self::PublicSuffix => "its domain is a public suffix",
            Self::DomainMismatch => "its domain does not cover the host",
            Self::InvalidPath => "its path does not begin with `/`, or cannot be an attribute",
            Self::SecureOverInsecure => "it is secure and the connection is not",
            Self::OverlaysSecure => "it would hide a secure cookie",
            Self::SameSiteNoneInsecure => "it is `samesite=none` without `secure`",
            Self::SecurePrefix => "its name promises `secure`",
            Self::HostPrefix => "its name promises `secure`, one host and the path `/`",
            Self::NamelessPrefix => "it has no name and its value begins like a prefixed name",
            Self::InvalidUrl => "the url has no host that can be read",
        }
    }
}

impl CookieError {
    pub(super) fn new(kind: CookieErrorKind) -> Self {
        Self(Box::new(Inner { kind, name: None, index: None, url: None }))
    }

    /// Refuses the cookie of this name; a name may be any bytes, and long.
    pub(super) fn named(kind: CookieErrorKind, name: &[u8]) -> Self {
        const SHOWN: usize = 64;
        let shown = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]);
        let mut error = Self::new(kind);
        error.0.name = Some(shown.into());
        error
    }

    pub(super) fn url(url: &str) -> Self {
        let mut error = Self::new(CookieErrorKind::InvalidUrl);
        error.0.url = Some(without_secrets(url).into());
        error
    }

    pub(super) fn at(mut self, index: usize) -> Self {
        self.0.index = Some(index);
        self
    }

    /// Returns the rule that was broken.
    pub fn kind(&self) -> CookieErrorKind {
        self.0.kind
    }

    /// Returns the name of the cookie, if the refusal concerns one; the first 64 bytes of it.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Returns the place of the cookie in the list that was given, counted from 0.
    pub fn index(&self) -> Option<usize> {
        self.0.index
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
            return write!(f, "url `{}` refused: {}", url.escape_debug(), self.0.kind.reason());
        }
        f.write_str("cookie")?;
        if let Some(name) = &self.0.name {
            write!(f, " `{}`", name.escape_debug())?;
        }
        if let Some(index) = self.0.index {
            write!(f, " (entry {index})")?;
        }
        write!(f, " refused: {}", self.0.kind.reason())
    }
}

impl Error for CookieError {}

impl From<Infallible> for CookieError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Drops what a URL may hide: user, password, query and fragment.
fn without_secrets(url: &str) -> String {
    let url = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let start = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[start..].find('/').map_or(url.len(), |path| start + path);
    let host = url[start..end].rfind('@').map_or(start, |user| start + user + 1);
    format!("{}{}", &url[..start], &url[host..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_url_is_named_without_its_secrets() {
        let error = CookieError::url("https://user:secret@/path?token=secret#secret");
        assert_eq!(error.to_string(), "url `https:///path` refused: the url has no host that can be read",);
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[test]
    fn the_entry_of_a_list_is_named() {
        let error = CookieError::named(CookieErrorKind::Syntax, b"a\nb").at(3);
        assert_eq!(error.index(), Some(3));
        assert_eq!(
            error.to_string(),
            r"cookie `a\nb` (entry 3) refused: its name or value contains a separator",
        );
    }
}
