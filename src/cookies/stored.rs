use std::fmt;
use std::str;
use std::time::Duration;

use super::date::write_date;
use super::domain::{canonical_domain, canonical_host, domain_matches, is_ip, is_public_suffix};
use super::parse::{MAX_ATTRIBUTE, MAX_PAIR, SetCookie, has_control, is_control, trimmed};
use super::path::{default_path, path_matches};
use super::time::EventTime;
use super::{CookieError, CookieErrorKind, CookieUrl, Timestamp};

/// No cookie outlives this, RFC 6265bis §5.5.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(400 * 86_400);

/// When a cookie may go along with requests that other sites start.
///
/// The jar keeps and exports it; a client that is not a browser has no other sites to tell.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SameSite {
    /// Only with requests of its own site.
    Strict,
    /// Also with top-level navigations from other sites.
    Lax,
    /// With every request; only for `Secure` cookies.
    None,
}

impl SameSite {
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        [Self::Strict, Self::Lax, Self::None]
            .into_iter()
            .find(|same_site| value.eq_ignore_ascii_case(same_site.as_str().as_bytes()))
    }

    /// Returns the word of the attribute: `Strict`, `Lax` or `None`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// A cookie as the jar holds it, with every attribute.
///
/// Cheap to clone: one allocation. `Debug` and `Display` show everything but the value.
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
    /// Domain, path, the pair as it is sent, and partition key, one after the other.
    ///
    /// The pair is the name, `=` and the value; of a nameless cookie the value alone.
    text: Box<[u8]>,
    created: EventTime,
    used: EventTime,
    expires: Timestamp,
    /// Keyed hash of all that set this cookie but its value, 0 if that must be read anew every time.
    fingerprint: u64,
    /// Seconds from the moment it was set to its end, if that is how its end was given.
    lifetime: u32,
    domain_len: u16,
    path_len: u16,
    name_len: u16,
    partition_len: u16,
    flags: Flags,
}

/// The switches of a cookie in one byte.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const HOST_ONLY: Self = Self(1);
    pub(super) const SECURE: Self = Self(1 << 1);
    pub(super) const HTTP_ONLY: Self = Self(1 << 2);
    pub(super) const PARTITIONED: Self = Self(1 << 3);
    /// Given by the user, not by a response.
    pub(super) const USER_SET: Self = Self(1 << 4);
    const STRICT: Self = Self(1 << 5);
    const LAX: Self = Self(2 << 5);
    const NONE: Self = Self(3 << 5);
    const SAME_SITE: Self = Self(3 << 5);

    pub(super) fn with(self, flag: Self, on: bool) -> Self {
        if on { Self(self.0 | flag.0) } else { Self(self.0 & !flag.0) }
    }

    pub(super) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    fn with_same_site(self, same_site: Option<SameSite>) -> Self {
        let bits = match same_site {
            Some(SameSite::Strict) => Self::STRICT,
            Some(SameSite::Lax) => Self::LAX,
            Some(SameSite::None) => Self::NONE,
            None => Self(0),
        };
        Self(self.0 & !Self::SAME_SITE.0 | bits.0)
    }

    fn same_site(self) -> Option<SameSite> {
        match Self(self.0 & Self::SAME_SITE.0) {
            Self::STRICT => Some(SameSite::Strict),
            Self::LAX => Some(SameSite::Lax),
            Self::NONE => Some(SameSite::None),
            _ => None,
        }
    }
}

impl StoredCookie {
    /// Starts a cookie for one host and no other.
    pub fn for_host(
        name: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        host: impl Into<String>,
    ) -> StoredCookieBuilder {
        StoredCookieBuilder::new(name.into(), value.into(), host.into(), true)
    }

    /// Starts a cookie for a domain and all hosts below it; a leading dot means nothing.
    pub fn for_domain(
        name: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        domain: impl Into<String>,
    ) -> StoredCookieBuilder {
        StoredCookieBuilder::new(name.into(), value.into(), domain.into(), false)
    }

    /// Returns the name, if it is UTF-8; empty for a cookie without one.
    pub fn name(&self) -> Option<&str> {
        str::from_utf8(self.name_bytes()).ok()
    }

    /// Returns the name.
    pub fn name_bytes(&self) -> &[u8] {
        let start = usize::from(self.domain_len) + usize::from(self.path_len);
        &self.text[start..start + usize::from(self.name_len)]
    }

