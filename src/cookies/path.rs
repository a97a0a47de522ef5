//! The paths of cookies and requests, RFC 6265bis §5.1.4.

use super::parse::MAX_ATTRIBUTE;

/// The default path of a cookie: the directory of the request's path.
pub(super) fn default_path(request: &str) -> &str {
    if !request.starts_with('/') {
        return "/";
    }
    // Searches byte by byte from the end, because the last segment is usually short.
    match request.bytes().rposition(|byte| byte == b'/') {
        Some(0) | None => "/",
        Some(last) => &request[..last],
    }
}

/// Whether a request for the path `request` carries a cookie with the path `cookie`.
pub(super) fn path_matches(request: &[u8], cookie: &[u8]) -> bool {
    match request.strip_prefix(cookie) {
        Some(rest) => rest.is_empty() || cookie.ends_with(b"/") || rest.starts_with(b"/"),
        None => false,
    }
}

/// Whether a `Path` attribute can express a path.
///
/// A default path may be longer than an attribute, or contain a `;`.
pub(super) fn is_writable_path(path: &[u8]) -> bool {
    path.len() <= MAX_ATTRIBUTE && !path.contains(&b';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_path_is_the_directory() {
        for (request, expected) in
            [("", "/"), ("x", "/"), ("/", "/"), ("/a", "/"), ("/a/", "/a"), ("/a/b", "/a"), ("/a//b", "/a/")]
        {
            assert_eq!(default_path(request), expected, "{request:?}");
        }
    }

    #[test]
    fn paths_match_whole_segments() {
        for (request, cookie, expected) in [
            ("/", "/", true),
            ("/a", "/", true),
            ("/a", "/a", true),
            ("/a/", "/a", true),
            ("/a/b", "/a/", true),
            ("/ab", "/a", false),
            ("/a", "/a/", false),
            ("/A", "/a", false),
            ("/a%20b", "/a b", false),
        ] {
            let matched = path_matches(request.as_bytes(), cookie.as_bytes());
            assert_eq!(matched, expected, "{request:?} {cookie:?}");
        }
    }
}
