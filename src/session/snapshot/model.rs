//! The form of a snapshot.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::Hash,
    marker::PhantomData,
    net::IpAddr,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

use crate::{
    cookies::{StoredCookie, Timestamp},
    session::SessionId,
};

/// What one session is at one moment.
///
/// `Debug` shows no value of a cookie, no credentials and no data.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "session", deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionSnapshot {
    pub(super) version: Version,
    /// The session's name.
    pub id: SessionId,
    /// The generation of the identity or, of a session without a current one, the newest that it had.
    #[serde(deserialize_with = "countable")]
    pub generation: u64,
    /// Whether the session had a current identity. If not, it waits for its renewal.
    pub current: bool,
    /// When the identity was made.
    pub created_at: Timestamp,
    /// How often a request was sent under the identity.
    #[serde(deserialize_with = "countable")]
    pub uses: u64,
    /// The identity's profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileSnapshot>,
    /// The cookies, the one that was created first in front.
    #[serde(deserialize_with = "distinct_cookies")]
    pub cookies: Vec<StoredCookie>,
    /// What the program keeps with the session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "distinct_keys")]
    pub data: BTreeMap<String, String>,
}

/// What all sessions are, each at a moment of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename = "sessions", deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionsSnapshot {
    pub(super) format: SnapshotFormat,
    pub(super) version: Version,
    /// When the snapshot was begun.
    pub saved_at: Timestamp,
    /// The sessions, each under another name; where sessions are bounded in number, those used last are at the end.
    #[serde(deserialize_with = "distinct_sessions")]
    pub sessions: Vec<SessionSnapshot>,
}

/// What is kept of a profile: see the [module docs](super).
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "profile", deny_unknown_fields)]
#[non_exhaustive]
pub struct ProfileSnapshot {
    /// The name, by which it is found again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySnapshot>,
    /// The value of `User-Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The further headers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The address to connect from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// Whether there is more to the profile than is written here.
    #[serde(default, skip_serializing_if = "is_off")]
    pub redacted: bool,
}

/// What is kept of a proxy.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxySnapshot {
    /// Straight to the origin.
    Direct,
    /// By a server.
    Server {
        /// Scheme, host and port, without credentials.
        url: String,
        /// User name and password, if it has some and they were not withheld.
        credentials: Option<(String, String)>,
    },
}

fn is_off(flag: &bool) -> bool {
    !flag
}

impl fmt::Debug for SessionSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSnapshot")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .field("current", &self.current)
            .field("born", &self.created_at)
            .field("uses", &self.uses)
            .field("profile", &self.profile)
            .field("cookies", &self.cookies)
            .field("data", &self.data.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProfileSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ProfileSnapshot")
            .field("name", &self.name)
            .field("proxy", &self.proxy)
            .field("user_agent", &self.user_agent)
            .field("headers", &headers)
            .field("local_address", &self.local_address)
            .field("withheld", &self.redacted)
            .finish()
    }
}

impl fmt::Debug for ProxySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("Direct"),
            Self::Server { url, .. } => f.debug_struct("Server").field("url", url).finish_non_exhaustive(),
        }
    }
}

/// The version that is written and read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version;

impl Version {
    pub(super) const NUMBER: u64 = 1;
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::NUMBER)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            Self::NUMBER => Ok(Self),
            other => Err(D::Error::custom(format_args!("version {other} is not {}", Self::NUMBER))),
        }
    }
}

/// The mark of our own files.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapshotFormat;

impl SnapshotFormat {
    pub(super) const NAME: &str = "tower-client-sessions";
}

impl Serialize for SnapshotFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::NAME)
    }
}

impl<'de> Deserialize<'de> for SnapshotFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            Self::NAME => Ok(Self),
            _ => Err(D::Error::custom(format_args!("the format is not {}", Self::NAME))),
        }
    }
}

/// A name is text, also where it is a number.
impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

const DIRECT: &str = "direct";

/// A proxy server as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename = "proxy", deny_unknown_fields)]
struct Server {
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl Serialize for ProxySnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Direct => serializer.serialize_str(DIRECT),
            Self::Server { url, credentials } => {
                let (username, password) = credentials.clone().unzip();
                Server { url: url.clone(), username, password }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for ProxySnapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = ProxySnapshot;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"direct\" or a server with its url")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == DIRECT { Ok(ProxySnapshot::Direct) } else { Err(E::custom("not \"direct\"")) }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let server = Server::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                let credentials = match (server.username, server.password) {
                    (None, None) => None,
                    (username, password) => {
                        Some((username.unwrap_or_default(), password.unwrap_or_default()))
                    }
                };
                Ok(ProxySnapshot::Server { url: server.url, credentials })
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A count that leaves room to go on counting, and that every reader of JSON can hold.
fn countable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let count = u64::deserialize(deserializer)?;
    if count < 1 << 53 { Ok(count) } else { Err(D::Error::custom("a count of 2^53 or more")) }
}

/// Reads a list no two entries of which have one key.
struct Distinct<T, K, F> {
    key: F,
    what: &'static str,
    read: PhantomData<(T, K)>,
}

impl<T, K, F> Distinct<T, K, F> {
    fn by(key: F, what: &'static str) -> Self {
        Self { key, what, read: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>, K: Eq + Hash, F: Fn(&T) -> K> Visitor<'de> for Distinct<T, K, F> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}s", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let (mut entries, mut keys) = (Vec::new(), HashSet::new());
        while let Some(entry) = list.next_element::<T>()? {
            if !keys.insert((self.key)(&entry)) {
                let place = entries.len();
                return Err(A::Error::custom(format_args!("{} {place} is there twice", self.what)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn distinct_cookies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<StoredCookie>, D::Error> {
    // A cookie's key as bytes: those that cannot be in a part of it part them.
    let key = |cookie: &StoredCookie| {
        let one_host: &[u8] = if cookie.host_only() { b"=" } else { b"." };
        [cookie.domain().as_bytes(), one_host, cookie.path_bytes(), b"\n", cookie.name_bytes()].concat()
    };
    deserializer.deserialize_seq(Distinct::by(key, "cookie"))
}

fn distinct_sessions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SessionSnapshot>, D::Error> {
    deserializer.deserialize_seq(Distinct::by(|session: &SessionSnapshot| session.id.clone(), "session"))
}

fn distinct_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Reader;
    impl<'de> Visitor<'de> for Reader {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut data = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                if data.insert(key, value).is_some() {
                    return Err(A::Error::custom("a key is there twice"));
                }
            }
            Ok(data)
        }
    }
    deserializer.deserialize_map(Reader)
}
