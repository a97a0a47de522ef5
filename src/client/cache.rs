//! The clients of all identities, the one used last behind the others.

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
    connection_count::{ConnectionCount, Totals},
    connector::{Connector, Egress, Settings},
    error::{ClientError, ClientErrorKind},
};
use crate::{
    profile::{Proxy, ProxyServer},
    session::{Identity, IdentityInner, SessionInner},
};

/// What a whole client has, and all handles to it share.
pub(super) struct ClientCache<B> {
    pub(super) settings: Arc<Settings>,
    pub(super) limits: Limits,
    label: Option<Label>,
    pub(super) totals: Arc<Totals>,
    /// Held for the choice alone: clients are dropped after it was let go, since that wakes their connections.
    state: Mutex<State<B>>,
    /// This, for the connectors.
    evictor: Weak<dyn EvictIdle>,
}

/// What makes the user name for a proxy out of the profile's and the identity.
pub(super) type Label = Arc<dyn Fn(&str, &Identity) -> String + Send + Sync>;

/// What a request needs: the client to send it by, and the way that this one goes.
pub(super) struct Found<B> {
    pub(super) client: Client<Connector, B>,
    pub(super) egress: Arc<Egress>,
}

pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) identities: usize,
    pub(super) idle_timeout: Duration,
    pub(super) idle_per_host: usize,
}

/// Where connections that are not used give way to one that is.
pub(super) trait EvictIdle: Send + Sync {
    /// A connection counted by `count` is about to be opened.
    fn evict_idle(&self, count: &Arc<ConnectionCount>);
}

struct State<B> {
    /// By the address of the session, which the entries keep from being used again.
    sessions: HashMap<usize, Vec<Entry<B>>, foldhash::fast::RandomState>,
    /// The session of each entry, by when it was used last.
    order: BTreeMap<u64, usize>,
    clock: u64,
    /// So many entries are worth a search for dead ones.
    sweep_at: usize,
}

/// One identity and its client.
struct Entry<B> {
    used: u64,
    key: CacheKey,
    /// As requests name it, without the label.
    proxy: Proxy,
    client: Client<Connector, B>,
    egress: Arc<Egress>,
    count: Arc<ConnectionCount>,
}

/// The identity, unless the client serves requests that have none.
///
/// The addresses stand for the identity and cannot come to mean another one while these are here.
struct CacheKey(Option<(Weak<IdentityInner>, Weak<SessionInner>, u64)>);

impl CacheKey {
    fn is(&self, identity: Option<&Identity>) -> bool {
        match (&self.0, identity) {
            (Some((inner, ..)), Some(identity)) => std::ptr::eq(inner.as_ptr(), Arc::as_ptr(&identity.inner)),
            (None, None) => true,
            _ => false,
        }
    }

    /// Nobody can send under it any more.
    fn is_dead(&self) -> bool {
        self.0.as_ref().is_some_and(|(inner, ..)| inner.strong_count() == 0)
    }

    /// It was followed by `current`, or has ended.
    fn is_over(&self, current: Option<u64>) -> bool {
        let Some((inner, _, generation)) = &self.0 else {
            return false;
        };
        current.is_some_and(|current| *generation < current)
            || inner.upgrade().is_none_or(|inner| inner.version.is_ended())
    }
}

const ANONYMOUS: usize = 0;

