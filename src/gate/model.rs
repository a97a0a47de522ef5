//! Searches every interleaving of a small world around the state machine.
//!
//! A world has a few requests, a limiter whose permits the requests and the renewal share, a task,
//! a server that ends sessions, and a bounded number of user calls and failures. The search is
//! breadth first. Monitors check each step. At the end, every state must be able to finish by
//! progress alone, without a user call. Waiters are polled only when they were woken, so that a
//! lost wake-up is a state that cannot finish.
//!
//! A setting may have pages that the server rejects under every identity. There the server's
//! decision and the arrival of its response are two steps, so that responses overtake each other,
//! and the monitors know which request was sent after which rejection had arrived.
//!
//! Requests are interchangeable: the key of a state has the sorted requests, the rank of each
//! generation, and whether each attempt is live. Each broken variant omits one duty of the shell,
//! or uses the state machine wrongly in one way. The search has to find it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use super::{
    Admission, Arrival, Attempt, CandidateBase, Charge, Core, CoreError, DiscardReason, DoubtOutcome,
    EffectSink, Epoch, Failure, FailureKind, Generation, Grant, Limits, Refusal, Rejection, Release,
    ReportOutcome, Source, State, Step, VerificationId, Verified,
};
use crate::waiters::Ticket;

/// Before the first generation.
const NONE: Generation = Generation::new(0);
const STARTS: usize = 4;
const FAILURES: u32 = 2;
const MAX_WAITING: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mishap {
    CoreError,
    Reported,
}

impl From<CoreError> for Mishap {
    fn from(_: CoreError) -> Self {
        Self::CoreError
    }
}

/// Events whose number is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Event {
    Clear,
    RenewWith,
    Replace,
    Renew,
    Edit,
    Close,
    Drop,
    Freeze,
    ServerExpires,
    AttemptFails,
    AttemptRejected,
    TaskAborted,
    TransportError,
    Deadline,
}
use Event::*;

/// The mistake of a broken variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    ReserveThenHold,
    NoRecheck,
    NoCancel,
    LeadNotCancelled,
    StaleActs,
    NoDropGuard,
    NoBaton,
    NoRoleDeadline,
    LeadCommitsExpired,
    EditNotWrittenThrough,
    NoStartCap,
    NoFailureBound,
    UsesUnchecked,
    EndlessReplay,
    LostWake,
    CommitUnchecked,
    RenewWithJoins,
    ProbeLost,
    WaiterKeepsPermit,
    PermitLostOnDrop,
    ServesWhileRenewed,
    ParksInPending,
    RoleToYoungest,
    OverlapEndsFirst,
    ExplicitForgotten,
    EvidenceStampedLate,
    EarlierServiceCounts,
    SecondRejectionEnds,
    ChargedTwice,
    VerificationDecidesLater,
}

#[derive(Clone)]
struct Setting {
    name: &'static str,
    requests: usize,
    permits: u8,
    rule: bool,
    release: Release,
    sends: u8,
    uses: u8,
    login_first: bool,
    /// The number of requests whose page the server rejects under every identity. With any, the
    /// responses overtake each other.
    forbidden: Option<usize>,
    verifies: bool,
    events: BTreeMap<Event, u8>,
    flaw: Option<Flaw>,
}

impl Setting {
    fn new(name: &'static str, requests: usize, permits: u8, events: &[(Event, u8)]) -> Self {
        Self {
            name,
            requests,
            permits,
            rule: true,
            release: Release::All,
            sends: 3,
            uses: 0,
            login_first: false,
            forbidden: None,
            verifies: false,
            events: events.iter().copied().collect(),
            flaw: None,
        }
    }

    fn no_rule(mut self) -> Self {
        self.rule = false;
        self
    }

    fn release(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    fn uses(mut self, uses: u8) -> Self {
        self.uses = uses;
        self
    }

    fn sends(mut self, sends: u8) -> Self {
        self.sends = sends;
        self
    }

    fn forbidden(mut self, requests: usize) -> Self {
        self.forbidden = Some(requests);
        self
    }

    fn verifies(mut self) -> Self {
        self.verifies = true;
        self
    }

    fn login_first(mut self) -> Self {
        self.login_first = true;
        self
    }

    fn flaw(mut self, flaw: Flaw) -> Self {
        self.flaw = Some(flaw);
        self
    }

    fn limits(&self) -> Limits {
        Limits {
            max_attempts: if self.flaw == Some(Flaw::NoFailureBound) { u32::MAX } else { FAILURES },
            max_starts: if self.flaw == Some(Flaw::NoStartCap) { usize::MAX } else { STARTS },
            // The window does not slide here.
            start_window: Duration::MAX,
            max_waiting: MAX_WAITING,
            attempt_timeout: Duration::from_secs(1),
            retry_backoff: Duration::from_secs(1),
            retry_backoff_max: Duration::from_secs(1),
            failed_backoff: Duration::from_secs(1),
            failed_backoff_max: Duration::from_secs(1),
            cooldown: Duration::from_secs(1),
            role_timeout: Duration::from_secs(1),
            release: self.release,
        }
    }
}

/// The phase of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum At {
    /// Before its admission.
    New,
    /// Holding a permit while it waits for the gate (a broken variant only).
    Reserved,
    Waiting,
    /// Waiting, and not polled again.
    Frozen,
    /// Admitted; in the limiter's queue.
    Queued,
    /// With a permit, before the second check and the send.
    Ready,
    InFlight,
    /// Rejected again; it waits for evidence.
    InDoubt,
    Done,
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    is_forbidden: bool,
    /// What the server has decided, before the response arrives.
    accepted: Option<bool>,
    rejections: u8,
    /// How many values its rejections have ended.
    charges: u8,
    epoch: Epoch,
    /// The requests that were in doubt when this one was sent.
    sent_after: u8,
    at: At,
    ticket: Option<Ticket>,
    woken: bool,
    grant: Grant,
    arrival: Arrival,
    sends: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    None,
    Waiting(Attempt),
    Sent(Attempt),
}

/// The events of one step, for the monitors.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Note {
    Send(usize, Grant),
    Commit(Generation),
    Cancelled,
    Stale,
    GoodResponse(usize),
    /// The verification was accepted. The requests that were in doubt when it was sent.
    GoodVerification(u8),
    /// A request came to be in doubt.
    InDoubt,
    CommitAfterCancel,
}

/// Records effects: which values exist, and whether an accepted edit is in them.
#[derive(Clone, Debug, Default)]
struct Values {
    rule: bool,
    pending_edited: bool,
    candidate_edited: bool,
    candidate: Option<Generation>,
    installed: Option<Generation>,
    started: Option<Attempt>,
    aborted: bool,
    woken: Vec<usize>,
    committed: Option<Generation>,
    ended: bool,
    verifies: bool,
    verification: Option<VerificationId>,
}

impl Values {
    fn step<'a>(&'a mut self, limits: &'a Limits, now: Duration) -> Step<'a, Self> {
        Step { effects: self, limits, now }
    }
}

impl EffectSink for Values {
    type Waker = usize;
    type Error = Mishap;

