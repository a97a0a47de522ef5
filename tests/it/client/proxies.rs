//! Proxies: what they receive, with real proxies where they are installed.

use std::{collections::HashSet, time::Duration};

use http::Version;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tower::ServiceExt;
use tower_client_sessions::{
    client::ClientErrorKind,
    profile::{Proxy, ProxyScheme},
};

use super::support::*;

const AUTHORIZATION: &str = "Basic YWxpY2U6cGFzcw==";

/// The lines of a head, in lower case.
fn lines(head: &str) -> Vec<String> {
    head.split("\r\n").map(str::to_ascii_lowercase).collect()
}

fn has_authorization(head: &str) -> bool {
    lines(head).contains(&format!("proxy-authorization: {AUTHORIZATION}").to_ascii_lowercase())
}

#[tokio::test]
async fn an_http_proxy_forwards_http_requests() {
    let Some(running) = tinyproxy("alice").await else { return };
    let (origin, tap) = (Origin::http().await, Tap::before(running.port).await);
    let stack = stack(&sessions([proxy("http", tap.port, "alice", "pass")]), builder().build().unwrap());
    let mut request = request("a", &origin.url("/page?x=1"));
    // A header of the caller is removed.
    request.headers_mut().insert("proxy-authorization", "Basic Zm9yZ2VkOg==".parse().unwrap());
    let response = stack.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["via"].to_str().unwrap().contains("tinyproxy"));
    let head = tap.heads().remove(0);
    assert!(head.starts_with(&format!("GET {} HTTP/1.1\r\n", origin.url("/page?x=1"))), "{head}");
    assert!(has_authorization(&head) && !head.contains("Zm9yZ2VkOg"), "{head}");
    let seen = origin.seen().remove(0);
    assert_eq!((seen.uri.as_str(), seen.headers.get("proxy-authorization")), ("/page?x=1", None));
    assert_eq!(seen.headers["host"], origin.address.to_string());

    // curl sends the same.
    let proxy_url = format!("http://alice:pass@127.0.0.1:{}", tap.port);
    let Some(control) = curl(&["-x", &proxy_url, &origin.url("/page?x=1")]).await else { return };
    assert_eq!(control, "200 000");
    let of_curl = tap.heads().remove(1);
    assert_eq!(lines(&of_curl)[0], lines(&head)[0]);
    assert!(has_authorization(&of_curl));
}

