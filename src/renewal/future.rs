//! `ResponseFuture`: the life of one request in a renewal layer.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{Method, Request, Response, Uri};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    RejectedResponse, ReplayBudget, ResponseView, StaleResponse, config::Config, observer::RequestObserver,
    replay::ReplaysLeft,
};
use crate::{
    cookies::StoredCookie,
    error_chain::errors_of_type,
    gate::{
        self, Admitted, Arrival, BoxError, Charge, DoubtOutcome, DoubtWait, GateRef, Generation, RawPermit,
        Rejection, RenewalError, ReportOutcome, Wait,
    },
    session::{
        Delivery, Identity, NotReplayed, ReplayCause, Session, SessionError, SessionErrorKind, SessionInfo,
        SessionInner,
        renewal_backend::RenewalBackend,
        request::{EndedHop, SendContext, SendLog},
        trace::{self, Scope},
    },
    waiters::Ticket,
};

pin_project! {
    /// Response future of [`RenewalService`](super::RenewalService).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels this request only. A renewal that it started continues. If the
    /// request led or probed for others, the oldest waiter takes over.
    ///
    /// A rejected response that waits for evidence keeps its body, and so perhaps a connection, for
    /// at most [`evidence_timeout`](crate::gate::GateConfig::evidence_timeout). With a
    /// verification, the limit is [`max_wait`](crate::gate::GateConfig::max_wait).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, S::Future, S::Response>,
        call: Option<Call<S, B>>,
        span: Scope,
    }
}

