//! Identities share no connections, also after renewals.

use std::{collections::HashSet, net::IpAddr};

use http::Request;
use http_body_util::BodyExt;
use tower::{BoxError, ServiceBuilder, util::BoxCloneSyncService};
use tower_client_sessions::{
    Profile, ProfileLayer, Profiles, Renewal, RenewalLayer, SessionLayer, Sessions, profile::Proxy,
};

use super::support::*;

#[tokio::test]
async fn each_session_keeps_its_own_connection() {
    let origin = Origin::http().await;
    let client = builder().build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    for _ in 0..5 {
        for session in ["a", "b", "c"] {
            good(get(&stack, session, &origin.url(&format!("/{session}"))).await);
        }
    }
    let connections = ["/a", "/b", "/c"].map(|path| origin.connections(path));
    assert!(connections.iter().all(|own| own.len() == 1), "{connections:?}");
    assert_eq!(connections.iter().flatten().collect::<HashSet<_>>().len(), 3);
    assert_eq!((client.identities(), client.connections()), (3, 3));
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.headers["user-agent"] == "test/1.0" && seen.uri.starts_with('/')));
}

#[tokio::test]
async fn concurrent_requests_of_different_sessions_never_share_a_connection() {
    let origin = Origin::http().await;
    let client = builder().max_connections(6).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (stack, session) = (stack.clone(), format!("s{}", number % 10));
        let url = origin.url(&format!("/{session}"));
        tasks.spawn(async move { good(get(&stack, &session, &url).await) });
    }
    tasks.join_all().await;
    let mut all = HashSet::new();
    for number in 0..10 {
        for connection in origin.connections(&format!("/s{number}")) {
            assert!(all.insert(connection), "two sessions share a connection");
        }
    }
    until(|| client.connections() <= 6).await;
}

#[tokio::test]
async fn a_renewed_session_opens_new_connections_and_the_old_ones_drain() {
    let origin = Origin::http().await;
    let client = builder().build().unwrap();
    let sessions = sessions([Proxy::direct()]);
    let stack = stack(&sessions, client.clone());
    good(get(&stack, "a", &origin.url("/idle")).await);
    let slow = send(&stack, "a", &origin.url("/slow")).await.unwrap();
    let busy = *origin.connections("/slow").iter().next().unwrap();
    assert_eq!(origin.connections("/idle"), [busy].into());
    let other = send(&stack, "a", &origin.url("/slow2")).await.unwrap();
    let spare = *origin.connections("/slow2").iter().next().unwrap();
    origin.shared.second_halves.add_permits(1);
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "first last");

    sessions.session("a").clear();
    good(get(&stack, "a", &origin.url("/after")).await);
    let after = origin.connections("/after");
    assert!(!after.contains(&busy) && !after.contains(&spare));
    origin.until_closed(busy).await;
    assert!(!origin.shared.closed.lock().unwrap().contains(&spare), "the body is not complete");
    origin.shared.second_halves.add_permits(1);
    assert_eq!(other.into_body().collect().await.unwrap().to_bytes(), "first last");
    origin.until_closed(spare).await;
    until(|| (client.identities(), client.connections()) == (1, 1)).await;
}

async fn log_in(renewal: Renewal<Body>, url: String) -> Result<(), BoxError> {
    let response = renewal.send(Request::get(url).body(Body::new())?).await?;
    response.into_body().bytes(100).await?;
    Ok(())
}

#[tokio::test]
async fn a_login_and_the_pages_after_it_share_a_connection_until_the_next_login() {
    for origin in [Origin::http().await, Origin::https(&["http/1.1"]).await, Origin::https(&["h2"]).await] {
        let client = builder().add_root_certificates([origin.certificate.clone()]).build::<Body>().unwrap();
        let direct = Profile::builder().proxy(Proxy::direct()).build().unwrap();
        let sessions =
            Sessions::builder().profiles(Profiles::new([direct]).unwrap()).login_first().build().unwrap();
        let login = origin.url("/login");
        let stack = ServiceBuilder::new()
            .layer(RenewalLayer::new(&sessions).renew_with(move |renewal| log_in(renewal, login.clone())))
            .layer(SessionLayer::new(&sessions))
            .layer(ProfileLayer::new())
            .service(client.clone());
        let stack = BoxCloneSyncService::new(stack);
        for _ in 0..2 {
            for _ in 0..2 {
                good(get(&stack, "a", &origin.url("/page")).await);
            }
            sessions.session("a").clear();
        }
        let seen: Vec<_> = origin.seen().into_iter().map(|seen| (seen.uri, seen.connection)).collect();
        let paths: Vec<_> = seen.iter().map(|(uri, _)| uri.rsplit('/').next().unwrap()).collect();
        assert_eq!(paths, ["login", "page", "page", "login", "page", "page"]);
        assert_eq!(seen.iter().map(|(_, connection)| *connection).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    }
}

#[tokio::test]
async fn connections_use_the_local_address_of_the_profile() {
    let origin = Origin::http().await;
    let profiles = ["127.0.0.2", "127.0.0.3"].map(|address| {
        let address: IpAddr = address.parse().unwrap();
        Profile::builder().proxy(Proxy::direct()).local_address(address).build().unwrap()
    });
    let sessions = Sessions::builder().profiles(Profiles::new(profiles).unwrap()).build().unwrap();
    let stack = stack(&sessions, builder().build().unwrap());
    for session in ["a", "b"] {
        good(get(&stack, session, &origin.url("/")).await);
    }
    let peers: Vec<_> = origin.seen().iter().map(|seen| seen.peer.to_string()).collect();
    assert_eq!(peers, ["127.0.0.2", "127.0.0.3"]);
}
