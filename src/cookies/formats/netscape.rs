//! `cookies.txt`, as curl, wget and yt-dlp write and read it: seven fields a line, with tabs between them.

use super::{
    CookieDraft, LATEST, Losses,
    error::{FormatError, FormatErrorKind},
};
use crate::cookies::{LossReason, StoredCookie, Timestamp};

const HEADER: &str = "# Netscape HTTP Cookie File\n\n";
const HTTP_ONLY: &str = "#HttpOnly_";

/// Whether the text says of itself that it is one, or its first line looks like it.
pub(super) fn is_format(text: &str) -> bool {
    let says = |line: &str| {
        line.starts_with("# Netscape HTTP Cookie File") || line.starts_with("# HTTP Cookie File")
    };
    text.lines().next().is_some_and(says)
        || entries(text).next().is_some_and(|(_, _, line)| line.split('\t').count() >= 6)
}

/// The lines that hold a cookie, each with its number and whether it is for HTTP alone.
fn entries(text: &str) -> impl Iterator<Item = (usize, bool, &str)> {
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.strip_prefix(HTTP_ONLY) {
            Some(line) => Some((number, true, line)),
            None => (!line.trim().is_empty() && !line.starts_with('#')).then_some((number, false, line)),
        }
    })
}

pub(super) fn read(text: &str) -> Result<Vec<StoredCookie>, FormatError> {
    entries(text)
        .map(|(number, http_only, line)| cookie(line, http_only).map_err(|error| error.at_line(number)))
        .collect()
}

fn cookie(line: &str, http_only: bool) -> Result<StoredCookie, FormatError> {
    let fields: Vec<&str> = line.split('\t').collect();
    // A cookie without a value may come without its field.
    let (domain, covers, path, secure, expires, name, value) = match fields[..] {
        [domain, covers, path, secure, expires, name] => (domain, covers, path, secure, expires, name, ""),
        [domain, covers, path, secure, expires, name, value] => {
            (domain, covers, path, secure, expires, name, value)
        }
        _ => return Err(FormatError::new(FormatErrorKind::Syntax, "seven fields with tabs between them")),
    };
    let draft = CookieDraft {
        name,
        value,
        domain,
        host_only: !flag(covers, "include subdomains")?,
        path,
        secure: flag(secure, "secure")?,
        http_only,
        expires: moment(expires)?,
        ..CookieDraft::default()
    };
    draft.build()
}

fn flag(text: &str, field: &'static str) -> Result<bool, FormatError> {
    match text {
        _ if text.eq_ignore_ascii_case("TRUE") => Ok(true),
        _ if text.eq_ignore_ascii_case("FALSE") => Ok(false),
        _ => Err(FormatError::bad_field(field, "TRUE or FALSE")),
    }
}

/// Seconds since the epoch; 0 and nothing at all mean the end of the session.
fn moment(text: &str) -> Result<Option<Timestamp>, FormatError> {
    let wrong = || FormatError::bad_field("expires", "seconds since 1970");
    // Some write a fraction, and some a moment that no clock reaches.
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || (digits.is_empty() && !text.is_empty()) {
        return Err(wrong());
    }
    Ok(match whole.parse::<i64>() {
        Ok(0) => None,
        Ok(seconds) => Some(Timestamp::from_secs(seconds).min(LATEST)),
        Err(_) if whole.is_empty() => None,
        Err(_) if whole.starts_with('-') => Some(Timestamp::MIN),
        Err(_) => Some(LATEST),
    })
}

pub(super) fn write(cookies: &[StoredCookie], losses: &mut Losses) -> String {
    let mut text = String::from(HEADER);
    for cookie in cookies {
        let Some((name, value, path)) = losses.texts(cookie) else { continue };
        if name.is_empty() {
            losses.lose(cookie, LossReason::Nameless);
            continue;
        }
        if [name, value, path].iter().any(|part| part.contains('\t')) {
            losses.lose(cookie, LossReason::Tab);
            continue;
        }
        losses.lose_part_if(cookie, cookie.same_site().is_some(), LossReason::SameSite);
        losses.lose_part_if(cookie, cookie.partitioned(), LossReason::Partitioned);
        losses.lose_part_if(cookie, cookie.partition_key().is_some(), LossReason::PartitionKey);
        losses.converted();
        let word = |on: bool| if on { "TRUE" } else { "FALSE" };
        // The first second is taken for the end of the session.
        let expires = cookie.expires().map_or(0, |expires| expires.as_secs().max(1));
        text.push_str(if cookie.http_only() { HTTP_ONLY } else { "" });
        text.push_str(if cookie.host_only() { "" } else { "." });
        text.push_str(&format!(
            "{}\t{}\t{path}\t{}\t{expires}\t{name}\t{value}\n",
            cookie.domain(),
            word(!cookie.host_only()),
            word(cookie.secure()),
        ));
    }
    text
}
