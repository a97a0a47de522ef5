//! The gate for one value of any type.

use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    config::{ConfigError, GateConfig},
    core::{Failure, Generation, Limits},
    driver,
    error::{BoxError, PermanentError, RenewalError, RenewalErrorKind},
    jitter::Jitter,
    keeper::{Asker, Budget, Drive, Entry, Gate, Keeper, Life, RawPermit, Renewing},
    wait::Wait,
};

/// A versioned value with a renewal that runs once, however many ask for it.
///
/// Everybody [`acquire`](Self::acquire)s to get the current value, and says [`renew`](Self::renew) with the pass that was rejected.
/// The first rejection of a value starts its renewal; all later ones join it, or, when it has already ended, get the new value
/// at once. The renewal runs in a task of its own: dropping any of the futures here neither cancels nor repeats it.
///
/// See the [module](super) for what happens when a renewal fails.
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
/// // The server has rejected both. One fetch serves both.
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
    keeper: Arc<Alone<T>>,
}

impl<T: Send + Sync + 'static> RenewalGate<T> {
    /// Creates a gate that is open with `value` as its first generation and renews it by `supplier`.
    ///
    /// The supplier may say that trying again is pointless by an error that is a [`PermanentError`].
    pub fn new<F, Fut, E>(value: T, supplier: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::build(Some(value), supplier, GateConfig::new())
    }

    /// Creates a gate that has no value yet; the first to enter starts the renewal.
    pub fn pending<F, Fut, E>(supplier: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::build(None, supplier, GateConfig::new())
    }

    /// Creates a gate with bounds other than the default, open if there is a `value`.
    ///
    /// # Errors
    ///
    /// Names the bound that is zero.
    pub fn with_config<F, Fut, E>(
        value: Option<T>,
        supplier: F,
        config: GateConfig,
    ) -> Result<Self, ConfigError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        config.validate()?;
        Ok(Self::build(value, supplier, config))
    }

    fn build<F, Fut, E>(value: Option<T>, supplier: F, config: GateConfig) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let origin = Instant::now();
        let supply: Supply<T> = Box::new(move || {
            let future = supplier();
            Box::pin(async move { future.await.map_err(Into::into) })
        });
        let jitter = Jitter::random();
        let gate = match value {
            Some(value) => {
                let life = Life::current(1, Duration::ZERO, jitter.draw());
                Gate::open(Arc::new(Versioned { life, value }), jitter)
            }
            None => Gate::pending(None, jitter),
        };
        Self { keeper: Arc::new(Alone { gate, supply, config, origin }) }
    }

    /// Waits for a value to send under: the current one, or, while there is none, the one that is being brought about.
    ///
    /// # Errors
    ///
    /// The error that everybody gets whose renewal failed, or one of this caller's own: [`WaitTimedOut`], [`QueueFull`], or
    /// [`Reentrant`] when a supplier asks its own gate.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up its place and nothing else.
    ///
    /// [`WaitTimedOut`]: RenewalErrorKind::WaitTimedOut
    /// [`QueueFull`]: RenewalErrorKind::QueueFull
    /// [`Reentrant`]: RenewalErrorKind::Reentrant
    pub fn acquire(&self) -> impl Future<Output = Result<Permit<T>, RenewalError>> + Send {
        Enter { keeper: &self.keeper, admitted: false, wait: None }
    }

    /// The current value, if there is one and nobody has to wait for it. This starts nothing.
    pub fn try_acquire(&self) -> Option<Permit<T>> {
        self.keeper.gate.published().map(|value| Permit { permit: RawPermit::plain(value) })
    }

    /// Says that the value of `rejected` was not accepted, and waits for its successor.
    ///
    /// If that value has already been renewed, the news is old: the current value is returned and no renewal starts.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// The renewal goes on when the future is dropped.
    pub async fn reject(&self, rejected: &Permit<T>) -> Result<Permit<T>, RenewalError> {
        if driver::is_reentrant(&self.keeper) {
            return Err(RenewalError::new(RenewalErrorKind::Reentrant));
        }
        Gate::report_rejected(&self.keeper, &rejected.permit);
        Enter { keeper: &self.keeper, admitted: true, wait: None }.await
    }

    /// Starts a renewal at once, or joins the one that runs. The current value serves on until the new one is there.
    ///
    /// # Errors
    ///
    /// [`Closed`](RenewalErrorKind::Closed).
    pub fn renew(&self) -> Result<RenewalHandle<T>, RenewalError> {
        Gate::renew(&self.keeper).map(|asker| RenewalHandle { asker })
    }

    /// Ends the current value; the next to enter starts a renewal. A renewal that runs cannot commit any more.
    ///
    /// # Errors
    ///
    /// [`Closed`](RenewalErrorKind::Closed).
    pub fn clear(&self) -> Result<(), RenewalError> {
        Gate::clear(&self.keeper)
    }

    /// Makes `value` current, whatever is under way.
    ///
    /// # Errors
    ///
    /// [`Closed`](RenewalErrorKind::Closed).
    pub fn replace(&self, value: T) -> Result<(), RenewalError> {
        let born = self.keeper.now();
        Gate::replace(&self.keeper, |generation| {
            Arc::new(Versioned { life: Life::new(generation, born, self.keeper.gate.random()), value })
        })
        .map(drop)
    }

    /// Ends the gate: everybody who waits, and everybody who comes, gets [`Closed`](RenewalErrorKind::Closed).
    pub fn close(&self) {
        Gate::close(&self.keeper);
    }

    /// How many wait at this moment.
    pub fn waiting(&self) -> usize {
        self.keeper.gate.held()
    }
}

