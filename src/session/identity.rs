//! One generation of a session.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use http::Extensions;
use parking_lot::Mutex;

use super::{Session, SessionId, request};
use crate::{
    cookies::Jar,
    gate::VersionState,
    profile::{Profile, ProfileAssignment},
};

/// Who a session is for one generation: its cookies and its profile, which never mix with those of another generation.
///
/// A request keeps the identity that it was sent under, and its response stores cookies into that identity alone. The gate or
/// the session layer gives it to a request on its way down, so that layers below know under whom it goes: they ask
/// [`Identity::of`].
///
/// # Clone
///
/// Clones are the same identity.
#[derive(Clone)]
pub struct Identity {
    pub(crate) session: Session,
    pub(crate) inner: Arc<IdentityInner>,
}

/// What an identity keeps.
pub(crate) struct IdentityInner {
    pub(crate) life: VersionState,
    pub(crate) jar: Mutex<Jar>,
    /// Nothing where the sessions have no profiles.
    pub(crate) worn: Option<Arc<ProfileAssignment>>,
    /// From when on a cookie that the session needs is too near its end, in milliseconds since the Unix epoch.
    pub(crate) due: AtomicI64,
}

impl IdentityInner {
    /// Nobody has looked yet when a cookie that the session needs is near its end.
    pub(crate) const UNKNOWN: i64 = i64::MIN;

    pub(crate) fn new(life: VersionState, jar: Jar, worn: Option<Arc<ProfileAssignment>>) -> Self {
        Self { life, jar: Mutex::new(jar), worn, due: AtomicI64::new(Self::UNKNOWN) }
    }

    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.worn.as_ref()?.profile()
    }

    /// What it wears, if it has yet to wait for its profile.
    pub(crate) fn awaited_profile(&self) -> Option<&Arc<ProfileAssignment>> {
        self.worn.as_ref().filter(|worn| worn.profile().is_none())
    }
}

impl Identity {
    /// The identity that a request goes under, as the session layer or a renewal layer above has settled it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_client_sessions::{Identity, SessionId, SessionLayer, Sessions};
    ///
    /// let sessions = Sessions::new();
    /// let client = ServiceBuilder::new().layer(SessionLayer::new(&sessions)).service(service_fn(
    ///     |request: http::Request<()>| async move {
    ///         let identity = Identity::of(request.extensions()).ok_or("the session layer is above")?;
    ///         Ok::<_, tower::BoxError>(http::Response::new(identity.generation()))
    ///     },
    /// ));
    /// let request = http::Request::get("https://shop.example/").extension(SessionId::from("alice")).body(())?;
    /// assert_eq!(*client.oneshot(request).await?.body(), 1);
    /// # Ok::<_, tower::BoxError>(())
    /// # }).unwrap();
    /// ```
    pub fn of(extensions: &Extensions) -> Option<Self> {
        request::attached(extensions)
    }

    /// The session that this is a generation of.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The name of the session.
    pub fn session_id(&self) -> &SessionId {
        self.session.id()
    }

    /// The number of the generation; it grows with every renewal, clear and replacement, and numbers may be left out.
    pub fn generation(&self) -> u64 {
        self.inner.life.generation
    }

    /// The profile that this identity wears, if the sessions have profiles and one was free. Below the session layer, which
    /// waits for one, it is always there.
    pub fn profile(&self) -> Option<&Profile> {
        self.inner.profile()
    }

    /// Lets the profile that this identity wears rest: as [`Sessions::mark_profile_bad`](crate::Sessions::mark_profile_bad).
    /// `false`: it wears none.
    pub fn mark_profile_bad(&self) -> bool {
        self.profile().is_some_and(|profile| self.session.0.context.mark_profile_bad(profile))
    }

    /// How often a request was sent under this identity by way of a renewal layer; hops of a redirect are not counted.
    pub fn uses(&self) -> u64 {
        self.inner.life.uses()
    }

    /// How long ago this identity was made.
    pub fn age(&self) -> Duration {
        self.session.now().saturating_sub(self.inner.life.created_at)
    }

    /// Whether the identity was ended: by an answer that said so, a clear, a replacement, or a failed renewal. An identity that
    /// was renewed early while it still worked has not ended.
    pub fn is_ended(&self) -> bool {
        self.inner.life.is_ended()
    }
}

/// Two are equal if they are the same identity.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("session", self.session_id())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
