//! Members whose sessions are renewed.

use super::*;

#[tokio::test(start_paused = true)]
async fn members_under_renewal_are_skipped_unless_all_are() {
    let (sessions, pool, server) = world(|pool| pool.size(2).strategy(Strategy::LeastLoaded));
    let client = renewing(&pool, &sessions, &server);
    let lease = [get(&client).await.unwrap(), get(&client).await.unwrap()];
    settle().await;
    drop(lease);
    assert_eq!(pool.members().len(), 2);
    let server = server.block_logins();
    // No request renews a cleared session here; the pool does while the other member serves.
    sessions.session("pool-1").clear();
    for _ in 0..6 {
        let response = assert_ready!(task::spawn(get(&client)).poll()).unwrap();
        assert_eq!(read_now(response), "pool-2");
    }
    settle().await;
    assert_eq!(pool.snapshot().members[0].state, MemberState::Renewing);
    sessions.session("pool-2").clear();
    let mut waiting = task::spawn(get(&client));
    assert_pending!(waiting.poll());
    settle().await;
    assert_eq!(server.state().logins.len(), 4, "both sessions are renewed");
    server.end_logins(1);
    settle().await;
    assert!(waiting.is_woken(), "the first renewed session serves");
    let response = assert_ready!(waiting.poll()).unwrap();
    assert_eq!(read_now(response), "pool-1");
    server.end_logins(1);
    settle().await;
    assert!(pool.snapshot().members.iter().all(|member| member.state == MemberState::Serving));
}

/// Reads a response whose body is complete, and returns its session.
fn read_now(response: Response<LeasedBody<Page>>) -> String {
    assert_ready!(task::spawn(read(response)).poll())
}

#[tokio::test(start_paused = true)]
async fn a_member_renewed_by_a_request_serves_again() {
    let (sessions, pool, server) =
        world(|pool| pool.size(2).strategy(Strategy::LeastLoaded).classify_with(|_| Verdict::Neutral));
    let client = renewing(&pool, &sessions, &server);
    let lease = [get(&client).await.unwrap(), get(&client).await.unwrap()];
    settle().await;
    drop(lease);
    // Both sessions work.
    drop([get(&client).await.unwrap(), get(&client).await.unwrap()]);
    let server = server.block_logins();
    // The session expires under a request, which waits for the renewal.
    server.reply([Reply::Status(401)]);
    let mut expired = task::spawn(get(&client));
    assert_pending!(expired.poll());
    settle().await;
    assert_pending!(expired.poll());
    for _ in 0..4 {
        assert_ready!(task::spawn(get(&client)).poll()).unwrap();
    }
    server.end_logins(1);
    settle().await;
    assert_eq!(read_now(assert_ready!(expired.poll()).unwrap()).len(), 6);
    assert!(pool.snapshot().members.iter().all(|member| member.state == MemberState::Serving));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_be_renewed_is_replaced() {
    let (sessions, pool, server) = world(|pool| pool.size(1));
    let client = renewing(&pool, &sessions, &server);
    assert_eq!(fetch(&client).await, "pool-1");
    server.state().login_results.push_back(false);
    sessions.session("pool-1").clear();
    assert_eq!(fetch(&client).await, "pool-2");
    assert_eq!((pool.stats().retired_failed, pool.stats().warm_ups_failed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn without_a_rule_a_cleared_member_is_renewed_by_the_request_that_leads() {
    let sessions = Sessions::new();
    let pool = SessionPool::builder(&sessions).size(1).build().unwrap();
    let client = ServiceBuilder::new()
        .layer(PoolLayer::new(&pool))
        .layer(RenewalLayer::new(&sessions))
        .layer(SessionLayer::new(&sessions))
        .service(Server::default());
    assert_eq!(fetch(&client).await, "pool-1");
    sessions.session("pool-1").clear();
    assert_eq!(fetch(&client).await, "pool-1");
    assert_eq!(sessions.session("pool-1").generation(), Some(2));
}
