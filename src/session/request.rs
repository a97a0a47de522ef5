//! The extensions of requests and responses, and how a request's identity is resolved from them.

use std::{fmt, sync::Arc, time::Duration};

use http::{Extensions, Uri};
use parking_lot::Mutex;

use super::sent_cookies::SentCookies;
use super::{
    Delivery, Identity, NotReplayed, ResponseOutcome, Session, SessionError, SessionErrorKind, SessionId,
    Sessions,
};
use crate::cookies::{NewCookie, StoredCookie};

/// Request extension that turns off sending or storing of cookies for one request.
///
/// Without it, cookies are both sent and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieMode {
    /// The session's cookies are not sent. The response's cookies are stored.
    StoreOnly,
    /// The session's cookies are sent. The response's cookies are not stored.
    SendOnly,
    /// Cookies are neither sent nor stored. The request's own `Cookie` header is still sent.
    Disabled,
}

impl CookieMode {
    pub(super) fn sends(mode: Option<&Self>) -> bool {
        matches!(mode, None | Some(Self::SendOnly))
    }

    pub(super) fn stores(mode: Option<&Self>) -> bool {
        matches!(mode, None | Some(Self::StoreOnly))
    }
}

/// Request extension with cookies to store in the session, as if the request's URL had set them.
///
/// They are sent with this request and later ones. To send cookies with one request only, use its
/// `Cookie` header, which takes precedence by name and is never stored.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::{RequestCookies, SessionId};
///
/// let request = http::Request::get("https://shop.example/")
///     .extension(SessionId::from("alice"))
///     .extension(RequestCookies::new([("lang", "en"), ("theme", "dark")]))
///     .body(())?;
/// # drop(request);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone)]
pub struct RequestCookies(Arc<[NewCookie<'static>]>);

impl RequestCookies {
    /// Creates the extension from name-value pairs, `cookie::Cookie`s or [`StoredCookie`]s.
    pub fn new<I>(cookies: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<NewCookie<'static>>,
    {
        Self(cookies.into_iter().map(Into::into).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = NewCookie<'static>> + '_ {
        self.0.iter().cloned()
    }
}

impl fmt::Debug for RequestCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestCookies").field("len", &self.0.len()).finish()
    }
}

/// Response extension that says under which session a request was sent, and what happened to it.
#[derive(Clone)]
pub struct SessionInfo {
    session: SessionId,
    generation: u64,
    cookies: Vec<StoredCookie>,
    uri: Option<Uri>,
    replays: u32,
    time_waiting: Duration,
    delivery: Delivery,
}

impl SessionInfo {
    /// The info of a request that neither waited nor was replayed.
    pub(crate) fn new(
        session: &SessionId,
        generation: u64,
        cookies: Vec<StoredCookie>,
        uri: Option<Uri>,
    ) -> Self {
        let session = session.clone();
        let (time_waiting, delivery) = (Duration::ZERO, Delivery::Accepted);
        Self { session, generation, cookies, uri, replays: 0, time_waiting, delivery }
    }

    /// Adds what happened to the request at the gate.
    #[must_use]
    pub(crate) fn with_gate(mut self, replays: u32, time_waiting: Duration, delivery: Delivery) -> Self {
        self.replays = replays;
        self.time_waiting = time_waiting;
        self.delivery = delivery;
        self
    }

    /// The session of the request.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The generation of the identity under which the request was sent last.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The cookies that the response set, in order, including those set by redirects before it.
    /// Deleted cookies are not included.
    pub fn cookies(&self) -> &[StoredCookie] {
        &self.cookies
    }

    /// The URI of the final response, after redirects.
    pub fn final_uri(&self) -> Option<&Uri> {
        self.uri.as_ref()
    }

    /// How often the request was replayed before this response.
    pub fn replays(&self) -> u32 {
        self.replays
    }

    /// How long the request waited for its session to be renewed, and for evidence or a
    /// verification after a rejection.
    pub fn time_waiting(&self) -> Duration {
        self.time_waiting
    }

    /// What the renewal layer made of the response.
    ///
    /// A response that looks as if the session has expired is delivered if the request cannot be
    /// replayed, or if the rejection concerns this request only.
    pub fn outcome(&self) -> ResponseOutcome {
        self.delivery.outcome()
    }

    /// Why the request was not replayed. `None` if the response was accepted.
    pub fn not_replayed(&self) -> Option<NotReplayed> {
        self.delivery.not_replayed()
    }
}

/// Omits the query of the URI, which may contain secrets.
impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("session", &self.session)
            .field("generation", &self.generation)
            .field("cookies", &self.cookies.len())
            .field("path", &self.uri.as_ref().map(Uri::path))
            .field("replays", &self.replays)
            .field("time_waiting", &self.time_waiting)
            .field("outcome", &self.outcome())
            .finish()
    }
}

/// The log that the session layer writes at each hop of a request, for the gate above it.
#[derive(Clone)]
pub(crate) struct SendLog(Arc<Mutex<HopLog>>);

#[derive(Default)]
pub(crate) struct HopLog {
    /// The cookies that the responses set.
    pub(crate) cookies: Vec<StoredCookie>,
    /// The URI of the last hop that had a response.
    pub(crate) uri: Option<Uri>,
    /// The URI of the request, if the gate has no copy of the request.
    pub(crate) requested: Option<Uri>,
    /// The cookies of its hops.
    pub(crate) sent_cookies: SentCookies,
    /// What to do with a hop whose identity has ended.
    pub(super) ended_hop: EndedHop,
}

/// What the session layer does with a hop whose identity has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EndedHop {
    /// It is sent.
    #[default]
    Send,
    /// It is rejected, and the gate starts the whole request again under the next identity.
    Reject,
}