    fn has_rule(&self) -> bool {
        self.rule
    }
    fn can_verify(&self) -> bool {
        self.verifies
    }
    fn verify(&mut self, _generation: Generation, id: VerificationId) {
        self.verification = Some(id);
    }
    fn end_current(&mut self) {
        self.ended = true;
    }
    fn new_pending(&mut self) {
        self.pending_edited = false;
    }
    fn candidate(&mut self, generation: Generation, base: CandidateBase) {
        self.candidate = Some(generation);
        self.candidate_edited = base == CandidateBase::Pending && self.pending_edited;
    }
    fn discard(&mut self, _reason: DiscardReason) {
        self.candidate = None;
    }
    fn promote(&mut self) {
        self.committed = self.candidate.take();
    }
    fn install(&mut self, generation: Generation) {
        self.installed = Some(generation);
    }
    fn start_attempt(&mut self, attempt: Attempt, _generation: Generation) {
        self.started = Some(attempt);
    }
    fn abort_attempt(&mut self) {
        self.aborted = true;
    }
    fn wake(&mut self, waker: usize) {
        self.woken.push(waker);
    }
    fn drop_waker(&mut self, _waker: usize) {}
    fn drop_error(&mut self, _error: Mishap) {}
    fn random(&mut self) -> u64 {
        u64::MAX
    }
}

#[derive(Clone)]
struct World {
    core: Core<Values>,
    values: Values,
    requests: Vec<Request>,
    permits: u8,
    task: Task,
    verification: Option<Verification>,
    /// Attempts that were cancelled in flight; their results arrive later.
    late: Vec<Attempt>,
    /// The server rejects generations below this one.
    server: Generation,
    /// The last generation before the last call that cancelled.
    floor: Generation,
    /// An edit was accepted since the last commit, clear or replace.
    wanted: bool,
    uses: u8,
    now: Duration,
    left: BTreeMap<Event, u8>,
    notes: Vec<Note>,
}

#[derive(Clone, Copy, Debug)]
struct Verification {
    id: VerificationId,
    generation: Generation,
    accepted: Option<bool>,
    /// The requests that were in doubt when it was sent.
    sent_after: u8,
}

/// The part of the state that a stale report must not change.
type Stance =
    (State<Mishap>, Option<Generation>, Option<Generation>, Generation, Attempt, Source, u32, usize);

impl World {
    fn new(setting: &Setting) -> Self {
        let grant = Grant { generation: NONE, role: None };
        Self {
            core: if setting.login_first { Core::initially_pending() } else { Core::initially_open() },
            values: Values { rule: setting.rule, verifies: setting.verifies, ..Values::default() },
            requests: (0..setting.requests)
                .map(|index| Request {
                    is_forbidden: setting.forbidden.is_some_and(|forbidden| index < forbidden),
                    accepted: None,
                    rejections: 0,
                    charges: 0,
                    epoch: Epoch::default(),
                    sent_after: 0,
                    at: At::New,
                    ticket: None,
                    woken: false,
                    grant,
                    arrival: Arrival::First,
                    sends: 0,
                })
                .collect(),
            permits: setting.permits,
            task: Task::None,
            verification: None,
            late: Vec::new(),
            server: Generation::FIRST,
            floor: NONE,
            wanted: false,
            uses: 0,
            now: Duration::ZERO,
            left: setting.events.clone(),
            notes: Vec::new(),
        }
    }

    fn stance(&self) -> Stance {
        let core = &self.core;
        (
            core.state.clone(),
            core.current,
            core.candidate,
            core.last,
            core.attempt,
            core.source,
            core.failures,
            core.recent_starts.len(),
        )
    }

    /// Applies the effects of this step.
    fn act(&mut self, setting: &Setting) {
        let values = &mut self.values;
        if values.aborted {
            values.aborted = false;
            if let Task::Sent(attempt) = self.task {
                self.permits += 1;
                self.late.push(attempt);
                let first = self.late.len().saturating_sub(2);
                self.late.drain(..first);
            }
            self.task = Task::None;
            self.notes.push(Note::Cancelled);
        }
        if let Some(generation) = values.committed.take() {
            self.task = Task::None;
            self.uses = 0;
            self.wanted = false;
            self.notes.push(Note::Commit(generation));
        }
        if let Some(attempt) = values.started.take() {
            self.task = Task::Waiting(attempt);
        }
        if let Some(id) = values.verification.take() {
            let generation = self.core.current.expect("a verification is about the current value");
            let sent_after = in_doubt(&self.core, &self.requests);
            self.verification = Some(Verification { id, generation, accepted: None, sent_after });
        }
        if values.installed.take().is_some() {
            self.uses = 0;
        }
        if std::mem::take(&mut values.ended) {
            // The edits of a value end with it.
            self.wanted = false;
        }
        let mut woken = std::mem::take(&mut values.woken);
        if setting.flaw == Some(Flaw::LostWake) {
            woken.truncate(1);
        }
        for index in woken {
            self.requests[index].woken = true;
        }
        if setting.flaw == Some(Flaw::RoleToYoungest) && self.core.state == (State::Lead { taken: false }) {
            let line = self.line();
            line.iter().for_each(|ticket| *self.core.waiters.note_mut(*ticket) = None);
            if let Some(youngest) = line.last() {
                self.core.give_role(*youngest);
            }
        }
    }

    fn line(&self) -> Vec<Ticket> {
        self.core.waiters.iter().collect()
    }

    fn live_role(&self, request: &Request) -> bool {
        if matches!(request.at, At::Done | At::Failed) {
            return false;
        }
        let role = match request.ticket {
            Some(_) if request.at == At::InDoubt => None,
            Some(ticket) if !self.core.waiters.has_outcome(ticket) => *self.core.waiters.note(ticket),
            Some(_) => None,
            None => request.grant.role,
        };
        role == Some(self.core.attempt) && matches!(self.core.state, State::Lead { .. } | State::Probe { .. })
    }

