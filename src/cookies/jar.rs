use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use foldhash::quality::RandomState;
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use smallvec::SmallVec;

use super::domain::{canonical_domain, domain_matches, site_of};
use super::header::{HeaderWriter, names};
use super::parse::{NameValue, SetCookie};
use super::path::default_path;
use super::site_index::Site;
use super::stored::{Flags, validate_set_cookie};
use super::time::EventTime;
use super::{CookieError, CookieErrorKind, CookieUrl, NewCookie, StoredCookie, Timestamp};

/// Keys the hashes of bytes that strangers choose; one per process, so that a jar need not
/// carry one.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// A jar of cookies: what responses set, what requests carry, and what the user does to both.
///
/// See the [module docs](super) for the rules. The jar has no lock and no clock: put it behind
/// a mutex, and hand in the time.
///
/// # Clone
///
/// A clone is a jar of its own; nothing is shared.
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
/// assert_eq!(jar.header(&page, || now).expect("a cookie goes there"), "id=42");
///
/// let later = Timestamp::from_secs(1_700_000_600);
/// assert!(jar.header(&page, || later).is_none());
/// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
/// ```
#[derive(Clone, Default)]
pub struct Jar {
    /// A session is mostly of one site, which then lies here.
    sites: SmallVec<[Site; 1]>,
    /// Where each site is, once there are too many to look through.
    index: Option<Box<Index>>,
    /// The last event, which the next one comes after.
    event: EventTime,
    /// No cookie ends before this; it may be earlier than the first that does.
    expiry: ExpirySchedule,
    limits: Limits,
    stored: u32,
    /// The site of the last look-up, likely that of the next.
    recent: u32,
}

/// Sites by name; boxed as a whole, since most jars never need one.
#[derive(Clone)]
struct Index(HashMap<Box<str>, u32, RandomState>);

/// When expired cookies of sites that nobody asks for are looked for.
#[derive(Clone, Copy)]
struct ExpirySchedule {
    at: Timestamp,
    /// Cookies put in since the last sweep; they pay for the next.
    credit: u32,
}

impl Default for ExpirySchedule {
    fn default() -> Self {
        Self { at: Timestamp::MAX, credit: 0 }
    }
}

/// How many cookies a [`Jar`] holds before it evicts some.
///
/// Expired cookies go first. Within one site come those that are not `Secure` next, then the
/// least recently used ones, as RFC 6265bis §5.7 says.
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
pub struct Limits {
    per_domain: u32,
    total: u32,
}

impl Limits {
    /// Sets how many cookies one registrable domain may have, 180 by default and at least 1.
    pub const fn per_domain(mut self, cookies: u32) -> Self {
        self.per_domain = if cookies == 0 { 1 } else { cookies };
        self
    }

    /// Sets how many cookies the jar holds in all, 50,000 by default and at least 1.
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

/// What a `Set-Cookie` did to the jar.
#[derive(Debug)]
pub enum StoreOutcome<'j> {
    /// A new cookie, or a new value of an old one.
    Stored(&'j StoredCookie),
    /// The same bytes again: at most its end has moved.
    Refreshed(&'j StoredCookie),
    /// It had expired already, which is how servers delete; with the cookie that went, if any.
    Removed(Option<StoredCookie>),
}

impl StoreOutcome<'_> {
    /// Returns the cookie that is in the jar now.
    pub fn cookie(&self) -> Option<&StoredCookie> {
        match self {
            Self::Stored(cookie) | Self::Refreshed(cookie) => Some(cookie),
            Self::Removed(_) => None,
        }
    }
}

impl Jar {
    /// Sites that are looked through one by one before an index pays.
    const FEW_SITES: usize = 4;

    /// Creates an empty jar with other limits than [the default](Limits::default).
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Changes the limits; a jar that is over them evicts when the next cookie comes.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Returns the limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    // ---- What the layers call.

