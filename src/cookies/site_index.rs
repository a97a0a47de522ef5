use http::HeaderValue;
use smallvec::SmallVec;

use super::domain::{domain_matches, is_ip, is_public_suffix};
use super::header::{CompiledHeader, HeaderWriter};
use super::path::path_matches;
use super::stored::Flags;
use super::time::EventTime;
use super::{CookieUrl, StoredCookie, Timestamp};

/// The cookies of one registrable domain, in the order in which they are sent.
#[derive(Clone)]
pub(super) struct Site {
    cookies: Vec<StoredCookie>,
    /// One host is what most sites are asked for.
    headers: SmallVec<[CompiledHeader; 1]>,
    /// No cookie ends before this; it may be earlier than the first that does.
    earliest: Timestamp,
    name_len: u16,
    /// The name is no public suffix, so that it answers for all hosts below.
    shared: bool,
    /// Every path is `/`, so that a request's path makes no difference.
    all_root_paths: bool,
    any_secure: bool,
    any_user_set: bool,
    /// All have the first one's domain and go to as many hosts, and none was given: where it goes, all go.
    same_reach: bool,
    /// The bytes of all pairs, each with its separator.
    pairs_len: u32,
}

impl Site {
    /// Headers kept for the hosts and paths of one site, before the least used makes room.
    const MAX_HEADERS: usize = 4;

    pub(super) fn new(name: &str) -> Self {
        Self {
            cookies: Vec::new(),
            headers: SmallVec::new(),
            earliest: Timestamp::MAX,
            // A name too long for the field belongs to a cookie that was refused before.
            name_len: u16::try_from(name.len()).unwrap_or(u16::MAX),
            shared: !is_ip(name) && !is_public_suffix(name),
            all_root_paths: true,
            any_secure: false,
            any_user_set: false,
            same_reach: true,
            pairs_len: 0,
        }
    }

    /// The registrable domain, which every cookie's domain ends in.
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

    /// Whether this is the site of a host or domain.
    pub(super) fn owns(&self, host: &str) -> bool {
        let name = self.name_bytes();
        if self.shared { domain_matches(host, name) } else { host.as_bytes() == name }
    }

    /// Returns the compiled header, or `None` if there is none for this target or its time is up.
    pub(super) fn compiled(
        &mut self,
        target: &CookieUrl<'_>,
        used: EventTime,
        clock: impl FnOnce() -> Timestamp,
    ) -> Option<Option<HeaderValue>> {
        let at = self.find_header(target)?;
        self.headers[at].read(used, clock)
    }

    /// The same for the authority of a URI as it is written, where paths make no difference. `None`: read it as a target.
    pub(super) fn compiled_for(
        &mut self,
        authority: &str,
        encrypted: bool,
        used: EventTime,
        clock: impl FnOnce() -> Timestamp,
    ) -> Option<Option<HeaderValue>> {
        if !self.all_root_paths {
            return None;
        }
        self.headers.iter_mut().find(|header| header.is_for(authority, encrypted))?.read(used, clock)
    }

    fn find_header(&self, target: &CookieUrl<'_>) -> Option<usize> {
        let same = |header: &CompiledHeader| {
            header.live && header.secure == target.is_secure() && header.host() == target.host().as_bytes()
        };
        if self.all_root_paths {
            return self.headers.iter().position(same);
        }
        if !self.headers.iter().any(same) {
            return None;
        }
        let carried = self.carried(target)?;
        self.headers.iter().position(|header| header.carried == carried && same(header))
    }

    /// The set of cookies that a request carries, unless there are too many to tell apart.
    fn carried(&self, target: &CookieUrl<'_>) -> Option<u64> {
        if self.cookies.len() > 64 {
            return None;
        }
        let mut carried = 0;
        for (at, cookie) in self.cookies.iter().enumerate() {
            carried |= u64::from(self.sends(cookie, target, Timestamp::MIN)) << at;
        }
        Some(carried)
    }

    /// Writes the header anew and keeps it.
    pub(super) fn compile(&mut self, target: &CookieUrl<'_>, used: EventTime) -> Option<HeaderValue> {
        // Exact if all of the site goes there, as it mostly does.
        let mut writer = HeaderWriter::with_capacity(self.pairs_len as usize);
        let (mut carried, mut expires_at) = (0, Timestamp::MAX);
        match self.together(target) {
            Some(true) => {
                self.cookies.iter().for_each(|cookie| writer.push(cookie.pair()));
                carried = u64::MAX;
                expires_at = self.earliest;
            }
            Some(false) => {}
            None => {
                for (at, cookie) in self.cookies.iter().enumerate() {
                    if self.sends(cookie, target, Timestamp::MIN) {
                        writer.push(cookie.pair());
                        expires_at = expires_at.min(cookie.expires_at());
                        carried |= 1_u64.checked_shl(at as u32).unwrap_or(0);
                    }
                }
            }
        }
        let value = writer.finish();
        if !self.all_root_paths && self.cookies.len() > 64 {
            // Too many to tell one path's from another's.
            self.record_use_of(target, used);
            return value;
        }
        let at = self.header_index(target);
        let header = &mut self.headers[at];
        header.secure = target.is_secure();
        header.carried = carried;
        // Cloned once here, so that the bytes are shared already when the first hit comes.
        header.value = value.clone();
        header.expires_at = expires_at;
        header.used = used;
        header.live = true;
        value
    }

