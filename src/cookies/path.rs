/// The directory of a request's path, RFC 6265bis §5.1.4.
pub(super) fn default_path(request: &str) -> &str {
    if !request.starts_with('/') {
        return "/";
    }
    // Byte by byte from the end: the last part is a few letters.
    match request.bytes().rposition(|byte| byte == b'/') {
        Some(0) | None => "/",
        Some(last) => &request[..last],
    }
}

/// Whether a request for `request` gets a cookie of path `cookie`, RFC 6265bis §5.1.4.
pub(super) fn path_matches(request: &[u8], cookie: &[u8]) -> bool {
    match request.strip_prefix(cookie) {
        Some(rest) => rest.is_empty() || cookie.ends_with(b"/") || rest.starts_with(b"/"),
        None => false,
    }
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
