//! From snapshots to sessions.

use std::{collections::HashMap, error::Error, fmt};

use super::{ProfileDetail, ProfileSnapshot, ProxySnapshot, SessionSnapshot, SessionsSnapshot};
use crate::{
    profile::{Profile, ProfileError, Profiles, Proxy},
    session::{
        Session, SessionId, Sessions,
        context::RegistryContext,
        initial::{InitialIdentity, InitialState, ProfileChoice},
    },
};

impl Session {
    /// Makes this session what the snapshot says, whatever name that has: cookies, profile, age and uses, and data.
    ///
    /// What was under way is ended, as by [`replace`](Session::replace); requests that wait go on. The new identity has the
    /// snapshot's generation, or a higher number if this session has given that one out already.
    ///
    /// # Errors
    ///
    /// If the profile cannot be had; then nothing was touched.
    pub fn restore(&self, snapshot: &SessionSnapshot) -> Result<(), RestoreError> {
        let mut matcher = ProfileMatcher::new(self.0.context.profiles());
        let (initial, _) = self.0.context.initial(snapshot, &mut matcher)?;
        self.restart(initial);
        Ok(())
    }
}

impl Sessions {
    /// Makes a session what the snapshot says, under the snapshot's name; creates it if it is new.
    ///
    /// # Errors
    ///
    /// As [`Session::restore`].
    pub fn restore(&self, snapshot: &SessionSnapshot) -> Result<Session, RestoreError> {
        let context = &self.registry.context;
        let (initial, _) = context.initial(snapshot, &mut ProfileMatcher::new(context.profiles()))?;
        Ok(self.registry.restart(snapshot.id.clone(), initial))
    }

    /// Makes sessions what the snapshots say; others stay as they are.
    ///
    /// The limits of these sessions hold: of more sessions than their bound those used last come in, and of more cookies than a
    /// jar holds those used last. That, and sessions whose profile cannot be had, are left out, and the report says so.
    pub fn restore_all(&self, snapshot: &SessionsSnapshot) -> RestoreReport {
        let context = &self.registry.context;
        let mut matcher = ProfileMatcher::new(context.profiles());
        let mut report = RestoreReport::default();
        let bound = self.registry.max_sessions().unwrap_or(usize::MAX);
        let (over, taken) = snapshot.sessions.split_at(snapshot.sessions.len().saturating_sub(bound));
        for session in over {
            report.leave_out(&session.id, session.cookies.len(), SkipReason::SessionLimit);
        }
        for session in taken {
            match context.initial(session, &mut matcher) {
                Ok((initial, expired)) => {
                    let kept = initial.jar.len(context.timestamp());
                    let evicted = session.cookies.len().saturating_sub(expired + kept);
                    report.restored += 1;
                    report.cookies += kept;
                    report.expired += expired;
                    if evicted > 0 {
                        report.leave_out(&session.id, evicted, SkipReason::CookieLimit);
                    }
                    self.registry.restart(session.id.clone(), initial);
                }
                Err(error) => report.leave_out(&session.id, session.cookies.len(), error.reason),
            }
        }
        report
    }
}

impl RegistryContext {
    /// What one session begins with that was saved.
    #[cfg(feature = "shared")]
    pub(crate) fn restored(&self, snapshot: &SessionSnapshot) -> Result<InitialState, RestoreError> {
        self.initial(snapshot, &mut ProfileMatcher::new(self.profiles())).map(|(initial, _)| initial)
    }

    /// What a session begins with that was saved, and how many of its cookies have expired.
    fn initial(
        &self,
        snapshot: &SessionSnapshot,
        matcher: &mut ProfileMatcher<'_>,
    ) -> Result<(InitialState, usize), RestoreError> {
        let profile = match &snapshot.profile {
            Some(kept) => {
                let refused =
                    |(reason, source)| RestoreError { session: snapshot.id.clone(), reason, source };
                matcher.find(kept).map_err(refused)?
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
            generation: snapshot.generation.clamp(1, (1 << 53) - 1),
            identity: InitialIdentity::current_if(snapshot.current),
            age: clock.saturating_since(snapshot.created_at),
            uses: snapshot.uses.min((1 << 53) - 1),
        };
        Ok((initial, expired))
    }
}

/// The profiles that identities may come back under, by their places in the list.
struct ProfileMatcher<'p> {
    named: HashMap<&'p str, usize>,
    /// Those without a name by what a snapshot keeps of them; `None` where that fits several.
    nameless: HashMap<ProfileSnapshot, Option<usize>>,
    /// Those that had to be made, each a list of its own.
    made: HashMap<ProfileSnapshot, Profiles>,
}

