//! TLS: sessions, root certificates, configurations and HTTP/2.

use std::{sync::Arc, time::Duration};

use http::Version;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, crypto::ring, pki_types::CertificateDer};
use tower_client_sessions::{client::ClientErrorKind, profile::Proxy};

use super::support::*;

#[tokio::test]
async fn tls_sessions_are_resumed_within_one_identity_only() {
    let origin = Origin::https(&["http/1.1"]).await;
    let client = builder()
        .add_root_certificates([origin.certificate.clone()])
        .idle_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let sessions = sessions([Proxy::direct()]);
    let stack = stack(&sessions, client.clone());
    for round in 0..2 {
        for session in ["a", "b"] {
            good(get(&stack, session, &origin.url(&format!("/{session}{round}"))).await);
        }
        until(|| client.connections() == 0).await;
    }
    sessions.session("a").clear();
    good(get(&stack, "a", &origin.url("/renewed")).await);
    let handshakes: Vec<_> =
        origin.seen().iter().map(|seen| (seen.uri.clone(), seen.handshake.unwrap())).collect();
    use HandshakeKind::{Full, Resumed};
    let expected = [("/a0", Full), ("/b0", Full), ("/a1", Resumed), ("/b1", Resumed), ("/renewed", Full)];
    assert_eq!(handshakes, expected.map(|(path, kind)| (path.to_owned(), kind)));
}

/// Runs itself in another process, because the trusted certificates are read from the environment.
#[tokio::test]
async fn native_roots_are_trusted_only_if_enabled() {
    const URL: &str = "SESSIONS_TEST_URL";
    if let Ok(url) = std::env::var(URL) {
        for (builder, trusted) in [(builder().native_roots(), true), (builder(), false)] {
            let stack = stack(&sessions([Proxy::direct()]), builder.build().unwrap());
            match trusted {
                true => good(get(&stack, "a", &url).await),
                false => assert_eq!(error(get(&stack, "a", &url).await).kind(), ClientErrorKind::OriginTls),
            }
        }
        return;
    }
    let origin = Origin::https(&["h2"]).await;
    let file =
        std::env::temp_dir().join(format!("roots-{}-{}.pem", std::process::id(), origin.address.port()));
    let run = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut test = tokio::process::Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "client::tls::native_roots_are_trusted_only_if_enabled"]);
        test.env(URL, origin.url("/")).env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
        let output = test.output().await.unwrap();
        std::fs::remove_file(&file).unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let certificate = base64(&origin.certificate);
    let (passed, output) =
        run(&format!("-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n")).await;
    assert!(passed && output.contains("1 passed"), "{output}");
    assert_eq!(origin.seen().len(), 1);
    // Without roots of the operating system, Mozilla's are not trusted either.
    let (passed, output) = run("").await;
    assert!(!passed && output.contains("the root certificates of the operating system"), "{output}");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_custom_tls_configuration_is_separate_per_identity() {
    let origin = Origin::https(&["h2", "http/1.1"]).await;
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(origin.certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = builder().tls_config(config.clone()).http1_only().idle_timeout(Duration::from_millis(20));
    let client = client.build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    for session in ["a", "b", "a"] {
        good(get(&stack, session, &origin.url("/")).await);
        until(|| client.connections() == 0).await;
    }
    let handshakes: Vec<_> = origin.seen().iter().map(|seen| seen.handshake.unwrap()).collect();
    assert_eq!(handshakes, [HandshakeKind::Full, HandshakeKind::Full, HandshakeKind::Resumed]);

    let configured = || builder().tls_config(config.clone());
    for both in
        [configured().native_roots(), configured().add_root_certificates([origin.certificate.clone()])]
    {
        assert_eq!(both.build::<Body>().unwrap_err().kind(), ClientErrorKind::Config);
    }
    let wrong = builder().add_root_certificates([CertificateDer::from(vec![1, 2, 3])]).build::<Body>();
    assert_eq!(wrong.unwrap_err().kind(), ClientErrorKind::Config);
}

#[tokio::test]
async fn http2_is_used_if_client_and_origin_allow_it() {
    let origin = Origin::https(&["h2", "http/1.1"]).await;
    let both = builder().add_root_certificates([origin.certificate.clone()]);
    for (client, path) in [(both.clone(), "/h2"), (both.http1_only(), "/h1")] {
        let client = client.build().unwrap();
        let stack = stack(&sessions([Proxy::direct()]), client.clone());
        for session in ["a", "b"] {
            let mut tasks = tokio::task::JoinSet::new();
            good(get(&stack, session, &origin.url(path)).await);
            for _ in 0..10 {
                let (stack, url) = (stack.clone(), origin.url(path));
                tasks.spawn(async move { good(get(&stack, session, &url).await) });
            }
            tasks.join_all().await;
        }
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| (seen.version == Version::HTTP_2) == (seen.uri.ends_with("/h2"))));
    assert_eq!(origin.connections("/h2").len(), 2, "one connection per session");
}
