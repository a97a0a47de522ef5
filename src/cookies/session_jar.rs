//! [`SessionJar`]: the jar of an identity, whose headers are read without its lock.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, Ordering},
    },
};

use http::{HeaderValue, Uri, uri::Scheme};
use smallvec::SmallVec;

use super::{
    CookieError, CookieUrl, Jar, StoreOutcome, StoredCookie, Timestamp, header::CachedHeader, jar::Lookup,
    time::EventTime,
};

use sync::{Mutex, MutexGuard, Pointer};

/// A jar with a lock for changes and misses, and published headers for hits.
///
/// A header is published when it is used for the third time, so that only jars in use pay for it.
/// Its host, its end and its value are one immutable value behind an atomic pointer. The pointer
/// is set and cleared only under the lock:
///
/// - A change of cookies clears the pointer before the lock is released. A request that starts
///   after the change has returned finds no published header, or one that was written later.
/// - A published header records its own last use. The next holder of the lock copies it into the
///   jar, so that evictions see the exact order.
#[derive(Debug)]
pub(crate) struct SessionJar {
    published: Pointer<PublishedHeaders>,
    jar: Mutex<Jar>,
}

/// The headers that are used without the lock.
///
/// What else all requests of an identity carry can become a field here, at no cost without it.
#[derive(Debug)]
struct PublishedHeaders {
    /// The time of the jar's last event, which includes each use of a published header.
    last_event: AtomicI64,
    headers: SmallVec<[PublishedHeader; 1]>,
    /// How often a header was not published because there are too many.
    declined: AtomicU8,
}

#[derive(Debug)]
struct PublishedHeader {
    header: CachedHeader,
    used: AtomicI64,
    /// The use that was copied into the jar last.
    folded: AtomicI64,
}

impl SessionJar {
    /// The number of locked hits after which a header is published.
    const HITS: u8 = 2;

    pub(crate) fn new(jar: Jar) -> Self {
        Self { published: Pointer::new(), jar: Mutex::new(jar) }
    }