#[tokio::test]
async fn an_http_proxy_tunnels_https_requests() {
    let Some(running) = tinyproxy("alice").await else { return };
    let (origin, tap) = (Origin::https(&["h2", "http/1.1"]).await, Tap::before(running.port).await);
    let client = builder().add_root_certificates([origin.certificate.clone()]).build().unwrap();
    let stack = stack(&sessions([proxy("http", tap.port, "alice", "pass")]), client);
    let mut request = request("a", &origin.url("/page"));
    request.headers_mut().insert("proxy-authorization", "Basic Zm9yZ2VkOg==".parse().unwrap());
    assert_eq!(stack.clone().oneshot(request).await.unwrap().status(), 200);
    let head = tap.heads().remove(0);
    assert!(head.starts_with(&format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n", origin.address)), "{head}");
    assert!(has_authorization(&head));
    let seen = origin.seen().remove(0);
    assert_eq!((seen.version, seen.headers.get("proxy-authorization")), (Version::HTTP_2, None));

    let proxy_url = format!("http://alice:pass@127.0.0.1:{}", tap.port);
    let Some(control) = curl(&["-x", &proxy_url, &origin.url("/page")]).await else { return };
    assert_eq!(control, "200 200");
    let of_curl = tap.heads().remove(1);
    assert_eq!(lines(&of_curl)[..2], lines(&head)[..2]);
    assert!(has_authorization(&of_curl));
}

#[tokio::test]
async fn a_socks5_proxy_tunnels_and_resolves_names() {
    let Some(running) = microsocks("alice").await else { return };
    let (http, https) = (Origin::http().await, Origin::https(&["h2"]).await);
    let tap = Tap::before(running.port).await;
    let client = builder().add_root_certificates([https.certificate.clone()]).build().unwrap();
    let stack = stack(&sessions([proxy("socks5", tap.port, "alice", SECRET)]), client);
    let by_name = |origin: &Origin| origin.url("/page").replace("127.0.0.1", "localhost");
    good(get(&stack, "a", &by_name(&http)).await);
    good(get(&stack, "a", &by_name(&https)).await);
    good(get(&stack, "a", &http.url("/by-address")).await);
    for (sent, port) in tap.sent().iter().zip([http.address.port(), https.address.port()]) {
        let mut expected = vec![5, 1, 2, 1, 5];
        expected.extend_from_slice(b"alice");
        expected.push(SECRET.len() as u8);
        expected.extend_from_slice(SECRET.as_bytes());
        // A name (type 3), not an address.
        expected.extend_from_slice(&[5, 1, 0, 3, 9]);
        expected.extend_from_slice(b"localhost");
        expected.extend_from_slice(&port.to_be_bytes());
        assert!(sent.starts_with(&expected));
    }
    assert_eq!(http.seen()[0].uri, "/page");
    assert_eq!(https.seen()[0].version, Version::HTTP_2);

    let proxy_url = format!("socks5h://127.0.0.1:{}", tap.port);
    let credentials = format!("alice:{SECRET}");
    let control = curl(&["-x", &proxy_url, "-U", &credentials, &by_name(&http)]).await;
    assert!(control.is_none_or(|control| control == "200 000"));

    let wrong = sessions([proxy("socks5", running.port, "bob", SECRET)]);
    let wrong = self::stack(&wrong, builder().build().unwrap());
    assert_eq!(error(get(&wrong, "a", &http.url("/")).await).kind(), ClientErrorKind::ProxyCredentials);
    let none: Proxy = format!("socks5://127.0.0.1:{}", running.port).parse().unwrap();
    let none = self::stack(&sessions([none]), builder().build().unwrap());
    assert_eq!(error(get(&none, "a", &http.url("/")).await).kind(), ClientErrorKind::ProxyCredentials);
    let nowhere = format!("http://127.0.0.1:{}/", free_port().await);
    assert_eq!(error(get(&stack, "a", &nowhere).await).kind(), ClientErrorKind::OriginUnreachable);
}

#[tokio::test]
async fn a_name_that_only_the_proxy_knows_is_not_resolved_by_the_client() {
    let origin = Origin::https(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (listener.local_addr().unwrap().port(), origin.address);
    // A SOCKS5 proxy that resolves every name to the origin.
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 300];
                client.read_exact(&mut buffer[..3]).await?;
                client.write_all(&[5, 0]).await?;
                client.read_exact(&mut buffer[..5]).await?;
                let length = usize::from(buffer[4]);
                client.read_exact(&mut buffer[..length + 2]).await?;
                client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
                let mut server = TcpStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let client = builder().add_root_certificates([origin.certificate.clone()]).build().unwrap();
    let proxy: Proxy = format!("socks5://127.0.0.1:{port}").parse().unwrap();
    assert_eq!(proxy.server().unwrap().scheme(), ProxyScheme::Socks5);
    let stack = stack(&sessions([proxy]), client);
    good(get(&stack, "a", "https://origin.invalid/").await);
    assert_eq!(origin.seen()[0].headers["host"], "origin.invalid");
}

#[tokio::test]
async fn the_connection_to_a_proxy_can_use_tls() {
    let Some(running) = tinyproxy("alice").await else { return };
    let tap = Tap::start(running.port, true).await;
    let (http, https) = (Origin::http().await, Origin::https(&["h2"]).await);
    let roots = [tap.certificate.clone(), https.certificate.clone()];
    let client = builder().add_root_certificates(roots).build().unwrap();
    let stack = stack(&sessions([proxy("https", tap.port, "alice", "pass")]), client);
    good(get(&stack, "a", &http.url("/")).await);
    good(get(&stack, "a", &https.url("/")).await);
    let heads = tap.heads();
    assert!(
        heads[0].starts_with(&format!("GET {} HTTP/1.1\r\n", http.url("/"))) && has_authorization(&heads[0])
    );
    assert!(heads[1].starts_with(&format!("CONNECT {} ", https.address)) && has_authorization(&heads[1]));
    assert_eq!(https.seen()[0].version, Version::HTTP_2, "the ALPN of the origin, not of the proxy");
}

#[tokio::test]
async fn each_session_uses_its_own_proxy_before_and_after_a_renewal() {
    let (Some(first), Some(second)) = (tinyproxy("alice").await, tinyproxy("bob").await) else { return };
    let origin = Origin::http().await;
    let taps = [Tap::before(first.port).await, Tap::before(second.port).await];
    let proxies =
        [("alice", &taps[0]), ("bob", &taps[1])].map(|(user, tap)| proxy("http", tap.port, user, "pass"));
    let sessions = sessions(proxies);
    let stack = stack(&sessions, builder().build().unwrap());
    for round in 0..2 {
        for session in ["a", "b"] {
            good(get(&stack, session, &origin.url(&format!("/{session}{round}"))).await);
            good(get(&stack, session, &origin.url(&format!("/{session}{round}"))).await);
        }
        for session in ["a", "b"] {
            sessions.session(session).clear();
        }
    }
    let paths = |tap: &Tap| -> Vec<String> {
        let heads = tap.heads().concat();
        let gets = heads.split("GET ").skip(1);
        gets.map(|rest| rest.split_once(' ').unwrap().0.rsplit_once('/').unwrap().1.to_owned()).collect()
    };
    // After the renewal, each session has the profile that the other one had.
    let swapped = |tap: &Tap| paths(tap).into_iter().collect::<HashSet<_>>();
    let (of_first, of_second) = (swapped(&taps[0]), swapped(&taps[1]));
    assert!(of_first.is_disjoint(&of_second), "{of_first:?} {of_second:?}");
    assert!(of_first.contains("a0") && of_second.contains("b0"));
    assert!(of_second.contains("a1") && of_first.contains("b1"), "{of_first:?} {of_second:?}");
}

#[tokio::test]
async fn proxy_username_names_the_identity_to_the_proxy() {
    let tap_end = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tap = Tap::before(tap_end.local_addr().unwrap().port()).await;
    let sessions = sessions([proxy("http", tap.port, "alice", "pass")]);
    let client =
        builder().connect_timeout(Duration::from_millis(200)).proxy_username(|username, identity| {
            format!("{username}-{}-{}", identity.session_id(), identity.generation())
        });
    let stack = stack(&sessions, client.build().unwrap());
    // No response arrives; the request that was sent is enough.
    let send_unanswered = async |session: &str, url: &str| {
        let _ = timeout(Duration::from_millis(300), send(&stack, session, url)).await;
    };
    send_unanswered("a", "http://origin.invalid/").await;
    send_unanswered("a", "https://origin.invalid/").await;
    sessions.session("a").clear();
    send_unanswered("a", "https://origin.invalid/").await;
    send_unanswered("b", "https://origin.invalid/").await;
    assert_eq!(error(send(&stack, "a:b", "http://origin.invalid/").await).kind(), ClientErrorKind::Config);
    let heads = tap.heads();
    // `alice-a-1:pass`, and so on.
    let generation = sessions.session("a").generation().unwrap();
    let expected =
        [String::from("alice-a-1:pass"), format!("alice-a-{generation}:pass"), "alice-b-1:pass".into()];
    let [first, renewed, other] = expected.map(|text| format!("Basic {}", base64(text.as_bytes())));
    for (head, expected) in heads.iter().zip([&first, &first, &renewed, &other]) {
        assert!(head.contains(expected.as_str()), "{head}");
    }
    assert_eq!(heads.len(), 4);
}

#[tokio::test]
async fn no_request_is_lost_if_a_proxy_closes_without_announcing_it() {
    let Some(running) = tinyproxy("alice").await else { return };
    let origin = Origin::http().await;
    let stack = stack(&sessions([proxy("http", running.port, "alice", "pass")]), builder().build().unwrap());
    for _ in 0..200 {
        good(get(&stack, "a", &origin.url("/")).await);
    }
}