    /// The key of a state: equal states have equal keys.
    fn key(&self) -> Vec<u8> {
        let core = &self.core;
        let mut generations = BTreeSet::from([NONE, core.last, self.server, self.floor]);
        generations.extend(core.current);
        generations.extend(core.candidate);
        generations.extend(
            self.requests
                .iter()
                .filter(|r| matches!(r.at, At::Queued | At::Ready | At::InFlight))
                .map(|r| r.grant.generation),
        );
        generations.extend(self.verification.map(|it| it.generation));
        let rank = |generation: Generation| generations.range(..generation).count() as u8;
        let mut key = Vec::with_capacity(64);
        key.push(match &core.state {
            State::Open => 0,
            State::Cooldown { permanent_error, .. } => 1 + u8::from(permanent_error.is_some()),
            State::Overlap => 3,
            State::Probe { taken } => 4 + u8::from(*taken),
            State::Stagger { .. } => 6,
            State::Pending => 7,
            State::Hold => 8,
            State::Lead { taken } => {
                9 + u8::from(*taken) + 2 * u8::from(!*taken && core.is_overdue(self.now))
            }
            State::Backoff { .. } => 12,
            State::Failed { retry_at, .. } => {
                13 + u8::from(retry_at.is_some()) + u8::from(retry_at.is_some_and(|at| self.now >= at))
            }
            State::Closed => 16,
        });
        key.extend([
            u8::from(core.is_renewed)
                | u8::from(core.is_proven) << 1
                | u8::from(core.verification.is_some()) << 2
                | self.verification.map_or(0, |it| {
                    let is_live = core.verification.is_some_and(|(id, _)| id == it.id);
                    8 | u8::from(is_live) << 4 | it.accepted.map_or(0, |accepted| 32 << u8::from(accepted))
                }),
            rank(core.current.unwrap_or(NONE)),
            rank(core.candidate.unwrap_or(NONE)),
            rank(core.last),
            rank(self.server),
            rank(self.floor),
            u8::from(core.source == Source::Explicit),
            core.failures as u8,
            core.recent_starts.len() as u8,
            self.uses,
            self.permits,
            self.late.len() as u8,
            u8::from(self.wanted)
                | u8::from(self.values.pending_edited) << 1
                | u8::from(self.values.candidate_edited) << 2,
            match self.task {
                Task::None => 0,
                Task::Waiting(attempt) => 1 + 2 * u8::from(core.runs(attempt)),
                Task::Sent(attempt) => 2 + 2 * u8::from(core.runs(attempt)),
            },
        ]);
        key.push(self.verification.map_or(0, |it| it.sent_after));
        key.extend(self.left.values());
        let line = self.line();
        let mut requests: Vec<_> = self
            .requests
            .iter()
            .enumerate()
            .map(|(index, r)| {
                let waiter = r.ticket.filter(|_| r.at != At::InDoubt);
                let place =
                    waiter.and_then(|t| line.iter().position(|other| *other == t)).map_or(0, |p| p + 1);
                let outcome = r.ticket.is_some_and(|t| match r.at {
                    At::InDoubt => core.doubts.has_outcome(t),
                    _ => core.waiters.has_outcome(t),
                });
                let turn = waiter.is_some_and(|t| !outcome && core.has_role(t));
                let generation = if matches!(r.at, At::Queued | At::Ready | At::InFlight) {
                    rank(r.grant.generation)
                } else {
                    0
                };
                let over = matches!(r.at, At::Done | At::Failed);
                let roles = if over { 0 } else { u8::from(self.live_role(r)) | u8::from(turn) << 1 };
                // Doubts are settled by who was sent after whom, so the state distinguishes these
                // requests.
                let (identity, sent_after, outcome_kind) = if self.has_doubts() {
                    let outcome = r.ticket.filter(|_| r.at == At::InDoubt);
                    let kind = outcome.map_or(0, |t| match core.doubts.outcome(t) {
                        None => 1,
                        Some(outcome) => 2 + *outcome as u8,
                    });
                    (index as u8 + 1, if r.at == At::InFlight { r.sent_after } else { 0 }, kind)
                } else {
                    (0, 0, 0)
                };
                [
                    identity,
                    sent_after,
                    outcome_kind,
                    if over {
                        0
                    } else {
                        u8::from(r.is_forbidden)
                            | r.accepted.map_or(0, |accepted| 2 << u8::from(accepted))
                            | r.rejections.min(2) << 3
                            | r.charges << 5
                    },
                    r.at as u8,
                    generation,
                    if over { 0 } else { r.sends },
                    roles,
                    place as u8 * 8
                        + u8::from(r.woken && r.ticket.is_some())
                        + 2 * u8::from(outcome)
                        + 4 * u8::from(r.arrival == Arrival::Returning && !over),
                ]
            })
            .collect();
        requests.sort_unstable();
        key.extend(requests.into_iter().flatten());
        key
    }

    /// Whether a request is in doubt, or was when another was sent that is still in flight.
    fn has_doubts(&self) -> bool {
        let sent = |r: &Request| r.at == At::InFlight && r.sent_after != 0;
        self.requests.iter().any(|r| r.at == At::InDoubt || sent(r))
            || self.verification.is_some_and(|it| it.sent_after != 0)
    }

    fn committed(&self) -> bool {
        self.notes.iter().any(|note| matches!(note, Note::Commit(_)))
    }

    fn finished(&self) -> bool {
        self.requests.iter().all(|r| matches!(r.at, At::Done | At::Failed | At::Frozen))
    }
}

/// The requests that are in doubt, as a set of bits.
fn in_doubt(core: &Core<Values>, requests: &[Request]) -> u8 {
    let is_open =
        |r: &Request| r.at == At::InDoubt && r.ticket.is_some_and(|ticket| !core.doubts.has_outcome(ticket));
    let doubts = requests.iter().enumerate().filter(|(_, r)| is_open(r));
    doubts.fold(0, |set, (index, _)| set | 1 << index)
}

/// A step: its label, whether it is progress, and the world after it.
struct Move {
    label: String,
    progress: bool,
    after: World,
}

struct Search<'a> {
    setting: &'a Setting,
    limits: Limits,
}

