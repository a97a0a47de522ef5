//! Tests of the jar: the sections of the draft, cookies set by the user, and limits.

use std::cell::Cell;

use http::HeaderValue;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

fn cookie_url(url: &str) -> CookieUrl<'_> {
    CookieUrl::parse(url).unwrap()
}

fn store_set_cookie(jar: &mut Jar, url: &str, set_cookie: &str, now: Timestamp) -> Option<CookieErrorKind> {
    jar.store_set_cookie(&cookie_url(url), set_cookie.as_bytes(), now).err().map(|error| error.kind())
}

fn header(jar: &mut Jar, url: &str, now: Timestamp) -> String {
    let value = jar.cookie_header(&cookie_url(url), || now);
    value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

/// Stores the cookies of a response from `from`, and compares the header of a request to `to`.
#[track_caller]
fn check(from: &str, set_cookies: &[&str], to: &str, expected: &str) {
    let mut jar = Jar::default();
    for set_cookie in set_cookies {
        store_set_cookie(&mut jar, from, set_cookie, NOW);
    }
    assert_eq!(header(&mut jar, to, NOW), expected, "{from} {set_cookies:?} {to}");
}

#[track_caller]
fn check_rejected(from: &str, set_cookie: &str, kind: CookieErrorKind) {
    let mut jar = Jar::default();
    assert_eq!(store_set_cookie(&mut jar, from, set_cookie, NOW), Some(kind), "{from} {set_cookie}");
    assert!(jar.is_empty(NOW));
}

#[test]
fn section_5_1_3_domains_match_by_label() {
    check("http://a.x.example/", &["a=1; Domain=x.example"], "http://b.x.example/", "a=1");
    check("http://a.x.example/", &["a=1; Domain=.X.Example"], "http://x.example/", "a=1");
    check("http://x.example/", &["a=1"], "http://a.x.example/", "");
    check("http://x.example/", &["a=1; Domain=x.example"], "http://yx.example/", "");
    check("http://127.0.0.1/", &["a=1; Domain=0.0.1"], "http://127.0.0.1/", "");
    check("http://[::1]/", &["a=1"], "http://[0::1]:81/", "a=1");
    check("http://bücher.example/", &["a=1"], "http://xn--bcher-kva.example/", "a=1");
}

#[test]
fn section_5_1_4_paths_match_by_segment() {
    check("http://x.example/a/b", &["a=1"], "http://x.example/a/c", "a=1");
    check("http://x.example/a/b", &["a=1"], "http://x.example/ab", "");
    check("http://x.example/a/b", &["a=1; Path=b"], "http://x.example/a", "a=1");
    check("http://x.example/", &["a=1; Path=/b/"], "http://x.example/b", "");
}

#[test]
fn section_5_5_no_cookie_outlives_400_days() {
    let day = 86_400;
    for set_cookie in ["a=1; Max-Age=999999999999", "a=1; Expires=Fri, 31 Dec 9999 23:59:59 GMT"] {
        let mut jar = Jar::default();
        store_set_cookie(&mut jar, "http://x.example/", set_cookie, NOW);
        assert_eq!(jar.earliest_expiry(NOW), Some(at(400 * day)));
        // Setting the cookie again extends its lifetime.
        store_set_cookie(&mut jar, "http://x.example/", set_cookie, at(day));
        assert_eq!(jar.earliest_expiry(NOW), Some(at(401 * day)));
        assert_eq!(header(&mut jar, "http://x.example/", at(401 * day - 1)), "a=1");
        assert_eq!(header(&mut jar, "http://x.example/", at(401 * day)), "");
    }
}

#[test]
fn section_5_6_unusual_syntax_is_accepted() {
    check("http://x.example/", &["a", "=b=c", "d="], "http://x.example/", "b=c; d=");
    check("http://x.example/", &["a=1; Max-Age=x; Expires=never"], "http://x.example/", "a=1");
    check("http://x.example/", &["a=\"b c\""], "http://x.example/", "a=\"b c\"");
    let mut jar = Jar::default();
    jar.store_set_cookie(&cookie_url("http://x.example/"), b"a=\xFF\xFE", NOW).unwrap();
    let value = jar.cookie_header(&cookie_url("http://x.example/"), || NOW).unwrap();
    assert_eq!(value.as_bytes(), b"a=\xFF\xFE");
    assert_eq!(jar.iter(NOW).next().unwrap().value(), None);
}

#[test]
fn section_5_7_errors_name_the_violated_rule() {
    use CookieErrorKind::*;
    for (from, set_cookie, kind) in [
        ("http://x.example/", "", Empty),
        ("http://x.example/", "a=\u{1}", ControlCharacter),
        ("http://x.example/", "a=1; Domain=bücher.example", InvalidDomain),
        ("http://x.co.uk/", "a=1; Domain=co.uk", PublicSuffix),
        ("http://x.unlisted/", "a=1; Domain=unlisted", PublicSuffix),
        ("http://x.example/", "a=1; Domain=y.example", DomainMismatch),
        ("http://x.example/", "a=1; Domain=a.x.example", DomainMismatch),
        ("http://a..x.example/", "a=1; Domain=..x.example", DomainMismatch),
        ("http://x.example/", "a=1; Secure", SecureOverInsecure),
        ("https://x.example/", "a=1; SameSite=None", SameSiteNoneInsecure),
        ("https://x.example/", "__Secure-a=1", SecurePrefix),
        ("https://x.example/", "__sEcUrE-a=1", SecurePrefix),
        ("https://x.example/", "__Host-a=1; Secure", HostPrefix),
        ("https://x.example/", "__Host-a=1; Secure; Path=/a", HostPrefix),
        ("https://x.example/", "__Host-a=1; Secure; Path=/; Domain=x.example", HostPrefix),
        ("https://x.example/", "__host-a=1; Path=/", HostPrefix),
        ("https://x.example/", "=__Host-a=1", NamelessPrefix),
        ("https://x.example/", "__Secure-a", NamelessPrefix),
    ] {
        check_rejected(from, set_cookie, kind);
    }
    check("http://co.uk/", &["a=1; Domain=co.uk"], "http://co.uk/", "a=1");
    check("http://co.uk/", &["a=1; Domain=co.uk"], "http://a.co.uk/", "");
    check("http://localhost/", &["a=1; Secure"], "http://localhost/", "a=1");
}

#[test]
fn section_5_7_step_16_insecure_responses_do_not_overlay_secure_cookies() {
    let mut jar = Jar::default();
    store_set_cookie(&mut jar, "https://x.example/", "a=1; Secure; Path=/login; Max-Age=10", NOW);
    let rejected = Some(CookieErrorKind::OverlaysSecure);
    assert_eq!(store_set_cookie(&mut jar, "http://x.example/", "a=2; Path=/login", NOW), rejected);
    assert_eq!(store_set_cookie(&mut jar, "http://x.example/", "a=2; Path=/login/en", NOW), rejected);
    assert_eq!(store_set_cookie(&mut jar, "http://b.x.example/", "a=2; Path=/login", NOW), rejected);
    assert_eq!(store_set_cookie(&mut jar, "http://y.example/", "a=2; Path=/login", NOW), None);
    assert_eq!(store_set_cookie(&mut jar, "http://x.example/", "a=2; Path=/", NOW), None);
    assert_eq!(store_set_cookie(&mut jar, "http://x.example/", "b=2; Path=/login", NOW), None);
    // An expired `Secure` cookie does not protect its name.
    assert_eq!(store_set_cookie(&mut jar, "http://x.example/", "a=2; Path=/login", at(10)), None);
}

#[test]
fn an_equal_header_is_rejected_after_a_secure_cookie_was_set() {
    let mut jar = Jar::default();
    assert_eq!(store_set_cookie(&mut jar, "http://x.example/", "a=1; Max-Age=10", NOW), None);
    assert_eq!(store_set_cookie(&mut jar, "https://x.example/", "a=2; Domain=x.example; Secure", NOW), None);
    let again = store_set_cookie(&mut jar, "http://x.example/", "a=1; Max-Age=10", at(5));
    assert_eq!(again, Some(CookieErrorKind::OverlaysSecure));
    assert_eq!(jar.earliest_expiry(NOW), Some(at(10)));
}

#[test]
fn section_5_7_step_23_host_only_is_part_of_the_key_and_creation_is_kept() {
    let url = "http://x.example/";
    check(url, &["a=1", "a=2; Domain=x.example"], url, "a=1; a=2");
    check(url, &["a=1", "b=2", "a=3"], url, "a=3; b=2");
    check(url, &["a=1", "b=2", "a=; Max-Age=0", "a=3"], url, "b=2; a=3");
}

#[test]
fn section_5_8_3_longer_paths_come_first_then_older_cookies() {
    check(
        "http://x.example/a/b/c",
        &["a=1; Path=/", "b=2; Path=/a/b", "c=3; Path=/a", "d=4; Path=/a", "e=5; Path=/"],
        "http://x.example/a/b/c",
        "b=2; c=3; d=4; a=1; e=5",
    );
}

#[test]
fn an_equal_header_only_updates_the_expiry_time() {
    let mut jar = Jar::default();
    let here = cookie_url("http://x.example/");
    let first = jar.store_set_cookie(&here, b"a=1; Max-Age=10", NOW).unwrap();
    assert!(matches!(first, StoreOutcome::Stored(_)));
    jar.store_set_cookie(&here, b"b=2", NOW).unwrap();

    let again = jar.store_set_cookie(&here, b"a=1; Max-Age=10", at(5)).unwrap();
    assert!(matches!(again, StoreOutcome::Refreshed(_)));
    assert_eq!(again.cookie().unwrap().expires(), Some(at(15)));
    assert_eq!(again.cookie().unwrap().created(), NOW);
    assert_eq!(header(&mut jar, "http://x.example/", at(14)), "a=1; b=2");
    assert_eq!(header(&mut jar, "http://x.example/", at(15)), "b=2");

    // The cookie has expired, so an equal header sets a new one. Another host sets another cookie.
    let new = jar.store_set_cookie(&here, b"a=1; Max-Age=10", at(20)).unwrap();
    assert!(matches!(new, StoreOutcome::Stored(cookie) if cookie.created() == at(20)));
    let other = cookie_url("http://y.x.example/");
    let elsewhere = jar.store_set_cookie(&other, b"a=1; Max-Age=10", at(20)).unwrap();
    assert!(matches!(elsewhere, StoreOutcome::Stored(_)));
}

#[test]
fn another_value_replaces_the_old_one() {
    let mut jar = Jar::default();
    let here = cookie_url("https://x.example/");
    jar.store_set_cookie(&here, b"a=1; Max-Age=10", NOW).unwrap();
    jar.store_set_cookie(&here, b"b=2", NOW).unwrap();
    for value in ["3", "and longer", ""] {
        assert_eq!(header(&mut jar, "https://x.example/", at(1)).split_once("; ").unwrap().1, "b=2");
        let set_cookie = format!(" a = {value} ; Max-Age=10");
        let again = jar.store_set_cookie(&here, set_cookie.replace(" ;", ";").as_bytes(), at(5)).unwrap();
        assert!(matches!(again, StoreOutcome::Stored(cookie) if cookie.value() == Some(value)), "{value}");
        assert_eq!(again.cookie().unwrap().created(), NOW);
        assert_eq!(again.cookie().unwrap().expires(), Some(at(15)));
        assert_eq!(header(&mut jar, "https://x.example/", at(14)), format!("a={value}; b=2"));
    }
    assert_eq!(header(&mut jar, "https://x.example/", at(15)), "b=2");
}

#[test]
fn another_value_is_validated_like_the_first() {
    let long = "v".repeat(4096);
    for (url, first, next, kind) in [
        ("https://x.example/", "a=1", "a=\u{1}", CookieErrorKind::ControlCharacter),
        ("https://x.example/", "a=1", &format!("a={long}"), CookieErrorKind::TooLong),
        ("https://x.example/", "=1", "=__Host-a", CookieErrorKind::NamelessPrefix),
        ("https://x.example/", "1", "", CookieErrorKind::Empty),
        ("https://x.example/", "a=1; Secure", "a=2; Secure\u{7f}", CookieErrorKind::ControlCharacter),
    ] {
        let mut jar = Jar::default();
        assert_eq!(store_set_cookie(&mut jar, url, first, NOW), None, "{first}");
        let before = header(&mut jar, url, NOW);
        assert_eq!(store_set_cookie(&mut jar, url, next, NOW), Some(kind), "{next}");
        assert_eq!(header(&mut jar, url, NOW), before, "{next}");
    }
    // A `Secure` cookie that was set in the meantime is not replaced over plain HTTP.
    let mut jar = Jar::default();
    assert_eq!(store_set_cookie(&mut jar, "http://x.example/", "a=1", NOW), None);
    assert_eq!(store_set_cookie(&mut jar, "https://x.example/", "a=2; Secure", NOW), None);
    let overlays = Some(CookieErrorKind::OverlaysSecure);
    assert_eq!(store_set_cookie(&mut jar, "http://x.example/", "a=3", NOW), overlays);
    assert_eq!(header(&mut jar, "https://x.example/", NOW), "a=2");
}

#[test]
fn the_cached_header_is_the_header_of_its_uri() {
    let uris = [
        "http://x.example/",
        "http://x.example:8080/a",
        "https://x.example/",
        "https://x.example:/",
        "https://X.example/",
        "https://user:1@x.example/",
        "https://x.example:1@y.example/",
        "http://y.x.example/",
        "http://x.example.org/",
        "http://x.exampl/",
        "wss://x.example/",
        "http://localhost:80/",
        "https://localhost/",
        "http://127.0.0.1:8080/",
        "http://127.1/",
        "http://[::1]:81/",
        "http://a-host-with-a-name-of-many-letters.example/",
        "http://a-host-with-a-name-of-many-letters.example.org/",
    ]
    .map(http::Uri::from_static);
    let mut jar = Jar::default();
    for (at, uri) in uris.iter().enumerate() {
        let url = uri.to_string();
        store_set_cookie(&mut jar, &url, &format!("a={at}; Path=/"), NOW);
        store_set_cookie(&mut jar, &url, &format!("s={at}; Path=/; Secure; Max-Age=10"), NOW);
    }
    let mut hits = 0;
    for one in &uris {
        for other in &uris {
            let expected = jar.cookie_header(&CookieUrl::from_uri(one).unwrap(), || NOW);
            if let Some(header) = recent_header(&mut jar, one, NOW) {
                assert_eq!(header, expected, "{one}");
                hits += 1;
            }
            // The header of the most recent look-up is not returned for another URI.
            let cached = recent_header(&mut jar, other, NOW);
            let expected = jar.cookie_header(&CookieUrl::from_uri(other).unwrap(), || NOW);
            assert!(cached.is_none_or(|cached| cached == expected), "{one} {other}");
        }
    }
    assert!(hits > uris.len() * uris.len() / 2, "{hits}");

    // A header that has expired or depends on the path is not returned.
    let uri = http::Uri::from_static("https://x.example/");
    assert!(jar.cookie_header(&CookieUrl::from_uri(&uri).unwrap(), || NOW).is_some());
    assert!(recent_header(&mut jar, &uri, NOW).is_some());
    assert!(recent_header(&mut jar, &uri, at(10)).is_none());
    store_set_cookie(&mut jar, "https://x.example/", "p=1; Path=/a", NOW);
    assert!(jar.cookie_header(&CookieUrl::from_uri(&uri).unwrap(), || NOW).is_some());
    assert!(recent_header(&mut jar, &uri, NOW).is_none());
}

/// The cached header of the site of the last look-up, without parsing the URI.
fn recent_header(jar: &mut Jar, uri: &http::Uri, now: Timestamp) -> Option<Option<http::HeaderValue>> {
    let (authority, encrypted) = super::session_jar::key(uri)?;
    jar.recent_header(authority, encrypted, || now).map(|header| header.value.clone())
}

#[test]
fn a_user_set_cookie_disables_refreshes_of_its_name_and_path_only() {
    let mut jar = Jar::default();
    let here = cookie_url("http://x.example/");
    jar.store_set_cookie(&here, b"a=1; Domain=x.example", NOW).unwrap();
    jar.store_set_cookie(&here, b"b=1", NOW).unwrap();
    jar.add([("a", "user")], "http://x.example/", NOW).unwrap();
    assert!(matches!(jar.store_set_cookie(&here, b"b=1", NOW).unwrap(), StoreOutcome::Refreshed(_)));
    assert_eq!(header(&mut jar, "http://x.example/", NOW), "b=1; a=user");
    // The server sets the cookie again, so it is newer than the user's.
    assert!(matches!(
        jar.store_set_cookie(&here, b"a=1; Domain=x.example", NOW).unwrap(),
        StoreOutcome::Stored(_)
    ));
    assert_eq!(header(&mut jar, "http://x.example/", NOW), "a=1; b=1");
}

#[test]
fn a_removal_returns_the_removed_cookie() {
    let mut jar = Jar::default();
    let here = cookie_url("http://x.example/");
    jar.store_set_cookie(&here, b"a=1", NOW).unwrap();
    let removed = jar.store_set_cookie(&here, b"a=; Max-Age=0", NOW).unwrap();
    assert!(matches!(removed, StoreOutcome::Removed(Some(cookie)) if cookie.value() == Some("1")));
    let nothing = jar.store_set_cookie(&here, b"a=; Max-Age=0", NOW).unwrap();
    assert!(matches!(nothing, StoreOutcome::Removed(None)));
    assert_eq!(jar.to_string(), "");
}

#[test]
fn the_clock_is_read_only_if_a_cookie_can_expire() {
    let mut jar = Jar::default();
    store_set_cookie(&mut jar, "http://x.example/", "a=1", NOW);
    store_set_cookie(&mut jar, "http://y.example/", "b=1; Max-Age=10", NOW);
    let reads = Cell::new(0);
    let clock = || {
        reads.set(reads.get() + 1);
        NOW
    };
    for _ in 0..3 {
        assert!(jar.cookie_header(&cookie_url("http://x.example/"), clock).is_some());
        assert!(jar.cookie_header(&cookie_url("http://z.example/"), clock).is_none());
    }
    assert_eq!(reads.get(), 0);
    for _ in 0..3 {
        assert!(jar.cookie_header(&cookie_url("http://y.example/"), clock).is_some());
    }
    assert_eq!(reads.get(), 3);
}

#[test]
fn the_header_is_marked_sensitive() {
    let mut jar = Jar::default();
    jar.add([("a", "secret")], "http://x.example/", NOW).unwrap();
    let here = cookie_url("http://x.example/");
    let own = HeaderValue::from_static("b=own");
    for _ in 0..2 {
        assert!(jar.cookie_header(&here, || NOW).unwrap().is_sensitive());
        assert!(jar.cookie_header_with(&here, [&own].into_iter(), || NOW).unwrap().is_sensitive());
    }
}

#[test]
fn values_never_appear_in_output() {
    let mut jar = Jar::default();
    jar.add([("a", "s3cret")], "http://x.example/", NOW).unwrap();
    let error = jar.add([("a", "s3cret;")], "http://x.example/", NOW).unwrap_err();
    let stored = jar.store_set_cookie(&cookie_url("http://x.example/"), b"b=s3cret", NOW).unwrap();
    let mut shown = format!("{stored:?} {error} {error:?}");
    for cookie in jar.iter(NOW) {
        shown += &format!("{cookie} {cookie:?} {:?}", NewCookie::from(cookie));
    }
    shown += &format!("{jar} {jar:?} {:?}", NewCookie::from(("a", "s3cret")));
    shown += &format!("{:?}", StoredCookie::for_host("a", "s3cret", "x.example"));
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("a=*** (x.example/)"));
}

