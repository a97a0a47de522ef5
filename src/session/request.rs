//! What requests and responses carry in their extensions.

use std::{fmt, sync::Arc, time::Duration};

use http::{Extensions, Uri};
use parking_lot::Mutex;

use super::{Identity, Session, SessionError, SessionId, Sessions, error::SessionErrorKind};
use crate::cookies::{NewCookie, StoredCookie};

/// What a single request leaves out, set in its extensions. Without it, cookies are sent and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieMode {
    /// The session's cookies are not sent; what the response sets is stored.
    StoreOnly,
    /// The session's cookies are sent; what the response sets is not stored.
    SendOnly,
    /// Neither. The request's own `Cookie` header is still sent.
    Disabled,
}

impl CookieMode {
    pub(crate) fn sends(switch: Option<&Self>) -> bool {
        matches!(switch, None | Some(Self::SendOnly))
    }

    pub(crate) fn stores(switch: Option<&Self>) -> bool {
        matches!(switch, None | Some(Self::StoreOnly))
    }
}

/// Cookies that a request brings along, set in its extensions: they are stored in its session as if its URL had set them, and
/// sent from then on.
///
/// To send cookies with one request only, use its `Cookie` header, which is never stored and wins by name.
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
    /// Creates the extension from pairs of name and value, from `cookie::Cookie`s, or from [`StoredCookie`]s.
    pub fn new<I>(cookies: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<NewCookie<'static>>,
    {
        Self(cookies.into_iter().map(Into::into).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = NewCookie<'static>> + '_ {
        self.0.iter().cloned()
    }
}

impl fmt::Debug for RequestCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestCookies").field("len", &self.0.len()).finish()
    }
}

/// What became of a request, in the extensions of its response.
#[derive(Clone)]
pub struct SessionInfo {
    pub(crate) session: SessionId,
    pub(crate) generation: u64,
    pub(crate) cookies: Vec<StoredCookie>,
    pub(crate) uri: Option<Uri>,
    pub(crate) replays: u32,
    pub(crate) time_waiting: Duration,
}

impl SessionInfo {
    /// The session that the request belonged to.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The generation of the identity that the answered request was sent under.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The cookies that this response set, those of the redirects on the way to it included, in order. A cookie that was
    /// deleted is not among them.
    pub fn cookies(&self) -> &[StoredCookie] {
        &self.cookies
    }

    /// The URI that was finally served, after redirects.
    pub fn final_uri(&self) -> Option<&Uri> {
        self.uri.as_ref()
    }

    /// How often the request was sent again before this answer.
    pub fn replays(&self) -> u32 {
        self.replays
    }

    /// How long the request was held while its session was being renewed.
    pub fn time_waiting(&self) -> Duration {
        self.time_waiting
    }
}

/// Without the query of the URI, which may hold secrets.
impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("session", &self.session)
            .field("generation", &self.generation)
            .field("cookies", &self.cookies.len())
            .field("path", &self.uri.as_ref().map(Uri::path))
            .field("replays", &self.replays)
            .field("held", &self.time_waiting)
            .finish()
    }
}

/// What the gate sends along with a request, and what the session layer writes into it at each hop.
#[derive(Clone)]
pub(crate) struct SendLog(Arc<Mutex<HopLog>>);

#[derive(Default)]
pub(crate) struct HopLog {
    /// The cookies that the answers set.
    pub(crate) cookies: Vec<StoredCookie>,
    /// The URI of the last hop that was answered.
    pub(crate) uri: Option<Uri>,
    /// What was asked for, if the gate has no copy of the request that could say it.
    pub(crate) requested: Option<Uri>,
    /// Whether a hop whose identity has ended may be refused, because the gate can start the whole request again.
    pub(crate) restartable: bool,
}

impl fmt::Debug for SendLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendLog").finish_non_exhaustive()
    }
}

impl SendLog {
    pub(crate) fn new(restartable: bool, requested: Option<Uri>) -> Self {
        Self(Arc::new(Mutex::new(HopLog { restartable, requested, ..HopLog::default() })))
    }

    pub(crate) fn with<R>(&self, probe: impl FnOnce(&mut HopLog) -> R) -> R {
        probe(&mut self.0.lock())
    }
}

/// What the gate puts into a request: whom it goes under, and where the session layer below writes what became of it.
///
/// One extension for both, since each extension is an allocation.
#[derive(Clone, Debug)]
pub(crate) struct SendContext {
    pub(crate) identity: Identity,
    pub(crate) log: SendLog,
}

