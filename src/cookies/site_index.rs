//! The cookies of one site, with the cached `Cookie` headers of its hosts.

use std::num::NonZeroU64;

use http::HeaderValue;
use smallvec::SmallVec;

use super::{
    CookieUrl, StoredCookie, Timestamp,
    domain::{domain_matches, is_ip, is_public_suffix},
    header::{CachedHeader, HeaderWriter},
    path::path_matches,
    time::EventTime,
};

/// The cookies of one site (see `site_of`), in the order in which they are sent.
#[derive(Clone)]
pub(super) struct Site {
    cookies: Vec<StoredCookie>,
    /// Requests to most sites go to a single host.
    headers: SmallVec<[CachedHeader; 1]>,
    /// A lower bound of the expiry times.
    earliest: Timestamp,
    name_len: u16,
    /// Whether the name is not a public suffix, so that the site includes all subdomains.
    includes_subdomains: bool,
    /// Whether all paths are `/`, so that the path of a request does not matter.
    all_root_paths: bool,
    any_secure: bool,
    any_user_set: bool,
    /// Whether all cookies reach the same hosts and none is set by the user. A request then carries
    /// all of them or none.
    same_reach: bool,
    /// The length of all pairs, each with a separator.
    pairs_len: u32,
}

impl Site {
    /// The maximum number of cached headers per site. The least recently used one is replaced.
    const MAX_HEADERS: usize = 4;

    pub(super) fn new(name: &str) -> Self {
        Self {
            cookies: Vec::new(),
            headers: SmallVec::new(),
            earliest: Timestamp::MAX,
            // A cookie whose domain does not fit the field has been rejected before.
            name_len: u16::try_from(name.len()).unwrap_or(u16::MAX),
            includes_subdomains: !is_ip(name) && !is_public_suffix(name),
            all_root_paths: true,
            any_secure: false,
            any_user_set: false,
            same_reach: true,
            pairs_len: 0,
        }
    }

    /// The name of the site, which is a suffix of the domain of each cookie.
    pub(super) fn name(&self) -> &str {
        let first = self.cookies.first().map_or("", StoredCookie::domain);
        &first[first.len().saturating_sub(usize::from(self.name_len))..]
    }

    fn name_bytes(&self) -> &[u8] {
        let first = self.cookies.first().map_or(&b""[..], StoredCookie::domain_bytes);
        &first[first.len().saturating_sub(usize::from(self.name_len))..]
    }

    pub(super) fn cookies(&self) -> &[StoredCookie] {
        &self.cookies
    }

    pub(super) fn earliest(&self) -> Timestamp {
        self.earliest
    }

    /// Whether a host or domain belongs to the site.
    pub(super) fn contains_host(&self, host: &str) -> bool {
        let name = self.name_bytes();
        if self.includes_subdomains { domain_matches(host, name) } else { host.as_bytes() == name }
    }

    /// Returns the cached header, or `None` if there is none for this URL or it has expired.
    pub(super) fn cached_header(
        &mut self,
        url: &CookieUrl<'_>,
        used: EventTime,
        clock: impl FnOnce() -> Timestamp,
    ) -> Option<&CachedHeader> {
        let at = self.find_header(url)?;
        self.headers[at].hit(used, clock)
    }

    /// Whether a header does not depend on the path of the request.
    pub(super) fn has_root_paths_only(&self) -> bool {
        self.all_root_paths
    }

    /// Like [`cached_header`](Self::cached_header), for an unparsed authority.
    ///
    /// Also returns `None` if the header depends on the path, or the authority must be parsed.
    pub(super) fn cached_header_for(
        &mut self,
        authority: &str,
        encrypted: bool,
        used: EventTime,
        clock: impl FnOnce() -> Timestamp,
    ) -> Option<&CachedHeader> {
        if !self.all_root_paths {
            return None;
        }
        self.headers.iter_mut().find(|header| header.is_for(authority, encrypted))?.hit(used, clock)
    }

    fn find_header(&self, url: &CookieUrl<'_>) -> Option<usize> {
        let same = |header: &CachedHeader| {
            header.live && header.secure == url.is_secure() && header.host() == url.host().as_bytes()
        };
        if self.all_root_paths {
            return self.headers.iter().position(same);
        }
        if !self.headers.iter().any(same) {
            return None;
        }
        let carried = self.carried(url)?;
        self.headers.iter().position(|header| header.carried == carried && same(header))
    }