#[test]
fn cookies_of_the_request_replace_those_of_the_jar_by_name() {
    let mut jar = Jar::default();
    let here = cookie_url("http://x.example/");
    jar.add([("a", "1"), ("b", "2"), ("c", "3")], "http://x.example/", NOW).unwrap();
    store_set_cookie(&mut jar, "http://x.example/", "nameless", NOW);
    let own = [HeaderValue::from_static("b=own; d=4"), HeaderValue::from_static("c")];
    let sent = jar.cookie_header_with(&here, own.iter(), || NOW).unwrap();
    assert_eq!(sent, "b=own; d=4; c; a=1; c=3");
    assert_eq!(header(&mut jar, "http://x.example/", NOW), "a=1; b=2; c=3; nameless");
    // The jar adds nothing for another site, and the request's cookies are not stored.
    let elsewhere = cookie_url("http://y.example/");
    assert_eq!(jar.cookie_header_with(&elsewhere, own.iter(), || NOW).unwrap(), "b=own; d=4; c");
    assert_eq!(jar.cookie_header_with(&elsewhere, [].into_iter(), || NOW), None);
    assert_eq!(jar.len(NOW), 4);
}

/// In both orders, and with all ways to write the domain.
#[test]
fn a_user_set_cookie_and_the_same_cookie_of_a_response_are_never_both_sent() {
    let hosts = ["http://x.example/", "http://www.x.example/", "http://y.www.x.example/"];
    let responses = ["a=response", "a=response; Domain=x.example", "a=response; Domain=.www.x.example"];
    let domains = [None, Some("x.example"), Some(".x.example"), Some("www.x.example")];
    for domain in domains {
        for response in responses {
            for user_first in [true, false] {
                let mut jar = Jar::default();
                let add = |jar: &mut Jar| {
                    let mut cookie = cookie::Cookie::build(("a", "user")).path("/").build();
                    if let Some(domain) = domain {
                        cookie.set_domain(domain);
                    }
                    jar.add([cookie], "http://www.x.example/", NOW).unwrap();
                };
                if user_first {
                    add(&mut jar);
                }
                assert_eq!(store_set_cookie(&mut jar, "http://www.x.example/", response, NOW), None);
                if !user_first {
                    add(&mut jar);
                }
                let last = if user_first { "a=response" } else { "a=user" };
                assert_eq!(
                    header(&mut jar, "http://www.x.example/", NOW),
                    last,
                    "{domain:?} {response} {user_first}",
                );
                for host in hosts {
                    let sent = header(&mut jar, host, NOW);
                    assert!(sent.matches("a=").count() <= 1, "{host} {sent}");
                }
            }
        }
    }
}

