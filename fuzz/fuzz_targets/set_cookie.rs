//! Reads two URLs, and stores the remaining lines as `Set-Cookie` headers of the first.
//!
//! Checks that nothing panics, that the header for the second URL consists of the matching cookies
//! in order, that the cached header is equal, that no cookie violates its attributes, and that a
//! written cookie is parsed unchanged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_client_sessions::cookies::{Jar, StoredCookie, CookieUrl, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|&byte| byte == b'\n');
    let mut url = || std::str::from_utf8(lines.next().unwrap_or_default()).ok();
    let (Some(from), Some(to)) = (url(), url()) else { return };
    let (Ok(from), Ok(to)) = (CookieUrl::parse(from), CookieUrl::parse(to)) else { return };

    let mut jar = Jar::default();
    for set_cookie in lines {
        let _ = jar.cookie_header(&to, || NOW);
        let Ok(stored) = jar.store_set_cookie(&from, set_cookie, NOW) else { continue };
        let Some(cookie) = stored.cookie().cloned() else { continue };
        assert!(cookie.matches(&from) || cookie.path_bytes() != b"/");
        assert_round_trip(&cookie, &from);
    }

    let mut expected = Vec::new();
    for cookie in jar.matching(&to, NOW) {
        assert!(may_be_sent(cookie, &to), "{cookie:?} {to:?}");
        if !expected.is_empty() {
            expected.extend_from_slice(b"; ");
        }
        if !cookie.name_bytes().is_empty() {
            expected.extend_from_slice(cookie.name_bytes());
            expected.push(b'=');
        }
        expected.extend_from_slice(cookie.value_bytes());
    }
    for _ in 0..2 {
        let header = jar.cookie_header(&to, || NOW);
        let sent = header.as_ref().map_or(&b""[..], |header| header.as_bytes());
        assert_eq!(sent, expected);
    }
});

/// An independent implementation of the rules for sending.
fn may_be_sent(cookie: &StoredCookie, url: &CookieUrl<'_>) -> bool {
    let (host, domain) = (url.host(), cookie.domain());
    let host_matches =
        host == domain || (!cookie.host_only() && host.ends_with(&format!(".{domain}")));
    let (path, own) = (url.path().as_bytes(), cookie.path_bytes());
    let path_matches = path.starts_with(own)
        && (path.len() == own.len() || own.ends_with(b"/") || path[own.len()] == b'/');
    host_matches && path_matches && (!cookie.secure() || url.is_secure())
}

fn assert_round_trip(cookie: &StoredCookie, from: &CookieUrl<'_>) {
    // The name of a host may be longer than an attribute.
    if cookie.domain().len() > 1024 {
        return;
    }
    let mut jar = Jar::default();
    let written = cookie.to_set_cookie();
    match jar.store_set_cookie(from, &written, NOW) {
        Ok(again) => assert_eq!(again.cookie(), Some(cookie)),
        Err(error) => panic!("{cookie:?} is rejected after it was written: {error}"),
    }
}
