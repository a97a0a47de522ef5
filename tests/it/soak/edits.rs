//! The cookies that users added, and the identities that must have them.

use std::collections::{BTreeMap, BTreeSet};

use tower_client_sessions::{Session, session::Identity};

/// The identity that has a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The identity of this generation, which was current.
    Generation(u64),
    /// The identity that the session's renewal of this number creates, and its failed attempts.
    Renewal(u64),
}

/// The cookies that users added, by session and name.
#[derive(Default)]
pub(super) struct Edits {
    cookies: BTreeMap<String, BTreeMap<String, Owner>>,
    /// The generations that `replace` created, and no renewal.
    given: BTreeSet<(String, u64)>,
}

impl Edits {
    /// Records a cookie, at the time when it is added.
    pub(super) fn add(&mut self, session: &Session, cookie: String) {
        let owner = addressed(session);
        self.cookies.entry(name(session)).or_default().insert(cookie, owner);
    }

    /// Records that a cookie is removed, and returns whether it exists.
    pub(super) fn remove(&mut self, session: &Session, cookie: &str) -> bool {
        let is_there = self.addressed(session).contains(cookie);
        if is_there {
            self.cookies.entry(name(session)).or_default().remove(cookie);
        }
        is_there
    }

    /// Records that a call which has just returned discarded the pending identity.
    pub(super) fn discard_pending(&mut self, session: &Session) {
        let done = session.stats().renewals_committed;
        if let Some(cookies) = self.cookies.get_mut(&name(session)) {
            cookies.retain(|_, owner| !matches!(owner, Owner::Renewal(number) if *number > done));
        }
    }

    /// Records that `replace` has just created the current generation.
    pub(super) fn give(&mut self, session: &Session) {
        let generation = session.generation().expect("a replaced identity is current");
        self.given.insert((name(session), generation));
    }

    pub(super) fn was_given(&self, session: &str, generation: u64) -> bool {
        self.given.contains(&(session.to_owned(), generation))
    }

    /// Records a fork: its first identity has the cookies of the original.
    pub(super) fn fork(&mut self, of: &Session, fork: &Session) {
        let owner = addressed(fork);
        let taken = self.addressed(of).into_iter().map(|cookie| (cookie, owner)).collect();
        self.cookies.insert(name(fork), taken);
    }

    /// Returns all cookies that were added to this session and not removed, also of ended
    /// identities.
    pub(super) fn ever(&self, session: &Session) -> Vec<String> {
        self.cookies.get(&name(session)).into_iter().flatten().map(|(cookie, _)| cookie.clone()).collect()
    }

    /// Returns the cookies that reads and edits of this session find.
    pub(super) fn addressed(&self, session: &Session) -> BTreeSet<String> {
        match session.generation() {
            Some(generation) => self.of(session, generation),
            None => self.pick(session, &[addressed(session)]),
        }
    }

    /// Returns the cookies that a request sent under this identity must have.
    pub(super) fn carried_by(&self, identity: &Identity) -> BTreeSet<String> {
        self.of(identity.session(), identity.generation())
    }

    /// Returns whether this cookie was added while there was no current identity.
    pub(super) fn was_added_while_pending(&self, session: &Session, cookie: &str) -> bool {
        let owner = self.cookies.get(&name(session)).and_then(|cookies| cookies.get(cookie));
        matches!(owner, Some(Owner::Renewal(_)))
    }

    fn of(&self, session: &Session, generation: u64) -> BTreeSet<String> {
        let renewals = session.stats().renewals_committed;
        let renewal = match session.generation() {
            // A request under an identity that is not current is under the pending one.
            current if current != Some(generation) => Owner::Renewal(renewals + 1),
            _ if self.was_given(&name(session), generation) => {
                return self.pick(session, &[Owner::Generation(generation)]);
            }
            _ => Owner::Renewal(renewals),
        };
        self.pick(session, &[Owner::Generation(generation), renewal])
    }

    fn pick(&self, session: &Session, wanted: &[Owner]) -> BTreeSet<String> {
        let cookies = self.cookies.get(&name(session)).into_iter().flatten();
        cookies.filter(|(_, owner)| wanted.contains(owner)).map(|(cookie, _)| cookie.clone()).collect()
    }
}

/// Returns the identity that an edit changes now.
fn addressed(session: &Session) -> Owner {
    match session.generation() {
        Some(generation) => Owner::Generation(generation),
        None => Owner::Renewal(session.stats().renewals_committed + 1),
    }
}

fn name(session: &Session) -> String {
    session.id().to_string()
}