/// What a request says of its session.
pub(crate) struct ResolvedRequest {
    pub(crate) identity: Identity,
    /// The gate's log, if a gate is above.
    pub(crate) log: Option<SendLog>,
    pub(crate) switch: Option<CookieMode>,
    pub(crate) brought: Option<RequestCookies>,
}

/// Which extension told whom a request goes under.
enum IdentitySource {
    /// The identity itself is there.
    Identity,
    Session,
    Name,
    /// The request names nobody: it goes under the default session.
    Default,
}

impl IdentitySource {
    /// Lets the layers below know whom the request goes under: in the place of what names its session, or beside it if nothing
    /// does.
    fn attach(self, identity: &Identity, extensions: &mut Extensions) {
        let Identity { session, inner } = identity;
        match self {
            Self::Identity => {}
            Self::Session => extensions.get_mut::<Session>().expect("it was found there").attach(inner),
            Self::Name => {
                extensions.get_mut::<SessionId>().expect("it was found there").attach(session, inner)
            }
            Self::Default => {
                extensions.insert(identity.clone());
            }
        }
    }
}

/// Extensions that are asked for one type after the other, until all that are there were found.
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

/// The name of the session, if that is all that a request says.
fn name_alone(extensions: &Extensions) -> Option<&SessionId> {
    if extensions.len() == 1 { extensions.get() } else { None }
}

/// The identity that a layer above has settled.
pub(crate) fn attached(extensions: &Extensions) -> Option<Identity> {
    if let Some(stamp) = extensions.get::<SendContext>() {
        return Some(stamp.identity.clone());
    }
    if let Some(identity) = extensions.get::<Identity>() {
        return Some(identity.clone());
    }
    if let Some(session) = extensions.get::<Session>() {
        return Some(Identity { inner: session.attached()?, session: Session::of(session.0.clone()) });
    }
    let (session, inner) = extensions.get::<SessionId>()?.attached()?;
    Some(Identity { session: Session::of(session), inner })
}

/// Finds the session that a request names: its handle before its name before the default.
pub(crate) fn named_session(extensions: &Extensions, sessions: &Sessions) -> Result<Session, SessionError> {
    if let Some(id) = name_alone(extensions) {
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

/// A handle, unless it is one to a session of others, which would be renewed through another stack.
fn own(session: &Session, sessions: &Sessions) -> Result<Session, SessionError> {
    if Arc::ptr_eq(&session.0.context, &sessions.registry.context) {
        return Ok(Session::of(session.0.clone()));
    }
    Err(SessionError::new(SessionErrorKind::WrongRegistry))
}

/// Finds the identity that a request goes under, the one that the gate put there or the current one of the session it names, and
/// lets the layers below know.
pub(crate) fn find(
    extensions: &mut Extensions,
    sessions: &Sessions,
) -> Result<ResolvedRequest, SessionError> {
    // What nearly all requests say.
    if extensions.len() == 1
        && let Some(id) = extensions.get_mut::<SessionId>()
    {
        let identity = current(sessions.registry.session(id))?;
        id.attach(&identity.session, &identity.inner);
        return Ok(ResolvedRequest { identity, log: None, switch: None, brought: None });
    }
    let mut probe = ExtensionProbe::new(extensions);
    let (identity, log, place) = if let Some(stamp) = probe.get::<SendContext>() {
        (
            explicit_identity(&stamp.identity, &mut probe, sessions)?,
            Some(stamp.log.clone()),
            IdentitySource::Identity,
        )
    } else if let Some(identity) = probe.get::<Identity>() {
        (explicit_identity(identity, &mut probe, sessions)?, None, IdentitySource::Identity)
    } else {
        let (session, place) = if let Some(session) = probe.get::<Session>() {
            (own(session, sessions)?, IdentitySource::Session)
        } else if let Some(id) = probe.get::<SessionId>() {
            (sessions.registry.session(id), IdentitySource::Name)
        } else {
            (default_session(sessions)?, IdentitySource::Default)
        };
        (current(session)?, None, place)
    };
    let (switch, brought) = (probe.get().copied(), probe.get().cloned());
    place.attach(&identity, extensions);
    Ok(ResolvedRequest { identity, log, switch, brought })
}

/// An identity that is there by itself, unless the request names another session or one of others.
fn explicit_identity(
    identity: &Identity,
    probe: &mut ExtensionProbe<'_>,
    sessions: &Sessions,
) -> Result<Identity, SessionError> {
    let id = probe.get::<SessionId>();
    let other = match (probe.get::<Session>(), id) {
        // It may have been renamed since the request named it.
        (Some(session), _) => !identity.session.0.names.has(session.id()),
        (None, Some(id)) => !identity.session.0.names.has(id),
        (None, None) => false,
    };
    if other {
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
