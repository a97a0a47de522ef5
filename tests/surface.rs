//! Checks the auto traits of every public type, so that a private field cannot remove one
//! unnoticed.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs,
    future::Ready,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::util::ServiceFn;
use tower_client_sessions::{
    client, cookies, gate, pool, profile, profile_layer, redirect, renewal, session, shared,
};

type Body = Full<Bytes>;
type ClientFuture = Ready<Result<Response<Body>, Infallible>>;
type Client<B = Body> = ServiceFn<fn(Request<B>) -> ClientFuture>;

/// An inherent constant hides that of [`Lacks`] if its bound holds.
struct Has<T>(PhantomData<T>);

trait Lacks {
    const SEND: bool = false;
    const SYNC: bool = false;
    const UNPIN: bool = false;
}

impl<T> Lacks for T {}

impl<T: Send> Has<T> {
    const SEND: bool = true;
}

impl<T: Sync> Has<T> {
    const SYNC: bool = true;
}

impl<T: Unpin> Has<T> {
    const UNPIN: bool = true;
}

/// A public type: its path, the expected auto traits, and those that it implements.
struct Row(&'static str, &'static str, [bool; 3]);

macro_rules! auto_traits {
    ($($type:ty: $($expected:ident)&*,)*) => {
        [$(Row(
            stringify!($type),
            stringify!($($expected)&*),
            [<Has<$type>>::SEND, <Has<$type>>::SYNC, <Has<$type>>::UNPIN],
        ),)*]
    };
}

