//! A Redis of a test's own.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tower_client_sessions::shared::RedisStore;

use super::folder::Folder;

pub(super) struct Redis {
    child: Child,
    port: u16,
    password: Option<&'static str>,
    _folder: Folder,
}

impl Redis {
    /// `None`, and a line that says so, where there is no `redis-server`.
    pub(super) fn start() -> Option<Self> {
        Self::start_with(None)
    }

    pub(super) fn start_with(password: Option<&'static str>) -> Option<Self> {
        let folder = Folder::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(password.map(|password| ["--requirepass", password]).into_iter().flatten());
        let child = command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(child) = child else {
            assert!(std::env::var_os("REAL_PEERS").is_none(), "redis-server is to be installed, and is not");
            eprintln!("skipped: there is no redis-server");
            return None;
        };
        let server = Self { child, port, password, _folder: folder };
        server.wait();
        Some(server)
    }

    /// Until it listens; a server tells nobody else.
    fn wait(&self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis-server does not listen");
            std::thread::yield_now();
        }
    }

    pub(super) fn address(&self) -> String {
        match self.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}/", self.port),
            None => format!("redis://127.0.0.1:{}/", self.port),
        }
    }

    pub(super) async fn store(&self, prefix: &str) -> RedisStore {
        RedisStore::connect(&self.address(), prefix).await.unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
