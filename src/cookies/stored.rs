//! [`StoredCookie`]: a cookie with all its attributes, in one allocation.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
    str,
    time::Duration,
};

use super::{
    CookieErrorKind, CookieUrl, SameSite, Timestamp,
    date::write_date,
    domain::domain_matches,
    flags::Flags,
    parse::{MAX_PAIR, has_control},
    path::{is_writable_path, path_matches},
    time::EventTime,
};

/// The longest lifetime of a cookie, RFC 6265bis §5.5.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(400 * 86_400);

/// A cookie of a [`Jar`](super::Jar), with all its attributes.
///
/// A clone costs one allocation. `Debug` and `Display` show everything except the value.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::cookies::{Jar, StoredCookie, Timestamp};
///
/// let now = Timestamp::from_secs(1_700_000_000);
/// let cookie = StoredCookie::for_domain("id", "secret", "example.com")
///     .path("/shop")
///     .secure(true)
///     .expires(Timestamp::from_secs(1_700_000_600))
///     .build()?;
/// assert_eq!(cookie.value(), Some("secret"));
/// assert_eq!(cookie.to_string(), "id=*** (example.com/shop)");
///
/// let mut jar = Jar::default();
/// jar.insert(cookie, now);
/// assert_eq!(jar.len(now), 1);
/// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
/// ```
#[derive(Clone)]
pub struct StoredCookie {
    /// The domain, the path, the pair as it is sent, and the partition key, concatenated.
    ///
    /// The pair is the name, `=` and the value. The pair of a nameless cookie is the value alone.
    text: Box<[u8]>,
    created: EventTime,
    used: EventTime,
    /// `Timestamp::MAX` for a session cookie.
    expires: Timestamp,
    /// A keyed hash of everything that set this cookie, except the value.
    ///
    /// `None` if the `Set-Cookie` header must be parsed each time.
    fingerprint: Option<NonZeroU64>,
    /// `Max-Age` in seconds, if the expiry time was computed from it.
    lifetime: Option<NonZeroU32>,
    domain_len: u16,
    path_len: u16,
    name_len: u16,
    partition_len: u16,
    flags: Flags,
}

impl StoredCookie {
    /// Returns the name if it is UTF-8. The name of a nameless cookie is empty.
    pub fn name(&self) -> Option<&str> {
        str::from_utf8(self.name_bytes()).ok()
    }

    /// Returns the name.
    pub fn name_bytes(&self) -> &[u8] {
        let start = usize::from(self.domain_len) + usize::from(self.path_len);
        &self.text[start..start + usize::from(self.name_len)]
    }

    /// Returns the value if it is UTF-8.
    pub fn value(&self) -> Option<&str> {
        str::from_utf8(self.value_bytes()).ok()
    }

    /// Returns the value.
    pub fn value_bytes(&self) -> &[u8] {
        let pair = self.pair();
        match self.name_len {
            0 => pair,
            name_len => &pair[usize::from(name_len) + 1..],
        }
    }

    /// Returns the host or domain in canonical form, without a leading dot.
    pub fn domain(&self) -> &str {
        str::from_utf8(self.domain_bytes()).expect("domains are ascii")
    }

    /// Returns the path if it is UTF-8.
    pub fn path(&self) -> Option<&str> {
        str::from_utf8(self.path_bytes()).ok()
    }

    /// Returns the path.
    pub fn path_bytes(&self) -> &[u8] {
        let start = usize::from(self.domain_len);
        &self.text[start..start + usize::from(self.path_len)]
    }

    /// Returns whether the cookie is sent to the host [`domain`](Self::domain) only.
    pub const fn host_only(&self) -> bool {
        self.flags.has(Flags::HOST_ONLY)
    }

    /// Returns whether the cookie is sent over secure connections only.
    pub const fn secure(&self) -> bool {
        self.flags.has(Flags::SECURE)
    }

    /// Returns whether the cookie is hidden from scripts.
    pub const fn http_only(&self) -> bool {
        self.flags.has(Flags::HTTP_ONLY)
    }

    /// Returns the `SameSite` attribute.
    pub fn same_site(&self) -> Option<SameSite> {
        self.flags.same_site()
    }

    /// Returns whether the cookie has the `Partitioned` attribute.
    ///
    /// The jar stores the attribute and is not partitioned.
    pub const fn partitioned(&self) -> bool {
        self.flags.has(Flags::PARTITIONED)
    }

    /// Returns the partition key under which a browser stored the cookie, if an import named one.
    pub fn partition_key(&self) -> Option<&str> {
        let key = &self.text[self.text.len() - usize::from(self.partition_len)..];
        str::from_utf8(key).ok().filter(|key| !key.is_empty())
    }

    /// Returns the expiry time, or `None` for a session cookie.
    pub fn expires(&self) -> Option<Timestamp> {
        (self.expires != Timestamp::MAX).then_some(self.expires)
    }

