//! Restoring sessions from snapshots.

use std::{collections::HashMap, error::Error, fmt};

use super::{ProfileDetail, ProfileSnapshot, ProxySnapshot, SessionSnapshot, SessionsSnapshot};
use crate::{
    gate::Generation,
    profile::{Profile, ProfileError, Profiles, Proxy},
    session::{
        Session, SessionId, Sessions,
        context::RegistryContext,
        initial::{InitialIdentity, InitialState, ProfileChoice},
    },
};

impl Session {
    /// Restores the cookies, profile, age, uses and data of a snapshot. The id of the snapshot is
    /// ignored.
    ///
    /// A running renewal is abandoned, and waiting requests are released, as by
    /// [`replace`](Session::replace). The new identity has the snapshot's generation, or a higher
    /// one if this session has already used that.
    ///
    /// # Errors
    ///
    /// If the profile is not available. The session is not changed.
    pub fn restore(&self, snapshot: &SessionSnapshot) -> Result<(), RestoreError> {
        let mut matcher = ProfileMatcher::new(self.0.context.profiles());
        let (initial, _) = self.0.context.initial(snapshot, &mut matcher)?;
        self.restart(initial);
        Ok(())
    }
}

impl Sessions {
    /// Restores a snapshot to the session with the snapshot's id, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Session::restore`].
    pub fn restore(&self, snapshot: &SessionSnapshot) -> Result<Session, RestoreError> {
        let context = &self.registry.context;
        let (initial, _) = context.initial(snapshot, &mut ProfileMatcher::new(context.profiles()))?;
        Ok(self.registry.restart(snapshot.id.clone(), initial))
    }

    /// Restores all sessions of a snapshot. Other sessions are not changed.
    ///
    /// The limits of these sessions apply: if the snapshot has too many sessions or cookies, the
    /// most recently used ones are restored. The others are skipped, and so are sessions whose
    /// profile is not available. The report lists what was skipped.
    pub fn restore_all(&self, snapshot: &SessionsSnapshot) -> RestoreReport {
        let context = &self.registry.context;
        let mut matcher = ProfileMatcher::new(context.profiles());
        let mut report = RestoreReport::default();
        let max = self.registry.max_sessions().unwrap_or(usize::MAX);
        let (over, taken) = snapshot.sessions.split_at(snapshot.sessions.len().saturating_sub(max));
        for session in over {
            report.skip(&session.id, session.cookies.len(), SkipReason::SessionLimit);
        }
        for session in taken {
            match context.initial(session, &mut matcher) {
                Ok((initial, expired)) => {
                    let stored = initial.jar.len(context.timestamp());
                    let evicted = session.cookies.len().saturating_sub(expired + stored);
                    report.restored += 1;
                    report.cookies += stored;
                    report.expired += expired;
                    if evicted > 0 {
                        report.skip(&session.id, evicted, SkipReason::CookieLimit);
                    }
                    self.registry.restart(session.id.clone(), initial);
                }
                Err(error) => report.skip(&session.id, session.cookies.len(), error.reason),
            }
        }
        report
    }
}

impl RegistryContext {
    /// The initial state of a session with this snapshot.
    #[cfg(feature = "shared")]
    pub(crate) fn restored(&self, snapshot: &SessionSnapshot) -> Result<InitialState, RestoreError> {
        self.initial(snapshot, &mut ProfileMatcher::new(self.profiles())).map(|(initial, _)| initial)
    }

    /// The initial state of a session with this snapshot, and the number of its expired cookies.
    fn initial(
        &self,
        snapshot: &SessionSnapshot,
        matcher: &mut ProfileMatcher<'_>,
    ) -> Result<(InitialState, usize), RestoreError> {
        let profile = match &snapshot.profile {
            Some(saved) => {
                let rejected =
                    |(reason, source)| RestoreError { session: snapshot.id.clone(), reason, source };
                matcher.find(saved).map_err(rejected)?
            }
            None => ProfileChoice::Next,
        };
        let clock = self.timestamp();
        let mut jar = self.jar();
        let expired = jar.restore_all(snapshot.cookies.clone(), clock);
        let initial = InitialState {
            jar,
            profile,
            data: snapshot.data.clone(),
            generation: Generation::new(snapshot.generation.clamp(1, (1 << 53) - 1)),
            identity: InitialIdentity::current_if(snapshot.current),
            age: clock.saturating_since(snapshot.created_at),
            uses: snapshot.uses.min((1 << 53) - 1),
        };
        Ok((initial, expired))
    }
}

/// Finds the profiles of restored identities, by their indexes in the list.
struct ProfileMatcher<'p> {
    named: HashMap<&'p str, usize>,
    /// Profiles without a name, by their snapshot. `None` if it matches several different ones.
    nameless: HashMap<ProfileSnapshot, Option<usize>>,
    /// Profiles that were made from a snapshot, each in a list of its own.
    made: HashMap<ProfileSnapshot, Profiles>,
}

