//! The JSON lists of cookies of browsers and their tools.
//!
//! The dialects differ in how they represent session cookies, host-only cookies and a missing
//! `SameSite` attribute.

use serde_json::{Map, Value, json};

use super::{Codec, CookieDraft, LATEST, Losses, Sample, error::FormatError};
use crate::cookies::{LossReason, SameSite, StoredCookie, Timestamp};

/// A dialect of the list.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Dialect {
    Playwright,
    DevTools,
    ChromeCookies,
}

impl Codec for Dialect {
    fn detect(&self, sample: &Sample<'_>) -> bool {
        match sample {
            Sample::Json(_, value) => dialect_of(value) == Some(*self),
            Sample::Text(_) | Sample::MalformedJson(_) => false,
        }
    }

    fn read(&self, text: &str, _now: Timestamp) -> Result<Vec<StoredCookie>, FormatError> {
        read_entries(entries(&parse(text)?)?, |entry| read_cookie(*self, entry))
    }

    fn write(&self, cookies: &[StoredCookie], losses: &mut Losses) -> String {
        let list: Vec<Value> =
            cookies.iter().filter_map(|cookie| write_cookie(*self, cookie, losses)).collect();
        let value = match self {
            Self::Playwright => json!({"cookies": list, "origins": []}),
            Self::DevTools | Self::ChromeCookies => Value::Array(list),
        };
        format!("{value:#}\n")
    }
}

pub(super) fn parse(text: &str) -> Result<Value, FormatError> {
    serde_json::from_str(text).map_err(|error| FormatError::json(&error))
}

/// Returns the list of cookies, which may be the whole document or a field of it.
pub(super) fn entries(value: &Value) -> Result<&[Value], FormatError> {
    let list = match value {
        Value::Array(list) => Some(list),
        Value::Object(map) => map.get("cookies").and_then(Value::as_array),
        _ => None,
    };
    list.map(Vec::as_slice)
        .ok_or_else(|| FormatError::syntax("a list of cookies, or an object with a list named `cookies`"))
}

/// Reads each entry of a list, and adds the number of the entry to errors.
pub(super) fn read_entries(
    entries: &[Value],
    read: impl Fn(&Map<String, Value>) -> Result<StoredCookie, FormatError>,
) -> Result<Vec<StoredCookie>, FormatError> {
    let read = |(number, entry): (usize, &Value)| {
        let object = entry.as_object().ok_or_else(|| FormatError::syntax("an object"));
        object.and_then(&read).map_err(|error| error.at_entry(number))
    };
    (1..).zip(entries).map(read).collect()
}

/// The dialect of a list, from the fields of its first entry.
fn dialect_of(value: &Value) -> Option<Dialect> {
    let is_wrapped = value.is_object();
    let first = match entries(value).ok()?.first() {
        Some(first) => first.as_object()?,
        None => return Some(if is_wrapped { Dialect::Playwright } else { Dialect::DevTools }),
    };
    let has = |name: &str| first.contains_key(name);
    // Entries with `raw_cookie` are those of `cookie_store`.
    if has("raw_cookie") || !has("name") {
        return None;
    }
    let same_site = first.get("sameSite").and_then(Value::as_str);
    if has("hostOnly")
        || has("expirationDate")
        || has("storeId")
        || matches!(same_site, Some("no_restriction" | "unspecified"))
    {
        return Some(Dialect::ChromeCookies);
    }
    let is_devtools = ["size", "session", "priority", "sourceScheme"].iter().any(|name| has(name));
    Some(if is_wrapped && !is_devtools { Dialect::Playwright } else { Dialect::DevTools })
}

fn read_cookie(dialect: Dialect, entry: &Map<String, Value>) -> Result<StoredCookie, FormatError> {
    let is_chrome = dialect == Dialect::ChromeCookies;
    let domain = string(entry, "domain")?.ok_or_else(|| FormatError::missing("domain"))?;
    let host_only = match boolean(entry, "hostOnly")?.filter(|_| is_chrome) {
        Some(host_only) => host_only,
        None => !domain.starts_with('.'),
    };
    let expires = seconds(entry, if is_chrome { "expirationDate" } else { "expires" })?;
    // In the other dialects, a time before the epoch marks a session cookie.
    let expires = expires.filter(|expires| is_chrome || *expires >= Timestamp::from_millis(0));
    let partition_key = match entry.get("partitionKey") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => Some(key.clone()),
        Some(key @ Value::Object(_)) => Some(key.to_string()),
        Some(_) => return Err(FormatError::invalid_field("partitionKey", "a string or an object")),
    };
    let draft = CookieDraft {
        name: string(entry, "name")?.ok_or_else(|| FormatError::missing("name"))?,
        value: string(entry, "value")?.unwrap_or_default(),
        domain,
        host_only,
        path: string(entry, "path")?.filter(|path| !path.is_empty()).unwrap_or("/"),
        secure: boolean(entry, "secure")?.unwrap_or(false),
        http_only: boolean(entry, "httpOnly")?.unwrap_or(false),
        same_site: same_site(dialect, entry)?,
        partition_key: partition_key.as_deref(),
        expires,
    };
    draft.build()
}

