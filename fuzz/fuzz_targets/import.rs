//! Reads any text as a snapshot, and as cookies in all formats.
//!
//! Checks that nothing panics, and that cookies are unchanged after a round trip through each
//! format, or that their losses are reported.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_client_sessions::{
    Sessions,
    cookies::{ImportedCookies, CookieFormat, StoredCookie, Timestamp},
    session::snapshot::SessionsSnapshot,
};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fuzz_target!(|data: &[u8]| {
    if let Ok(snapshot) = SessionsSnapshot::from_json(data) {
        let sessions = Sessions::builder().clock(|| NOW.into()).build().unwrap();
        let _ = sessions.restore_all(&snapshot);
        let again = sessions.snapshot().to_json();
        assert!(SessionsSnapshot::from_json(&again).is_ok(), "a written snapshot should be readable");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = ImportedCookies::detect(text, NOW);
    for &format in CookieFormat::ALL {
        let Ok(cookies) = ImportedCookies::read(format, text, NOW) else { continue };
        for cookie in cookies {
            for &to in CookieFormat::ALL {
                round_trip(&cookie, to);
            }
        }
    }
});

fn round_trip(cookie: &StoredCookie, format: CookieFormat) {
    // An expiry time in the past or in the distant future is capped, or read as none.
    let is_distant = |end: Timestamp| end <= NOW || end > Timestamp::from_secs(NOW.as_secs() + 400 * 86_400);
    if cookie.expires().is_some_and(is_distant) {
        return;
    }
    let (text, report) = format.write(std::slice::from_ref(cookie));
    let back = match ImportedCookies::read(format, &text, NOW) {
        Ok(back) => back,
        Err(error) => panic!("{format:?}: {error}"),
    };
    assert_eq!(back.as_slice().len(), report.converted(), "{format:?} {cookie:?}");
    if report.is_lossless() {
        let back = &back.as_slice()[0];
        let same_expiry = |one: &StoredCookie, other: &StoredCookie| {
            one.expires().map(Timestamp::as_secs) == other.expires().map(Timestamp::as_secs)
        };
        assert!(same_expiry(back, cookie), "{format:?} {cookie:?} {back:?}");
        assert_eq!(shown(back), shown(cookie), "{format:?}");
    }
}

/// A cookie as text, without its times.
fn shown(cookie: &StoredCookie) -> String {
    let attributes = (
        cookie.host_only(),
        cookie.secure(),
        cookie.http_only(),
        cookie.same_site(),
        cookie.partitioned(),
        cookie.partition_key(),
    );
    let bytes = (cookie.name_bytes(), cookie.value_bytes(), cookie.path_bytes());
    format!("{} {bytes:?} {attributes:?}", cookie.domain())
}
