//! Every store keeps one contract.

use tower_client_sessions::shared::{FileStore, MemoryStore, check_store};

use super::folder;

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_the_contract() {
    check_store(&MemoryStore::new(), true).await.unwrap();
}

#[tokio::test]
async fn the_store_in_a_folder_keeps_the_contract() {
    let folder = folder::Folder::new();
    check_store(&FileStore::open(folder.path()).unwrap(), false).await.unwrap();
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn the_store_in_redis_keeps_the_contract() {
    let Some(server) = super::server::Redis::start() else { return };
    let store = server.store("check ").await;
    check_store(&store, true).await.unwrap();
}