#[test]
fn a_broader_displaced_cookie_is_still_sent_to_other_hosts() {
    let mut jar = Jar::default();
    store_set_cookie(&mut jar, "http://x.example/", "a=all; Domain=x.example", NOW);
    jar.add([("a", "www")], "http://www.x.example/", NOW).unwrap();
    assert_eq!(header(&mut jar, "http://www.x.example/", NOW), "a=www");
    assert_eq!(header(&mut jar, "http://x.example/", NOW), "a=all");
    let here = cookie_url("http://www.x.example/");
    let listed: Vec<_> = jar.matching(&here, NOW).iter().map(|cookie| cookie.value()).collect();
    assert_eq!(listed, [Some("www")]);
    assert_eq!(jar.get("a", &here, NOW).unwrap().value(), Some("www"));
}

#[test]
fn a_response_removes_a_user_set_cookie_of_its_domain() {
    for removal in ["a=; Max-Age=0", "a=; Max-Age=0; Domain=x.example"] {
        for domain in [None, Some("x.example")] {
            let mut jar = Jar::default();
            let mut cookie = cookie::Cookie::new("a", "user");
            domain.into_iter().for_each(|domain| cookie.set_domain(domain));
            jar.add([cookie], "http://x.example/", NOW).unwrap();
            store_set_cookie(&mut jar, "http://x.example/", removal, NOW);
            assert!(jar.is_empty(NOW), "{removal} {domain:?}");
        }
    }
}

