//! `Set-Cookie` lines, each after a comment with the URL that sets it.

use super::{
    Losses,
    error::{FormatError, FormatErrorKind},
};
use crate::cookies::{
    CookieError, CookieUrl, LossReason, StoredCookie, Timestamp,
    parse::SetCookie,
    stored::{is_writable_path, validate_set_cookie},
    time::EventTime,
};

/// Whether the first line that says something is a cookie or a header of one.
pub(super) fn is_format(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.find(|line| !line.starts_with('#')).is_some_and(|line| content(line).contains('='))
}

/// The line without the name of its header.
fn content(line: &str) -> &str {
    const NAME: &str = "set-cookie:";
    match line.get(..NAME.len()) {
        Some(name) if name.eq_ignore_ascii_case(NAME) => line[NAME.len()..].trim_start(),
        _ => line,
    }
}

/// Reads the lines, as set by `url` as long as no comment names another.
pub(super) fn read(text: &str, url: Option<&str>, now: Timestamp) -> Result<Vec<StoredCookie>, FormatError> {
    let invalid_cookie = |error: CookieError| FormatError::invalid_cookie(error);
    let mut target = url.map(CookieUrl::parse).transpose().map_err(invalid_cookie)?;
    let mut cookies = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_matches([' ', '\t', '\r']);
        if let Some(comment) = line.strip_prefix('#') {
            let comment = comment.trim();
            if comment.starts_with("http://") || comment.starts_with("https://") {
                let named = CookieUrl::parse(comment)
                    .map_err(invalid_cookie)
                    .map_err(|error| error.at_line(number))?;
                target = Some(named);
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let Some(target) = &target else {
            return Err(FormatError::new(FormatErrorKind::NoUrl, "").at_line(number));
        };
        let invalid_cookie =
            |kind, name: &[u8]| FormatError::invalid_cookie(CookieError::named(kind, name)).at_line(number);
        let parsed =
            SetCookie::parse(content(line).as_bytes()).map_err(|(kind, name)| invalid_cookie(kind, name))?;
        let cookie = validate_set_cookie(&parsed, target, 0, now, EventTime::default())
            .map_err(|kind| invalid_cookie(kind, parsed.name))?;
        cookies.push(cookie);
    }
    Ok(cookies)
}

pub(super) fn write(cookies: &[StoredCookie], losses: &mut Losses) -> String {
    let (mut text, mut host) = (String::new(), "");
    for cookie in cookies {
        if losses.texts(cookie).is_none() {
            continue;
        }
        if !is_writable_path(cookie.path_bytes()) {
            losses.lose(cookie, LossReason::Path);
            continue;
        }
        let line = String::from_utf8(cookie.to_set_cookie()).expect("its parts are utf-8");
        losses.lose_part_if(cookie, cookie.partition_key().is_some(), LossReason::PartitionKey);
        losses.converted();
        if host != cookie.domain() {
            host = cookie.domain();
            text.push_str(&format!("# https://{host}/\n"));
        }
        // A name may begin like a comment.
        text.push_str("Set-Cookie: ");
        text.push_str(&line);
        text.push('\n');
    }
    text
}