    /// Locks the jar. The first change through the guard withdraws the published headers.
    pub(crate) fn lock(&self) -> JarGuard<'_> {
        let mut jar = self.jar.lock();
        self.fold_into(&mut jar);
        JarGuard { pointer: &self.published, jar, is_changed: false }
    }

    /// Returns the `Cookie` header of a request, without the lock if it is published.
    ///
    /// `now` is called only if a cookie of the header can expire.
    ///
    /// # Errors
    ///
    /// If `uri` is not an absolute http or https URI.
    pub(crate) fn cookie_header(
        &self,
        uri: &Uri,
        now: impl Fn() -> Timestamp,
    ) -> Result<Option<HeaderValue>, CookieError> {
        match self.published_header(uri, &now) {
            Some(header) => Ok(header),
            None => self.locked_header(uri, now),
        }
    }

    fn published_header(&self, uri: &Uri, now: impl Fn() -> Timestamp) -> Option<Option<HeaderValue>> {
        let (authority, encrypted) = key(uri)?;
        self.published.with(|published| published?.read(authority, encrypted, now))
    }

    /// A miss, or a hit that is not published yet.
    #[cold]
    fn locked_header(
        &self,
        uri: &Uri,
        now: impl Fn() -> Timestamp,
    ) -> Result<Option<HeaderValue>, CookieError> {
        let mut jar = self.jar.lock();
        self.fold_into(&mut jar);
        if let Some((authority, encrypted)) = key(uri)
            && let Some(header) = jar.recent_header(authority, encrypted, &now)
        {
            let (value, new) = (header.value.clone(), Self::if_hot(header));
            self.publish(new, &jar);
            return Ok(value);
        }
        let url = CookieUrl::from_uri(uri)?;
        match jar.look_up(&url, &now) {
            Lookup::UnknownSite => {
                self.publish(Some(CachedHeader::none_for(&url)), &jar);
                Ok(None)
            }
            Lookup::Hit { header, any_path } => {
                let value = header.value.clone();
                let new = if any_path { Self::if_hot(header) } else { None };
                self.publish(new, &jar);
                Ok(value)
            }
            Lookup::Miss => {
                let stored = jar.stored();
                let value = jar.cookie_header(&url, now);
                self.keep_if(jar.stored() == stored, &jar);
                Ok(value)
            }
        }
    }

    /// Returns the header of a request that has `Cookie` headers of its own: see
    /// [`Jar::cookie_header_with`].
    pub(crate) fn cookie_header_with<'h>(
        &self,
        url: &CookieUrl<'_>,
        own: impl Iterator<Item = &'h HeaderValue>,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<HeaderValue> {
        let mut jar = self.jar.lock();
        self.fold_into(&mut jar);
        let stored = jar.stored();
        let value = jar.cookie_header_with(url, own, now);
        self.keep_if(jar.stored() == stored, &jar);
        value
    }

    /// Stores the cookie of a `Set-Cookie` header, and returns what `read` returns.
    ///
    /// A header that has set the same cookie before does not withdraw the published headers.
    pub(crate) fn store_set_cookie<R>(
        &self,
        url: &CookieUrl<'_>,
        set_cookie: &[u8],
        now: Timestamp,
        read: impl FnOnce(StoreOutcome<'_>) -> R,
    ) -> Result<R, CookieError> {
        let mut jar = self.jar.lock();
        self.fold_into(&mut jar);
        let stored = jar.stored();
        let result = jar.store_set_cookie(url, set_cookie, now).map(|outcome| {
            let is_same = match &outcome {
                StoreOutcome::Refreshed(cookie) => {
                    self.published.with(|published| published.is_none_or(|headers| headers.outlive(cookie)))
                }
                StoreOutcome::Removed(None) => true,
                StoreOutcome::Stored(_) | StoreOutcome::Removed(Some(_)) => false,
            };
            (read(outcome), is_same)
        });
        let is_same = result.as_ref().map_or(true, |(_, is_same)| *is_same);
        self.keep_if(is_same && jar.stored() == stored, &jar);
        result.map(|(result, _)| result)
    }

    fn if_hot(header: &CachedHeader) -> Option<CachedHeader> {
        (header.hits >= Self::HITS).then(|| header.clone())
    }

    /// Copies the uses of the published headers into the jar.
    fn fold_into(&self, jar: &mut Jar) {
        self.published.with(|published| {
            if let Some(published) = published {
                published.fold_into(jar);
            }
        });
    }

    /// Keeps the published headers if no cookie was changed, or withdraws them.
    ///
    /// Call this with the lock held.
    fn keep_if(&self, is_same: bool, jar: &Jar) {
        if is_same {
            self.publish(None, jar);
        } else {
            self.published.clear();
        }
    }

    /// Publishes a header beside those that are published. Call this with the lock held.
    fn publish(&self, new: Option<CachedHeader>, jar: &Jar) {
        let event = jar.event();
        let replacement = self.published.with(|published| match (published, new) {
            (None, new) => Some(PublishedHeaders::new(new?, event)),
            (Some(published), new) => {
                published.last_event.fetch_max(event.to_raw(), Ordering::Relaxed);
                published.with(new?, event)
            }
        });
        if let Some(replacement) = replacement {
            self.published.set(Arc::new(replacement));
        }
    }
}

/// The authority of a URI as it is written, and whether the connection is encrypted.
pub(super) fn key(uri: &Uri) -> Option<(&str, bool)> {
    let encrypted = match uri.scheme()? {
        scheme if *scheme == Scheme::HTTPS => true,
        scheme if *scheme == Scheme::HTTP => false,
        _ => return None,
    };
    Some((uri.authority()?.as_str(), encrypted))
}

impl PublishedHeaders {
    const MAX_HEADERS: usize = 4;

    /// After how many headers that were not published the next one replaces all others.
    const MAX_DECLINED: u8 = 32;

    fn new(header: CachedHeader, event: EventTime) -> Self {
        Self {
            last_event: AtomicI64::new(event.to_raw()),
            headers: SmallVec::from_buf([PublishedHeader::new(header)]),
            declined: AtomicU8::new(0),
        }
    }

