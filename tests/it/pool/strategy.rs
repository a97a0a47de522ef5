//! Which member serves a request.

use super::*;

/// Fills the pool, so that its growth does not affect the test.
async fn filled(client: &Plain, pool: &SessionPool, size: usize) {
    let lease: Vec<_> = futures_of(client, size).await;
    drop(lease);
    assert_eq!(pool.members().len(), size);
}

async fn futures_of(client: &Plain, requests: usize) -> Vec<Response<LeasedBody<Page>>> {
    let mut lease = Vec::new();
    for _ in 0..requests {
        lease.push(get(client).await.unwrap());
    }
    lease
}

#[tokio::test(start_paused = true)]
async fn round_robin_selects_the_member_used_longest_ago() {
    let (sessions, pool, server) = world(|pool| pool.size(3).exclusive());
    let client = plain(&pool, &sessions, &server);
    filled(&client, &pool, 3).await;
    let mut used = Vec::new();
    for _ in 0..6 {
        used.push(fetch(&client).await);
    }
    assert_eq!(used[..3], used[3..]);
    assert_eq!(used[..3].iter().collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn least_loaded_selects_the_member_with_the_fewest_requests() {
    let (sessions, pool, server) = world(|pool| pool.size(3).strategy(Strategy::LeastLoaded));
    let client = plain(&pool, &sessions, &server);
    let lease = futures_of(&client, 9).await;
    let in_use = |pool: &SessionPool| -> Vec<_> {
        pool.snapshot().members.iter().map(|member| member.in_use).collect()
    };
    // The first requests found members idle.
    assert_eq!(in_use(&pool).iter().sum::<usize>(), 9);
    assert!(in_use(&pool).iter().all(|in_use| (2..=4).contains(in_use)), "{:?}", in_use(&pool));
    drop(lease);
    assert_eq!(in_use(&pool), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn fill_first_stays_with_one_member_until_it_is_retired() {
    let (sessions, pool, server) = world(|pool| pool.size(3).strategy(Strategy::FillFirst));
    let client = plain(&pool, &sessions, &server);
    for _ in 0..5 {
        assert_eq!(fetch(&client).await, "pool-1");
    }
    assert_eq!(sessions.len(), 1, "no more members are created than needed");
    pool.member("pool-1").unwrap().retire();
    for _ in 0..5 {
        assert_eq!(fetch(&client).await, "pool-2");
    }
}

#[tokio::test(start_paused = true)]
async fn random_selects_all_members() {
    let (sessions, pool, server) = world(|pool| pool.size(4).strategy(Strategy::Random));
    let client = plain(&pool, &sessions, &server);
    let mut counts = BTreeMap::<_, u32>::new();
    for _ in 0..400 {
        *counts.entry(fetch(&client).await).or_default() += 1;
    }
    assert_eq!(counts.len(), 4);
    assert!(counts.values().all(|count| *count > 60), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_custom_picker_may_use_the_pool() {
    #[derive(Clone, Default)]
    struct Picky(Arc<Mutex<Option<SessionPool>>>);
    impl Picker for Picky {
        fn pick(&self, request: &RequestView<'_>, candidates: &[MemberView]) -> Option<usize> {
            // Under the pool's lock, this call would deadlock.
            self.0.lock().unwrap().as_ref().unwrap().stats();
            assert_eq!(request.host(), Some("site"));
            candidates.iter().position(|candidate| *candidate.id() == SessionId::from("pool-2"))
        }
    }
    let picky = Picky::default();
    let (sessions, pool, server) = world(|pool| pool.size(3).pick_with(picky.clone()));
    *picky.0.lock().unwrap() = Some(pool.clone());
    let client = plain(&pool, &sessions, &server);
    for _ in 0..5 {
        fetch(&client).await;
    }
    for _ in 0..5 {
        assert_eq!(fetch(&client).await, "pool-2");
    }
    *picky.0.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn a_request_may_require_an_unused_session() {
    let (sessions, pool, server) = world(|pool| pool.size(2).exclusive());
    let client = renewing(&pool, &sessions, &server);
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.insert(fetch(&client).await);
    }
    for _ in 0..5 {
        let mut request = page();
        request.extensions_mut().insert(UnusedSession);
        let session = read(client.clone().oneshot(request).await.unwrap()).await;
        assert!(seen.insert(session), "{seen:?}");
    }
    assert!(pool.members().len() <= 2, "the pool stays within its size");
}

#[derive(Clone)]
struct Twice(u32);

impl Policy<Request<Body>, Response<LeasedBody<Page>>, BoxError> for Twice {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _request: &mut Request<Body>, result: &mut PoolResult) -> Option<Self::Future> {
        let failed = result.as_ref().map_or(true, |response| !response.status().is_success());
        (failed && self.0 > 0).then(|| {
            self.0 -= 1;
            std::future::ready(())
        })
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_gets_a_session_that_was_not_tried_before() {
    for strategy in [Strategy::FillFirst, Strategy::RoundRobin, Strategy::Random] {
        let (sessions, pool, server) =
            world(|pool| pool.size(3).strategy(strategy).max_error_score(100.0).sticky_by_host());
        let client = ServiceBuilder::new()
            .layer(TriedSessionsLayer::new())
            .retry(Twice(4))
            .layer(PoolLayer::new(&pool))
            .layer(SessionLayer::new(&sessions))
            .service(server.clone());
        server.reply([Reply::Error, Reply::Status(403), Reply::Status(200)]);
        get(&client).await.unwrap();
        let tried: BTreeSet<_> = server.pages().into_iter().collect();
        assert_eq!((server.pages().len(), tried.len()), (3, 3), "{strategy:?}");
        // Once all members were tried, none is avoided.
        server.reply([Reply::Error; 4]);
        get(&client).await.unwrap();
    }
}