impl Search<'_> {
    fn flawed(&self, flaw: Flaw) -> bool {
        self.setting.flaw == Some(flaw)
    }

    fn steps(&self, before: &World) -> Vec<Move> {
        let mut steps = Vec::new();
        for index in 0..before.requests.len() {
            self.request_steps(before, index, &mut steps);
        }
        self.task_steps(before, &mut steps);
        self.verification_steps(before, &mut steps);
        self.user_steps(before, &mut steps);
        self.time_steps(before, &mut steps);
        steps
    }

    fn step(
        &self,
        before: &World,
        label: impl Into<String>,
        progress: bool,
        change: impl FnOnce(&mut World),
    ) -> Move {
        let mut after = before.clone();
        after.notes.clear();
        change(&mut after);
        after.act(self.setting);
        Move { label: label.into(), progress, after }
    }

    /// A step of which the number is limited. It is not progress.
    fn rare(
        &self,
        before: &World,
        event: Event,
        label: impl Into<String>,
        steps: &mut Vec<Move>,
        change: impl FnOnce(&mut World),
    ) {
        if before.left.get(&event).is_some_and(|left| *left > 0) {
            steps.push(self.step(before, label, false, |world| {
                *world.left.get_mut(&event).expect("it is there") -= 1;
                change(world);
            }));
        }
    }

    fn admit(&self, world: &mut World, index: usize) {
        let World { core, values, requests, now, .. } = world;
        let request = &mut requests[index];
        if self.flawed(Flaw::ParksInPending) && matches!(core.state, State::Pending) {
            // Waits for another request to lead.
            request.at = At::Waiting;
            request.ticket = Some(core.waiters.push());
            return;
        }
        match core.admit(&mut values.step(&self.limits, *now), request.arrival) {
            Admission::Pass(grant) => {
                request.at = At::Queued;
                request.grant = grant;
                request.arrival = Arrival::Returning;
            }
            Admission::Wait(ticket) => {
                request.at = At::Waiting;
                request.ticket = Some(ticket);
                // A new waiter polls once, to store its waker.
                request.woken = true;
            }
            Admission::Refuse(_) => request.at = At::Failed,
        }
    }

    fn request_steps(&self, before: &World, index: usize, steps: &mut Vec<Move>) {
        let request = before.requests[index];
        let name = |what: &str| format!("r{index} {what}");
        match request.at {
            At::New if self.flawed(Flaw::ReserveThenHold) && !before.core.admits_all() => {
                if before.permits > 0
                    && matches!(before.core.state, State::Hold | State::Lead { .. } | State::Backoff { .. })
                {
                    steps.push(self.step(before, name("reserves and parks"), true, |world| {
                        world.permits -= 1;
                        world.requests[index].at = At::Reserved;
                    }));
                } else {
                    steps.push(self.step(before, name("asks"), true, |world| self.admit(world, index)));
                }
            }
            At::New => steps.push(self.step(before, name("asks"), true, |world| self.admit(world, index))),
            At::Reserved if before.core.admits_all() => {
                steps.push(self.step(before, name("goes on"), true, |world| {
                    world.permits += 1;
                    world.requests[index].at = At::New;
                }));
            }
            At::Waiting => {
                if request.woken {
                    steps.push(self.step(before, name("is polled"), true, |world| self.poll(world, index)));
                }
                self.rare(before, Freeze, name("is no longer polled"), steps, |world| {
                    world.requests[index].at = At::Frozen;
                });
            }
            At::Queued | At::Ready => self.send_steps(before, index, steps),
            At::InFlight if self.setting.forbidden.is_some() && request.accepted.is_none() => {
                let accepted = !request.is_forbidden && request.grant.generation >= before.server;
                steps.push(self.step(before, name("is decided"), true, |world| {
                    world.requests[index].accepted = Some(accepted);
                }));
            }
            At::InFlight => self.response_steps(before, index, steps),
            At::InDoubt => self.doubt_steps(before, index, steps),
            _ => {}
        }
        if !matches!(request.at, At::Done | At::Failed | At::Reserved) {
            self.rare(before, Drop, name("is dropped"), steps, |world| self.drop(world, index));
        }
    }

    fn poll(&self, world: &mut World, index: usize) {
        let World { core, values, requests, now, .. } = world;
        let request = &mut requests[index];
        let ticket = request.ticket.expect("a waiter has a ticket");
        request.woken = false;
        match core.poll(&mut values.step(&self.limits, *now), ticket) {
            None => *core.waker(ticket) = Some(index),
            Some(Ok(grant)) => {
                request.ticket = None;
                request.grant = grant;
                request.arrival = Arrival::Returning;
                request.at = At::Queued;
            }
            Some(Err(refusal)) => {
                assert!(!matches!(refusal, Refusal::Overloaded), "the limit does not apply to a waiter");
                request.ticket = None;
                request.at = At::Failed;
            }
        }
    }

    fn drop(&self, world: &mut World, index: usize) {
        let World { core, values, requests, now, permits, .. } = world;
        let request = &mut requests[index];
        if matches!(request.at, At::Ready | At::InFlight) && !self.flawed(Flaw::PermitLostOnDrop) {
            *permits += 1;
        }
        let at = std::mem::replace(&mut request.at, At::Failed);
        if at == At::InDoubt {
            let ticket = request.ticket.take().expect("a request in doubt has a ticket");
            core.drop_doubt(&mut values.step(&self.limits, *now), ticket);
            return;
        }
        if let Some(ticket) = request.ticket.take() {
            if self.flawed(Flaw::NoBaton) && core.has_role(ticket) {
                // The slot is freed, and the role is lost.
                core.waiters.remove(ticket);
            } else {
                core.drop_waiter(&mut values.step(&self.limits, *now), ticket);
            }
        } else if matches!(at, At::Queued | At::Ready | At::InFlight)
            && let Some(role) = request.grant.role
            && !self.flawed(Flaw::NoBaton)
        {
            core.drop_role(&mut values.step(&self.limits, *now), role);
        }
    }

    fn send_steps(&self, before: &World, index: usize, steps: &mut Vec<Move>) {
        let request = before.requests[index];
        let grant = request.grant;
        let name = |what: &str| format!("r{index} {what}");
        let live = before.core.may_send(grant);
        if request.at == At::Queued {
            if before.permits > 0 {
                steps.push(self.step(before, name("gets a permit"), true, |world| {
                    world.permits -= 1;
                    world.requests[index].at = At::Ready;
                }));
            }
            if !live {
                steps.push(self.step(before, name("leaves the limiter"), true, |world| {
                    world.requests[index].at = At::New;
                }));
            }
        } else if !live && !self.flawed(Flaw::NoRecheck) {
            steps.push(self.step(before, name("fails the second check"), true, |world| {
                world.permits += u8::from(!self.flawed(Flaw::WaiterKeepsPermit));
                world.requests[index].at = At::New;
            }));
        } else {
            steps.push(self.step(before, name("is sent"), true, |world| {
                let limit = self.setting.uses;
                let counted = limit > 0 && world.core.current == Some(grant.generation);
                if counted && world.uses >= limit && !self.flawed(Flaw::UsesUnchecked) {
                    world.permits += 1;
                    world.requests[index].at = At::New;
                    world
                        .core
                        .limit_reached(&mut world.values.step(&self.limits, world.now), grant.generation);
                    return;
                }
                world.notes.push(Note::Send(index, grant));
                let (epoch, sent_after) = (world.core.epoch(), in_doubt(&world.core, &world.requests));
                let request = &mut world.requests[index];
                *request = Request { at: At::InFlight, accepted: None, epoch, sent_after, ..*request };
                request.sends += 1;
                if counted {
                    world.uses += 1;
                    if world.uses + 1 == limit {
                        world
                            .core
                            .renew_early(&mut world.values.step(&self.limits, world.now), grant.generation);
                    }
                }
            }));
        }
    }

    fn response_steps(&self, before: &World, index: usize, steps: &mut Vec<Move>) {
        let request = before.requests[index];
        let mut grant = request.grant;
        let name = |what: &str| format!("r{index} {what}");
        if self.flawed(Flaw::LeadNotCancelled) && grant.role.is_some() {
            grant = Grant {
                role: Some(before.core.attempt),
                generation: before.core.candidate.unwrap_or(grant.generation),
            };
        }
        let accepted = request.accepted.unwrap_or(grant.generation >= before.server);
        if accepted {
            steps.push(self.step(before, name("gets a good response"), true, |world| {
                world.permits += 1;
                world.requests[index].at = At::Done;
                world.notes.push(Note::GoodResponse(index));
                let World { core, values, now, .. } = world;
                let epoch = match self.setting.flaw {
                    Some(Flaw::EvidenceStampedLate) => core.epoch(),
                    Some(Flaw::EarlierServiceCounts) => Epoch(u64::MAX),
                    _ => request.epoch,
                };
                core.report_good(&mut values.step(&self.limits, *now), grant, epoch);
            }));
        } else {
            steps.push(self.step(before, name("gets an expired response"), true, |world| {
                world.permits += 1;
                let World { core, values, now, requests, notes, verification, .. } = world;
                let request = &mut requests[index];
                let again = request.sends < self.setting.sends || self.flawed(Flaw::EndlessReplay);
                request.at = if again { At::New } else { At::Done };
                if self.flawed(Flaw::LeadCommitsExpired) && grant.role == Some(core.attempt) {
                    return core.report_good(&mut values.step(&self.limits, *now), grant, request.epoch);
                }
                let mut reported = grant;
                if self.flawed(Flaw::StaleActs) {
                    reported.generation = core.current.unwrap_or(reported.generation);
                }
                let is_first = request.rejections == 0 || self.flawed(Flaw::SecondRejectionEnds);
                let rejection = if is_first { Rejection::First } else { Rejection::Repeated };
                let is_leader = core.leads(reported);
                request.rejections = request.rejections.saturating_add(1);
                match core.report_rejected(&mut values.step(&self.limits, *now), reported, rejection) {
                    ReportOutcome::Ended => request.charges += u8::from(!is_leader),
                    ReportOutcome::Stale => {}
                    ReportOutcome::Kept => request.at = At::Done,
                    // It is delivered, since it may not be sent again.
                    ReportOutcome::InDoubt(ticket) if !again => {
                        core.drop_doubt(&mut values.step(&self.limits, *now), ticket);
                    }
                    ReportOutcome::InDoubt(ticket) => {
                        // It is polled once, to store its waker.
                        *request = Request { at: At::InDoubt, ticket: Some(ticket), woken: true, ..*request };
                        notes.push(Note::InDoubt);
                        // What was sent after an earlier doubt of this request was not sent after
                        // this one.
                        let earlier = !(1 << index);
                        requests.iter_mut().for_each(|r| r.sent_after &= earlier);
                        verification.iter_mut().for_each(|it| it.sent_after &= earlier);
                    }
                }
                if !before.core.may_send(grant) {
                    notes.push(Note::Stale);
                }
            }));
        }
        self.rare(before, TransportError, name("ends in a transport error"), steps, |world| {
            world.permits += 1;
            world.requests[index].at = At::Failed;
            if self.flawed(Flaw::ProbeLost) {
                return;
            }
            let World { core, values, now, .. } = world;
            core.report_error(&mut values.step(&self.limits, *now), grant);
        });
    }

    fn doubt_steps(&self, before: &World, index: usize, steps: &mut Vec<Move>) {
        let request = before.requests[index];
        let ticket = request.ticket.expect("a request in doubt has a ticket");
        let name = |what: &str| format!("r{index} {what}");
        let ended = |world: &mut World, outcome: DoubtOutcome| {
            let World { core, values, now, requests, .. } = &mut *world;
            let request = &mut requests[index];
            let outcome = if outcome == DoubtOutcome::Unverified {
                let charge = if request.charges == 0 { Charge::Free } else { Charge::Used };
                let generation = request.grant.generation;
                let outcome = core.unverified(&mut values.step(&self.limits, *now), generation, charge);
                request.charges += u8::from(outcome == DoubtOutcome::Declared);
                outcome
            } else {
                outcome
            };
            let request = &mut world.requests[index];
            request.ticket = None;
            request.woken = false;
            // Delivered, or sent again.
            let ends = matches!(outcome, DoubtOutcome::Ended | DoubtOutcome::Declared);
            request.at = if ends { At::New } else { At::Done };
        };
        if request.woken {
            steps.push(self.step(before, name("is polled in doubt"), true, |world| {
                world.requests[index].woken = false;
                match world.core.poll_doubt(ticket) {
                    None => *world.core.doubt_waker(ticket) = Some(index),
                    Some(outcome) => ended(world, outcome),
                }
            }));
        }
        steps.push(self.step(before, name("gets no evidence in time"), true, |world| {
            let World { core, values, now, requests, .. } = world;
            let request = &mut requests[index];
            let is_free = request.charges == 0 || self.flawed(Flaw::ChargedTwice);
            let charge = if is_free { Charge::Free } else { Charge::Used };
            let outcome = core.doubt_elapsed(&mut values.step(&self.limits, *now), ticket, charge);
            request.charges += u8::from(outcome == DoubtOutcome::Declared);
            ended(world, outcome);
        }));
    }

    fn verification_steps(&self, before: &World, steps: &mut Vec<Move>) {
        let Some(verification) = before.verification else {
            return;
        };
        let Some(accepted) = verification.accepted else {
            let accepted = verification.generation >= before.server;
            steps.push(self.step(before, "the verification is decided", true, |world| {
                world.verification = Some(Verification { accepted: Some(accepted), ..verification });
            }));
            return;
        };
        let arrives = |world: &mut World, result: Verified| {
            world.verification = None;
            if result == Verified::Accepted {
                world.notes.push(Note::GoodVerification(verification.sent_after));
            }
            let World { core, values, now, .. } = world;
            if self.flawed(Flaw::VerificationDecidesLater)
                && let Some((_, epoch)) = &mut core.verification
            {
                *epoch = core.epoch;
            }
            core.verified(&mut values.step(&self.limits, *now), verification.id, result);
        };
        steps.push(self.step(before, "the verification ends", true, |world| {
            arrives(world, if accepted { Verified::Accepted } else { Verified::Rejected });
        }));
        {
            self.rare(before, TransportError, "the verification fails", steps, |world| {
                arrives(world, Verified::Failed)
            });
        }
    }

    fn task_steps(&self, before: &World, steps: &mut Vec<Move>) {
        let done = |world: &mut World, attempt: Attempt, result: Result<(), Failure<Mishap>>| {
            let World { core, values, now, task, permits, .. } = world;
            if let Task::Sent(_) = *task {
                *permits += 1;
            }
            *task = Task::None;
            if self.flawed(Flaw::OverlapEndsFirst) && matches!(core.state, State::Overlap) {
                let current = core.current.expect("an overlap has a current value");
                core.limit_reached(&mut values.step(&self.limits, *now), current);
            }
            let counted = core.attempt_ended(&mut values.step(&self.limits, *now), attempt, result);
            assert!(counted, "a task that was not aborted runs");
            // The task has ended: there is nothing to abort.
            values.aborted = false;
        };
        let failure = |kind| Err(Failure { kind, error: Mishap::Reported });
        let running = match before.task {
            Task::None => None,
            Task::Waiting(attempt) => {
                if before.permits > 0 {
                    steps.push(self.step(before, "the renewal is sent", true, |world| {
                        world.permits -= 1;
                        world.task = Task::Sent(attempt);
                    }));
                }
                Some(attempt)
            }
            Task::Sent(attempt) => {
                if before.core.candidate.is_some_and(|candidate| candidate >= before.server)
                    || self.flawed(Flaw::CommitUnchecked)
                {
                    steps.push(
                        self.step(before, "the renewal succeeds", true, |world| done(world, attempt, Ok(()))),
                    );
                } else {
                    steps.push(self.step(before, "the renewal's result is itself expired", true, |world| {
                        done(world, attempt, failure(FailureKind::Transient));
                    }));
                }
                self.rare(before, AttemptFails, "the renewal fails", steps, |world| {
                    done(world, attempt, failure(FailureKind::Transient))
                });
                self.rare(before, AttemptRejected, "the renewal fails permanently", steps, |world| {
                    done(world, attempt, failure(FailureKind::Permanent));
                });
                Some(attempt)
            }
        };
        if let Some(attempt) = running {
            self.rare(before, TaskAborted, "the task is aborted", steps, |world| {
                if self.flawed(Flaw::NoDropGuard) {
                    world.permits += u8::from(matches!(world.task, Task::Sent(_)));
                    world.task = Task::None;
                } else {
                    done(world, attempt, failure(FailureKind::Transient));
                }
            });
        }
        for (place, attempt) in before.late.iter().copied().enumerate() {
            steps.push(self.step(before, "a late result arrives", true, |world| {
                world.late.remove(place);
                let World { core, values, now, notes, .. } = world;
                let attempt = if self.flawed(Flaw::NoCancel) { core.attempt } else { attempt };
                if core.attempt_ended(&mut values.step(&self.limits, *now), attempt, Ok(())) {
                    notes.push(Note::CommitAfterCancel);
                }
            }));
        }
    }

    fn user_steps(&self, before: &World, steps: &mut Vec<Move>) {
        let limits = &self.limits;
        if !matches!(before.core.state, State::Closed) {
            self.rare(before, Clear, "clear", steps, |world| {
                world.floor = world.core.last;
                world.wanted = false;
                let World { core, values, now, .. } = world;
                let served = core.current;
                core.clear(&mut values.step(limits, *now)).expect("it is not closed");
                if self.flawed(Flaw::ServesWhileRenewed) {
                    core.current = served;
                }
            });
            self.rare(before, RenewWith, "renew_with", steps, |world| {
                world.floor = world.core.last;
                world.wanted = false;
                let World { core, values, now, .. } = world;
                let result = if self.flawed(Flaw::RenewWithJoins)
                    && matches!(core.state, State::Overlap | State::Hold)
                {
                    core.renew(&mut values.step(limits, *now)).expect("it is not closed")
                } else {
                    core.renew_with(&mut values.step(limits, *now)).expect("it is not closed")
                };
                core.drop_result_waiter(result);
            });
            self.rare(before, Replace, "replace", steps, |world| {
                world.floor = world.core.last;
                world.wanted = false;
                let World { core, values, now, .. } = world;
                core.replace(&mut values.step(limits, *now)).expect("it is not closed");
            });
            self.rare(before, Close, "close", steps, |world| {
                world.floor = world.core.last;
                world.wanted = false;
                let World { core, values, now, .. } = world;
                core.close(&mut values.step(limits, *now));
            });
            self.rare(before, Renew, "renew", steps, |world| {
                let World { core, values, now, .. } = world;
                if let Ok(result) = core.renew(&mut values.step(limits, *now)) {
                    core.drop_result_waiter(result);
                }
            });
        }
        if before.core.current.is_none() && !matches!(before.core.state, State::Closed) {
            self.rare(before, Edit, "an edit while pending", steps, |world| {
                world.wanted = true;
                world.values.pending_edited = true;
                if world.core.candidate.is_some() && !self.flawed(Flaw::EditNotWrittenThrough) {
                    world.values.candidate_edited = true;
                }
            });
        }
        if before.server <= before.core.last {
            self.rare(before, ServerExpires, "the server ends every session so far", steps, |world| {
                world.server = world.core.last.next();
            });
        }
    }

    fn time_steps(&self, before: &World, steps: &mut Vec<Move>) {
        let pass = |world: &mut World| {
            world.now += HOUR;
            let World { core, values, now, .. } = world;
            if self.flawed(Flaw::ExplicitForgotten) && matches!(core.state, State::Backoff { .. }) {
                core.state = State::Pending;
                return;
            }
            core.tick(&mut values.step(&self.limits, *now));
        };
        match &before.core.state {
            State::Lead { taken: false } if self.flawed(Flaw::NoRoleDeadline) => {}
            State::Cooldown { permanent_error: None, .. }
            | State::Backoff { .. }
            | State::Stagger { .. }
            | State::Probe { taken: false } => {
                steps.push(self.step(before, "time passes", true, pass));
            }
            State::Lead { taken: false } if !before.core.is_overdue(before.now) => {
                steps.push(self.step(before, "the lead is overdue", true, pass));
            }
            State::Failed { retry_at: Some(at), .. } if before.now < *at => {
                steps.push(self.step(before, "the backoff of the failure ends", true, pass));
            }
            State::Hold | State::Overlap | State::Lead { taken: true } | State::Probe { taken: true } => {
                self.rare(before, Deadline, "the attempt's deadline", steps, pass);
            }
            _ => {}
        }
    }

    /// Returns the invariant that this step breaks, if any.
    fn check(&self, before: &World, step: &Move) -> Option<&'static str> {
        let world = &step.after;
        let core = &world.core;
        let busy =
            world.requests.iter().filter(|r| matches!(r.at, At::Ready | At::InFlight | At::Reserved)).count()
                as u8
                + u8::from(matches!(world.task, Task::Sent(_)));
        if world.permits + busy != self.setting.permits {
            return Some("I4 permits do not add up");
        }
        let serves = core.admits_all() || matches!(core.state, State::Probe { .. } | State::Stagger { .. });
        if core.current.is_some() != serves {
            return Some("I1 a current value outside Open, Cooldown, Overlap and a release, or none inside");
        }
        let has_task = match world.task {
            Task::None => false,
            Task::Waiting(attempt) | Task::Sent(attempt) => core.runs(attempt),
        };
        if matches!(core.state, State::Hold | State::Overlap) != has_task {
            return Some("I5 Hold or Overlap without a live task, or a task without its state");
        }
        let roles = world.requests.iter().filter(|r| world.live_role(r)).count();
        if roles != usize::from(matches!(core.state, State::Lead { .. } | State::Probe { .. })) {
            return Some("I6 not exactly one live role in Lead or Probe");
        }
        if matches!(core.state, State::Pending | State::Failed { .. } | State::Closed)
            && !core.waiters.is_empty()
        {
            return Some("I7 a request waits in Pending, Failed or Closed");
        }
        if matches!(core.state, State::Pending) && core.source == Source::Explicit {
            return Some("I7 an explicit request waits in Pending");
        }
        if world.requests.iter().any(|r| r.sends > self.setting.sends) {
            return Some("I8 a request was sent too often");
        }
        if core.recent_starts.len() > STARTS {
            return Some("I9 more starts than allowed");
        }
        if core.failures >= FAILURES && matches!(core.state, State::Backoff { .. }) {
            return Some("I10 a backoff after the last allowed failure");
        }
        if self.setting.uses > 0 && world.uses > self.setting.uses {
            return Some("I13 the limit of uses is exceeded");
        }
        if matches!(before.core.state, State::Overlap)
            && matches!(core.state, State::Backoff { .. } | State::Failed { .. } | State::Pending)
            && world.floor == before.floor
        {
            return Some("I16 a failed early renewal ended the current value");
        }
        if core.has_doubts() && core.current.is_none() {
            return Some("I18 a request is in doubt about a value that is not current");
        }
        if world.requests.iter().any(|r| r.charges > 1) {
            return Some("I19 one request has ended two values");
        }
        if let Some(broken) = self.check_evidence(before, world) {
            return Some(broken);
        }
        for note in &world.notes {
            let broken = match note {
                Note::InDoubt if !matches!(before.core.state, State::Probe { .. }) => {
                    let changed = before.stance() != world.stance();
                    changed.then_some("I20 a repeated rejection changed the state")
                }
                Note::Send(_, grant) if !before.core.may_send(*grant) => {
                    Some("I3 sent under a value that is neither current nor led")
                }
                Note::Commit(generation) if *generation <= before.floor => {
                    Some("I2 an attempt from before the last clear, replace, renew_with or close committed")
                }
                Note::Commit(generation)
                    if before.core.current.is_some_and(|current| *generation <= current) =>
                {
                    Some("I2 the generation went back")
                }
                Note::Commit(_) if before.wanted && !before.values.candidate_edited => {
                    Some("I12 an accepted edit is not in the committed value")
                }
                Note::Commit(generation) if *generation < before.server => {
                    Some("I11 a result known to be expired was committed")
                }
                Note::CommitAfterCancel => Some("I2 a cancelled attempt committed"),
                Note::GoodResponse(index)
                    if !before.live_role(&before.requests[*index]) && world.committed() =>
                {
                    Some("I2 a response committed that was not the leader's")
                }
                Note::Stale if before.stance() != world.stance() => {
                    Some("I15 a stale report changed the state")
                }
                _ => None,
            };
            if broken.is_some() {
                return broken;
            }
        }
        self.check_grant(before, world)
    }

    /// A doubt is settled exactly by a response to a request that was sent after it, and only a
    /// page that is forbidden under every identity is taken for one.
    fn check_evidence(&self, before: &World, world: &World) -> Option<&'static str> {
        let settled = |world: &World, index: usize| {
            let request = &world.requests[index];
            let ticket = request.ticket.filter(|_| request.at == At::InDoubt)?;
            world.core.doubts.outcome(ticket).copied()
        };
        let mut evidence = 0;
        for note in &world.notes {
            match note {
                Note::GoodResponse(index)
                    if Some(before.requests[*index].grant.generation) == before.core.current =>
                {
                    evidence |= before.requests[*index].sent_after;
                }
                Note::GoodVerification(sent_after) => evidence |= sent_after,
                _ => {}
            }
        }
        for (index, request) in before.requests.iter().enumerate() {
            if request.at != At::InDoubt || settled(before, index).is_some() {
                continue;
            }
            let is_accepted = settled(world, index) == Some(DoubtOutcome::Accepted);
            let has_evidence = evidence & 1 << index != 0;
            if is_accepted && !has_evidence {
                return Some("I21 a doubt was settled without evidence");
            }
            if is_accepted && !request.is_forbidden {
                return Some("I22 a rejection by an expired session was taken for one of the page");
            }
            let still_waits = world.requests[index].at == At::InDoubt && settled(world, index).is_none();
            if has_evidence && still_waits && before.core.current == world.core.current {
                return Some("I23 evidence did not settle a doubt");
            }
        }
        None
    }

    /// A role that was granted in this step belongs to the oldest waiter.
    fn check_grant(&self, before: &World, world: &World) -> Option<&'static str> {
        for (request, earlier) in world.requests.iter().zip(&before.requests) {
            let waits = request.ticket.is_some() && world.live_role(request);
            let held = earlier.ticket.is_some()
                && before.live_role(earlier)
                && world.core.attempt == before.core.attempt;
            if waits && !held && request.ticket != world.core.waiters.oldest() {
                return Some("I14 the role did not go to the oldest waiter");
            }
        }
        None
    }
}