    /// Finds a place for the header of a target: its own, a spent one, a new one, or the least
    /// used one's.
    fn header_index(&mut self, target: &CookieUrl<'_>) -> usize {
        let empty = |header: &CompiledHeader| !header.live && header.host() == target.host().as_bytes();
        if let Some(at) = self.find_header(target).or_else(|| self.headers.iter().position(empty)) {
            return at;
        }
        let new = CompiledHeader::empty(target.host());
        if self.headers.len() < Self::MAX_HEADERS {
            self.headers.reserve_exact(1);
            self.headers.push(new);
            return self.headers.len() - 1;
        }
        let least = (0..self.headers.len())
            .min_by_key(|&at| (self.headers[at].live, self.headers[at].used))
            .expect("there are several headers");
        self.record_use(least);
        self.headers[least] = new;
        least
    }

    /// The cookies of a request, in sending order, without those that have ended at `now`.
    pub(super) fn matching<'s, 't, 'u>(
        &'s self,
        target: &'t CookieUrl<'u>,
        now: Timestamp,
    ) -> impl Iterator<Item = &'s StoredCookie> + use<'s, 't, 'u> {
        self.cookies.iter().filter(move |cookie| self.sends(cookie, target, now))
    }

    /// Whether all of the cookies go to a target or none does; `None` if each has to be asked.
    fn together(&self, target: &CookieUrl<'_>) -> Option<bool> {
        let first = self.cookies.first()?;
        let same_reach = self.same_reach && self.all_root_paths && (target.is_secure() || !self.any_secure);
        same_reach.then(|| first.reaches(target.host(), target.is_secure()))
    }

    fn sends(&self, cookie: &StoredCookie, target: &CookieUrl<'_>, now: Timestamp) -> bool {
        let (host, secure) = (target.host(), target.is_secure());
        cookie.reaches(host, secure)
            && (self.all_root_paths || path_matches(target.path().as_bytes(), cookie.path_bytes()))
            && !cookie.is_expired(now)
            && !(self.any_user_set && self.is_shadowed(cookie, host, secure, now))
    }

    /// Whether a narrower cookie of the same name and path goes to this host in its place.
    ///
    /// Responses may set such pairs and get both back, as the RFC says. As soon as one of a pair
    /// was given by the user, only one is sent: `insert` has seen to it that the narrower is newer.
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

    fn record_use_of(&mut self, target: &CookieUrl<'_>, used: EventTime) {
        for cookie in &mut self.cookies {
            if cookie.matches(target) {
                cookie.set_used(used);
            }
        }
    }

    /// Passes the last use of a header on to the cookies it carries.
    fn record_use(&mut self, header: usize) {
        let header = &self.headers[header];
        if !header.live {
            return;
        }
        for (at, cookie) in self.cookies.iter_mut().enumerate() {
            let carried = if at < 64 {
                header.carried & (1 << at) != 0
            } else {
                cookie.reaches(header.host_name(), header.secure)
            };
            if carried && cookie.used() < header.used {
                cookie.set_used(header.used);
            }
        }
    }

    /// Drops the compiled headers, as every change of the cookies must.
    pub(super) fn clear_headers(&mut self) {
        for at in 0..self.headers.len() {
            self.record_use(at);
            let header = &mut self.headers[at];
            header.live = false;
            header.value = None;
        }
    }

    /// Sets the cookie again that the same `Set-Cookie` has set, but maybe for the value, if no rule needs it read again.
    ///
    /// Returns the place, and whether the value is another one.
    pub(super) fn refresh(
        &mut self,
        fingerprint: u64,
        value: &[u8],
        target: &CookieUrl<'_>,
        now: Timestamp,
        used: EventTime,
    ) -> Option<(usize, bool)> {
        // The same bytes may have to be refused by now.
        if self.any_secure && !target.is_secure() {
            return None;
        }
        let at = self.cookies.iter().position(|cookie| cookie.fingerprint() == fingerprint)?;
        // Or they may have to take a given cookie's place.
        let given = |other: &StoredCookie| other.is_user_set() && other.same_name_and_path(&self.cookies[at]);
        if self.any_user_set && self.cookies.iter().any(given) {
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
        // Headers may end too early, and are then written again; never too late.
        let expires_at = cookie.expires_at();
        self.earliest = self.earliest.min(expires_at);
        if value_changed {
            // Neither its key nor its place in the order hangs on the value.
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
    /// Within one site, as browsers do it: a host that is itself a public suffix has cookies for
    /// itself alone, and shares none with the sites below it.
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

    /// Puts a cookie in its place, instead of the one with the same key, and returns the place.
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
            // Most sites have a few cookies, and most sessions a few sites.
            self.cookies.reserve_exact((self.cookies.len() / 2).max(1));
        }
        self.cookies.insert(at, cookie);
        self.update_summary();
        at
    }

    /// Removes what an expired cookie would have replaced, and returns the one with its key, or
    /// else another.
    pub(super) fn remove_like(&mut self, expired: &StoredCookie) -> Option<StoredCookie> {
        let gone = |old: &StoredCookie| {
            let given = old.is_user_set() || expired.is_user_set();
            let same_domain = given && old.domain() == expired.domain();
            old.same_key(expired)
                || displaces(expired, old)
                || (same_domain && old.same_name_and_path(expired))
        };
        let found = self.cookies.iter().filter(|old| gone(old));
        let removed = found.max_by_key(|old| old.same_key(expired)).cloned();
        if removed.is_some() {
            self.retain(|old| !gone(old));
        }
        removed
    }

    /// Removes what `keep` does not want, and returns how many went.
    pub(super) fn retain(&mut self, keep: impl FnMut(&StoredCookie) -> bool) -> usize {
        let kept: Vec<bool> = self.cookies.iter().map(keep).collect();
        let gone = kept.iter().filter(|&&kept| !kept).count();
        if gone > 0 {
            // Headers know their cookies by place, so they go first.
            self.clear_headers();
            let mut kept = kept.into_iter();
            self.cookies.retain(|_| kept.next() != Some(false));
            self.update_summary();
        }
        gone
    }

    /// Removes expired cookies if there can be some, and returns how many went.
    pub(super) fn remove_expired(&mut self, now: Timestamp) -> usize {
        if now < self.earliest {
            return 0;
        }
        let gone = self.retain(|cookie| !cookie.is_expired(now));
        // Nothing may have gone: the bound was too low.
        self.update_summary();
        gone
    }

    /// Removes the cookie that makes room first: §5.7 names those that are not `Secure` before
    /// the others, and within each the least recently used.
    ///
    /// The newcomer is spared, or it could not be told what became of it.
    pub(super) fn evict_one(&mut self, spared: &StoredCookie) {
        self.clear_headers();
        let victim = (0..self.cookies.len())
            .filter(|&at| !self.cookies[at].same_key(spared))
            .min_by_key(|&at| (self.cookies[at].secure(), self.cookies[at].used()));
        if let Some(at) = victim {
            self.cookies.remove(at);
            self.update_summary();
        }
    }

    /// Brings what is known of all cookies up to date with them.
    fn update_summary(&mut self) {
        self.earliest = Timestamp::MAX;
        self.pairs_len = 0;
        (self.all_root_paths, self.any_secure, self.any_user_set) = (true, false, false);
        let reach = |cookie: &StoredCookie| cookie.flags().has(Flags::HOST_ONLY);
        self.same_reach = true;
        for cookie in &self.cookies {
            let first = &self.cookies[0];
            self.same_reach = self.same_reach
                && reach(cookie) == reach(first)
                && cookie.domain_bytes() == first.domain_bytes();
            self.earliest = self.earliest.min(cookie.expires_at());
            self.all_root_paths &= cookie.path_bytes() == b"/";
            self.pairs_len += cookie.pair().len() as u32 + 2;
            self.any_secure |= cookie.secure();
            self.any_user_set |= cookie.flags().has(Flags::USER_SET);
        }
        self.same_reach &= !self.any_user_set;
        if self.cookies.capacity() > 8 && self.cookies.len() < self.cookies.capacity() / 4 {
            self.cookies.shrink_to_fit();
        }
    }
}

/// Whether a newcomer takes the place of what is the same cookie to the user.
///
/// The ancestor's trouble with dots: of two cookies with one name and path, one of them given by
/// the user, what the newer covers goes. What is broader stays for the hosts that only it
/// reaches, and is not sent where the newer is.
fn displaces(new: &StoredCookie, old: &StoredCookie) -> bool {
    (new.is_user_set() || old.is_user_set()) && old.same_name_and_path(new) && new.covers(old)
}
