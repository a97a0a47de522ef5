//! Cookie formats: reading, writing, and round trips through curl and `cookie_store`.

use std::process::Command;

use proptest::prelude::*;
use tower_client_sessions::{
    Sessions,
    cookies::{
        ConversionReport, CookieFormat, FormatErrorKind, ImportedCookies, LossReason, SameSite, StoredCookie,
        Timestamp,
    },
};

use crate::embedded::{Site, SiteConfig};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

#[track_caller]
fn read(format: CookieFormat, text: &str) -> Vec<StoredCookie> {
    match ImportedCookies::read(format, text, NOW) {
        Ok(cookies) => cookies.into_iter().collect(),
        Err(error) => panic!("{error}: {text}"),
    }
}

fn reasons(report: &ConversionReport) -> Vec<LossReason> {
    report.losses().iter().map(|loss| loss.reason()).collect()
}

/// A cookie as text, with all attributes and the value.
fn shown(cookie: &StoredCookie) -> String {
    let text = String::from_utf8(cookie.to_set_cookie()).unwrap();
    format!("{} {} {:?} {:?}", cookie.domain(), text, cookie.expires(), cookie.partition_key())
}

fn cookie() -> impl Strategy<Value = StoredCookie> {
    let text = |texts: &[&'static str]| prop::sample::select(texts.to_vec());
    let names = text(&["sid", "ü", "a.b", "__Host-h", "__Secure-s", "", "x y", "#hash"]);
    let values = text(&["", "abc==", "ö", "\"quoted, a\"", "a\tb", "1", "TRUE", "%20"]);
    let domains =
        text(&["shop.example", "www.shop.example", "127.0.0.1", "[::1]", "under_score.example", "co.uk"]);
    let paths = text(&["/", "/a/b", "/a;b", "/ü", "/a\tb"]);
    let expires =
        prop::option::of((1_800_000_001_i64..1_830_000_000, prop::sample::select(vec![0, 1, 123, 999])));
    let same_site =
        prop::sample::select(vec![None, Some(SameSite::Strict), Some(SameSite::Lax), Some(SameSite::None)]);
    let keys = text(&["", "", "https://top.example", "{\"topLevelSite\":\"https://top.example\"}"]);
    (names, values, domains, paths, expires, same_site, keys, any::<[bool; 4]>()).prop_filter_map(
        "the cookie violates a rule",
        |(name, value, domain, path, expires, same_site, key, [host, secure, http_only, partitioned])| {
            let builder = match host {
                true => StoredCookie::for_host(name, value, domain),
                false => StoredCookie::for_domain(name, value, domain),
            };
            builder
                .path(path)
                .secure(secure)
                .http_only(http_only)
                .partitioned(partitioned)
                .partition_key(key)
                .same_site(same_site)
                .expires(expires.map(|(seconds, millis)| Timestamp::from_millis(seconds * 1000 + millis)))
                .build()
                .ok()
        },
    )
}

/// Like `shown`, with the expiry time in the precision of the format.
fn as_precise_as(format: CookieFormat, cookie: &StoredCookie) -> String {
    let has_milliseconds = !matches!(format, CookieFormat::Netscape | CookieFormat::SetCookie);
    let end =
        cookie.expires().map(|end| if has_milliseconds { end } else { Timestamp::from_secs(end.as_secs()) });
    let text = String::from_utf8(cookie.to_set_cookie()).unwrap();
    format!("{} {} {:?} {:?}", cookie.domain(), text, end, cookie.partition_key())
}

proptest! {
    #[test]
    fn a_written_cookie_is_read_again_or_its_loss_is_reported(cookie in cookie()) {
        for &format in CookieFormat::ALL {
            let (text, report) = format.write(std::slice::from_ref(&cookie));
            let back = read(format, &text);
            prop_assert_eq!(back.len(), report.converted(), "{:?} {}", format, text);
            if report.is_lossless() {
                prop_assert_eq!(shown(&back[0]), as_precise_as(format, &cookie), "{:?} {}", format, text);
            } else if let Some(back) = back.first() {
                prop_assert_eq!(back.value(), cookie.value());
                prop_assert_ne!(shown(back), as_precise_as(format, &cookie), "nothing was lost: {:?} {}", report, text);
            }
            if report.converted() > 0 {
                prop_assert_eq!(CookieFormat::detect(&text), Some(format), "{}", text);
            }
        }
    }

    #[test]
    fn written_cookies_are_read_again_in_the_same_order(cookies in prop::collection::vec(cookie(), 0..20)) {
        for &format in CookieFormat::ALL {
            let is_lossless = |cookie: &&StoredCookie| format.write(std::slice::from_ref(*cookie)).1.is_lossless();
            let kept: Vec<_> = cookies.iter().filter(is_lossless).cloned().collect();
            let (text, report) = format.write(&kept);
            // `cookie_store` cannot represent a host-only cookie beside one of the domain.
            if report.is_lossless() {
                let expected: Vec<_> = kept.iter().map(|cookie| as_precise_as(format, cookie)).collect();
                prop_assert_eq!(read(format, &text).iter().map(shown).collect::<Vec<_>>(), expected);
            } else {
                prop_assert_eq!(format, CookieFormat::CookieStore);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "[\\[{\"a-z#\t:,;=0-9}\\] \n./]{0,200}") {
        let _ = ImportedCookies::detect(&text, NOW);
        for &format in CookieFormat::ALL {
            let _ = ImportedCookies::read(format, &text, NOW);
        }
    }
}

// Written by curl 7.88, with variations of wget and yt-dlp.
const NETSCAPE: &str = "\
# Netscape HTTP Cookie File
# https://curl.se/docs/http-cookies.html
# This file was generated by libcurl! Edit at your own risk.

#HttpOnly_127.0.0.1\tFALSE\t/\tFALSE\t0\tsid\ts1
.shop.example\tTRUE\t/a\tTRUE\t1900000000\ttheme\tdark==\r
www.shop.example\tFALSE\t/\tFALSE\t\tempty\t
www.shop.example\tFALSE\t/\tFALSE\t1900000000.5\tshort
shop.example\tTRUE\t/\tFALSE\t99999999999999999999\tfar\t1
shop.example\tTRUE\t/\tFALSE\t1\tpast\t1
";

#[test]
fn netscape_files_are_read() {
    let cookies = read(CookieFormat::Netscape, NETSCAPE);
    assert_eq!(
        cookies[..4].iter().map(shown).collect::<Vec<_>>(),
        [
            "127.0.0.1 sid=s1; Path=/; HttpOnly None None",
            "shop.example theme=dark==; Domain=shop.example; Path=/a; Expires=Sun, 17 Mar 2030 17:46:40 GMT; Secure \
             Some(Timestamp(1900000000000)) None",
            "www.shop.example empty=; Path=/ None None",
            "www.shop.example short=; Path=/; Expires=Sun, 17 Mar 2030 17:46:40 GMT Some(Timestamp(1900000000000)) None",
        ],
    );
    let sessions = Sessions::builder().clock(|| NOW.into()).build().unwrap();
    let session = sessions.session("a");
    assert_eq!(session.import(CookieFormat::Netscape, NETSCAPE).unwrap(), 5, "one has expired");
    assert_eq!(session.cookies().len(), 5);
    let far = session.cookies().into_iter().find(|cookie| cookie.name() == Some("far")).unwrap();
    assert_eq!(far.expires().unwrap().as_secs(), NOW.as_secs() + 400 * 86_400);
}

// From the documentation of `browserContext.storageState`.
const PLAYWRIGHT: &str = r#"{
  "cookies": [
    {"name": "sid", "value": "abc==", "domain": "shop.example", "path": "/", "expires": -1, "httpOnly": true,
     "secure": false, "sameSite": "Lax"},
    {"name": "theme", "value": "dark", "domain": ".shop.example", "path": "/a", "expires": 1900000000.123,
     "httpOnly": false, "secure": true, "sameSite": "None"},
    {"name": "chip", "value": "1", "domain": "w.example", "path": "/", "expires": 1900000000, "httpOnly": true,
     "secure": true, "sameSite": "Strict", "partitionKey": "https://top.example", "_crHasCrossSiteAncestor": true},
    {"name": "of1970", "value": "1", "domain": "w.example", "path": "/", "expires": 0, "httpOnly": true,
     "secure": true, "sameSite": "Strict"}
  ],
  "origins": [{"origin": "https://shop.example", "localStorage": [{"name": "k", "value": "v"}]}]
}"#;

#[test]
fn storage_state_is_read() {
    let cookies = read(CookieFormat::Playwright, PLAYWRIGHT);
    assert_eq!((cookies.len(), CookieFormat::detect(PLAYWRIGHT)), (4, Some(CookieFormat::Playwright)));
    assert!(cookies[0].host_only() && cookies[0].http_only() && cookies[0].expires().is_none());
    assert_eq!(cookies[0].same_site(), Some(SameSite::Lax));
    assert!(!cookies[1].host_only());
    assert_eq!(cookies[1].expires(), Some(Timestamp::from_millis(1_900_000_000_123)));
    assert_eq!(cookies[1].same_site(), Some(SameSite::None));
    assert_eq!((cookies[2].partition_key(), cookies[2].partitioned()), (Some("https://top.example"), true));
    assert!(cookies[3].is_expired(NOW), "0 is the year 1970 in this format, not a session cookie");

    let session = Sessions::new().session("a");
    session.replace(ImportedCookies::from_playwright(PLAYWRIGHT).unwrap());
    assert_eq!(session.generation(), Some(2));
    let (text, report) = session.export(CookieFormat::Playwright);
    assert!(report.is_lossless());
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["origins"], serde_json::json!([]));
    assert_eq!(value["cookies"][0]["expires"], -1);
    assert_eq!(value["cookies"][1]["domain"], ".shop.example");
}

// A response of Chromium to `Network.getAllCookies`.
const DEVTOOLS: &str = r#"[
  {"name": "sid", "value": "abc", "domain": "shop.example", "path": "/", "expires": -1, "size": 6, "httpOnly": true,
   "secure": true, "session": true, "sameSite": "Lax", "priority": "Medium", "sameParty": false,
   "sourceScheme": "Secure", "sourcePort": 443},
  {"name": "chip", "value": "1", "domain": ".w.example", "path": "/", "expires": 1900000000.5, "size": 5,
   "httpOnly": false, "secure": true, "session": false, "priority": "Medium", "sourceScheme": "Secure",
   "sourcePort": 443, "partitionKey": {"topLevelSite": "https://top.example", "hasCrossSiteAncestor": false}}
]"#;

