//! `Set-Cookie` lines, each after a comment with the URL that sets it.

use super::{
    Losses,
    error::{FormatError, FormatErrorKind},
};
use crate::cookies::{
    CookieError, CookieUrl, LossReason, StoredCookie, Timestamp,
    parse::SetCookie,
    stored::{is_writable_path, judge_set_cookie},
    time::Instant,
};

/// Whether the first line that says something is a cookie or a header of one.
pub(super) fn is_one(text: &str) -> bool {
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
    let refused = |error: CookieError| FormatError::refused(error);
    let mut target = url.map(CookieUrl::parse).transpose().map_err(refused)?;
    let mut cookies = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_matches([' ', '\t', '\r']);
        if let Some(comment) = line.strip_prefix('#') {
            let comment = comment.trim();
            if comment.starts_with("http://") || comment.starts_with("https://") {
                let named =
                    CookieUrl::parse(comment).map_err(refused).map_err(|error| error.at_line(number))?;
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
        let refused =
            |kind, name: &[u8]| FormatError::refused(CookieError::named(kind, name)).at_line(number);
        let parsed =
            SetCookie::parse(content(line).as_bytes()).map_err(|(kind, name)| refused(kind, name))?;
        let cookie = judge_set_cookie(&parsed, target, 0, now, Instant::default())
            .map_err(|kind| refused(kind, parsed.name))?;
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
            losses.leave_out(cookie, LossReason::Path);
            continue;
        }
        let line = String::from_utf8(cookie.to_set_cookie()).expect("its parts are utf-8");
        losses.without(cookie, cookie.partition_key().is_some(), LossReason::PartitionKey);
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
