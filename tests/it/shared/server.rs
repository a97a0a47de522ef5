//! A Redis server for one test.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tower_client_sessions::shared::RedisStore;

use super::folder::Folder;

pub(super) struct Redis {
    child: Child,
    args: Vec<String>,
    port: u16,
    scheme: &'static str,
    folder: Folder,
}

impl Redis {
    /// Starts a server. Prints a line and returns `None` if there is no `redis-server`.
    pub(super) fn start(settings: &[&str]) -> Option<Self> {
        let port = free_port();
        Self::start_with(port, "redis", vec!["--port".into(), port.to_string()], settings)
    }

    /// Starts a server that accepts only TLS.
    pub(super) fn start_tls(tls: &Certificates, settings: &[&str]) -> Option<Self> {
        let port = free_port();
        let path = |name: &str| tls.folder.path().join(name).display().to_string();
        let mut args = ["--port", "0", "--tls-auth-clients", "no", "--tls-port"].map(String::from).to_vec();
        args.push(port.to_string());
        for (option, name) in [
            ("--tls-cert-file", "server.pem"),
            ("--tls-key-file", "key.pem"),
            ("--tls-ca-cert-file", "server.pem"),
        ] {
            args.extend([option.to_owned(), path(name)]);
        }
        Self::start_with(port, "rediss", args, settings)
    }

    fn start_with(port: u16, scheme: &'static str, mut args: Vec<String>, settings: &[&str]) -> Option<Self> {
        let folder = Folder::new();
        args.extend(["--bind", "127.0.0.1", "--save", ""].map(String::from));
        args.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let Some(child) = spawn(&args, &folder) else {
            assert!(std::env::var_os("REAL_PEERS").is_none(), "redis-server is required and not installed");
            eprintln!("skipped: redis-server is not installed");
            return None;
        };
        let server = Self { child, args, port, scheme, folder };
        server.wait();
        Some(server)
    }

    /// Kills the server and waits for its end.
    pub(super) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the server again with its data on disk.
    pub(super) fn restart(&mut self) {
        self.child = spawn(&self.args, &self.folder).expect("redis-server was started before");
        self.wait();
    }

    /// Waits until the server listens, by trying to connect.
    fn wait(&self) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "redis-server does not listen");
            std::thread::yield_now();
        }
    }

    /// Returns the address; `user` is `user:password@` or empty.
    pub(super) fn address_of(&self, user: &str) -> String {
        format!("{}://{user}127.0.0.1:{}/", self.scheme, self.port)
    }

    pub(super) async fn store(&self, prefix: &str) -> RedisStore {
        RedisStore::connect(&self.address_of(""), prefix).await.unwrap()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(args: &[String], folder: &Folder) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(args).current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().ok()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A self-signed certificate with its key.
pub(super) struct Certificates {
    folder: Folder,
    pem: String,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let folder = Folder::new();
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let pem = signed.cert.pem();
        fs::write(folder.path().join("server.pem"), &pem).unwrap();
        fs::write(folder.path().join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
        Self { folder, pem }
    }

    pub(super) fn root(&self) -> &[u8] {
        self.pem.as_bytes()
    }
}