/// The result of a search.
#[derive(Debug)]
struct Found {
    states: usize,
    steps: usize,
    broken: Option<String>,
}

fn search(setting: &Setting) -> Found {
    let search = Search { setting, limits: setting.limits() };
    let mut known = HashMap::new();
    let mut parents: Vec<Option<(usize, String)>> = vec![None];
    let mut leads_from: Vec<Vec<usize>> = vec![Vec::new()];
    let mut finished = Vec::new();
    let mut steps_taken = 0;
    let start = World::new(setting);
    known.insert(start.key(), 0);
    let mut queue = VecDeque::from([(0, start)]);
    let path = |parents: &[Option<(usize, String)>], mut at: usize| {
        let mut labels = Vec::new();
        while let Some((parent, label)) = &parents[at] {
            labels.push(label.as_str());
            at = *parent;
        }
        labels.reverse();
        labels.join("; ")
    };
    while let Some((number, world)) = queue.pop_front() {
        if world.finished() {
            finished.push(number);
        }
        for step in search.steps(&world) {
            steps_taken += 1;
            if let Some(why) = search.check(&world, &step) {
                let broken = Some(format!("{why} <= {}; {}", path(&parents, number), step.label));
                return Found { states: known.len(), steps: steps_taken, broken };
            }
            let next = known.len();
            let to = match known.entry(step.after.key()) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    entry.insert(next);
                    parents.push(Some((number, step.label)));
                    leads_from.push(Vec::new());
                    queue.push_back((next, step.after));
                    next
                }
            };
            if step.progress {
                leads_from[to].push(number);
            }
        }
    }
    let mut can_finish = vec![false; known.len()];
    let mut todo = finished;
    todo.iter().for_each(|state| can_finish[*state] = true);
    while let Some(state) = todo.pop() {
        for from in &leads_from[state] {
            if !can_finish[*from] {
                can_finish[*from] = true;
                todo.push(*from);
            }
        }
    }
    let stuck = can_finish.iter().position(|can| !can);
    Found {
        states: known.len(),
        steps: steps_taken,
        broken: stuck.map(|state| format!("I17 cannot finish <= {}", path(&parents, state))),
    }
}

