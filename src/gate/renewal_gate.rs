//! The gate for one value of any type.

use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    config::{ConfigError, GateConfig},
    error::{BoxError, PermanentError, RenewalError, RenewalErrorKind},
    gate::{Gate, GateOwner, GateRef},
    handle::RenewalHandle,
    permit::{Admitted, RawPermit},
    source::{AttemptContext, RenewalFuture, RenewalSource},
    state::{Arrival, Failure, Generation, Limits},
    version::{UsageLimits, VersionState},
    wait::{Wait, wait},
};
use crate::jitter::Jitter;

/// A versioned value with a renewal that runs once, however many callers request it.
///
/// Callers [`acquire`](Self::acquire) a permit for the current value, and [`reject`](Self::reject)
/// the permit whose value was not accepted. The first rejection of a value starts its renewal.
/// Later ones join it or, when it has ended, get the new value. The renewal runs in its own task:
/// dropping any of the futures here neither cancels nor repeats it.
///
/// See the [module](super) for what happens when a renewal fails.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use tower_client_sessions::gate::{BoxError, RenewalGate};
///
/// static FETCHED: AtomicU32 = AtomicU32::new(0);
///
/// async fn fetch_token() -> Result<String, BoxError> {
///     Ok(format!("token-{}", FETCHED.fetch_add(1, Ordering::Relaxed)))
/// }
///
/// let gate = RenewalGate::new(String::from("stale"), fetch_token);
/// let first = gate.acquire().await?;
/// let second = gate.acquire().await?;
/// assert_eq!(*first, "stale");
///
/// // The server has rejected both. One fetch renews both.
/// let (first, second) = tokio::join!(gate.reject(&first), gate.reject(&second));
/// assert_eq!((first?.as_str(), second?.as_str()), ("token-0", "token-0"));
/// assert_eq!(FETCHED.load(Ordering::Relaxed), 1);
/// # Ok::<_, BoxError>(())
/// # }).unwrap();
/// ```
///
/// # Clone
///
/// Clones share one gate.
pub struct RenewalGate<T: Send + Sync + 'static> {
    source: Arc<Standalone<T>>,
}

