//! What responses and errors say about the health of a session.

use std::{error::Error, fmt, time::Duration};

use http::{Extensions, HeaderMap, StatusCode, header};

use crate::cookies::{Timestamp, parse_date};

/// What an outcome means for the session of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The outcome says nothing about the session.
    #[default]
    Neutral,
    /// The session works: its score is reduced.
    Good,
    /// The session may be blocked: its score rises, and at `max_error_score` it is retired.
    Bad,
    /// The session is not used for this duration, and serves again afterwards.
    ///
    /// This is not a bad mark. The duration is limited by `max_cooldown`.
    CoolDown(Duration),
    /// The session is blocked: it is retired immediately.
    Retire,
}

impl Verdict {
    /// Returns the default verdict, which
    /// [`classify_with`](super::SessionPoolBuilder::classify_with) replaces.
    ///
    /// | outcome | verdict |
    /// |---|---|
    /// | status 429 or 503 with a `Retry-After` | cool down for that duration |
    /// | status 429 without `Retry-After` | cool down for one second |
    /// | status 401, 403, 407 | bad |
    /// | any other status below 400 | good |
    /// | any other status | neutral |
    /// | no response, or a body error | bad |
    pub fn standard(outcome: &Outcome<'_>) -> Self {
        let Some(status) = outcome.status() else {
            return Self::Bad;
        };
        match (status.as_u16(), outcome.retry_after()) {
            (429 | 503, Some(cooldown)) => Self::CoolDown(cooldown),
            (429, None) => Self::CoolDown(Duration::from_secs(1)),
            (401 | 403 | 407, _) => Self::Bad,
            (0..=399, _) => Self::Good,
            _ => Self::Neutral,
        }
    }
}

/// How a request under a member of a pool ended.
pub struct Outcome<'a> {
    kind: Kind<'a>,
    now: &'a dyn Fn() -> Timestamp,
}

enum Kind<'a> {
    Response { status: StatusCode, headers: &'a HeaderMap, extensions: &'a Extensions },
    Failed(&'a (dyn Error + Send + Sync + 'static)),
    BodyError,
}

impl<'a> Outcome<'a> {
    pub(crate) fn response<R>(response: &'a http::Response<R>, now: &'a dyn Fn() -> Timestamp) -> Self {
        let kind = Kind::Response {
            status: response.status(),
            headers: response.headers(),
            extensions: response.extensions(),
        };
        Self { kind, now }
    }

    pub(crate) fn failed(
        error: &'a (dyn Error + Send + Sync + 'static),
        now: &'a dyn Fn() -> Timestamp,
    ) -> Self {
        Self { kind: Kind::Failed(error), now }
    }

    pub(crate) fn body_error(now: &'a dyn Fn() -> Timestamp) -> Self {
        Self { kind: Kind::BodyError, now }
    }

    /// Returns the status of the response, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match self.kind {
            Kind::Response { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Returns the headers of the response, if there was one.
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        match self.kind {
            Kind::Response { headers, .. } => Some(headers),
            _ => None,
        }
    }

    /// Returns the extensions of the response, if there was one.
    pub fn extensions(&self) -> Option<&'a Extensions> {
        match self.kind {
            Kind::Response { extensions, .. } => Some(extensions),
            _ => None,
        }
    }

    /// Returns the error, if there was no response.
    pub fn error(&self) -> Option<&'a (dyn Error + Send + Sync + 'static)> {
        match self.kind {
            Kind::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Returns whether reading the response body failed.
    ///
    /// The head of that response was classified before.
    pub fn is_body_error(&self) -> bool {
        matches!(self.kind, Kind::BodyError)
    }

    /// Returns the duration of the response's `Retry-After`, given in seconds or as a date.
    ///
    /// A date in the past is a duration of zero.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.headers()?.get(header::RETRY_AFTER)?;
        let text = value.to_str().ok()?.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // A number of seconds that overflows is treated as the maximum.
            return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
        }
        let until = parse_date(text.as_bytes())?;
        let left = until.as_millis().saturating_sub((self.now)().as_millis());
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }
}

impl fmt::Debug for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Response { status, .. } => f.debug_tuple("Response").field(status).finish(),
            Kind::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Kind::BodyError => f.write_str("BodyError"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, retry_after: Option<&str>, expected: Verdict) {
        let mut response = http::Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header("retry-after", value);
        }
        let response = response.body(()).unwrap();
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = || Timestamp::from_millis(784_111_777_000);
        assert_eq!(Verdict::standard(&Outcome::response(&response, &now)), expected);
    }

    #[test]
    fn a_rate_limit_causes_a_cooldown_and_no_bad_mark() {
        check(429, Some("120"), Verdict::CoolDown(Duration::from_secs(120)));
        check(503, Some(" 0 "), Verdict::CoolDown(Duration::ZERO));
        check(429, Some("Sun, 06 Nov 1994 08:50:37 GMT"), Verdict::CoolDown(Duration::from_secs(60)));
        check(429, Some("Sun, 06 Nov 1994 08:40:00 GMT"), Verdict::CoolDown(Duration::ZERO));
        check(429, Some("99999999999999999999999"), Verdict::CoolDown(Duration::from_secs(u64::MAX)));
        check(429, Some("soon"), Verdict::CoolDown(Duration::from_secs(1)));
        check(429, None, Verdict::CoolDown(Duration::from_secs(1)));
    }

    #[test]
    fn other_responses_are_good_bad_or_neutral() {
        for (status, verdict) in [
            (200, Verdict::Good),
            (302, Verdict::Good),
            (401, Verdict::Bad),
            (403, Verdict::Bad),
            (407, Verdict::Bad),
            (404, Verdict::Neutral),
            (500, Verdict::Neutral),
            (503, Verdict::Neutral),
        ] {
            check(status, None, verdict);
        }
        let now = || Timestamp::from_millis(0);
        assert_eq!(Verdict::standard(&Outcome::body_error(&now)), Verdict::Bad);
        let error: crate::gate::BoxError = "refused".into();
        assert_eq!(Verdict::standard(&Outcome::failed(&*error, &now)), Verdict::Bad);
    }
}
