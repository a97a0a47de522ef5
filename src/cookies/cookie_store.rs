//! Conversion to and from the jar of the crate `cookie_store`, which represents fewer cookies.

use cookie_store::{CookieDomain, CookieExpiration, CookieStore};
use url::Url;

use super::{ConversionReport, CookieError, Jar, LossReason, SameSite, StoredCookie, Timestamp};

impl Jar {
    /// Converts the cookies to a [`CookieStore`], and reports what it cannot represent.
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
                insert(&mut store, cookie)
            };
            match outcome {
                Ok(()) => report.add_converted(),
                Err(reason) => report.add_loss(cookie.name_bytes(), cookie.domain(), reason),
            }
            if outcome.is_ok() && cookie.partition_key().is_some() {
                let reason = LossReason::PartitionKey;
                report.add_loss(cookie.name_bytes(), cookie.domain(), reason);
            }
        }
        (store, report)
    }

    /// Converts the cookies of a [`CookieStore`], and reports those that violate a rule.
    ///
    /// Expired cookies are omitted without a report. The store does not record the order of
    /// creation, so the jar orders the cookies by name.
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
            match from_store_cookie(cookie, domain) {
                Ok(converted) if converted.is_expired(now) => {}
                Ok(converted) => {
                    jar.restore(converted, now);
                    report.add_converted();
                }
                Err(error) => {
                    let reason = LossReason::InvalidCookie(error.kind());
                    report.add_loss(cookie.name().as_bytes(), domain, reason);
                }
            }
        }
        (jar, report)
    }
}

fn insert(store: &mut CookieStore, cookie: &StoredCookie) -> Result<(), LossReason> {
    let raw = cookie.to_cookie().ok_or(LossReason::NotUtf8)?;
    if raw.name().is_empty() {
        return Err(LossReason::Nameless);
    }
    // The store requires a URL that could have set the cookie.
    let scheme = if cookie.secure() { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{}/", cookie.domain()));
    let url = url.map_err(|_| LossReason::RejectedByStore)?;
    store.insert_raw(&raw, &url).map(drop).map_err(|_| LossReason::RejectedByStore)
}

fn from_store_cookie(cookie: &cookie_store::Cookie<'_>, domain: &str) -> Result<StoredCookie, CookieError> {
    let builder = match &cookie.domain {
        CookieDomain::Suffix(_) => StoredCookie::for_domain(cookie.name(), cookie.value(), domain),
        _ => StoredCookie::for_host(cookie.name(), cookie.value(), domain),
    };
    let expires = match &cookie.expires {
        CookieExpiration::AtUtc(time) => Some(Timestamp::from_date_time(*time)),
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
    use crate::cookies::{CookieErrorKind, CookieUrl};

    const URL: &str = "https://www.x.example/a/b";

    fn losses(report: &ConversionReport) -> Vec<(&str, LossReason)> {
        report.losses().iter().map(|loss| (loss.name(), loss.reason())).collect()
    }

    #[test]
    fn a_round_trip_keeps_all_attributes() {
        // The store reads the system clock.
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
    fn what_the_store_cannot_represent_is_reported() {
        let now = Timestamp::now();
        let mut jar = Jar::default();
        let target = CookieUrl::parse(URL).unwrap();
        for set_cookie in
            [&b"bytes=\xFF"[..], b"=nameless", b"twin=1; Path=/", b"twin=2; Path=/; Domain=www.x.example"]
        {
            jar.store_set_cookie(&target, set_cookie, now).unwrap();
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
    fn cookies_that_violate_a_rule_are_reported() {
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
                ("__Host-a", LossReason::InvalidCookie(CookieErrorKind::HostPrefix)),
                ("b", LossReason::InvalidCookie(CookieErrorKind::SameSiteNoneInsecure)),
            ],
        );
        assert_eq!(jar.len(now), 1);
        assert!(!report.losses()[0].to_string().contains("secret"));
    }
}