#[test]
fn a_list_is_added_completely_or_not_at_all() {
    let mut jar = Jar::default();
    let good = || cookie::Cookie::new("good", "1");
    for (bad, kind) in [
        (cookie::Cookie::new("a;b", "1"), CookieErrorKind::Syntax),
        (cookie::Cookie::new("a", "1; Path=/"), CookieErrorKind::Syntax),
        (cookie::Cookie::new("a", " 1"), CookieErrorKind::Syntax),
        (cookie::Cookie::new("a=b", "1"), CookieErrorKind::Syntax),
        (cookie::Cookie::new("a", "1\n"), CookieErrorKind::ControlCharacter),
        (cookie::Cookie::new("a", "1".repeat(4096)), CookieErrorKind::TooLong),
        (cookie::Cookie::new("", ""), CookieErrorKind::Empty),
        (cookie::Cookie::build(("a", "1")).domain("y.example").build(), CookieErrorKind::DomainMismatch),
        (cookie::Cookie::build(("a", "1")).domain("example").build(), CookieErrorKind::PublicSuffix),
        (cookie::Cookie::build(("a", "1")).path("x").build(), CookieErrorKind::InvalidPath),
        (cookie::Cookie::build(("a", "1")).secure(true).build(), CookieErrorKind::SecureOverInsecure),
        (
            cookie::Cookie::build(("a", "1")).same_site(cookie::SameSite::None).build(),
            CookieErrorKind::SameSiteNoneInsecure,
        ),
        (cookie::Cookie::new("__Host-a", "1"), CookieErrorKind::HostPrefix),
    ] {
        let error = jar.add([good(), bad], "http://x.example/", NOW).unwrap_err();
        assert_eq!((error.kind(), error.index()), (kind, Some(1)));
        assert!(jar.is_empty(NOW));
    }
    let error = jar.add([good()], "x.example", NOW).unwrap_err();
    assert_eq!(error.kind(), CookieErrorKind::InvalidUrl);
    assert_eq!(error.url(), Some("x.example"));
}

