//! A store in Redis or a compatible server.

use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_core::Stream;
use redis::{
    Client, ErrorKind, FromRedisValue, RedisError, Script, ScriptInvocation, ServerErrorKind,
    TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Commit, CommitOutcome, FencingToken, LeaseOutcome, Owner, Record, RecordVersion, SharedStore, StoreError,
    StoreErrorKind, StoreEvent, StoreFuture, UseGrant,
};

/// A store in Redis or Valkey, on one server.
///
/// Each record is a hash `PREFIX<name>`, and each lease a string `PREFIX<name> lease` that expires.
/// Events are published on the channel `PREFIX changes`. Atomic steps are short Lua scripts.
///
/// The server must not evict these keys (`maxmemory-policy noeviction`): each lost record costs its
/// fleet a login. After a lost connection, the next request reconnects.
///
/// # Clone
///
/// Clones share one connection.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
    connection: ConnectionManager,
}

struct Shared {
    client: Client,
    prefix: String,
    channel: String,
    scripts: Scripts,
}

struct Scripts {
    lease: Script,
    extend: Script,
    release: Script,
    mark_in_progress: Script,
    commit: Script,
    update: Script,
    take_uses: Script,
}

/// The timeout of a connection, a response, and the ping of a watch.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a watch tests its connection.
const PING: Duration = Duration::from_secs(10);

impl RedisStore {
    /// Connects to a server; all keys start with `prefix`.
    ///
    /// The address is `redis://user:password@host:port/database`, or `rediss://…` for TLS with the
    /// root certificates of the Mozilla programme.
    ///
    /// # Errors
    ///
    /// If the address is invalid or the server does not respond.
    pub async fn connect(address: &str, prefix: impl Into<String>) -> Result<Self, StoreError> {
        let store = Self::lazy(Client::open(address).map_err(store_error)?, prefix.into())?;
        store.query::<()>(redis::cmd("PING")).await?;
        Ok(store)
    }

    /// Connects like [`connect`](Self::connect), over TLS with custom certificates in PEM.
    ///
    /// `root` is the root certificate of the server. `identity` is the certificate and the key that
    /// the client presents.
    ///
    /// # Errors
    ///
    /// If the address is invalid or does not start with `rediss://`, if a PEM is invalid, or if the
    /// server does not respond.
    pub async fn connect_tls(
        address: &str,
        prefix: impl Into<String>,
        root: Option<&[u8]>,
        identity: Option<(&[u8], &[u8])>,
    ) -> Result<Self, StoreError> {
        let certificates = TlsCertificates {
            client_tls: identity.map(|(certificate, key)| redis::ClientTlsConfig {
                client_cert: certificate.to_vec(),
                client_key: key.to_vec(),
            }),
            root_cert: root.map(<[u8]>::to_vec),
        };
        let client = Client::build_with_tls(address, certificates).map_err(store_error)?;
        let store = Self::lazy(client, prefix.into())?;
        store.query::<()>(redis::cmd("PING")).await?;
        Ok(store)
    }

    fn lazy(client: Client, prefix: String) -> Result<Self, StoreError> {
        // The caller has a timeout and a backoff: a retry below would delay both.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_response_timeout(Some(CONNECTION_TIMEOUT));
        let connection =
            ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(store_error)?;
        let scripts = Scripts {
            lease: Script::new(include_str!("lease.lua")),
            extend: Script::new(include_str!("extend.lua")),
            release: Script::new(include_str!("release.lua")),
            mark_in_progress: Script::new(include_str!("mark_in_progress.lua")),
            commit: Script::new(include_str!("commit.lua")),
            update: Script::new(include_str!("update.lua")),
            take_uses: Script::new(include_str!("take_uses.lua")),
        };
        let channel = format!("{prefix} changes");
        Ok(Self { shared: Arc::new(Shared { client, prefix, channel, scripts }), connection })
    }

    fn record_key(&self, key: &str) -> String {
        format!("{}{key}", self.shared.prefix)
    }

    fn lease_key(&self, key: &str) -> String {
        format!("{}{key} lease", self.shared.prefix)
    }

    async fn query<T: FromRedisValue>(&self, command: redis::Cmd) -> Result<T, StoreError> {
        command.query_async(&mut self.connection.clone()).await.map_err(store_error)
    }

    async fn run_script<T: FromRedisValue>(
        &self,
        key: &str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let response = script.invoke_async(&mut self.connection.clone()).await;
        response.map_err(|error| store_error(error).at_key(key))
    }
}

