//! A store in a folder, for the processes of one machine.

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

/// A store in a folder, for the processes of one machine.
///
/// Each record is a file that is replaced as a whole, so that it is never read half written, and changes are made under a lock
/// file that is held for the change alone. It tells no changes: they are found by polling.
///
/// The folder must be on a disk of this machine, where locks work. Its files hold live sessions, unless they are sealed, and are
/// for their owner alone.
#[derive(Clone)]
pub struct FileStore {
    folder: PathBuf,
}

/// How long a change waits for another process to end its own.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

impl FileStore {
    /// A store in this folder, which is created if it is not there.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created.
    ///
    /// # Blocking
    ///
    /// Touches the disk; everything else that this store does, it does on tokio's blocking threads.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(unreachable)?;
        Ok(Self { folder })
    }

    /// Does `act` to the entry of `key` while no other process does, and writes what it has changed.
    fn change<'a, T: Send + 'static>(
        &'a self,
        key: &'a str,
        act: impl FnOnce(&mut RecordEntry, Duration) -> (T, EntryWrite) + Send + 'static,
    ) -> StoreFuture<'a, T> {
        let (path, key) = (self.path(key), key.to_owned());
        Box::pin(blocking(move || {
            let _lock = lock(&path)?;
            let mut entry = read(&path, &key)?;
            let (answer, keep) = act(&mut entry, now());
            match keep {
                EntryWrite::Unchanged => {}
                EntryWrite::Changed => write(&path, &key, &entry, Durability::Process)?,
                EntryWrite::Durable => write(&path, &key, &entry, Durability::PowerLoss)?,
            }
            Ok(answer)
        }))
    }

    /// The file of a key, without its extension.
    fn path(&self, key: &str) -> PathBuf {
        /// File systems take names of 255 bytes.
        const NAME: usize = 200;
        let mut name = String::with_capacity(key.len());
        for byte in key.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' => name.push(byte.into()),
                // A capital letter is not told from a small one everywhere.
                _ => write!(name, "_{byte:02x}").expect("strings take everything"),
            }
        }
        let mut path = self.folder.clone();
        let mut rest = name.as_str();
        while rest.len() > NAME {
            let (folder, after) = rest.split_at(NAME);
            path.push(format!("{folder}+"));
            rest = after;
        }
        path.push(format!("{rest}."));
        path
    }
}

/// What is to be done about an entry after it was looked at.
enum EntryWrite {
    Unchanged,
    Changed,
    /// Written so that it outlasts a loss of power.
    Durable,
}

impl EntryWrite {
    fn changed_if(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Unchanged }
    }

    fn committed(committed: &CommitOutcome) -> Self {
        if matches!(committed, CommitOutcome::Written(_)) { Self::Durable } else { Self::Unchanged }
    }
}

/// Processes of one machine share this clock; if it is set back, leases run that much longer.
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

