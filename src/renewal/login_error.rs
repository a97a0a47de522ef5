//! `LoginError`: a response of a renewal that does not show that the login worked.

use std::{borrow::Cow, error::Error, fmt};

use http::{Method, StatusCode};

use crate::session::SessionId;

/// A request of a renewal, with the response that it got.
#[derive(Clone, Debug)]
pub(super) struct LoginStep {
    /// The number of the request within its renewal, from 1 on.
    pub(super) number: u32,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) status: StatusCode,
    /// The path of the last page, after all redirects, including one that was not followed.
    pub(super) ended_at: String,
}

/// What a response lacks that would show a login.
#[derive(Clone, Debug)]
pub(super) enum Missing {
    /// A condition of the rule, with its message.
    Condition(Cow<'static, str>),
    /// A cookie of this name.
    Cookie(String),
    /// A status of success or redirection.
    Success,
    /// A page other than this one.
    OtherPage(String),
    /// A response that does not mean that the session has expired.
    LiveSession,
    /// The condition of a renewal with a single request.
    SuccessRule,
}

/// A response of a renewal does not show that the login worked.
///
/// The error names the session, the request and the status, and what was missing. It never contains
/// the query of a URI, or a value of a cookie.
///
/// It is permanent, which means that it is the source of a
/// [`PermanentError`](crate::gate::PermanentError), unless it is [transient](Self::is_transient).
#[derive(Clone, Debug)]
pub struct LoginError {
    session: SessionId,
    step: Option<LoginStep>,
    missing: Missing,
}

impl LoginError {
    pub(super) fn new(session: &SessionId, step: Option<LoginStep>, missing: Missing) -> Self {
        Self { session: session.clone(), step, missing }
    }

    /// Returns the session under renewal.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// Returns the number of the renewal's last request that got a response; the first one is 1.
    pub fn step(&self) -> Option<u32> {
        self.step.as_ref().map(|step| step.number)
    }

    /// Returns the status of the last response.
    pub fn status(&self) -> Option<StatusCode> {
        self.step.as_ref().map(|step| step.status)
    }

    /// Returns whether another attempt may succeed: the last response has status 408, 429 or 5xx.
    pub fn is_transient(&self) -> bool {
        self.status().is_some_and(|status| {
            status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        })
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}: ", self.session)?;
        match &self.step {
            Some(LoginStep { number, method, path, status, ended_at }) => {
                write!(f, "request {number} of the renewal, {method} {path}, ended ")?;
                if ended_at != path {
                    write!(f, "at {ended_at} ")?;
                }
                write!(f, "with status {}: ", status.as_u16())?;
            }
            None => f.write_str("the renewal got no response: ")?,
        }
        match &self.missing {
            Missing::Condition(message) => f.write_str(message),
            Missing::Cookie(name) => write!(f, "no cookie named {name} is set"),
            Missing::Success => f.write_str("the status is no success"),
            Missing::OtherPage(path) => write!(f, "the login did not leave {path}"),
            Missing::LiveSession => f.write_str("the response means that the session has expired"),
            Missing::SuccessRule => f.write_str("renewal_succeeds_when rejects the response"),
        }
    }
}

impl Error for LoginError {}
