//! One record of a store that keeps it by itself: what each request does to it, as plain data.

use std::time::Duration;

use bytes::Bytes;

use super::{Commit, CommitOutcome, FencingToken, LeaseOutcome, Owner, Record, RecordVersion, UseGrant};

/// A record with its lease and its uses. Times are since an origin of the store's choice.
#[derive(Debug)]
pub(super) struct RecordEntry {
    pub(super) record: Record,
    /// The greatest fence that was given out.
    pub(super) fence: FencingToken,
    pub(super) lease: Option<Lease>,
    /// The uses taken of the current version.
    pub(super) uses: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) owner: Owner,
    pub(super) fence: FencingToken,
    pub(super) until: Duration,
}

impl RecordEntry {
    pub(super) fn absent() -> Self {
        Self { record: Record::absent(), fence: 0, lease: None, uses: 0 }
    }

    fn is_leased(&self, owner: Owner, fence: FencingToken, now: Duration) -> bool {
        self.lease.is_some_and(|lease| lease.owner == owner && lease.fence == fence && now < lease.until)
    }

    pub(super) fn lease(&mut self, owner: Owner, ttl: Duration, now: Duration) -> LeaseOutcome {
        if let Some(lease) = self.lease.filter(|lease| now < lease.until) {
            return LeaseOutcome::Held(lease.until - now);
        }
        self.fence += 1;
        self.lease = Some(Lease { owner, fence: self.fence, until: now + ttl });
        LeaseOutcome::Granted(self.fence)
    }

    pub(super) fn extend(&mut self, owner: Owner, fence: FencingToken, ttl: Duration, now: Duration) -> bool {
        let is_held = self.is_leased(owner, fence, now);
        if is_held {
            self.lease = Some(Lease { owner, fence, until: now + ttl });
        }
        is_held
    }

    pub(super) fn release(&mut self, owner: Owner, fence: FencingToken, now: Duration) {
        if self.is_leased(owner, fence, now) {
            self.lease = None;
        }
    }

    pub(super) fn mark_in_progress(&mut self, owner: Owner, fence: FencingToken, now: Duration) -> bool {
        let is_held = self.is_leased(owner, fence, now);
        self.record.interrupted |= is_held;
        is_held
    }

    pub(super) fn commit(&mut self, commit: Commit, now: Duration) -> CommitOutcome {
        let is_late = commit.fence.is_some_and(|fence| fence < self.fence);
        if is_late || self.record.version.number != commit.expected {
            return CommitOutcome::Conflict(self.record.clone());
        }
        let version = RecordVersion { number: commit.version, revision: 0, ended: commit.ended };
        let interrupted = commit.interrupted || (commit.fence.is_none() && self.record.interrupted);
        self.record = Record { interrupted, ..Record::new(version, Some(commit.owner), commit.payload) };
        self.uses = 0;
        if let Some(fence) = commit.fence {
            self.release(commit.owner, fence, now);
        }
        CommitOutcome::Written(version)
    }

    pub(super) fn update(&mut self, version: RecordVersion, owner: Owner, payload: Bytes) -> CommitOutcome {
        let stands = self.record.version;
        if stands != version || stands.ended || stands.number == 0 {
            return CommitOutcome::Conflict(self.record.clone());
        }
        self.record.version.revision += 1;
        self.record.writer = Some(owner);
        self.record.payload = payload;
        CommitOutcome::Written(self.record.version)
    }

    pub(super) fn take_uses(&mut self, version: u64, want: u64, limit: u64) -> UseGrant {
        if self.record.version.number != version {
            return UseGrant { granted: 0, total: limit };
        }
        let granted = want.min(limit.saturating_sub(self.uses));
        self.uses += granted;
        UseGrant { granted, total: self.uses }
    }
}
