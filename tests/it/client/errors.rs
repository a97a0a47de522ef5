//! Errors name the hop that failed, and nothing is sent without a proxy or an identity.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::Request;
use tokio::net::TcpListener;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, ProfileLayer, Renewal, RenewalLayer, SessionLayer, Sessions, client::ClientErrorKind,
    profile::Proxy,
};

use super::support::*;

#[tokio::test]
async fn a_request_without_identity_or_proxy_is_not_sent() {
    let origin = Origin::http().await;
    let plain = || Sessions::builder().build().unwrap();
    let closed = stack(&plain(), builder().build().unwrap());
    assert_eq!(error(get(&closed, "a", &origin.url("/")).await).kind(), ClientErrorKind::NoProxy);
    let mut bare = builder().build::<Body>().unwrap();
    let anonymous = Request::get(origin.url("/")).body(Body::new()).unwrap();
    assert_eq!(bare.call(anonymous.clone()).await.unwrap_err().kind(), ClientErrorKind::NoIdentity);
    assert_eq!(origin.seen().len(), 0);

    let open = stack(&plain(), builder().allow_direct().build().unwrap());
    good(get(&open, "a", &origin.url("/")).await);
    let mut bare = builder().allow_anonymous().build::<Body>().unwrap();
    assert_eq!(bare.call(anonymous.clone()).await.unwrap_err().kind(), ClientErrorKind::NoProxy);
    let mut direct = anonymous;
    direct.extensions_mut().insert(Proxy::direct());
    assert_eq!(bare.call(direct).await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_unsupported_uri_is_rejected() {
    let mut client = builder().allow_direct().allow_anonymous().build::<Body>().unwrap();
    for uri in ["/path", "ftp://origin.example/", &format!("http://u:{}@127.0.0.1/", "s3cret")] {
        let request = Request::get(uri).body(Body::new()).unwrap();
        let result = client.call(request).await.map_err(BoxError::from);
        assert_eq!(error(result).kind(), ClientErrorKind::BadUri, "{uri}");
    }
}

#[tokio::test]
async fn an_error_names_the_hop_that_failed() {
    let closed = free_port().await;
    let origin = Origin::https(&[]).await;
    let nowhere = format!("http://127.0.0.1:{closed}/");
    let direct = stack(&sessions([Proxy::direct()]), builder().build().unwrap());
    assert_eq!(error(get(&direct, "a", &nowhere).await).kind(), ClientErrorKind::OriginUnreachable);
    assert_eq!(error(get(&direct, "a", &origin.url("/")).await).kind(), ClientErrorKind::OriginTls);
    for scheme in ["http", "https", "socks5"] {
        let proxies = [proxy(scheme, closed, "u", SECRET)];
        let stack = stack(&sessions(proxies), builder().build().unwrap());
        for url in [&nowhere, &origin.url("/")] {
            let error = error(get(&stack, "a", url).await);
            assert_eq!(error.kind(), ClientErrorKind::ProxyUnreachable, "{scheme} {url}");
            assert!(error.is_proxy_error() && error.proxy().is_some());
        }
    }
    // A proxy whose certificate is not trusted.
    let tap = Tap::start(closed, true).await;
    let proxies = [proxy("https", origin.address.port(), "u", SECRET)];
    let tls = stack(&sessions(proxies), builder().build().unwrap());
    assert_eq!(error(get(&tls, "a", &nowhere).await).kind(), ClientErrorKind::ProxyTls);
    assert_eq!(origin.seen().len() + tap.sent().len(), 0);
}

#[tokio::test]
async fn a_profile_that_is_marked_bad_is_not_assigned_again() {
    let origin = Origin::http().await;
    let down = proxy("http", free_port().await, "u", SECRET);
    let sessions = sessions([down.clone(), Proxy::direct()]);
    let stack = stack(&sessions, builder().build().unwrap());
    for session in ["a", "b", "c", "d"] {
        let result = send(&stack, session, &origin.url("/")).await.map(|response| response.status());
        if session == "a" {
            assert!(error(result).is_proxy_error());
            let session = sessions.session("a");
            assert!(sessions.mark_profile_bad(&session.profile().unwrap()));
            session.clear();
            good(get(&stack, "a", &origin.url("/")).await);
        } else {
            assert_eq!(result.unwrap(), 200);
        }
    }
}

#[tokio::test]
async fn a_proxy_that_never_responds_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    for scheme in ["http", "https", "socks5"] {
        let client = builder().connect_timeout(Duration::from_millis(100)).build().unwrap();
        let stack = stack(&sessions([proxy(scheme, port, "u", SECRET)]), client);
        assert!(error(get(&stack, "a", "https://127.0.0.1/").await).is_proxy_error(), "{scheme}");
    }
}

#[tokio::test]
async fn a_rejection_by_the_proxy_is_an_error_and_starts_no_renewal() {
    let Some(running) = tinyproxy("alice").await else { return };
    let (http, https) = (Origin::http().await, Origin::https(&[]).await);
    let logins = Arc::new(AtomicUsize::new(0));
    for (user, password, status) in [("alice", SECRET, 401), ("", "", 407)] {
        let mut proxy_used = proxy("http", running.port, user, password);
        if user.is_empty() {
            proxy_used = format!("http://127.0.0.1:{}", running.port).parse().unwrap();
        }
        let sessions = sessions([proxy_used]);
        let counted = logins.clone();
        let stack = ServiceBuilder::new()
            .layer(RenewalLayer::new(&sessions).expired_when(Expired::status([401, 403, 407])).renew_with(
                move |_: Renewal<Body>| {
                    counted.fetch_add(1, SeqCst);
                    async { Ok(()) }
                },
            ))
            .layer(SessionLayer::new(&sessions))
            .layer(ProfileLayer::new())
            .service(builder().build::<Body>().unwrap());
        for url in [http.url("/"), https.url("/")] {
            let result = stack.clone().oneshot(request("a", &url)).await;
            let error = error(result.map(|response| response.status()));
            assert_eq!(error.kind(), ClientErrorKind::ProxyCredentials, "{url}");
            assert_eq!(error.proxy_status().map(|status| status.as_u16()), Some(status));
        }
        assert_eq!(sessions.stats().renewals_started, 0);
    }
    assert_eq!((logins.load(SeqCst), http.seen().len(), https.seen().len()), (0, 0, 0));

    // A 401 of the origin is returned as a response.
    let stack = stack(&sessions([proxy("http", running.port, "alice", "pass")]), builder().build().unwrap());
    assert_eq!(get(&stack, "a", &http.url("/401")).await.unwrap().0, 401);
    // An origin that the proxy cannot reach is an error.
    let nowhere = free_port().await;
    for scheme in ["http", "https"] {
        let error = error(get(&stack, "a", &format!("{scheme}://127.0.0.1:{nowhere}/")).await);
        assert_eq!(error.kind(), ClientErrorKind::ProxyRefused);
        assert_eq!(error.proxy_status().map(|status| status.as_u16()), Some(500));
    }
    // An untrusted certificate of the origin is an error behind a tunnel as well.
    assert_eq!(error(get(&stack, "a", &https.url("/")).await).kind(), ClientErrorKind::OriginTls);
}