impl<'p> ProfileMatcher<'p> {
    fn new(profiles: Option<&'p Profiles>) -> Self {
        let list: Vec<&Profile> = profiles.into_iter().flat_map(Profiles::iter).collect();
        let mut matcher = Self { named: HashMap::new(), nameless: HashMap::new(), made: HashMap::new() };
        for (place, profile) in list.iter().enumerate() {
            if let Some(name) = profile.name() {
                matcher.named.insert(name, place);
                continue;
            }
            for keep in [ProfileDetail::Full, ProfileDetail::Redacted] {
                matcher
                    .nameless
                    .entry(ProfileSnapshot::of(profile, keep))
                    .and_modify(|known| *known = known.filter(|&known| list[known] == *profile))
                    .or_insert(Some(place));
            }
        }
        matcher
    }

    fn find(&mut self, kept: &ProfileSnapshot) -> Result<ProfileChoice, (SkipReason, Option<ProfileError>)> {
        let configured = match &kept.name {
            Some(name) => self.named.get(name.as_str()).copied(),
            None => self.nameless.get(kept).copied().flatten(),
        };
        if let Some(place) = configured {
            return Ok(ProfileChoice::Index(place));
        }
        if let Some(made) = self.made.get(kept) {
            return Ok(ProfileChoice::Other(made.clone()));
        }
        if kept.redacted {
            return Err((SkipReason::ProfileMissing, None));
        }
        let made = kept.make().and_then(|profile| Profiles::new([profile]));
        let made = made.map_err(|error| (SkipReason::ProfileInvalid, Some(error)))?;
        self.made.insert(kept.clone(), made.clone());
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

/// Why a session could not be restored.
#[derive(Debug)]
pub struct RestoreError {
    session: SessionId,
    reason: SkipReason,
    source: Option<ProfileError>,
}

impl RestoreError {
    /// The name of the session in its snapshot.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// What is wrong.
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

/// What was restored, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it tells what was left out"]
pub struct RestoreReport {
    restored: usize,
    cookies: usize,
    expired: usize,
    skipped: Vec<Skipped>,
}

impl RestoreReport {
    /// The number of sessions that were restored.
    pub fn restored(&self) -> usize {
        self.restored
    }

    /// The number of cookies that were restored.
    pub fn cookies(&self) -> usize {
        self.cookies
    }

    /// The number of cookies that had expired since they were saved; they are no loss.
    pub fn expired(&self) -> usize {
        self.expired
    }

    /// What was left out, by session.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether nothing was left out.
    pub fn is_complete(&self) -> bool {
        self.skipped.is_empty()
    }

    fn leave_out(&mut self, session: &SessionId, cookies: usize, reason: SkipReason) {
        self.skipped.push(Skipped { session: session.clone(), cookies, reason });
    }
}

/// A session that was left out, or some of its cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    session: SessionId,
    cookies: usize,
    reason: SkipReason,
}

impl Skipped {
    /// The session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The number of its cookies that were left out.
    pub fn cookies(&self) -> usize {
        self.cookies
    }

    /// Why; all but [`SkipReason::CookieLimit`] concern the whole session.
    pub fn reason(&self) -> SkipReason {
        self.reason
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, cookies, reason } = self;
        match reason {
            SkipReason::CookieLimit => {
                write!(f, "session {session}: {cookies} cookies left out, {reason}")
            }
            _ => write!(f, "session {session}: left out, {reason}"),
        }
    }
}

/// Why something was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// There are more sessions than `max_sessions`, and others were used later.
    SessionLimit,
    /// There are more cookies than the jar's limits allow, and others were used later.
    CookieLimit,
    /// The profile is not among those configured, and not all of it was saved.
    ProfileMissing,
    /// The profile as it was saved cannot be one.
    ProfileInvalid,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SessionLimit => "there are more than max_sessions",
            Self::CookieLimit => "there are more than the limits of a jar allow",
            Self::ProfileMissing => {
                "its profile is not among those configured, and not all of it was saved; configure it, or save with secrets"
            }
            Self::ProfileInvalid => "its profile as it was saved cannot be one",
        })
    }
}
