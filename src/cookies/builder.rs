//! [`StoredCookieBuilder`]: cookies that come from neither a response nor a URL.

use std::fmt;

use super::{
    CookieError, CookieErrorKind, SameSite, StoredCookie, Timestamp,
    domain::{canonical_domain, canonical_host, is_ip, is_public_suffix},
    flags::Flags,
    parse::is_control,
    rules::{PathOrigin, validate_attributes, validate_pair, validate_path},
    stored::Parts,
    time::EventTime,
};

/// A builder of a [`StoredCookie`], as an importer needs it.
///
/// [`build`](Self::build) applies the rules for cookies of a response.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct StoredCookieBuilder {
    name: Vec<u8>,
    value: Vec<u8>,
    domain: String,
    path: Vec<u8>,
    partition_key: String,
    flags: Flags,
    expires: Timestamp,
    created: Option<Timestamp>,
    last_used: Option<Timestamp>,
}

impl StoredCookie {
    /// Starts building a cookie that is sent to `host` only.
    pub fn for_host(
        name: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        host: impl Into<String>,
    ) -> StoredCookieBuilder {
        StoredCookieBuilder::new(name.into(), value.into(), host.into(), Flags::HOST_ONLY)
    }

    /// Starts building a cookie that is sent to `domain` and all its subdomains.
    ///
    /// A leading dot is ignored.
    pub fn for_domain(
        name: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        domain: impl Into<String>,
    ) -> StoredCookieBuilder {
        StoredCookieBuilder::new(name.into(), value.into(), domain.into(), Flags::empty())
    }
}

impl StoredCookieBuilder {
    fn new(name: Vec<u8>, value: Vec<u8>, domain: String, flags: Flags) -> Self {
        Self {
            name,
            value,
            domain,
            path: b"/".to_vec(),
            partition_key: String::new(),
            flags,
            expires: Timestamp::MAX,
            created: None,
            last_used: None,
        }
    }

    /// Sets the path. The default is `/`.
    pub fn path(mut self, path: impl Into<Vec<u8>>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets whether the cookie is sent over secure connections only. The default is `false`.
    pub const fn secure(mut self, secure: bool) -> Self {
        self.flags = self.flags.set(Flags::SECURE, secure);
        self
    }

    /// Sets whether the cookie is hidden from scripts. The default is `false`.
    pub const fn http_only(mut self, http_only: bool) -> Self {
        self.flags = self.flags.set(Flags::HTTP_ONLY, http_only);
        self
    }

    /// Sets the `SameSite` attribute. The default is none.
    pub fn same_site(mut self, same_site: impl Into<Option<SameSite>>) -> Self {
        self.flags = self.flags.with_same_site(same_site.into());
        self
    }

    /// Sets the expiry time. By default the cookie is a session cookie and does not expire.
    ///
    /// A jar caps the lifetime at 400 days.
    pub fn expires(mut self, expires: impl Into<Option<Timestamp>>) -> Self {
        self.expires = expires.into().unwrap_or(Timestamp::MAX);
        self
    }

    /// Sets the creation time. The default is the time of insertion into a jar.
    pub const fn created(mut self, created: Timestamp) -> Self {
        self.created = Some(created);
        self
    }

    /// Sets the time of the last use. The default is the creation time.
    pub const fn last_used(mut self, last_used: Timestamp) -> Self {
        self.last_used = Some(last_used);
        self
    }

    /// Sets whether the cookie has the `Partitioned` attribute. The default is `false`.
    pub const fn partitioned(mut self, partitioned: bool) -> Self {
        self.flags = self.flags.set(Flags::PARTITIONED, partitioned);
        self
    }

    /// Sets whether the cookie counts as set by the user. The default is `false`.
    ///
    /// [`Jar::restore`] keeps this; [`Jar::insert`] always sets it.
    ///
    /// [`Jar::insert`]: super::Jar::insert
    /// [`Jar::restore`]: super::Jar::restore
    pub const fn user_set(mut self, user_set: bool) -> Self {
        self.flags = self.flags.set(Flags::USER_SET, user_set);
        self
    }

    /// Sets the partition key under which a browser stored the cookie. Exports include it.
    pub fn partition_key(mut self, key: impl Into<String>) -> Self {
        self.partition_key = key.into();
        self
    }

    /// Validates and builds the cookie.
    ///
    /// An internationalised domain is converted to punycode. If the domain is a public suffix or
    /// an IP address, the cookie is host-only.
    ///
    /// # Errors
    ///
    /// Returns the rule that the cookie violates, with the name of the cookie.
    pub fn build(self) -> Result<StoredCookie, CookieError> {
        self.validate().map_err(|kind| CookieError::for_cookie(kind, &self.name))
    }

    fn validate(&self) -> Result<StoredCookie, CookieErrorKind> {
        validate_pair(&self.name, &self.value)?;
        validate_path(&self.path)?;
        // The host of a URL may contain bytes that no `Domain` attribute may contain. Its cookies
        // are host-only.
        let host_of_url = || canonical_host(&self.domain).filter(|_| self.flags.has(Flags::HOST_ONLY));
        let domain =
            canonical_domain(&self.domain).or_else(host_of_url).ok_or(CookieErrorKind::InvalidDomain)?;
        let is_single_host = is_ip(&domain) || is_public_suffix(&domain);
        if self.partition_key.bytes().any(is_control) {
            return Err(CookieErrorKind::ControlCharacter);
        }
        let created = self.created.map_or(EventTime::UNSET, EventTime::at);
        let parts = Parts {
            name: &self.name,
            value: &self.value,
            domain: &domain,
            path: &self.path,
            partition_key: self.partition_key.as_bytes(),
            flags: if is_single_host { self.flags.with(Flags::HOST_ONLY) } else { self.flags },
            expires: self.expires,
            lifetime: None,
            fingerprint: None,
            created,
            used: self.last_used.map_or(created, EventTime::at),
        };
        validate_attributes(&parts, PathOrigin::Explicit)?;
        parts.pack()
    }
}

impl fmt::Debug for StoredCookieBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredCookieBuilder")
            .field("name", &String::from_utf8_lossy(&self.name))
            .field("value", &format_args!("***"))
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}
