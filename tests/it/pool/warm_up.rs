//! Warm-ups, and pools that become unavailable because of failed ones.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_member_is_warmed_up_before_it_serves() {
    let (sessions, pool, server) = world(|pool| pool.size(2).exclusive());
    let server = server.block_logins();
    let client = renewing(&pool, &sessions, &server);
    let mut request = task::spawn(get(&client));
    assert_pending!(request.poll());
    settle().await;
    assert_eq!(server.state().logins, ["pool-1"]);
    assert!(server.pages().is_empty());
    assert_eq!(pool.snapshot().members[0].state, MemberState::Warming);
    server.end_logins(2);
    request.await.unwrap();
    let cookies = sessions.session("pool-1").cookies();
    assert_eq!(cookies[0].name(), Some("sid"));
    assert_eq!(sessions.session("pool-1").stats().renewals_committed, 1, "one login was enough");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_request_does_not_cancel_the_warm_up() {
    let (sessions, pool, server) = world(|pool| pool.size(1));
    let server = server.block_logins();
    let client = renewing(&pool, &sessions, &server);
    let mut request = task::spawn(get(&client));
    assert_pending!(request.poll());
    settle().await;
    drop(request);
    server.end_logins(1);
    settle().await;
    assert_eq!(pool.snapshot().members[0].state, MemberState::Serving);
    assert_ready!(task::spawn(get(&client)).poll()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn too_many_failed_warm_ups_make_the_pool_unavailable_until_one_succeeds() {
    let (sessions, pool, server) = world(|pool| pool.size(2).max_failed_warm_ups(3));
    let client = renewing(&pool, &sessions, &server);
    server.state().login_results.extend([false; 4]);
    let error = get(&client).await.unwrap_err();
    let error = error.downcast_ref::<PoolError>().unwrap();
    assert_eq!(error.kind(), PoolErrorKind::Unavailable);
    let cause = std::error::Error::source(error).unwrap();
    let cause = cause.downcast_ref::<tower_client_sessions::gate::RenewalError>().unwrap();
    assert_eq!(cause.kind(), RenewalErrorKind::Failed);
    assert_eq!(pool.unavailable().unwrap().kind(), RenewalErrorKind::Failed);
    assert!(pool.snapshot().to_string().contains("unavailable: the session could not be renewed"));
    settle().await;
    let logins = server.state().logins.len();
    assert!((3..=4).contains(&logins), "{logins}");

    // No warm-up starts before the backoff ends.
    assert_eq!(kind(assert_ready!(task::spawn(get(&client)).poll())), PoolErrorKind::Unavailable);
    settle().await;
    assert_eq!(server.state().logins.len(), logins);

    server.state().login_results.clear();
    server.state().login_results.push_back(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(kind(get(&client).await), PoolErrorKind::Unavailable);
    assert_eq!(server.state().logins.len(), logins + 1, "one warm-up was started");
    tokio::time::sleep(Duration::from_secs(5)).await;
    get(&client).await.unwrap();
    assert!(pool.unavailable().is_none());
    assert!(sessions.len() <= 2, "sessions that could not be warmed up are removed");
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_pool_serves_with_its_working_members() {
    let (sessions, pool, server) = world(|pool| pool.size(2).exclusive().max_failed_warm_ups(2));
    let client = renewing(&pool, &sessions, &server);
    let lease = get(&client).await.unwrap();
    settle().await;
    server.state().login_results.extend([false; 50]);
    let mut waiting = task::spawn(get(&client));
    assert_pending!(waiting.poll());
    settle().await;
    assert_pending!(waiting.poll());
    assert!(pool.unavailable().is_some());
    drop(lease);
    assert_ready!(waiting.poll()).unwrap();
}

#[test]
fn a_warm_up_lost_with_its_runtime_is_repeated_on_another() {
    let (sessions, pool, server) = world(|pool| pool.size(1));
    let server = server.block_logins();
    let client = renewing(&pool, &sessions, &server);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    first.block_on(async {
        let mut request = task::spawn(get(&client));
        assert_pending!(request.poll());
        settle().await;
    });
    drop(first);
    server.end_logins(10);
    runtime().block_on(async { get(&client).await.unwrap() });
    assert!(pool.unavailable().is_none());
}
