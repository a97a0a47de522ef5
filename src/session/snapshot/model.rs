//! The data of snapshots, and their serde format.

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

/// The state of one session at one moment.
///
/// `Debug` shows no values of cookies, no credentials and no data.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "session", deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionSnapshot {
    pub(super) version: Version,
    /// The session's id.
    pub id: SessionId,
    /// The generation of the identity; without a current one, the last that the session had.
    #[serde(deserialize_with = "countable")]
    pub generation: u64,
    /// Whether the session had a current identity. Otherwise it waits for its renewal.
    pub current: bool,
    /// When the identity was created.
    pub created_at: Timestamp,
    /// The number of requests sent under the identity.
    #[serde(deserialize_with = "countable")]
    pub uses: u64,
    /// The identity's profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileSnapshot>,
    /// The cookies, in the order of their creation.
    #[serde(deserialize_with = "distinct_cookies")]
    pub cookies: Vec<StoredCookie>,
    /// The session's data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "distinct_keys")]
    pub data: BTreeMap<String, String>,
}

/// The states of all sessions, each at its own moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename = "sessions", deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionsSnapshot {
    pub(super) format: SnapshotFormat,
    pub(super) version: Version,
    /// When the snapshot was started.
    pub saved_at: Timestamp,
    /// The sessions, with distinct ids. If their number is limited, the most recently used are at
    /// the end.
    #[serde(deserialize_with = "distinct_sessions")]
    pub sessions: Vec<SessionSnapshot>,
}

/// The profile in a snapshot: see the [module documentation](super).
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "profile", deny_unknown_fields)]
#[non_exhaustive]
pub struct ProfileSnapshot {
    /// The name, by which it is found when it is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySnapshot>,
    /// The value of `User-Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The other headers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The address to connect from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// Whether parts of the profile were omitted.
    #[serde(default, skip_serializing_if = "is_off")]
    pub redacted: bool,
}

/// The proxy in a snapshot.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxySnapshot {
    /// A direct connection to the origin.
    Direct,
    /// A proxy server.
    Server {
        /// Scheme, host and port, without credentials.
        url: String,
        /// User name and password, if the proxy has them and they were not omitted.
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
            .field("created_at", &self.created_at)
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
            .field("redacted", &self.redacted)
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

/// The only version that is written and read.
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

/// Identifies files of this crate.
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
            _ => Err(D::Error::custom(format_args!("format is not {}", Self::NAME))),
        }
    }
}

/// Serialized as a string, even if it is a number.
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

/// A proxy server as it is serialized.
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
                f.write_str("\"direct\" or a map with a url")
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

/// A number that every JSON parser can represent, and that can still be incremented.
fn countable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let count = u64::deserialize(deserializer)?;
    if count < 1 << 53 { Ok(count) } else { Err(D::Error::custom("a count of 2^53 or more")) }
}

/// Reads a list of entries with distinct keys.
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
                return Err(A::Error::custom(format_args!("{} {place} is a duplicate", self.what)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn distinct_cookies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<StoredCookie>, D::Error> {
    // A cookie's key as bytes. The separators cannot be in any of its parts.
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
            f.write_str("a map of strings")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut data = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                if data.insert(key, value).is_some() {
                    return Err(A::Error::custom("duplicate key"));
                }
            }
            Ok(data)
        }
    }
    deserializer.deserialize_map(Reader)
}
