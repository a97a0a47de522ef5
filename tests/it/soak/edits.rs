//! What users added by hand, and which identity has to carry it.

use std::collections::{BTreeMap, BTreeSet};

use tower_client_sessions::{Session, session::Identity};

/// Which identity of a session something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The one of this generation, which was current.
    Generation(u64),
    /// The one that the session's renewal of this number brings about, and whatever is tried on the way to it.
    Renewal(u64),
}

/// The cookies that were added by hand, by session and name.
#[derive(Default)]
pub(super) struct Edits {
    cookies: BTreeMap<String, BTreeMap<String, Whose>>,
    /// The generations that were given by hand: no renewal brought them about.
    given: BTreeSet<(String, u64)>,
}

impl Edits {
    /// A cookie was added. To be told in the moment in which it is.
    pub(super) fn add(&mut self, session: &Session, cookie: String) {
        let whose = addressed(session);
        self.cookies.entry(name(session)).or_default().insert(cookie, whose);
    }

    /// A cookie is about to be removed; whether it is there to be.
    pub(super) fn remove(&mut self, session: &Session, cookie: &str) -> bool {
        let is_there = self.addressed(session).contains(cookie);
        if is_there {
            self.cookies.entry(name(session)).or_default().remove(cookie);
        }
        is_there
    }

    /// Whatever was about to come is gone, by a call that has just returned.
    pub(super) fn wipe(&mut self, session: &Session) {
        let done = session.stats().renewals_committed;
        if let Some(cookies) = self.cookies.get_mut(&name(session)) {
            cookies.retain(|_, whose| !matches!(whose, Whose::Renewal(number) if *number > done));
        }
    }

    /// The generation that is current was given by hand just now.
    pub(super) fn give(&mut self, session: &Session) {
        let generation = session.generation().expect("what is given is current at once");
        self.given.insert((name(session), generation));
    }

    pub(super) fn was_given(&self, session: &str, generation: u64) -> bool {
        self.given.contains(&(session.to_owned(), generation))
    }

    /// A fork was made just now: what it has taken along is as if it had been added to its first identity.
    pub(super) fn fork(&mut self, of: &Session, fork: &Session) {
        let whose = addressed(fork);
        let taken = self.addressed(of).into_iter().map(|cookie| (cookie, whose)).collect();
        self.cookies.insert(name(fork), taken);
    }

    /// All that were ever added to this session and not removed, the ended identities' included.
    pub(super) fn ever(&self, session: &Session) -> Vec<String> {
        self.cookies.get(&name(session)).into_iter().flatten().map(|(cookie, _)| cookie.clone()).collect()
    }

    /// What reads and edits of this session find.
    pub(super) fn addressed(&self, session: &Session) -> BTreeSet<String> {
        match session.generation() {
            Some(generation) => self.of(session, generation),
            None => self.pick(session, &[addressed(session)]),
        }
    }

    /// What a request that is sent under this identity now has to carry.
    pub(super) fn carried_by(&self, identity: &Identity) -> BTreeSet<String> {
        self.of(identity.session(), identity.generation())
    }

    /// Whether this cookie was added while there was no current identity.
    pub(super) fn was_added_while_held(&self, session: &Session, cookie: &str) -> bool {
        let whose = self.cookies.get(&name(session)).and_then(|cookies| cookies.get(cookie));
        matches!(whose, Some(Whose::Renewal(_)))
    }

    fn of(&self, session: &Session, generation: u64) -> BTreeSet<String> {
        let renewals = session.stats().renewals_committed;
        let renewal = match session.generation() {
            // Only the one that comes is sent under without being current.
            current if current != Some(generation) => Whose::Renewal(renewals + 1),
            _ if self.was_given(&name(session), generation) => {
                return self.pick(session, &[Whose::Generation(generation)]);
            }
            _ => Whose::Renewal(renewals),
        };
        self.pick(session, &[Whose::Generation(generation), renewal])
    }

    fn pick(&self, session: &Session, wanted: &[Whose]) -> BTreeSet<String> {
        let cookies = self.cookies.get(&name(session)).into_iter().flatten();
        cookies.filter(|(_, whose)| wanted.contains(whose)).map(|(cookie, _)| cookie.clone()).collect()
    }
}

/// Whom an edit goes to at this moment.
fn addressed(session: &Session) -> Whose {
    match session.generation() {
        Some(generation) => Whose::Generation(generation),
        None => Whose::Renewal(session.stats().renewals_committed + 1),
    }
}

fn name(session: &Session) -> String {
    session.id().to_string()
}