    /// Returns whether the cookie has expired at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires <= now
    }

    /// Returns when the cookie was created. Setting it again does not change this.
    pub const fn created(&self) -> Timestamp {
        self.created.timestamp()
    }

    /// Returns when the cookie was last set or sent, as far as the jar has recorded it.
    ///
    /// A cached header records its own use. Its cookies receive that time when the header is
    /// discarded, so this may be earlier than the last request.
    pub const fn last_used(&self) -> Timestamp {
        self.used.timestamp()
    }

    /// Returns whether the cookie was set by the user and not by a response.
    pub const fn is_user_set(&self) -> bool {
        self.flags.has(Flags::USER_SET)
    }

    /// Returns whether a request to `url` carries the cookie, ignoring its expiry time (§5.8.3).
    pub fn matches(&self, url: &CookieUrl<'_>) -> bool {
        self.reaches(url.host(), url.is_secure()) && path_matches(url.path().as_bytes(), self.path_bytes())
    }

    /// Writes the `Set-Cookie` header that stores this cookie again, with its value.
    ///
    /// The expiry time has a precision of one second. A path from a URL that contains a `;` or is
    /// longer than 1024 bytes is omitted, because no attribute can express it.
    pub fn to_set_cookie(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.text.len() + 96);
        // A nameless cookie is written with `=`. Otherwise a `=` in its value would end a name.
        text.extend_from_slice(self.name_bytes());
        text.push(b'=');
        text.extend_from_slice(self.value_bytes());
        if !self.host_only() {
            text.extend_from_slice(b"; Domain=");
            text.extend_from_slice(self.domain().as_bytes());
        }
        if is_writable_path(self.path_bytes()) {
            text.extend_from_slice(b"; Path=");
            text.extend_from_slice(self.path_bytes());
        }
        if let Some(expires) = self.expires() {
            text.extend_from_slice(b"; Expires=");
            text.extend_from_slice(write_date(expires).as_bytes());
        }
        for (is_set, attribute) in [
            (self.secure(), &b"; Secure"[..]),
            (self.http_only(), b"; HttpOnly"),
            (self.partitioned(), b"; Partitioned"),
        ] {
            if is_set {
                text.extend_from_slice(attribute);
            }
        }
        if let Some(same_site) = self.same_site() {
            text.extend_from_slice(b"; SameSite=");
            text.extend_from_slice(same_site.as_str().as_bytes());
        }
        text
    }

    pub(super) fn domain_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.domain_len)]
    }

    /// The name and the value as the `Cookie` header has them.
    pub(super) fn pair(&self) -> &[u8] {
        let start = usize::from(self.domain_len) + usize::from(self.path_len);
        &self.text[start..self.text.len() - usize::from(self.partition_len)]
    }

    /// Whether the cookie is sent to `host`, ignoring paths and its expiry time.
    pub(super) fn reaches(&self, host: &str, secure: bool) -> bool {
        if self.secure() && !secure {
            return false;
        }
        let domain = self.domain_bytes();
        if host.as_bytes() == domain {
            return true;
        }
        !self.host_only() && domain_matches(host, domain)
    }

    /// Whether the jar treats both as the same cookie: §5.7, step 23.
    pub(super) fn same_key(&self, other: &Self) -> bool {
        self.same_name_and_path(other)
            && self.host_only() == other.host_only()
            && self.domain_len == other.domain_len
            && self.domain_bytes() == other.domain_bytes()
    }

    pub(super) fn same_name_and_path(&self, other: &Self) -> bool {
        self.name_len == other.name_len
            && self.path_len == other.path_len
            && self.name_bytes() == other.name_bytes()
            && self.path_bytes() == other.path_bytes()
    }

    /// Whether all hosts that receive `other` also receive this cookie.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if self.host_only() {
            return other.host_only() && self.domain() == other.domain();
        }
        domain_matches(other.domain(), self.domain())
    }

    /// Longer paths first, then older cookies: §5.8.3, step 2.
    pub(super) fn sending_order(&self) -> (std::cmp::Reverse<u16>, EventTime) {
        (std::cmp::Reverse(self.path_len), self.created)
    }

    /// The expiry time, `Timestamp::MAX` for a session cookie.
    pub(super) fn expires_at(&self) -> Timestamp {
        self.expires
    }

    pub(super) fn mark_user_set(&mut self) {
        self.flags = self.flags.with(Flags::USER_SET);
    }

    pub(super) fn fingerprint(&self) -> Option<NonZeroU64> {
        self.fingerprint
    }

    pub(super) fn created_event(&self) -> EventTime {
        self.created
    }

    pub(super) fn set_created(&mut self, created: EventTime) {
        self.created = created;
    }

    pub(super) fn used(&self) -> EventTime {
        self.used
    }

    pub(super) fn set_used(&mut self, used: EventTime) {
        self.used = used;
    }

    /// Whether `value` may replace the value without another validation of the whole cookie.
    pub(super) fn accepts_value(&self, value: &[u8]) -> bool {
        // Some rules apply to the value of a nameless cookie in place of the name.
        self.name_len > 0 && usize::from(self.name_len) + value.len() <= MAX_PAIR && !has_control(value)
    }

    /// Replaces the value. The cookie must have a name.
    pub(super) fn set_value(&mut self, value: &[u8]) {
        let end = self.text.len() - usize::from(self.partition_len);
        let start = end - self.value_bytes().len();
        if end - start == value.len() {
            self.text[start..end].copy_from_slice(value);
        } else {
            self.text = [&self.text[..start], value, &self.text[end..]].concat().into();
        }
    }

    /// Moves the expiry time as parsing the same `Set-Cookie` header at `now` would.
    ///
    /// Returns `false` if the header must be parsed to compute it.
    pub(super) fn refresh(&mut self, now: Timestamp, used: EventTime) -> bool {
        let latest = now.saturating_add(MAX_LIFETIME);
        if let Some(lifetime) = self.lifetime {
            self.expires = now.saturating_add(Duration::from_secs(lifetime.get().into()));
        } else if self.expires > latest && self.expires != Timestamp::MAX {
            return false;
        }
        self.used = used;
        true
    }

    pub(super) fn cap_lifetime(&mut self, now: Timestamp) {
        if self.expires != Timestamp::MAX {
            self.expires = self.expires.min(now.saturating_add(MAX_LIFETIME));
        }
    }
}