    /// Returns the headers with a new one, or `None` if it is published or there are too many.
    fn with(&self, new: CachedHeader, event: EventTime) -> Option<Self> {
        let same = |other: &PublishedHeader| other.header.has_key_of(&new);
        if self.headers.iter().any(|other| same(other) && other.header.expires_at == new.expires_at) {
            return None;
        }
        let others = self.headers.iter().filter(|other| !same(other));
        let mut headers: SmallVec<[PublishedHeader; 1]> = others.map(PublishedHeader::copy).collect();
        if headers.len() >= Self::MAX_HEADERS {
            if self.declined.fetch_add(1, Ordering::Relaxed) < Self::MAX_DECLINED {
                return None;
            }
            headers.clear();
        }
        headers.push(PublishedHeader::new(new));
        Some(Self { last_event: AtomicI64::new(event.to_raw()), headers, declined: AtomicU8::new(0) })
    }

    fn read(
        &self,
        authority: &str,
        encrypted: bool,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<Option<HeaderValue>> {
        let PublishedHeader { header, used, .. } =
            self.headers.iter().find(|other| other.header.is_for(authority, encrypted))?;
        if header.has_expired(now) {
            return None;
        }
        // Repeated uses of one header write nothing.
        if used.load(Ordering::Relaxed) != self.last_event.load(Ordering::Relaxed) {
            let before = self.last_event.fetch_add(1, Ordering::Relaxed);
            used.fetch_max(before.saturating_add(1), Ordering::Relaxed);
        }
        Some(header.value.clone())
    }

    fn fold_into(&self, jar: &mut Jar) {
        jar.advance_to(EventTime::from_raw(self.last_event.load(Ordering::Relaxed)));
        for PublishedHeader { header, used, folded } in &self.headers {
            let used = used.load(Ordering::Relaxed);
            if used != folded.load(Ordering::Relaxed) {
                folded.store(used, Ordering::Relaxed);
                jar.record_use(header, EventTime::from_raw(used));
            }
        }
    }

    /// Whether no header with `cookie` ends later than the cookie.
    fn outlive(&self, cookie: &StoredCookie) -> bool {
        self.headers.iter().all(|PublishedHeader { header, .. }| {
            header.expires_at <= cookie.expires_at() || !cookie.reaches(header.host_name(), header.secure)
        })
    }
}

impl PublishedHeader {
    fn new(header: CachedHeader) -> Self {
        let used = header.used.to_raw();
        Self { header, used: AtomicI64::new(used), folded: AtomicI64::new(used) }
    }

    fn copy(&self) -> Self {
        let copy = |time: &AtomicI64| AtomicI64::new(time.load(Ordering::Relaxed));
        Self { header: self.header.clone(), used: copy(&self.used), folded: copy(&self.folded) }
    }
}

/// The locked jar of an identity.
pub(crate) struct JarGuard<'a> {
    pointer: &'a Pointer<PublishedHeaders>,
    jar: MutexGuard<'a, Jar>,
    is_changed: bool,
}

impl Deref for JarGuard<'_> {
    type Target = Jar;

    fn deref(&self) -> &Jar {
        &self.jar
    }
}

/// Nothing is published again before the lock is released.
impl DerefMut for JarGuard<'_> {
    fn deref_mut(&mut self) -> &mut Jar {
        if !self.is_changed {
            self.is_changed = true;
            self.pointer.clear();
        }
        &mut self.jar
    }
}

/// The lock and the pointer.
#[cfg(not(sessions_loom))]
mod sync {
    use std::sync::Arc;

    use arc_swap::ArcSwapOption;
    pub(super) use parking_lot::{Mutex, MutexGuard};

    /// A pointer that is read often and without a lock, and set rarely.
    #[derive(Debug)]
    pub(super) struct Pointer<T>(ArcSwapOption<T>);

    impl<T> Pointer<T> {
        pub(super) fn new() -> Self {
            Self(ArcSwapOption::empty())
        }

        /// Reads the value without counting a reference, which would be a write to a shared line.
        pub(super) fn with<R>(&self, read: impl FnOnce(Option<&T>) -> R) -> R {
            read(self.0.load().as_deref())
        }

        pub(super) fn set(&self, value: Arc<T>) {
            self.0.store(Some(value));
        }

        /// Call this with the lock held, under which the pointer is set.
        pub(super) fn clear(&self) {
            // A load costs less than a store.
            if self.0.load().is_some() {
                self.0.store(None);
            }
        }
    }
}