impl<B> ClientCache<B>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    pub(super) fn new(settings: Settings, limits: Limits, label: Option<Label>) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            settings: Arc::new(settings),
            limits,
            label,
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

    /// The client for `identity` by way of `proxy`, made if there is none, and what it knows of the way.
    pub(super) fn client(&self, identity: Option<&Identity>, proxy: &Proxy) -> Result<Found<B>, ClientError> {
        // Asked before the lock is taken, since the answer is the gate's.
        let current = identity.and_then(|identity| identity.session.generation());
        if let Some(found) = self.find(identity, proxy, current, || None) {
            return Ok(found);
        }
        // The label is the caller's code, which runs under no lock.
        let entry = self.entry(identity, proxy)?;
        let found = self.find(identity, proxy, current, || Some(entry));
        Ok(found.expect("an entry that was brought along is found"))
    }

    fn find(
        &self,
        identity: Option<&Identity>,
        proxy: &Proxy,
        current: Option<u64>,
        entry: impl FnOnce() -> Option<Entry<B>>,
    ) -> Option<Found<B>> {
        let session = identity.map_or(ANONYMOUS, |identity| Arc::as_ptr(&identity.session.0).addr());
        let mut gone = Vec::new();
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
        let entries = state.sessions.get_mut(&session).expect("it is there by now");
        // A renewal's connections come to an end with their last response, not when they have been idle for long.
        let order = &mut state.order;
        let over = |entry: &mut Entry<B>| !entry.key.is(identity) && entry.key.is_over(current);
        gone.extend(entries.extract_if(.., over).inspect(|entry| _ = order.remove(&entry.used)));
        let entry = entries.iter_mut().find(|entry| is_own(entry)).expect("it is there by now");
        order.remove(&entry.used);
        order.insert(now, session);
        entry.used = now;
        let found = Found { client: entry.client.clone(), egress: entry.egress.clone() };
        if order.len() >= state.sweep_at {
            state.sweep(&mut gone);
        }
        while state.order.len() > self.limits.identities.max(1) {
            gone.extend(state.oldest(None));
        }
        drop(guard);
        close_when_idle(gone);
        Some(found)
    }

    fn entry(&self, identity: Option<&Identity>, proxy: &Proxy) -> Result<Entry<B>, ClientError> {
        let labelled = match (&self.label, identity, proxy.server().and_then(ProxyServer::credentials)) {
            (Some(label), Some(identity), Some(credentials)) => {
                let username = label(credentials.username(), identity);
                proxy.clone().with_credentials(username, credentials.password()).map_err(|error| {
                    ClientError::new(ClientErrorKind::Config).at(proxy).saying("the label").caused_by(error)
                })?
            }
            _ => proxy.clone(),
        };
        let local_address = identity.and_then(|identity| identity.profile()?.local_address());
        let egress = Arc::new(Egress::new(self.settings.clone(), labelled, local_address));
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
            // Without a timer of its own the pool closes idle connections only when it is asked for one.
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.limits.idle_timeout)
            .pool_max_idle_per_host(self.limits.idle_per_host)
            .build(Connector { egress, count, evictor: self.evictor.clone() })
    }
}

/// The map is not searched for dead entries before it has so many.
const FIRST_SWEEP: usize = 1024;

impl<B> State<B> {
    /// Takes out the entry that was used longest ago, other than the one that `count` counts for.
    fn oldest(&mut self, count: Option<&Arc<ConnectionCount>>) -> Option<Entry<B>> {
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

    /// Takes out the entries of identities that nobody holds any more.
    fn sweep(&mut self, gone: &mut Vec<Entry<B>>) {
        let order = &mut self.order;
        self.sessions.retain(|_, entries| {
            let dead = entries.extract_if(.., |entry| entry.key.is_dead());
            gone.extend(dead.inspect(|entry| _ = order.remove(&entry.used)));
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
        let mut gone = Vec::new();
        let mut pool = None;
        let mut state = self.state.lock();
        while self.totals.live() > self.limits.connections {
            if let Some(entry) = state.oldest(Some(count)) {
                entry.count.close_when_idle();
                gone.push(entry);
                continue;
            }
            // There is nobody but the identity that asks: it gets another pool, and what is idle in the old one goes with it.
            // Its TLS sessions stay.
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
        close_when_idle(gone);
    }
}

/// Closes what is idle; what is in use closes when it is done.
fn close_when_idle<B>(entries: Vec<Entry<B>>) {
    for entry in entries {
        entry.count.close_when_idle();
    }
}