    /// The set of cookies that a request carries, or `None` if they do not fit into 64 bits.
    fn carried(&self, url: &CookieUrl<'_>) -> Option<u64> {
        if self.cookies.len() > 64 {
            return None;
        }
        let mut carried = 0;
        for (at, cookie) in self.cookies.iter().enumerate() {
            carried |= u64::from(self.sends(cookie, url, Timestamp::MIN)) << at;
        }
        Some(carried)
    }

    /// Writes the header and caches it.
    pub(super) fn write_header(&mut self, url: &CookieUrl<'_>, used: EventTime) -> Option<HeaderValue> {
        // Exact if the request carries all cookies of the site, as most requests do.
        let mut writer = HeaderWriter::with_capacity(self.pairs_len as usize);
        let (mut carried, mut expires_at) = (0, Timestamp::MAX);
        match self.sends_all(url) {
            Some(true) => {
                self.cookies.iter().for_each(|cookie| writer.push(cookie.pair()));
                carried = u64::MAX;
                expires_at = self.earliest;
            }
            Some(false) => {}
            None => {
                for (at, cookie) in self.cookies.iter().enumerate() {
                    if self.sends(cookie, url, Timestamp::MIN) {
                        writer.push(cookie.pair());
                        expires_at = expires_at.min(cookie.expires_at());
                        carried |= 1_u64.checked_shl(at as u32).unwrap_or(0);
                    }
                }
            }
        }
        let value = writer.finish();
        if !self.all_root_paths && self.cookies.len() > 64 {
            // The headers of different paths cannot be distinguished, so this one is not cached.
            self.record_use_of(url, used);
            return value;
        }
        let at = self.header_index(url);
        let header = &mut self.headers[at];
        header.secure = url.is_secure();
        header.carried = carried;
        // The first clone of `Bytes` allocates, so clone here and not at the first cache hit.
        header.value = value.clone();
        header.expires_at = expires_at;
        header.used = used;
        header.hits = 0;
        header.live = true;
        value
    }

    /// Finds the entry for a new header: the one it replaces, an invalid entry of the host, a new
    /// entry, or the least recently used one.
    fn header_index(&mut self, url: &CookieUrl<'_>) -> usize {
        let empty = |header: &CachedHeader| !header.live && header.host() == url.host().as_bytes();
        if let Some(at) = self.find_header(url).or_else(|| self.headers.iter().position(empty)) {
            return at;
        }
        let new = CachedHeader::empty(url.host());
        if self.headers.len() < Self::MAX_HEADERS {
            self.headers.reserve_exact(1);
            self.headers.push(new);
            return self.headers.len() - 1;
        }
        let least = (0..self.headers.len())
            .min_by_key(|&at| (self.headers[at].live, self.headers[at].used))
            .expect("there are several headers");
        record_use(&mut self.cookies, &self.headers[least], self.headers[least].used);
        self.headers[least] = new;
        least
    }