    /// Returns the value, if it is UTF-8.
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
        str::from_utf8(&self.text[..usize::from(self.domain_len)]).expect("domains are ascii")
    }

    /// Returns the path, if it is UTF-8.
    pub fn path(&self) -> Option<&str> {
        str::from_utf8(self.path_bytes()).ok()
    }

    /// Returns the path.
    pub fn path_bytes(&self) -> &[u8] {
        let start = usize::from(self.domain_len);
        &self.text[start..start + usize::from(self.path_len)]
    }

    /// Returns whether it is sent to the host [`domain`](Self::domain) alone.
    pub fn host_only(&self) -> bool {
        self.flags.has(Flags::HOST_ONLY)
    }

    /// Returns whether it is sent over secure connections only.
    pub fn secure(&self) -> bool {
        self.flags.has(Flags::SECURE)
    }

    /// Returns whether it is hidden from scripts.
    pub fn http_only(&self) -> bool {
        self.flags.has(Flags::HTTP_ONLY)
    }

    /// Returns its `SameSite`, if one was given.
    pub fn same_site(&self) -> Option<SameSite> {
        self.flags.same_site()
    }

    /// Returns whether it had the attribute `Partitioned`; the jar keeps it and has no partitions.
    pub fn partitioned(&self) -> bool {
        self.flags.has(Flags::PARTITIONED)
    }

    /// Returns the partition that a browser kept it in, as an import named it.
    pub fn partition_key(&self) -> Option<&str> {
        let key = &self.text[self.text.len() - usize::from(self.partition_len)..];
        str::from_utf8(key).ok().filter(|key| !key.is_empty())
    }

    /// Returns when it ends; `None` for a session cookie.
    pub fn expires(&self) -> Option<Timestamp> {
        (self.expires != Timestamp::MAX).then_some(self.expires)
    }

    /// Returns whether it has ended at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires <= now
    }

    /// Returns when it was first set; setting it again does not change this.
    pub fn created(&self) -> Timestamp {
        self.created.timestamp()
    }

    /// Returns when it was last set or sent, to the precision that the jar keeps.
    ///
    /// Sending from the cached header is noted at the header and passed on to its cookies when
    /// the header is dropped, so this may be earlier than the last request.
    pub fn last_used(&self) -> Timestamp {
        self.used.timestamp()
    }

    /// Returns whether it was given by the user rather than by a response.
    pub fn is_user_set(&self) -> bool {
        self.flags.has(Flags::USER_SET)
    }

    /// Returns whether a request to `target` carries it, its expiry aside (§5.8.3).
    pub fn matches(&self, target: &CookieUrl<'_>) -> bool {
        self.reaches(target.host(), target.is_secure())
            && path_matches(target.path().as_bytes(), self.path_bytes())
    }

    /// Writes it as the `Set-Cookie` that would store it again, value included.
    ///
    /// The end is written to the second. A path that was taken from a URL with a `;` in it, or
    /// from one that is very long, cannot be said in an attribute and is left out.
    pub fn to_set_cookie(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.text.len() + 96);
        // A nameless cookie keeps its sign, or a `=` in its value would end a name.
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
        for (on, attribute) in [
            (self.secure(), &b"; Secure"[..]),
            (self.http_only(), b"; HttpOnly"),
            (self.partitioned(), b"; Partitioned"),
        ] {
            if on {
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

    pub(super) fn pair(&self) -> &[u8] {
        let start = usize::from(self.domain_len) + usize::from(self.path_len);
        &self.text[start..self.text.len() - usize::from(self.partition_len)]
    }

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

    /// Whether both are one cookie to the store: §5.7, step 23.
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

    /// Whether every host that gets `other` gets this one too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if self.host_only() {
            return other.host_only() && self.domain() == other.domain();
        }
        domain_matches(other.domain(), self.domain())
    }

    /// Longer paths first, then the older ones: §5.8.3, step 2.
    pub(super) fn sending_order(&self) -> (std::cmp::Reverse<u16>, EventTime) {
        (std::cmp::Reverse(self.path_len), self.created)
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        self.expires
    }

    pub(super) fn flags(&self) -> Flags {
        self.flags
    }

    pub(super) fn set_flags(&mut self, flags: Flags) {
        self.flags = flags;
    }

    pub(super) fn fingerprint(&self) -> u64 {
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

    /// Whether a value may take the place of this one's without being judged as a part of its `Set-Cookie`.
    pub(super) fn accepts_value(&self, value: &[u8]) -> bool {
        // Of a nameless cookie, the value has to stand for the name before some rules.
        self.name_len > 0 && usize::from(self.name_len) + value.len() <= MAX_PAIR && !has_control(value)
    }

    /// Puts another value in the old one's place, which must not be a nameless cookie's.
    pub(super) fn set_value(&mut self, value: &[u8]) {
        let end = self.text.len() - usize::from(self.partition_len);
        let start = end - self.value_bytes().len();
        if end - start == value.len() {
            self.text[start..end].copy_from_slice(value);
        } else {
            self.text = [&self.text[..start], value, &self.text[end..]].concat().into();
        }
    }

    /// Moves the end as reading the same `Set-Cookie` at `now` would.
    ///
    /// Returns `false` where only reading it can tell.
    pub(super) fn refresh(&mut self, now: Timestamp, used: EventTime) -> bool {
        let latest = now.saturating_add(MAX_LIFETIME);
        if self.lifetime > 0 {
            self.expires = now.saturating_add(Duration::from_secs(self.lifetime.into()));
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
    /// Compares what the cookie is, and not when it was created, used, or by whom.
    fn eq(&self, other: &Self) -> bool {
        let own = |cookie: &Self| cookie.flags.with(Flags::USER_SET, false);
        self.same_key(other)
            && self.text == other.text
            && own(self) == own(other)
            && self.expires == other.expires
    }
}

impl Eq for StoredCookie {}

#[cfg(feature = "shared")]
impl StoredCookie {
    /// Whether the two are equal, but that their ends may lie this far apart.
    pub(crate) fn eq_within(&self, other: &Self, drift: std::time::Duration) -> bool {
        let (early, late) = (self.expires.min(other.expires), self.expires.max(other.expires));
        if early == late {
            return self == other;
        }
        let ends_alike = late != Timestamp::MAX && late.saturating_since(early) <= drift;
        ends_alike && *self == Self { expires: self.expires, ..other.clone() }
    }
}

/// A cookie before it is judged and packed; borrowed, since most of them come from a header.
pub(super) struct Parts<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) domain: &'a str,
    pub(super) path: &'a [u8],
    pub(super) partition_key: &'a [u8],
    pub(super) flags: Flags,
    pub(super) expires: Timestamp,
    pub(super) lifetime: u32,
    pub(super) fingerprint: u64,
    pub(super) created: EventTime,
    pub(super) used: EventTime,
}