/// A trait that is not listed must not be implemented.
const TYPES: &[Row] = &auto_traits! {
    client::ClientError: Send & Sync & Unpin,
    client::ClientErrorKind: Send & Sync & Unpin,
    client::IdentityClient<Body>: Send & Sync & Unpin,
    client::IdentityClientBuilder: Send & Sync & Unpin,
    client::ResponseFuture: Send & Sync & Unpin,
    cookies::ConversionReport: Send & Sync & Unpin,
    cookies::CookieError: Send & Sync & Unpin,
    cookies::CookieErrorKind: Send & Sync & Unpin,
    cookies::CookieFormat: Send & Sync & Unpin,
    cookies::CookieUrl<'static>: Send & Sync & Unpin,
    cookies::FormatError: Send & Sync & Unpin,
    cookies::FormatErrorKind: Send & Sync & Unpin,
    cookies::ImportedCookies: Send & Sync & Unpin,
    cookies::Jar: Send & Sync & Unpin,
    cookies::Limits: Send & Sync & Unpin,
    cookies::Loss: Send & Sync & Unpin,
    cookies::LossReason: Send & Sync & Unpin,
    cookies::NewCookie<'static>: Send & Sync & Unpin,
    cookies::SameSite: Send & Sync & Unpin,
    cookies::StoreOutcome<'static>: Send & Sync & Unpin,
    cookies::StoredCookie: Send & Sync & Unpin,
    cookies::StoredCookieBuilder: Send & Sync & Unpin,
    cookies::Timestamp: Send & Sync & Unpin,
    gate::ConfigError: Send & Sync & Unpin,
    gate::GateConfig: Send & Sync & Unpin,
    gate::PermanentError: Send & Sync & Unpin,
    gate::Permit<String>: Send & Sync & Unpin,
    gate::Release: Send & Sync & Unpin,
    gate::RenewalError: Send & Sync & Unpin,
    gate::RenewalErrorKind: Send & Sync & Unpin,
    gate::RenewalGate<String>: Send & Sync & Unpin,
    gate::RenewalHandle: Send & Sync & Unpin,
    gate::RenewalReason: Send & Sync & Unpin,
    pool::Lease: Send & Sync & Unpin,
    pool::LeasedBody<Body>: Send & Sync & Unpin,
    pool::Member: Send & Sync & Unpin,
    pool::MemberSnapshot: Send & Sync & Unpin,
    pool::MemberState: Send & Sync & Unpin,
    pool::MemberView: Send & Sync & Unpin,
    pool::Outcome<'static>: Unpin,
    pool::PoolConfigError: Send & Sync & Unpin,
    pool::PoolConfigErrorKind: Send & Sync & Unpin,
    pool::PoolError: Send & Sync & Unpin,
    pool::PoolErrorKind: Send & Sync & Unpin,
    pool::PoolLayer: Send & Sync & Unpin,
    pool::PoolService<Client>: Send & Sync & Unpin,
    pool::PoolSnapshot: Send & Sync & Unpin,
    pool::PoolStats: Send & Sync & Unpin,
    pool::RequestView<'static>: Send & Sync & Unpin,
    pool::ResponseFuture<Client, Body>: Send & Sync,
    pool::SessionPool: Send & Sync & Unpin,
    pool::SessionPoolBuilder: Send & Sync & Unpin,
    pool::Strategy: Send & Sync & Unpin,
    pool::TriedSessions: Send & Sync & Unpin,
    pool::TriedSessionsLayer: Send & Sync & Unpin,
    pool::TriedSessionsService<Client>: Send & Sync & Unpin,
    pool::UnusedSession: Send & Sync & Unpin,
    pool::Verdict: Send & Sync & Unpin,
    profile::Credentials: Send & Sync & Unpin,
    profile::OnExhausted: Send & Sync & Unpin,
    profile::Profile: Send & Sync & Unpin,
    profile::ProfileBuilder: Send & Sync & Unpin,
    profile::ProfileError: Send & Sync & Unpin,
    profile::ProfileErrorKind: Send & Sync & Unpin,
    profile::ProfileIssue: Send & Sync & Unpin,
    profile::ProfileStrategy: Send & Sync & Unpin,
    profile::Profiles: Send & Sync & Unpin,
    profile::Proxy: Send & Sync & Unpin,
    profile::ProxyScheme: Send & Sync & Unpin,
    profile::ProxyServer: Send & Sync & Unpin,
    profile::UnknownProfile: Send & Sync & Unpin,
    profile_layer::ProfileLayer: Send & Sync & Unpin,
    profile_layer::ProfileService<Client>: Send & Sync & Unpin,
    profile_layer::ResponseFuture<Client, Body>: Send & Sync & Unpin,
    redirect::KeepSession: Send & Sync & Unpin,
    redirect::RedirectLayer<Body>: Send & Sync & Unpin,
    redirect::RedirectService<Client, Body>: Send & Sync & Unpin,
    redirect::ResponseFuture<Client, Body>: Send & Sync & Unpin,
    renewal::Expired: Send & Sync & Unpin,
    renewal::LoginError: Send & Sync & Unpin,
    renewal::OnEmpty: Send & Sync & Unpin,
    renewal::PeekBody<Body>: Send & Sync & Unpin,
    renewal::PeekFuture<ClientFuture, Body>: Send & Sync,
    renewal::PeekLayer: Send & Sync & Unpin,
    renewal::PeekService<Client>: Send & Sync & Unpin,
    renewal::PeekedBody: Send & Sync & Unpin,
    renewal::PrebufferFuture<Client<renewal::ReplayBody<Body>>, Body>: Send & Sync & Unpin,
    renewal::PrebufferLayer: Send & Sync & Unpin,
    renewal::PrebufferService<Client>: Send & Sync & Unpin,
    renewal::RejectedResponse: Send & Sync & Unpin,
    renewal::Renewal<Body>: Send & Sync & Unpin,
    renewal::RenewalBody: Send & Unpin,
    renewal::RenewalLayer<Body>: Send & Sync & Unpin,
    renewal::RenewalService<Client, Body>: Send & Sync & Unpin,
    renewal::ReplayBody<Body>: Send & Sync & Unpin,
    renewal::ReplayBudget: Send & Sync & Unpin,
    renewal::ReplayBudgetLayer: Send & Sync & Unpin,
    renewal::ReplayBudgetService<Client>: Send & Sync & Unpin,
    renewal::ReplayMethods: Send & Sync & Unpin,
    renewal::ResponseFuture<Client, Body>: Send & Sync,
    renewal::ResponseView<'static>: Send & Sync & Unpin,
    renewal::SessionCommand: Send & Sync & Unpin,
    renewal::SessionDirectory: Send & Sync & Unpin,
    renewal::SessionQueue: Send & Sync & Unpin,
    renewal::SessionSource: Send & Sync & Unpin,
    renewal::SessionSourceError: Send & Sync & Unpin,
    renewal::SessionSourceErrorKind: Send & Sync & Unpin,
    renewal::StaleResponse: Send & Sync & Unpin,
    session::CookieMode: Send & Sync & Unpin,
    session::Event: Send & Sync & Unpin,
    session::EventKind: Send & Sync & Unpin,
    session::MissingBody: Send & Sync & Unpin,
    session::Events: Send & Sync & Unpin,
    session::Identity: Send & Sync & Unpin,
    session::NotReplayed: Send & Sync & Unpin,
    session::ReplayCause: Send & Sync & Unpin,
    session::RequestCookies: Send & Sync & Unpin,
    session::RequestPhase: Send & Sync & Unpin,
    session::ResponseFuture<Client, Body>: Send & Sync & Unpin,
    session::ResponseOutcome: Send & Sync & Unpin,
    session::Session: Send & Sync & Unpin,
    session::SessionError: Send & Sync & Unpin,
    session::SessionErrorKind: Send & Sync & Unpin,
    session::SessionId: Send & Sync & Unpin,
    session::SessionIdTaken: Send & Sync & Unpin,
    session::SessionInfo: Send & Sync & Unpin,
    session::SessionLayer: Send & Sync & Unpin,
    session::SessionService<Client>: Send & Sync & Unpin,
    session::Sessions: Send & Sync & Unpin,
    session::SessionsBuilder: Send & Sync & Unpin,
    session::Stats: Send & Sync & Unpin,
    session::snapshot::Autosave: Send & Sync & Unpin,
    session::snapshot::AutosaveBuilder: Send & Unpin,
    session::snapshot::ProfileDetail: Send & Sync & Unpin,
    session::snapshot::ProfileSnapshot: Send & Sync & Unpin,
    session::snapshot::ProxySnapshot: Send & Sync & Unpin,
    session::snapshot::RestoreError: Send & Sync & Unpin,
    session::snapshot::RestoreReport: Send & Sync & Unpin,
    session::snapshot::SessionSnapshot: Send & Sync & Unpin,
    session::snapshot::SessionsSnapshot: Send & Sync & Unpin,
    session::snapshot::SkipReason: Send & Sync & Unpin,
    session::snapshot::Skipped: Send & Sync & Unpin,
    session::snapshot::SnapshotError: Send & Sync & Unpin,
    session::snapshot::SnapshotErrorKind: Send & Sync & Unpin,
    session::snapshot::SnapshotOptions: Send & Sync & Unpin,
    shared::Commit: Send & Sync & Unpin,
    shared::CommitOutcome: Send & Sync & Unpin,
    shared::CookieSync: Send & Sync & Unpin,
    shared::EncryptionKey: Send & Sync & Unpin,
    shared::FencingToken: Send & Sync & Unpin,
    shared::FileStore: Send & Sync & Unpin,
    shared::LeaseOutcome: Send & Sync & Unpin,
    shared::MemoryStore: Send & Sync & Unpin,
    shared::Notifications: Send & Sync & Unpin,
    shared::OnUnreachable: Send & Sync & Unpin,
    shared::Owner: Send & Sync & Unpin,
    shared::Record: Send & Sync & Unpin,
    shared::RecordVersion: Send & Sync & Unpin,
    shared::RedisStore: Send & Sync & Unpin,
    shared::SharingConfig: Send & Sync & Unpin,
    shared::SharingStats: Send & Sync & Unpin,
    shared::StoreError: Send & Sync & Unpin,
    shared::StoreErrorKind: Send & Sync & Unpin,
    shared::StoreEvent: Send & Sync & Unpin,
    shared::UseGrant: Send & Sync & Unpin,
    shared::VersionEvent: Send & Sync & Unpin,
    shared::VersionEvents: Send & Sync & Unpin,
};

