//! `Rule`: how a renewal layer renews a session.

use http::Request;

use super::renewal::{BoxFuture, Renewal};
use crate::{cookies::Jar, gate::RenewalReason, session::SessionId};

/// Fetches the cookies of a session from a source outside the stack.
pub(super) type FetchCookies = dyn Fn(&SessionId, RenewalReason) -> BoxFuture<Jar> + Send + Sync;

/// How a renewal layer asks the server whether it still accepts an identity.
pub(super) enum Verification<B> {
    /// Runs a closure of the user.
    Steps(Box<dyn Fn(Renewal<B>) -> BoxFuture<bool> + Send + Sync>),
    /// Sends one request. The identity works unless the response looks as if the session has
    /// expired.
    Request(Box<dyn Fn() -> Option<Request<B>> + Send + Sync>),
}

/// The rule of a renewal layer.
pub(super) enum Rule<B> {
    /// Runs a closure of the user.
    Steps(Box<dyn Fn(Renewal<B>) -> BoxFuture<()> + Send + Sync>),
    /// Sends one request. Each attempt makes a new one; `None` if its body cannot be cloned.
    Request(Box<dyn Fn() -> Option<Request<B>> + Send + Sync>),
    /// Takes cookies from a source, and sends nothing.
    SessionSource(Box<FetchCookies>),
}
