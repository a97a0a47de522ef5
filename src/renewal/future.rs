use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::{ReplayBudget, ResponseView, StaleResponse, config::Config, observer::RequestObserver};
use crate::{
    gate::{self, Admitted, Arrival, BoxError, GateRef, RawPermit, RenewalError, ReportOutcome, Wait},
    session::{
        Identity, ReplayCause, Session, SessionError, SessionErrorKind, SessionInfo, SessionInner,
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
    /// Dropping it drops this request alone. A renewal that it has started goes on; a role that it had passes to the oldest of
    /// those that wait.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, S::Future>,
        call: Option<Call<S, B>>,
        span: Scope,
    }
}

pin_project! {
    /// A state is left by overwriting it, so that what it held, a permit of a limiter or a connection, is given back first.
    #[project = StateProjection]
    enum State<S, F> {
        // The request was refused before anything began.
        Refused { error: Option<BoxError> },
        // Nothing is held; the gate is asked next.
        Admit,
        // Held by the gate.
        Wait { #[pin] wait: Wait<SessionInner>, held: WaitTimer, span: Scope },
        // Admitted; a clone of the service below is being made ready.
        Ready { service: S, permit: Option<RawPermit<SessionInner>>, waker_slot: WakerSlot },
        // On its way.
        Sent { #[pin] future: F, under: Option<(RawPermit<SessionInner>, SendLog)>, span: Scope },
        // Answered.
        Done,
    }
}

/// The caller's request, until it is answered.
struct Call<S, B> {
    inner: S,
    config: Arc<Config<B>>,
    /// Keeps the way to renew alive when the service is dropped before its last response, as a `oneshot` does.
    _lane: Arc<dyn RenewalBackend>,
    session: Session,
    /// The request that is sent next; while it is on its way, a copy of it, if there may be a next time.
    request: Option<Request<B>>,
    replays_left: ReplaysLeft,
    /// Whether the gate has let it through before.
    arrival: Arrival,
    replays: u32,
    held: Duration,
    observer: RequestObserver,
}

/// How often the request may be sent again: by itself, or together with its other calls.
enum ReplaysLeft {
    Own(u32),
    Shared(ReplayBudget),
}

impl ReplaysLeft {
    fn any(&self) -> bool {
        match self {
            Self::Own(left) => *left > 0,
            Self::Shared(budget) => budget.left() > 0,
        }
    }

    fn take(&mut self) -> bool {
        match self {
            Self::Own(left) => left.checked_sub(1).is_some_and(|less| {
                *left = less;
                true
            }),
            Self::Shared(budget) => budget.take(),
        }
    }
}

/// Counts one held request for as long as it is held.
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

/// A place in the line of those who are woken when the gate shuts, taken when there is something to wait for.
struct WakerSlot {
    session: Session,
    ticket: Option<Ticket>,
}

impl WakerSlot {
    fn take(&mut self, waker: &Waker) {
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
    pub(crate) fn new(
        inner: S,
        config: Arc<Config<B>>,
        lane: Arc<dyn RenewalBackend>,
        session: Session,
        request: Request<B>,
    ) -> Self {
        let replays_left = match request.extensions().get::<ReplayBudget>() {
            Some(budget) => ReplaysLeft::Shared(budget.clone()),
            None => ReplaysLeft::Own(config.replay_limit),
        };
        let span = Scope::new(trace::request(session.id(), request.method(), request.uri()));
        let observer = span.in_scope(|| RequestObserver::begin(&session));
        let call = Call {
            inner,
            _lane: lane,
            observer,
            session,
            replays_left,
            request: Some(request),
            arrival: Arrival::First,
            replays: 0,
            held: Duration::ZERO,
            config,
        };
        Self { state: State::Admit, call: Some(call), span }
    }

    pub(crate) fn refused(error: BoxError) -> Self {
        Self { state: State::Refused { error: Some(error) }, call: None, span: Scope::NONE }
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
                StateProjection::Refused { error } => {
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
                                return Poll::Ready(Err(call.refused(error)));
                            }
                        },
                        Admitted::Refuse(error) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Err(call.refused(error)));
                        }
                    }
                }
                StateProjection::Wait { wait, held, span } => {
                    let call = this.call.as_mut().expect("polled after completion");
                    let permit = ready!(span.in_scope(|| wait.poll(context)));
                    call.held += held.since.elapsed();
                    match permit {
                        Ok(permit) => {
                            call.observer.released();
                            call.ready(permit)
                        }
                        Err(error) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Err(call.refused(error)));
                        }
                    }
                }
                StateProjection::Ready { service, permit, waker_slot } => {
                    let call = this.call.as_mut().expect("polled after completion");
                    let gate = call.session.gate();
                    let ready = match service.poll_ready(context) {
                        Poll::Ready(ready) => ready.map_err(Into::into),
                        Poll::Pending => {
                            waker_slot.take(context.waker());
                            // Looked at after the place was taken, so that a gate that shuts in between is seen or wakes.
                            if gate.is_valid(permit.as_ref().expect("it is taken with the state")) {
                                return Poll::Pending;
                            }
                            // The place in the service below is given up: the renewal may need it.
                            this.state.set(State::Admit);
                            continue;
                        }
                    };
                    let permit = permit.take().expect("it is taken with the state");
                    if let Err(error) = ready {
                        call.session.gate().report_error(permit);
                        call.observer.failed();
                        this.state.set(State::Done);
                        return Poll::Ready(Err(error));
                    }
                    if call.session.gate().count_use(&permit, &call.config.budget) {
                        call.renew_in_time(&permit);
                        let (request, log) = call.stamp(&permit);
                        let generation = permit.value.version.generation;
                        call.observer.sent(generation);
                        let span = Scope::new(trace::send(generation));
                        let future = span.in_scope(|| service.call(request));
                        State::Sent { future, under: Some((permit, log)), span }
                    } else {
                        State::Admit
                    }
                }
                StateProjection::Sent { future, under, span } => {
                    let answer = ready!(span.in_scope(|| future.poll(context))).map_err(Into::into);
                    let (permit, log) = under.take().expect("it is taken with the state");
                    // The finished future goes first: it may hold a permit that the renewal needs.
                    this.state.set(State::Done);
                    let call = this.call.as_mut().expect("polled after completion");
                    match call.decide(answer, permit, &log) {
                        ResponseDecision::Deliver(answer) => return Poll::Ready(answer),
                        ResponseDecision::Replay => State::Admit,
                    }
                }
                StateProjection::Done => panic!("polled after completion"),
            };
            this.state.set(next);
        }
    }
}

