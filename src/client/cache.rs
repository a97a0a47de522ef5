//! `ClientCache`: one HTTP client per identity, evicted in order of last use.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;

use super::{
    connection_count::{ConnectionCount, EvictIdle, Totals},
    connector::{Connector, Egress, Settings},
    error::{ClientError, ClientErrorKind},
};
use crate::{
    profile::{Proxy, ProxyServer},
    session::{Identity, IdentityInner, SessionInner},
};

/// The clients of all identities, shared by all clones of an `IdentityClient`.
pub(super) struct ClientCache<B> {
    pub(super) settings: Arc<Settings>,
    pub(super) limits: Limits,
    proxy_username: Option<ProxyUsername>,
    pub(super) totals: Arc<Totals>,
    /// Clients are dropped after the lock is released, because the drop wakes their connections.
    state: Mutex<State<B>>,
    /// A reference to this cache, for the connectors.
    evictor: Weak<dyn EvictIdle>,
}

/// Makes the user name for a proxy from the user name of the profile and the identity.
pub(super) type ProxyUsername = Arc<dyn Fn(&str, &Identity) -> String + Send + Sync>;

/// The client of an identity, and the egress that it connects through.
pub(super) struct CachedClient<B> {
    pub(super) client: Client<Connector, B>,
    pub(super) egress: Arc<Egress>,
}

/// The limits of a cache and of its clients.
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) identities: usize,
    pub(super) idle_timeout: Duration,
    pub(super) idle_per_host: usize,
}

struct State<B> {
    /// The entries by the address of their session. Their weak references prevent that the address
    /// is used again.
    sessions: HashMap<usize, Vec<Entry<B>>, foldhash::fast::RandomState>,
    /// The address of the session of each entry, by its last use.
    order: BTreeMap<u64, usize>,
    clock: u64,
    /// Number of entries at which entries of dropped identities are removed.
    sweep_at: usize,
}

/// One identity and its client.
struct Entry<B> {
    used: u64,
    key: CacheKey,
    /// The proxy as requests name it, before `proxy_username` is applied.
    proxy: Proxy,
    client: Client<Connector, B>,
    egress: Arc<Egress>,
    count: Arc<ConnectionCount>,
}

/// The identity of an entry; `None` for requests without an identity.
///
/// The weak references keep the addresses in use, so that an address always means the same
/// identity.
struct CacheKey(Option<(Weak<IdentityInner>, Weak<SessionInner>, u64)>);

impl CacheKey {
    fn is(&self, identity: Option<&Identity>) -> bool {
        match (&self.0, identity) {
            (Some((inner, ..)), Some(identity)) => std::ptr::eq(inner.as_ptr(), Arc::as_ptr(&identity.inner)),
            (None, None) => true,
            _ => false,
        }
    }

    /// Returns whether the identity was dropped, so that no request can be sent under it.
    fn is_dropped(&self) -> bool {
        self.0.as_ref().is_some_and(|(inner, ..)| inner.strong_count() == 0)
    }

    /// Returns whether the identity has ended, or was superseded by the generation `current`.
    fn has_ended(&self, current: Option<u64>) -> bool {
        let Some((inner, _, generation)) = &self.0 else {
            return false;
        };
        current.is_some_and(|current| *generation < current)
            || inner.upgrade().is_none_or(|inner| inner.version.is_ended())
    }
}

/// Stands for the address of a session in requests without an identity.
const ANONYMOUS: usize = 0;

