//! A store in a directory, for the processes of one machine.

use std::{
    fmt::{self, Write as _},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fs4::{FileExt, TryLockError};

use super::{
    Commit, CommitOutcome, FencingToken, LeaseOutcome, Owner, Record, RecordVersion, SharedStore, StoreError,
    StoreErrorKind, StoreFuture, UseGrant,
    record_entry::{Lease, RecordEntry},
};
use crate::fs::{Durability, private, replace};

/// A store in a directory, for the processes of one machine.
///
/// Each record is a file that is replaced as a whole, so that a reader never sees a part of it. A
/// lock file is held during each change. The store pushes no events: changes are found by polling.
///
/// The directory must be on a local disk, where file locks work. The files contain live sessions,
/// unless they are [encrypted](super::SharingConfig::encrypt_with), and only their owner may read
/// them.
///
/// # Clone
///
/// Clones use the same directory.
#[derive(Clone)]
pub struct FileStore {
    directory: PathBuf,
}

/// How long a change waits for the lock of another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

impl FileStore {
    /// Opens the store in this directory, and creates the directory if it is missing.
    ///
    /// # Errors
    ///
    /// If the directory cannot be created.
    ///
    /// # Blocking
    ///
    /// Accesses the disk. All other methods use the blocking threads of tokio.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(unreachable)?;
        Ok(Self { directory })
    }

    /// Applies `act` to the entry of `key` under its lock, and writes the entry if it has changed.
    fn change<'a, T: Send + 'static>(
        &'a self,
        key: &'a str,
        act: impl FnOnce(&mut RecordEntry, Duration) -> (T, EntryWrite) + Send + 'static,
    ) -> StoreFuture<'a, T> {
        let (path, key) = (self.path(key), key.to_owned());
        Box::pin(blocking(move || {
            let _lock = lock(&path)?;
            let mut entry = read(&path, &key)?;
            let (outcome, write_as) = act(&mut entry, now());
            match write_as {
                EntryWrite::Unchanged => {}
                EntryWrite::Changed => write(&path, &key, &entry, Durability::Process)?,
                EntryWrite::Durable => write(&path, &key, &entry, Durability::PowerLoss)?,
            }
            Ok(outcome)
        }))
    }

    /// Returns the path of a key's files, without the extension.
    fn path(&self, key: &str) -> PathBuf {
        /// File systems limit names to 255 bytes.
        const MAX_NAME: usize = 200;
        let mut name = String::with_capacity(key.len());
        for byte in key.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' => name.push(byte.into()),
                // Some file systems ignore case.
                _ => write!(name, "_{byte:02x}").expect("strings take everything"),
            }
        }
        let mut path = self.directory.clone();
        let mut rest = name.as_str();
        while rest.len() > MAX_NAME {
            let (directory, after) = rest.split_at(MAX_NAME);
            path.push(format!("{directory}+"));
            rest = after;
        }
        path.push(format!("{rest}."));
        path
    }
}

/// How an entry is written after a request.
enum EntryWrite {
    Unchanged,
    Changed,
    /// Written so that it survives a power failure.
    Durable,
}

impl EntryWrite {
    fn changed_if(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Unchanged }
    }

    fn committed(outcome: &CommitOutcome) -> Self {
        if matches!(outcome, CommitOutcome::Written(_)) { Self::Durable } else { Self::Unchanged }
    }
}

/// The time since the epoch: all processes of a machine share this clock.
///
/// Leases last longer by as much as the clock is set back.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let cancelled = |error| StoreError::caused_by(StoreErrorKind::Unreachable, error);
    crate::fs::blocking(act, cancelled).await
}

fn unreachable(error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            StoreErrorKind::Rejected
        }
        _ => StoreErrorKind::Unreachable,
    };
    StoreError::caused_by(kind, error)
}

fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(extension);
    path.into()
}

