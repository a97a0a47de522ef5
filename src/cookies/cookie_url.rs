//! [`CookieUrl`]: the parts of a URL that matter to cookies.

use std::borrow::Cow;

use http::Uri;

use super::{
    CookieError,
    domain::{canonical_host, is_loopback, plain_host},
};

/// The parts of a URL that matter to cookies: host, path, and whether the connection is secure.
///
/// It borrows from an [`http::Uri`] or a string, and allocates only if the host is not in canonical
/// form. Methods of a [`Jar`](super::Jar) that take a URL accept anything that converts to a
/// `CookieUrl`.
///
/// Paths are compared as they are sent, without decoding them or resolving `..`. If the URL is a
/// string, bytes that are invalid in the path of a request are percent-encoded first.
///
/// # Examples
///
/// ```
/// use http::Uri;
/// use tower_client_sessions::cookies::CookieUrl;
///
/// let uri = Uri::from_static("http://LocalHost:8080/shop/cart?id=1");
/// let url = CookieUrl::from_uri(&uri)?;
/// assert_eq!(url.host(), "localhost");
/// assert_eq!(url.path(), "/shop/cart");
/// // Plain HTTP, but to a loopback host.
/// assert!(url.is_secure());
///
/// assert!(CookieUrl::parse("/no/host").is_err());
/// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CookieUrl<'a> {
    host: Cow<'a, str>,
    path: Cow<'a, str>,
    secure: bool,
}

impl<'a> CookieUrl<'a> {
    /// Creates a `CookieUrl` from an absolute URI.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidUrl`](super::CookieErrorKind::InvalidUrl) if the URI has no host, or an
    /// invalid one.
    pub fn from_uri(uri: &'a Uri) -> Result<Self, CookieError> {
        // Most authorities consist of a host alone, so try that before splitting them.
        let plain = uri.authority().and_then(|authority| plain_host(authority.as_str()));
        let host = plain.map(Cow::Borrowed).or_else(|| canonical_host(uri.host()?));
        let Some(host) = host else {
            return Err(CookieError::invalid_url(&uri.to_string()));
        };
        let path = match uri.path() {
            "" => "/",
            path => path,
        };
        Ok(Self::new(uri.scheme_str().unwrap_or(""), host, Cow::Borrowed(path)))
    }

    /// Parses an absolute URL. The host may be an internationalised domain name.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidUrl`](super::CookieErrorKind::InvalidUrl) if the URL is not absolute, or
    /// its host is invalid.
    pub fn parse(url: &'a str) -> Result<Self, CookieError> {
        Self::read(url).ok_or_else(|| CookieError::invalid_url(url))
    }

    fn read(url: &'a str) -> Option<Self> {
        let url = url.trim_matches(|char: char| char <= ' ');
        let (scheme, rest) = url.split_once("://")?;
        let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme_byte) {
            return None;
        }
        let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = match host_and_port.rsplit_once(':') {
            // The colons between brackets belong to the IPv6 address.
            Some((_, port)) if port.ends_with(']') => host_and_port,
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) => return None,
            None => host_and_port,
        };
        Some(Self::new(scheme, canonical_host(host)?, encoded_path(path)))
    }

    fn new(scheme: &str, host: Cow<'a, str>, path: Cow<'a, str>) -> Self {
        let secure = scheme == "https"
            || scheme.eq_ignore_ascii_case("https")
            || scheme.eq_ignore_ascii_case("wss")
            || is_loopback(&host);
        Self { host, path, secure }
    }

    /// Returns the host in canonical form: lower case, punycode, IPv6 in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the path as it is sent, or `/` if the URL has none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether `Secure` cookies may be set and sent: for `https`, `wss` and loopback hosts.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }
}

impl<'a> TryFrom<&'a Uri> for CookieUrl<'a> {
    type Error = CookieError;

    fn try_from(uri: &'a Uri) -> Result<Self, CookieError> {
        Self::from_uri(uri)
    }
}

impl<'a> TryFrom<&'a str> for CookieUrl<'a> {
    type Error = CookieError;

    fn try_from(url: &'a str) -> Result<Self, CookieError> {
        Self::parse(url)
    }
}

impl<'a> TryFrom<&'a String> for CookieUrl<'a> {
    type Error = CookieError;

    fn try_from(url: &'a String) -> Result<Self, CookieError> {
        Self::parse(url)
    }
}

impl<'a> From<&'a CookieUrl<'_>> for CookieUrl<'a> {
    fn from(url: &'a CookieUrl<'_>) -> Self {
        Self { host: Cow::Borrowed(&url.host), path: Cow::Borrowed(&url.path), secure: url.secure }
    }
}

fn encoded_path(path: &str) -> Cow<'_, str> {
    let encode = |byte: u8| byte <= b' ' || byte >= 0x7F || b"\"<>`{}^".contains(&byte);
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    if !path.bytes().any(encode) {
        return Cow::Borrowed(path);
    }
    let mut encoded = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if encode(byte) {
            encoded.push_str(&format!("%{byte:02X}"));
        } else {
            encoded.push(char::from(byte));
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        for (url, host, path, secure) in [
            ("https://example.com", "example.com", "/", true),
            ("HTTP://user:pw@Example.COM:8080/a/b?c#d", "example.com", "/a/b", false),
            ("wss://example.com/?q", "example.com", "/", true),
            ("http://[::1]:80/", "[::1]", "/", true),
            ("http://bücher.example/ü a", "xn--bcher-kva.example", "/%C3%BC%20a", false),
            ("http://example.com?x=/y", "example.com", "/", false),
        ] {
            let url = CookieUrl::parse(url).unwrap();
            assert_eq!((url.host(), url.path(), url.is_secure()), (host, path, secure));
        }
        for url in ["", "example.com", "/a", "http://", "http:///a", "http://a:b/", "://a", "http://[::1/"] {
            assert!(CookieUrl::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn a_uri_and_its_text_are_equal() {
        for url in ["https://Example.com/A/b?c", "http://127.1:80", "http://[::1]/x", "http://a_b/"] {
            let uri: Uri = url.parse().unwrap();
            assert_eq!(CookieUrl::from_uri(&uri), CookieUrl::parse(url), "{url:?}");
        }
        assert!(CookieUrl::from_uri(&Uri::from_static("/relative")).is_err());
    }
}
