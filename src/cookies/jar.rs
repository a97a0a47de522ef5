//! [`Jar`]: storage and retrieval of cookies, and the limits.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hasher},
    num::NonZeroU64,
    sync::LazyLock,
};

use foldhash::quality::RandomState;
use http::HeaderValue;
use smallvec::SmallVec;

use super::{
    CookieError, CookieErrorKind, CookieUrl, NewCookie, StoredCookie, Timestamp,
    domain::{canonical_domain, domain_matches, site_of},
    header::{CachedHeader, HeaderWriter, names},
    parse::{NameValue, SetCookie},
    path::default_path,
    rules::validate_set_cookie,
    site_index::Site,
    time::EventTime,
};

/// The keyed hasher for bytes that servers choose. One per process, to keep jars small.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// A cookie jar: it stores the cookies of responses and users, and selects those of a request.
///
/// See the [module docs](super) for the rules. The jar has no lock and reads no clock: put it in a
/// mutex, and pass the time as an argument.
///
/// # Clone
///
/// A clone is an independent jar.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::cookies::{Jar, CookieUrl, Timestamp};
///
/// let now = Timestamp::from_secs(1_700_000_000);
/// let login = CookieUrl::parse("https://example.com/login")?;
/// let mut jar = Jar::default();
/// jar.store_set_cookie(&login, b"id=42; Path=/; Max-Age=600; HttpOnly", now)?;
///
/// let page = CookieUrl::parse("https://example.com/account")?;
/// assert_eq!(jar.cookie_header(&page, || now).expect("a cookie matches"), "id=42");
///
/// let later = Timestamp::from_secs(1_700_000_600);
/// assert!(jar.cookie_header(&page, || later).is_none());
/// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
/// ```
#[derive(Clone, Default)]
pub struct Jar {
    /// Most jars have a single site, which is stored inline.
    sites: SmallVec<[Site; 1]>,
    /// The positions of the sites, if there are too many for a linear search.
    index: Option<Box<Index>>,
    /// The time of the last event.
    event: EventTime,
    expiry: ExpirySchedule,
    limits: Limits,
    /// The number of stored cookies.
    stored: u32,
    /// The site of the last look-up, which is likely that of the next.
    recent: u32,
}

/// The positions of the sites by name. Boxed, because most jars do not need it.
#[derive(Clone)]
struct Index(HashMap<Box<str>, u32, RandomState>);

/// When to look for expired cookies in all sites.
#[derive(Clone, Copy)]
struct ExpirySchedule {
    /// A lower bound of all expiry times.
    next: Timestamp,
    /// The cookies inserted since the last search, which amortise the next.
    inserted: u32,
}

impl Default for ExpirySchedule {
    fn default() -> Self {
        Self { next: Timestamp::MAX, inserted: 0 }
    }
}

/// The maximum numbers of cookies in a [`Jar`].
///
/// A jar above a limit first evicts expired cookies. Within one site it then evicts cookies that
/// are not `Secure`, and then the least recently used ones, as RFC 6265bis §5.7 requires.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::cookies::Limits;
///
/// let limits = Limits::default().per_domain(50).total(1_000);
/// assert_eq!(limits, Limits::default().total(1_000).per_domain(50));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Limits {
    per_domain: u32,
    total: u32,
}

impl Limits {
    /// Sets the maximum number of cookies per registrable domain. The default is 180.
    ///
    /// The minimum is 1; 0 is treated as 1.
    pub const fn per_domain(mut self, cookies: u32) -> Self {
        self.per_domain = if cookies == 0 { 1 } else { cookies };
        self
    }

    /// Sets the maximum number of cookies in the jar. The default is 50,000.
    ///
    /// The minimum is 1; 0 is treated as 1.
    pub const fn total(mut self, cookies: u32) -> Self {
        self.total = if cookies == 0 { 1 } else { cookies };
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_domain: 180, total: 50_000 }
    }
}

/// The effect of a `Set-Cookie` header on the jar.
#[derive(Debug)]
pub enum StoreOutcome<'j> {
    /// The header set a new cookie, or changed an existing one.
    Stored(&'j StoredCookie),
    /// The header was the same as before. At most the expiry time has changed.
    Refreshed(&'j StoredCookie),
    /// The cookie of the header has expired, which is how servers remove cookies. Contains the
    /// removed cookie, if there was one.
    Removed(Option<StoredCookie>),
}

impl StoreOutcome<'_> {
    /// Returns the cookie that is in the jar now, unless it was removed.
    pub fn cookie(&self) -> Option<&StoredCookie> {
        match self {
            Self::Stored(cookie) | Self::Refreshed(cookie) => Some(cookie),
            Self::Removed(_) => None,
        }
    }
}