pin_project! {
    /// Enters for the first time, or again with news about a value.
    struct Enter<'g, T>
    where
        T: Send,
        T: Sync,
        T: 'static,
    {
        keeper: &'g Arc<Alone<T>>,
        admitted: bool,
        #[pin]
        wait: Option<Wait<Alone<T>>>,
    }
}

impl<T: Send + Sync + 'static> Future for Enter<'_, T> {
    type Output = Result<Permit<T>, RenewalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let keeper = *this.keeper;
        if this.wait.is_none() && driver::is_reentrant(keeper) {
            return Poll::Ready(Err(RenewalError::new(RenewalErrorKind::Reentrant)));
        }
        loop {
            let permit = if let Some(wait) = this.wait.as_mut().as_pin_mut() {
                let permit = ready!(wait.poll(context));
                this.wait.set(None);
                permit?
            } else {
                match Gate::admit(keeper, *this.admitted) {
                    Entry::Pass(permit) => permit,
                    Entry::Wait(ticket) => {
                        this.wait.set(Some(Wait::new(keeper.clone(), ticket, keeper.config.hold)?));
                        continue;
                    }
                    Entry::Refuse(error) => return Poll::Ready(Err(error)),
                }
            };
            if Gate::count_send(keeper, &permit, &Budget::default()) {
                return Poll::Ready(Ok(Permit { permit }));
            }
            *this.admitted = true;
        }
    }
}

impl<T: Send + Sync + 'static> Clone for RenewalGate<T> {
    fn clone(&self) -> Self {
        Self { keeper: self.keeper.clone() }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for RenewalGate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.keeper.gate.published().map(|value| value.life.generation);
        f.debug_struct("RenewalGate")
            .field("generation", &generation)
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// The value of one generation, as [`RenewalGate::acquire`] gives it out. It dereferences to the value.
pub struct Permit<T: Send + Sync + 'static> {
    permit: RawPermit<Alone<T>>,
}

impl<T: Send + Sync + 'static> Permit<T> {
    /// The number of the value; it grows with each one.
    pub fn generation(&self) -> u64 {
        self.permit.value.life.generation
    }
}