#[test]
fn a_cookie_of_the_cookie_crate_keeps_all_attributes() {
    use cookie::time::{Duration, OffsetDateTime};
    let mut jar = Jar::default();
    let cookie = cookie::Cookie::build(("a", "ü=\"1\""))
        .domain("BÜCHER.example")
        .path("/shop")
        .secure(true)
        .http_only(true)
        .same_site(cookie::SameSite::Lax)
        .expires(OffsetDateTime::from_unix_timestamp(1_700_000_060).unwrap())
        .build();
    let mut aged = cookie.clone();
    aged.set_name("b");
    aged.set_max_age(Duration::seconds(5));
    jar.add([cookie, aged], "https://www.bücher.example/", NOW).unwrap();

    let here = cookie_url("https://www.bücher.example/shop");
    let a = jar.get("a", &here, NOW).unwrap();
    assert_eq!((a.value(), a.domain(), a.path()), (Some("ü=\"1\""), "xn--bcher-kva.example", Some("/shop")));
    assert_eq!((a.host_only(), a.secure(), a.http_only()), (false, true, true));
    assert_eq!((a.same_site(), a.expires(), a.created()), (Some(SameSite::Lax), Some(at(60)), NOW));
    assert_eq!(jar.get("b", &here, NOW).unwrap().expires(), Some(at(5)));

    let back = a.to_cookie().unwrap();
    let mut again = Jar::default();
    again.add([back], "https://www.bücher.example/", NOW).unwrap();
    assert_eq!(again.iter(NOW).next(), Some(a));
}