pin_project! {
    /// A new state overwrites the old one, which first releases what the old one held: a permit of
    /// a limiter, or a connection.
    #[project = StateProjection]
    enum State<S, F, R> {
        // ## Rejected => Done
        //
        // The request was rejected before it reached the gate.
        Rejected { error: Option<BoxError> },
        // ## Admit => (Ready | Wait | Done)
        //
        // The request holds nothing, and asks the gate for a permit. `Done` if the gate rejects it.
        Admit,
        // ## Wait => (Ready | Done)
        //
        // The request is a waiter of the gate. `Done` if the renewal fails or the wait times out.
        Wait { #[pin] wait: Wait<SessionInner>, timer: WaitTimer, span: Scope },
        // ## Ready => (Sent | Admit | Done)
        //
        // A clone of the inner service becomes ready. `Admit` if the identity ends meanwhile.
        // `Done` if the service fails.
        Ready { service: S, permit: Option<RawPermit<SessionInner>>, waker_slot: WakerSlot },
        // ## Sent => (Admit | InDoubt | Done)
        //
        // The request is in flight. `Admit` to replay it. `Done` if the response or the error goes
        // to the caller.
        Sent { #[pin] future: F, sent: Option<(RawPermit<SessionInner>, SendLog)>, span: Scope },
        // ## InDoubt => (Admit | Done)
        //
        // The response looks as if the session has expired, and waits for evidence. It keeps its
        // body, and so may keep a connection, for a limited time. `Admit` to replay the request.
        // `Done` if the response goes to the caller. In a box, since it is rare.
        InDoubt { doubt: Pin<Box<InDoubt<R>>> },
        // The future has completed.
        Done,
    }
}

/// What a request keeps across its states.
struct Call<S, B> {
    inner: S,
    config: Arc<Config<B>>,
    /// Lets handles renew even if the service is dropped before its last response, as `oneshot`
    /// does.
    _backend: Arc<dyn RenewalBackend>,
    session: Session,
    /// The request to send next. While one is in flight: the clone to replay, if there may be a
    /// replay.
    request: Option<Request<B>>,
    replays_left: ReplaysLeft,
    /// Whether the gate has admitted the request before.
    arrival: Arrival,
    replays: u32,
    /// How many of its responses looked as if the session has expired.
    rejections: u32,
    cookie_replay: CookieReplay,
    /// Whether one of them has caused a renewal.
    charge: Charge,
    /// When the request was last sent, if it was rejected before. Others are not timed.
    sent_at: Option<Instant>,
    time_waiting: Duration,
    observer: RequestObserver,
}

pin_project! {
    /// A rejected response that waits for evidence.
    struct InDoubt<R> {
        #[pin]
        wait: DoubtWait<SessionInner>,
        since: Instant,
        response: Option<R>,
        rejected: Option<RejectedSend>,
    }
}

/// What is known of the send whose response was rejected.
struct RejectedSend {
    generation: u64,
    cookies: Vec<StoredCookie>,
    final_uri: Option<Uri>,
}

/// Whether the request was replayed because its cookies had changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CookieReplay {
    Left,
    Used,
}

/// Counts one waiting request, and measures the time that it waits.
struct WaitTimer {
    session: Session,
    since: Instant,
}

impl WaitTimer {
    fn new(session: &Session) -> Self {
        session.0.counters.rare().waited.add();
        session.0.context.waiting.enter();
        let metrics = &session.0.context.metrics;
        metrics.waited.add();
        metrics.waiting.up();
        Self { session: session.clone(), since: Instant::now() }
    }
}

impl Drop for WaitTimer {
    fn drop(&mut self) {
        self.session.0.context.waiting.leave();
        let metrics = &self.session.0.context.metrics;
        metrics.waiting.down(1);
        metrics.wait_seconds.record(self.since.elapsed());
    }
}

/// A waker that the gate wakes when the identity ends. It is registered when the inner service is
/// not ready.
struct WakerSlot {
    session: Session,
    ticket: Option<Ticket>,
}

impl WakerSlot {
    fn register(&mut self, waker: &Waker) {
        self.session.gate().watch(&mut self.ticket, waker);
    }
}

impl Drop for WakerSlot {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.session.gate().unwatch(ticket);
        }
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn new(
        inner: S,
        config: Arc<Config<B>>,
        backend: Arc<dyn RenewalBackend>,
        session: Session,
        request: Request<B>,
    ) -> Self {
        let replays_left = match request.extensions().get::<ReplayBudget>() {
            Some(budget) => ReplaysLeft::Shared(budget.clone()),
            None => ReplaysLeft::Own(config.replay_limit),
        };
        let span = Scope::new(trace::request(session.id(), request.method(), request.uri()));
        let observer = span.in_scope(|| RequestObserver::started(&session));
        let call = Call {
            inner,
            _backend: backend,
            observer,
            session,
            replays_left,
            request: Some(request),
            arrival: Arrival::First,
            replays: 0,
            rejections: 0,
            cookie_replay: CookieReplay::Left,
            charge: Charge::Free,
            sent_at: None,
            time_waiting: Duration::ZERO,
            config,
        };
        Self { state: State::Admit, call: Some(call), span }
    }

    pub(super) fn rejected(error: BoxError) -> Self {
        Self { state: State::Rejected { error: Some(error) }, call: None, span: Scope::NONE }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let _entered = this.span.enter();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Rejected { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after completion")));
                }
                StateProjection::Admit => {
                    let call = this.call.as_mut().expect("polled after completion");
                    match call.session.gate().admit(call.arrival) {
                        Admitted::Pass(permit) => call.ready(permit),
                        Admitted::Wait(ticket) => match call.wait(ticket) {
                            Ok(wait) => wait,
                            Err(error) => {
                                this.state.set(State::Done);
                                return Poll::Ready(Err(call.rejected(error)));
                            }
                        },
                        Admitted::Refuse(error) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Err(call.rejected(error)));
                        }
                    }
                }
                StateProjection::Wait { wait, timer, span } => {
                    let call = this.call.as_mut().expect("polled after completion");
                    let permit = ready!(span.in_scope(|| wait.poll(context)));
                    call.time_waiting += timer.since.elapsed();
                    match permit {
                        Ok(permit) => {
                            call.observer.released();
                            call.ready(permit)
                        }
                        Err(error) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Err(call.rejected(error)));
                        }
                    }
                }
                StateProjection::Ready { service, permit, waker_slot } => {
                    let call = this.call.as_mut().expect("polled after completion");
                    let gate = call.session.gate();
                    let ready = match service.poll_ready(context) {
                        Poll::Ready(ready) => ready.map_err(Into::into),
                        Poll::Pending => {
                            waker_slot.register(context.waker());
                            // Checked after the waker is registered: an identity that ends in
                            // between is either seen here or wakes this task.
                            if gate.is_valid(permit.as_ref().expect("taken when the state ends")) {
                                return Poll::Pending;
                            }
                            // Releases the place in the inner service, which the renewal may need.
                            this.state.set(State::Admit);
                            continue;
                        }
                    };
                    let mut permit = permit.take().expect("taken when the state ends");
                    if let Err(error) = ready {
                        call.session.gate().report_error(permit);
                        call.observer.failed();
                        this.state.set(State::Done);
                        return Poll::Ready(Err(error));
                    }
                    if call.session.gate().count_use(&mut permit, &call.config.usage_limits) {
                        call.renew_before_expiry(&permit);
                        let (request, log) = call.next_request(&permit);
                        let generation = permit.value.version.generation.get();
                        call.observer.sent(generation);
                        let span = Scope::new(trace::send(generation));
                        let future = span.in_scope(|| service.call(request));
                        State::Sent { future, sent: Some((permit, log)), span }
                    } else {
                        State::Admit
                    }
                }
                StateProjection::Sent { future, sent, span } => {
                    let result = ready!(span.in_scope(|| future.poll(context))).map_err(Into::into);
                    let (permit, log) = sent.take().expect("taken when the state ends");
                    // Drops the inner future first: it may hold a permit that the renewal needs.
                    this.state.set(State::Done);
                    let call = this.call.as_mut().expect("polled after completion");
                    match call.decide(result, permit, &log) {
                        ResponseDecision::Deliver(result) => return Poll::Ready(result),
                        ResponseDecision::Replay => State::Admit,
                        ResponseDecision::Doubt(doubt) => State::InDoubt { doubt },
                    }
                }
                StateProjection::InDoubt { doubt } => {
                    let mut doubt = doubt.as_mut().project();
                    let outcome = ready!(doubt.wait.as_mut().poll(context));
                    let response = doubt.response.take().expect("taken when the state ends");
                    let rejected = doubt.rejected.take().expect("taken when the state ends");
                    let waited = doubt.since.elapsed();
                    this.state.set(State::Done);
                    let call = this.call.as_mut().expect("polled after completion");
                    call.time_waiting += waited;
                    match call.settle(outcome, response, rejected) {
                        Some(result) => return Poll::Ready(result),
                        None => State::Admit,
                    }
                }
                StateProjection::Done => panic!("polled after completion"),
            };
            this.state.set(next);
        }
    }
}

