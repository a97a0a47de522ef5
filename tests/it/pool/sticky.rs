//! Requests that stick to one session.

use super::*;

#[tokio::test(start_paused = true)]
async fn requests_to_one_host_stay_with_their_session_until_it_is_retired() {
    let (sessions, pool, server) = world(|pool| pool.size(8).exclusive().sticky_by_host());
    let client = plain(&pool, &sessions, &server);
    let fetch = async |host: &str| {
        let request = Request::get(format!("http://{host}/")).body(Body::new()).unwrap();
        read(client.clone().oneshot(request).await.unwrap()).await
    };
    let (first, other) = (fetch("a.example").await, fetch("b.example").await);
    assert_ne!(first, other, "the hosts have different slots");
    for _ in 0..5 {
        assert_eq!((fetch("A.example").await, fetch("b.example").await), (first.clone(), other.clone()));
    }
    // A sticky request waits for its session although others are free.
    let request = Request::get("http://a.example/").body(Body::new()).unwrap();
    let lease = client.clone().oneshot(request.clone()).await.unwrap();
    let mut waiting = task::spawn(client.clone().oneshot(request));
    assert_pending!(waiting.poll());
    assert_eq!(fetch("b.example").await, other);
    pool.member(first.as_str()).unwrap().retire();
    let next = read(waiting.await.unwrap()).await;
    assert!(next != first && next != other);
    assert_eq!(fetch("a.example").await, next);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn requests_with_one_key_stay_with_one_session() {
    #[derive(Clone)]
    struct Customer(&'static str);
    let (sessions, pool, server) =
        world(|pool| pool.size(8).sticky_by(|request| Some(request.extensions()?.get::<Customer>()?.0)));
    let client = plain(&pool, &sessions, &server);
    let mut used = BTreeMap::<_, BTreeSet<_>>::new();
    for turn in 0..20 {
        let customer = ["ann", "ben"][turn % 2];
        let request = Request::get("http://site/").extension(Customer(customer)).body(Body::new()).unwrap();
        let session = read(client.clone().oneshot(request).await.unwrap()).await;
        used.entry(customer).or_default().insert(session);
    }
    assert!(used.values().all(|sessions| sessions.len() == 1), "{used:?}");
    fetch(&client).await;
}