impl Jar {
    /// The number of sites up to which a linear search is faster than an index.
    const FEW_SITES: usize = 4;

    /// Creates an empty jar with limits.
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Changes the limits. A jar above the limits evicts cookies when the next one is stored.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Returns the limits.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    // ---- Called by the layers.

    /// Returns the `Cookie` header of a request, marked as sensitive.
    ///
    /// The header is cached until a cookie of the site changes or expires, and a cached header is
    /// cloned without an allocation. `now` is called only if a cookie of the site can expire.
    pub fn cookie_header(
        &mut self,
        url: &CookieUrl<'_>,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<HeaderValue> {
        let at = self.find(url.host())?;
        self.event = self.event.tick();
        let mut clock = Clock::new(now);
        if let Some(hit) = self.sites[at].cached_header(url, self.event, || clock.read()) {
            return hit.value.clone();
        }
        if self.sites[at].earliest() != Timestamp::MAX {
            let now = clock.read();
            self.event = self.event.next(now);
            if self.remove_expired_in(at, now) {
                return None;
            }
        }
        self.sites[at].write_header(url, self.event)
    }

    /// Returns the cached header of a request without parsing its authority, if the last request
    /// went to the same site.
    pub(super) fn recent_header(
        &mut self,
        authority: &str,
        encrypted: bool,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<&CachedHeader> {
        self.event = self.event.tick();
        // Another site than the most recent one has to be found by its host.
        self.sites.get_mut(self.recent as usize)?.cached_header_for(authority, encrypted, self.event, now)
    }

    /// Looks for the cached header of a request. After a miss, call
    /// [`cookie_header`](Self::cookie_header).
    pub(super) fn look_up(&mut self, url: &CookieUrl<'_>, now: impl FnOnce() -> Timestamp) -> Lookup<'_> {
        let Some(at) = self.find(url.host()) else {
            return Lookup::UnknownSite;
        };
        self.event = self.event.tick();
        let any_path = self.sites[at].has_root_paths_only();
        match self.sites[at].cached_header(url, self.event, now) {
            Some(header) => Lookup::Hit { header, any_path },
            None => Lookup::Miss,
        }
    }

    /// Records the use of a published copy of a cached header. The cookies have not changed since
    /// it was published.
    pub(super) fn record_use(&mut self, copy: &CachedHeader, used: EventTime) {
        if let Some(at) = self.locate(copy.host_name()) {
            self.sites[at].record_use_of_copy(copy, used);
        }
    }

    /// The time of the last event.
    pub(super) fn event(&self) -> EventTime {
        self.event
    }

    /// Makes all later events later than `event`.
    pub(super) fn advance_to(&mut self, event: EventTime) {
        self.event = self.event.max(event);
    }

    /// The number of stored cookies, including expired ones.
    pub(super) fn stored(&self) -> u32 {
        self.stored
    }

    /// Returns the `Cookie` header of a request that already has `Cookie` headers of its own.
    ///
    /// The request's cookies come first and replace cookies of the jar with the same name. They are
    /// not stored.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderValue;
    /// use tower_client_sessions::cookies::{Jar, CookieUrl, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut jar = Jar::default();
    /// jar.add([("id", "jar"), ("theme", "dark")], "https://example.com/", now)?;
    ///
    /// let own = HeaderValue::from_static("id=own");
    /// let url = CookieUrl::parse("https://example.com/")?;
    /// let header = jar.cookie_header_with(&url, [&own].into_iter(), || now);
    /// assert_eq!(header.expect("there are cookies to send"), "id=own; theme=dark");
    /// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
    /// ```
    pub fn cookie_header_with<'h>(
        &mut self,
        url: &CookieUrl<'_>,
        own: impl Iterator<Item = &'h HeaderValue>,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<HeaderValue> {
        let mut writer = HeaderWriter::with_capacity(0);
        for header in own {
            let header = header.as_bytes().trim_ascii();
            if !header.is_empty() {
                writer.push(header);
            }
        }
        if writer.text().is_empty() {
            return self.cookie_header(url, now);
        }
        let Some(at) = self.find(url.host()) else {
            return writer.finish();
        };
        self.event = self.event.tick();
        if self.sites[at].earliest() != Timestamp::MAX {
            let now = now();
            self.event = self.event.next(now);
            if self.remove_expired_in(at, now) {
                return writer.finish();
            }
        }
        let own = writer.text().to_vec();
        for cookie in self.sites[at].matching(url, Timestamp::MIN) {
            if !names(&own).any(|name| name == cookie.name_bytes()) {
                writer.push(cookie.pair());
            }
        }
        writer.finish()
    }

    /// Stores the cookie of one `Set-Cookie` header of a response.
    ///
    /// A header that has set a cookie before is not parsed again: an equal header only updates the
    /// expiry time, and one that differs in the value only replaces the value.
    ///
    /// # Errors
    ///
    /// Returns the rule that the cookie violates. The jar is unchanged.
    pub fn store_set_cookie(
        &mut self,
        url: &CookieUrl<'_>,
        set_cookie: &[u8],
        now: Timestamp,
    ) -> Result<StoreOutcome<'_>, CookieError> {
        self.event = self.event.next(now);
        let split = NameValue::new(set_cookie);
        let fingerprint = fingerprint(url, &split);
        if let Some(site) = self.find(url.host())
            && let Some((at, value_changed)) =
                self.sites[site].refresh(fingerprint, split.value, url, now, self.event)
        {
            let cookie = &self.sites[site].cookies()[at];
            self.expiry.next = self.expiry.next.min(cookie.expires_at());
            return Ok(if value_changed {
                StoreOutcome::Stored(cookie)
            } else {
                StoreOutcome::Refreshed(cookie)
            });
        }
        let cookie = self.validate(url, set_cookie, Some(fingerprint), now)?;
        Ok(match self.insert_cookie(cookie, now) {
            InsertResult::Inserted { site, at } => StoreOutcome::Stored(&self.sites[site].cookies()[at]),
            InsertResult::Expired { removed } => StoreOutcome::Removed(removed),
        })
    }

