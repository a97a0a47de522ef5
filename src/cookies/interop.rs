//! To and from `cookie_store`, whose model is a little narrower than ours.

use std::fmt;

use cookie_store::{CookieDomain, CookieExpiration, CookieStore};
use url::Url;

use super::stored::SameSite;
use super::{CookieError, CookieErrorKind, Jar, StoredCookie, Timestamp};

/// What a conversion to or from `cookie_store` could not hold.
///
/// Moments of creation and use are never held by a `cookie_store`, nor is who gave a cookie;
/// these are not listed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use = "it tells what was lost"]
pub struct ConversionReport {
    losses: Vec<Loss>,
    converted: usize,
}

/// A cookie that was left out, or a part of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    name: String,
    domain: String,
    reason: LossReason,
}

/// Why a cookie, or a part of it, could not be converted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LossReason {
    /// Left out: name, value or path is not UTF-8, and `cookie_store` holds strings.
    NotUtf8,
    /// Left out: without a name, `cookie_store` would lose it as soon as it is saved.
    Nameless,
    /// Left out: `cookie_store` has one place for the cookie of the host and that of the domain,
    /// and the other of them, which is narrower, took it.
    HostOnlyTwin,
    /// Left out: `cookie_store` itself refuses it.
    RefusedByStore,
    /// Left out: a rule of ours refuses it.
    Refused(CookieErrorKind),
    /// Kept, but without its partition key.
    PartitionKey,
}

impl ConversionReport {
    /// Returns what was lost.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Returns whether nothing was lost.
    pub fn is_lossless(&self) -> bool {
        self.losses.is_empty()
    }

    /// Returns how many cookies were converted.
    pub fn converted(&self) -> usize {
        self.converted
    }

    fn lose(&mut self, name: &[u8], domain: &str, reason: LossReason) {
        let name = String::from_utf8_lossy(name).into_owned();
        self.losses.push(Loss { name, domain: domain.to_owned(), reason });
    }
}

impl Loss {
    /// Returns the name of the cookie.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the domain of the cookie.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns what happened to it.
    pub fn reason(&self) -> LossReason {
        self.reason
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cookie `{}` of {}: ", self.name.escape_debug(), self.domain)?;
        match self.reason {
            LossReason::NotUtf8 => f.write_str("left out, it is not utf-8"),
            LossReason::Nameless => f.write_str("left out, it has no name"),
            LossReason::HostOnlyTwin => f.write_str("left out, the host's own took its place"),
            LossReason::RefusedByStore => f.write_str("left out, the store refuses it"),
            LossReason::Refused(kind) => {
                let error = CookieError::named(kind, self.name.as_bytes());
                write!(f, "left out, {error}")
            }
            LossReason::PartitionKey => f.write_str("kept without its partition key"),
        }
    }
}

impl Jar {
    /// Converts the cookies to a [`CookieStore`], and tells what that cannot hold.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::cookies::{Jar, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// let mut jar = Jar::default();
    /// jar.set("id=1; Domain=example.com; Secure", "https://www.example.com/", now)?;
    /// jar.set("theme=dark; Max-Age=600", "https://www.example.com/", now)?;
    ///
    /// let (store, report) = jar.to_cookie_store(now);
    /// assert!(report.is_lossless());
    /// assert_eq!(store.iter_unexpired().count(), 2);
    ///
    /// let (back, report) = Jar::from_cookie_store(&store, now);
    /// assert!(report.is_lossless());
    /// assert_eq!(back.len(now), 2);
    /// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
    /// ```
    pub fn to_cookie_store(&self, now: Timestamp) -> (CookieStore, ConversionReport) {
        let mut store = CookieStore::default();
        let mut report = ConversionReport::default();
        let cookies: Vec<_> = self.iter(now).collect();
        for cookie in &cookies {
            let twin = |other: &&&StoredCookie| {
                other.host_only() && other.domain() == cookie.domain() && other.same_name_and_path(cookie)
            };
            let outcome = if !cookie.host_only() && cookies.iter().any(|other| twin(&other)) {
                Err(LossReason::HostOnlyTwin)
            } else {
                give(&mut store, cookie)
            };
            match outcome {
                Ok(()) => report.converted += 1,
                Err(reason) => report.lose(cookie.name_bytes(), cookie.domain(), reason),
            }
            if outcome.is_ok() && cookie.partition_key().is_some() {
                let reason = LossReason::PartitionKey;
                report.lose(cookie.name_bytes(), cookie.domain(), reason);
            }
        }
        (store, report)
    }

    /// Converts the cookies of a [`CookieStore`], and tells what our rules refuse.
    ///
    /// Expired cookies are no loss and not listed. The store does not know the order in which its
    /// cookies were created, so they come in that of their names.
    pub fn from_cookie_store(store: &CookieStore, now: Timestamp) -> (Self, ConversionReport) {
        let mut jar = Self::default();
        let mut report = ConversionReport::default();
        let mut cookies: Vec<_> = store.iter_any().collect();
        cookies.sort_by_key(|cookie| cookie.name().to_owned());
        for cookie in cookies {
            let domain = match &cookie.domain {
                CookieDomain::HostOnly(domain) | CookieDomain::Suffix(domain) => domain.as_str(),
                CookieDomain::NotPresent | CookieDomain::Empty => "",
            };
            match take(cookie, domain) {
                Ok(taken) if taken.is_expired(now) => {}
                Ok(taken) => {
                    jar.restore(taken, now);
                    report.converted += 1;
                }
                Err(error) => {
                    let reason = LossReason::Refused(error.kind());
                    report.lose(cookie.name().as_bytes(), domain, reason);
                }
            }
        }
        (jar, report)
    }
}