impl fmt::Debug for SendLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendLog").finish_non_exhaustive()
    }
}

impl SendLog {
    pub(crate) fn new(ended_hop: EndedHop, requested: Option<Uri>) -> Self {
        Self(Arc::new(Mutex::new(HopLog { ended_hop, requested, ..HopLog::default() })))
    }

    pub(crate) fn with<R>(&self, access: impl FnOnce(&mut HopLog) -> R) -> R {
        access(&mut self.0.lock())
    }
}

/// The extension that a gate adds to a request: its identity, and the log for the session layer.
///
/// One extension for both, because each extension is an allocation.
#[derive(Clone, Debug)]
pub(crate) struct SendContext {
    pub(crate) identity: Identity,
    pub(crate) log: SendLog,
}

/// What a request's extensions say about its session.
pub(crate) struct ResolvedRequest {
    pub(crate) identity: Identity,
    /// The gate's log, if there is a gate above.
    pub(super) log: Option<SendLog>,
    pub(super) mode: Option<CookieMode>,
    pub(super) cookies: Option<RequestCookies>,
}

/// The extension that an identity was resolved from.
enum IdentitySource {
    /// The identity itself.
    Identity,
    Session,
    Id,
    /// No extension: the default session.
    Default,
}

impl IdentitySource {
    /// Makes the identity available to lower layers: attached to the extension that names the
    /// session, or as an extension of its own.
    fn attach(self, identity: &Identity, extensions: &mut Extensions) {
        let Identity { session, inner } = identity;
        match self {
            Self::Identity => {}
            Self::Session => extensions.get_mut::<Session>().expect("it was found there").attach(inner),
            Self::Id => extensions.get_mut::<SessionId>().expect("it was found there").attach(session, inner),
            Self::Default => {
                extensions.insert(identity.clone());
            }
        }
    }
}

/// Looks up extensions by type, and stops once all that exist were found.
struct ExtensionProbe<'e> {
    extensions: &'e Extensions,
    left: usize,
}

impl<'e> ExtensionProbe<'e> {
    fn new(extensions: &'e Extensions) -> Self {
        Self { extensions, left: extensions.len() }
    }

    fn get<T: Send + Sync + 'static>(&mut self) -> Option<&'e T> {
        if self.left == 0 {
            return None;
        }
        let found = self.extensions.get();
        self.left -= usize::from(found.is_some());
        found
    }
}

impl Identity {
    /// The identity of a request, set by a session or renewal layer above.
    ///
    /// # Examples
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # runtime.block_on(async {
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_client_sessions::{Identity, SessionId, SessionLayer, Sessions};
    ///
    /// let sessions = Sessions::new();
    /// let client = ServiceBuilder::new().layer(SessionLayer::new(&sessions)).service(service_fn(
    ///     |request: http::Request<()>| async move {
    ///         let identity = Identity::of(request.extensions()).ok_or("no session layer above")?;
    ///         Ok::<_, tower::BoxError>(http::Response::new(identity.generation()))
    ///     },
    /// ));
    /// let id = SessionId::from("alice");
    /// let request = http::Request::get("https://shop.example/").extension(id).body(())?;
    /// assert_eq!(*client.oneshot(request).await?.body(), 1);
    /// # Ok::<_, tower::BoxError>(())
    /// # }).unwrap();
    /// ```
    pub fn of(extensions: &Extensions) -> Option<Self> {
        if let Some(context) = extensions.get::<SendContext>() {
            return Some(context.identity.clone());
        }
        if let Some(identity) = extensions.get::<Self>() {
            return Some(identity.clone());
        }
        if let Some(session) = extensions.get::<Session>() {
            return Some(Self { inner: session.attached()?, session: Session::of(session.0.clone()) });
        }
        let (session, inner) = extensions.get::<SessionId>()?.attached()?;
        Some(Self { session: Session::of(session), inner })
    }
}

