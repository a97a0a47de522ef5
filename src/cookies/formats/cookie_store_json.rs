//! The JSON of the crate `cookie_store`: a list, or one cookie per line in older versions.

use std::collections::HashSet;

use cookie::{
    Cookie,
    time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339},
};
use serde_json::{Map, Value, json};

use super::{Codec, CookieDraft, Losses, Sample, error::FormatError, json};
use crate::cookies::{LossReason, SameSite, StoredCookie, Timestamp, path::is_writable_path};

pub(super) struct CookieStoreJson;

impl Codec for CookieStoreJson {
    fn detect(&self, sample: &Sample<'_>) -> bool {
        match sample {
            Sample::Json(text, value) => {
                let first = json::entries(value).ok().and_then(|entries| entries.first());
                first.is_some_and(|entry| entry.get("raw_cookie").is_some()) || is_json_lines(text)
            }
            Sample::MalformedJson(text) => is_json_lines(text),
            Sample::Text(_) => false,
        }
    }

    fn read(&self, text: &str, _now: Timestamp) -> Result<Vec<StoredCookie>, FormatError> {
        if !is_json_lines(text) {
            return json::read_entries(json::entries(&json::parse(text)?)?, read_cookie);
        }
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let read = |(number, line): (usize, &str)| {
            let value = json::parse(line).map_err(|error| error.at_line(number))?;
            let object = value.as_object().ok_or_else(|| FormatError::syntax("an object"));
            object.and_then(read_cookie).map_err(|error| error.at_line(number))
        };
        lines.map(read).collect()
    }

    fn write(&self, cookies: &[StoredCookie], losses: &mut Losses) -> String {
        let hosts: HashSet<Vec<u8>> =
            cookies.iter().filter(|cookie| cookie.host_only()).map(twin_key).collect();
        let list: Vec<Value> =
            cookies.iter().filter_map(|cookie| write_cookie(cookie, &hosts, losses)).collect();
        format!("{:#}\n", Value::Array(list))
    }
}

/// Whether the text is in the older form, one cookie per line, judging by the first line.
fn is_json_lines(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty());
    let parsed = first.and_then(|line| serde_json::from_str::<Value>(line).ok());
    parsed.is_some_and(|value| value.get("raw_cookie").is_some())
}

/// What a host-only cookie and a domain cookie that exclude each other have in common.
fn twin_key(cookie: &StoredCookie) -> Vec<u8> {
    [cookie.domain().as_bytes(), cookie.path_bytes(), b"\n", cookie.name_bytes()].concat()
}

fn string<'e>(
    value: Option<&'e Value>,
    name: &'static str,
    expected: &'static str,
) -> Result<&'e str, FormatError> {
    match value {
        None => Err(FormatError::missing(name)),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(FormatError::invalid_field(name, expected)),
    }
}

fn read_cookie(entry: &Map<String, Value>) -> Result<StoredCookie, FormatError> {
    let raw = string(entry.get("raw_cookie"), "raw_cookie", "a string")?;
    let raw = Cookie::parse(raw).map_err(|_| FormatError::invalid_field("raw_cookie", "a cookie"))?;
    let domain = entry.get("domain").ok_or_else(|| FormatError::missing("domain"))?;
    let expected = "{\"HostOnly\": …} or {\"Suffix\": …}";
    let (domain, host_only) = match (domain.get("HostOnly"), domain.get("Suffix")) {
        (Some(host), None) => (string(Some(host), "domain", expected)?, true),
        (None, Some(domain)) => (string(Some(domain), "domain", expected)?, false),
        _ => return Err(FormatError::invalid_field("domain", expected)),
    };
    let path = entry.get("path").and_then(|path| path.get(0));
    let expires = match entry.get("expires") {
        None => return Err(FormatError::missing("expires")),
        Some(Value::String(word)) if word == "SessionEnd" => None,
        Some(expires) => {
            let invalid = || FormatError::invalid_field("expires", "\"SessionEnd\" or {\"AtUtc\": a time}");
            let time = expires.get("AtUtc").and_then(Value::as_str).ok_or_else(invalid)?;
            let time = OffsetDateTime::parse(time, &Rfc3339).map_err(|_| invalid())?;
            Some(Timestamp::from_date_time(time))
        }
    };
    let draft = CookieDraft {
        name: raw.name(),
        value: raw.value(),
        domain,
        host_only,
        path: string(path, "path", "a list that begins with the path")?,
        secure: raw.secure().unwrap_or(false),
        http_only: raw.http_only().unwrap_or(false),
        same_site: raw.same_site().map(SameSite::from),
        partition_key: None,
        expires,
    };
    draft.build_partitioned(raw.partitioned().unwrap_or(false))
}

/// Writes an expiry time. Returns `None` for years that do not have four digits.
fn write_expires(expires: Option<Timestamp>) -> Option<Value> {
    let Some(expires) = expires else {
        return Some(json!("SessionEnd"));
    };
    let time = expires.to_date_time()?.to_offset(UtcOffset::UTC);
    Some(json!({"AtUtc": time.format(&Rfc3339).ok()?}))
}

fn write_cookie(cookie: &StoredCookie, hosts: &HashSet<Vec<u8>>, losses: &mut Losses) -> Option<Value> {
    let (name, _, path) = losses.texts(cookie)?;
    let written = cookie.to_cookie().zip(write_expires(cookie.expires()));
    let reason = match &written {
        _ if name.is_empty() => Some(LossReason::Nameless),
        _ if !cookie.host_only() && hosts.contains(&twin_key(cookie)) => Some(LossReason::HostOnlyTwin),
        _ if !is_writable_path(cookie.path_bytes()) => Some(LossReason::Path),
        None => Some(LossReason::RejectedByStore),
        Some(_) => None,
    };
    if let Some(reason) = reason {
        losses.add(cookie, reason);
        return None;
    }
    let (mut raw, expires) = written?;
    if cookie.partitioned() && !cookie.secure() {
        // When `raw_cookie` is parsed, `Partitioned` implies `Secure`.
        raw.set_partitioned(false);
        losses.add(cookie, LossReason::Partitioned);
    }
    let kind = if cookie.host_only() { "HostOnly" } else { "Suffix" };
    losses.add_if(cookie.partition_key().is_some(), cookie, LossReason::PartitionKey);
    losses.add_converted();
    Some(json!({
        "raw_cookie": raw.to_string(),
        "path": [path, true],
        "domain": {kind: cookie.domain()},
        "expires": expires,
    }))
}
