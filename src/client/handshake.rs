//! Handshakes that open a tunnel through a proxy: `CONNECT` and SOCKS5.
//!
//! hyper-util has connectors for both. But their errors are private, or do not distinguish rejected
//! credentials from a rejected target, and a session needs to know which hop failed.

use std::{io, net::IpAddr};

use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{ClientError, ClientErrorKind};
use crate::profile::Credentials;

/// Limit for the head of a response to `CONNECT`, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Opens a tunnel through an HTTP proxy (RFC 9110, section 9.3.6).
pub(super) async fn connect<S>(
    stream: &mut S,
    host: &str,
    port: u16,
    authorization: Option<&HeaderValue>,
) -> Result<(), ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;

    let mut head = Vec::with_capacity(512);
    let end = loop {
        let seen = head.len().saturating_sub(3);
        if stream.read_buf(&mut head).await.map_err(failed)? == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(end) = head[seen..].windows(4).position(|window| window == b"\r\n\r\n") {
            break seen + end + 4;
        }
        if head.len() > MAX_HEAD {
            return Err(rejected("the response to CONNECT is too long"));
        }
    };
    let status = status(&head).ok_or_else(|| rejected("the response to CONNECT is not HTTP"))?;
    if !status.is_success() {
        return Err(ClientError::new(kind_of_status(status)).with_status(Some(status)));
    }
    // The origin speaks after the client, so these bytes are not from the origin.
    match head.len() - end {
        0 => Ok(()),
        _ => Err(rejected("the response to CONNECT has a body")),
    }
}

/// Returns the kind of error that a proxy reports with `status`.
pub(super) fn kind_of_status(status: StatusCode) -> ClientErrorKind {
    match status.as_u16() {
        // tinyproxy reports wrong credentials with 401, like an origin.
        401 | 407 => ClientErrorKind::ProxyCredentials,
        502..=504 => ClientErrorKind::OriginUnreachable,
        _ => ClientErrorKind::ProxyRefused,
    }
}

fn status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    match rest {
        [b'0' | b'1', b' ', status @ ..] if !status.get(3)?.is_ascii_digit() => {
            StatusCode::from_bytes(status.get(..3)?).ok()
        }
        _ => None,
    }
}

/// Opens a tunnel through a SOCKS5 proxy (RFC 1928 and 1929). The proxy resolves host names.
pub(super) async fn socks5<S>(
    stream: &mut S,
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> Result<(), ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const NO_AUTHENTICATION: u8 = 0;
    const PASSWORD: u8 = 2;
    // With credentials, no other method is offered: a proxy that ignored them could use the route
    // of another client.
    let method = if credentials.is_some() { PASSWORD } else { NO_AUTHENTICATION };
    send(stream, &[5, 1, method]).await?;
    match receive(stream).await? {
        [5, chosen] if chosen == method => {}
        [5, 0xff] => return Err(ClientError::new(ClientErrorKind::ProxyCredentials)),
        _ => return Err(rejected("the proxy chose a method that was not offered, or does not use SOCKS5")),
    }
    if let Some(credentials) = credentials {
        let (username, password) = (credentials.username().as_bytes(), credentials.password().as_bytes());
        let mut message = vec![1];
        for text in [username, password] {
            let length =
                u8::try_from(text.len()).map_err(|_| ClientError::new(ClientErrorKind::ProxyCredentials))?;
            message.push(length);
            message.extend_from_slice(text);
        }
        send(stream, &message).await?;
        if receive::<2>(stream).await?[1] != 0 {
            return Err(ClientError::new(ClientErrorKind::ProxyCredentials));
        }
    }

    let mut message = vec![5, 1, 0];
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            message.push(1);
            message.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            message.push(4);
            message.extend_from_slice(&address.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len()).map_err(|_| {
                ClientError::new(ClientErrorKind::BadUri).saying("the host is too long for SOCKS5")
            })?;
            message.extend_from_slice(&[3, length]);
            message.extend_from_slice(host.as_bytes());
        }
    }
    message.extend_from_slice(&port.to_be_bytes());
    send(stream, &message).await?;
    let [_, reply, _, address] = receive::<4>(stream).await?;
    let reply = match reply {
        0 => None,
        2 => Some((ClientErrorKind::ProxyRefused, "the rules of the proxy do not allow the connection")),
        3 => Some((ClientErrorKind::OriginUnreachable, "the proxy reports that the network is unreachable")),
        4 => Some((ClientErrorKind::OriginUnreachable, "the proxy reports that the host is unreachable")),
        5 => Some((ClientErrorKind::OriginUnreachable, "the proxy reports that the connection was refused")),
        6 => Some((ClientErrorKind::OriginUnreachable, "the proxy reports that the TTL expired")),
        7 | 8 => Some((
            ClientErrorKind::ProxyRefused,
            "the proxy does not support the command or the address type",
        )),
        _ => Some((ClientErrorKind::ProxyRefused, "the proxy gave no reason")),
    };
    if let Some((kind, detail)) = reply {
        return Err(ClientError::new(kind).saying(detail));
    }
    // The bound address is not used, but it must be read.
    let length = match address {
        1 => 4,
        4 => 16,
        3 => usize::from(receive::<1>(stream).await?[0]),
        _ => return Err(rejected("the reply is not SOCKS5")),
    };
    let mut rest = [0; 255 + 2];
    stream.read_exact(&mut rest[..length + 2]).await.map_err(failed)?;
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> Result<(), ClientError> {
    stream.write_all(message).await.map_err(failed)?;
    stream.flush().await.map_err(failed)
}