/// Resolves the session of a request: by its handle, its id, its identity, or the default session.
pub(crate) fn resolve_session(extensions: &Extensions, sessions: &Sessions) -> Result<Session, SessionError> {
    // The common case first: the id is the only extension.
    if extensions.len() == 1
        && let Some(id) = extensions.get()
    {
        return Ok(sessions.registry.session(id));
    }
    if let Some(session) = extensions.get::<Session>() {
        return own(session, sessions);
    }
    if let Some(id) = extensions.get::<SessionId>() {
        return Ok(sessions.registry.session(id));
    }
    if let Some(identity) = extensions.get::<Identity>() {
        return own(&identity.session, sessions);
    }
    default_session(sessions)
}

fn default_session(sessions: &Sessions) -> Result<Session, SessionError> {
    match &sessions.registry.context.default_session {
        Some(id) => Ok(sessions.registry.session(id)),
        None => Err(SessionError::new(SessionErrorKind::NoSession)),
    }
}

/// Rejects a session of another registry, which would be renewed through another stack.
fn own(session: &Session, sessions: &Sessions) -> Result<Session, SessionError> {
    if Arc::ptr_eq(&session.0.context, &sessions.registry.context) {
        return Ok(Session::of(session.0.clone()));
    }
    Err(SessionError::new(SessionErrorKind::WrongRegistry))
}

/// Resolves the identity of a request, and makes it available to lower layers.
///
/// The identity is the one that the gate has set, or the current one of the request's session.
pub(crate) fn resolve(
    extensions: &mut Extensions,
    sessions: &Sessions,
) -> Result<ResolvedRequest, SessionError> {
    // The common case first: the id is the only extension.
    if extensions.len() == 1
        && let Some(id) = extensions.get_mut::<SessionId>()
    {
        let identity = current(sessions.registry.session(id))?;
        id.attach(&identity.session, &identity.inner);
        return Ok(ResolvedRequest { identity, log: None, mode: None, cookies: None });
    }
    let mut probe = ExtensionProbe::new(extensions);
    let (identity, log, source) = if let Some(context) = probe.get::<SendContext>() {
        let identity = explicit_identity(&context.identity, &mut probe, sessions)?;
        (identity, Some(context.log.clone()), IdentitySource::Identity)
    } else if let Some(identity) = probe.get::<Identity>() {
        (explicit_identity(identity, &mut probe, sessions)?, None, IdentitySource::Identity)
    } else {
        let (session, source) = if let Some(session) = probe.get::<Session>() {
            (own(session, sessions)?, IdentitySource::Session)
        } else if let Some(id) = probe.get::<SessionId>() {
            (sessions.registry.session(id), IdentitySource::Id)
        } else {
            (default_session(sessions)?, IdentitySource::Default)
        };
        (current(session)?, None, source)
    };
    let (mode, cookies) = (probe.get().copied(), probe.get().cloned());
    source.attach(&identity, extensions);
    Ok(ResolvedRequest { identity, log, mode, cookies })
}

/// Checks that the request names no other session than its identity's.
fn explicit_identity(
    identity: &Identity,
    probe: &mut ExtensionProbe<'_>,
    sessions: &Sessions,
) -> Result<Identity, SessionError> {
    let id = probe.get::<SessionId>();
    let names = &identity.session.0.names;
    // Former names are accepted: the session may have been renamed since the request was made.
    let is_other = match (probe.get::<Session>(), id) {
        (Some(session), _) => !names.has(session.id()),
        (None, Some(id)) => !names.has(id),
        (None, None) => false,
    };
    if is_other {
        return Err(SessionError::new(SessionErrorKind::SessionMismatch));
    }
    own(&identity.session, sessions)?;
    Ok(identity.clone())
}

fn current(session: Session) -> Result<Identity, SessionError> {
    if let Some(inner) = session.gate().current() {
        return Ok(Identity { session, inner });
    }
    if session.0.context.backend().is_none() {
        if session.0.context.share.is_some() {
            return Err(SessionError::new(SessionErrorKind::SharedWithoutRenewal));
        }
        session.0.adopt_pending();
    }
    session.identity().ok_or_else(|| SessionError::new(SessionErrorKind::RenewalPending))
}
