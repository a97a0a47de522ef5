//! Guides for users of other libraries.
//!
//! - [From scrapy-sessions](from_scrapy_sessions), the predecessor of this crate
//! - [From the cookie jar of reqwest](from_reqwest)

pub mod from_reqwest;
pub mod from_scrapy_sessions;