    /// Parses a `Set-Cookie` header and applies all rules, including step 16 of §5.7.
    fn validate(
        &mut self,
        url: &CookieUrl<'_>,
        set_cookie: &[u8],
        fingerprint: Option<NonZeroU64>,
        now: Timestamp,
    ) -> Result<StoredCookie, CookieError> {
        let parsed =
            SetCookie::parse(set_cookie).map_err(|(kind, name)| CookieError::for_cookie(kind, name))?;
        let cookie = validate_set_cookie(&parsed, url, fingerprint, now, self.event)
            .map_err(|kind| CookieError::for_cookie(kind, parsed.name))?;
        if !url.is_secure()
            && !cookie.secure()
            && let Some(site) = self.locate(cookie.domain())
            && !self.remove_expired_in(site, now)
            && self.sites[site].has_secure_under(&cookie)
        {
            return Err(CookieError::for_cookie(CookieErrorKind::OverlaysSecure, parsed.name));
        }
        Ok(cookie)
    }

    // ---- Called by users.

    /// Adds cookies for a URL: pairs of name and value, [`cookie::Cookie`]s or [`StoredCookie`]s.
    ///
    /// Either all cookies are added, or none. A cookie set by the user is never sent together with
    /// a cookie of a response that has the same name and path: only the newer one is sent, even if
    /// their domains are written differently. An expired cookie removes the cookie that it would
    /// replace.
    ///
    /// # Errors
    ///
    /// Returns the error of the first rejected cookie, with its [name](CookieError::name) and
    /// [index](CookieError::index), or of the URL. The jar is unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::cookies::{CookieErrorKind, Jar, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut jar = Jar::default();
    /// jar.add([("id", "42"), ("lang", "en")], "https://example.com/", now)?;
    ///
    /// let cookie = cookie::Cookie::build(("beta", "1")).domain("example.com").path("/new");
    /// jar.add([cookie.build()], "https://www.example.com/", now)?;
    /// assert_eq!(jar.len(now), 3);
    ///
    /// let result = jar.add([("a", "1"), ("b", "2; Path=/")], "https://example.com/", now);
    /// let error = result.unwrap_err();
    /// assert_eq!(error.kind(), CookieErrorKind::Syntax);
    /// assert_eq!((error.name(), error.index()), (Some("b"), Some(1)));
    /// assert_eq!(jar.len(now), 3);
    /// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
    /// ```
    pub fn add<'u, 'c, C>(
        &mut self,
        cookies: impl IntoIterator<Item = C>,
        url: impl TryInto<CookieUrl<'u>, Error: Into<CookieError>>,
        now: Timestamp,
    ) -> Result<(), CookieError>
    where
        C: Into<NewCookie<'c>>,
    {
        let url = url.try_into().map_err(Into::into)?;
        let mut validated = Vec::new();
        for (index, cookie) in cookies.into_iter().enumerate() {
            let cookie = cookie.into().validate(&url, now);
            validated.push(cookie.map_err(|error| error.at_index(index))?);
        }
        for cookie in validated {
            self.insert_user_set(cookie, now);
        }
        Ok(())
    }

