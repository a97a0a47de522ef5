//! Serde implementations. Deserialisation validates a cookie again.

use std::{borrow::Cow, fmt, ops::Not};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor},
    ser::{Serialize, SerializeMap, Serializer},
};

use super::{SameSite, StoredCookie, Timestamp};

/// The serialised form of a cookie.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "cookie", deny_unknown_fields)]
struct Record<'c> {
    name: Text<'c>,
    value: Text<'c>,
    domain: Cow<'c, str>,
    host_only: bool,
    path: Text<'c>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Not::not")]
    secure: bool,
    #[serde(default, skip_serializing_if = "Not::not")]
    http_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_site: Option<SameSite>,
    #[serde(default, skip_serializing_if = "Not::not")]
    partitioned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<Cow<'c, str>>,
    #[serde(default, skip_serializing_if = "Not::not")]
    user_set: bool,
    created: Timestamp,
    last_used: Timestamp,
}

/// Serialises all attributes and times, and the value.
impl Serialize for StoredCookie {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = Record {
            name: Text(self.name_bytes().into()),
            value: Text(self.value_bytes().into()),
            domain: self.domain().into(),
            host_only: self.host_only(),
            path: Text(self.path_bytes().into()),
            expires: self.expires(),
            secure: self.secure(),
            http_only: self.http_only(),
            same_site: self.same_site(),
            partitioned: self.partitioned(),
            partition_key: self.partition_key().map(Cow::from),
            user_set: self.is_user_set(),
            created: self.created(),
            last_used: self.last_used(),
        };
        record.serialize(serializer)
    }
}

/// Validates the cookie like [`StoredCookieBuilder::build`](super::StoredCookieBuilder::build).
/// Errors do not contain its value.
impl<'de> Deserialize<'de> for StoredCookie {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Record::deserialize(deserializer)?;
        let (name, value) = (record.name.0.into_owned(), record.value.0.into_owned());
        let domain = record.domain.into_owned();
        let builder = match record.host_only {
            true => Self::for_host(name, value, domain),
            false => Self::for_domain(name, value, domain),
        };
        builder
            .path(record.path.0.into_owned())
            .expires(record.expires)
            .secure(record.secure)
            .http_only(record.http_only)
            .same_site(record.same_site)
            .partitioned(record.partitioned)
            .partition_key(record.partition_key.unwrap_or_default())
            .user_set(record.user_set)
            .created(record.created)
            .last_used(record.last_used)
            .build()
            .map_err(D::Error::custom)
    }
}

/// Serialises as milliseconds since the Unix epoch.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.as_millis())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Self::from_millis)
    }
}

/// Serialises as the value of the attribute.
impl Serialize for SameSite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SameSite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Self::parse(word.as_bytes()).ok_or_else(|| D::Error::custom("expected Strict, Lax or None"))
    }
}

/// Bytes that are usually UTF-8. Serialised as a string, or as `{"base64": "…"}` otherwise.
struct Text<'t>(Cow<'t, [u8]>);