#[track_caller]
fn holds(setting: Setting) {
    let found = search(&setting);
    assert!(found.broken.is_none(), "{}: {} ({} states)", setting.name, found.broken.unwrap(), found.states);
    println!("{}: {} states, {} steps", setting.name, found.states, found.steps);
}

#[track_caller]
fn is_caught(flaw: Flaw, invariant: &str, setting: Setting) {
    let setting = setting.flaw(flaw);
    let found = search(&setting);
    let broken = found.broken.unwrap_or_else(|| panic!("{flaw:?} was missed in {} states", found.states));
    assert!(broken.starts_with(invariant), "{flaw:?} broke something else: {broken}");
}

const PROBE: Release = Release::ProbeFirst;
const STAGGER: Release = Release::Staggered { burst: 1, every: Duration::from_secs(1) };

#[test]
fn user_events_with_a_rule() {
    for permits in [1, 2] {
        holds(Setting::new(
            "2 requests, rule, user events",
            2,
            permits,
            &[(Clear, 1), (RenewWith, 1), (Renew, 1), (Edit, 1), (Drop, 1), (ServerExpires, 1)],
        ));
    }
}

#[test]
fn a_failing_task() {
    for permits in [1, 2] {
        holds(Setting::new(
            "2 requests, rule, failing task",
            2,
            permits,
            &[
                (Clear, 1),
                (RenewWith, 1),
                (Renew, 1),
                (AttemptFails, 1),
                (TaskAborted, 1),
                (ServerExpires, 1),
            ],
        ));
    }
}

