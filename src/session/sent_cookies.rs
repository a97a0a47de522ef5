//! The cookies that a request was sent with, to find out later whether they have changed.
//!
//! Some servers replace the id of a session while it is used. A request that was sent with the old
//! id is then rejected, although the session works.

use http::{HeaderValue, Uri};

use super::Identity;
use crate::cookies::{CookieUrl, SessionJar, StoredCookie, Timestamp};

/// The cookies of the jar that were sent with one request.
#[derive(Debug, Default)]
pub(super) enum SentCookie {
    /// Not known: the request has cookies of its own, or its mode sends none.
    #[default]
    Unknown,
    /// The header that was built from the jar.
    Jar(Option<HeaderValue>),
}

impl SentCookie {
    /// Returns whether the jar would send other cookies to this URL now, apart from those that the
    /// request's own responses have `set`. Do not hold its lock.
    fn has_changed(&self, jar: &SessionJar, uri: &Uri, now: Timestamp, set: &[StoredCookie]) -> bool {
        let Self::Jar(sent) = self else {
            return false;
        };
        let Ok(current) = jar.cookie_header(uri, || now) else {
            return false;
        };
        if set.is_empty() {
            return current != *sent;
        }
        let others = |header: &Option<HeaderValue>| -> Vec<Vec<u8>> {
            let text = header.as_ref().map_or(&[][..], HeaderValue::as_bytes);
            let pairs = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let is_other = |pair: &&[u8]| {
                let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
                !set.iter().any(|cookie| cookie.name_bytes() == name)
            };
            pairs.filter(|pair| !pair.is_empty()).filter(is_other).map(<[u8]>::to_vec).collect()
        };
        others(&current) != others(sent)
    }

    /// Returns the cookies for this URL if they are newer than the request: its response may
    /// replace them by older ones.
    pub(super) fn newer_cookies(&self, identity: &Identity, uri: &Uri, now: Timestamp) -> Vec<StoredCookie> {
        let jar = &identity.inner.jar;
        match CookieUrl::from_uri(uri) {
            Ok(url) if self.has_changed(jar, uri, now, &[]) => {
                jar.lock().matching(&url, now).into_iter().cloned().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The cookies of all hops of one request.
#[derive(Debug, Default)]
pub(crate) struct SentCookies {
    /// The cookies of the first hop.
    first: SentCookie,
    /// The URI of the first hop, if there were others.
    first_uri: Option<Uri>,
    /// Newer cookies that the responses have replaced or removed.
    replaced: Vec<StoredCookie>,
}

impl SentCookies {
    /// Records one hop. `previous_uri` is the URI of the hop before.
    pub(super) fn record(
        &mut self,
        cookie: SentCookie,
        previous_uri: Option<Uri>,
        replaced: Vec<StoredCookie>,
    ) {
        match previous_uri {
            None => self.first = cookie,
            Some(uri) => drop(self.first_uri.get_or_insert(uri)),
        }
        if !replaced.is_empty() {
            self.replaced.extend(replaced);
        }
    }

    /// Handles the rejection of the request: puts back the newer cookies that it has replaced.
    /// Returns whether the cookies for its URL are not those that it was sent with.
    ///
    /// `set` contains the cookies that its responses have set.
    pub(crate) fn reject(self, identity: &Identity, final_uri: &Uri, set: &[StoredCookie]) -> bool {
        let session = &identity.session.0;
        let now = session.context.timestamp();
        let mut jar = identity.inner.jar.lock();
        let mut has_restored = false;
        for old in self.replaced {
            let current = jar.iter(now).find(|cookie| is_same(cookie, &old));
            // Another response may have replaced the cookie since then.
            let is_ours = current.is_none_or(|current| {
                set.iter().any(|cookie| is_same(cookie, current) && cookie.value() == current.value())
            });
            if is_ours {
                jar.restore(old, now);
                has_restored = true;
            }
        }
        drop(jar);
        let first_uri = self.first_uri.as_ref().unwrap_or(final_uri);
        let has_changed = self.first.has_changed(&identity.inner.jar, first_uri, now, set) || has_restored;
        if has_restored {
            session.context.changed();
            if identity.inner.version.is_current() {
                session.cookies_changed(now);
            }
        }
        has_changed
    }
}

/// Returns the cookies of `newer` that the jar does not have any more.
pub(super) fn replaced(
    identity: &Identity,
    mut newer: Vec<StoredCookie>,
    now: Timestamp,
) -> Vec<StoredCookie> {
    if !newer.is_empty() {
        let jar = identity.inner.jar.lock();
        newer
            .retain(|old| !jar.iter(now).any(|cookie| is_same(cookie, old) && cookie.value() == old.value()));
    }
    newer
}

/// Returns whether two cookies have the same name, domain and path.
fn is_same(a: &StoredCookie, b: &StoredCookie) -> bool {
    (a.name(), a.domain(), a.path(), a.host_only()) == (b.name(), b.domain(), b.path(), b.host_only())
}