impl<T: Send + Sync + 'static> RenewalGate<T> {
    /// Creates a gate that is open with `value` as its first generation, and renews it by `fetch`.
    ///
    /// `fetch` prevents a retry by returning a [`PermanentError`].
    pub fn new<F, Fut, E>(value: T, fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::build(Some(value), fetch, GateConfig::new())
    }

    /// Creates a gate without a value; the first [`acquire`](Self::acquire) starts the renewal.
    pub fn pending<F, Fut, E>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::build(None, fetch, GateConfig::new())
    }

    /// Creates a gate with other limits than the default, open if there is a `value`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the limit that is zero.
    pub fn with_config<F, Fut, E>(value: Option<T>, fetch: F, config: GateConfig) -> Result<Self, ConfigError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        config.validate()?;
        Ok(Self::build(value, fetch, config))
    }

    fn build<F, Fut, E>(value: Option<T>, fetch: F, config: GateConfig) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let origin = Instant::now();
        let fetch: FetchFn<T> = Box::new(move || {
            let future = fetch();
            Box::pin(async move { future.await.map_err(Into::into) })
        });
        let jitter = Jitter::random();
        let gate = match value {
            Some(value) => {
                let version = VersionState::current(Generation::FIRST, Duration::ZERO, jitter.draw());
                Gate::open(Arc::new(Versioned { version, value }), jitter)
            }
            None => Gate::pending(None, jitter),
        };
        Self { source: Arc::new(Standalone { gate, fetch, config, origin }) }
    }

    const fn gate(&self) -> GateRef<'_, Standalone<T>> {
        GateRef::new(&self.source)
    }

    /// Waits until there is a current value, and returns a permit for it.
    ///
    /// # Errors
    ///
    /// The error of a failed renewal, which all waiters share, or [`WaitTimedOut`], [`QueueFull`],
    /// [`NoRuntime`], or [`Reentrant`] when the gate's own renewal calls this.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only gives up its place in the queue.
    ///
    /// [`WaitTimedOut`]: RenewalErrorKind::WaitTimedOut
    /// [`QueueFull`]: RenewalErrorKind::QueueFull
    /// [`NoRuntime`]: RenewalErrorKind::NoRuntime
    /// [`Reentrant`]: RenewalErrorKind::Reentrant
    pub fn acquire(&self) -> impl Future<Output = Result<Permit<T>, RenewalError>> + Send {
        Acquire { source: &self.source, arrival: Arrival::First, wait: None }
    }

    /// Returns a permit for the current value if no caller has to wait for it. This starts no
    /// renewal.
    pub fn try_acquire(&self) -> Option<Permit<T>> {
        self.gate().published().map(|value| Permit::new(RawPermit::plain(value)))
    }

    /// Reports that the value of `rejected` was not accepted, and waits for its successor.
    ///
    /// If that value has been renewed already, this returns the current value and starts no
    /// renewal. If no permit of a renewed value was dropped without a rejection, its renewal counts
    /// as failed: the gate backs off before it retries, and after
    /// [`max_attempts`](GateConfig::max_attempts) such renewals the callers get an error.
    ///
    /// # Errors
    ///
    /// The same as [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// The renewal continues when the future is dropped.
    pub async fn reject(&self, rejected: &Permit<T>) -> Result<Permit<T>, RenewalError> {
        if self.gate().is_reentrant() {
            return Err(RenewalError::new(RenewalErrorKind::Reentrant));
        }
        rejected.is_rejected.store(true, Ordering::Relaxed);
        self.gate().report_first_rejection(&rejected.permit);
        Acquire { source: &self.source, arrival: Arrival::Returning, wait: None }.await
    }

    /// Starts a renewal, or joins the running one. The current value stays in use until the new one
    /// is there.
    ///
    /// # Errors
    ///
    /// [`Closed`](RenewalErrorKind::Closed).
    pub fn renew(&self) -> Result<RenewalHandle, RenewalError> {
        self.gate().renew().map(RenewalHandle::new)
    }

    /// Ends the current value and cancels a running renewal. The next [`acquire`](Self::acquire)
    /// starts a renewal.
    ///
    /// # Errors
    ///
    /// [`Closed`](RenewalErrorKind::Closed).
    pub fn clear(&self) -> Result<(), RenewalError> {
        self.gate().clear()
    }

    /// Makes `value` current and cancels a running renewal.
    ///
    /// # Errors
    ///
    /// [`Closed`](RenewalErrorKind::Closed).
    pub fn replace(&self, value: T) -> Result<(), RenewalError> {
        let (gate, now) = (self.gate(), self.source.now());
        let replaced = gate.replace(|generation| {
            Arc::new(Versioned { version: VersionState::new(generation, now, gate.random()), value })
        });
        replaced.map(drop)
    }

    /// Closes the gate permanently: all waiters and all later callers get
    /// [`Closed`](RenewalErrorKind::Closed).
    pub fn close(&self) {
        self.gate().close();
    }

    /// Returns the number of callers that wait now.
    pub fn waiting(&self) -> usize {
        self.gate().waiting()
    }
}

pin_project! {
    /// Acquires a permit.
    #[must_use = "futures do nothing unless polled"]
    struct Acquire<'g, T>
    where
        T: Send,
        T: Sync,
        T: 'static,
    {
        source: &'g Arc<Standalone<T>>,
        arrival: Arrival,
        #[pin]
        wait: Option<Wait<Standalone<T>>>,
    }
}

impl<T: Send + Sync + 'static> Future for Acquire<'_, T> {
    type Output = Result<Permit<T>, RenewalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let source = *this.source;
        let gate = GateRef::new(source);
        if this.wait.is_none() && gate.is_reentrant() {
            return Poll::Ready(Err(RenewalError::new(RenewalErrorKind::Reentrant)));
        }
        loop {
            let mut permit = if let Some(wait) = this.wait.as_mut().as_pin_mut() {
                let permit = ready!(wait.poll(context));
                this.wait.set(None);
                permit?
            } else {
                match gate.admit(*this.arrival) {
                    Admitted::Pass(permit) => permit,
                    Admitted::Wait(ticket) => {
                        this.wait.set(Some(wait(source, ticket, source.config.max_wait)?));
                        continue;
                    }
                    Admitted::Refuse(error) => return Poll::Ready(Err(error)),
                }
            };
            if gate.count_use(&mut permit, &UsageLimits::default()) {
                return Poll::Ready(Ok(Permit::new(permit)));
            }
            *this.arrival = Arrival::Returning;
        }
    }
}

