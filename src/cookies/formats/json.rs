//! The lists of cookies that browsers and their tools exchange as JSON: alike, but for how each says "no end", "one host" and
//! "no `SameSite`".

use serde_json::{Map, Value, json};

use super::{
    CookieDraft, CookieFormat, LATEST, Losses,
    error::{FormatError, FormatErrorKind},
};
use crate::cookies::{LossReason, SameSite, StoredCookie, Timestamp};

pub(super) fn parse(text: &str) -> Result<Value, FormatError> {
    serde_json::from_str(text).map_err(|error| FormatError::json(&error))
}

/// The list, wherever the format has it.
pub(super) fn entries(value: &Value) -> Result<&[Value], FormatError> {
    let list = match value {
        Value::Array(list) => Some(list),
        Value::Object(map) => map.get("cookies").and_then(Value::as_array),
        _ => None,
    };
    list.map(Vec::as_slice).ok_or_else(|| {
        FormatError::new(FormatErrorKind::Syntax, "a list of cookies, or an object with the list `cookies`")
    })
}

/// Reads each entry of a list, or tells which cannot be read.
pub(super) fn read_entries(
    entries: &[Value],
    read: impl Fn(&Map<String, Value>) -> Result<StoredCookie, FormatError>,
) -> Result<Vec<StoredCookie>, FormatError> {
    let read = |(place, entry): (usize, &Value)| {
        let object = entry.as_object().ok_or_else(|| FormatError::new(FormatErrorKind::Syntax, "an object"));
        object.and_then(&read).map_err(|error| error.at_entry(place))
    };
    (1..).zip(entries).map(read).collect()
}

/// The format of a list, as its first entry tells it.
pub(super) fn detect(value: &Value) -> Option<CookieFormat> {
    let wrapped = value.is_object();
    let first = match entries(value).ok()?.first() {
        Some(first) => first.as_object()?,
        None => return Some(if wrapped { CookieFormat::Playwright } else { CookieFormat::DevTools }),
    };
    let has = |name: &str| first.contains_key(name);
    if has("raw_cookie") {
        return Some(CookieFormat::CookieStore);
    }
    if !has("name") {
        return None;
    }
    let word = first.get("sameSite").and_then(Value::as_str);
    if has("hostOnly")
        || has("expirationDate")
        || has("storeId")
        || matches!(word, Some("no_restriction" | "unspecified"))
    {
        return Some(CookieFormat::ChromeCookies);
    }
    let of_devtools = ["size", "session", "priority", "sourceScheme"].iter().any(|name| has(name));
    Some(if wrapped && !of_devtools { CookieFormat::Playwright } else { CookieFormat::DevTools })
}

pub(super) fn read(format: CookieFormat, text: &str) -> Result<Vec<StoredCookie>, FormatError> {
    read_entries(entries(&parse(text)?)?, |entry| cookie(format, entry))
}

fn cookie(format: CookieFormat, entry: &Map<String, Value>) -> Result<StoredCookie, FormatError> {
    let of_chrome = format == CookieFormat::ChromeCookies;
    let domain = text(entry, "domain")?.ok_or_else(|| FormatError::missing("domain"))?;
    let host_only = match truth(entry, "hostOnly")?.filter(|_| of_chrome) {
        Some(host_only) => host_only,
        None => !domain.starts_with('.'),
    };
    let expires = seconds(entry, if of_chrome { "expirationDate" } else { "expires" })?;
    // Elsewhere than in `chrome.cookies`, anything before the epoch says that there is no end.
    let expires = expires.filter(|expires| of_chrome || *expires >= Timestamp::from_millis(0));
    let partition_key = match entry.get("partitionKey") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => Some(key.clone()),
        Some(key @ Value::Object(_)) => Some(key.to_string()),
        Some(_) => return Err(FormatError::bad_field("partitionKey", "a string or an object")),
    };
    let draft = CookieDraft {
        name: text(entry, "name")?.ok_or_else(|| FormatError::missing("name"))?,
        value: text(entry, "value")?.unwrap_or_default(),
        domain,
        host_only,
        path: text(entry, "path")?.filter(|path| !path.is_empty()).unwrap_or("/"),
        secure: truth(entry, "secure")?.unwrap_or(false),
        http_only: truth(entry, "httpOnly")?.unwrap_or(false),
        same_site: same_site(entry, of_chrome)?,
        partition_key: partition_key.as_deref(),
        expires,
    };
    draft.build()
}

