//! Requests that wait for a session.

use super::*;

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_order_and_a_dropped_waiter_passes_its_session_on() {
    let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
    let client = plain(&pool, &sessions, &server);
    let lease = get(&client).await.unwrap();
    let mut waiting: Vec<_> = (0..5).map(|_| task::spawn(get(&client))).collect();
    for waiter in &mut waiting {
        assert_pending!(waiter.poll());
    }
    assert_eq!(pool.waiting(), 5);
    drop(waiting.remove(1));
    assert_eq!(pool.waiting(), 4);
    drop(lease);
    // Only the first waiter is woken, and only that one gets the session.
    assert!(waiting[0].is_woken());
    assert!(waiting[1..].iter().all(|waiter| !waiter.is_woken()));
    assert_pending!(waiting[3].poll());
    // It is dropped while the session is its own; the next waiter gets it.
    drop(waiting.remove(0));
    assert!(waiting[0].is_woken());
    for left in (0..3).rev() {
        let response = assert_ready!(waiting.remove(0).poll()).unwrap();
        assert_eq!(pool.waiting(), left);
        drop(response);
    }
    assert_eq!(leased(&pool), 0);
    assert_eq!(pool.stats().leases_unused, 1);
}

#[tokio::test(start_paused = true)]
async fn the_duration_and_the_number_of_waits_are_limited_with_a_typed_error() {
    let (sessions, pool, server) =
        world(|pool| pool.size(1).exclusive().max_waiting(2).max_wait(Duration::from_secs(30)));
    let client = plain(&pool, &sessions, &server);
    let lease = get(&client).await.unwrap();
    let start = Instant::now();
    let mut waiting: Vec<_> = (0..2).map(|_| task::spawn(get(&client))).collect();
    for waiter in &mut waiting {
        assert_pending!(waiter.poll());
    }
    assert_eq!(kind(get(&client).await), PoolErrorKind::TooManyWaiting);
    for waiter in waiting {
        assert_eq!(kind(waiter.await), PoolErrorKind::TimedOut);
    }
    assert_eq!(start.elapsed().as_secs(), 30);
    let stats = pool.stats();
    // The first request waited for the warm-up.
    assert_eq!((stats.rejected_queue_full, stats.timed_out, stats.waited), (1, 2, 3));
    drop(lease);
    fetch(&client).await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_reserves_nothing_in_the_inner_service() {
    let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
    let client = ServiceBuilder::new()
        .layer(PoolLayer::new(&pool))
        .layer(SessionLayer::new(&sessions))
        .concurrency_limit(1)
        .service(server.clone());
    let lease = pool.lease().await.unwrap();
    let mut waiting = task::spawn(client.clone().oneshot(page()));
    assert_pending!(waiting.poll());
    let mut request = page();
    request.extensions_mut().insert(SessionId::from("alice"));
    client.clone().oneshot(request).await.unwrap();
    drop(lease);
    assert!(waiting.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn inner_services_may_limit_or_buffer() {
    let (sessions, pool, server) = world(|pool| pool.size(3).exclusive());
    let limited = ServiceBuilder::new().concurrency_limit(2).service(server.clone());
    let client = ServiceBuilder::new()
        .layer(PoolLayer::new(&pool))
        .layer(SessionLayer::new(&sessions))
        .buffer(1)
        .service(limited);
    let mut tasks = JoinSet::new();
    for _ in 0..200 {
        tasks.spawn(client.clone().oneshot(page()));
    }
    while let Some(response) = tasks.join_next().await {
        read(response.unwrap().unwrap()).await;
    }
    assert_eq!((server.max_in_flight_seen(), leased(&pool)), (1, 0));
}

#[test]
fn a_request_outside_a_runtime_fails_with_no_runtime() {
    let (sessions, pool, server) = world(|pool| pool.size(1));
    let client = plain(&pool, &sessions, &server);
    let mut request = task::spawn(get(&client));
    assert_eq!(kind(assert_ready!(request.poll())), PoolErrorKind::NoRuntime);
    assert_eq!((leased(&pool), pool.waiting()), (0, 0));
}
