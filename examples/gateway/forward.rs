//! What the gateway reads from a client's request, and what it removes in both directions.

use std::{error::Error, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower::{BoxError, timeout::error::Elapsed};
use tower_client_sessions::{
    SessionId,
    client::{ClientError, ClientErrorKind},
    gate::{RenewalError, RenewalErrorKind},
    session::SessionError,
};

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The header that names a session, in requests and in responses.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("x-session");
/// The header that marks a response of the gateway itself.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("x-session-error");

/// How a client requests a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As from a proxy: the request line has the whole URL.
    Proxy,
    /// Appended to the gateway's own URL: `/https://host/path`.
    Reverse,
}

/// The destination of a request.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) uri: Uri,
    pub(crate) form: Form,
}

impl Target {
    pub(crate) fn of<B>(request: &Request<B>) -> Result<Self, Rejection> {
        if request.uri().scheme().is_some() {
            return Self::new(request.uri().clone(), Form::Proxy);
        }
        reject_browsers(request.headers())?;
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let unknown = || {
            Rejection::new(
                StatusCode::BAD_REQUEST,
                "request an http URL through this proxy, or /https://host/path or /http://host/path from it",
            )
        };
        let (scheme, rest) =
            path.strip_prefix('/').and_then(|path| path.split_once(":/")).ok_or_else(unknown)?;
        if !matches!(scheme, "http" | "https") {
            return Err(unknown());
        }
        // Some clients merge two slashes of a path into one.
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let uri = format!("{scheme}://{rest}").parse().map_err(|_| unknown())?;
        Self::new(uri, Form::Reverse)
    }

    fn new(uri: Uri, form: Form) -> Result<Self, Rejection> {
        let known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
        match uri.authority() {
            Some(authority) if known && !authority.host().is_empty() && !authority.as_str().contains('@') => {
                Ok(Self { uri, form })
            }
            _ => Err(Rejection::new(
                StatusCode::BAD_REQUEST,
                "the URL must be a complete http or https URL without a user name",
            )),
        }
    }

    pub(crate) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    pub(crate) fn port(&self) -> u16 {
        let usual = if self.uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        self.uri.port_u16().unwrap_or(usual)
    }

    /// Points a redirect to the gateway if the client would otherwise resolve it against the
    /// gateway instead of the origin.
    pub(crate) fn rewrite_location(&self, headers: &mut HeaderMap) {
        let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else {
            return;
        };
        let (scheme, authority) =
            (self.uri.scheme_str().unwrap_or_default(), self.uri.authority().map_or("", |it| it.as_str()));
        let lower = location.to_ascii_lowercase();
        let location = if lower.starts_with("http://") || lower.starts_with("https://") {
            format!("/{location}")
        } else if location.starts_with("//") {
            format!("/{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("/{scheme}://{authority}{location}")
        } else {
            // Relative to the page, whose URL already leads through the gateway.
            return;
        };
        if let Ok(location) = HeaderValue::from_str(&location) {
            headers.insert(header::LOCATION, location);
        }
    }
}

/// Rejects what a web page in a local browser may have sent: other sites must not use the sessions.
fn reject_browsers(headers: &HeaderMap) -> Result<(), Rejection> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"none" && site != b"same-origin") {
        return Err(Rejection::new(
            StatusCode::FORBIDDEN,
            "the request comes from a web page of another site",
        ));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let is_plain =
        |host: &str| host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    match host {
        Some(host) if is_plain(host.host()) => Ok(()),
        _ => Err(Rejection::new(
            StatusCode::MISDIRECTED_REQUEST,
            "address the gateway by IP address or as localhost: another name may belong to an attacker",
        )),
    }
}

/// The session that a request names.
pub(crate) fn session(headers: &HeaderMap) -> Result<Option<SessionId>, Rejection> {
    let mut named = headers.get_all(SESSION).iter();
    let Some(name) = named.next() else {
        return Ok(None);
    };
    match name.to_str() {
        Ok(name) if !name.is_empty() && name.len() <= 256 && named.next().is_none() => {
            Ok(Some(SessionId::from(name)))
        }
        _ => Err(Rejection::new(
            StatusCode::BAD_REQUEST,
            "x-session must be present once, with 1 to 256 printable characters",
        )),
    }
}

/// Removes the headers that concern one connection or the gateway only.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        SESSION,
        ERROR,
    ] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "x-session-generation", "x-session-replays"] {
        headers.remove(name);
    }
}

/// Why the gateway responds itself.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Rejection {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn response(self, session: Option<HeaderValue>) -> Response<Body> {
        let body = Full::new(Bytes::from(self.message + "\n")).map_err(|never| match never {}).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(ERROR, HeaderValue::from_static("gateway"));
        headers.extend(session.map(|session| (SESSION, session)));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// An error of the stack; the status says whether client, gateway or origin caused it.
impl From<BoxError> for Rejection {
    fn from(error: BoxError) -> Self {
        let mut status = StatusCode::BAD_GATEWAY;
        let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<RenewalError>() {
                status = match error.kind() {
                    RenewalErrorKind::WaitTimedOut | RenewalErrorKind::QueueFull => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                    RenewalErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                    _ => StatusCode::BAD_GATEWAY,
                };
                break;
            }
            if error.is::<Elapsed>() {
                status = StatusCode::GATEWAY_TIMEOUT;
            }
            if error.is::<SessionError>()
                || error
                    .downcast_ref::<ClientError>()
                    .is_some_and(|error| error.kind() == ClientErrorKind::BadUri)
            {
                status = StatusCode::BAD_REQUEST;
            }
            cause = error.source();
        }
        Self::new(status, chain(&*error))
    }
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