/// What loom explores: it assumes that arc-swap is correct, and checks the protocol around it.
#[cfg(sessions_loom)]
mod sync {
    use std::sync::Arc;

    pub(super) use loom::sync::MutexGuard;

    #[derive(Debug)]
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("nothing panics under this lock")
        }
    }

    #[derive(Debug)]
    pub(super) struct Pointer<T>(loom::sync::RwLock<Option<Arc<T>>>);

    impl<T> Pointer<T> {
        pub(super) fn new() -> Self {
            Self(loom::sync::RwLock::new(None))
        }

        pub(super) fn with<R>(&self, read: impl FnOnce(Option<&T>) -> R) -> R {
            let value = self.0.read().expect("nothing panics under this lock").clone();
            read(value.as_deref())
        }

        pub(super) fn set(&self, value: Arc<T>) {
            *self.0.write().expect("nothing panics under this lock") = Some(value);
        }

        pub(super) fn clear(&self) {
            *self.0.write().expect("nothing panics under this lock") = None;
        }
    }
}

#[cfg(all(test, sessions_loom))]
mod loom_tests {
    use super::*;

    const URL: &str = "https://shop.example/";

    fn header(jar: &SessionJar) -> Option<HeaderValue> {
        jar.cookie_header(&Uri::from_static(URL), || Timestamp::MIN).unwrap()
    }

    /// All schedules of one request and one edit: the request sees the old header or the new one,
    /// and a request after the edit sees the new one.
    #[test]
    fn loom_no_old_header_is_sent_after_an_edit() {
        // Reading a URL needs more stack than loom gives its threads.
        loom::model(|| spawn(check).join().unwrap());

        fn check() {
            let now = Timestamp::from_secs(1);
            let mut jar = Jar::default();
            jar.add([("a", "1")], URL, now).unwrap();
            let jar = loom::sync::Arc::new(SessionJar::new(jar));
            assert_eq!((0..2).filter_map(|_| header(&jar)).count(), 2);
            let sender = {
                let jar = jar.clone();
                spawn(move || {
                    let first = header(&jar).unwrap();
                    let second = header(&jar).unwrap();
                    assert!(first != "a=2" || second == "a=2");
                })
            };
            jar.lock().add([("a", "2")], URL, now).unwrap();
            assert_eq!(header(&jar).unwrap(), "a=2");
            sender.join().unwrap();
            assert_eq!(header(&jar).unwrap(), "a=2");
        }
    }

    fn spawn(run: impl FnOnce() + Send + 'static) -> loom::thread::JoinHandle<()> {
        loom::thread::Builder::new().stack_size(1 << 17).spawn(run).unwrap()
    }
}