async fn receive<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], ClientError> {
    let mut message = [0; N];
    stream.read_exact(&mut message).await.map_err(failed)?;
    Ok(message)
}

fn rejected(detail: &'static str) -> ClientError {
    ClientError::new(ClientErrorKind::ProxyRefused).saying(detail)
}

fn failed(error: io::Error) -> ClientError {
    rejected("the connection failed during the handshake").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Proxy;

    /// Returns a stream from which `response` is read, in chunks, before it ends.
    async fn stream_of(response: &'static [u8], chunk: usize) -> tokio::io::DuplexStream {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            for part in response.chunks(chunk) {
                theirs.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            theirs.shutdown().await.unwrap();
            let _ = tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await;
        });
        ours
    }

    #[tokio::test]
    async fn responses_to_connect_are_classified() {
        use ClientErrorKind::*;
        for (response, expected) in [
            (&b"HTTP/1.1 200 Connection established\r\n\r\n"[..], None),
            (b"HTTP/1.0 204 \r\nVia: x\r\n\r\n", None),
            (b"HTTP/1.1 200\r\n\r\n", None),
            (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", Some(ProxyCredentials)),
            (b"HTTP/1.0 401 Unauthorized\r\nServer: tinyproxy\r\n\r\nbody", Some(ProxyCredentials)),
            (b"HTTP/1.1 403 No\r\n\r\n", Some(ProxyRefused)),
            (b"HTTP/1.1 302 Elsewhere\r\n\r\n", Some(ProxyRefused)),
            (b"HTTP/1.1 502 Bad\r\n\r\n", Some(OriginUnreachable)),
            (b"HTTP/1.1 200 OK\r\n\r\nearly", Some(ProxyRefused)),
            (b"HTTP/1.1 2000 OK\r\n\r\n", Some(ProxyRefused)),
            (b"HTTP/2 200\r\n\r\n", Some(ProxyRefused)),
            (b"\r\n\r\n", Some(ProxyRefused)),
            (b"HTTP/1.1 200 OK\r\n", Some(ProxyRefused)),
            (b"", Some(ProxyRefused)),
        ] {
            for chunk in [1, 1024] {
                // A body that arrives after the head cannot be seen yet.
                if chunk == 1 && response.ends_with(b"early") {
                    continue;
                }
                let mut stream = stream_of(response, chunk).await;
                let done = connect(&mut stream, "origin.example", 443, None).await;
                let text = String::from_utf8_lossy(response);
                assert_eq!(done.err().map(|error| error.kind()), expected, "{text:?} in chunks of {chunk}");
            }
        }
    }

    #[tokio::test]
    async fn a_response_to_connect_without_an_end_is_rejected() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move { while theirs.write_all(b"HTTP/1.1 200 OK\r\nx: y\r\n").await.is_ok() {} });
        let error = connect(&mut ours, "origin.example", 443, None).await.unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::ProxyRefused);
    }

    #[tokio::test]
    async fn socks5_replies_are_classified() {
        use ClientErrorKind::*;
        let proxy: Proxy = "socks5://u:p@proxy.example".parse().unwrap();
        let credentials = proxy.server().unwrap().credentials();
        for (response, expected) in [
            (&b"\x05\x02\x01\x00\x05\x00\x00\x01\0\0\0\0\0\0"[..], None),
            (b"\x05\x02\x01\x00\x05\x00\x00\x03\x02ab\0\0", None),
            (b"\x05\x02\x01\x00\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"\x05\x02\x01\x01", Some(ProxyCredentials)),
            (b"\x05\xff", Some(ProxyCredentials)),
            (b"\x05\x00", Some(ProxyRefused)),
            (b"HTTP/1.0 400 Bad Request\r\n", Some(ProxyRefused)),
            (b"\x05\x02\x01\x00\x05\x05\x00\x01", Some(OriginUnreachable)),
            (b"\x05\x02\x01\x00\x05\x02\x00\x01", Some(ProxyRefused)),
            (b"\x05\x02\x01\x00\x05\x00\x00\x09", Some(ProxyRefused)),
            (b"\x05\x02\x01\x00\x05\x00", Some(ProxyRefused)),
            (b"", Some(ProxyRefused)),
        ] {
            for chunk in [1, 1024] {
                let mut stream = stream_of(response, chunk).await;
                let done = socks5(&mut stream, "origin.example", 443, credentials).await;
                assert_eq!(
                    done.err().map(|error| error.kind()),
                    expected,
                    "{response:?} in chunks of {chunk}"
                );
            }
        }
    }
}