const BASE64: &str = "base64";

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(BASE64, &STANDARD.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Text<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'static>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or {\"base64\": a string}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(text.as_bytes().to_vec().into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let wrong = || A::Error::custom("expected a single field, base64, with base64 text");
                let (key, text) = map.next_entry::<String, String>()?.ok_or_else(wrong)?;
                let bytes = STANDARD.decode(text).map_err(|_| wrong())?;
                if key != BASE64 || map.next_key::<IgnoredAny>()?.is_some() {
                    return Err(wrong());
                }
                Ok(Text(bytes.into()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cookies::{CookieUrl, Jar, Limits};

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_123);

    fn round_trip(jar: &Jar, now: Timestamp) -> Jar {
        let json = serde_json::to_string(&jar.by_creation(now)).unwrap();
        let mut restored = Jar::with_limits(jar.limits());
        assert_eq!(restored.restore_all(serde_json::from_str(&json).unwrap(), now), 0);
        assert_eq!(serde_json::to_string(&restored.by_creation(now)).unwrap(), json);
        restored
    }

    fn url() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "https://shop.example/",
            "https://www.shop.example/a/b",
            "http://www.shop.example/a;b/c",
            "http://127.0.0.1/",
            "https://[::1]/x/",
            "https://under_score.example/",
            "https://semi;colon.example/",
            "https://x.co.uk/",
            "http://xn--bcher-kva.example/",
        ])
    }

    fn set_cookie() -> impl Strategy<Value = Vec<u8>> {
        let pair = prop::sample::select(vec![
            &b"a=1"[..],
            b"a=2",
            b"=b=c",
            b"nameless",
            b"bytes=\xFF\xFE",
            b"\xF0=1",
            b"__Host-h=1",
            b"q=\"x, y\" z",
            b"t=a\tb",
        ]);
        let attributes = prop::sample::subsequence(
            vec![
                &b"; Secure"[..],
                b"; HttpOnly",
                b"; Path=/",
                b"; Path=/a",
                b"; Domain=shop.example",
                b"; Domain=www.shop.example",
                b"; Max-Age=600",
                b"; Expires=Wed, 01 Jan 2025 00:00:00 GMT",
                b"; SameSite=None",
                b"; SameSite=Strict",
                b"; Partitioned",
            ],
            0..6,
        );
        (pair, attributes).prop_map(|(pair, attributes)| [pair, &attributes.concat()].concat())
    }

    proptest! {
        #[test]
        fn a_jar_is_restored_unchanged(
            steps in prop::collection::vec((url(), set_cookie(), 0_i64..3, any::<bool>()), 0..40),
            to in url(),
        ) {
            let (mut jar, mut now) = (Jar::default(), NOW);
            for (url, set_cookie, later, is_user_set) in steps {
                now = Timestamp::from_millis(now.as_millis() + later);
                let target = CookieUrl::parse(url).unwrap();
                if is_user_set && let Ok(text) = std::str::from_utf8(&set_cookie) {
                    let _ = jar.set(text, &target, now);
                } else {
                    let _ = jar.store_set_cookie(&target, &set_cookie, now);
                }
                let _ = jar.cookie_header(&CookieUrl::parse(to).unwrap(), || now);
            }
            let mut restored = round_trip(&jar, now);
            let target = CookieUrl::parse(to).unwrap();
            prop_assert_eq!(jar.cookie_header(&target, || now), restored.cookie_header(&target, || now));
        }
    }

    #[test]
    fn the_order_is_kept_for_more_cookies_than_one_millisecond_has_counter_values() {
        let target = CookieUrl::parse("https://shop.example/").unwrap();
        let mut jar = Jar::with_limits(Limits::default().per_domain(5_000));
        for number in 0..3_000 {
            jar.store_set_cookie(&target, format!("c{number}=1").as_bytes(), NOW).unwrap();
        }
        let names = |jar: &Jar| -> Vec<_> {
            jar.matching(&target, NOW).iter().map(|cookie| cookie.name().unwrap().to_owned()).collect()
        };
        assert_eq!(
            names(&jar),
            names(&round_trip(&jar, NOW.saturating_add(std::time::Duration::from_secs(9))))
        );
    }

    #[test]
    fn an_error_names_the_rule_but_not_the_value() {
        let good = r#"{"name": "a", "value": "secret", "domain": "x.example", "host_only": true, "path": "/",
            "created": 1, "last_used": 1}"#;
        assert!(serde_json::from_str::<StoredCookie>(good).is_ok());
        for (from, to, expected) in [
            (r#""a""#, r#""__Host-a""#, "its name requires"),
            ("x.example", "x .example", "not an ascii host name"),
            (r#""/""#, r#""x""#, "does not begin with `/`"),
            (r#""secret""#, r#"{"base64": "?"}"#, "base64"),
            (r#""secret""#, r#"{"base64": "YQ==", "more": 1}"#, "base64"),
            (r#""secret""#, r#""sec;ret""#, "separator"),
            (r#""created": 1"#, r#""created": 1, "same_site": "none of these""#, "Strict, Lax or None"),
        ] {
            let error =
                serde_json::from_str::<StoredCookie>(&good.replace(from, to)).unwrap_err().to_string();
            assert!(
                error.contains(expected) && !error.contains("secret") && !error.contains("sec;"),
                "{error}"
            );
        }
    }
}