/// A pass that is given back without having been rejected was good: those who wait behind a probe are let out.
impl<T: Send + Sync + 'static> Drop for Permit<T> {
    fn drop(&mut self) {
        if let Some(keeper) = self.permit.role_keeper() {
            Gate::report_good(&keeper, &mut self.permit);
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
        // The value may well be a token.
        f.debug_struct("Permit").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

/// A renewal that was asked for by [`RenewalGate::renew_now`]: resolves to the new generation. Dropping it cancels nothing.
#[must_use = "the renewal runs without it; to know how it ends, await it"]
pub struct RenewalHandle<T: Send + Sync + 'static> {
    asker: Asker<Alone<T>>,
}

impl<T: Send + Sync + 'static> Future for RenewalHandle<T> {
    type Output = Result<u64, RenewalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.asker.poll(context)
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for RenewalHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalHandle").finish_non_exhaustive()
    }
}

type Supply<T> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>> + Send + Sync>;

/// The keeper of a value that stands alone.
pub(crate) struct Alone<T: Send + Sync + 'static> {
    gate: Gate<Self>,
    supply: Supply<T>,
    config: GateConfig,
    origin: Instant,
}

pub(crate) struct Versioned<T> {
    life: Life,
    value: T,
}

impl<T: Send + Sync + 'static> Keeper for Alone<T> {
    type Value = Versioned<T>;
    type Request = std::convert::Infallible;

    fn gate(&self) -> &Gate<Self> {
        &self.gate
    }

    fn life(value: &Versioned<T>) -> &Life {
        &value.life
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

    fn renew(self: &Arc<Self>, drive: Drive<Self>) -> Renewing<Versioned<T>> {
        let keeper = self.clone();
        Box::pin(async move {
            match (keeper.supply)().await {
                Ok(value) => {
                    let life = Life::new(drive.generation, keeper.now(), keeper.gate.random());
                    Ok(Some(Arc::new(Versioned { life, value })))
                }
                Err(error) => Err(failure(error)),
            }
        })
    }
}

