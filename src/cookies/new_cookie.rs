use std::borrow::Cow;
use std::fmt;

use cookie::Expiration;

use super::domain::{canonical_domain, domain_matches, is_public_suffix};
use super::path::default_path;
use super::stored::{MAX_LIFETIME, SameSite, is_writable_path};
use super::{CookieError, CookieErrorKind, CookieUrl, StoredCookie, StoredCookieBuilder, Timestamp};

/// A cookie that the user gives: a pair of strings, a [`cookie::Cookie`], or a [`StoredCookie`].
///
/// What a pair or a `cookie::Cookie` leaves open comes from the URL it is given for, as it would
/// for a response: the host alone, and the directory of the path. A `StoredCookie` says
/// everything itself, and the URL does not touch it.
#[derive(Clone)]
pub struct NewCookie<'c>(Source<'c>);

#[derive(Clone)]
enum Source<'c> {
    Pair(Cow<'c, str>, Cow<'c, str>),
    Cookie(cookie::Cookie<'c>),
    Stored(StoredCookie),
}

impl NewCookie<'_> {
    pub(super) fn validate(
        self,
        target: &CookieUrl<'_>,
        now: Timestamp,
    ) -> Result<StoredCookie, CookieError> {
        match self.0 {
            Source::Stored(cookie) => Ok(cookie),
            Source::Pair(name, value) => on_host(&name, &value, target).build(),
            Source::Cookie(cookie) => complete(&cookie, target, now)
                .map_err(|kind| CookieError::named(kind, cookie.name().as_bytes()))?
                .build(),
        }
    }
}

fn on_host(name: &str, value: &str, target: &CookieUrl<'_>) -> StoredCookieBuilder {
    StoredCookie::for_host(name, value, target.host()).path(default_path(target.path()))
}

/// Fills what a `cookie::Cookie` leaves open, and checks what it says against the URL.
fn complete(
    cookie: &cookie::Cookie<'_>,
    target: &CookieUrl<'_>,
    now: Timestamp,
) -> Result<StoredCookieBuilder, CookieErrorKind> {
    let host = target.host();
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
            StoredCookie::for_domain(cookie.name(), cookie.value(), domain).path(default_path(target.path()))
        }
        None => on_host(cookie.name(), cookie.value(), target),
    };
    let builder = match cookie.path() {
        Some(path) if !is_writable_path(path.as_bytes()) => return Err(CookieErrorKind::InvalidPath),
        Some(path) => builder.path(path),
        // The prefix wants the path said (§5.4.2); a default one would pass for it.
        None if is_host_prefixed(cookie.name()) => return Err(CookieErrorKind::HostPrefix),
        None => builder,
    };
    let secure = cookie.secure().unwrap_or(false);
    if secure && !target.is_secure() {
        return Err(CookieErrorKind::SecureOverInsecure);
    }
    let expires = match (cookie.max_age(), cookie.expires()) {
        (Some(age), _) if age.is_positive() => {
            Some(now.saturating_add(age.try_into().unwrap_or(MAX_LIFETIME)))
        }
        (Some(_), _) => Some(Timestamp::MIN),
        (None, Some(Expiration::DateTime(date))) => {
            Some(Timestamp::from_millis((date.unix_timestamp_nanos() / 1_000_000) as i64))
        }
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

impl From<cookie::SameSite> for SameSite {
    fn from(same_site: cookie::SameSite) -> Self {
        match same_site {
            cookie::SameSite::Strict => Self::Strict,
            cookie::SameSite::Lax => Self::Lax,
            cookie::SameSite::None => Self::None,
        }
    }
}

impl From<SameSite> for cookie::SameSite {
    fn from(same_site: SameSite) -> Self {
        match same_site {
            SameSite::Strict => Self::Strict,
            SameSite::Lax => Self::Lax,
            SameSite::None => Self::None,
        }
    }
}

impl StoredCookie {
    /// Returns it as a [`cookie::Cookie`], or `None` if a part of it is not UTF-8.
    ///
    /// A host-only cookie comes without a domain.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::cookies::StoredCookie;
    ///
    /// let stored = StoredCookie::for_domain("id", "a=b", "example.com").build()?;
    /// let cookie = stored.to_cookie().expect("all of it is utf-8");
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
            let nanos = i128::from(expires.as_millis()) * 1_000_000;
            cookie.set_expires(cookie::time::OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?);
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
