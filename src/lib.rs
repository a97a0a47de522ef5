//! Sessions for HTTP clients built on tower.

pub mod cookies;
