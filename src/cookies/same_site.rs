//! The `SameSite` attribute.

/// The `SameSite` attribute: whether requests initiated by other sites carry the cookie.
///
/// The jar stores and exports the attribute. It does not restrict requests, because a client that
/// is not a browser has no initiating site.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SameSite {
    /// Only requests from the same site carry the cookie.
    Strict,
    /// Top-level navigations from other sites carry the cookie too.
    Lax,
    /// All requests carry the cookie. Requires `Secure`.
    None,
}

impl SameSite {
    /// Parses the value of the attribute, ignoring ASCII case.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        [Self::Strict, Self::Lax, Self::None]
            .into_iter()
            .find(|same_site| value.eq_ignore_ascii_case(same_site.as_str().as_bytes()))
    }

    /// Returns the value of the attribute: `Strict`, `Lax` or `None`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

impl From<cookie::SameSite> for SameSite {
    fn from(same_site: cookie::SameSite) -> Self {
        match same_site {
            cookie::SameSite::Strict => Self::Strict,
            cookie::SameSite::Lax => Self::Lax,
            cookie::SameSite::None => Self::None,
        }
    }
}

impl From<SameSite> for cookie::SameSite {
    fn from(same_site: SameSite) -> Self {
        match same_site {
            SameSite::Strict => Self::Strict,
            SameSite::Lax => Self::Lax,
            SameSite::None => Self::None,
        }
    }
}