/// Tells a refusal from a failure that may pass.
pub(crate) fn failure(error: BoxError) -> Failure<RenewalError> {
    let terminal = error.is::<PermanentError>();
    let kind = if terminal { RenewalErrorKind::Permanent } else { RenewalErrorKind::Failed };
    Failure { terminal, error: RenewalError::caused_by(kind, error) }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio_test::task;

    use super::*;
    use crate::gate::{Release, waiters::Ticket};

    /// Open, with renewals that never end.
    fn open() -> RenewalGate<u32> {
        RenewalGate::new(0, std::future::pending::<Result<_, BoxError>>)
    }

    fn uses(limit: u64) -> Budget {
        Budget { uses: Some(limit), age: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_asks_for_an_early_renewal_in_its_last_tenth() {
        let gate = open();
        let pass = gate.try_acquire().unwrap();
        for _ in 0..89 {
            assert!(Gate::count_send(&gate.keeper, &pass.permit, &uses(100)));
        }
        assert!(gate.keeper.gate.is_idle());
        for _ in 89..95 {
            assert!(Gate::count_send(&gate.keeper, &pass.permit, &uses(100)));
        }
        assert!(!gate.keeper.gate.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_through_which_everybody_passes_decides_nothing() {
        let gate = open();
        for _ in 0..3 {
            drop(gate.acquire().await.unwrap());
        }
        let pass = gate.try_acquire().unwrap();
        let inner = &gate.keeper.gate;
        assert!(inner.still_good(&pass.permit) && inner.is_idle());
        assert_eq!((inner.held(), inner.standing().is_current), (0, true));
        assert!(inner.current().is_some() && inner.is_untouched());
        // What is made then knows what was there before.
        Gate::report_rejected(&gate.keeper, &pass.permit);
        assert!(!inner.is_untouched());
        assert!(inner.published().is_none() && pass.permit.value.life.is_ended());
        gate.replace(5).unwrap();
        assert_eq!((*gate.acquire().await.unwrap(), gate.acquire().await.unwrap().generation()), (5, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_use_of_a_budget_asks_for_nothing() {
        let gate = open();
        let pass = gate.try_acquire().unwrap();
        assert!(Gate::count_send(&gate.keeper, &pass.permit, &uses(1)));
        assert!(gate.keeper.gate.is_idle());
        assert!(!Gate::count_send(&gate.keeper, &pass.permit, &uses(1)));
        assert!(!gate.keeper.gate.is_idle());
    }

    /// Three who wait, and the first of them let out as the probe.
    async fn probed() -> (RenewalGate<u32>, RawPermit<Alone<u32>>, [Ticket; 2]) {
        let config = GateConfig::new().release(Release::ProbeFirst);
        let gate = RenewalGate::with_config(None, async || Ok::<_, BoxError>(1), config).unwrap();
        let [first, second, third] = [(); 3].map(|()| match Gate::admit(&gate.keeper, false) {
            Entry::Wait(ticket) => ticket,
            _ => panic!("it is let in"),
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let probe = look(&gate, first).expect("the oldest one is the probe");
        (gate, probe, [second, third])
    }

    fn look(gate: &RenewalGate<u32>, ticket: Ticket) -> Option<RawPermit<Alone<u32>>> {
        match Gate::poll(&gate.keeper, ticket, Waker::noop()) {
            Entry::Pass(permit) => Some(permit),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_without_an_answer_lets_the_others_out() {
        let (gate, probe, [second, third]) = probed().await;
        assert!(look(&gate, second).is_none());
        Gate::report_error(&gate.keeper, probe);
        let _second = look(&gate, second).unwrap();
        assert!(look(&gate, third).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_does_not_outlive_its_value() {
        let (gate, probe, waiting) = probed().await;
        assert!(gate.keeper.gate.still_good(&probe));
        assert!(!probe.value.life.is_ended());
        gate.clear().unwrap();
        assert!(!gate.keeper.gate.still_good(&probe));
        assert!(probe.value.life.is_ended());
        waiting.into_iter().for_each(|ticket| Gate::leave(&gate.keeper, ticket));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_queue_are_woken_by_changes_alone_and_only_while_they_queue() {
        let gate = open();
        let mut queued = task::spawn(());
        let mut place = None;
        queued.enter(|context, _| Gate::queue(&gate.keeper, &mut place, context.waker()));
        Gate::tick(&gate.keeper);
        assert!(!queued.is_woken());
        gate.replace(1).unwrap();
        assert!(queued.is_woken());
        queued.enter(|context, _| Gate::queue(&gate.keeper, &mut place, context.waker()));
        Gate::unqueue(&gate.keeper, place.unwrap());
        gate.replace(2).unwrap();
        assert!(!queued.is_woken());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waker_that_is_left_behind_is_dropped_after_the_lock() {
        /// Looks at the gate when it is dropped, which would deadlock under its lock.
        struct Nosy(RenewalGate<u32>);
        impl std::task::Wake for Nosy {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for Nosy {
            fn drop(&mut self) {
                self.0.waiting();
            }
        }
        let gate = open();
        gate.clear().unwrap();
        let Entry::Wait(ticket) = Gate::admit(&gate.keeper, false) else { panic!("it is let in") };
        let waker = Waker::from(Arc::new(Nosy(gate.clone())));
        assert!(matches!(Gate::poll(&gate.keeper, ticket, &waker), Entry::Wait(_)));
        drop(waker);
        Gate::leave(&gate.keeper, ticket);
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_was_set_too_late_is_stopped() {
        let gate = open();
        let alarm = tokio::spawn(std::future::pending::<()>());
        gate.keeper.gate.set_alarm(99, alarm.abort_handle());
        tokio::time::timeout(Duration::from_secs(1), alarm).await.expect("it goes on").unwrap_err();
    }
}
