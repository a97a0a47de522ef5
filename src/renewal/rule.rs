//! The rule of a renewal layer.

use std::{future::Future, pin::Pin};

use http::Request;

use super::Renewal;
use crate::{
    cookies::Jar,
    gate::{BoxError, RenewalReason},
    session::SessionId,
};

/// A future of user code, boxed since a layer cannot name it.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Brings cookies from elsewhere for this session.
pub(crate) type FetchCookies = dyn Fn(&SessionId, RenewalReason) -> BoxFuture<Jar> + Send + Sync;

/// The rule that a renewal layer was given.
pub(crate) enum Rule<B> {
    /// Steps of the user's own.
    Steps(Box<dyn Fn(Renewal<B>) -> BoxFuture<()> + Send + Sync>),
    /// One request, made anew for each attempt.
    Request(Box<dyn Fn() -> Option<Request<B>> + Send + Sync>),
    /// Cookies from elsewhere; nothing is sent.
    SessionSource(Box<FetchCookies>),
}