impl<T: Send + Sync + 'static> Clone for RenewalGate<T> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone() }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for RenewalGate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.gate().published().map(|value| value.version.generation.get());
        f.debug_struct("RenewalGate")
            .field("generation", &generation)
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// The value of one generation, as [`RenewalGate::acquire`] returns it. It dereferences to the
/// value.
#[must_use = "a permit that is dropped immediately counts as a successful use of the value"]
pub struct Permit<T: Send + Sync + 'static> {
    permit: RawPermit<Standalone<T>>,
    is_rejected: AtomicBool,
}

impl<T: Send + Sync + 'static> Permit<T> {
    fn new(permit: RawPermit<Standalone<T>>) -> Self {
        Self { permit, is_rejected: AtomicBool::new(false) }
    }

    /// Returns the number of the value; it grows with each renewal.
    pub fn generation(&self) -> u64 {
        self.permit.value.version.generation.get()
    }
}

/// A permit that is dropped without having been rejected was good: its value works, and the waiters
/// behind a probe are released.
impl<T: Send + Sync + 'static> Drop for Permit<T> {
    fn drop(&mut self) {
        if *self.is_rejected.get_mut() {
            return;
        }
        match self.permit.role_owner() {
            Some(source) => GateRef::new(&source).report_good(&mut self.permit),
            // No request of this gate is ever in doubt.
            None => {
                self.permit.value.version.prove();
            }
        }
    }
}

impl<T: Send + Sync + 'static> Deref for Permit<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.permit.value.value
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Permit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be a token.
        f.debug_struct("Permit").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

type FetchFn<T> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>> + Send + Sync>;

/// The source of a value that is not part of a session.
pub(crate) struct Standalone<T: Send + Sync + 'static> {
    gate: Gate<Self>,
    fetch: FetchFn<T>,
    config: GateConfig,
    origin: Instant,
}

pub(crate) struct Versioned<T> {
    version: VersionState,
    value: T,
}

impl<T: Send + Sync + 'static> GateOwner for Standalone<T> {
    fn gate(&self) -> &Gate<Self> {
        &self.gate
    }
}

impl<T: Send + Sync + 'static> RenewalSource for Standalone<T> {
    type Value = Versioned<T>;
    type Request = std::convert::Infallible;

    fn version(value: &Versioned<T>) -> &VersionState {
        &value.version
    }

    fn limits(&self) -> Limits {
        self.config.limits.clone()
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn has_rule(&self) -> bool {
        true
    }

    fn pending(
        &self,
        _candidate: Option<&Arc<Versioned<T>>>,
        _failed: Option<&Arc<Versioned<T>>>,
    ) -> Option<Arc<Versioned<T>>> {
        None
    }

    fn candidate(
        &self,
        _pending: Option<&Arc<Versioned<T>>>,
        _generation: Generation,
    ) -> Option<Arc<Versioned<T>>> {
        None
    }

    fn renew(self: &Arc<Self>, attempt: AttemptContext<Self>) -> RenewalFuture<Versioned<T>> {
        let source = self.clone();
        Box::pin(async move {
            match (source.fetch)().await {
                Ok(value) => {
                    let now = source.now();
                    let version = VersionState::new(attempt.generation, now, source.gate.random());
                    Ok(Some(Arc::new(Versioned { version, value })))
                }
                Err(error) => Err(failure(error)),
            }
        })
    }
}