/// The fields `v r e i o p` of a record: version number, revision, ended, interrupted, owner,
/// payload.
///
/// Fields that do not exist are `None`. The hash also has `f`, the last fencing token, and `u`, the
/// uses of the version.
type Fields = (Option<u64>, Option<u64>, Option<u8>, Option<u8>, Option<String>, Option<Vec<u8>>);

fn record(key: &str, fields: Fields) -> Result<Record, StoreError> {
    let (version, revision, ended, interrupted, writer, payload) = fields;
    let interrupted = interrupted.unwrap_or(0) != 0;
    let Some(number) = version else {
        // Only leases were granted so far; the first renewal may have been interrupted.
        return Ok(Record { interrupted, ..Record::absent() });
    };
    let corrupt = || StoreError::new(StoreErrorKind::Corrupt).at_key(key);
    let (Some(revision), Some(ended), Some(writer), Some(payload)) = (revision, ended, writer, payload)
    else {
        return Err(corrupt());
    };
    let version = RecordVersion { number, revision, ended: ended != 0 };
    let writer = Owner::parse(&writer).ok_or_else(corrupt)?;
    let mut record = Record::new(version, Some(writer), payload.into());
    record.interrupted = interrupted;
    Ok(record)
}

/// The response of a script that writes: 1, or 0 and the fields of the current record.
type WriteReply = Vec<redis::Value>;