/// Found by fuzzing: the path would end at the `;`, and an attribute would begin.
#[test]
fn a_default_path_with_a_semicolon_is_not_written_as_an_attribute() {
    let url = "http://x.example/app;secure/page";
    let mut jar = Jar::default();
    jar.add([("a", "1")], url, NOW).unwrap();
    store_set_cookie(&mut jar, url, "b=2", NOW);
    assert_eq!(header(&mut jar, url, NOW), "a=1; b=2");
    for cookie in jar.iter(NOW) {
        assert_eq!(cookie.path(), Some("/app;secure"));
        let written = String::from_utf8(cookie.to_set_cookie()).unwrap();
        assert!(!written.contains("secure"), "{written}");
    }
    let smuggled = cookie::Cookie::build(("a", "1")).path("/; Secure").build();
    assert_eq!(jar.add([smuggled], url, NOW).unwrap_err().kind(), CookieErrorKind::InvalidPath);
}

#[test]
fn an_inserted_cookie_keeps_its_timestamps() {
    let mut jar = Jar::default();
    let old = at(-1_000);
    for name in ["b", "a"] {
        let cookie = StoredCookie::for_domain(name, "1", ".x.example")
            .created(old)
            .last_used(at(-10))
            .expires(at(60))
            .partition_key("https://y.example")
            .build()
            .unwrap();
        jar.insert(cookie, NOW);
    }
    store_set_cookie(&mut jar, "http://x.example/", "c=1", NOW);
    let first = jar.iter(NOW).next().unwrap();
    assert_eq!((first.name(), first.created(), first.last_used()), (Some("b"), old, at(-10)));
    assert_eq!((first.partition_key(), first.value()), (Some("https://y.example"), Some("1")));
    assert_eq!(header(&mut jar, "http://x.example/", NOW), "b=1; a=1; c=1");
}

