//! How a proxy is asked for a tunnel: `CONNECT` and SOCKS5.
//!
//! hyper-util has connectors for both. Their errors cannot be named from outside or do not tell a refusal of the credentials from
//! one of the target, and which hop failed is what a session needs to know. Both handshakes are short, so they are here.

use std::{io, net::IpAddr};

use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{ClientError, ClientErrorKind};
use crate::profile::Credentials;

/// The head of an answer to `CONNECT` may not be longer.
const MAX_HEAD: usize = 16 * 1024;

/// Asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6).
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
    stream.write_all(&request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;

    let mut head = Vec::with_capacity(512);
    let end = loop {
        let seen = head.len().saturating_sub(3);
        if stream.read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(end) = head[seen..].windows(4).position(|window| window == b"\r\n\r\n") {
            break seen + end + 4;
        }
        if head.len() > MAX_HEAD {
            return Err(refused("its answer to CONNECT is too long"));
        }
    };
    let status = status(&head).ok_or_else(|| refused("its answer to CONNECT is not HTTP"))?;
    if !status.is_success() {
        return Err(ClientError::new(kind_of_refusal(status)).with_status(Some(status)));
    }
    // The origin's first word comes after ours, so whatever is here already is not from it.
    match head.len() - end {
        0 => Ok(()),
        _ => Err(refused("its answer to CONNECT has a body")),
    }
}

/// What a proxy means by answering with `status` itself.
pub(super) fn kind_of_refusal(status: StatusCode) -> ClientErrorKind {
    match status.as_u16() {
        // tinyproxy answers wrong credentials with 401, as if it were the origin.
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

/// Asks a SOCKS5 proxy for a tunnel (RFC 1928 and 1929). Names go to the proxy as they are: nothing is resolved here.
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
    // Whoever has credentials offers nothing else: a proxy that ignored them would not know whose way out is meant.
    let method = if credentials.is_some() { PASSWORD } else { NO_AUTHENTICATION };
    send(stream, &[5, 1, method]).await?;
    match receive(stream).await? {
        [5, chosen] if chosen == method => {}
        [5, 0xff] => return Err(ClientError::new(ClientErrorKind::ProxyCredentials)),
        _ => return Err(refused("it does not speak SOCKS5 as it was asked to")),
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
                ClientError::new(ClientErrorKind::BadUri).saying("its host is too long for SOCKS5")
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
        2 => Some((ClientErrorKind::ProxyRefused, "its rules do not allow it")),
        3 => Some((ClientErrorKind::OriginUnreachable, "the proxy says that the network is unreachable")),
        4 => Some((ClientErrorKind::OriginUnreachable, "the proxy says that the host is unreachable")),
        5 => Some((ClientErrorKind::OriginUnreachable, "the proxy says that the connection was refused")),
        6 => Some((ClientErrorKind::OriginUnreachable, "the proxy says that the way is too long")),
        7 | 8 => Some((ClientErrorKind::ProxyRefused, "it does not support what it was asked for")),
        _ => Some((ClientErrorKind::ProxyRefused, "it gives no reason")),
    };
    if let Some((kind, detail)) = reply {
        return Err(ClientError::new(kind).saying(detail));
    }
    // The address that the proxy uses is of no use here, but it has to be read.
    let length = match address {
        1 => 4,
        4 => 16,
        3 => usize::from(receive::<1>(stream).await?[0]),
        _ => return Err(refused("its answer is not SOCKS5")),
    };
    let mut rest = [0; 255 + 2];
    stream.read_exact(&mut rest[..length + 2]).await.map_err(broken)?;
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> Result<(), ClientError> {
    stream.write_all(message).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

async fn receive<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], ClientError> {
    let mut message = [0; N];
    stream.read_exact(&mut message).await.map_err(broken)?;
    Ok(message)
}

fn refused(detail: &'static str) -> ClientError {
    ClientError::new(ClientErrorKind::ProxyRefused).saying(detail)
}

fn broken(error: io::Error) -> ClientError {
    refused("it broke off while it was asked for a tunnel").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Proxy;

    /// A stream that answers with `answer` and then ends; gives back what was written as well.
    async fn told(answer: &'static [u8], chunk: usize) -> tokio::io::DuplexStream {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            for part in answer.chunks(chunk) {
                theirs.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            theirs.shutdown().await.unwrap();
            let _ = tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await;
        });
        ours
    }

    #[tokio::test]
    async fn answers_to_connect() {
        use ClientErrorKind::*;
        for (answer, expected) in [
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
                // Of a body that trickles in nothing can be known when the head is there.
                if chunk == 1 && answer.ends_with(b"early") {
                    continue;
                }
                let mut stream = told(answer, chunk).await;
                let done = connect(&mut stream, "origin.example", 443, None).await;
                let text = String::from_utf8_lossy(answer);
                assert_eq!(done.err().map(|error| error.kind()), expected, "{text:?} by {chunk}");
            }
        }
    }

    #[tokio::test]
    async fn a_head_without_an_end_is_given_up() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move { while theirs.write_all(b"HTTP/1.1 200 OK\r\nx: y\r\n").await.is_ok() {} });
        let error = connect(&mut ours, "origin.example", 443, None).await.unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::ProxyRefused);
    }

    #[tokio::test]
    async fn answers_of_socks() {
        use ClientErrorKind::*;
        let proxy: Proxy = "socks5://u:p@proxy.example".parse().unwrap();
        let credentials = proxy.server().unwrap().credentials();
        for (answer, expected) in [
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
                let mut stream = told(answer, chunk).await;
                let done = socks5(&mut stream, "origin.example", 443, credentials).await;
                assert_eq!(done.err().map(|error| error.kind()), expected, "{answer:?} by {chunk}");
            }
        }
    }
}