fn outcome(key: &str, version: RecordVersion, reply: WriteReply) -> Result<CommitOutcome, StoreError> {
    let mut values = reply.into_iter();
    match values.next() {
        Some(redis::Value::Int(1)) => Ok(CommitOutcome::Written(version)),
        _ => {
            let fields = Fields::from_redis_value(redis::Value::Array(values.collect()))
                .map_err(|error| store_error(error.into()).at_key(key))?;
            Ok(CommitOutcome::Conflict(record(key, fields)?))
        }
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Converts an error of the client.
fn store_error(error: RedisError) -> StoreError {
    let kind = match error.kind() {
        _ if error.is_timeout() => StoreErrorKind::TimedOut,
        ErrorKind::InvalidClientConfig => StoreErrorKind::BadAddress,
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => StoreErrorKind::Corrupt,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::MasterDown,
        ) => StoreErrorKind::Unreachable,
        _ if error.code() == Some("WRONGTYPE") => StoreErrorKind::Corrupt,
        ErrorKind::AuthenticationFailed | ErrorKind::Server(_) | ErrorKind::Extension => {
            StoreErrorKind::Rejected
        }
        _ => StoreErrorKind::Unreachable,
    };
    StoreError::caused_by(kind, error)
}

impl SharedStore for RedisStore {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Record> {
        Box::pin(async move {
            let mut command = redis::cmd("HMGET");
            command.arg(self.record_key(key)).arg(&["v", "r", "e", "i", "o", "p"]);
            let fields = self.query(command).await.map_err(|error| error.at_key(key))?;
            record(key, fields)
        })
    }

    fn versions<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<RecordVersion>> {
        Box::pin(async move {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipe = redis::pipe();
            for key in keys {
                pipe.cmd("HMGET").arg(self.record_key(key)).arg(&["v", "r", "e"]);
            }
            let versions: Vec<(Option<u64>, Option<u64>, Option<u8>)> =
                pipe.query_async(&mut self.connection.clone()).await.map_err(store_error)?;
            let version =
                |(version, revision, ended): (Option<u64>, Option<u64>, Option<u8>)| RecordVersion {
                    number: version.unwrap_or(0),
                    revision: revision.unwrap_or(0),
                    ended: ended.unwrap_or(0) != 0,
                };
            Ok(versions.into_iter().map(version).collect())
        })
    }

    fn lease<'a>(&'a self, key: &'a str, owner: Owner, ttl: Duration) -> StoreFuture<'a, LeaseOutcome> {
        Box::pin(async move {
            let mut script = self.shared.scripts.lease.prepare_invoke();
            script.key(self.record_key(key)).key(self.lease_key(key));
            script.arg(owner.to_string()).arg(millis(ttl));
            let (granted, number): (u8, u64) = self.run_script(key, &script).await?;
            Ok(match granted {
                1 => LeaseOutcome::Granted(FencingToken::new(number)),
                _ => LeaseOutcome::Held(Duration::from_millis(number.max(1))),
            })
        })
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut script = self.shared.scripts.extend.prepare_invoke();
            script.key(self.record_key(key)).key(self.lease_key(key));
            script.arg(format!("{owner}:{token}")).arg(millis(ttl));
            self.run_script(key, &script).await
        })
    }

    fn release<'a>(&'a self, key: &'a str, owner: Owner, token: FencingToken) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut script = self.shared.scripts.release.prepare_invoke();
            script.key(self.record_key(key)).key(self.lease_key(key)).arg(format!("{owner}:{token}"));
            self.run_script(key, &script).await
        })
    }

    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut script = self.shared.scripts.mark_in_progress.prepare_invoke();
            script.key(self.record_key(key)).key(self.lease_key(key)).arg(format!("{owner}:{token}"));
            self.run_script(key, &script).await
        })
    }

    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome> {
        Box::pin(async move {
            let version = RecordVersion { number: commit.version, revision: 0, ended: commit.ended };
            let mut script = self.shared.scripts.commit.prepare_invoke();
            script.key(self.record_key(key)).key(self.lease_key(key));
            script.arg(commit.expected).arg(commit.version);
            script.arg(commit.token.map_or_else(String::new, |token| token.to_string()));
            script.arg(commit.owner.to_string()).arg(u8::from(commit.ended)).arg(&commit.payload[..]);
            script.arg(&self.shared.channel).arg(key).arg(u8::from(commit.interrupted));
            outcome(key, version, self.run_script(key, &script).await?)
        })
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome> {
        Box::pin(async move {
            let next = RecordVersion { revision: version.revision + 1, ..version };
            let mut script = self.shared.scripts.update.prepare_invoke();
            script.key(self.record_key(key));
            script.arg(version.number).arg(version.revision).arg(next.revision);
            script.arg(owner.to_string()).arg(&payload[..]);
            script.arg(&self.shared.channel).arg(key);
            outcome(key, next, self.run_script(key, &script).await?)
        })
    }

    fn take_uses<'a>(
        &'a self,
        key: &'a str,
        version: u64,
        want: u64,
        limit: u64,
    ) -> StoreFuture<'a, UseGrant> {
        Box::pin(async move {
            let mut script = self.shared.scripts.take_uses.prepare_invoke();
            script.key(self.record_key(key)).arg(version).arg(want).arg(limit);
            let (granted, total) = self.run_script(key, &script).await?;
            Ok(UseGrant::new(granted, total))
        })
    }

    fn watch<'a>(&'a self, events: mpsc::Sender<StoreEvent>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let closed = || StoreError::new(StoreErrorKind::Unreachable);
            let timed_out = |_| StoreError::new(StoreErrorKind::TimedOut);
            let subscribe = async {
                let mut subscription = self.shared.client.get_async_pubsub().await?;
                subscription.subscribe(&self.shared.channel).await?;
                Ok::<_, RedisError>(subscription)
            };
            let subscription =
                timeout(CONNECTION_TIMEOUT, subscribe).await.map_err(timed_out)?.map_err(store_error)?;
            let (mut sink, mut messages) = subscription.split();
            let mut event = Some(StoreEvent::Lagged);
            let mut ping_at = Instant::now() + PING;
            loop {
                if let Some(event) = event.take()
                    && events.send(event).await.is_err()
                {
                    return Ok(());
                }
                tokio::select! {
                    message = poll_fn(|context| Pin::new(&mut messages).poll_next(context)) => {
                        let message = message.ok_or_else(closed)?;
                        event = Some(parse_event(message.get_payload_bytes()));
                    }
                    // A peer that has vanished without closing the connection sends nothing at all.
                    () = sleep_until(ping_at) => {
                        ping_at = Instant::now() + PING;
                        timeout(CONNECTION_TIMEOUT, sink.ping::<()>()).await.map_err(timed_out)?.map_err(store_error)?;
                    }
                    () = events.closed() => return Ok(()),
                }
            }
        })
    }
}

/// Parses a message that a script has published. An unknown message may stand for any change.
fn parse_event(message: &[u8]) -> StoreEvent {
    let read = || {
        let mut parts = std::str::from_utf8(message).ok()?.splitn(5, ' ');
        let mut part = || parts.next();
        let (number, revision) = (part()?.parse().ok()?, part()?.parse().ok()?);
        let ended = part()? == "1";
        let writer = Owner::parse(part()?)?;
        let key = part()?.to_owned();
        Some(StoreEvent::Updated { key, version: RecordVersion { number, revision, ended }, writer })
    };
    read().unwrap_or(StoreEvent::Lagged)
}

/// Omits the address, which may contain a password.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.shared.prefix).finish_non_exhaustive()
    }
}