impl<'p> ProfileMatcher<'p> {
    fn new(profiles: Option<&'p Profiles>) -> Self {
        let list: Vec<&Profile> = profiles.into_iter().flat_map(Profiles::iter).collect();
        let mut matcher = Self { named: HashMap::new(), nameless: HashMap::new(), made: HashMap::new() };
        for (index, profile) in list.iter().enumerate() {
            if let Some(name) = profile.name() {
                matcher.named.insert(name, index);
                continue;
            }
            for detail in [ProfileDetail::Full, ProfileDetail::Redacted] {
                matcher
                    .nameless
                    .entry(ProfileSnapshot::of(profile, detail))
                    .and_modify(|known| *known = known.filter(|&known| list[known] == *profile))
                    .or_insert(Some(index));
            }
        }
        matcher
    }

    fn find(&mut self, saved: &ProfileSnapshot) -> Result<ProfileChoice, (SkipReason, Option<ProfileError>)> {
        let configured = match &saved.name {
            Some(name) => self.named.get(name.as_str()).copied(),
            None => self.nameless.get(saved).copied().flatten(),
        };
        if let Some(index) = configured {
            return Ok(ProfileChoice::Index(index));
        }
        if let Some(made) = self.made.get(saved) {
            return Ok(ProfileChoice::Other(made.clone()));
        }
        if saved.redacted {
            return Err((SkipReason::ProfileMissing, None));
        }
        let made = saved.make().and_then(|profile| Profiles::new([profile]));
        let made = made.map_err(|error| (SkipReason::ProfileInvalid, Some(error)))?;
        self.made.insert(saved.clone(), made.clone());
        Ok(ProfileChoice::Other(made))
    }
}

impl ProfileSnapshot {
    fn make(&self) -> Result<Profile, ProfileError> {
        let mut builder = Profile::builder();
        if let Some(name) = &self.name {
            builder = builder.name(name);
        }
        match &self.proxy {
            None => {}
            Some(ProxySnapshot::Direct) => builder = builder.proxy(Proxy::direct()),
            Some(ProxySnapshot::Server { url, credentials: None }) => builder = builder.proxy(url.as_str()),
            Some(ProxySnapshot::Server { url, credentials: Some((username, password)) }) => {
                builder = builder.proxy(url.parse::<Proxy>()?.with_credentials(username, password)?);
            }
        }
        if let Some(user_agent) = &self.user_agent {
            builder = builder.user_agent(user_agent);
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        if let Some(address) = self.local_address {
            builder = builder.local_address(address);
        }
        builder.build()
    }
}

/// Error of restoring a session.
#[derive(Debug)]
pub struct RestoreError {
    session: SessionId,
    reason: SkipReason,
    source: Option<ProfileError>,
}

impl RestoreError {
    /// The id of the session in its snapshot.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The reason.
    pub fn reason(&self) -> SkipReason {
        self.reason
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} was not restored: {}", self.session, self.reason)
    }
}

impl Error for RestoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// What was restored, and what was skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it lists what was skipped"]
pub struct RestoreReport {
    restored: usize,
    cookies: usize,
    expired: usize,
    skipped: Vec<Skipped>,
}

impl RestoreReport {
    /// The number of restored sessions.
    pub fn restored(&self) -> usize {
        self.restored
    }

    /// The number of restored cookies.
    pub fn cookies(&self) -> usize {
        self.cookies
    }

    /// The number of cookies that have expired since the snapshot. They do not count as skipped.
    pub fn expired(&self) -> usize {
        self.expired
    }

    /// What was skipped, by session.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether nothing was skipped.
    pub fn is_complete(&self) -> bool {
        self.skipped.is_empty()
    }

    fn skip(&mut self, session: &SessionId, cookies: usize, reason: SkipReason) {
        self.skipped.push(Skipped { session: session.clone(), cookies, reason });
    }
}

/// A skipped session, or skipped cookies of a restored session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    session: SessionId,
    cookies: usize,
    reason: SkipReason,
}

impl Skipped {
    /// The id of the session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The number of skipped cookies.
    pub fn cookies(&self) -> usize {
        self.cookies
    }

    /// The reason. All but [`SkipReason::CookieLimit`] apply to the whole session.
    pub fn reason(&self) -> SkipReason {
        self.reason
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, cookies, reason } = self;
        match reason {
            SkipReason::CookieLimit => {
                write!(f, "session {session}: {cookies} cookies skipped: {reason}")
            }
            _ => write!(f, "session {session} skipped: {reason}"),
        }
    }
}

/// The reason why something was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// The session exceeds `max_sessions`, and others were used more recently.
    SessionLimit,
    /// The cookies exceed the limits of the jar, and others were used more recently.
    CookieLimit,
    /// The profile is not configured, and the snapshot does not have all of it.
    ProfileMissing,
    /// The profile in the snapshot is invalid.
    ProfileInvalid,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SessionLimit => "max_sessions exceeded",
            Self::CookieLimit => "the limits of the jar are exceeded",
            Self::ProfileMissing => {
                "its profile is not configured and was not saved in full; configure it, or save with ProfileDetail::Full"
            }
            Self::ProfileInvalid => "its profile in the snapshot is invalid",
        })
    }
}