fn give(store: &mut CookieStore, cookie: &StoredCookie) -> Result<(), LossReason> {
    let raw = cookie.to_cookie().ok_or(LossReason::NotUtf8)?;
    if raw.name().is_empty() {
        return Err(LossReason::Nameless);
    }
    // The store takes a cookie only as coming from somewhere it could have come from.
    let scheme = if cookie.secure() { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{}/", cookie.domain()));
    let url = url.map_err(|_| LossReason::RefusedByStore)?;
    store.insert_raw(&raw, &url).map(drop).map_err(|_| LossReason::RefusedByStore)
}

fn take(cookie: &cookie_store::Cookie<'_>, domain: &str) -> Result<StoredCookie, CookieError> {
    let builder = match &cookie.domain {
        CookieDomain::Suffix(_) => StoredCookie::for_domain(cookie.name(), cookie.value(), domain),
        _ => StoredCookie::for_host(cookie.name(), cookie.value(), domain),
    };
    let expires = match &cookie.expires {
        CookieExpiration::AtUtc(moment) => {
            Some(Timestamp::from_millis((moment.unix_timestamp_nanos() / 1_000_000) as i64))
        }
        CookieExpiration::SessionEnd => None,
    };
    builder
        .path(&*cookie.path)
        .secure(cookie.secure().unwrap_or(false))
        .http_only(cookie.http_only().unwrap_or(false))
        .partitioned(cookie.partitioned().unwrap_or(false))
        .same_site(cookie.same_site().map(SameSite::from))
        .expires(expires)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookies::Target;

    const URL: &str = "https://www.x.example/a/b";

    fn losses(report: &ConversionReport) -> Vec<(&str, LossReason)> {
        report.losses().iter().map(|loss| (loss.name(), loss.reason())).collect()
    }

    #[test]
    fn there_and_back_every_attribute_is_kept() {
        // The store's clock is the system's.
        let now = Timestamp::from_secs(Timestamp::now().as_secs());
        let mut jar = Jar::default();
        for set_cookie in [
            "a=1",
            "b=ü \"2\"=; Path=/; Secure; HttpOnly; SameSite=None",
            "c=3; Domain=x.example; Max-Age=600; SameSite=Lax; Partitioned",
            "d=4; Domain=www.x.example; Path=/a; SameSite=Strict",
            "e=5; Max-Age=0",
        ] {
            jar.set(set_cookie, URL, now).unwrap();
        }
        let (store, report) = jar.to_cookie_store(now);
        assert!(report.is_lossless(), "{report:?}");
        let (back, report) = Jar::from_cookie_store(&store, now);
        assert!(report.is_lossless(), "{report:?}");
        assert_eq!(report.converted(), 4);

        let sorted = |jar: &Jar| {
            let mut cookies: Vec<_> = jar.iter(now).cloned().collect();
            cookies.sort_by_key(|cookie| cookie.name_bytes().to_vec());
            cookies
        };
        assert_eq!(sorted(&jar), sorted(&back));
    }

    #[test]
    fn what_the_store_cannot_hold_is_told() {
        let now = Timestamp::now();
        let mut jar = Jar::default();
        let target = Target::parse(URL).unwrap();
        for set_cookie in
            [&b"bytes=\xFF"[..], b"=nameless", b"twin=1; Path=/", b"twin=2; Path=/; Domain=www.x.example"]
        {
            jar.absorb(&target, set_cookie, now).unwrap();
        }
        let keyed = StoredCookie::for_host("keyed", "1", "x.example").partition_key("k").build();
        jar.insert(keyed.unwrap(), now);
        let (store, report) = jar.to_cookie_store(now);
        let mut lost = losses(&report);
        lost.sort_by_key(|(name, _)| name.to_owned());
        assert_eq!(
            lost,
            [
                ("", LossReason::Nameless),
                ("bytes", LossReason::NotUtf8),
                ("keyed", LossReason::PartitionKey),
                ("twin", LossReason::HostOnlyTwin),
            ],
        );
        assert_eq!(store.iter_unexpired().count(), 2);
    }

    #[test]
    fn what_our_rules_refuse_is_told() {
        let now = Timestamp::now();
        let mut store = CookieStore::default();
        let url = Url::parse("https://x.co.uk/").unwrap();
        store.parse("__Host-a=secret; Path=/", &url).unwrap();
        store.parse("b=1; SameSite=None", &url).unwrap();
        store.parse("c=1", &url).unwrap();
        let (jar, report) = Jar::from_cookie_store(&store, now);
        assert_eq!(
            losses(&report),
            [
                ("__Host-a", LossReason::Refused(CookieErrorKind::HostPrefix)),
                ("b", LossReason::Refused(CookieErrorKind::SameSiteNoneInsecure)),
            ],
        );
        assert_eq!(jar.len(now), 1);
        assert!(!report.losses()[0].to_string().contains("secret"));
    }
}