/// What becomes of an answer.
enum ResponseDecision<R> {
    Deliver(Result<Response<R>, BoxError>),
    Replay,
}

impl<S, B> Call<S, B>
where
    S: Service<Request<B>> + Clone,
{
    fn ready(&mut self, permit: RawPermit<SessionInner>) -> State<S, S::Future> {
        self.arrival = Arrival::Returning;
        let waker_slot = WakerSlot { session: self.session.clone(), ticket: None };
        State::Ready { service: self.inner.clone(), permit: Some(permit), waker_slot }
    }

    fn wait(&self, ticket: Ticket) -> Result<State<S, S::Future>, RenewalError> {
        // The deadline is the request's: what it has waited before counts.
        let max_wait = self.config.gate.max_wait.saturating_sub(self.held);
        let wait = gate::wait(&self.session.0, ticket, max_wait)?;
        self.observer.held();
        Ok(State::Wait { wait, held: WaitTimer::new(&self.session), span: Scope::new(trace::wait()) })
    }

    fn refused(&mut self, error: RenewalError) -> BoxError {
        self.observer.refused(error.kind());
        error.into()
    }

    /// Takes the request to send, keeps a copy for another time, and writes on it whom it goes under.
    fn stamp(&mut self, permit: &RawPermit<SessionInner>) -> (Request<B>, SendLog) {
        let mut request = self.request.take().expect("it is sent once per admission");
        if self.replays_left.any() {
            self.request = self.config.clone_body.clone_request(&request);
        }
        let log = match &self.request {
            Some(copy) if copy.method().is_safe() => SendLog::new(EndedHop::Reject, None),
            Some(_) => SendLog::new(EndedHop::Send, None),
            None => SendLog::new(EndedHop::Send, Some(request.uri().clone())),
        };
        let extensions = request.extensions_mut();
        let identity = Identity { session: self.session.clone(), inner: permit.value.clone() };
        extensions.insert(SendContext { identity, log: log.clone() });
        (request, log)
    }

    /// Starts an early renewal if a cookie that the session needs is near its end.
    fn renew_in_time(&self, permit: &RawPermit<SessionInner>) {
        let now = || self.session.0.context.timestamp();
        if let Some(expiry_watch) = &self.config.expiry_watch
            && expiry_watch.is_near(&permit.value, now)
        {
            self.session.gate().renew_early(&permit.value.version);
        }
    }

    fn decide<R>(
        &mut self,
        answer: Result<Response<R>, BoxError>,
        mut permit: RawPermit<SessionInner>,
        log: &SendLog,
    ) -> ResponseDecision<R> {
        let session = self.session.0.clone();
        let generation = permit.value.version.generation;
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                let retired = is_retired(&error);
                GateRef::new(&session).report_error(permit);
                if retired && self.replay() {
                    self.observer.replayed(&session, generation, ReplayCause::EndedMidRedirect);
                    return ResponseDecision::Replay;
                }
                self.observer.failed();
                return ResponseDecision::Deliver(Err(error));
            }
        };
        // Taken out for the user's test, which runs under no lock of ours.
        let (cookies, served, requested) =
            log.with(|log| (mem::take(&mut log.cookies), log.uri.take(), log.requested.take()));
        let copied = self.request.as_ref().map(Request::uri);
        let requested = copied.or(requested.as_ref()).expect("a request that is not copied leaves its uri");
        if let Some(expiry_watch) = &self.config.expiry_watch {
            expiry_watch.note(&permit.value, &cookies);
        }
        let expired = self.config.expired.matches(&ResponseView {
            status: response.status(),
            headers: response.headers(),
            extensions: response.extensions(),
            requested,
            served: served.as_ref().unwrap_or(requested),
            cookies: &cookies,
        });
        let tell = |call: &mut Self, mut response: Response<R>| {
            call.observer.answered(generation, response.status());
            let info = SessionInfo::new(call.session.id(), generation, cookies, served);
            response.extensions_mut().insert(info.with_gate(call.replays, call.held));
            response
        };
        if !expired {
            let late = self.config.late == StaleResponse::ReplayAll
                && !permit.has_role()
                && !permit.value.version.is_current()
                && self.may_repeat(Method::is_safe);
            GateRef::new(&session).report_good(&mut permit);
            if late && self.replay() {
                self.observer.replayed(&session, generation, ReplayCause::Stale);
                return ResponseDecision::Replay;
            }
            return ResponseDecision::Deliver(Ok(tell(self, response)));
        }
        let news = GateRef::new(&session).report_expired(permit) == ReportOutcome::Current;
        let wanted = news || self.config.late != StaleResponse::Deliver;
        if wanted && self.may_repeat(|method| self.config.replay_methods.allow(method)) && self.replay() {
            let cause = if news { ReplayCause::Expired } else { ReplayCause::Stale };
            self.observer.replayed(&session, generation, cause);
            // The response goes with its body before the wait: a held request holds no connection.
            drop(response);
            return ResponseDecision::Replay;
        }
        ResponseDecision::Deliver(Ok(tell(self, response)))
    }

    /// Whether the request can be had again, with a method that may be sent again.
    fn may_repeat(&self, allowed: impl FnOnce(&Method) -> bool) -> bool {
        self.request.as_ref().is_some_and(|copy| allowed(copy.method()))
    }

    /// Makes ready to send the request again, if it can be had again and may be.
    fn replay(&mut self) -> bool {
        if self.request.is_none() || !self.replays_left.take() {
            return false;
        }
        self.replays += 1;
        true
    }
}

/// Whether a session layer below has refused a hop, also where a layer in between has wrapped its error.
fn is_retired(error: &BoxError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<SessionError>()
            .is_some_and(|error| error.kind() == SessionErrorKind::IdentityEnded)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused { .. } => "Refused",
            State::Admit => "Admit",
            State::Wait { .. } => "Wait",
            State::Ready { .. } => "Ready",
            State::Sent { .. } => "Sent",
            State::Done => "Done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
