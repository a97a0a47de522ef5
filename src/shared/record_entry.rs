//! One record of a store of this crate, and what each request does to it, as plain data.

use std::time::Duration;

use bytes::Bytes;

use super::{Commit, CommitOutcome, FencingToken, LeaseOutcome, Owner, Record, RecordVersion, UseGrant};

/// A record with its lease and its uses. Times are measured from an origin that the store chooses.
#[derive(Debug)]
pub(super) struct RecordEntry {
    pub(super) record: Record,
    /// The number of the last token.
    pub(super) last_token: u64,
    pub(super) lease: Option<Lease>,
    /// The uses taken of the current version.
    pub(super) uses: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) owner: Owner,
    pub(super) token: FencingToken,
    pub(super) until: Duration,
}

impl RecordEntry {
    pub(super) fn absent() -> Self {
        Self { record: Record::absent(), last_token: 0, lease: None, uses: 0 }
    }

    fn is_leased(&self, owner: Owner, token: FencingToken, now: Duration) -> bool {
        self.lease.is_some_and(|lease| lease.owner == owner && lease.token == token && now < lease.until)
    }

    pub(super) fn lease(&mut self, owner: Owner, ttl: Duration, now: Duration) -> LeaseOutcome {
        if let Some(lease) = self.lease.filter(|lease| now < lease.until) {
            return LeaseOutcome::Held(lease.until - now);
        }
        self.last_token += 1;
        let token = FencingToken::new(self.last_token);
        self.lease = Some(Lease { owner, token, until: now + ttl });
        LeaseOutcome::Granted(token)
    }

    pub(super) fn extend(&mut self, owner: Owner, token: FencingToken, ttl: Duration, now: Duration) -> bool {
        let is_held = self.is_leased(owner, token, now);
        if is_held {
            self.lease = Some(Lease { owner, token, until: now + ttl });
        }
        is_held
    }

    pub(super) fn release(&mut self, owner: Owner, token: FencingToken, now: Duration) {
        if self.is_leased(owner, token, now) {
            self.lease = None;
        }
    }

    pub(super) fn mark_in_progress(&mut self, owner: Owner, token: FencingToken, now: Duration) -> bool {
        let is_held = self.is_leased(owner, token, now);
        self.record.interrupted |= is_held;
        is_held
    }

    pub(super) fn commit(&mut self, commit: Commit, now: Duration) -> CommitOutcome {
        let is_late = commit.token.is_some_and(|token| token.get() < self.last_token);
        if is_late || self.record.version.number != commit.expected {
            return CommitOutcome::Conflict(self.record.clone());
        }
        let version = RecordVersion { ended: commit.ended, ..RecordVersion::new(commit.version, 0) };
        let interrupted = commit.interrupted || (commit.token.is_none() && self.record.interrupted);
        self.record = Record { interrupted, ..Record::new(version, Some(commit.owner), commit.payload) };
        self.uses = 0;
        if let Some(token) = commit.token {
            self.release(commit.owner, token, now);
        }
        CommitOutcome::Written(version)
    }

    pub(super) fn update(&mut self, version: RecordVersion, owner: Owner, payload: Bytes) -> CommitOutcome {
        let current = self.record.version;
        if current != version || current.ended || current.number == 0 {
            return CommitOutcome::Conflict(self.record.clone());
        }
        self.record.version.revision += 1;
        self.record.writer = Some(owner);
        self.record.payload = payload;
        CommitOutcome::Written(self.record.version)
    }

    pub(super) fn take_uses(&mut self, version: u64, want: u64, limit: u64) -> UseGrant {
        if self.record.version.number != version {
            return UseGrant::new(0, limit);
        }
        let granted = want.min(limit.saturating_sub(self.uses));
        self.uses += granted;
        UseGrant::new(granted, self.uses)
    }
}
