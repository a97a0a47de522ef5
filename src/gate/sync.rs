//! The primitives that loom replaces when it explores the schedules of this module.

#[cfg(not(sessions_loom))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

#[cfg(sessions_loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};

#[cfg(not(sessions_loom))]
pub(crate) use parking_lot::Mutex;

#[cfg(not(sessions_loom))]
pub(crate) use published::Published;

#[cfg(sessions_loom)]
pub(crate) use modelled::{Mutex, Published};

#[cfg(not(sessions_loom))]
mod published {
    use std::sync::Arc;

    use arc_swap::ArcSwapOption;

    /// A pointer that is read often and without a lock, and replaced rarely.
    #[derive(Debug)]
    pub(crate) struct Published<T>(ArcSwapOption<T>);

    impl<T> Published<T> {
        pub(crate) fn new(value: Option<Arc<T>>) -> Self {
            Self(ArcSwapOption::new(value))
        }

        pub(crate) fn load(&self) -> Option<Arc<T>> {
            self.0.load_full()
        }

        pub(crate) fn is_some(&self) -> bool {
            self.0.load().is_some()
        }

        /// Returns the old value, so that the caller decides where it is dropped.
        pub(crate) fn swap(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
            self.0.swap(value)
        }
    }
}

#[cfg(sessions_loom)]
mod modelled {
    use std::sync::Arc;

    /// loom's mutex with the signature of parking_lot's.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("nothing panics under this lock")
        }
    }

    /// The published pointer as loom can follow it. This assumes that arc-swap is correct and
    /// checks the protocol around it.
    #[derive(Debug)]
    pub(crate) struct Published<T>(loom::sync::RwLock<Option<Arc<T>>>);

    impl<T> Published<T> {
        pub(crate) fn new(value: Option<Arc<T>>) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        pub(crate) fn load(&self) -> Option<Arc<T>> {
            self.0.read().expect("nothing panics under this lock").clone()
        }

        pub(crate) fn is_some(&self) -> bool {
            self.0.read().expect("nothing panics under this lock").is_some()
        }

        pub(crate) fn swap(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
            std::mem::replace(&mut *self.0.write().expect("nothing panics under this lock"), value)
        }
    }
}