/// Waits for the lock of an entry. It ends when the file is closed, also by the end of its process.
fn lock(path: &Path) -> Result<File, StoreError> {
    let path = with_extension(path, "lock");
    let open = || private().create(true).truncate(false).write(true).open(&path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A long key has folders of its own.
            fs::create_dir_all(path.parent().expect("it lies in the store's folder")).map_err(unreachable)?;
            open()
        }
        opened => opened,
    }
    .map_err(unreachable)?;
    let begun = Instant::now();
    loop {
        match FileExt::try_lock(&file) {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(unreachable(error)),
            Err(TryLockError::WouldBlock) if begun.elapsed() > LOCK_TIMEOUT => {
                return Err(StoreError::new(StoreErrorKind::TimedOut));
            }
            // A lock cannot be waited for with a bound; it is held for the length of a write.
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The first line of every file.
const HEADER: &str = "tower-client-sessions shared 1";
/// What every version of the header begins with.
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

/// Lines of a name and a value, an empty line, and the payload as it is.
fn format(key: &str, entry: &RecordEntry) -> Vec<u8> {
    let Record { version, writer, interrupted, payload } = &entry.record;
    let mut text = format!(
        "{HEADER}\nkey {}\nversion {}\nrevision {}\nended {}\ninterrupted {}\nfence {}\nuses {}\nlength {}\n",
        key.escape_default(),
        version.number,
        version.revision,
        version.ended,
        interrupted,
        entry.fence,
        entry.uses,
        payload.len(),
    );
    if let Some(writer) = writer {
        let _ = writeln!(text, "writer {writer}");
    }
    if let Some(Lease { owner, fence, until }) = &entry.lease {
        let _ = writeln!(text, "lease {owner} {fence} {}", until.as_millis());
    }
    text.push('\n');
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

fn parse(bytes: &[u8], key: &str) -> Result<RecordEntry, StoreErrorKind> {
    const DAMAGED: StoreErrorKind = StoreErrorKind::Corrupt;
    fn number<T: std::str::FromStr>(value: &str) -> Result<T, StoreErrorKind> {
        value.parse().map_err(|_| DAMAGED)
    }
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").ok_or(DAMAGED)?;
    let payload = &bytes[end + 2..];
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| DAMAGED)?;
    let mut lines = head.lines();
    match lines.next() {
        Some(HEADER) => {}
        Some(line) if line.starts_with(MAGIC) => return Err(StoreErrorKind::UnsupportedFormat),
        _ => return Err(DAMAGED),
    }
    let mut entry = RecordEntry::absent();
    let record = &mut entry.record;
    let (mut is_its_own, mut length) = (false, None);
    for line in lines {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "key" => is_its_own = value == key.escape_default().to_string(),
            "version" => record.version.number = number(value)?,
            "revision" => record.version.revision = number(value)?,
            "ended" => record.version.ended = number(value)?,
            "interrupted" => record.interrupted = number(value)?,
            "fence" => entry.fence = number(value)?,
            "uses" => entry.uses = number(value)?,
            "length" => length = Some(number::<usize>(value)?),
            "writer" => record.writer = Some(Owner::parse(value).ok_or(DAMAGED)?),
            "lease" => {
                let mut parts = value.split(' ');
                let mut part = || parts.next().ok_or(DAMAGED);
                let owner = Owner::parse(part()?).ok_or(DAMAGED)?;
                let (fence, until) = (number(part()?)?, Duration::from_millis(number(part()?)?));
                entry.lease = Some(Lease { owner, fence, until });
            }
            _ => return Err(DAMAGED),
        }
    }
    if !is_its_own || length != Some(payload.len()) {
        return Err(DAMAGED);
    }
    record.payload = Bytes::copy_from_slice(payload);
    Ok(entry)
}

impl SharedStore for FileStore {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Record> {
        let (path, key) = (self.path(key), key.to_owned());
        // Without the lock: a file is replaced as a whole.
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
            let leased = entry.lease(owner, ttl, now);
            (leased, EntryWrite::changed_if(matches!(leased, LeaseOutcome::Granted(_))))
        })
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        fence: FencingToken,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        self.change(key, move |entry, now| {
            let is_held = entry.extend(owner, fence, ttl, now);
            (is_held, EntryWrite::changed_if(is_held))
        })
    }

    fn release<'a>(&'a self, key: &'a str, owner: Owner, fence: FencingToken) -> StoreFuture<'a, ()> {
        self.change(key, move |entry, now| {
            let before = entry.lease;
            entry.release(owner, fence, now);
            ((), EntryWrite::changed_if(entry.lease != before))
        })
    }

    fn mark_in_progress<'a>(
        &'a self,
        key: &'a str,
        owner: Owner,
        fence: FencingToken,
    ) -> StoreFuture<'a, bool> {
        self.change(key, move |entry, now| {
            let is_held = entry.mark_in_progress(owner, fence, now);
            (is_held, if is_held { EntryWrite::Durable } else { EntryWrite::Unchanged })
        })
    }

    fn commit<'a>(&'a self, key: &'a str, commit: Commit) -> StoreFuture<'a, CommitOutcome> {
        self.change(key, move |entry, now| {
            let committed = entry.commit(commit, now);
            let keep = EntryWrite::committed(&committed);
            (committed, keep)
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
            let committed = entry.update(version, owner, payload);
            let keep = EntryWrite::committed(&committed);
            (committed, keep)
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
            let taken = entry.take_uses(version, want, limit);
            (taken, EntryWrite::changed_if(taken.granted > 0))
        })
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("folder", &self.folder).finish()
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
        entry.fence = 9;
        entry.uses = 4;
        entry.lease = Some(Lease { owner, fence: 9, until: Duration::from_millis(1234) });
        entry
    }

    #[test]
    fn what_is_written_is_read() {
        for entry in [entry(), RecordEntry::absent()] {
            let read = parse(&format("a\nkey", &entry), "a\nkey").unwrap();
            assert_eq!(format!("{read:?}"), format!("{entry:?}"));
            assert_eq!(read.record.payload, entry.record.payload);
        }
    }

    #[test]
    fn hazard_49_no_part_of_a_file_passes_for_a_whole_one() {
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
    fn keys_have_files_of_their_own() {
        let store = FileStore { folder: "store".into() };
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