/// Waits for the lock of an entry. The lock ends when the file is closed, also by a process that
/// dies.
fn lock(path: &Path) -> Result<File, StoreError> {
    let path = with_extension(path, "lock");
    let open = || private().create(true).truncate(false).write(true).open(&path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A long key has directories of its own.
            fs::create_dir_all(path.parent().expect("it is in the store's directory"))
                .map_err(unreachable)?;
            open()
        }
        opened => opened,
    }
    .map_err(unreachable)?;
    let started = Instant::now();
    loop {
        match FileExt::try_lock(&file) {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(unreachable(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_TIMEOUT => {
                return Err(StoreError::new(StoreErrorKind::TimedOut));
            }
            // The system has no wait with a timeout. A lock is held for one write only.
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The first line of every file.
const HEADER: &str = "tower-client-sessions shared 1";
/// The prefix of the header in every version of the format.
const MAGIC: &str = "tower-client-sessions shared ";

fn read(path: &Path, key: &str) -> Result<RecordEntry, StoreError> {
    match fs::read(with_extension(path, "session")) {
        Ok(bytes) => parse(&bytes, key).map_err(|kind| StoreError::new(kind).at_key(key)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(RecordEntry::absent()),
        Err(error) => Err(unreachable(error).at_key(key)),
    }
}

fn write(path: &Path, key: &str, entry: &RecordEntry, durability: Durability) -> Result<(), StoreError> {
    let (temporary, path) = (with_extension(path, "new"), with_extension(path, "session"));
    // The lock is held: no other process writes the temporary file.
    replace(&temporary, &path, durability, |file| file.write_all(&format(key, entry)))
        .map_err(|error| unreachable(error).at_key(key))
}

/// Writes lines of a name and a value, an empty line, and the payload.
fn format(key: &str, entry: &RecordEntry) -> Vec<u8> {
    let Record { version, writer, interrupted, payload } = &entry.record;
    let mut text = format!(
        "{HEADER}\nkey {}\nversion {}\nrevision {}\nended {}\ninterrupted {}\ntoken {}\nuses {}\nlength {}\n",
        key.escape_default(),
        version.number,
        version.revision,
        version.ended,
        interrupted,
        entry.last_token,
        entry.uses,
        payload.len(),
    );
    if let Some(writer) = writer {
        let _ = writeln!(text, "writer {writer}");
    }
    if let Some(Lease { owner, token, until }) = &entry.lease {
        let _ = writeln!(text, "lease {owner} {token} {}", until.as_millis());
    }
    text.push('\n');
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

fn parse(bytes: &[u8], key: &str) -> Result<RecordEntry, StoreErrorKind> {
    const CORRUPT: StoreErrorKind = StoreErrorKind::Corrupt;
    fn number<T: std::str::FromStr>(value: &str) -> Result<T, StoreErrorKind> {
        value.parse().map_err(|_| CORRUPT)
    }
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").ok_or(CORRUPT)?;
    let payload = &bytes[end + 2..];
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| CORRUPT)?;
    let mut lines = head.lines();
    match lines.next() {
        Some(HEADER) => {}
        Some(line) if line.starts_with(MAGIC) => return Err(StoreErrorKind::UnsupportedFormat),
        _ => return Err(CORRUPT),
    }
    let mut entry = RecordEntry::absent();
    let record = &mut entry.record;
    let (mut has_this_key, mut length) = (false, None);
    for line in lines {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "key" => has_this_key = value == key.escape_default().to_string(),
            "version" => record.version.number = number(value)?,
            "revision" => record.version.revision = number(value)?,
            "ended" => record.version.ended = number(value)?,
            "interrupted" => record.interrupted = number(value)?,
            "token" => entry.last_token = number(value)?,
            "uses" => entry.uses = number(value)?,
            "length" => length = Some(number::<usize>(value)?),
            "writer" => record.writer = Some(Owner::parse(value).ok_or(CORRUPT)?),
            "lease" => {
                let mut parts = value.split(' ');
                let mut part = || parts.next().ok_or(CORRUPT);
                let owner = Owner::parse(part()?).ok_or(CORRUPT)?;
                let token = FencingToken::new(number(part()?)?);
                let until = Duration::from_millis(number(part()?)?);
                entry.lease = Some(Lease { owner, token, until });
            }
            _ => return Err(CORRUPT),
        }
    }
    if !has_this_key || length != Some(payload.len()) {
        return Err(CORRUPT);
    }
    record.payload = Bytes::copy_from_slice(payload);
    Ok(entry)
}

impl SharedStore for FileStore {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Record> {
        let (path, key) = (self.path(key), key.to_owned());
        // Reads need no lock: a file is replaced as a whole.
        Box::pin(blocking(move || Ok(read(&path, &key)?.record)))
    }

    fn versions<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<RecordVersion>> {
        let files: Vec<_> = keys.iter().map(|key| (self.path(key), key.clone())).collect();
        Box::pin(blocking(move || {
            files.iter().map(|(path, key)| Ok(read(path, key)?.record.version)).collect()
        }))
    }

    fn lease<'a>(&'a self, key: &'a str, owner: Owner, ttl: Duration) -> StoreFuture<'a, LeaseOutcome> {
        self.change(key, move |entry, now| {
            let outcome = entry.lease(owner, ttl, now);
            (outcome, EntryWrite::changed_if(matches!(outcome, LeaseOutcome::Granted(_))))
        })
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        self.change(key, move |entry, now| {
            let is_held = entry.extend(owner, token, ttl, now);
            (is_held, EntryWrite::changed_if(is_held))
        })
    }

    fn release<'a>(&'a self, key: &'a str, owner: Owner, token: FencingToken) -> StoreFuture<'a, ()> {
        self.change(key, move |entry, now| {
            let before = entry.lease;
            entry.release(owner, token, now);
            ((), EntryWrite::changed_if(entry.lease != before))
        })
    }

    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        token: FencingToken,
    ) -> StoreFuture<'a, bool> {
        self.change(key, move |entry, now| {
            let is_held = entry.mark_in_progress(owner, token, now);
            (is_held, if is_held { EntryWrite::Durable } else { EntryWrite::Unchanged })
        })
    }

    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome> {
        self.change(key, move |entry, now| {
            let outcome = entry.commit(commit, now);
            let write_as = EntryWrite::committed(&outcome);
            (outcome, write_as)
        })
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        version: RecordVersion,
        owner: Owner,
        payload: Bytes,
    ) -> StoreFuture<'a, CommitOutcome> {
        self.change(key, move |entry, _| {
            let outcome = entry.update(version, owner, payload);
            let write_as = EntryWrite::committed(&outcome);
            (outcome, write_as)
        })
    }

    fn take_uses<'a>(
        &'a self,
        key: &'a str,
        version: u64,
        want: u64,
        limit: u64,
    ) -> StoreFuture<'a, UseGrant> {
        self.change(key, move |entry, _| {
            let grant = entry.take_uses(version, want, limit);
            (grant, EntryWrite::changed_if(grant.granted > 0))
        })
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("directory", &self.directory).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> RecordEntry {
        let owner = Owner::random();
        let version = RecordVersion { number: 3, revision: 2, ended: false };
        let mut entry = RecordEntry::absent();
        entry.record = Record::new(version, Some(owner), Bytes::from_static(b"\n\npayload\n\n"));
        entry.record.interrupted = true;
        entry.last_token = 9;
        entry.uses = 4;
        entry.lease = Some(Lease { owner, token: FencingToken::new(9), until: Duration::from_millis(1234) });
        entry
    }

    #[test]
    fn a_written_entry_is_read_back() {
        for entry in [entry(), RecordEntry::absent()] {
            let read = parse(&format("a\nkey", &entry), "a\nkey").unwrap();
            assert_eq!(format!("{read:?}"), format!("{entry:?}"));
            assert_eq!(read.record.payload, entry.record.payload);
        }
    }

    #[test]
    fn hazard_49_no_part_of_a_file_is_read_as_a_record() {
        let whole = format("key", &entry());
        for length in 0..whole.len() {
            assert_eq!(
                parse(&whole[..length], "key").unwrap_err(),
                StoreErrorKind::Corrupt,
                "{length} bytes"
            );
        }
        let mut longer = whole.clone();
        longer.push(b'x');
        assert_eq!(parse(&longer, "key").unwrap_err(), StoreErrorKind::Corrupt);
        assert_eq!(parse(&whole, "another").unwrap_err(), StoreErrorKind::Corrupt, "the file of another key");
        let newer = String::from_utf8(whole).unwrap().replace("shared 1", "shared 2");
        assert_eq!(parse(newer.as_bytes(), "key").unwrap_err(), StoreErrorKind::UnsupportedFormat);
    }

    #[test]
    fn each_key_has_its_own_file() {
        let store = FileStore { directory: "store".into() };
        let path = |key: &str| store.path(key).display().to_string();
        assert_eq!(path("alice-2"), "store/alice-2.");
        assert_eq!(path("Alice"), "store/_41lice.");
        assert_eq!(path("../a_b"), "store/_2e_2e_2fa_5fb.");
        assert_eq!(path(""), "store/.");
        let long = path(&"x".repeat(450));
        assert!(long.split('/').all(|name| name.len() <= 201) && long.len() > 450, "{long}");
        assert_ne!(path(&"x".repeat(200)), path(&"x".repeat(201)));
    }
}