fn string<'e>(entry: &'e Map<String, Value>, name: &'static str) -> Result<Option<&'e str>, FormatError> {
    match entry.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(FormatError::invalid_field(name, "a string")),
    }
}

fn boolean(entry: &Map<String, Value>, name: &'static str) -> Result<Option<bool>, FormatError> {
    match entry.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(boolean)) => Ok(Some(*boolean)),
        Some(_) => Err(FormatError::invalid_field(name, "true or false")),
    }
}

/// Reads a time in seconds, with or without a fraction.
fn seconds(entry: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, FormatError> {
    let seconds = match entry.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => {
            value.as_f64().ok_or_else(|| FormatError::invalid_field(name, "seconds since 1970"))?
        }
    };
    // The conversion saturates.
    let millis = (seconds * 1_000.0).round() as i64;
    Ok(Some(Timestamp::from_millis(millis).min(LATEST)))
}

/// Reads `SameSite`. The value `unspecified` means that the attribute is missing, not `None`.
fn same_site(dialect: Dialect, entry: &Map<String, Value>) -> Result<Option<SameSite>, FormatError> {
    let Some(word) = string(entry, "sameSite")? else {
        return Ok(None);
    };
    let is_chrome = dialect == Dialect::ChromeCookies;
    match word.to_ascii_lowercase().as_str() {
        "strict" => Ok(Some(SameSite::Strict)),
        "lax" => Ok(Some(SameSite::Lax)),
        "none" if !is_chrome => Ok(Some(SameSite::None)),
        "no_restriction" if is_chrome => Ok(Some(SameSite::None)),
        "unspecified" if is_chrome => Ok(None),
        _ if is_chrome => {
            Err(FormatError::invalid_field("sameSite", "no_restriction, lax, strict or unspecified"))
        }
        _ => Err(FormatError::invalid_field("sameSite", "Strict, Lax or None")),
    }
}

fn write_cookie(dialect: Dialect, cookie: &StoredCookie, losses: &mut Losses) -> Option<Value> {
    let (name, value, path) = losses.texts(cookie)?;
    let is_chrome = dialect == Dialect::ChromeCookies;
    let dot = if cookie.host_only() { "" } else { "." };
    let mut entry = json!({
        "name": name,
        "value": value,
        "domain": format!("{dot}{}", cookie.domain()),
        "path": path,
        "httpOnly": cookie.http_only(),
        "secure": cookie.secure(),
    });
    let expires = cookie.expires().map(|expires| expires.as_millis() as f64 / 1_000.0);
    if is_chrome {
        entry["hostOnly"] = cookie.host_only().into();
        entry["session"] = expires.is_none().into();
        entry["storeId"] = "0".into();
        if let Some(expires) = expires {
            entry["expirationDate"] = expires.into();
        }
    } else {
        entry["expires"] = expires.map_or_else(|| (-1).into(), Value::from);
        if dialect == Dialect::DevTools {
            entry["session"] = expires.is_none().into();
            entry["size"] = (name.len() + value.len()).into();
        }
    }
    let same_site = match cookie.same_site() {
        Some(SameSite::None) if is_chrome => Some("no_restriction"),
        Some(SameSite::Lax) if is_chrome => Some("lax"),
        Some(SameSite::Strict) if is_chrome => Some("strict"),
        None if is_chrome => Some("unspecified"),
        same_site => same_site.map(SameSite::as_str),
    };
    if let Some(same_site) = same_site {
        entry["sameSite"] = same_site.into();
    }
    if let Some(key) = cookie.partition_key() {
        let object = serde_json::from_str(key).ok().filter(Value::is_object);
        entry["partitionKey"] = object.unwrap_or_else(|| key.into());
    }
    // A cookie of these formats is partitioned if it has a partition key.
    let loses_partitioned = cookie.partitioned() != cookie.partition_key().is_some();
    losses.add_if(loses_partitioned, cookie, LossReason::Partitioned);
    losses.add_converted();
    Some(entry)
}