/// What happens to a response.
enum ResponseDecision<R> {
    Deliver(Result<Response<R>, BoxError>),
    Replay,
    Doubt(Pin<Box<InDoubt<Response<R>>>>),
}

impl<S, B> Call<S, B>
where
    S: Service<Request<B>> + Clone,
{
    fn ready(&mut self, permit: RawPermit<SessionInner>) -> State<S, S::Future, S::Response> {
        self.arrival = Arrival::Returning;
        let waker_slot = WakerSlot { session: self.session.clone(), ticket: None };
        State::Ready { service: self.inner.clone(), permit: Some(permit), waker_slot }
    }

    fn wait(&self, ticket: Ticket) -> Result<State<S, S::Future, S::Response>, RenewalError> {
        // The timeout limits all waits of the request together.
        let max_wait = self.config.gate.max_wait.saturating_sub(self.time_waiting);
        let wait = gate::wait(&self.session.0, ticket, max_wait)?;
        self.observer.waiting();
        Ok(State::Wait { wait, timer: WaitTimer::new(&self.session), span: Scope::new(trace::wait()) })
    }

    fn rejected(&mut self, error: RenewalError) -> BoxError {
        self.observer.rejected(error.kind());
        error.into()
    }

    /// Takes the request to send, keeps a clone for a replay, and adds the identity to the request.
    fn next_request(&mut self, permit: &RawPermit<SessionInner>) -> (Request<B>, SendLog) {
        let mut request = self.request.take().expect("each admission sends one request");
        if self.rejections > 0 {
            self.sent_at = Some(Instant::now());
        }
        if self.replays_left.any() {
            self.request = self.config.clone_body.clone_request(&request);
        }
        let log = match &self.request {
            Some(clone) if clone.method().is_safe() => SendLog::new(EndedHop::Reject, None),
            Some(_) => SendLog::new(EndedHop::Send, None),
            None => SendLog::new(EndedHop::Send, Some(request.uri().clone())),
        };
        let extensions = request.extensions_mut();
        let identity = Identity { session: self.session.clone(), inner: permit.value.clone() };
        extensions.insert(SendContext { identity, log: log.clone() });
        (request, log)
    }

    /// Starts an early renewal if a cookie that the session needs expires soon.
    fn renew_before_expiry(&self, permit: &RawPermit<SessionInner>) {
        let now = || self.session.0.context.timestamp();
        if let Some(expiry_watch) = &self.config.expiry_watch
            && expiry_watch.is_due(&permit.value, now)
        {
            self.session.gate().renew_early(&permit.value.version);
        }
    }

    fn decide<R>(
        &mut self,
        result: Result<Response<R>, BoxError>,
        mut permit: RawPermit<SessionInner>,
        log: &SendLog,
    ) -> ResponseDecision<R> {
        let session = self.session.0.clone();
        let generation = permit.value.version.generation.get();
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                let ended_mid_redirect = has_ended_mid_redirect(&error);
                GateRef::new(&session).report_error(permit);
                if ended_mid_redirect && self.replay() {
                    self.observer.replayed(&session, generation, ReplayCause::EndedMidRedirect);
                    return ResponseDecision::Replay;
                }
                self.observer.failed();
                return ResponseDecision::Deliver(Err(error));
            }
        };
        // Taken out of the log, because the user's closures must not run under its lock.
        let (cookies, final_uri, request_uri) =
            log.with(|log| (mem::take(&mut log.cookies), log.uri.take(), log.requested.take()));
        let of_clone = self.request.as_ref().map(Request::uri);
        let request_uri =
            of_clone.or(request_uri.as_ref()).expect("the log has the URI of a request without a clone");
        if let Some(expiry_watch) = &self.config.expiry_watch {
            expiry_watch.record(&permit.value, &cookies);
        }
        let expired = self.config.expired.matches(&ResponseView {
            status: response.status(),
            headers: response.headers(),
            extensions: response.extensions(),
            request_uri,
            final_uri: final_uri.as_ref().unwrap_or(request_uri),
            cookies: &cookies,
        });
        let send = RejectedSend { generation, cookies, final_uri };
        if let Some(missing) = self.config.expired.take_missing_body() {
            self.observer.body_missing(&self.session, missing);
        }
        if !expired {
            let replay_stale = self.config.stale_responses == StaleResponse::ReplayAll
                && !permit.has_role()
                && !permit.value.version.is_current()
                && self.can_replay(Method::is_safe);
            GateRef::new(&session).report_good(&mut permit);
            if replay_stale && self.replay() {
                self.observer.replayed(&session, generation, ReplayCause::Stale);
                return ResponseDecision::Replay;
            }
            return ResponseDecision::Deliver(self.deliver(response, send, Delivery::Accepted));
        }
        let Some(mut permit) = self.keep_unless_cookies_changed(permit, log, &send) else {
            return ResponseDecision::Replay;
        };
        if permit.value.version.is_adopted() {
            // Another process has renewed the session. This request has not caused that.
            self.rejections = 0;
            self.charge = Charge::Free;
        }
        let rejection = if self.rejections == 0 { Rejection::First } else { Rejection::Repeated };
        self.rejections += 1;
        let obstacle = self.obstacle();
        let verifies = self.config.verification.is_some();
        if rejection == Rejection::Repeated && obstacle.is_some() && !verifies {
            // The evidence would come too late for this request; a role goes to the next waiter.
            drop(permit);
            return self.replay_or_deliver(response, send, None, obstacle);
        }
        match GateRef::new(&session).report_rejected(&mut permit, rejection) {
            ReportOutcome::Ended => {
                self.charge = Charge::Used;
                self.replay_or_deliver(response, send, Some(ReplayCause::Expired), obstacle)
            }
            ReportOutcome::Stale if self.config.stale_responses == StaleResponse::Deliver => {
                self.replay_or_deliver(response, send, None, Some(NotReplayed::Stale))
            }
            ReportOutcome::Stale => {
                self.replay_or_deliver(response, send, Some(ReplayCause::Stale), obstacle)
            }
            ReportOutcome::Kept => ResponseDecision::Deliver(self.deliver(
                response,
                send,
                Delivery::Refused(NotReplayed::RateLimited),
            )),
            ReportOutcome::InDoubt(ticket) => {
                // The timeout limits all waits of the request together.
                let max_wait = self.config.gate.max_wait.saturating_sub(self.time_waiting);
                let max_wait = if verifies { max_wait } else { max_wait.min(self.evidence_timeout()) };
                match gate::wait_for_evidence(&self.session.0, ticket, self.charge, max_wait) {
                    Some(wait) => {
                        self.observer.in_doubt();
                        let since = Instant::now();
                        let doubt = InDoubt { wait, since, response: Some(response), rejected: Some(send) };
                        ResponseDecision::Doubt(Box::pin(doubt))
                    }
                    None => ResponseDecision::Deliver(self.deliver(
                        response,
                        send,
                        Delivery::Refused(NotReplayed::NoEvidence),
                    )),
                }
            }
        }
    }

    /// Replays a rejected request, once, if another response has changed the cookies of its
    /// identity since it was sent: the rejection then says nothing about the session. Returns the
    /// permit if the request is not replayed.
    fn keep_unless_cookies_changed(
        &mut self,
        permit: RawPermit<SessionInner>,
        log: &SendLog,
        send: &RejectedSend,
    ) -> Option<RawPermit<SessionInner>> {
        let sent_cookies = log.with(|log| mem::take(&mut log.sent_cookies));
        let identity = Identity { session: self.session.clone(), inner: permit.value.clone() };
        let has_changed = send
            .final_uri
            .as_ref()
            .is_some_and(|final_uri| sent_cookies.reject(&identity, final_uri, &send.cookies));
        // A request with a role decides for others, and was sent alone.
        let is_replayed = has_changed
            && self.rejections == 0
            && self.cookie_replay == CookieReplay::Left
            && !permit.has_role()
            && permit.value.version.is_current()
            && self.obstacle().is_none()
            && self.replay();
        if !is_replayed {
            return Some(permit);
        }
        self.cookie_replay = CookieReplay::Used;
        self.observer.replayed(&self.session.0, send.generation, ReplayCause::CookiesChanged);
        None
    }

    /// How long the request waits for evidence: about as long as another request needs for its
    /// response, which is estimated from the last response of this one.
    fn evidence_timeout(&self) -> Duration {
        const LEAST: Duration = Duration::from_millis(20);
        let round_trip = self.sent_at.map_or(Duration::ZERO, |sent_at| sent_at.elapsed());
        round_trip.saturating_mul(2).max(LEAST).min(self.config.gate.evidence_timeout)
    }

    /// Acts on the end of a doubt. `None` means that the request is replayed.
    fn settle<R>(
        &mut self,
        outcome: DoubtOutcome,
        response: Response<R>,
        send: RejectedSend,
    ) -> Option<Result<Response<R>, BoxError>> {
        let outcome = match outcome {
            DoubtOutcome::Unverified => {
                self.session.gate().unverified(Generation::new(send.generation), self.charge)
            }
            outcome => outcome,
        };
        let decision = match outcome {
            DoubtOutcome::Accepted => {
                ResponseDecision::Deliver(self.deliver(response, send, Delivery::Refused(NotReplayed::Alive)))
            }
            DoubtOutcome::Kept | DoubtOutcome::Unverified => ResponseDecision::Deliver(self.deliver(
                response,
                send,
                Delivery::Refused(NotReplayed::NoEvidence),
            )),
            DoubtOutcome::Ended | DoubtOutcome::Declared => {
                if outcome == DoubtOutcome::Declared {
                    self.charge = Charge::Used;
                }
                let obstacle = self.obstacle();
                self.replay_or_deliver(response, send, Some(ReplayCause::Expired), obstacle)
            }
        };
        match decision {
            ResponseDecision::Deliver(result) => Some(result),
            ResponseDecision::Replay | ResponseDecision::Doubt(_) => None,
        }
    }

    /// Replays the request for `cause`, unless there is an obstacle.
    fn replay_or_deliver<R>(
        &mut self,
        response: Response<R>,
        send: RejectedSend,
        cause: Option<ReplayCause>,
        obstacle: Option<NotReplayed>,
    ) -> ResponseDecision<R> {
        if let (Some(cause), None) = (cause, obstacle)
            && self.replay()
        {
            let session = self.session.0.clone();
            self.observer.replayed(&session, send.generation, cause);
            // Dropped with its body before the wait: a waiting request holds no connection.
            drop(response);
            return ResponseDecision::Replay;
        }
        let obstacle = obstacle.unwrap_or(NotReplayed::LimitReached);
        ResponseDecision::Deliver(self.deliver(response, send, Delivery::Expired(obstacle)))
    }

    /// Completes the response for the caller, or turns it into an error if the layer says so.
    fn deliver<R>(
        &mut self,
        mut response: Response<R>,
        send: RejectedSend,
        delivery: Delivery,
    ) -> Result<Response<R>, BoxError> {
        let RejectedSend { generation, cookies, final_uri } = send;
        self.observer.completed(&self.session, generation, response.status(), delivery);
        if self.config.expired_as_error && delivery != Delivery::Accepted {
            return Err(
                RejectedResponse::new(self.session.id(), generation, response.status(), delivery).into()
            );
        }
        let info = SessionInfo::new(self.session.id(), generation, cookies, final_uri);
        response.extensions_mut().insert(info.with_gate(self.replays, self.time_waiting, delivery));
        Ok(response)
    }

    /// Returns what keeps the request from being replayed.
    fn obstacle(&self) -> Option<NotReplayed> {
        match &self.request {
            None if self.replays_left.any() => Some(NotReplayed::Body),
            None => Some(NotReplayed::LimitReached),
            Some(clone) if !self.config.replay_methods.allow(clone.method()) => Some(NotReplayed::Method),
            Some(_) if !self.replays_left.any() => Some(NotReplayed::LimitReached),
            Some(_) => None,
        }
    }

    /// Returns whether there is a clone to replay, with a method that may be replayed.
    fn can_replay(&self, allowed: impl FnOnce(&Method) -> bool) -> bool {
        self.request.as_ref().is_some_and(|clone| allowed(clone.method()))
    }

    /// Takes one replay. Returns `false` if there is no clone to replay, or no replay left.
    fn replay(&mut self) -> bool {
        if self.request.is_none() || !self.replays_left.take() {
            return false;
        }
        self.replays += 1;
        true
    }
}

/// Returns whether the session layer has rejected a hop of a redirect because the identity had
/// ended. A layer in between may have wrapped the error.
fn has_ended_mid_redirect(error: &BoxError) -> bool {
    errors_of_type::<SessionError>(&**error).any(|error| error.kind() == SessionErrorKind::IdentityEnded)
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Rejected { .. } => "Rejected",
            State::Admit => "Admit",
            State::Wait { .. } => "Wait",
            State::Ready { .. } => "Ready",
            State::Sent { .. } => "Sent",
            State::InDoubt { .. } => "InDoubt",
            State::Done => "Done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
