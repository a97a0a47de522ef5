//! Sessions for HTTP clients built on tower.

pub mod cookies;
pub mod gate;
pub mod profile;