#[test]
fn a_cookie_for_an_address_or_a_public_suffix_is_host_only() {
    for domain in ["127.0.0.1", "[::1]", "::1", "co.uk", "localhost"] {
        assert!(StoredCookie::for_domain("a", "1", domain).build().unwrap().host_only(), "{domain}");
    }
    for domain in ["", ".", "a b", "a;b", "[::"] {
        assert!(StoredCookie::for_domain("a", "1", domain).build().is_err(), "{domain}");
    }
}

#[test]
fn cookies_are_found_listed_and_removed() {
    let mut jar = Jar::default();
    jar.add([("a", "1"), ("b", "2")], "http://x.example/", NOW).unwrap();
    jar.set("c=3; Domain=x.example; Path=/p", "http://www.x.example/", NOW).unwrap();
    jar.set("d=4; Max-Age=10", "http://y.example/", NOW).unwrap();
    let names = |cookies: Vec<&StoredCookie>| -> Vec<String> {
        cookies.iter().map(|cookie| cookie.name().unwrap().to_owned()).collect()
    };

    assert_eq!(names(jar.in_domain(".X.example", NOW).collect()), ["c", "a", "b"]);
    assert_eq!(names(jar.in_domain("example", NOW).collect()), ["c", "a", "b", "d"]);
    assert_eq!(names(jar.with_path("/p", NOW).collect()), ["c"]);
    assert_eq!(names(jar.matching(&cookie_url("http://x.example/p"), NOW)), ["c", "a", "b"]);
    assert_eq!(jar.len(at(10)), 3);
    assert_eq!((jar.earliest_expiry(NOW), jar.earliest_expiry(at(10))), (Some(at(10)), None));

    assert_eq!(jar.remove("x.example", "/", "c"), None);
    assert_eq!(jar.remove(".x.example", "/p", "c").unwrap().value(), Some("3"));
    assert_eq!(header(&mut jar, "http://x.example/p", NOW), "a=1; b=2");
    jar.retain(|cookie| cookie.name() != Some("a"));
    assert_eq!(header(&mut jar, "http://x.example/", NOW), "b=2");
    jar.clear();
    assert!(jar.is_empty(NOW) && header(&mut jar, "http://x.example/", NOW).is_empty());
}