/// Returns a permanent failure for a [`PermanentError`], and a transient one for any other error.
pub(crate) fn failure(error: BoxError) -> Failure<RenewalError> {
    if error.is::<PermanentError>() {
        Failure::permanent(RenewalError::caused_by(RenewalErrorKind::Permanent, error))
    } else {
        Failure::transient(RenewalError::caused_by(RenewalErrorKind::Failed, error))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio_test::task;

    use super::*;
    use crate::{gate::Release, waiters::Ticket};

    /// Creates an open gate whose renewals never end.
    fn open() -> RenewalGate<u32> {
        RenewalGate::new(0, std::future::pending::<Result<_, BoxError>>)
    }

    fn uses(limit: u64) -> UsageLimits {
        UsageLimits { uses: Some(limit), age: None }
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_renewal_starts_in_the_last_tenth_of_a_limit() {
        let gate = open();
        let mut permit = gate.try_acquire().unwrap();
        for _ in 0..89 {
            assert!(gate.gate().count_use(&mut permit.permit, &uses(100)));
        }
        assert!(gate.gate().is_idle());
        for _ in 89..95 {
            assert!(gate.gate().count_use(&mut permit.permit, &uses(100)));
        }
        assert!(!gate.gate().is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_gate_has_no_state_until_the_first_event() {
        let gate = open();
        for _ in 0..3 {
            drop(gate.acquire().await.unwrap());
        }
        let permit = gate.try_acquire().unwrap();
        let inner = gate.gate();
        assert!(inner.is_valid(&permit.permit) && inner.is_idle());
        assert_eq!((inner.waiting(), inner.snapshot().is_current), (0, true));
        assert!(inner.current().is_some() && inner.is_untouched());
        // The state that the event creates knows the current value.
        gate.gate().report_first_rejection(&permit.permit);
        assert!(!inner.is_untouched());
        assert!(inner.published().is_none() && permit.permit.value.version.is_ended());
        gate.replace(5).unwrap();
        assert_eq!((*gate.acquire().await.unwrap(), gate.acquire().await.unwrap().generation()), (5, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_allowed_use_starts_no_early_renewal() {
        let gate = open();
        let mut permit = gate.try_acquire().unwrap();
        assert!(gate.gate().count_use(&mut permit.permit, &uses(1)));
        assert!(gate.gate().is_idle());
        assert!(!gate.gate().count_use(&mut permit.permit, &uses(1)));
        assert!(!gate.gate().is_idle());
    }

    /// Creates a gate with three waiters, the first of them released as the probe.
    async fn probed() -> (RenewalGate<u32>, RawPermit<Standalone<u32>>, [Ticket; 2]) {
        let config = GateConfig::new().release(Release::ProbeFirst);
        let gate = RenewalGate::with_config(None, async || Ok::<_, BoxError>(1), config).unwrap();
        let [first, second, third] = [(); 3].map(|()| match gate.gate().admit(Arrival::First) {
            Admitted::Wait(ticket) => ticket,
            _ => panic!("the request passed"),
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let probe = poll(&gate, first).expect("the oldest waiter is the probe");
        (gate, probe, [second, third])
    }

    fn poll(gate: &RenewalGate<u32>, ticket: Ticket) -> Option<RawPermit<Standalone<u32>>> {
        match gate.gate().poll(ticket, Waker::noop()) {
            Admitted::Pass(permit) => Some(permit),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_without_a_response_releases_the_others() {
        let (gate, probe, [second, third]) = probed().await;
        assert!(poll(&gate, second).is_none());
        gate.gate().report_error(probe);
        let _second = poll(&gate, second).unwrap();
        assert!(poll(&gate, third).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_ends_with_its_value() {
        let (gate, probe, waiting) = probed().await;
        assert!(gate.gate().is_valid(&probe));
        assert!(!probe.value.version.is_ended());
        gate.clear().unwrap();
        assert!(!gate.gate().is_valid(&probe));
        assert!(probe.value.version.is_ended());
        waiting.into_iter().for_each(|ticket| gate.gate().leave(ticket));
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_are_woken_by_changes_and_only_while_they_watch() {
        let gate = open();
        let mut watcher = task::spawn(());
        let mut place = None;
        watcher.enter(|context, _| gate.gate().watch(&mut place, context.waker()));
        gate.gate().tick();
        assert!(!watcher.is_woken());
        gate.replace(1).unwrap();
        assert!(watcher.is_woken());
        watcher.enter(|context, _| gate.gate().watch(&mut place, context.waker()));
        gate.gate().unwatch(place.unwrap());
        gate.replace(2).unwrap();
        assert!(!watcher.is_woken());
    }

    #[tokio::test(start_paused = true)]
    async fn the_waker_of_a_dropped_waiter_is_dropped_after_the_lock() {
        /// Locks the gate when it is dropped, which deadlocks if the lock is held.
        struct LocksOnDrop(RenewalGate<u32>);
        impl std::task::Wake for LocksOnDrop {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for LocksOnDrop {
            fn drop(&mut self) {
                self.0.waiting();
            }
        }
        let gate = open();
        gate.clear().unwrap();
        let Admitted::Wait(ticket) = gate.gate().admit(Arrival::First) else { panic!("the request passed") };
        let waker = Waker::from(Arc::new(LocksOnDrop(gate.clone())));
        assert!(matches!(gate.gate().poll(ticket, &waker), Admitted::Wait(_)));
        drop(waker);
        gate.gate().leave(ticket);
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_replaced_is_aborted() {
        let gate = open();
        let timer = tokio::spawn(std::future::pending::<()>());
        gate.gate().set_timer(99, timer.abort_handle());
        tokio::time::timeout(Duration::from_secs(1), timer).await.expect("the task still runs").unwrap_err();
    }
}
