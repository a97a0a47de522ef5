//! Parses any bytes as a date. Checks that valid dates can be written and parsed again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_client_sessions::cookies::{Jar, CookieUrl, Timestamp, parse_date};

fuzz_target!(|text: &[u8]| {
    let Some(date) = parse_date(text) else { return };
    // The range of years that the algorithm accepts.
    assert!((-11_644_473_600..253_402_300_800).contains(&date.as_secs()));

    let before = Timestamp::from_millis(date.as_millis() - 1);
    let url = CookieUrl::parse("http://fuzz.example/").expect("the url is well formed");
    let mut set_cookie = b"a=1; Expires=".to_vec();
    set_cookie.extend(text.iter().take_while(|&&byte| byte != b';'));
    let mut jar = Jar::default();
    if let Ok(stored) = jar.store_set_cookie(&url, &set_cookie, before)
        && let Some(cookie) = stored.cookie().cloned()
        && let Some(expires) = cookie.expires()
    {
        let written = cookie.to_set_cookie();
        let mut again = Jar::default();
        let again = again.store_set_cookie(&url, &written, before).expect("the written cookie is valid");
        assert_eq!(again.cookie().and_then(|cookie| cookie.expires()), Some(expires));
    }
});
