//! The JSON of the crate `cookie_store`, in both of its forms: a list, and one cookie a line.

use std::collections::HashSet;

use cookie::{
    Cookie,
    time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339},
};
use serde_json::{Map, Value, json};

use super::{
    CookieDraft, Losses,
    error::{FormatError, FormatErrorKind},
    json,
};
use crate::cookies::{LossReason, SameSite, StoredCookie, Timestamp, stored::is_writable_path};

/// Whether the first line is a cookie of the older form.
pub(super) fn is_json_lines(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty());
    let parsed = first.and_then(|line| serde_json::from_str::<Value>(line).ok());
    parsed.is_some_and(|value| value.get("raw_cookie").is_some())
}

pub(super) fn read(text: &str) -> Result<Vec<StoredCookie>, FormatError> {
    if !is_json_lines(text) {
        return json::read_entries(json::entries(&json::parse(text)?)?, cookie);
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let read = |(number, line): (usize, &str)| {
        let value = json::parse(line).map_err(|error| error.at_line(number))?;
        let object = value.as_object().ok_or_else(|| FormatError::new(FormatErrorKind::Syntax, "an object"));
        object.and_then(cookie).map_err(|error| error.at_line(number))
    };
    lines.map(read).collect()
}

fn text<'e>(
    value: Option<&'e Value>,
    name: &'static str,
    expected: &'static str,
) -> Result<&'e str, FormatError> {
    match value {
        None => Err(FormatError::missing(name)),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(FormatError::bad_field(name, expected)),
    }
}

fn cookie(entry: &Map<String, Value>) -> Result<StoredCookie, FormatError> {
    let raw = text(entry.get("raw_cookie"), "raw_cookie", "a string")?;
    let raw = Cookie::parse(raw).map_err(|_| FormatError::bad_field("raw_cookie", "a cookie"))?;
    let domain = entry.get("domain").ok_or_else(|| FormatError::missing("domain"))?;
    let of_domain = "a host or a domain: {\"HostOnly\": …} or {\"Suffix\": …}";
    let (domain, host_only) = match (domain.get("HostOnly"), domain.get("Suffix")) {
        (Some(host), None) => (text(Some(host), "domain", of_domain)?, true),
        (None, Some(domain)) => (text(Some(domain), "domain", of_domain)?, false),
        _ => return Err(FormatError::bad_field("domain", of_domain)),
    };
    let path = entry.get("path").and_then(|path| path.get(0));
    let expires = match entry.get("expires") {
        None => return Err(FormatError::missing("expires")),
        Some(Value::String(word)) if word == "SessionEnd" => None,
        Some(expires) => {
            let wrong = || FormatError::bad_field("expires", "\"SessionEnd\" or {\"AtUtc\": a moment}");
            let moment = expires.get("AtUtc").and_then(Value::as_str).ok_or_else(wrong)?;
            let moment = OffsetDateTime::parse(moment, &Rfc3339).map_err(|_| wrong())?;
            Some(Timestamp::from_millis((moment.unix_timestamp_nanos() / 1_000_000) as i64))
        }
    };
    let draft = CookieDraft {
        name: raw.name(),
        value: raw.value(),
        domain,
        host_only,
        path: text(path, "path", "a list with the path in front")?,
        secure: raw.secure().unwrap_or(false),
        http_only: raw.http_only().unwrap_or(false),
        same_site: raw.same_site().map(SameSite::from),
        partition_key: None,
        expires,
    };
    draft.build_partitioned(raw.partitioned().unwrap_or(false))
}

/// When a cookie ends, or that it ends with the session; `None` for a year that has no four digits.
fn moment(expires: Option<Timestamp>) -> Option<Value> {
    let Some(expires) = expires else {
        return Some(json!("SessionEnd"));
    };
    let nanos = i128::from(expires.as_millis()) * 1_000_000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.to_offset(UtcOffset::UTC);
    Some(json!({"AtUtc": moment.format(&Rfc3339).ok()?}))
}

pub(super) fn write(cookies: &[StoredCookie], losses: &mut Losses) -> String {
    let key = |cookie: &StoredCookie| {
        [cookie.domain().as_bytes(), cookie.path_bytes(), b"\n", cookie.name_bytes()].concat()
    };
    let of_hosts: HashSet<Vec<u8>> = cookies.iter().filter(|cookie| cookie.host_only()).map(key).collect();
    let entry = |cookie: &StoredCookie| {
        let (name, _, path) = losses.texts(cookie)?;
        let written = cookie.to_cookie().zip(moment(cookie.expires()));
        let reason = match &written {
            _ if name.is_empty() => Some(LossReason::Nameless),
            _ if !cookie.host_only() && of_hosts.contains(&key(cookie)) => Some(LossReason::HostOnlyTwin),
            _ if !is_writable_path(cookie.path_bytes()) => Some(LossReason::Path),
            None => Some(LossReason::RejectedByStore),
            Some(_) => None,
        };
        if let Some(reason) = reason {
            losses.lose(cookie, reason);
            return None;
        }
        let (mut raw, expires) = written?;
        if cookie.partitioned() && !cookie.secure() {
            // There, `Partitioned` would say that it is.
            raw.set_partitioned(false);
            losses.lose(cookie, LossReason::Partitioned);
        }
        let kind = if cookie.host_only() { "HostOnly" } else { "Suffix" };
        losses.lose_part_if(cookie, cookie.partition_key().is_some(), LossReason::PartitionKey);
        losses.converted();
        Some(json!({
            "raw_cookie": raw.to_string(),
            "path": [path, true],
            "domain": {kind: cookie.domain()},
            "expires": expires,
        }))
    };
    let list: Vec<Value> = cookies.iter().filter_map(entry).collect();
    format!("{:#}\n", Value::Array(list))
}
