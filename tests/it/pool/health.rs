//! Marks, cooldowns, limits, and the retirement of members.

use super::*;

#[tokio::test(start_paused = true)]
async fn bad_marks_retire_a_member_and_good_marks_reduce_its_score() {
    let (sessions, pool, server) = world(|pool| {
        pool.size(1).max_error_score(3.0).error_score_decrement(0.5).classify_with(|_| Verdict::Neutral)
    });
    let client = plain(&pool, &sessions, &server);
    let response = get(&client).await;
    let first = member(&response);
    drop(response);
    let score = || pool.snapshot().members[0].score;
    first.mark_good();
    assert_eq!(score(), 0.0, "the score is never negative");
    first.mark_bad();
    first.mark_bad();
    first.mark_good();
    assert_eq!(score(), 1.5);
    first.mark_bad();
    assert_eq!(score(), 2.5, "2.5 of 3: the member still serves");
    assert_eq!(fetch(&client).await, "pool-1");
    first.mark_good();
    first.mark_bad();
    assert_eq!(score(), 0.0, "a successor has taken over");
    assert_eq!(fetch(&client).await, "pool-2");
    // Reports on a retired member change nothing.
    for _ in 0..5 {
        first.mark_bad();
        first.retire();
    }
    assert_eq!(fetch(&client).await, "pool-2");
    assert_eq!((pool.stats().retired_errors, pool.stats().retired()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retired_session_drains_and_is_removed() {
    let (sessions, pool, server) = world(|pool| pool.size(1).exclusive());
    let client = plain(&pool, &sessions, &server.clone().block_bodies());
    let response = get(&client).await;
    member(&response).retire();
    let next = get(&client).await.unwrap();
    assert_eq!(member(&Ok(next)).id().to_string(), "pool-2");
    let states: Vec<_> = pool.snapshot().members.iter().map(|member| member.state).collect();
    assert_eq!(states, [MemberState::Draining, MemberState::Serving]);
    assert!(sessions.get("pool-1").is_some(), "its request is in flight");
    server.state().bodies.clear();
    assert_eq!(read(response.unwrap()).await, "pool-1");
    assert!(sessions.get("pool-1").is_none());
    assert_eq!(pool.snapshot().members.len(), 1);
    let sent = sessions.stats().sent;
    assert_eq!(sent, 2, "its counters are not lost");
}

#[tokio::test(start_paused = true)]
async fn responses_and_errors_are_classified() {
    let (sessions, pool, server) = world(|pool| pool.size(1).max_error_score(2.0));
    let client = plain(&pool, &sessions, &server);
    server.reply([Reply::Status(403), Reply::Status(200), Reply::Status(500), Reply::Error]);
    for _ in 0..4 {
        let _ = get(&client).await;
    }
    assert_eq!(fetch(&client).await, "pool-1");
    server.reply([Reply::Status(403)]);
    drop(get(&client).await);
    assert_eq!(fetch(&client).await, "pool-2");
    let stats = pool.stats();
    assert_eq!((stats.bad, stats.good, stats.retired_errors), (3, 3, 1));

    let own = |outcome: &Outcome<'_>| match outcome.error() {
        Some(_) => Verdict::Retire,
        None => Verdict::standard(outcome),
    };
    let (sessions, pool, server) = world(|pool| pool.size(1).classify_with(own));
    let client = plain(&pool, &sessions, &server);
    server.reply([Reply::Error]);
    get(&client).await.unwrap_err();
    assert_eq!(fetch(&client).await, "pool-2");
    assert_eq!(pool.stats().retired_manually, 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_with_retry_after_causes_a_cooldown_and_no_bad_mark() {
    let (sessions, pool, server) = world(|pool| pool.size(1).max_error_score(1.0));
    let client = plain(&pool, &sessions, &server);
    server.reply([Reply::RetryAfter(60)]);
    let start = Instant::now();
    drop(get(&client).await);
    assert_eq!(pool.snapshot().members[0].state, MemberState::CoolingDown);
    assert_eq!(fetch(&client).await, "pool-1", "the same member serves again");
    assert_eq!(start.elapsed().as_secs(), 60);
    assert_eq!((pool.stats().cooldowns, pool.stats().bad), (1, 0));
    // A cooldown is bounded, whatever the response says.
    server.reply([Reply::RetryAfter(u64::MAX)]);
    drop(get(&client).await);
    let start = Instant::now();
    pool.member("pool-1").unwrap().cool_down(Duration::from_secs(5));
    let mut waiting = task::spawn(get(&client));
    assert_pending!(waiting.poll());
    assert_eq!(kind(waiting.await), PoolErrorKind::TimedOut);
    tokio::time::sleep(Duration::from_secs(3600) - start.elapsed()).await;
    assert_eq!(fetch(&client).await, "pool-1");
}

#[tokio::test(start_paused = true)]
async fn max_uses_is_exact_for_a_thousand_concurrent_requests() {
    let (sessions, pool, server) = world(|pool| pool.size(4).max_in_flight(7).max_uses(10));
    let client = renewing(&pool, &sessions, &server);
    let mut tasks = JoinSet::new();
    for _ in 0..1000 {
        let client = client.clone();
        tasks.spawn(async move { fetch(&client).await });
    }
    tasks.join_all().await;
    let mut uses = BTreeMap::<_, u32>::new();
    for session in server.pages() {
        *uses.entry(session).or_default() += 1;
    }
    assert_eq!(uses.values().sum::<u32>(), 1000);
    assert!(uses.values().all(|uses| *uses <= 10), "{uses:?}");
    assert!(uses.values().filter(|uses| **uses == 10).count() >= 97, "{uses:?}");
    assert!(server.max_in_flight_seen() <= 7);
    assert!(sessions.len() <= 8, "retired sessions are removed: {}", sessions.len());
}

#[tokio::test(start_paused = true)]
async fn max_age_is_checked_when_a_session_is_leased() {
    let (sessions, pool, server) = world(|pool| pool.size(1).max_age(Duration::from_secs(60)));
    let client = renewing(&pool, &sessions, &server);
    assert_eq!(fetch(&client).await, "pool-1");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!((fetch(&client).await, server.state().logins.len()), (String::from("pool-1"), 1));
    tokio::time::sleep(Duration::from_secs(6)).await;
    // In the last tenth of the limit, the successor is warmed up while its predecessor serves.
    assert_eq!(fetch(&client).await, "pool-1");
    settle().await;
    assert_eq!(server.state().logins.len(), 2);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(assert_ready!(task::spawn(async { fetch(&client).await }).poll()), "pool-2");
    assert_eq!(pool.stats().retired_age, 1);
}

#[tokio::test(start_paused = true)]
async fn the_successor_is_warm_before_it_is_needed() {
    let (sessions, pool, server) = world(|pool| pool.size(1).max_uses(10));
    let client = renewing(&pool, &sessions, &server);
    for turn in 0..35 {
        // Only the first request waits.
        if turn == 0 {
            fetch(&client).await;
        } else {
            assert_ready!(task::spawn(async { fetch(&client).await }).poll());
        }
        settle().await;
    }
    assert_eq!(pool.stats().waited, 1);
    // A member that is retired manually is replaced immediately, even without requests.
    let logins = server.state().logins.len();
    pool.members()[0].retire();
    settle().await;
    assert_eq!(server.state().logins.len(), logins + 1);
    assert_ready!(task::spawn(async { fetch(&client).await }).poll());
}