    /// Returns the `Cookie` header of a request, marked as sensitive.
    ///
    /// It is written once and cloned from then on, without an allocation, until a cookie of its
    /// site changes or ends. The clock is read only if some cookie of that site can end.
    pub fn cookie_header(
        &mut self,
        target: &CookieUrl<'_>,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<HeaderValue> {
        let at = self.find(target.host())?;
        self.event = self.event.tick();
        let mut clock = Clock::new(now);
        if let Some(hit) = self.sites[at].compiled(target, self.event, || clock.read()) {
            return hit;
        }
        if self.sites[at].earliest() != Timestamp::MAX {
            let now = clock.read();
            self.event = self.event.next(now);
            if self.remove_expired_in(at, now) {
                return None;
            }
        }
        self.sites[at].compile(target, self.event)
    }

    /// The header of a request to `uri` if it is at hand, as it mostly is: told without reading the URI as a target.
    ///
    /// `None`: ask [`header`](Self::header).
    pub(crate) fn cached_header(
        &mut self,
        uri: &Uri,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<Option<HeaderValue>> {
        let encrypted = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        self.event = self.event.tick();
        // Another site than the last one has to be found by its host.
        self.sites.get_mut(self.recent as usize)?.compiled_for(authority, encrypted, self.event, now)
    }

    /// Returns the `Cookie` header of a request that has cookies of its own.
    ///
    /// Its own come first and win by name over the jar's, for this request only: nothing is
    /// stored.
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
    /// let target = CookieUrl::parse("https://example.com/")?;
    /// let header = jar.cookie_header_with(&target, [&own].into_iter(), || now);
    /// assert_eq!(header.expect("there are cookies"), "id=own; theme=dark");
    /// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
    /// ```
    pub fn cookie_header_with<'h>(
        &mut self,
        target: &CookieUrl<'_>,
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
            return self.cookie_header(target, now);
        }
        let Some(at) = self.find(target.host()) else {
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
        for cookie in self.sites[at].matching(target, Timestamp::MIN) {
            if !names(&own).any(|name| name == cookie.name_bytes()) {
                writer.push(cookie.pair());
            }
        }
        writer.finish()
    }

    /// Stores one `Set-Cookie` of a response.
    ///
    /// What has set a cookie before is not read again: the very bytes only move its end, and another value takes its place.
    ///
    /// # Errors
    ///
    /// The rule that refuses it; the jar is as it was.
    pub fn store_set_cookie(
        &mut self,
        target: &CookieUrl<'_>,
        set_cookie: &[u8],
        now: Timestamp,
    ) -> Result<StoreOutcome<'_>, CookieError> {
        self.event = self.event.next(now);
        let split = NameValue::new(set_cookie);
        let fingerprint = fingerprint(target, &split);
        if let Some(site) = self.find(target.host())
            && let Some((at, value_changed)) =
                self.sites[site].refresh(fingerprint, split.value, target, now, self.event)
        {
            let cookie = &self.sites[site].cookies()[at];
            self.expiry.at = self.expiry.at.min(cookie.expires_at());
            return Ok(if value_changed {
                StoreOutcome::Stored(cookie)
            } else {
                StoreOutcome::Refreshed(cookie)
            });
        }
        let cookie = self.read(target, set_cookie, fingerprint, now)?;
        Ok(match self.insert_cookie(cookie, now) {
            InsertResult::At(site, at) => StoreOutcome::Stored(&self.sites[site].cookies()[at]),
            InsertResult::Gone(old) => StoreOutcome::Removed(old),
        })
    }

    /// Reads a `Set-Cookie` by all rules of a response, the store's own included.
    fn read(
        &mut self,
        target: &CookieUrl<'_>,
        set_cookie: &[u8],
        fingerprint: u64,
        now: Timestamp,
    ) -> Result<StoredCookie, CookieError> {
        let parsed = SetCookie::parse(set_cookie).map_err(|(kind, name)| CookieError::named(kind, name))?;
        let cookie = validate_set_cookie(&parsed, target, fingerprint, now, self.event)
            .map_err(|kind| CookieError::named(kind, parsed.name))?;
        if !target.is_secure()
            && !cookie.secure()
            && let Some(site) = self.locate(cookie.domain())
            && !self.remove_expired_in(site, now)
            && self.sites[site].has_secure_under(&cookie)
        {
            return Err(CookieError::named(CookieErrorKind::OverlaysSecure, parsed.name));
        }
        Ok(cookie)
    }

    // ---- What users call.

