//! The start and the end of leases, and their limits.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_without_a_session_gets_one_and_members_are_created_on_demand() {
    let (sessions, pool, server) = world(|pool| pool.size(3));
    let client = plain(&pool, &sessions, &server);
    assert_eq!(sessions.len(), 0, "members are created on demand");
    assert_eq!(fetch(&client).await, "pool-1");
    assert_eq!(sessions.len(), 1);
    for _ in 0..20 {
        fetch(&client).await;
    }
    assert_eq!(sessions.len(), 3);
    let used: BTreeSet<_> = server.pages().into_iter().collect();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["pool-1", "pool-2", "pool-3"]);
    assert_eq!(leased(&pool), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_names_a_session_bypasses_the_pool() {
    let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
    let client = plain(&pool, &sessions, &server);
    let lease = get(&client).await.unwrap();
    for named in [true, false] {
        let mut request = page();
        match named {
            true => request.extensions_mut().insert(SessionId::from("alice")).is_none(),
            false => request.extensions_mut().insert::<Session>(sessions.session("alice")).is_none(),
        };
        let response = client.clone().oneshot(request).await.unwrap();
        assert!(response.extensions().get::<Member>().is_none());
        assert_eq!(read(response).await, "alice");
    }
    // A request may name a member; the pool's limits do not apply to it.
    let mut request = page();
    request.extensions_mut().insert(SessionId::from("pool-1"));
    assert_eq!(read(client.oneshot(request).await.unwrap()).await, "pool-1");
    assert_eq!(pool.stats().leases, 1);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn exclusive_is_exact_for_a_thousand_concurrent_requests() {
    for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::LeastLoaded, Strategy::FillFirst] {
        let (sessions, pool, server) = world(|pool| pool.size(8).exclusive().strategy(strategy));
        let server = server.block_heads();
        let client = plain(&pool, &sessions, &server);
        let mut tasks = JoinSet::new();
        for _ in 0..1000 {
            let client = client.clone();
            tasks.spawn(async move { fetch(&client).await });
        }
        settle().await;
        assert_eq!((server.pages().len(), pool.waiting()), (8, 992), "{strategy:?}");
        server.release_heads(1000);
        let used = tasks.join_all().await;
        assert_eq!((used.len(), server.max_in_flight_seen(), sessions.len()), (1000, 1, 8), "{strategy:?}");
        assert_eq!((leased(&pool), pool.waiting()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_in_flight_is_exact_on_two_threads() {
    let (sessions, pool, server) = world(|pool| pool.size(4).max_in_flight(3));
    let client = plain(&pool, &sessions, &server);
    let mut tasks = JoinSet::new();
    for _ in 0..2000 {
        let client = client.clone();
        tasks.spawn(async move { fetch(&client).await });
    }
    assert_eq!(tasks.join_all().await.len(), 2000);
    assert!(server.max_in_flight_seen() <= 3);
    assert_eq!((leased(&pool), pool.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_with_the_body_and_not_with_the_head() {
    let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
    let server = server.block_bodies();
    let client = plain(&pool, &sessions, &server);

    let read_whole = get(&client).await.unwrap();
    assert_eq!(leased(&pool), 1, "the head has arrived, the body has not");
    server.end_body();
    assert_eq!(leased(&pool), 1, "the body was not read");
    read(read_whole).await;
    assert_eq!(leased(&pool), 0);

    let dropped = get(&client).await.unwrap();
    assert_eq!(leased(&pool), 1);
    drop(dropped);
    assert_eq!(leased(&pool), 0);

    server.state().bodies.clear();
    let mut failing = get(&client).await.unwrap().into_body();
    server.state().bodies[0].1.send(Err("reset".into())).unwrap();
    failing.frame().await.unwrap().unwrap();
    assert_eq!(leased(&pool), 1);
    failing.frame().await.unwrap().unwrap_err();
    assert_eq!(leased(&pool), 0, "although the body is not dropped");
    assert_eq!(pool.stats().bad, 1);

    let taken = get(&client).await.unwrap().into_body().into_inner();
    assert_eq!(leased(&pool), 0);
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_when_its_request_fails_is_dropped_or_panics() {
    let (sessions, pool, server) = world(|pool| pool.size(1).exclusive().max_error_score(100.0));
    let server = server.block_heads();
    let client = plain(&pool, &sessions, &server);

    let mut dropped = task::spawn(get(&client));
    assert_pending!(dropped.poll());
    assert_eq!(leased(&pool), 1);
    drop(dropped);
    assert_eq!(leased(&pool), 0);

    server.release_heads(2);
    server.reply([Reply::Error, Reply::Panic]);
    get(&client).await.unwrap_err();
    assert_eq!(leased(&pool), 0);
    let panicked = tokio::spawn({
        let client = client.clone();
        async move { get(&client).await.is_ok() }
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(leased(&pool), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_classifier_leaks_no_lease() {
    let (sessions, pool, server) = world(|pool| {
        pool.size(1).exclusive().classify_with(|outcome| match outcome.status() {
            Some(status) if status == 418 => std::panic::resume_unwind(Box::new("wanted by the test")),
            _ => Verdict::Neutral,
        })
    });
    let client = plain(&pool, &sessions, &server);
    server.reply([Reply::Status(418)]);
    let panicked = tokio::spawn({
        let client = client.clone();
        async move { get(&client).await.is_ok() }
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(leased(&pool), 0);
    fetch(&client).await;
}

#[tokio::test(start_paused = true)]
async fn uses_of_one_session_are_spaced_with_jitter() {
    let (sessions, pool, server) =
        world(|pool| pool.size(2).min_delay(Duration::from_secs(10)).delay_jitter(0.5));
    let client = plain(&pool, &sessions, &server);
    let mut tasks = JoinSet::new();
    for _ in 0..14 {
        let client = client.clone();
        tasks.spawn(async move { fetch(&client).await });
    }
    tasks.join_all().await;
    let pages = server.state().pages.clone();
    let mut gaps = BTreeSet::new();
    for name in ["pool-1", "pool-2"] {
        let times: Vec<_> = pages.iter().filter(|(session, _)| session == name).map(|(_, at)| *at).collect();
        assert!(times.len() >= 5, "both members serve");
        gaps.extend(times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()));
    }
    assert!(gaps.iter().all(|gap| (10_000..=15_010).contains(gap)), "{gaps:?}");
    assert!(gaps.len() > 6, "each delay is drawn separately: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn an_explicit_lease_is_one_use_for_many_requests() {
    let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
    let client = plain(&pool, &sessions, &server);
    let mut lease = pool.lease().await.unwrap();
    for _ in 0..3 {
        let request = Request::get("http://site/page").extension(lease.session().clone());
        let response = client.clone().oneshot(request.body(Body::new()).unwrap()).await.unwrap();
        assert_eq!(read(response).await, lease.member().id().to_string());
    }
    let mut waiting = task::spawn(pool.lease());
    assert_pending!(waiting.poll());
    drop(lease);
    // An unused lease does not count as a use.
    drop(assert_ready!(waiting.poll()).unwrap());
    assert_eq!(pool.snapshot().members[0].uses, 1);
    assert_eq!(pool.stats().leases, 2);
}
