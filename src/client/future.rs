//! `ResponseFuture`: waits for a response, and decides whether the proxy or the origin sent it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, connect::CaptureConnection};

use super::{
    error::{ClientError, ClientErrorKind},
    handshake::kind_of_status,
};
use crate::{error_chain::errors_of_type, profile::Proxy};

/// Response future of [`IdentityClient`](super::IdentityClient).
pub struct ResponseFuture(State);

enum State {
    /// The request was rejected before it was sent.
    Rejected(Option<ClientError>),
    /// The request is in flight.
    Sent { inner: legacy::ResponseFuture, proxy: Proxy, forwarded: Option<CaptureConnection> },
}

impl ResponseFuture {
    pub(super) fn rejected(error: ClientError) -> Self {
        Self(State::Rejected(Some(error)))
    }

    pub(super) fn new(
        inner: legacy::ResponseFuture,
        proxy: Proxy,
        forwarded: Option<CaptureConnection>,
    ) -> Self {
        Self(State::Sent { inner, proxy, forwarded })
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Incoming>, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Rejected(error) => Poll::Ready(Err(error.take().expect("polled after completion"))),
            State::Sent { inner, proxy, forwarded } => {
                let result = std::task::ready!(Pin::new(inner).poll(context));
                Poll::Ready(match result {
                    Ok(response) => match forwarded {
                        Some(connection) => check(response, connection).map_err(|error| error.at(proxy)),
                        None => Ok(response),
                    },
                    Err(error) => {
                        // If the connector failed, its error names the hop.
                        let of_connector = errors_of_type::<ClientError>(&error).next().cloned();
                        Err(of_connector.unwrap_or_else(|| {
                            ClientError::new(ClientErrorKind::Transport).at(proxy).caused_by(error)
                        }))
                    }
                })
            }
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Checks a response that came through a forwarding proxy.
fn check(
    response: Response<Incoming>,
    connection: &CaptureConnection,
) -> Result<Response<Incoming>, ClientError> {
    if !stays_open(response.headers())
        && let Some(connection) = &*connection.connection_metadata()
    {
        connection.poison();
    }
    match proxy_error(&response) {
        Some(error) => Err(error),
        None => Ok(response),
    }
}

/// Returns whether the proxy announces that it keeps the connection open.
///
/// HTTP/1.1 does not require the announcement. But tinyproxy passes on the origin's `HTTP/1.1`,
/// announces nothing and closes the connection. Many requests on a reused connection would be lost
/// in the race with the close.
fn stays_open(headers: &HeaderMap) -> bool {
    ["connection", "proxy-connection"].iter().flat_map(|name| headers.get_all(*name)).any(|value| {
        let mut options = value.to_str().unwrap_or_default().split(',');
        options.any(|option| option.trim().eq_ignore_ascii_case("keep-alive"))
    })
}

/// Returns the error if a forwarding proxy, and not the origin, sent the response.
fn proxy_error<B>(response: &Response<B>) -> Option<ClientError> {
    let (status, headers) = (response.status(), response.headers());
    if !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    // Only proxies send 407 (RFC 9110, section 15.5.8).
    if status != StatusCode::PROXY_AUTHENTICATION_REQUIRED && !is_from_proxy(headers) {
        return None;
    }
    Some(ClientError::new(kind_of_status(status)).with_status(Some(status)))
}

/// Returns whether the headers show that the proxy itself sent an error.
fn is_from_proxy(headers: &HeaderMap) -> bool {
    if headers.contains_key(header::PROXY_AUTHENTICATE) || headers.contains_key("x-squid-error") {
        return true;
    }
    // RFC 9209, section 2.1.1: a proxy sets the parameter `error` if it could not get a response.
    let failed = |value: &http::HeaderValue| value.to_str().is_ok_and(|value| value.contains("error="));
    if headers.get_all("proxy-status").iter().any(failed) {
        return true;
    }
    // A response that was passed on has a `Via` of the proxy and the `Server` of the origin.
    const PROXIES: [&str; 4] = ["tinyproxy", "squid", "privoxy", "3proxy"];
    let server = headers.get(header::SERVER).and_then(|server| server.to_str().ok()).unwrap_or_default();
    let server = server.to_ascii_lowercase();
    !headers.contains_key(header::VIA) && PROXIES.iter().any(|proxy| server.starts_with(proxy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, headers: &[(&str, &str)], expected: Option<ClientErrorKind>) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(()).unwrap();
        assert_eq!(proxy_error(&response).map(|error| error.kind()), expected, "{status} {headers:?}");
    }

    #[test]
    fn a_response_of_the_proxy_is_distinguished_from_the_origins() {
        use ClientErrorKind::*;
        check(200, &[("server", "tinyproxy/1.11.1")], None);
        check(407, &[], Some(ProxyCredentials));
        // The response of tinyproxy to wrong credentials.
        let realm = ("www-authenticate", "Basic realm=\"Tinyproxy\"");
        check(401, &[("server", "tinyproxy/1.11.1"), realm], Some(ProxyCredentials));
        check(401, &[("via", "1.1 vm (tinyproxy/1.11.1)"), ("server", "nginx"), realm], None);
        check(401, &[("www-authenticate", "Basic realm=\"site\"")], None);
        check(401, &[], None);
        check(401, &[("proxy-authenticate", "Basic")], Some(ProxyCredentials));
        check(403, &[("server", "tinyproxy/1.11.1")], Some(ProxyRefused));
        check(403, &[("x-squid-error", "ERR_ACCESS_DENIED 0"), ("via", "1.1 squid")], Some(ProxyRefused));
        check(403, &[("server", "nginx")], None);
        check(502, &[("proxy-status", "p; error=connection_refused")], Some(OriginUnreachable));
        check(502, &[("proxy-status", "p; fwd=miss")], None);
        check(503, &[], None);
    }
}