impl Parts<'_> {
    /// The rules that need neither the request nor the store: §5.7, steps 19 to 22.
    ///
    /// `path_given` tells an attribute `Path=/` from a default path that happens to be `/`.
    fn validate(&self, path_given: bool) -> Result<(), CookieErrorKind> {
        let secure = self.flags.has(Flags::SECURE);
        if self.flags.same_site() == Some(SameSite::None) && !secure {
            return Err(CookieErrorKind::SameSiteNoneInsecure);
        }
        let begins = |text: &[u8], prefix: &[u8]| {
            text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if begins(self.name, b"__Secure-") && !secure {
            return Err(CookieErrorKind::SecurePrefix);
        }
        if begins(self.name, b"__Host-") {
            let one_host = self.flags.has(Flags::HOST_ONLY);
            if !(secure && one_host && path_given && self.path == b"/") {
                return Err(CookieErrorKind::HostPrefix);
            }
        }
        let prefixed = |text| begins(text, b"__Secure-") || begins(text, b"__Host-");
        if self.name.is_empty() && prefixed(self.value) {
            return Err(CookieErrorKind::NamelessPrefix);
        }
        Ok(())
    }

    fn pack(&self) -> Result<StoredCookie, CookieErrorKind> {
        let length = |text: &[u8], kind| u16::try_from(text.len()).map_err(|_| kind);
        let domain_len = length(self.domain.as_bytes(), CookieErrorKind::InvalidDomain)?;
        let path_len = length(self.path, CookieErrorKind::InvalidPath)?;
        let name_len = length(self.name, CookieErrorKind::TooLong)?;
        let partition_len = length(self.partition_key, CookieErrorKind::TooLong)?;
        let sign: &[u8] = if self.name.is_empty() { b"" } else { b"=" };
        let domain = self.domain.as_bytes();
        let text = [domain, self.path, self.name, sign, self.value, self.partition_key].concat();
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

/// Judges a parsed `Set-Cookie` from `target` by §5.7, steps 6 to 22, but for the store's own.
pub(super) fn validate_set_cookie(
    set_cookie: &SetCookie<'_>,
    target: &CookieUrl<'_>,
    fingerprint: u64,
    now: Timestamp,
    event: EventTime,
) -> Result<StoredCookie, CookieErrorKind> {
    let mut flags = Flags::default()
        .with(Flags::SECURE, set_cookie.secure)
        .with(Flags::HTTP_ONLY, set_cookie.http_only)
        .with(Flags::PARTITIONED, set_cookie.partitioned)
        .with_same_site(set_cookie.same_site);

    // Domain, steps 7 to 10.
    let attribute = set_cookie.domain.unwrap_or_default();
    if !attribute.is_ascii() {
        return Err(CookieErrorKind::InvalidDomain);
    }
    let attribute = str::from_utf8(attribute).map_err(|_| CookieErrorKind::InvalidDomain)?;
    let host = target.host();
    let lowered;
    let attribute = if attribute.bytes().any(|byte| byte.is_ascii_uppercase()) {
        lowered = attribute.to_ascii_lowercase();
        lowered.as_str()
    } else {
        attribute
    };
    let domain = if attribute.is_empty() {
        flags = flags.with(Flags::HOST_ONLY, true);
        host
    } else if is_public_suffix(attribute) {
        if attribute != host {
            return Err(CookieErrorKind::PublicSuffix);
        }
        flags = flags.with(Flags::HOST_ONLY, true);
        host
    } else if domain_matches(host, attribute) && !attribute.starts_with('.') {
        // A second dot begins an empty label, of which no name consists.
        attribute
    } else {
        return Err(CookieErrorKind::DomainMismatch);
    };

    // Path, step 11; a path that does not begin with a slash stands for the default.
    let given = set_cookie.path.filter(|path| path.starts_with(b"/"));
    let path = given.unwrap_or_else(|| default_path(target.path()).as_bytes());

    if set_cookie.secure && !target.is_secure() {
        return Err(CookieErrorKind::SecureOverInsecure);
    }

    // Expiry, step 6 with the cap of §5.5. A cap on a date moves with the clock, so the bytes
    // that gave it must be read each time.
    let cap = MAX_LIFETIME.as_secs() as i64;
    let latest = now.saturating_add(MAX_LIFETIME);
    let (expires, lifetime, fingerprint) = match (set_cookie.max_age, set_cookie.expires) {
        (Some(seconds), _) if seconds <= 0 => (Timestamp::MIN, 0, 0),
        (Some(seconds), _) => {
            let lifetime = seconds.min(cap);
            let expires = now.saturating_add(Duration::from_secs(lifetime as u64));
            (expires, lifetime as u32, fingerprint)
        }
        (None, Some(date)) if date > latest => (latest, 0, 0),
        (None, Some(date)) => (date, 0, fingerprint),
        (None, None) => (Timestamp::MAX, 0, fingerprint),
    };

    let parts = Parts {
        name: set_cookie.name,
        value: set_cookie.value,
        domain,
        path,
        partition_key: b"",
        flags,
        expires,
        lifetime,
        fingerprint,
        created: event,
        used: event,
    };
    parts.validate(set_cookie.path.is_some())?;
    parts.pack()
}

/// Builds a [`StoredCookie`] by hand, as an importer does; judged by the rules of a response.
#[derive(Clone)]
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

impl StoredCookieBuilder {
    fn new(name: Vec<u8>, value: Vec<u8>, domain: String, host_only: bool) -> Self {
        Self {
            name,
            value,
            domain,
            path: b"/".to_vec(),
            partition_key: String::new(),
            flags: Flags::default().with(Flags::HOST_ONLY, host_only),
            expires: Timestamp::MAX,
            created: None,
            last_used: None,
        }
    }

    /// Sets the path, `/` by default.
    pub fn path(mut self, path: impl Into<Vec<u8>>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets whether it is sent over secure connections only, `false` by default.
    pub fn secure(mut self, secure: bool) -> Self {
        self.flags = self.flags.with(Flags::SECURE, secure);
        self
    }

    /// Sets whether it is hidden from scripts, `false` by default.
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.flags = self.flags.with(Flags::HTTP_ONLY, http_only);
        self
    }

    /// Sets its `SameSite`, none by default.
    pub fn same_site(mut self, same_site: impl Into<Option<SameSite>>) -> Self {
        self.flags = self.flags.with_same_site(same_site.into());
        self
    }

    /// Sets when it ends; a session cookie by default.
    ///
    /// The jar it is put into keeps it for 400 days at most.
    pub fn expires(mut self, expires: impl Into<Option<Timestamp>>) -> Self {
        self.expires = expires.into().unwrap_or(Timestamp::MAX);
        self
    }

    /// Sets when it was created; by default the moment it is put into a jar.
    pub fn created(mut self, created: Timestamp) -> Self {
        self.created = Some(created);
        self
    }

    /// Sets when it was last used; by default when it was created.
    pub fn last_used(mut self, last_used: Timestamp) -> Self {
        self.last_used = Some(last_used);
        self
    }

    /// Sets the attribute `Partitioned`, `false` by default.
    pub fn partitioned(mut self, partitioned: bool) -> Self {
        self.flags = self.flags.with(Flags::PARTITIONED, partitioned);
        self
    }

    /// Sets whether it was given by the user, `false` by default; see [`Jar::restore`].
    ///
    /// [`Jar::restore`]: super::Jar::restore
    pub fn user_set(mut self, given: bool) -> Self {
        self.flags = self.flags.with(Flags::USER_SET, given);
        self
    }

    /// Sets the partition that a browser kept it in, for an export to name it again.
    pub fn partition_key(mut self, key: impl Into<String>) -> Self {
        self.partition_key = key.into();
        self
    }

    /// Judges the cookie.
    ///
    /// An internationalised domain becomes punycode, and a domain that is a public suffix or an
    /// address stands for that host alone.
    ///
    /// # Errors
    ///
    /// The rule that is broken, and the cookie's name.
    pub fn build(self) -> Result<StoredCookie, CookieError> {
        self.validate().map_err(|kind| CookieError::named(kind, &self.name))
    }

    fn validate(&self) -> Result<StoredCookie, CookieErrorKind> {
        validate_pair(&self.name, &self.value)?;
        validate_path(&self.path)?;
        // A URL's host may be one that no attribute could name; its cookies come back as they were.
        let of_url = || canonical_host(&self.domain).filter(|_| self.flags.has(Flags::HOST_ONLY));
        let domain = canonical_domain(&self.domain).or_else(of_url).ok_or(CookieErrorKind::InvalidDomain)?;
        let one_host = is_ip(&domain) || is_public_suffix(&domain);
        if self.partition_key.bytes().any(is_control) {
            return Err(CookieErrorKind::ControlCharacter);
        }
        // Without a moment of its own the jar's clock gives it one.
        let created = self.created.map_or(EventTime::default(), EventTime::at);
        let parts = Parts {
            name: &self.name,
            value: &self.value,
            domain: &domain,
            path: &self.path,
            partition_key: self.partition_key.as_bytes(),
            flags: if one_host { self.flags.with(Flags::HOST_ONLY, true) } else { self.flags },
            expires: self.expires,
            lifetime: 0,
            fingerprint: 0,
            created,
            used: self.last_used.map_or(created, EventTime::at),
        };
        parts.validate(true)?;
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

/// Judges a name and a value that did not come through the parser, which would have parted them
/// elsewhere.
fn validate_pair(name: &[u8], value: &[u8]) -> Result<(), CookieErrorKind> {
    if name.is_empty() && value.is_empty() {
        return Err(CookieErrorKind::Empty);
    }
    if name.iter().chain(value).copied().any(is_control) {
        return Err(CookieErrorKind::ControlCharacter);
    }
    if name.len() + value.len() > MAX_PAIR {
        return Err(CookieErrorKind::TooLong);
    }
    let whole = |text: &[u8]| trimmed(text).len() == text.len() && !text.contains(&b';');
    if !whole(name) || !whole(value) || name.contains(&b'=') {
        return Err(CookieErrorKind::Syntax);
    }
    Ok(())
}

/// Judges a path by what a path of a request can be.
fn validate_path(path: &[u8]) -> Result<(), CookieErrorKind> {
    if path.iter().copied().any(is_control) {
        return Err(CookieErrorKind::ControlCharacter);
    }
    if !path.starts_with(b"/") || trimmed(path).len() != path.len() {
        return Err(CookieErrorKind::InvalidPath);
    }
    Ok(())
}

/// Whether a path can be an attribute; a default path may be longer, or have a `;` in it.
pub(super) fn is_writable_path(path: &[u8]) -> bool {
    path.len() <= MAX_ATTRIBUTE && !path.contains(&b';')
}
