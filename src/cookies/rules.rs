//! The rules that a cookie must satisfy before it is stored, RFC 6265bis §5.7.
//!
//! The rules that depend on the other cookies of the jar are in `jar.rs`.

use std::{
    num::{NonZeroU32, NonZeroU64},
    str,
    time::Duration,
};

use super::{
    CookieErrorKind, CookieUrl, SameSite, StoredCookie, Timestamp,
    domain::{domain_matches, is_public_suffix},
    flags::Flags,
    parse::{MAX_PAIR, SetCookie, is_control, trimmed},
    path::default_path,
    stored::{MAX_LIFETIME, Parts},
    time::EventTime,
};

/// Where the path of a cookie comes from.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum PathOrigin {
    /// The cookie has a path of its own, from an attribute or from the user.
    Explicit,
    /// The path is the directory of the URL, because the cookie has no `Path` attribute.
    Default,
}

/// Checks the rules that need neither the request nor the jar: §5.7, steps 19 to 22.
///
/// `__Host-` requires an explicit `Path=/`, so a default path that is `/` does not satisfy it.
pub(super) fn validate_attributes(parts: &Parts<'_>, path: PathOrigin) -> Result<(), CookieErrorKind> {
    let secure = parts.flags.has(Flags::SECURE);
    if parts.flags.same_site() == Some(SameSite::None) && !secure {
        return Err(CookieErrorKind::SameSiteNoneInsecure);
    }
    let has_prefix = |text: &[u8], prefix: &[u8]| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if has_prefix(parts.name, b"__Secure-") && !secure {
        return Err(CookieErrorKind::SecurePrefix);
    }
    if has_prefix(parts.name, b"__Host-") {
        let host_only = parts.flags.has(Flags::HOST_ONLY);
        if !(secure && host_only && path == PathOrigin::Explicit && parts.path == b"/") {
            return Err(CookieErrorKind::HostPrefix);
        }
    }
    let is_prefixed = |text| has_prefix(text, b"__Secure-") || has_prefix(text, b"__Host-");
    if parts.name.is_empty() && is_prefixed(parts.value) {
        return Err(CookieErrorKind::NamelessPrefix);
    }
    Ok(())
}

/// Validates a parsed `Set-Cookie` from `url`: §5.7, steps 6 to 22, except step 16.
pub(super) fn validate_set_cookie(
    set_cookie: &SetCookie<'_>,
    url: &CookieUrl<'_>,
    fingerprint: Option<NonZeroU64>,
    now: Timestamp,
    event: EventTime,
) -> Result<StoredCookie, CookieErrorKind> {
    let mut flags = Flags::empty()
        .set(Flags::SECURE, set_cookie.secure)
        .set(Flags::HTTP_ONLY, set_cookie.http_only)
        .set(Flags::PARTITIONED, set_cookie.partitioned)
        .with_same_site(set_cookie.same_site);

    // Domain, steps 7 to 10.
    let attribute = set_cookie.domain.unwrap_or_default();
    if !attribute.is_ascii() {
        return Err(CookieErrorKind::InvalidDomain);
    }
    let attribute = str::from_utf8(attribute).map_err(|_| CookieErrorKind::InvalidDomain)?;
    let host = url.host();
    let lowered;
    let attribute = if attribute.bytes().any(|byte| byte.is_ascii_uppercase()) {
        lowered = attribute.to_ascii_lowercase();
        lowered.as_str()
    } else {
        attribute
    };
    let domain = if attribute.is_empty() {
        flags = flags.with(Flags::HOST_ONLY);
        host
    } else if is_public_suffix(attribute) {
        if attribute != host {
            return Err(CookieErrorKind::PublicSuffix);
        }
        flags = flags.with(Flags::HOST_ONLY);
        host
    } else if domain_matches(host, attribute) && !attribute.starts_with('.') {
        // A second leading dot would begin an empty label, and no host name has one.
        attribute
    } else {
        return Err(CookieErrorKind::DomainMismatch);
    };

    // Path, step 11. A path that does not begin with a slash is replaced by the default path.
    let explicit = set_cookie.path.filter(|path| path.starts_with(b"/"));
    let path = explicit.unwrap_or_else(|| default_path(url.path()).as_bytes());

    if set_cookie.secure && !url.is_secure() {
        return Err(CookieErrorKind::SecureOverInsecure);
    }

    // Expiry, step 6, capped by §5.5. The cap on a date moves with the clock, so a capped header
    // must be parsed each time and gets no fingerprint.
    let latest = now.saturating_add(MAX_LIFETIME);
    let (expires, lifetime, fingerprint) = match (set_cookie.max_age, set_cookie.expires) {
        (Some(seconds), _) if seconds <= 0 => (Timestamp::MIN, None, None),
        (Some(seconds), _) => {
            let lifetime = seconds.min(MAX_LIFETIME.as_secs() as i64);
            let expires = now.saturating_add(Duration::from_secs(lifetime as u64));
            (expires, NonZeroU32::new(lifetime as u32), fingerprint)
        }
        (None, Some(date)) if date > latest => (latest, None, None),
        (None, Some(date)) => (date, None, fingerprint),
        (None, None) => (Timestamp::MAX, None, fingerprint),
    };

    let parts = Parts {
        name: set_cookie.name,
        value: set_cookie.value,
        domain,
        path,
        partition_key: b"",
        flags,
        expires,
        lifetime,
        fingerprint,
        created: event,
        used: event,
    };
    let origin = if set_cookie.path.is_some() { PathOrigin::Explicit } else { PathOrigin::Default };
    validate_attributes(&parts, origin)?;
    parts.pack()
}

/// Validates a name and a value that did not come through the parser.
///
/// Rejects what the parser would split at another position.
pub(super) fn validate_pair(name: &[u8], value: &[u8]) -> Result<(), CookieErrorKind> {
    if name.is_empty() && value.is_empty() {
        return Err(CookieErrorKind::Empty);
    }
    if name.iter().chain(value).copied().any(is_control) {
        return Err(CookieErrorKind::ControlCharacter);
    }
    if name.len() + value.len() > MAX_PAIR {
        return Err(CookieErrorKind::TooLong);
    }
    let is_whole = |text: &[u8]| trimmed(text).len() == text.len() && !text.contains(&b';');
    if !is_whole(name) || !is_whole(value) || name.contains(&b'=') {
        return Err(CookieErrorKind::Syntax);
    }
    Ok(())
}

/// Validates a path that did not come through the parser.
pub(super) fn validate_path(path: &[u8]) -> Result<(), CookieErrorKind> {
    if path.iter().copied().any(is_control) {
        return Err(CookieErrorKind::ControlCharacter);
    }
    if !path.starts_with(b"/") || trimmed(path).len() != path.len() {
        return Err(CookieErrorKind::InvalidPath);
    }
    Ok(())
}
