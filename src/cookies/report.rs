//! [`ConversionReport`]: what a conversion of cookies loses.

use std::fmt;

use super::{CookieError, CookieErrorKind};

/// The result of a conversion of cookies to or from another format.
///
/// No format stores the times of creation and use, or whether the user set a cookie. These losses
/// are not listed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use = "the report lists cookies that were not converted"]
pub struct ConversionReport {
    losses: Vec<Loss>,
    converted: usize,
}

/// A cookie that was not converted, or an attribute that the converted cookie lacks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    name: String,
    domain: String,
    reason: LossReason,
}

/// Why a cookie or an attribute was not converted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LossReason {
    /// Omitted: the name, the value or the path is not UTF-8.
    NotUtf8,
    /// Omitted: the format cannot represent a cookie without a name.
    Nameless,
    /// Omitted: the jar also has a host-only cookie with the same name, path and domain, and the
    /// format of `cookie_store` has room for only one of them.
    HostOnlyTwin,
    /// Omitted: `cookie_store` rejects the cookie.
    RejectedByStore,
    /// Omitted: the cookie violates a rule of this crate.
    InvalidCookie(CookieErrorKind),
    /// Omitted: the cookie contains a tab, which separates the fields of the format.
    Tab,
    /// Omitted: no `Path` attribute can express the path.
    Path,
    /// Kept without the partition key.
    PartitionKey,
    /// Kept without the `SameSite` attribute.
    SameSite,
    /// Kept without the `Partitioned` attribute.
    Partitioned,
}

impl ConversionReport {
    /// Returns the losses.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Returns whether nothing was lost.
    pub fn is_lossless(&self) -> bool {
        self.losses.is_empty()
    }

    /// Returns the number of converted cookies.
    pub const fn converted(&self) -> usize {
        self.converted
    }

    pub(super) fn add_converted(&mut self) {
        self.converted += 1;
    }

    pub(super) fn add_loss(&mut self, name: &[u8], domain: &str, reason: LossReason) {
        let name = String::from_utf8_lossy(name).into_owned();
        self.losses.push(Loss { name, domain: domain.to_owned(), reason });
    }
}

impl Loss {
    /// Returns the name of the cookie.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the domain of the cookie.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the reason.
    pub const fn reason(&self) -> LossReason {
        self.reason
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cookie `{}` of {}: ", self.name.escape_debug(), self.domain)?;
        f.write_str(match self.reason {
            LossReason::NotUtf8 => "omitted: it is not utf-8",
            LossReason::Nameless => "omitted: it has no name",
            LossReason::HostOnlyTwin => "omitted: there is a host-only cookie of the same name",
            LossReason::RejectedByStore => "omitted: the store rejects it",
            LossReason::InvalidCookie(kind) => {
                let error = CookieError::for_cookie(kind, self.name.as_bytes());
                return write!(f, "omitted: {error}");
            }
            LossReason::Tab => "omitted: it contains a tab",
            LossReason::Path => "omitted: its path cannot be an attribute",
            LossReason::PartitionKey => "kept without its partition key",
            LossReason::SameSite => "kept without its samesite attribute",
            LossReason::Partitioned => "kept without its partitioned attribute",
        })
    }
}