    /// Adds cookies for a URL: pairs of name and value, [`cookie::Cookie`]s or [`StoredCookie`]s.
    ///
    /// All of them or none. What the user adds is not sent beside the same cookie (name and
    /// path) of a response: whichever came last is sent, however each wrote its domain.
    /// A cookie that has expired removes its like.
    ///
    /// # Errors
    ///
    /// The first that is refused, by [name](CookieError::name) and [place](CookieError::index);
    /// or the URL. The jar is as it was.
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
    /// let refused = jar.add([("a", "1"), ("b", "2; Path=/")], "https://example.com/", now);
    /// let refused = refused.unwrap_err();
    /// assert_eq!(refused.kind(), CookieErrorKind::Syntax);
    /// assert_eq!((refused.name(), refused.index()), (Some("b"), Some(1)));
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
        let target = url.try_into().map_err(Into::into)?;
        let mut validated = Vec::new();
        for (index, cookie) in cookies.into_iter().enumerate() {
            let cookie = cookie.into().validate(&target, now);
            validated.push(cookie.map_err(|error| error.at(index))?);
        }
        for cookie in validated {
            self.insert_user_set(cookie, now);
        }
        Ok(())
    }

    /// Sets a cookie written as a `Set-Cookie`, by the rules of a response from this URL.
    ///
    /// # Errors
    ///
    /// The rule that refuses it, or the URL; the jar is as it was.
    pub fn set<'u>(
        &mut self,
        set_cookie: &str,
        url: impl TryInto<CookieUrl<'u>, Error: Into<CookieError>>,
        now: Timestamp,
    ) -> Result<(), CookieError> {
        let target = url.try_into().map_err(Into::into)?;
        self.event = self.event.next(now);
        let cookie = self.read(&target, set_cookie.as_bytes(), 0, now)?;
        self.insert_user_set(cookie, now);
        Ok(())
    }

    /// Puts in a cookie that says for itself where it goes, as an importer has it.
    ///
    /// It counts as given by the user. Its moments are kept, but that it ends after 400 days at
    /// the latest; one that has expired removes its like.
    pub fn insert(&mut self, cookie: StoredCookie, now: Timestamp) {
        self.insert_user_set(cookie, now);
    }

    /// Puts in a cookie that was in a jar before, as [`insert`](Self::insert) does, but that it
    /// is still given by whoever gave it.
    pub fn restore(&mut self, mut cookie: StoredCookie, now: Timestamp) {
        self.event = self.event.next(now);
        cookie.cap_lifetime(now);
        let untold = EventTime::default();
        let told = |moment: EventTime, event: EventTime| {
            if moment == untold { event } else { moment.ordered_by(event) }
        };
        cookie.set_created(told(cookie.created_event(), self.event));
        cookie.set_used(told(cookie.used(), self.event));
        self.insert_cookie(cookie, now);
    }

    /// Puts in the cookies of a jar that was saved, and returns how many of them had expired.
    ///
    /// Moments are kept, but for those that the clock has not reached; cookies of one moment keep
    /// the order that they have here.
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
        // Of two that shadow each other the broader came first, or the narrower would be gone.
        cookies.sort_by_key(|cookie| (cookie.host_only(), cookie.domain().len()));
        for cookie in cookies {
            self.insert_cookie(cookie, now);
        }
        expired
    }

    /// Removes the cookie of this domain, path and name, and returns it.
    ///
    /// If there is one for the host alone and one for the domain, both go, and the former is
    /// returned. [`retain`](Self::retain) removes by any other rule.
    pub fn remove(&mut self, domain: &str, path: &str, name: &str) -> Option<StoredCookie> {
        let domain = canonical_domain(domain)?;
        let site = self.locate(&domain)?;
        let named = |cookie: &StoredCookie| {
            cookie.name_bytes() == name.as_bytes()
                && cookie.path_bytes() == path.as_bytes()
                && cookie.domain() == domain
        };
        let found = self.sites[site].cookies().iter().filter(|cookie| named(cookie));
        let removed = found.max_by_key(|cookie| cookie.host_only())?.clone();
        self.retain_in(site, |cookie| !named(cookie));
        Some(removed)
    }

    /// Removes the cookies that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&StoredCookie) -> bool) {
        for site in (0..self.sites.len()).rev() {
            self.retain_in(site, &mut keep);
        }
    }

    /// Removes all cookies; the limits stay.
    pub fn clear(&mut self) {
        *self = Self { limits: self.limits, event: self.event, ..Self::default() };
    }

    /// Removes what has expired, everywhere.
    ///
    /// The jar does this by itself as it is used; this is for one that is about to rest.
    pub fn remove_expired(&mut self, now: Timestamp) {
        self.expiry = ExpirySchedule::default();
        for site in (0..self.sites.len()).rev() {
            if !self.remove_expired_in(site, now) {
                let earliest = self.sites[site].earliest();
                self.expiry.at = self.expiry.at.min(earliest);
            }
        }
    }

    /// Returns how many cookies there are at `now`.
    pub fn len(&self, now: Timestamp) -> usize {
        self.iter(now).count()
    }

    /// Returns whether there is no cookie at `now`.
    pub fn is_empty(&self, now: Timestamp) -> bool {
        self.iter(now).next().is_none()
    }

    /// Iterates over the cookies at `now`, site by site.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = &StoredCookie> {
        self.sites.iter().flat_map(|site| site.cookies()).filter(move |cookie| !cookie.is_expired(now))
    }

    /// Returns the cookies at `now` in the order in which they were created.
    #[cfg(feature = "serde")]
    pub(crate) fn by_creation(&self, now: Timestamp) -> Vec<StoredCookie> {
        let mut cookies: Vec<_> = self.iter(now).cloned().collect();
        cookies.sort_by_key(StoredCookie::created_event);
        cookies
    }

    /// Returns the cookies that a request would carry, in sending order.
    pub fn matching(&self, target: &CookieUrl<'_>, now: Timestamp) -> Vec<&StoredCookie> {
        let Some(site) = self.locate(target.host()) else {
            return Vec::new();
        };
        self.sites[site].matching(target, now).collect()
    }

    /// Returns the cookie of this name that a request would carry first.
    pub fn get(&self, name: &str, target: &CookieUrl<'_>, now: Timestamp) -> Option<&StoredCookie> {
        self.matching(target, now).into_iter().find(|cookie| cookie.name_bytes() == name.as_bytes())
    }

    /// Iterates over the cookies of a domain and of what lies below it.
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

    /// Iterates over the cookies that have exactly this path.
    pub fn with_path(&self, path: &str, now: Timestamp) -> impl Iterator<Item = &StoredCookie> {
        self.iter(now).filter(move |cookie| cookie.path_bytes() == path.as_bytes())
    }

    /// Returns when the next cookie ends, or `None` if all are session cookies.
    pub fn earliest_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.iter(now).filter_map(StoredCookie::expires).min()
    }

    // ---- How it is stored.

    /// Finds the site of a host or domain, and remembers it for the next look-up.
    fn find(&mut self, host: &str) -> Option<usize> {
        let found = self.locate(host)?;
        self.recent = found as u32;
        Some(found)
    }

    /// Finds the site of a host or domain.
    fn locate(&self, host: &str) -> Option<usize> {
        let recent = self.recent as usize;
        if self.sites.get(recent).is_some_and(|site| site.owns(host)) {
            return Some(recent);
        }
        match &self.index {
            Some(index) => index.0.get(site_of(host)).map(|&at| at as usize),
            // Asking each of a few is less than asking the list of public suffixes.
            None => self.sites.iter().position(|site| site.owns(host)),
        }
    }

    fn insert_user_set(&mut self, mut cookie: StoredCookie, now: Timestamp) {
        cookie.set_flags(cookie.flags().with(Flags::USER_SET, true));
        self.restore(cookie, now);
    }

    fn insert_cookie(&mut self, cookie: StoredCookie, now: Timestamp) -> InsertResult {
        self.remove_expired_if_due(now);
        // Neither the limits nor the rules of the store count what has ended.
        let site = self.locate(cookie.domain()).filter(|&site| !self.remove_expired_in(site, now));
        if site.is_none() && cookie.is_expired(now) {
            return InsertResult::Gone(None);
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
            let mut old = None;
            self.remove_from_site(site, |site| {
                let before = site.cookies().len();
                old = site.remove_like(&cookie);
                before - site.cookies().len()
            });
            return InsertResult::Gone(old);
        }
        let before = self.sites[site].cookies().len();
        let at = self.sites[site].insert(cookie);
        let after = self.sites[site].cookies().len();
        self.stored = self.stored + after as u32 - before as u32;
        self.enforce_limits(site, at, expires_at, now)
    }

    /// Holds the limits after a cookie has been put in, and finds it again.
    fn enforce_limits(
        &mut self,
        site: usize,
        at: usize,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> InsertResult {
        self.expiry.at = self.expiry.at.min(expires_at);
        self.expiry.credit = self.expiry.credit.saturating_add(1);
        let crowded = self.sites[site].cookies().len() > self.limits.per_domain as usize;
        if !crowded && self.stored <= self.limits.total {
            return InsertResult::At(site, at);
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
        let at = self.sites[site].cookies().iter().position(same);
        InsertResult::At(site, at.expect("the newest is not evicted"))
    }

    /// Evicts the least recently used cookies of the whole jar.
    ///
    /// Some more than needed if the jar is large, so that not every cookie pays for a search.
    fn evict_least_used(&mut self, spared: &StoredCookie) {
        let Some(excess) = self.stored.checked_sub(self.limits.total).filter(|&excess| excess > 0) else {
            return;
        };
        let excess = excess.max(self.limits.total / 64) as usize;
        let mut uses: Vec<EventTime> = Vec::with_capacity(self.stored as usize);
        for site in &mut self.sites {
            site.clear_headers();
            let others = site.cookies().iter().filter(|cookie| !cookie.same_key(spared));
            uses.extend(others.map(StoredCookie::used));
        }
        let last = excess.min(uses.len()).saturating_sub(1);
        let (_, &mut last, _) = uses.select_nth_unstable(last);
        let mut left = excess;
        self.retain(|cookie| {
            let evict = left > 0 && cookie.used() <= last && !cookie.same_key(spared);
            left -= usize::from(evict);
            !evict
        });
    }

    fn remove_expired_if_due(&mut self, now: Timestamp) {
        // A sweep looks at every site, so it waits until a part as many cookies have come.
        let due = now >= self.expiry.at;
        if due && self.expiry.credit as usize >= self.sites.len() / 64 {
            self.remove_expired(now);
        }
    }

    /// Removes what has expired in a site, and returns whether the site is gone with it.
    fn remove_expired_in(&mut self, site: usize, now: Timestamp) -> bool {
        if now < self.sites[site].earliest() {
            return false;
        }
        self.remove_from_site(site, |site| site.remove_expired(now))
    }

    fn retain_in(&mut self, site: usize, keep: impl FnMut(&StoredCookie) -> bool) {
        self.remove_from_site(site, |site| site.retain(keep));
    }

    /// Takes cookies out of a site, and the site out of the jar if none is left.
    fn remove_from_site(&mut self, at: usize, shrink: impl FnOnce(&mut Site) -> usize) -> bool {
        // A site's name is read off its cookies and goes with the last.
        let name = self.index.is_some().then(|| self.sites[at].name().to_owned());
        self.stored -= shrink(&mut self.sites[at]) as u32;
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

/// Where a cookie came to stand, or what it took with it.
enum InsertResult {
    At(usize, usize),
    Gone(Option<StoredCookie>),
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

/// Hashes all that decides what a `Set-Cookie` becomes, other than its value, the time and the store.
fn fingerprint(target: &CookieUrl<'_>, set_cookie: &NameValue<'_>) -> u64 {
    let mut hasher = HASHER.build_hasher();
    let attributes = set_cookie.attributes.unwrap_or_default();
    hasher.write(set_cookie.name);
    hasher.write(attributes);
    hasher.write(target.host().as_bytes());
    hasher.write(default_path(target.path()).as_bytes());
    // Lengths part what would else run together; each is far below 2^32.
    hasher.write_usize(set_cookie.name.len() << 32 | attributes.len());
    hasher.write_usize(target.host().len() << 1 | usize::from(target.is_secure()));
    // 0 says that there is no fingerprint.
    hasher.finish().max(1)
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
    /// Lists the cookies without their values, expired ones that are still held included.
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
