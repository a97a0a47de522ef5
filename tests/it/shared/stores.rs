//! Tests that every store fulfils the contract.

use std::time::Duration;

use bytes::Bytes;
use tower_client_sessions::shared::{
    Commit, CommitOutcome, FileStore, MemoryStore, Notifications, Owner, RecordVersion, SharedStore,
    test_conformance,
};

use super::folder;

#[tokio::test(start_paused = true)]
async fn the_memory_store_conforms() {
    test_conformance(&MemoryStore::new(), Notifications::Pushed).await.unwrap();
}

#[tokio::test]
async fn the_file_store_conforms() {
    let folder = folder::Folder::new();
    test_conformance(&FileStore::open(folder.path()).unwrap(), Notifications::Polled).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_49_a_record_is_never_read_torn() {
    let folder = folder::Folder::new();
    let store = FileStore::open(folder.path()).unwrap();
    let owner = Owner::random();
    // Each payload repeats the number of its version, with a different length.
    let payload = |version: u64| Bytes::from(vec![version as u8; 40_000 + 7000 * (version % 5) as usize]);
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for version in 1..=60 {
                let commit = Commit::new(owner, version - 1, version, payload(version));
                let version = RecordVersion::new(version, 0);
                assert_eq!(store.commit("a", commit).await.unwrap(), CommitOutcome::Written(version));
            }
        }
    });
    let mut last = 0;
    while !writing.is_finished() {
        let record = store.load("a").await.unwrap();
        let version = record.version.number;
        assert!(version >= last, "versions never decrease");
        assert!(version == 0 || record.payload == payload(version), "version {version} is complete");
        last = version;
    }
    writing.await.unwrap();
    assert_eq!(store.load("a").await.unwrap().version.number, 60);
}

#[cfg(feature = "redis")]
mod redis {
    use tower_client_sessions::shared::{RedisStore, StoreErrorKind};

    use super::{super::server::Redis, *};

    #[tokio::test]
    async fn the_redis_store_conforms() {
        let Some(server) = Redis::start(&[]) else { return };
        let store = server.store("check ").await;
        test_conformance(&store, Notifications::Pushed).await.unwrap();
    }

    #[tokio::test]
    async fn the_redis_store_conforms_over_tls_with_access_to_its_prefix_only() {
        let tls = super::super::server::Certificates::new();
        let rights = "+@read +@write +@scripting +@pubsub +ping +client";
        let user = format!("--user fleet on >pa55 ~crawl:* &crawl:* {rights} --requirepass other");
        let settings: Vec<&str> = user.split(' ').collect();
        let Some(server) = Redis::start_tls(&tls, &settings) else { return };
        let address = server.address_of("fleet:pa55@");
        let store = RedisStore::connect_tls(&address, "crawl:", Some(tls.root()), None).await.unwrap();
        test_conformance(&store, Notifications::Pushed).await.unwrap();

        // An untrusted certificate or a wrong password is an error that does not show the password.
        let untrusted = RedisStore::connect(&address, "crawl:").await.unwrap_err();
        assert_eq!(untrusted.kind(), StoreErrorKind::Unreachable);
        let wrong = server.address_of("fleet:secret@");
        let rejected = RedisStore::connect_tls(&wrong, "crawl:", Some(tls.root()), None).await.unwrap_err();
        assert_eq!(rejected.kind(), StoreErrorKind::Rejected);
        let mut shown = format!("{rejected:?} {rejected}");
        let mut source = std::error::Error::source(&rejected);
        while let Some(cause) = source {
            shown += &format!(" {cause:?} {cause}");
            source = cause.source();
        }
        assert!(!shown.contains("secret"), "{shown}");
        // The user has no access to other prefixes.
        let store = RedisStore::connect_tls(&address, "others:", Some(tls.root()), None).await.unwrap();
        assert_eq!(store.load("a").await.unwrap_err().kind(), StoreErrorKind::Rejected);
    }

    fn commit(version: u64, payload: Bytes) -> Commit {
        Commit::new(Owner::random(), version - 1, version, payload)
    }

    #[tokio::test]
    async fn a_full_server_rejects_writes_and_keeps_its_records() {
        let settings = ["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"];
        let Some(server) = Redis::start(&settings) else { return };
        let store = server.store("full:").await;
        let mut number = 0;
        let rejected = loop {
            number += 1;
            assert!(number < 100, "the server is full by now");
            let key = format!("session {number}");
            if let Err(error) = store.commit(&key, commit(1, vec![1; 200_000].into())).await {
                break error;
            }
        };
        assert_eq!(rejected.kind(), StoreErrorKind::Rejected);
        assert_eq!(store.load("session 1").await.unwrap().version.number, 1, "records are still readable");
    }

    #[tokio::test]
    async fn the_store_reconnects_after_a_restart_of_the_server() {
        let Some(mut server) = Redis::start(&["--appendonly", "yes"]) else { return };
        let store = server.store("again:").await;
        store.commit("a", commit(1, Bytes::from_static(b"one"))).await.unwrap();
        let (sender, mut events) = tokio::sync::mpsc::channel(8);
        let watching = tokio::spawn({
            let store = store.clone();
            async move { store.watch(sender).await }
        });
        assert!(events.recv().await.is_some(), "the watch has started");
        server.stop();
        let ended = tokio::time::timeout(Duration::from_secs(20), watching).await.unwrap().unwrap();
        assert_eq!(ended.unwrap_err().kind(), StoreErrorKind::Unreachable, "the watch ends with an error");
        assert_eq!(store.load("a").await.unwrap_err().kind(), StoreErrorKind::Unreachable);
        server.restart();
        // The first requests may meet the lost connection, or a server that is loading its data.
        let started = std::time::Instant::now();
        let loaded = loop {
            match store.load("a").await {
                Ok(record) => break record,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error:?}"),
            }
        };
        assert_eq!(loaded.payload, "one");
        store.commit("a", commit(2, Bytes::from_static(b"two"))).await.unwrap();
    }
}
