//! The limits of connections and identities.

use std::time::Duration;

use http_body_util::BodyExt;
use tower_client_sessions::{Profile, Profiles, Sessions, profile::Proxy};

use super::support::*;

#[tokio::test]
async fn an_evicted_identity_finishes_its_response() {
    let origin = Origin::http().await;
    let client = builder().max_connections(1).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    let slow = send(&stack, "a", &origin.url("/slow")).await.unwrap();
    good(get(&stack, "b", &origin.url("/b")).await);
    assert_eq!(client.identities(), 1, "a was evicted");
    origin.shared.second_halves.add_permits(1);
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "first last");
    for connection in origin.connections("/slow") {
        origin.until_closed(connection).await;
    }
    until(|| client.connections() == 1).await;
    // An evicted identity can send again.
    good(get(&stack, "a", &origin.url("/a")).await);
}

#[tokio::test]
async fn one_identity_with_many_hosts_stays_within_max_connections() {
    let client = builder().max_connections(2).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    let mut origins = Vec::new();
    for _ in 0..8 {
        let origin = Origin::http().await;
        good(get(&stack, "a", &origin.url("/")).await);
        origins.push(origin);
    }
    until(|| client.connections() <= 3).await;
    assert_eq!(client.identities(), 1);
}

#[tokio::test]
async fn idle_connections_close_after_the_idle_timeout() {
    let origin = Origin::http().await;
    let client = builder().idle_timeout(Duration::from_millis(100)).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    good(get(&stack, "a", &origin.url("/")).await);
    assert_eq!(client.connections(), 1);
    until(|| client.connections() == 0).await;
    origin.until_closed(0).await;
}

#[tokio::test]
async fn no_more_than_max_identities_are_kept() {
    let origin = Origin::http().await;
    let client = builder().max_identities(2).build().unwrap();
    let stack = stack(&sessions([Proxy::direct()]), client.clone());
    for session in ["a", "b", "c"] {
        good(get(&stack, session, &origin.url("/")).await);
    }
    assert_eq!(client.identities(), 2);
    origin.until_closed(0).await;
}

#[tokio::test]
async fn dropped_identities_are_removed_from_the_cache() {
    let origin = Origin::http().await;
    let client = builder().build().unwrap();
    let profile = Profile::builder().proxy(Proxy::direct()).build().unwrap();
    let sessions =
        Sessions::builder().profiles(Profiles::new([profile]).unwrap()).max_sessions(10).build().unwrap();
    let stack = stack(&sessions, client.clone());
    for number in 0..1100 {
        good(get(&stack, &format!("s{number}"), &origin.url("/")).await);
    }
    assert!(client.identities() < 200, "{}", client.identities());
}
