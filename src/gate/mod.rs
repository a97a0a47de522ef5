//! One value, renewed by one.

mod core;
mod waiters;