#[test]
fn leads_without_a_rule() {
    for permits in [1, 2] {
        let events = [
            (Clear, 1),
            (RenewWith, 1),
            (Edit, 1),
            (Drop, 1),
            (ServerExpires, 1),
            (Freeze, 1),
            (TransportError, 1),
            (AttemptFails, 1),
        ];
        holds(Setting::new("2 requests, no rule", 2, permits, &events).no_rule());
        let events = [(Clear, 2), (Drop, 2), (ServerExpires, 1), (Freeze, 1)];
        holds(Setting::new("3 requests, no rule", 3, permits, &events).no_rule());
    }
}

#[test]
fn a_probe_goes_first() {
    for permits in [1, 2] {
        let events = [(Clear, 1), (Drop, 2), (ServerExpires, 1), (Freeze, 1), (Renew, 1)];
        holds(Setting::new("3 requests, probe first", 3, permits, &events).release(PROBE));
    }
}

#[test]
fn a_staggered_release() {
    let events = [(Clear, 1), (ServerExpires, 1), (Freeze, 1), (Drop, 1)];
    holds(Setting::new("3 requests, staggered", 3, 1, &events).release(STAGGER));
}

#[test]
fn three_requests_with_a_rule() {
    holds(Setting::new(
        "3 requests, rule",
        3,
        1,
        &[(Clear, 1), (Renew, 1), (ServerExpires, 1), (TaskAborted, 1)],
    ));
}