#[test]
fn a_full_domain_evicts_expired_then_insecure_then_least_recently_used_cookies() {
    let mut jar = Jar::with_limits(Limits::default().per_domain(3));
    let url = "https://x.example/";
    let names =
        |jar: &Jar| -> String { jar.iter(Timestamp::MIN).map(|cookie| cookie.name().unwrap()).collect() };
    store_set_cookie(&mut jar, url, "a=1; Max-Age=5", NOW);
    store_set_cookie(&mut jar, url, "b=1; Path=/b", at(1));
    store_set_cookie(&mut jar, url, "c=1; Path=/c", at(2));
    store_set_cookie(&mut jar, url, "d=1; Secure", at(6));
    assert_eq!(names(&jar), "bcd");
    // The oldest cookie has been sent since. The use of a cached header counts too.
    header(&mut jar, "https://x.example/b", at(7));
    header(&mut jar, "https://x.example/b", at(8));
    store_set_cookie(&mut jar, url, "e=1", at(9));
    assert_eq!(names(&jar), "bde");
    store_set_cookie(&mut jar, url, "f=1", at(10));
    assert_eq!(names(&jar), "def");
    // The newest cookie stays, although all others are secure.
    for name in ["g", "h"] {
        store_set_cookie(&mut jar, url, &format!("{name}=1; Secure"), at(11));
    }
    store_set_cookie(&mut jar, url, "i=1", at(12));
    assert_eq!(names(&jar), "ghi");
    assert_eq!(header(&mut jar, url, at(12)), "g=1; h=1; i=1");
}

#[test]
fn a_full_jar_evicts_the_least_recently_used_cookies_of_all_domains() {
    let mut jar = Jar::with_limits(Limits::default().total(10));
    for site in 0..10 {
        store_set_cookie(&mut jar, &format!("http://s{site}.example/"), "a=1", at(site));
    }
    header(&mut jar, "http://s0.example/", at(20));
    for site in 10..15 {
        store_set_cookie(&mut jar, &format!("http://s{site}.example/"), "a=1", at(20 + site));
    }
    assert_eq!(jar.len(NOW), 10);
    for site in 0..15 {
        let kept = site == 0 || site > 5;
        let sent = header(&mut jar, &format!("http://s{site}.example/"), at(40));
        assert_eq!(!sent.is_empty(), kept, "{site}");
    }
}

#[test]
fn the_site_of_a_public_suffix_does_not_include_subdomains() {
    let mut jar = Jar::default();
    store_set_cookie(&mut jar, "http://co.uk/", "a=suffix", NOW);
    for others in 0..5 {
        for site in ["x", "y"] {
            let url = format!("http://{site}{others}.co.uk/");
            assert_eq!(header(&mut jar, &url, NOW), "");
        }
        let url = format!("http://x{others}.co.uk/");
        store_set_cookie(&mut jar, &url, "a=own", NOW);
        assert_eq!(header(&mut jar, &url, NOW), "a=own");
    }
    store_set_cookie(&mut jar, "http://y0.co.uk/", "a=own", NOW);
    assert_eq!(header(&mut jar, "http://y0.co.uk/", NOW), "a=own");
    assert_eq!(header(&mut jar, "http://co.uk/", NOW), "a=suffix");
}

#[test]
fn many_sites_are_added_and_removed() {
    let mut jar = Jar::default();
    let url = |site: usize| format!("http://www.s{site}.example/");
    for site in 0..100 {
        let set_cookie = format!("a={site}; Max-Age={}", 1 + site % 10);
        store_set_cookie(&mut jar, &url(site), &set_cookie, NOW);
    }
    for secs in 0..12 {
        for site in (0..100).rev() {
            let alive = (1 + site % 10) as i64 > secs;
            let expected = if alive { format!("a={site}") } else { String::new() };
            assert_eq!(header(&mut jar, &url(site), at(secs)), expected);
        }
    }
    assert_eq!(format!("{jar:?}").matches("sites: 0").count(), 1);
}

#[test]
fn expired_cookies_of_unused_sites_are_removed_when_the_jar_is_used() {
    let mut jar = Jar::default();
    for site in 0..100 {
        store_set_cookie(&mut jar, &format!("http://s{site}.example/"), "a=1; Max-Age=10", NOW);
    }
    store_set_cookie(&mut jar, "http://new.example/", "a=1", at(10));
    assert!(format!("{jar:?}").contains("cookies: 1,"), "{jar:?}");
}

#[test]
fn a_clone_is_independent() {
    let mut jar = Jar::default();
    jar.add([("a", "1")], "http://x.example/", NOW).unwrap();
    header(&mut jar, "http://x.example/", NOW);
    let mut fork = jar.clone();
    fork.add([("a", "2")], "http://x.example/", NOW).unwrap();
    assert_eq!(header(&mut jar, "http://x.example/", NOW), "a=1");
    assert_eq!(header(&mut fork, "http://x.example/", NOW), "a=2");
}

#[test]
fn a_jar_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + Default + 'static>() {}
    shared::<Jar>();
}
