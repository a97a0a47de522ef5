//! `cookies.txt` of curl, wget and yt-dlp: one cookie per line, in seven fields separated by tabs.

use super::{Codec, CookieDraft, LATEST, Losses, Sample, error::FormatError};
use crate::cookies::{LossReason, StoredCookie, Timestamp};

const HEADER: &str = "# Netscape HTTP Cookie File\n\n";
const HTTP_ONLY: &str = "#HttpOnly_";

pub(super) struct Netscape;

impl Codec for Netscape {
    /// Looks for the header comment, or for a first line with enough fields.
    fn detect(&self, sample: &Sample<'_>) -> bool {
        let Sample::Text(text) = sample else { return false };
        let is_header = |line: &str| {
            line.starts_with("# Netscape HTTP Cookie File") || line.starts_with("# HTTP Cookie File")
        };
        text.lines().next().is_some_and(is_header)
            || entries(text).next().is_some_and(|(_, _, line)| line.split('\t').count() >= 6)
    }

    fn read(&self, text: &str, _now: Timestamp) -> Result<Vec<StoredCookie>, FormatError> {
        entries(text)
            .map(|(number, http_only, line)| {
                read_cookie(line, http_only).map_err(|error| error.at_line(number))
            })
            .collect()
    }

    fn write(&self, cookies: &[StoredCookie], losses: &mut Losses) -> String {
        let mut text = String::from(HEADER);
        for cookie in cookies {
            text.extend(write_cookie(cookie, losses));
        }
        text
    }
}

/// The lines with a cookie, each with its number and whether the cookie is `HttpOnly`.
fn entries(text: &str) -> impl Iterator<Item = (usize, bool, &str)> {
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.strip_prefix(HTTP_ONLY) {
            Some(line) => Some((number, true, line)),
            None => (!line.trim().is_empty() && !line.starts_with('#')).then_some((number, false, line)),
        }
    })
}

fn read_cookie(line: &str, http_only: bool) -> Result<StoredCookie, FormatError> {
    let fields: Vec<&str> = line.split('\t').collect();
    // Some tools omit the last field if the value is empty.
    let (domain, covers, path, secure, expires, name, value) = match fields[..] {
        [domain, covers, path, secure, expires, name] => (domain, covers, path, secure, expires, name, ""),
        [domain, covers, path, secure, expires, name, value] => {
            (domain, covers, path, secure, expires, name, value)
        }
        _ => return Err(FormatError::syntax("seven fields separated by tabs")),
    };
    let draft = CookieDraft {
        name,
        value,
        domain,
        host_only: !flag(covers, "include subdomains")?,
        path,
        secure: flag(secure, "secure")?,
        http_only,
        expires: read_expires(expires)?,
        ..CookieDraft::default()
    };
    draft.build()
}

fn flag(text: &str, field: &'static str) -> Result<bool, FormatError> {
    match text {
        _ if text.eq_ignore_ascii_case("TRUE") => Ok(true),
        _ if text.eq_ignore_ascii_case("FALSE") => Ok(false),
        _ => Err(FormatError::invalid_field(field, "TRUE or FALSE")),
    }
}

/// Reads seconds since the epoch. A session cookie has 0 or an empty field.
fn read_expires(text: &str) -> Result<Option<Timestamp>, FormatError> {
    let invalid = || FormatError::invalid_field("expires", "seconds since 1970");
    // Some tools write a fraction, or a time out of range.
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || (digits.is_empty() && !text.is_empty()) {
        return Err(invalid());
    }
    Ok(match whole.parse::<i64>() {
        Ok(0) => None,
        Ok(seconds) => Some(Timestamp::from_secs(seconds).min(LATEST)),
        Err(_) if whole.is_empty() => None,
        Err(_) if whole.starts_with('-') => Some(Timestamp::MIN),
        Err(_) => Some(LATEST),
    })
}

/// Writes the line of a cookie, or records why the format cannot represent it.
fn write_cookie(cookie: &StoredCookie, losses: &mut Losses) -> Option<String> {
    let (name, value, path) = losses.texts(cookie)?;
    if name.is_empty() {
        losses.add(cookie, LossReason::Nameless);
        return None;
    }
    if [name, value, path].iter().any(|part| part.contains('\t')) {
        losses.add(cookie, LossReason::Tab);
        return None;
    }
    losses.add_if(cookie.same_site().is_some(), cookie, LossReason::SameSite);
    losses.add_if(cookie.partitioned(), cookie, LossReason::Partitioned);
    losses.add_if(cookie.partition_key().is_some(), cookie, LossReason::PartitionKey);
    losses.add_converted();
    let boolean = |is_set: bool| if is_set { "TRUE" } else { "FALSE" };
    // 0 would mark a session cookie.
    let expires = cookie.expires().map_or(0, |expires| expires.as_secs().max(1));
    Some(format!(
        "{http_only}{dot}{domain}\t{subdomains}\t{path}\t{secure}\t{expires}\t{name}\t{value}\n",
        http_only = if cookie.http_only() { HTTP_ONLY } else { "" },
        dot = if cookie.host_only() { "" } else { "." },
        domain = cookie.domain(),
        subdomains = boolean(!cookie.host_only()),
        secure = boolean(cookie.secure()),
    ))
}
