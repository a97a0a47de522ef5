//! For those who come from elsewhere: what they know, beside what it is here.
//!
//! - [From scrapy-sessions](from_scrapy_sessions), this crate's ancestor
//! - [From a reqwest cookie jar](from_reqwest)

pub mod from_reqwest;
pub mod from_scrapy_sessions;