// An export of the extension EditThisCookie.
const CHROME: &str = r#"[
  {"domain": ".shop.example", "expirationDate": 1900000000.25, "hostOnly": false, "httpOnly": false, "name": "theme",
   "path": "/", "sameSite": "no_restriction", "secure": true, "session": false, "storeId": "0", "value": "dark", "id": 1},
  {"domain": "shop.example", "hostOnly": true, "httpOnly": true, "name": "sid", "path": "/", "sameSite": "unspecified",
   "secure": false, "session": true, "storeId": "0", "value": "abc", "id": 2}
]"#;

#[test]
fn lists_of_devtools_and_chrome_are_read() {
    let devtools = read(CookieFormat::DevTools, DEVTOOLS);
    assert_eq!(CookieFormat::detect(DEVTOOLS), Some(CookieFormat::DevTools));
    assert_eq!((devtools[0].expires(), devtools[0].host_only()), (None, true));
    assert_eq!((devtools[1].same_site(), devtools[1].host_only()), (None, false));
    assert_eq!(devtools[1].expires(), Some(Timestamp::from_millis(1_900_000_000_500)));
    let key: serde_json::Value = serde_json::from_str(devtools[1].partition_key().unwrap()).unwrap();
    assert_eq!(key["topLevelSite"], "https://top.example");
    let (text, report) = CookieFormat::DevTools.write(&devtools);
    assert!(report.is_lossless());
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()[1]["partitionKey"], key);

    let chrome = read(CookieFormat::ChromeCookies, CHROME);
    assert_eq!(CookieFormat::detect(CHROME), Some(CookieFormat::ChromeCookies));
    assert_eq!((chrome[0].same_site(), chrome[0].host_only()), (Some(SameSite::None), false));
    assert_eq!(chrome[0].expires(), Some(Timestamp::from_millis(1_900_000_000_250)));
    assert_eq!((chrome[1].same_site(), chrome[1].host_only()), (None, true), "unspecified is not None");
    assert_eq!(chrome[1].expires(), None);
    let (text, _) = CookieFormat::ChromeCookies.write(&chrome);
    assert!(text.contains(r#""sameSite": "unspecified""#) && text.contains(r#""hostOnly": true"#));
    assert_eq!(text.matches("expirationDate").count(), 1);
}

#[test]
fn set_cookie_lines_are_read() {
    let text = "# https://www.shop.example/a/b\nSet-Cookie: sid=1; HttpOnly\n\nset-cookie: t=2; Domain=shop.example; \
                Max-Age=60\n# http://other.example\nu=3; Path=/x\n";
    let cookies = read(CookieFormat::SetCookie, text);
    assert_eq!(CookieFormat::detect(text), Some(CookieFormat::SetCookie));
    assert_eq!(
        cookies.iter().map(|cookie| (cookie.domain(), cookie.path().unwrap())).collect::<Vec<_>>(),
        [("www.shop.example", "/a"), ("shop.example", "/a"), ("other.example", "/x")],
    );
    assert_eq!(cookies[1].expires(), Some(Timestamp::from_secs(NOW.as_secs() + 60)));
    let lines = "sid=1; Secure\r\nSet-Cookie: lang=en";
    let cookies = ImportedCookies::from_set_cookie(lines, "https://shop.example/", NOW).unwrap();
    assert_eq!(cookies.as_slice().len(), 2);
}

#[test]
fn cookies_make_a_round_trip_through_cookie_store() {
    let text = {
        // The store has a precision of one second.
        let now = Timestamp::from_secs(Timestamp::now().as_secs());
        let mut jar = tower_client_sessions::cookies::Jar::default();
        for cookie in
            ["a=1; Secure; SameSite=None", "b=ü==; Domain=shop.example; Path=/x; Max-Age=6000; HttpOnly"]
        {
            jar.set(cookie, "https://www.shop.example/", now).unwrap();
        }
        let cookies: Vec<_> = jar.iter(now).cloned().collect();
        let (text, report) = CookieFormat::CookieStore.write(&cookies);
        assert!(report.is_lossless());
        let store = cookie_store::serde::json::load_all(text.as_bytes()).unwrap();
        assert_eq!(store.iter_unexpired().count(), 2);
        let mut theirs = Vec::new();
        cookie_store::serde::json::save_incl_expired_and_nonpersistent(&store, &mut theirs).unwrap();
        let theirs = String::from_utf8(theirs).unwrap();
        assert_eq!(CookieFormat::detect(&theirs), Some(CookieFormat::CookieStore));
        let mut back: Vec<_> = read(CookieFormat::CookieStore, &theirs).iter().map(shown).collect();
        let mut own: Vec<_> = cookies.iter().map(shown).collect();
        back.sort();
        own.sort();
        assert_eq!(back, own);
        theirs
    };
    // The older form has one cookie per line.
    let entries: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let lines: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
    assert_eq!(CookieFormat::detect(&lines), Some(CookieFormat::CookieStore));
    assert_eq!(read(CookieFormat::CookieStore, &lines).len(), 2);
    let first = lines.lines().next().unwrap();
    assert_eq!(CookieFormat::detect(first), Some(CookieFormat::CookieStore));
    assert_eq!(read(CookieFormat::CookieStore, first).len(), 1);
    let error =
        ImportedCookies::read(CookieFormat::CookieStore, &lines.replacen("\"Suffix\"", "\"Sufix\"", 1), NOW)
            .unwrap_err();
    assert_eq!((error.kind(), error.field()), (FormatErrorKind::InvalidField, Some("domain")));
    assert!(error.line().is_some());
}

#[test]
fn what_a_format_cannot_represent_is_reported() {
    let bytes = StoredCookie::for_host("b", b"\xFF".to_vec(), "x.example").build().unwrap();
    let nameless = StoredCookie::for_host("", "v", "x.example").build().unwrap();
    let all = StoredCookie::for_domain("n", "v", "x.example")
        .same_site(SameSite::Lax)
        .partitioned(true)
        .partition_key("k")
        .build()
        .unwrap();
    let path = StoredCookie::for_host("p", "v", "x.example").path("/a;b").build().unwrap();
    use LossReason::{Nameless, NotUtf8, PartitionKey, Partitioned, Path, SameSite as LostSameSite};
    for (format, expected) in [
        (CookieFormat::Netscape, &[NotUtf8, Nameless, LostSameSite, Partitioned, PartitionKey][..]),
        (CookieFormat::Playwright, &[NotUtf8]),
        (CookieFormat::DevTools, &[NotUtf8]),
        (CookieFormat::ChromeCookies, &[NotUtf8]),
        (CookieFormat::SetCookie, &[NotUtf8, PartitionKey, Path]),
        (CookieFormat::CookieStore, &[NotUtf8, Nameless, Partitioned, PartitionKey, Path]),
    ] {
        let (_, report) = format.write(&[bytes.clone(), nameless.clone(), all.clone(), path.clone()]);
        assert_eq!(reasons(&report), expected, "{format:?}");
        assert!(
            report.losses().iter().all(|loss| !loss.to_string().is_empty() && loss.domain() == "x.example")
        );
    }
}

#[test]
fn the_first_error_is_returned_with_its_position_and_without_values() {
    use FormatErrorKind::{InvalidCookie, InvalidField, MissingField, NoUrl, Syntax, Unknown};
    let good = "x.example\tFALSE\t/\tFALSE\t0\tn\tsecret\n";
    let entry = |more: &str| format!(r#"[{{"name": "n", "value": "secret", "domain": "x.example"{more}}}]"#);
    let second = |more: &str| entry("").replace(']', &format!(", {}", &entry(more)[1..]));
    for (format, text, kind, line, entry, field) in [
        (CookieFormat::Netscape, format!("{good}x.example\tsecret\n"), Syntax, Some(2), None, None),
        (CookieFormat::Netscape, format!("{good}{}\tsecret\n", good.trim_end()), Syntax, Some(2), None, None),
        (
            CookieFormat::Netscape,
            good.replacen("FALSE", "secret", 1),
            InvalidField,
            Some(1),
            None,
            Some("include subdomains"),
        ),
        (
            CookieFormat::Netscape,
            format!("#\n\n{}", good.replace("\t0\t", "\tsecret\t")),
            InvalidField,
            Some(3),
            None,
            Some("expires"),
        ),
        (CookieFormat::Netscape, good.replace("x.example", "x .example"), InvalidCookie, Some(1), None, None),
        (CookieFormat::Playwright, "{\"cookies\": {}}".into(), Syntax, None, None, None),
        (CookieFormat::Playwright, "{\"cookies\": [\n".into(), Syntax, Some(2), None, None),
        (CookieFormat::Playwright, "[\"secret\"]".into(), Syntax, None, Some(1), None),
        (
            CookieFormat::DevTools,
            second(r#", "expires": "secret""#),
            InvalidField,
            None,
            Some(2),
            Some("expires"),
        ),
        (
            CookieFormat::DevTools,
            second(r#", "sameSite": "unspecified""#),
            InvalidField,
            None,
            Some(2),
            Some("sameSite"),
        ),
        (CookieFormat::DevTools, second(r#", "path": "x""#), InvalidCookie, None, Some(2), None),
        (
            CookieFormat::DevTools,
            second("").replacen("\"name\"", "\"nam\"", 1),
            MissingField,
            None,
            Some(1),
            Some("name"),
        ),
        (
            CookieFormat::ChromeCookies,
            second(r#", "sameSite": "None""#),
            InvalidField,
            None,
            Some(2),
            Some("sameSite"),
        ),
        (
            CookieFormat::ChromeCookies,
            second(r#", "secure": 1"#),
            InvalidField,
            None,
            Some(2),
            Some("secure"),
        ),
        (
            CookieFormat::DevTools,
            format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000)),
            Syntax,
            Some(1),
            None,
            None,
        ),
        (CookieFormat::SetCookie, "\nsid=secret\n".into(), NoUrl, Some(2), None, None),
        (
            CookieFormat::SetCookie,
            "# https://x.example\nsid=secret; Domain=y.example".into(),
            InvalidCookie,
            Some(2),
            None,
            None,
        ),
        (CookieFormat::SetCookie, "# https://\nsid=secret".into(), InvalidCookie, Some(1), None, None),
        (
            CookieFormat::CookieStore,
            "[{\"raw_cookie\": 1}]".into(),
            InvalidField,
            None,
            Some(1),
            Some("raw_cookie"),
        ),
    ] {
        let sessions = Sessions::new();
        let session = sessions.session("a");
        session.set_cookie("own=1", "http://x.example/").unwrap();
        let error = session.import(format, &text).unwrap_err();
        let text: String = text.chars().take(200).collect();
        assert_eq!(
            (error.kind(), error.line(), error.entry(), error.field()),
            (kind, line, entry, field),
            "{text}: {error}"
        );
        let source = std::error::Error::source(&error).map(|source| source.to_string());
        assert_eq!(source.is_some(), kind == InvalidCookie);
        assert!(!format!("{error} {error:?} {source:?}").contains("secret"), "{error:?}");
        assert_eq!(session.cookies().len(), 1, "all or nothing");
    }
    for unknown in ["", "no cookies", "{}", "[1]", "{\"a\":", "# a comment"] {
        assert_eq!(ImportedCookies::detect(unknown, NOW).unwrap_err().kind(), Unknown, "{unknown:?}");
    }
    assert_eq!(Sessions::new().session("a").import_detect(good).unwrap(), 1);
}

#[tokio::test]
async fn curl_reads_and_writes_netscape_files() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: curl is not installed");
        return;
    }
    let site = Site::start(SiteConfig { login_ms: 0, latency_ms: 0, ..SiteConfig::default() }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours.txt"), folder.path().join("theirs.txt"));
    let session = Sessions::new().session("a");
    for (cookie, url) in [
        ("sid=abc==; Path=/; HttpOnly; Secure", "https://www.shop.example/"),
        ("theme=\"dark, mode\"; Domain=shop.example; Path=/a; Max-Age=6000", "https://www.shop.example/"),
        ("empty=; Path=/x", "http://other.example/"),
        ("here=1; Path=/", &site.url("/")),
    ] {
        session.set_cookie(cookie, url).unwrap();
    }
    let (text, report) = session.export(CookieFormat::Netscape);
    assert!(report.is_lossless());
    std::fs::write(&ours, &text).unwrap();
    let (url, ours, theirs_) = (site.url("/echo"), ours.clone(), theirs.clone());
    let output = tokio::task::spawn_blocking(move || {
        Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--cookie"])
            .arg(ours)
            .arg("--cookie-jar")
            .arg(theirs_)
            .arg(url)
            .output()
    });
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let response = String::from_utf8(output.stdout).unwrap();
    assert!(response.contains(r#"["cookie", "here=1"]"#), "curl sends the matching cookie: {response}");

    let written = std::fs::read_to_string(&theirs).unwrap();
    assert_eq!(CookieFormat::detect(&written), Some(CookieFormat::Netscape));
    let mut back: Vec<_> = read(CookieFormat::Netscape, &written).iter().map(shown).collect();
    let mut own: Vec<_> = session
        .snapshot()
        .cookies
        .iter()
        .map(|cookie| as_precise_as(CookieFormat::Netscape, cookie))
        .collect();
    back.sort();
    own.sort();
    assert_eq!(back, own, "{written}");
    site.shutdown().await;
}
