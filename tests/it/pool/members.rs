//! Members as sessions: names, profiles, saved sessions, and the settings of a pool.

use super::*;

#[tokio::test(start_paused = true)]
async fn pools_of_the_same_sessions_need_different_names() {
    let sessions = Sessions::new();
    let server = Server::default();
    let pools = ["a", "b"].map(|name| SessionPool::builder(&sessions).name(name).size(2).build().unwrap());
    for pool in &pools {
        let client = plain(pool, &sessions, &server);
        for _ in 0..4 {
            fetch(&client).await;
        }
    }
    assert_eq!(sessions.len(), 4);
    let again = || SessionPool::builder(&sessions).name("a").build();
    let error = again().unwrap_err();
    assert_eq!((error.kind(), error.setting()), (PoolConfigErrorKind::NameTaken, "name"));
    assert!(error.to_string().contains("named \"a\""), "{error}");
    drop(pools);
    assert!(again().is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_member_has_its_own_profile() {
    let agents = ["one", "two", "three"].map(|agent| Profile::builder().user_agent(agent).build().unwrap());
    let sessions = Sessions::builder().profiles(Profiles::new(agents).unwrap()).build().unwrap();
    let pool = SessionPool::builder(&sessions).size(3).exclusive().build().unwrap();
    let client = renewing(&pool, &sessions, &Server::default());
    let mut tasks = JoinSet::new();
    for _ in 0..30 {
        let client = client.clone();
        tasks.spawn(async move { fetch(&client).await });
    }
    tasks.join_all().await;
    let profiles: BTreeSet<_> = pool
        .members()
        .iter()
        .map(|member| format!("{:?}", member.session().profile().unwrap().user_agent()))
        .collect();
    assert_eq!(profiles.len(), 3, "{profiles:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_finds_existing_members_by_their_names() {
    let sessions = Sessions::new();
    for name in ["pool-12", "pool-3", "pool-x", "pool-03", "pool-7", "other-1"] {
        sessions.session(name).add_cookies([("sid", name)], "http://site/").unwrap();
    }
    let server = Server::default();
    let pool = SessionPool::builder(&sessions).size(2).exclusive().build().unwrap();
    let client = renewing(&pool, &sessions, &server);
    let found: Vec<_> = pool.members().iter().map(|member| member.id().to_string()).collect();
    assert_eq!(found, ["pool-3", "pool-7"]);
    fetch(&client).await;
    assert!(server.state().logins.is_empty(), "the sessions are logged in");
    pool.members()[0].retire();
    settle().await;
    let found: Vec<_> = pool.members().iter().map(|member| member.id().to_string()).collect();
    assert_eq!(found, ["pool-7", "pool-15"], "no existing name is used again");
}

#[cfg(feature = "formats")]
#[tokio::test]
async fn a_pool_continues_with_saved_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.json");
    let server = Server::default();
    let sessions = Sessions::new();
    let pool = SessionPool::builder(&sessions).size(2).exclusive().build().unwrap();
    let client = renewing(&pool, &sessions, &server);
    fetch(&client).await;
    sessions.save(&path).await.unwrap();
    let logins = server.state().logins.len();
    assert!(logins > 0);
    drop((client, pool, sessions));

    let (sessions, report) = Sessions::load(&path, Sessions::builder()).await.unwrap();
    assert!(report.skipped().is_empty(), "{report:?}");
    let pool = SessionPool::builder(&sessions).size(1).exclusive().build().unwrap();
    let client = renewing(&pool, &sessions, &server);
    fetch(&client).await;
    assert_eq!(server.state().logins.len(), logins, "no session logs in again");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_shows_the_pool_and_its_members() {
    let (sessions, pool, server) = world(|pool| pool.size(2).exclusive());
    let client = plain(&pool, &sessions, &server);
    fetch(&client).await;
    let lease = get(&client).await.unwrap();
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.size, snapshot.waiting, snapshot.stats.leases), (2, 0, 2));
    let text = snapshot.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "pool pool: 2 of 2 members, 0 waiting, 2 leases, 0 retired");
    assert_eq!(lines.len(), 3, "{text}");
    assert!(text.contains(": serving, 1 in use, "), "{text}");
    drop(lease);
}

#[tokio::test]
async fn a_zero_limit_is_an_error_that_names_its_setting() {
    let sessions = Sessions::new();
    let check = |set: fn(SessionPoolBuilder) -> SessionPoolBuilder| {
        let error = set(SessionPool::builder(&sessions)).build().unwrap_err();
        assert_eq!(error.kind(), PoolConfigErrorKind::Zero);
        error.setting()
    };
    assert_eq!(check(|pool| pool.size(0)), "size");
    assert_eq!(check(|pool| pool.max_in_flight(0)), "max_in_flight");
    assert_eq!(check(|pool| pool.max_error_score(0.0)), "max_error_score");
    assert_eq!(check(|pool| pool.max_uses(0)), "max_uses");
    assert_eq!(check(|pool| pool.max_age(Duration::ZERO)), "max_age");
    assert_eq!(check(|pool| pool.max_wait(Duration::ZERO)), "max_wait");
    assert_eq!(check(|pool| pool.max_waiting(0)), "max_waiting");
    assert_eq!(check(|pool| pool.max_failed_warm_ups(0)), "max_failed_warm_ups");
    assert_eq!(check(|pool| pool.unavailable_backoff(Duration::ZERO, Duration::ZERO)), "unavailable_backoff");
}