impl fmt::Debug for StoredCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredCookie")
            .field("name", &String::from_utf8_lossy(self.name_bytes()))
            .field("value", &format_args!("***"))
            .field("domain", &self.domain())
            .field("host_only", &self.host_only())
            .field("path", &String::from_utf8_lossy(self.path_bytes()))
            .field("secure", &self.secure())
            .field("http_only", &self.http_only())
            .field("same_site", &self.same_site())
            .field("expires", &self.expires())
            .field("created", &self.created())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for StoredCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = String::from_utf8_lossy(self.name_bytes());
        let path = String::from_utf8_lossy(self.path_bytes());
        write!(f, "{name}=*** ({}{path})", self.domain())
    }
}

impl PartialEq for StoredCookie {
    /// Compares all attributes, but not the times of creation and use, nor who set the cookie.
    fn eq(&self, other: &Self) -> bool {
        let attributes = |cookie: &Self| cookie.flags.without(Flags::USER_SET);
        self.same_key(other)
            && self.text == other.text
            && attributes(self) == attributes(other)
            && self.expires == other.expires
    }
}

impl Eq for StoredCookie {}

#[cfg(feature = "shared")]
impl StoredCookie {
    /// Whether the cookies are equal, except that their expiry times may differ by up to `drift`.
    pub(crate) fn eq_within(&self, other: &Self, drift: Duration) -> bool {
        let (early, late) = (self.expires.min(other.expires), self.expires.max(other.expires));
        if early == late {
            return self == other;
        }
        let same_expiry = late != Timestamp::MAX && late.saturating_since(early) <= drift;
        same_expiry && *self == Self { expires: self.expires, ..other.clone() }
    }
}

/// The parts of a cookie before validation, borrowed because most of them come from a header.
pub(super) struct Parts<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) domain: &'a str,
    pub(super) path: &'a [u8],
    pub(super) partition_key: &'a [u8],
    pub(super) flags: Flags,
    pub(super) expires: Timestamp,
    pub(super) lifetime: Option<NonZeroU32>,
    pub(super) fingerprint: Option<NonZeroU64>,
    pub(super) created: EventTime,
    pub(super) used: EventTime,
}

impl Parts<'_> {
    /// Packs the parts into one allocation. Fails if a length does not fit its field.
    pub(super) fn pack(&self) -> Result<StoredCookie, CookieErrorKind> {
        let length = |text: &[u8], kind| u16::try_from(text.len()).map_err(|_| kind);
        let domain_len = length(self.domain.as_bytes(), CookieErrorKind::InvalidDomain)?;
        let path_len = length(self.path, CookieErrorKind::InvalidPath)?;
        let name_len = length(self.name, CookieErrorKind::TooLong)?;
        let partition_len = length(self.partition_key, CookieErrorKind::TooLong)?;
        let equals: &[u8] = if self.name.is_empty() { b"" } else { b"=" };
        let domain = self.domain.as_bytes();
        let text = [domain, self.path, self.name, equals, self.value, self.partition_key].concat();
        Ok(StoredCookie {
            text: text.into_boxed_slice(),
            created: self.created,
            used: self.used,
            expires: self.expires,
            fingerprint: self.fingerprint,
            lifetime: self.lifetime,
            domain_len,
            path_len,
            name_len,
            partition_len,
            flags: self.flags,
        })
    }
}
