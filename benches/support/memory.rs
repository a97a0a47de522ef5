//! The memory use of this process, and sessions to measure.

use tower_client_sessions::{Session, Sessions};

/// Returns the resident bytes, including the allocator's slack. `None` on systems other than Linux.
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Returns `count` sessions, each with three cookies.
pub(crate) fn fill(sessions: &Sessions, count: usize) -> Vec<Session> {
    let mut all = Vec::with_capacity(count);
    for name in 0..count {
        let session = sessions.session(name);
        for cookie in ["sid=0123456789abcdef0123456789abcdef", "csrf=0123456789abcdef", "lang=en"] {
            let cookie = format!("{cookie}; Path=/; Secure; HttpOnly");
            session.set_cookie(&cookie, "https://www.shop.example/").expect("the cookie is good");
        }
        all.push(session);
    }
    all
}

/// Yields numbers in `0..count` in an order that no prefetcher can predict.
pub(crate) fn scattered(count: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % count as u64) as usize
    })
}