    /// Sets a cookie from the text of a `Set-Cookie` header, as if a response from `url` had it.
    ///
    /// The cookie counts as set by the user; see [`add`](Self::add).
    ///
    /// # Errors
    ///
    /// Returns the rule that the cookie violates, or the error of the URL. The jar is unchanged.
    pub fn set<'u>(
        &mut self,
        set_cookie: &str,
        url: impl TryInto<CookieUrl<'u>, Error: Into<CookieError>>,
        now: Timestamp,
    ) -> Result<(), CookieError> {
        let url = url.try_into().map_err(Into::into)?;
        self.event = self.event.next(now);
        let cookie = self.validate(&url, set_cookie.as_bytes(), None, now)?;
        self.insert_user_set(cookie, now);
        Ok(())
    }

    /// Inserts a complete cookie, as an importer has it.
    ///
    /// The cookie counts as set by the user. Its timestamps are kept, and its lifetime is capped at
    /// 400 days. An expired cookie removes the cookie that it would replace.
    pub fn insert(&mut self, cookie: StoredCookie, now: Timestamp) {
        self.insert_user_set(cookie, now);
    }

    /// Inserts a cookie that was in a jar before.
    ///
    /// Unlike [`insert`](Self::insert), this keeps [`is_user_set`](StoredCookie::is_user_set).
    pub fn restore(&mut self, mut cookie: StoredCookie, now: Timestamp) {
        self.event = self.event.next(now);
        cookie.cap_lifetime(now);
        cookie.set_created(cookie.created_event().ordered_by(self.event));
        cookie.set_used(cookie.used().ordered_by(self.event));
        self.insert_cookie(cookie, now);
    }

    /// Inserts the cookies of a saved jar, and returns how many of them had expired.
    ///
    /// Timestamps are kept, unless they are in the future. Cookies with equal timestamps keep the
    /// order of the list.
    #[cfg(feature = "serde")]
    pub(crate) fn restore_all(&mut self, mut cookies: Vec<StoredCookie>, now: Timestamp) -> usize {
        let before = cookies.len();
        cookies.retain(|cookie| !cookie.is_expired(now));
        let expired = before - cookies.len();
        let latest = EventTime::at(now);
        cookies.sort_by_key(StoredCookie::created_event);
        for cookie in &mut cookies {
            self.event = cookie.created_event().min(latest).max(self.event.tick());
            cookie.set_created(self.event);
            cookie.cap_lifetime(now);
        }
        cookies.sort_by_key(StoredCookie::used);
        let created_last = std::mem::take(&mut self.event);
        for cookie in &mut cookies {
            self.event = cookie.used().min(latest).max(self.event.tick());
            cookie.set_used(self.event);
        }
        self.event = self.event.max(created_last);
        // If one cookie shadows another, the broader one was set first. Otherwise it would have
        // displaced the narrower one.
        cookies.sort_by_key(|cookie| (cookie.host_only(), cookie.domain().len()));
        for cookie in cookies {
            self.insert_cookie(cookie, now);
        }
        expired
    }

    /// Removes the cookie with this domain, path and name, and returns it.
    ///
    /// If there are a host-only cookie and a domain cookie, both are removed, and the host-only one
    /// is returned. Use [`retain`](Self::retain) to remove cookies by another rule.
    pub fn remove(&mut self, domain: &str, path: &str, name: &str) -> Option<StoredCookie> {
        let domain = canonical_domain(domain)?;
        let site = self.locate(&domain)?;
        let matches = |cookie: &StoredCookie| {
            cookie.name_bytes() == name.as_bytes()
                && cookie.path_bytes() == path.as_bytes()
                && cookie.domain() == domain
        };
        let found = self.sites[site].cookies().iter().filter(|cookie| matches(cookie));
        let removed = found.max_by_key(|cookie| cookie.host_only())?.clone();
        self.retain_in(site, |cookie| !matches(cookie));
        Some(removed)
    }

    /// Keeps only the cookies for which `keep` returns `true`.
    pub fn retain(&mut self, mut keep: impl FnMut(&StoredCookie) -> bool) {
        for site in (0..self.sites.len()).rev() {
            self.retain_in(site, &mut keep);
        }
    }

    /// Removes all cookies. The limits are kept.
    pub fn clear(&mut self) {
        *self = Self { limits: self.limits, event: self.event, ..Self::default() };
    }

    /// Removes all expired cookies.
    ///
    /// A jar in use removes them itself. Call this before leaving a jar unused for a long time.
    pub fn remove_expired(&mut self, now: Timestamp) {
        self.expiry = ExpirySchedule::default();
        for site in (0..self.sites.len()).rev() {
            if !self.remove_expired_in(site, now) {
                let earliest = self.sites[site].earliest();
                self.expiry.next = self.expiry.next.min(earliest);
            }
        }
    }

    /// Returns the number of cookies that have not expired at `now`.
    pub fn len(&self, now: Timestamp) -> usize {
        self.iter(now).count()
    }

    /// Returns whether all cookies have expired at `now`, or there are none.
    pub fn is_empty(&self, now: Timestamp) -> bool {
        self.iter(now).next().is_none()
    }

    /// Iterates over the cookies that have not expired at `now`, grouped by site.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = &StoredCookie> {
        self.sites.iter().flat_map(|site| site.cookies()).filter(move |cookie| !cookie.is_expired(now))
    }

    /// Returns the cookies that have not expired at `now`, in the order of their creation.
    #[cfg(feature = "serde")]
    pub(crate) fn by_creation(&self, now: Timestamp) -> Vec<StoredCookie> {
        let mut cookies: Vec<_> = self.iter(now).cloned().collect();
        cookies.sort_by_key(StoredCookie::created_event);
        cookies
    }

    /// Returns the cookies of a request to `url`, in the order in which they are sent.
    pub fn matching(&self, url: &CookieUrl<'_>, now: Timestamp) -> Vec<&StoredCookie> {
        let Some(site) = self.locate(url.host()) else {
            return Vec::new();
        };
        self.sites[site].matching(url, now).collect()
    }

    /// Returns the first cookie with this name that a request to `url` carries.
    pub fn get(&self, name: &str, url: &CookieUrl<'_>, now: Timestamp) -> Option<&StoredCookie> {
        self.matching(url, now).into_iter().find(|cookie| cookie.name_bytes() == name.as_bytes())
    }

    /// Iterates over the cookies of a domain and its subdomains.
    pub fn in_domain<'j>(
        &'j self,
        domain: &str,
        now: Timestamp,
    ) -> impl Iterator<Item = &'j StoredCookie> + use<'j> {
        let domain = canonical_domain(domain).map(|domain| domain.into_owned());
        self.iter(now).filter(move |cookie| {
            domain.as_deref().is_some_and(|domain| domain_matches(cookie.domain(), domain))
        })
    }

    /// Iterates over the cookies whose path is exactly `path`.
    pub fn with_path(&self, path: &str, now: Timestamp) -> impl Iterator<Item = &StoredCookie> {
        self.iter(now).filter(move |cookie| cookie.path_bytes() == path.as_bytes())
    }

    /// Returns the earliest expiry time, or `None` if all cookies are session cookies.
    pub fn earliest_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.iter(now).filter_map(StoredCookie::expires).min()
    }

    // ---- Storage.

    /// Finds the site of a host or domain, and tries it first in the next look-up.
    fn find(&mut self, host: &str) -> Option<usize> {
        let found = self.locate(host)?;
        self.recent = found as u32;
        Some(found)
    }

    /// Finds the site of a host or domain.
    fn locate(&self, host: &str) -> Option<usize> {
        let recent = self.recent as usize;
        if self.sites.get(recent).is_some_and(|site| site.contains_host(host)) {
            return Some(recent);
        }
        match &self.index {
            Some(index) => index.0.get(site_of(host)).map(|&at| at as usize),
            // For a few sites, a linear search is cheaper than the public suffix list.
            None => self.sites.iter().position(|site| site.contains_host(host)),
        }
    }

    fn insert_user_set(&mut self, mut cookie: StoredCookie, now: Timestamp) {
        cookie.mark_user_set();
        self.restore(cookie, now);
    }

    fn insert_cookie(&mut self, cookie: StoredCookie, now: Timestamp) -> InsertResult {
        self.remove_expired_if_due(now);
        // Expired cookies count neither for the limits nor for the rules.
        let site = self.locate(cookie.domain()).filter(|&site| !self.remove_expired_in(site, now));
        if site.is_none() && cookie.is_expired(now) {
            return InsertResult::Expired { removed: None };
        }
        let expires_at = cookie.expires_at();
        let Some(site) = site else {
            let name: Box<str> = site_of(cookie.domain()).into();
            let mut site = Site::new(&name);
            site.insert(cookie);
            self.push_site(site, name);
            return self.enforce_limits(self.sites.len() - 1, 0, expires_at, now);
        };
        if cookie.is_expired(now) {
            let mut removed = None;
            self.remove_from_site(site, |site| {
                let before = site.cookies().len();
                removed = site.remove_replaced_by(&cookie);
                before - site.cookies().len()
            });
            return InsertResult::Expired { removed };
        }
        let before = self.sites[site].cookies().len();
        let at = self.sites[site].insert(cookie);
        let after = self.sites[site].cookies().len();
        self.stored = self.stored + after as u32 - before as u32;
        self.enforce_limits(site, at, expires_at, now)
    }

    /// Evicts cookies above the limits after an insertion, and returns where the new cookie is.
    fn enforce_limits(
        &mut self,
        site: usize,
        at: usize,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> InsertResult {
        self.expiry.next = self.expiry.next.min(expires_at);
        self.expiry.inserted = self.expiry.inserted.saturating_add(1);
        let crowded = self.sites[site].cookies().len() > self.limits.per_domain as usize;
        if !crowded && self.stored <= self.limits.total {
            return InsertResult::Inserted { site, at };
        }
        let cookie = self.sites[site].cookies()[at].clone();
        while self.sites[site].cookies().len() > self.limits.per_domain as usize {
            let before = self.sites[site].cookies().len();
            self.sites[site].evict_one(&cookie);
            self.stored -= (before - self.sites[site].cookies().len()) as u32;
        }
        if self.stored > self.limits.total {
            self.remove_expired(now);
            self.evict_least_used(&cookie);
        }
        let site = self.locate(cookie.domain()).expect("the newest is not evicted");
        let same = |other: &StoredCookie| other.same_key(&cookie);
        let at = self.sites[site].cookies().iter().position(same).expect("the newest is not evicted");
        InsertResult::Inserted { site, at }
    }

    /// Evicts the least recently used cookies of the whole jar, except `kept`.
    ///
    /// A large jar evicts more cookies than necessary, to amortise the search.
    fn evict_least_used(&mut self, kept: &StoredCookie) {
        let Some(excess) = self.stored.checked_sub(self.limits.total).filter(|&excess| excess > 0) else {
            return;
        };
        let excess = excess.max(self.limits.total / 64) as usize;
        let mut uses: Vec<EventTime> = Vec::with_capacity(self.stored as usize);
        for site in &mut self.sites {
            site.clear_headers();
            let others = site.cookies().iter().filter(|cookie| !cookie.same_key(kept));
            uses.extend(others.map(StoredCookie::used));
        }
        let last = excess.min(uses.len()).saturating_sub(1);
        let (_, &mut last, _) = uses.select_nth_unstable(last);
        let mut left = excess;
        self.retain(|cookie| {
            let evict = left > 0 && cookie.used() <= last && !cookie.same_key(kept);
            left -= usize::from(evict);
            !evict
        });
    }

    fn remove_expired_if_due(&mut self, now: Timestamp) {
        // The search visits all sites. It is amortised over a proportional number of insertions.
        let due = now >= self.expiry.next;
        if due && self.expiry.inserted as usize >= self.sites.len() / 64 {
            self.remove_expired(now);
        }
    }

    /// Removes the expired cookies of a site, and returns whether that removed the site.
    fn remove_expired_in(&mut self, site: usize, now: Timestamp) -> bool {
        if now < self.sites[site].earliest() {
            return false;
        }
        self.remove_from_site(site, |site| site.remove_expired(now))
    }

    fn retain_in(&mut self, site: usize, keep: impl FnMut(&StoredCookie) -> bool) {
        self.remove_from_site(site, |site| site.retain(keep));
    }

    /// Removes cookies from a site with `remove`, which returns their number, and removes a site
    /// without cookies from the jar. Returns whether the site was removed.
    fn remove_from_site(&mut self, at: usize, remove: impl FnOnce(&mut Site) -> usize) -> bool {
        // The name of a site is part of its first cookie, so copy it before the removal.
        let name = self.index.is_some().then(|| self.sites[at].name().to_owned());
        self.stored -= remove(&mut self.sites[at]) as u32;
        if !self.sites[at].cookies().is_empty() {
            return false;
        }
        self.sites.swap_remove(at);
        if let (Some(index), Some(name)) = (&mut self.index, name) {
            index.0.remove(name.as_str());
            if let Some(moved) = self.sites.get(at) {
                let entry = index.0.get_mut(moved.name());
                *entry.expect("every site is in the index") = at as u32;
            }
        }
        if self.sites.len() <= Self::FEW_SITES {
            self.index = None;
            self.sites.shrink_to_fit();
        }
        true
    }

    fn push_site(&mut self, site: Site, name: Box<str>) {
        self.stored += site.cookies().len() as u32;
        if self.sites.len() == self.sites.capacity() && self.sites.len() < Self::FEW_SITES {
            self.sites.reserve_exact(1);
        }
        self.sites.push(site);
        let at = (self.sites.len() - 1) as u32;
        if let Some(index) = &mut self.index {
            index.0.insert(name, at);
        } else if self.sites.len() > Self::FEW_SITES {
            self.rebuild_index();
        }
    }

    fn rebuild_index(&mut self) {
        let mut index = HashMap::with_capacity_and_hasher(self.sites.len(), HASHER.clone());
        for (at, site) in self.sites.iter().enumerate() {
            index.insert(site.name().into(), at as u32);
        }
        self.index = Some(Box::new(Index(index)));
    }
}