#[cfg(all(test, not(sessions_loom)))]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU64},
        thread,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::cookies::Limits;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
    const URL: &str = "https://shop.example/";

    fn header(jar: &SessionJar, url: &str) -> Option<HeaderValue> {
        jar.cookie_header(&url.parse().unwrap(), || NOW).unwrap()
    }

    fn is_published(jar: &SessionJar, url: &str) -> bool {
        jar.published_header(&url.parse().unwrap(), || NOW).is_some()
    }

    fn with_cookie() -> SessionJar {
        let jar = SessionJar::new(Jar::default());
        jar.lock().add([("a", "1")], URL, NOW).unwrap();
        for _ in 0..=SessionJar::HITS {
            assert_eq!(header(&jar, URL).unwrap(), "a=1");
        }
        assert!(is_published(&jar, URL));
        jar
    }

    fn store(jar: &SessionJar, url: &str, set_cookie: &str, now: Timestamp) -> Result<(), CookieError> {
        jar.store_set_cookie(&CookieUrl::parse(url).unwrap(), set_cookie.as_bytes(), now, |_| ())
    }

    #[test]
    fn a_published_header_is_used_while_the_jar_is_locked() {
        let jar = with_cookie();
        let _locked = jar.lock();
        assert_eq!(header(&jar, URL).unwrap(), "a=1");
        assert_eq!(header(&jar, "https://shop.example:8443/any/path?query").unwrap(), "a=1");
    }

    #[test]
    fn a_host_without_cookies_is_published() {
        let jar = SessionJar::new(Jar::default());
        assert_eq!(header(&jar, URL), None);
        assert!(is_published(&jar, URL));
        let other = with_cookie();
        assert_eq!(header(&other, "https://api.example/"), None);
        assert!(is_published(&other, "https://api.example/") && is_published(&other, URL));
        store(&other, "https://api.example/", "b=1", NOW).unwrap();
        assert_eq!(header(&other, "https://api.example/").unwrap(), "b=1");
    }

    #[test]
    fn every_change_withdraws_the_published_header() {
        type Edit = fn(&SessionJar);
        let edits: [(&str, Edit, Option<&str>); 9] = [
            ("add", |jar| jar.lock().add([("b", "2")], URL, NOW).unwrap(), Some("a=1; b=2")),
            ("a response", |jar| store(jar, URL, "b=2; Path=/", NOW).unwrap(), Some("a=1; b=2")),
            ("a deletion", |jar| store(jar, URL, "a=; Max-Age=0; Path=/", NOW).unwrap(), None),
            ("remove", |jar| drop(jar.lock().remove("shop.example", "/", "a")), None),
            ("retain", |jar| jar.lock().retain(|_| false), None),
            ("clear", |jar| jar.lock().clear(), None),
            ("replace", |jar| *jar.lock() = Jar::default(), None),
            ("expiry", |jar| jar.lock().remove_expired(Timestamp::MAX), None),
            (
                "eviction",
                |jar| {
                    jar.lock().set_limits(Limits::default().total(1));
                    store(jar, "https://other.example/", "b=2", NOW).unwrap();
                },
                None,
            ),
        ];
        for (name, edit, expected) in edits {
            let jar = with_cookie();
            edit(&jar);
            let sent = header(&jar, URL);
            assert_eq!(sent.as_ref().map(|value| value.to_str().unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn the_same_cookie_again_does_not_withdraw_the_published_header() {
        let jar = SessionJar::new(Jar::default());
        let set = |now| store(&jar, URL, "a=1; Path=/; Max-Age=60", now).unwrap();
        set(NOW);
        for _ in 0..=SessionJar::HITS {
            header(&jar, URL);
        }
        set(NOW);
        set(NOW.saturating_add(std::time::Duration::from_secs(9)));
        assert!(is_published(&jar, URL));
        assert!(store(&jar, URL, "__Host-b=1", NOW).is_err());
        assert!(is_published(&jar, URL));
        // The clock was set back: the header ends earlier than it says.
        set(Timestamp::from_secs(1));
        assert!(!is_published(&jar, URL));
    }

    #[test]
    fn a_published_header_is_not_used_after_its_end() {
        let jar = SessionJar::new(Jar::default());
        store(&jar, URL, "a=1; Path=/; Max-Age=60", NOW).unwrap();
        for _ in 0..=SessionJar::HITS {
            header(&jar, URL);
        }
        let late = NOW.saturating_add(std::time::Duration::from_secs(60));
        assert_eq!(jar.cookie_header(&Uri::from_static(URL), || late).unwrap(), None);
    }

    #[test]
    fn repeated_uses_of_one_header_write_nothing() {
        let jar = with_cookie();
        let events = || jar.published.with(|headers| headers.unwrap().last_event.load(Ordering::Relaxed));
        let before = events();
        (0..10).for_each(|_| drop(header(&jar, URL)));
        assert_eq!(events(), before);
    }

    #[test]
    fn more_hosts_than_are_published_replace_them_after_a_while() {
        let jar = SessionJar::new(Jar::default());
        let url = |host: usize| format!("https://h{host}.example/");
        for host in 0..5 {
            header(&jar, &url(host));
        }
        assert!(is_published(&jar, &url(3)) && !is_published(&jar, &url(4)));
        (0..PublishedHeaders::MAX_DECLINED).for_each(|_| drop(header(&jar, &url(4))));
        assert!(is_published(&jar, &url(4)) && !is_published(&jar, &url(3)));
    }

    #[test]
    fn hazard_58_a_request_after_an_edit_does_not_send_the_old_header() {
        let jar = with_cookie();
        let (floor, is_done) = (AtomicU64::new(1), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Acquire) {
                        let least = floor.load(Ordering::Acquire);
                        let sent = header(&jar, URL).unwrap();
                        let value: u64 = sent.to_str().unwrap()[2..].parse().unwrap();
                        assert!(value >= least, "{value} was sent after {least} was stored");
                    }
                });
            }
            for value in 2..2_000_u64 {
                if value % 2 == 0 {
                    store(&jar, URL, &format!("a={value}; Path=/"), NOW).unwrap();
                } else {
                    jar.lock().add([("a", value.to_string().as_str())], URL, NOW).unwrap();
                }
                floor.store(value, Ordering::Release);
            }
            is_done.store(true, Ordering::Release);
        });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Send(usize),
        Store(usize, u8, u8),
        Add(usize, u8, u8),
        Remove(u8),
        Advance(u8),
    }

    const URLS: [&str; 6] = [
        "https://a.example/",
        "http://a.example/x",
        "https://b.example/",
        "https://www.b.example/y/z",
        "https://c.example:81/",
        "https://127.0.0.1/",
    ];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0..URLS.len()).prop_map(Step::Send),
            4 => (0..URLS.len(), 0..4_u8, 0..8_u8).prop_map(|(url, name, how)| Step::Store(url, name, how)),
            1 => (0..URLS.len(), 0..4_u8, 0..3_u8).prop_map(|(url, name, value)| Step::Add(url, name, value)),
            1 => (0..4_u8).prop_map(Step::Remove),
            1 => (0..20_u8).prop_map(Step::Advance),
        ];
        // Each send repeats, so that headers are published.
        prop::collection::vec((step, 1..4_usize), 1..120)
            .prop_map(|steps| steps.into_iter().flat_map(|(step, times)| vec![step; times]).collect())
    }

    proptest! {
        /// The plain jar is the model: headers, evictions by use and expiry are the same.
        #[test]
        fn published_headers_change_nothing(steps in steps(), per_domain in 2..5_u32, total in 3..9_u32) {
            let limits = Limits::default().per_domain(per_domain).total(total);
            let (mut model, jar) = (Jar::with_limits(limits), SessionJar::new(Jar::with_limits(limits)));
            let mut now = NOW;
            for step in steps {
                match step {
                    Step::Send(url) => {
                        let expected = model.cookie_header(&CookieUrl::parse(URLS[url]).unwrap(), || now);
                        let sent = jar.cookie_header(&Uri::from_static(URLS[url]), || now).unwrap();
                        prop_assert_eq!(sent, expected);
                    }
                    Step::Store(url, name, how) => {
                        let url = CookieUrl::parse(URLS[url]).unwrap();
                        let end = ["", "; Max-Age=30", "; Max-Age=0", "; Secure", "; Path=/", "; Path=/y"];
                        let text = format!("n{name}={}{}", how % 2, end[usize::from(how) % end.len()]);
                        let expected = model.store_set_cookie(&url, text.as_bytes(), now).is_ok();
                        let stored = jar.store_set_cookie(&url, text.as_bytes(), now, |_| ()).is_ok();
                        prop_assert_eq!(stored, expected);
                    }
                    Step::Add(url, name, value) => {
                        let cookie = (format!("n{name}"), value.to_string());
                        let pair = || [(cookie.0.as_str(), cookie.1.as_str())];
                        model.add(pair(), URLS[url], now).unwrap();
                        jar.lock().add(pair(), URLS[url], now).unwrap();
                    }
                    Step::Remove(name) => {
                        let name = format!("n{name}");
                        let keep = |cookie: &StoredCookie| cookie.name_bytes() != name.as_bytes();
                        model.retain(keep);
                        jar.lock().retain(keep);
                    }
                    Step::Advance(secs) => {
                        now = now.saturating_add(std::time::Duration::from_secs(secs.into()));
                    }
                }
                let cookies = |jar: &Jar| -> Vec<_> {
                    jar.iter(Timestamp::MIN).map(|cookie| (cookie.to_string(), cookie.value_bytes().to_vec())).collect()
                };
                prop_assert_eq!(cookies(&jar.lock()), cookies(&model));
            }
        }
    }
}
