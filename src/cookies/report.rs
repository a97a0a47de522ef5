//! What a conversion of cookies could not hold.

use std::fmt;

use super::{CookieError, CookieErrorKind};

/// What a conversion to another form of cookies, or from one, could not hold.
///
/// Moments of creation and use are held by none of them, nor is who gave a cookie; these are not listed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use = "it tells what was lost"]
pub struct ConversionReport {
    losses: Vec<Loss>,
    converted: usize,
}

/// A cookie that was left out, or a part of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    name: String,
    domain: String,
    reason: LossReason,
}

/// Why a cookie, or a part of it, could not be converted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LossReason {
    /// Left out: name, value or path is not UTF-8, and the other form holds text.
    NotUtf8,
    /// Left out: the other form cannot hold a cookie without a name.
    Nameless,
    /// Left out: `cookie_store` has one place for the cookie of the host and that of the domain,
    /// and the other of them, which is narrower, took it.
    HostOnlyTwin,
    /// Left out: `cookie_store` itself refuses it.
    RejectedByStore,
    /// Left out: a rule of ours refuses it.
    InvalidCookie(CookieErrorKind),
    /// Left out: a tab, which parts the fields of the other form.
    Tab,
    /// Left out: its path cannot be an attribute.
    Path,
    /// Kept, but without its partition key.
    PartitionKey,
    /// Kept, but without its `SameSite`.
    SameSite,
    /// Kept, but not whether it is partitioned.
    Partitioned,
}

impl ConversionReport {
    /// Returns what was lost.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Returns whether nothing was lost.
    pub fn is_lossless(&self) -> bool {
        self.losses.is_empty()
    }

    /// Returns how many cookies were converted.
    pub fn converted(&self) -> usize {
        self.converted
    }

    pub(super) fn add_converted(&mut self) {
        self.converted += 1;
    }

    pub(super) fn lose(&mut self, name: &[u8], domain: &str, reason: LossReason) {
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

    /// Returns what happened to it.
    pub fn reason(&self) -> LossReason {
        self.reason
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cookie `{}` of {}: ", self.name.escape_debug(), self.domain)?;
        f.write_str(match self.reason {
            LossReason::NotUtf8 => "left out, it is not utf-8",
            LossReason::Nameless => "left out, it has no name",
            LossReason::HostOnlyTwin => "left out, the host's own took its place",
            LossReason::RejectedByStore => "left out, the store refuses it",
            LossReason::InvalidCookie(kind) => {
                let error = CookieError::named(kind, self.name.as_bytes());
                return write!(f, "left out, {error}");
            }
            LossReason::Tab => "left out, it has a tab in it",
            LossReason::Path => "left out, its path cannot be an attribute",
            LossReason::PartitionKey => "kept without its partition key",
            LossReason::SameSite => "kept without its samesite",
            LossReason::Partitioned => "kept, but not whether it is partitioned",
        })
    }
}