fn text<'e>(entry: &'e Map<String, Value>, name: &'static str) -> Result<Option<&'e str>, FormatError> {
    match entry.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(FormatError::bad_field(name, "a string")),
    }
}

fn truth(entry: &Map<String, Value>, name: &'static str) -> Result<Option<bool>, FormatError> {
    match entry.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(*truth)),
        Some(_) => Err(FormatError::bad_field(name, "true or false")),
    }
}

/// A moment in seconds, with a fraction or without.
fn seconds(entry: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, FormatError> {
    match entry.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(seconds)) => {
            let seconds =
                seconds.as_f64().ok_or_else(|| FormatError::bad_field(name, "seconds since 1970"))?;
            // Saturates where there is no such moment.
            let millis = (seconds * 1_000.0).round() as i64;
            Ok(Some(Timestamp::from_millis(millis).min(LATEST)))
        }
        Some(_) => Err(FormatError::bad_field(name, "seconds since 1970")),
    }
}

/// `unspecified` is a cookie that was set without the attribute, and not `None`.
fn same_site(entry: &Map<String, Value>, of_chrome: bool) -> Result<Option<SameSite>, FormatError> {
    let expected =
        if of_chrome { "no_restriction, lax, strict or unspecified" } else { "Strict, Lax or None" };
    let Some(word) = text(entry, "sameSite")? else {
        return Ok(None);
    };
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "strict" => Ok(Some(SameSite::Strict)),
        "lax" => Ok(Some(SameSite::Lax)),
        "none" if !of_chrome => Ok(Some(SameSite::None)),
        "no_restriction" if of_chrome => Ok(Some(SameSite::None)),
        "unspecified" if of_chrome => Ok(None),
        _ => Err(FormatError::bad_field("sameSite", expected)),
    }
}

pub(super) fn write(format: CookieFormat, cookies: &[StoredCookie], losses: &mut Losses) -> String {
    let list: Vec<Value> = cookies.iter().filter_map(|cookie| entry(format, cookie, losses)).collect();
    let value = match format {
        CookieFormat::Playwright => json!({"cookies": list, "origins": []}),
        _ => Value::Array(list),
    };
    format!("{value:#}\n")
}

fn entry(format: CookieFormat, cookie: &StoredCookie, losses: &mut Losses) -> Option<Value> {
    let (name, value, path) = losses.texts(cookie)?;
    let of_chrome = format == CookieFormat::ChromeCookies;
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
    if of_chrome {
        entry["hostOnly"] = cookie.host_only().into();
        entry["session"] = expires.is_none().into();
        entry["storeId"] = "0".into();
        if let Some(expires) = expires {
            entry["expirationDate"] = expires.into();
        }
    } else {
        entry["expires"] = expires.map_or_else(|| (-1).into(), Value::from);
        if format == CookieFormat::DevTools {
            entry["session"] = expires.is_none().into();
            entry["size"] = (name.len() + value.len()).into();
        }
    }
    let word = match cookie.same_site() {
        Some(SameSite::None) if of_chrome => Some("no_restriction"),
        Some(SameSite::Lax) if of_chrome => Some("lax"),
        Some(SameSite::Strict) if of_chrome => Some("strict"),
        None if of_chrome => Some("unspecified"),
        same_site => same_site.map(SameSite::as_str),
    };
    if let Some(word) = word {
        entry["sameSite"] = word.into();
    }
    if let Some(key) = cookie.partition_key() {
        let object = serde_json::from_str(key).ok().filter(Value::is_object);
        entry["partitionKey"] = object.unwrap_or_else(|| key.into());
    }
    // These formats tell a partitioned cookie by its key.
    losses.lose_part_if(
        cookie,
        cookie.partitioned() != cookie.partition_key().is_some(),
        LossReason::Partitioned,
    );
    losses.converted();
    Some(entry)
}
