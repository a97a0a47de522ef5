//! The client over sockets: what origins and proxies receive.

mod errors;
mod isolation;
mod limits;
mod proxies;
mod support;
mod tls;
