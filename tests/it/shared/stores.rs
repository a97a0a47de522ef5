//! Every store keeps one contract.

use std::time::Duration;

use bytes::Bytes;
use tower_client_sessions::shared::{
    Commit, CommitOutcome, FileStore, MemoryStore, Notifications, Owner, RecordVersion, SharedStore,
    test_conformance,
};

use super::folder;

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_the_contract() {
    test_conformance(&MemoryStore::new(), Notifications::Pushed).await.unwrap();
}

#[tokio::test]
async fn the_store_in_a_folder_keeps_the_contract() {
    let folder = folder::Folder::new();
    test_conformance(&FileStore::open(folder.path()).unwrap(), Notifications::Polled).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_49_a_record_is_never_read_torn() {
    let folder = folder::Folder::new();
    let store = FileStore::open(folder.path()).unwrap();
    let owner = Owner::random();
    // Each version is its number over and over, of a length of its own.
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
        assert!(version >= last, "it never goes back");
        assert!(version == 0 || record.payload == payload(version), "version {version} is whole");
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
    async fn the_store_in_redis_keeps_the_contract() {
        let Some(server) = Redis::start(&[]) else { return };
        let store = server.store("check ").await;
        test_conformance(&store, Notifications::Pushed).await.unwrap();
    }

    #[tokio::test]
    async fn a_user_with_rights_on_its_prefix_alone_keeps_the_contract_over_tls() {
        let tls = super::super::server::Certificates::new();
        let rights = "+@read +@write +@scripting +@pubsub +ping +client";
        let user = format!("--user fleet on >pa55 ~crawl:* &crawl:* {rights} --requirepass other");
        let settings: Vec<&str> = user.split(' ').collect();
        let Some(server) = Redis::start_tls(&tls, &settings) else { return };
        let address = server.address_of("fleet:pa55@");
        let store = RedisStore::connect_tls(&address, "crawl:", Some(tls.root()), None).await.unwrap();
        test_conformance(&store, Notifications::Pushed).await.unwrap();

        // Whoever is not the one it says it is, is refused, and told so without what it was given.
        let untrusted = RedisStore::connect(&address, "crawl:").await.unwrap_err();
        assert_eq!(untrusted.kind(), StoreErrorKind::Unreachable);
        let wrong = server.address_of("fleet:secret@");
        let refused = RedisStore::connect_tls(&wrong, "crawl:", Some(tls.root()), None).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Rejected);
        let mut shown = format!("{refused:?} {refused}");
        let mut source = std::error::Error::source(&refused);
        while let Some(cause) = source {
            shown += &format!(" {cause:?} {cause}");
            source = cause.source();
        }
        assert!(!shown.contains("secret"), "{shown}");
        // And it reaches nothing else.
        let store = RedisStore::connect_tls(&address, "others:", Some(tls.root()), None).await.unwrap();
        assert_eq!(store.load("a").await.unwrap_err().kind(), StoreErrorKind::Rejected);
    }

    fn commit(version: u64, payload: Bytes) -> Commit {
        Commit::new(Owner::random(), version - 1, version, payload)
    }

    #[tokio::test]
    async fn a_server_that_is_full_refuses_and_keeps_what_it_has() {
        let settings = ["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"];
        let Some(server) = Redis::start(&settings) else { return };
        let store = server.store("full:").await;
        let mut number = 0;
        let refused = loop {
            number += 1;
            assert!(number < 100, "it is full by now");
            let key = format!("session {number}");
            if let Err(error) = store.commit(&key, commit(1, vec![1; 200_000].into())).await {
                break error;
            }
        };
        assert_eq!(refused.kind(), StoreErrorKind::Rejected);
        assert_eq!(store.load("session 1").await.unwrap().version.number, 1, "it is still read");
    }

    #[tokio::test]
    async fn a_server_that_was_restarted_is_found_again() {
        let Some(mut server) = Redis::start(&["--appendonly", "yes"]) else { return };
        let store = server.store("again:").await;
        store.commit("a", commit(1, Bytes::from_static(b"one"))).await.unwrap();
        let (sender, mut changes) = tokio::sync::mpsc::channel(8);
        let watching = tokio::spawn({
            let store = store.clone();
            async move { store.watch(sender).await }
        });
        assert!(changes.recv().await.is_some(), "it watches");
        server.stop();
        let ended = tokio::time::timeout(Duration::from_secs(20), watching).await.unwrap().unwrap();
        assert_eq!(ended.unwrap_err().kind(), StoreErrorKind::Unreachable, "and says that it does no more");
        assert_eq!(store.load("a").await.unwrap_err().kind(), StoreErrorKind::Unreachable);
        server.go_on();
        // The first requests may still meet the connection that is gone, or a server that reads its disk.
        let begun = std::time::Instant::now();
        let loaded = loop {
            match store.load("a").await {
                Ok(record) => break record,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}"),
            }
        };
        assert_eq!(loaded.payload, "one");
        store.commit("a", commit(2, Bytes::from_static(b"two"))).await.unwrap();
    }
}
