//! The boolean attributes and the `SameSite` attribute of a cookie, packed into one byte.

use super::SameSite;

/// A set of attributes of a cookie.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const HOST_ONLY: Self = Self(1);
    pub(super) const SECURE: Self = Self(1 << 1);
    pub(super) const HTTP_ONLY: Self = Self(1 << 2);
    pub(super) const PARTITIONED: Self = Self(1 << 3);
    /// The cookie was set by the user, not by a response.
    pub(super) const USER_SET: Self = Self(1 << 4);
    const STRICT: Self = Self(1 << 5);
    const LAX: Self = Self(2 << 5);
    const NONE: Self = Self(3 << 5);
    const SAME_SITE: Self = Self(3 << 5);

    pub(super) const fn empty() -> Self {
        Self(0)
    }

    pub(super) const fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    pub(super) const fn without(self, flag: Self) -> Self {
        Self(self.0 & !flag.0)
    }

    /// Adds the flag if `on`, and removes it otherwise.
    pub(super) const fn set(self, flag: Self, on: bool) -> Self {
        if on { self.with(flag) } else { self.without(flag) }
    }

    pub(super) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) fn with_same_site(self, same_site: Option<SameSite>) -> Self {
        let cleared = self.without(Self::SAME_SITE);
        match same_site {
            Some(SameSite::Strict) => cleared.with(Self::STRICT),
            Some(SameSite::Lax) => cleared.with(Self::LAX),
            Some(SameSite::None) => cleared.with(Self::NONE),
            None => cleared,
        }
    }

    pub(super) fn same_site(self) -> Option<SameSite> {
        match Self(self.0 & Self::SAME_SITE.0) {
            Self::STRICT => Some(SameSite::Strict),
            Self::LAX => Some(SameSite::Lax),
            Self::NONE => Some(SameSite::None),
            _ => None,
        }
    }
}