impl<B> ClientCache<B>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    pub(super) fn new(
        settings: Settings,
        limits: Limits,
        proxy_username: Option<ProxyUsername>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            settings: Arc::new(settings),
            limits,
            proxy_username,
            totals: Arc::default(),
            state: Mutex::new(State {
                sessions: HashMap::default(),
                order: BTreeMap::new(),
                clock: 0,
                sweep_at: FIRST_SWEEP,
            }),
            evictor: this.clone(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().order.len()
    }

    /// Returns the client of `identity` through `proxy`, and creates it if there is none.
    pub(super) fn client(
        &self,
        identity: Option<&Identity>,
        proxy: &Proxy,
    ) -> Result<CachedClient<B>, ClientError> {
        // Read before the lock is taken, because the gate may take its own lock.
        let current = identity.and_then(|identity| identity.session.generation());
        if let Some(found) = self.find(identity, proxy, current, || None) {
            return Ok(found);
        }
        // `proxy_username` is user code, which must not run under the lock.
        let entry = self.entry(identity, proxy)?;
        let found = self.find(identity, proxy, current, || Some(entry));
        Ok(found.expect("the new entry is in the cache"))
    }

    fn find(
        &self,
        identity: Option<&Identity>,
        proxy: &Proxy,
        current: Option<u64>,
        entry: impl FnOnce() -> Option<Entry<B>>,
    ) -> Option<CachedClient<B>> {
        let session = identity.map_or(ANONYMOUS, |identity| Arc::as_ptr(&identity.session.0).addr());
        let mut removed = Vec::new();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.clock += 1;
        let now = state.clock;
        let is_own = |entry: &Entry<B>| entry.key.is(identity) && entry.proxy == *proxy;
        let known = state.sessions.get(&session).is_some_and(|entries| entries.iter().any(is_own));
        if !known {
            let mut entry = entry()?;
            entry.used = now;
            state.sessions.entry(session).or_default().push(entry);
        }
        let entries = state.sessions.get_mut(&session).expect("the entry was added above");
        // After a renewal, the old connections close with their last response, not after the idle
        // timeout.
        let order = &mut state.order;
        let ended = |entry: &mut Entry<B>| !entry.key.is(identity) && entry.key.has_ended(current);
        removed.extend(entries.extract_if(.., ended).inspect(|entry| _ = order.remove(&entry.used)));
        let entry = entries.iter_mut().find(|entry| is_own(entry)).expect("the entry was added above");
        order.remove(&entry.used);
        order.insert(now, session);
        entry.used = now;
        let found = CachedClient { client: entry.client.clone(), egress: entry.egress.clone() };
        if order.len() >= state.sweep_at {
            state.sweep(&mut removed);
        }
        while state.order.len() > self.limits.identities.max(1) {
            removed.extend(state.remove_oldest(None));
        }
        drop(guard);
        close_when_idle(removed);
        Some(found)
    }

    fn entry(&self, identity: Option<&Identity>, proxy: &Proxy) -> Result<Entry<B>, ClientError> {
        let proxy_for_identity =
            match (&self.proxy_username, identity, proxy.server().and_then(ProxyServer::credentials)) {
                (Some(proxy_username), Some(identity), Some(credentials)) => {
                    let username = proxy_username(credentials.username(), identity);
                    proxy.clone().with_credentials(username, credentials.password()).map_err(|error| {
                        ClientError::new(ClientErrorKind::Config)
                            .at(proxy)
                            .saying("proxy_username returned an invalid user name")
                            .caused_by(error)
                    })?
                }
                _ => proxy.clone(),
            };
        let local_address = identity.and_then(|identity| identity.profile()?.local_address());
        let egress = Arc::new(Egress::new(self.settings.clone(), proxy_for_identity, local_address));
        let count = ConnectionCount::new(&self.totals);
        let key = identity.map(|identity| {
            (Arc::downgrade(&identity.inner), Arc::downgrade(&identity.session.0), identity.generation())
        });
        let client = self.build(egress.clone(), count.clone());
        Ok(Entry { used: 0, key: CacheKey(key), proxy: proxy.clone(), client, egress, count })
    }

    fn build(&self, egress: Arc<Egress>, count: Arc<ConnectionCount>) -> Client<Connector, B> {
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Without its own timer, the pool closes idle connections only when a request needs
            // one.
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.limits.idle_timeout)
            .pool_max_idle_per_host(self.limits.idle_per_host)
            .build(Connector { egress, count, evictor: self.evictor.clone() })
    }
}

/// Number of entries at which entries of dropped identities are removed for the first time.
const FIRST_SWEEP: usize = 1024;

impl<B> State<B> {
    /// Removes the least recently used entry, except the one that `count` belongs to.
    fn remove_oldest(&mut self, count: Option<&Arc<ConnectionCount>>) -> Option<Entry<B>> {
        let is_own = |entry: &Entry<B>| count.is_some_and(|count| Arc::ptr_eq(&entry.count, count));
        let (used, session, position) = self.order.iter().find_map(|(used, session)| {
            let entries = self.sessions.get(session)?;
            let position = entries.iter().position(|entry| entry.used == *used)?;
            (!is_own(&entries[position])).then_some((*used, *session, position))
        })?;
        self.order.remove(&used);
        let entries = self.sessions.get_mut(&session)?;
        let entry = entries.swap_remove(position);
        if entries.is_empty() {
            self.sessions.remove(&session);
        }
        Some(entry)
    }

    /// Removes the entries of dropped identities.
    fn sweep(&mut self, removed: &mut Vec<Entry<B>>) {
        let order = &mut self.order;
        self.sessions.retain(|_, entries| {
            let dropped = entries.extract_if(.., |entry| entry.key.is_dropped());
            removed.extend(dropped.inspect(|entry| _ = order.remove(&entry.used)));
            !entries.is_empty()
        });
        self.sweep_at = (2 * self.order.len()).max(FIRST_SWEEP);
    }
}

impl<B> EvictIdle for ClientCache<B>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    fn evict_idle(&self, count: &Arc<ConnectionCount>) {
        if self.totals.live() <= self.limits.connections {
            return;
        }
        let mut evicted = Vec::new();
        let mut pool = None;
        let mut state = self.state.lock();
        while self.totals.live() > self.limits.connections {
            if let Some(entry) = state.remove_oldest(Some(count)) {
                entry.count.close_when_idle();
                evicted.push(entry);
                continue;
            }
            // Only the identity that connects is left. It gets a new pool; the idle connections of
            // the old one close. Its TLS sessions stay.
            let mut entries = state.sessions.values_mut().flatten();
            if let Some(entry) = entries.find(|entry| Arc::ptr_eq(&entry.count, count)) {
                entry.count = ConnectionCount::new(&self.totals);
                let client = self.build(entry.egress.clone(), entry.count.clone());
                pool = Some(std::mem::replace(&mut entry.client, client));
            }
            count.close_when_idle();
            break;
        }
        drop(state);
        drop(pool);
        close_when_idle(evicted);
    }
}

/// Closes idle connections now, and connections in use after their response.
fn close_when_idle<B>(entries: Vec<Entry<B>>) {
    for entry in entries {
        entry.count.close_when_idle();
    }
}
