//! Any text, as cookies in any format, and as a snapshot.
//!
//! Nothing panics; what is read is within the rules, and what is written of it is read again the same, or reported.

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
        assert!(SessionsSnapshot::from_json(&again).is_ok(), "what is written is read");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = ImportedCookies::detect(text, NOW);
    for &format in CookieFormat::ALL {
        let Ok(cookies) = ImportedCookies::read(format, text, NOW) else { continue };
        for cookie in cookies {
            for &to in CookieFormat::ALL {
                goes_and_comes(&cookie, to);
            }
        }
    }
});

fn goes_and_comes(cookie: &StoredCookie, format: CookieFormat) {
    // The end of one that ends in the distant future or has ended long ago is capped, or taken for none.
    let distant = |end: Timestamp| end <= NOW || end > Timestamp::from_secs(NOW.as_secs() + 400 * 86_400);
    if cookie.expires().is_some_and(distant) {
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
        let same_end = |one: &StoredCookie, other: &StoredCookie| {
            one.expires().map(Timestamp::as_secs) == other.expires().map(Timestamp::as_secs)
        };
        assert!(same_end(back, cookie), "{format:?} {cookie:?} {back:?}");
        assert_eq!(back.pair_and_place(), cookie.pair_and_place(), "{format:?}");
    }
}

trait Shown {
    fn pair_and_place(&self) -> String;
}

impl Shown for StoredCookie {
    fn pair_and_place(&self) -> String {
        let attributes =
            (self.host_only(), self.secure(), self.http_only(), self.same_site(), self.partitioned());
        let bytes = (self.name_bytes(), self.value_bytes(), self.path_bytes());
        format!("{} {bytes:?} {attributes:?} {:?}", self.domain(), self.partition_key())
    }
}
