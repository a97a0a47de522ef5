//! [`NewCookie`]: the forms in which a user sets a cookie.

use std::{borrow::Cow, fmt};

use cookie::Expiration;

use super::{
    CookieError, CookieErrorKind, CookieUrl, SameSite, StoredCookie, StoredCookieBuilder, Timestamp,
    domain::{canonical_domain, domain_matches, is_public_suffix},
    path::{default_path, is_writable_path},
    stored::MAX_LIFETIME,
};

/// A cookie set by the user: a pair of strings, a [`cookie::Cookie`], or a [`StoredCookie`].
///
/// A pair, and a `cookie::Cookie` without a domain or a path, takes them from the URL, like a
/// cookie of a response: it is host-only, and its path is the directory of the URL's path. A
/// `StoredCookie` is complete and ignores the URL.
#[derive(Clone)]
pub struct NewCookie<'c>(Source<'c>);

#[derive(Clone)]
enum Source<'c> {
    Pair(Cow<'c, str>, Cow<'c, str>),
    Cookie(cookie::Cookie<'c>),
    Stored(StoredCookie),
}

impl NewCookie<'_> {
    pub(super) fn validate(self, url: &CookieUrl<'_>, now: Timestamp) -> Result<StoredCookie, CookieError> {
        match self.0 {
            Source::Stored(cookie) => Ok(cookie),
            Source::Pair(name, value) => host_only(&name, &value, url).build(),
            Source::Cookie(cookie) => complete(&cookie, url, now)
                .map_err(|kind| CookieError::for_cookie(kind, cookie.name().as_bytes()))?
                .build(),
        }
    }
}

fn host_only(name: &str, value: &str, url: &CookieUrl<'_>) -> StoredCookieBuilder {
    StoredCookie::for_host(name, value, url.host()).path(default_path(url.path()))
}

/// Fills in the missing attributes of a `cookie::Cookie`, and checks the others against the URL.
fn complete(
    cookie: &cookie::Cookie<'_>,
    url: &CookieUrl<'_>,
    now: Timestamp,
) -> Result<StoredCookieBuilder, CookieErrorKind> {
    let host = url.host();
    let domain = match cookie.domain().filter(|domain| !domain.is_empty()) {
        Some(domain) => Some(canonical_domain(domain).ok_or(CookieErrorKind::InvalidDomain)?),
        None => None,
    };
    let builder = match domain {
        Some(domain) if is_public_suffix(&domain) && domain != host => {
            return Err(CookieErrorKind::PublicSuffix);
        }
        Some(domain) if !domain_matches(host, domain.as_ref() as &str) => {
            return Err(CookieErrorKind::DomainMismatch);
        }
        Some(domain) => {
            StoredCookie::for_domain(cookie.name(), cookie.value(), domain).path(default_path(url.path()))
        }
        None => host_only(cookie.name(), cookie.value(), url),
    };
    let builder = match cookie.path() {
        Some(path) if !is_writable_path(path.as_bytes()) => return Err(CookieErrorKind::InvalidPath),
        Some(path) => builder.path(path),
        // The prefix requires an explicit path (§5.4.2), and the builder takes every path for one.
        None if is_host_prefixed(cookie.name()) => return Err(CookieErrorKind::HostPrefix),
        None => builder,
    };
    let secure = cookie.secure().unwrap_or(false);
    if secure && !url.is_secure() {
        return Err(CookieErrorKind::SecureOverInsecure);
    }
    let expires = match (cookie.max_age(), cookie.expires()) {
        (Some(age), _) if age.is_positive() => {
            Some(now.saturating_add(age.try_into().unwrap_or(MAX_LIFETIME)))
        }
        (Some(_), _) => Some(Timestamp::MIN),
        (None, Some(Expiration::DateTime(date))) => Some(Timestamp::from_date_time(date)),
        (None, _) => None,
    };
    Ok(builder
        .secure(secure)
        .http_only(cookie.http_only().unwrap_or(false))
        .partitioned(cookie.partitioned().unwrap_or(false))
        .same_site(cookie.same_site().map(SameSite::from))
        .expires(expires))
}

fn is_host_prefixed(name: &str) -> bool {
    name.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("__Host-"))
}

impl fmt::Debug for NewCookie<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0 {
            Source::Pair(name, _) => Cow::Borrowed(name.as_ref()),
            Source::Cookie(cookie) => Cow::Borrowed(cookie.name()),
            Source::Stored(cookie) => String::from_utf8_lossy(cookie.name_bytes()),
        };
        f.debug_struct("NewCookie").field("name", &name).finish_non_exhaustive()
    }
}

impl<'c, N, V> From<(N, V)> for NewCookie<'c>
where
    N: Into<Cow<'c, str>>,
    V: Into<Cow<'c, str>>,
{
    fn from((name, value): (N, V)) -> Self {
        Self(Source::Pair(name.into(), value.into()))
    }
}

impl<'c> From<cookie::Cookie<'c>> for NewCookie<'c> {
    fn from(cookie: cookie::Cookie<'c>) -> Self {
        Self(Source::Cookie(cookie))
    }
}

impl<'c> From<&cookie::Cookie<'c>> for NewCookie<'c> {
    fn from(cookie: &cookie::Cookie<'c>) -> Self {
        Self(Source::Cookie(cookie.clone()))
    }
}

impl From<StoredCookie> for NewCookie<'_> {
    fn from(cookie: StoredCookie) -> Self {
        Self(Source::Stored(cookie))
    }
}

impl From<&StoredCookie> for NewCookie<'_> {
    fn from(cookie: &StoredCookie) -> Self {
        Self(Source::Stored(cookie.clone()))
    }
}

impl StoredCookie {
    /// Converts to a [`cookie::Cookie`], or returns `None` if it is not UTF-8.
    ///
    /// A host-only cookie becomes a cookie without a domain.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::cookies::StoredCookie;
    ///
    /// let stored = StoredCookie::for_domain("id", "a=b", "example.com").build()?;
    /// let cookie = stored.to_cookie().expect("the cookie is utf-8");
    /// assert_eq!(cookie.to_string(), "id=a=b; Path=/; Domain=example.com");
    /// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
    /// ```
    pub fn to_cookie(&self) -> Option<cookie::Cookie<'static>> {
        let mut cookie = cookie::Cookie::new(self.name()?.to_owned(), self.value()?.to_owned());
        cookie.set_path(self.path()?.to_owned());
        if !self.host_only() {
            cookie.set_domain(self.domain().to_owned());
        }
        if let Some(expires) = self.expires() {
            cookie.set_expires(expires.to_date_time()?);
        }
        if self.secure() {
            cookie.set_secure(true);
        }
        if self.http_only() {
            cookie.set_http_only(true);
        }
        if self.partitioned() {
            cookie.set_partitioned(true);
        }
        cookie.set_same_site(self.same_site().map(cookie::SameSite::from));
        Some(cookie)
    }
}