/// The result of looking for a cached header.
pub(super) enum Lookup<'j> {
    /// The jar has no cookie of the site.
    UnknownSite,
    /// `any_path`: the header is the same for all paths of the host.
    Hit {
        header: &'j CachedHeader,
        any_path: bool,
    },
    Miss,
}

/// The result of inserting a cookie.
enum InsertResult {
    /// The indices of the site and of the cookie within it.
    Inserted { site: usize, at: usize },
    /// The cookie had expired. It removed the cookie that it would have replaced, if any.
    Expired { removed: Option<StoredCookie> },
}

/// A clock that is read at most once.
struct Clock<F> {
    read: Option<F>,
    now: Timestamp,
}

impl<F: FnOnce() -> Timestamp> Clock<F> {
    fn new(read: F) -> Self {
        Self { read: Some(read), now: Timestamp::MIN }
    }

    fn read(&mut self) -> Timestamp {
        if let Some(read) = self.read.take() {
            self.now = read();
        }
        self.now
    }
}

/// Hashes everything that determines the result of a `Set-Cookie` header, except the value, the
/// time, and the other cookies of the jar.
fn fingerprint(url: &CookieUrl<'_>, set_cookie: &NameValue<'_>) -> NonZeroU64 {
    let mut hasher = HASHER.build_hasher();
    let attributes = set_cookie.attributes.unwrap_or_default();
    hasher.write(set_cookie.name);
    hasher.write(attributes);
    hasher.write(url.host().as_bytes());
    hasher.write(default_path(url.path()).as_bytes());
    // The lengths separate the hashed parts. Each is far below 2^32.
    hasher.write_usize(set_cookie.name.len() << 32 | attributes.len());
    hasher.write_usize(url.host().len() << 1 | usize::from(url.is_secure()));
    NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
}

impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jar")
            .field("sites", &self.sites.len())
            .field("cookies", &self.stored)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Jar {
    /// Lists the cookies without their values, including expired ones that are not removed yet.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cookies = self.sites.iter().flat_map(|site| site.cookies());
        for (at, cookie) in cookies.enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{cookie}")?;
        }
        Ok(())
    }
}