#[test]
fn replace_close_and_deadlines() {
    let events =
        [(Replace, 1), (Close, 1), (Renew, 1), (AttemptRejected, 1), (Deadline, 1), (ServerExpires, 1)];
    holds(Setting::new("2 requests, rule, the rest", 2, 1, &events));
    let events = [(Replace, 1), (Close, 1), (Clear, 2), (Deadline, 1), (ServerExpires, 1), (Drop, 1)];
    holds(Setting::new("2 requests, no rule, the rest", 2, 1, &events).no_rule());
}

#[test]
fn a_limit_of_uses() {
    let events = [(Clear, 1), (Renew, 1), (ServerExpires, 1), (AttemptFails, 1), (Drop, 1)];
    holds(Setting::new("2 requests, limit of 2 uses", 2, 2, &events).uses(2));
}

#[test]
fn login_first() {
    let events = [(Clear, 1), (AttemptFails, 2), (AttemptRejected, 1), (Edit, 1), (RenewWith, 1)];
    holds(Setting::new("2 requests, login first, rule", 2, 1, &events).login_first());
    let events = [(Clear, 1), (Drop, 1), (Edit, 1), (Renew, 1), (ServerExpires, 1), (TransportError, 1)];
    holds(Setting::new("2 requests, login first, no rule", 2, 1, &events).login_first().no_rule());
}

#[test]
fn pages_that_are_forbidden() {
    for permits in [1, 2] {
        let events = [(ServerExpires, 2), (Drop, 1)];
        holds(Setting::new("2 requests, 1 forbidden", 2, permits, &events).forbidden(1));
        let events = [(ServerExpires, 1), (AttemptFails, 1), (Clear, 1)];
        holds(Setting::new("2 requests, 2 forbidden", 2, permits, &events).forbidden(2));
    }
    let events = [(ServerExpires, 2)];
    holds(Setting::new("3 requests, 1 forbidden", 3, 2, &events).forbidden(1));
    holds(Setting::new("3 requests, 2 forbidden", 3, 2, &[(ServerExpires, 1)]).forbidden(2));
    holds(Setting::new("2 requests, 1 forbidden, probe first", 2, 2, &events).forbidden(1).release(PROBE));
    holds(Setting::new("2 requests, 1 forbidden, login first", 2, 2, &events).forbidden(1).login_first());
    holds(Setting::new("2 requests, 1 forbidden, limit", 2, 2, &[(ServerExpires, 1)]).forbidden(1).uses(2));
}

#[test]
fn pages_that_are_forbidden_with_a_verification() {
    let events = [(ServerExpires, 1), (Drop, 1), (TransportError, 1)];
    holds(Setting::new("2 requests, 1 forbidden, verified", 2, 2, &events).forbidden(1).verifies());
    let events = [(ServerExpires, 1), (Renew, 1)];
    holds(Setting::new("2 requests, 2 forbidden, verified", 2, 1, &events).forbidden(2).verifies());
}

/// A forbidden page among two others, on a server that ends the session.
fn doubtful(flaw: Flaw, invariant: &str) {
    let setting = Setting::new("broken", 3, 3, &[(ServerExpires, 2)]).forbidden(1);
    is_caught(flaw, invariant, setting);
}

#[test]
fn hazard_51_broken_variants_with_unsound_evidence_are_caught() {
    doubtful(Flaw::EvidenceStampedLate, "I21");
    doubtful(Flaw::EarlierServiceCounts, "I21");
    let verified = Setting::new("broken", 2, 2, &[(ServerExpires, 1)]).forbidden(2).verifies();
    is_caught(Flaw::VerificationDecidesLater, "I21", verified);
}

#[test]
fn hazard_52_broken_variants_that_renew_for_a_forbidden_page_are_caught() {
    doubtful(Flaw::SecondRejectionEnds, "I19");
    doubtful(Flaw::ChargedTwice, "I19");
}

fn two(events: &[(Event, u8)]) -> Setting {
    Setting::new("broken", 2, 1, events)
}

fn three(events: &[(Event, u8)]) -> Setting {
    Setting::new("broken", 3, 1, events)
}

#[test]
fn hazard_06_broken_variants_that_do_not_cancel_are_caught() {
    is_caught(Flaw::NoCancel, "I2", two(&[(Clear, 1), (Renew, 1)]));
    is_caught(Flaw::LeadNotCancelled, "I2", Setting::new("broken", 2, 2, &[(Clear, 2)]).no_rule());
    is_caught(Flaw::RenewWithJoins, "I2", two(&[(RenewWith, 1), (Renew, 1)]));
}

#[test]
fn hazard_11_broken_variants_that_hold_a_permit_are_caught() {
    is_caught(Flaw::ReserveThenHold, "I17", two(&[(ServerExpires, 1)]));
    is_caught(Flaw::WaiterKeepsPermit, "I4", two(&[(Clear, 1)]));
    is_caught(Flaw::PermitLostOnDrop, "I4", two(&[(Drop, 1)]));
}

#[test]
fn hazard_17_broken_variants_that_wait_for_an_unpolled_request_are_caught() {
    is_caught(Flaw::NoRoleDeadline, "I17", three(&[(Clear, 1), (Drop, 1), (Freeze, 1)]).no_rule());
}

#[test]
fn hazard_19_broken_variants_without_a_drop_guard_are_caught() {
    is_caught(Flaw::NoDropGuard, "I5", two(&[(TaskAborted, 1), (Renew, 1)]));
    is_caught(Flaw::NoBaton, "I6", two(&[(Clear, 1), (Drop, 1)]).no_rule());
    is_caught(Flaw::ProbeLost, "I6", two(&[(Clear, 1), (TransportError, 1)]).release(PROBE));
}

#[test]
fn hazard_22_broken_variants_that_lose_a_wake_are_caught() {
    is_caught(Flaw::LostWake, "I17", three(&[(ServerExpires, 1)]));
}

#[test]
fn broken_variants_are_caught() {
    is_caught(Flaw::NoRecheck, "I3", two(&[(Clear, 1)]));
    is_caught(Flaw::StaleActs, "I15", Setting::new("broken", 2, 2, &[(ServerExpires, 1), (Renew, 1)]));
    is_caught(Flaw::LeadCommitsExpired, "I11", two(&[(Clear, 1), (ServerExpires, 1)]).no_rule());
    is_caught(Flaw::CommitUnchecked, "I11", two(&[(Renew, 1), (ServerExpires, 1)]));
    is_caught(Flaw::EditNotWrittenThrough, "I12", two(&[(Clear, 1), (Edit, 1)]));
    is_caught(Flaw::NoStartCap, "I9", two(&[(Renew, 4), (Clear, 2)]));
    is_caught(Flaw::NoFailureBound, "I10", two(&[(Clear, 1), (AttemptFails, 2)]));
    is_caught(Flaw::UsesUnchecked, "I13", two(&[]).uses(1));
    is_caught(Flaw::EndlessReplay, "I8", two(&[(ServerExpires, 4)]).sends(2));
    is_caught(Flaw::ServesWhileRenewed, "I1", two(&[(Clear, 1)]));
    is_caught(Flaw::ParksInPending, "I7", two(&[(Clear, 1)]).no_rule());
    is_caught(Flaw::RoleToYoungest, "I14", three(&[(Clear, 1), (Drop, 1)]).no_rule());
    is_caught(Flaw::OverlapEndsFirst, "I16", two(&[(Renew, 1), (AttemptFails, 1)]));
    is_caught(Flaw::ExplicitForgotten, "I7", two(&[(RenewWith, 1), (AttemptFails, 1)]));
}
