//! `Set-Cookie` lines, below comments with the URLs that set them.

use super::{Codec, Losses, Sample, error::FormatError};
use crate::cookies::{
    CookieError, CookieUrl, LossReason, StoredCookie, Timestamp, parse::SetCookie, path::is_writable_path,
    rules::validate_set_cookie, time::EventTime,
};

pub(super) struct SetCookieLines;

impl Codec for SetCookieLines {
    /// Looks for a `=` in the first line that is not a comment.
    fn detect(&self, sample: &Sample<'_>) -> bool {
        let Sample::Text(text) = sample else { return false };
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.find(|line| !line.starts_with('#')).is_some_and(|line| header_value(line).contains('='))
    }

    fn read(&self, text: &str, now: Timestamp) -> Result<Vec<StoredCookie>, FormatError> {
        read(text, None, now)
    }

    fn write(&self, cookies: &[StoredCookie], losses: &mut Losses) -> String {
        let (mut text, mut host) = (String::new(), "");
        for cookie in cookies {
            if losses.texts(cookie).is_none() {
                continue;
            }
            if !is_writable_path(cookie.path_bytes()) {
                losses.add(cookie, LossReason::Path);
                continue;
            }
            let line = String::from_utf8(cookie.to_set_cookie()).expect("its parts are utf-8");
            losses.add_if(cookie.partition_key().is_some(), cookie, LossReason::PartitionKey);
            losses.add_converted();
            if host != cookie.domain() {
                host = cookie.domain();
                text.push_str(&format!("# https://{host}/\n"));
            }
            // The header name separates a cookie whose name begins with `#` from a comment.
            text.push_str("Set-Cookie: ");
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// The line without the header name.
fn header_value(line: &str) -> &str {
    const NAME: &str = "set-cookie:";
    match line.get(..NAME.len()) {
        Some(name) if name.eq_ignore_ascii_case(NAME) => line[NAME.len()..].trim_start(),
        _ => line,
    }
}

/// Reads the lines of a response from `url`, until a comment names another URL.
pub(super) fn read(text: &str, url: Option<&str>, now: Timestamp) -> Result<Vec<StoredCookie>, FormatError> {
    let mut url = url.map(CookieUrl::parse).transpose().map_err(FormatError::invalid_cookie)?;
    let mut cookies = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_matches([' ', '\t', '\r']);
        let rejected = |error| FormatError::invalid_cookie(error).at_line(number);
        if let Some(comment) = line.strip_prefix('#') {
            let comment = comment.trim();
            if comment.starts_with("http://") || comment.starts_with("https://") {
                url = Some(CookieUrl::parse(comment).map_err(rejected)?);
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let Some(url) = &url else {
            return Err(FormatError::no_url().at_line(number));
        };
        cookies.push(read_cookie(header_value(line), url, now).map_err(rejected)?);
    }
    Ok(cookies)
}

fn read_cookie(text: &str, url: &CookieUrl<'_>, now: Timestamp) -> Result<StoredCookie, CookieError> {
    let parsed =
        SetCookie::parse(text.as_bytes()).map_err(|(kind, name)| CookieError::for_cookie(kind, name))?;
    validate_set_cookie(&parsed, url, None, now, EventTime::UNSET)
        .map_err(|kind| CookieError::for_cookie(kind, parsed.name))
}