#[test]
fn public_types_implement_the_listed_auto_traits() {
    for Row(name, expected, has) in TYPES {
        let names = ["Send", "Sync", "Unpin"].iter().zip(has).filter(|(_, has)| **has);
        let implemented: Vec<_> = names.map(|(name, _)| *name).collect();
        assert_eq!(implemented.join(" & "), *expected, "{name}");
    }
}

#[test]
fn every_public_type_is_listed() {
    let listed: BTreeSet<_> = TYPES.iter().map(|Row(name, ..)| without_parameters(name)).collect();
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root =
        folders.find_map(|folder| folder.join("src/lib.rs").exists().then(|| folder.join("src"))).unwrap();
    let mut public = BTreeSet::new();
    collect(&root.join("lib.rs"), &root, "", &mut public);
    let missing: Vec<_> = public.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&public).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}, unknown: {unknown:?}");
}

/// `gate::Permit<String>`, however it is spaced, becomes `gate::Permit`.
fn without_parameters(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace()).take_while(|&c| c != '<').collect()
}

/// Adds the public types of a file and of the modules below it. `unreachable_pub` guarantees that
/// `pub` means public; a type of a private module is re-exported by the public module around it.
fn collect(file: &Path, folder: &Path, module: &str, public: &mut BTreeSet<String>) {
    let text = fs::read_to_string(file).unwrap();
    let mut is_test = false;
    let mut path = None;
    for line in text.lines().map(str::trim) {
        let mut words =
            line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        match (words.next(), words.next(), words.next()) {
            // The `$name` of a macro is no type.
            (Some("pub"), Some("struct" | "enum" | "union"), Some(name))
                if name.starts_with(char::is_uppercase) =>
            {
                public.insert(format!("{module}{name}"));
            }
            (Some("pub"), Some("mod"), Some(name)) if line.ends_with(';') && name != "guides" => {
                let (file, folder) = find(folder, name);
                collect(&file, &folder, &format!("{module}{name}::"), public);
            }
            (Some("mod"), Some(name), None) if line.ends_with(';') && !is_test => {
                let found = find(folder, name);
                let beside = path.take().map(|path| (file.with_file_name(path), folder.to_owned()));
                let (file, folder) = beside.unwrap_or(found);
                collect(&file, &folder, module, public);
            }
            (Some("pub"), Some("crate" | "super"), Some("mod")) if line.ends_with(';') && !is_test => {
                let (file, folder) = find(folder, words.next().unwrap());
                collect(&file, &folder, module, public);
            }
            _ => {}
        }
        if let Some(beside) = line.strip_prefix("#[path = \"") {
            path = Some(beside.trim_end_matches("\"]").to_owned());
        }
        is_test = line.starts_with("#[cfg(test)]")
            || line.starts_with("#[cfg(all(test")
            || is_test && line.starts_with("#[");
    }
}

/// The file of a module, and the folder of the modules below it.
fn find(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let file = folder.join(format!("{name}.rs"));
    let below = folder.join(name);
    if file.exists() { (file, below) } else { (below.join("mod.rs"), below) }
}