    /// The cookies of a request that have not expired at `now`, in sending order.
    pub(super) fn matching<'s, 't, 'u>(
        &'s self,
        url: &'t CookieUrl<'u>,
        now: Timestamp,
    ) -> impl Iterator<Item = &'s StoredCookie> + use<'s, 't, 'u> {
        self.cookies.iter().filter(move |cookie| self.sends(cookie, url, now))
    }

    /// Whether a request carries all cookies or none, or `None` if each must be checked.
    fn sends_all(&self, url: &CookieUrl<'_>) -> Option<bool> {
        let first = self.cookies.first()?;
        let same_reach = self.same_reach && self.all_root_paths && (url.is_secure() || !self.any_secure);
        same_reach.then(|| first.reaches(url.host(), url.is_secure()))
    }

    fn sends(&self, cookie: &StoredCookie, url: &CookieUrl<'_>, now: Timestamp) -> bool {
        let (host, secure) = (url.host(), url.is_secure());
        cookie.reaches(host, secure)
            && (self.all_root_paths || path_matches(url.path().as_bytes(), cookie.path_bytes()))
            && !cookie.is_expired(now)
            && !(self.any_user_set && self.is_shadowed(cookie, host, secure, now))
    }

    /// Whether a narrower cookie with the same name and path is sent to this host instead.
    ///
    /// If responses set such a pair, both are sent, as the RFC requires. If the user set one of
    /// them, only the narrower one is sent, which is the newer one because of `insert`.
    fn is_shadowed(&self, cookie: &StoredCookie, host: &str, secure: bool, now: Timestamp) -> bool {
        self.cookies.iter().any(|other| {
            (cookie.is_user_set() || other.is_user_set())
                && other.same_name_and_path(cookie)
                && other.reaches(host, secure)
                && !other.is_expired(now)
                && cookie.covers(other)
                && !other.covers(cookie)
        })
    }

    fn record_use_of(&mut self, url: &CookieUrl<'_>, used: EventTime) {
        for cookie in &mut self.cookies {
            if cookie.matches(url) {
                cookie.set_used(used);
            }
        }
    }

    /// Records the use of a published copy of a header of these cookies.
    pub(super) fn record_use_of_copy(&mut self, copy: &CachedHeader, used: EventTime) {
        match self.headers.iter_mut().find(|header| header.live && header.has_key_of(copy)) {
            Some(header) => header.used = header.used.max(used),
            None => record_use(&mut self.cookies, copy, used),
        }
    }

    /// Invalidates the cached headers. Each change of the cookies must do this.
    pub(super) fn clear_headers(&mut self) {
        for at in 0..self.headers.len() {
            record_use(&mut self.cookies, &self.headers[at], self.headers[at].used);
            let header = &mut self.headers[at];
            header.live = false;
            header.value = None;
        }
    }

    /// Updates the cookie that an equal `Set-Cookie` header has set, apart from the value.
    ///
    /// Returns the index of the cookie and whether the value has changed, or `None` if the header
    /// must be parsed.
    pub(super) fn refresh(
        &mut self,
        fingerprint: NonZeroU64,
        value: &[u8],
        url: &CookieUrl<'_>,
        now: Timestamp,
        used: EventTime,
    ) -> Option<(usize, bool)> {
        // A `Secure` cookie that was set in the meantime may require a rejection.
        if self.any_secure && !url.is_secure() {
            return None;
        }
        let at = self.cookies.iter().position(|cookie| cookie.fingerprint() == Some(fingerprint))?;
        // The cookie may have to displace one that the user set.
        let conflicts =
            |other: &StoredCookie| other.is_user_set() && other.same_name_and_path(&self.cookies[at]);
        if self.any_user_set && self.cookies.iter().any(conflicts) {
            return None;
        }
        let cookie = &mut self.cookies[at];
        let before = cookie.value_bytes();
        let (value_changed, before) = (before != value, before.len());
        if cookie.is_expired(now)
            || (value_changed && !cookie.accepts_value(value))
            || !cookie.refresh(now, used)
        {
            return None;
        }
        // Headers may expire too early and are then rewritten, but never too late.
        let expires_at = cookie.expires_at();
        self.earliest = self.earliest.min(expires_at);
        if value_changed {
            // Neither the key nor the position depends on the value.
            cookie.set_value(value);
            self.pairs_len = self.pairs_len + value.len() as u32 - before as u32;
            self.clear_headers();
        } else {
            for header in &mut self.headers {
                header.expires_at = header.expires_at.min(expires_at);
            }
        }
        Some((at, value_changed))
    }

    /// Whether a cookie from an insecure connection would hide or replace a `Secure` one:
    /// RFC 6265bis §5.7, step 16.
    ///
    /// Like browsers, this considers one site only: a host that is a public suffix shares no
    /// cookies with the sites below it.
    pub(super) fn has_secure_under(&self, new: &StoredCookie) -> bool {
        self.any_secure
            && self.cookies.iter().any(|old| {
                old.secure()
                    && old.name_bytes() == new.name_bytes()
                    && (domain_matches(old.domain(), new.domain())
                        || domain_matches(new.domain(), old.domain()))
                    && path_matches(new.path_bytes(), old.path_bytes())
            })
    }

    /// Inserts a cookie in sending order, and returns its index. Replaces one with the same key.
    pub(super) fn insert(&mut self, mut cookie: StoredCookie) -> usize {
        self.clear_headers();
        if let Some(at) = self.cookies.iter().position(|old| old.same_key(&cookie)) {
            cookie.set_created(self.cookies.remove(at).created_event());
        }
        if self.any_user_set || cookie.is_user_set() {
            self.cookies.retain(|old| !displaces(&cookie, old));
        }

        let order = cookie.sending_order();
        let at = self.cookies.partition_point(|other| other.sending_order() <= order);
        if self.cookies.len() == self.cookies.capacity() {
            // Most sites have few cookies, so grow by half.
            self.cookies.reserve_exact((self.cookies.len() / 2).max(1));
        }
        self.cookies.insert(at, cookie);
        self.update_summary();
        at
    }

    /// Removes the cookies that an expired cookie would have replaced.
    ///
    /// Returns the one with the same key, or otherwise any of them.
    pub(super) fn remove_replaced_by(&mut self, expired: &StoredCookie) -> Option<StoredCookie> {
        let is_replaced = |old: &StoredCookie| {
            let is_user_set = old.is_user_set() || expired.is_user_set();
            let same_domain = is_user_set && old.domain() == expired.domain();
            old.same_key(expired)
                || displaces(expired, old)
                || (same_domain && old.same_name_and_path(expired))
        };
        let found = self.cookies.iter().filter(|old| is_replaced(old));
        let removed = found.max_by_key(|old| old.same_key(expired)).cloned();
        if removed.is_some() {
            self.retain(|old| !is_replaced(old));
        }
        removed
    }

    /// Removes the cookies for which `keep` returns `false`, and returns their number.
    pub(super) fn retain(&mut self, keep: impl FnMut(&StoredCookie) -> bool) -> usize {
        let kept: Vec<bool> = self.cookies.iter().map(keep).collect();
        let removed = kept.iter().filter(|&&kept| !kept).count();
        if removed > 0 {
            // Headers refer to cookies by index, so clear them before the indices change.
            self.clear_headers();
            let mut kept = kept.into_iter();
            self.cookies.retain(|_| kept.next() != Some(false));
            self.update_summary();
        }
        removed
    }

    /// Removes the expired cookies, and returns their number.
    pub(super) fn remove_expired(&mut self, now: Timestamp) -> usize {
        if now < self.earliest {
            return 0;
        }
        let removed = self.retain(|cookie| !cookie.is_expired(now));
        // If nothing was removed, the lower bound was too low.
        self.update_summary();
        removed
    }

    /// Evicts the next cookie in the order of §5.7: first those that are not `Secure`, and among
    /// these the least recently used one.
    ///
    /// `kept`, the newest cookie, is not evicted, because the caller returns a reference to it.
    pub(super) fn evict_one(&mut self, kept: &StoredCookie) {
        self.clear_headers();
        let victim = (0..self.cookies.len())
            .filter(|&at| !self.cookies[at].same_key(kept))
            .min_by_key(|&at| (self.cookies[at].secure(), self.cookies[at].used()));
        if let Some(at) = victim {
            self.cookies.remove(at);
            self.update_summary();
        }
    }

    /// Recomputes the fields that summarise all cookies.
    fn update_summary(&mut self) {
        self.earliest = Timestamp::MAX;
        self.pairs_len = 0;
        (self.all_root_paths, self.any_secure, self.any_user_set) = (true, false, false);
        self.same_reach = true;
        for cookie in &self.cookies {
            let first = &self.cookies[0];
            self.same_reach = self.same_reach
                && cookie.host_only() == first.host_only()
                && cookie.domain_bytes() == first.domain_bytes();
            self.earliest = self.earliest.min(cookie.expires_at());
            self.all_root_paths &= cookie.path_bytes() == b"/";
            self.pairs_len += cookie.pair().len() as u32 + 2;
            self.any_secure |= cookie.secure();
            self.any_user_set |= cookie.is_user_set();
        }
        self.same_reach &= !self.any_user_set;
        if self.cookies.capacity() > 8 && self.cookies.len() < self.cookies.capacity() / 4 {
            self.cookies.shrink_to_fit();
        }
    }
}

/// Copies the time of last use of a header to the cookies in it.
fn record_use(cookies: &mut [StoredCookie], header: &CachedHeader, used: EventTime) {
    if !header.live {
        return;
    }
    for (at, cookie) in cookies.iter_mut().enumerate() {
        let carried = if at < 64 {
            header.carried & (1 << at) != 0
        } else {
            cookie.reaches(header.host_name(), header.secure)
        };
        if carried && cookie.used() < used {
            cookie.set_used(used);
        }
    }
}

/// Whether a new cookie displaces one that is the same cookie from the user's point of view.
///
/// If two cookies have the same name and path and the user set one of them, the newer cookie
/// displaces the other if it covers it. A broader old cookie stays for the hosts that only it
/// reaches, and is shadowed elsewhere. Without this rule, cookies that differ in the domain only
/// (`example.com` and `.www.example.com`) would be sent together.
fn displaces(new: &StoredCookie, old: &StoredCookie) -> bool {
    (new.is_user_set() || old.is_user_set()) && old.same_name_and_path(new) && new.covers(old)
}
