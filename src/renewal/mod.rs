//! Renewal: what keeps a session alive while many requests use it.

mod future;
mod how;
mod lane;
mod layer;
mod peek;
mod prebuffer;
mod replay;
mod service;
mod when;

pub use self::{
    future::ResponseFuture,
    how::{Renewal, RenewalBody},
    layer::RenewalLayer,
    peek::{PeekBody, PeekFuture, PeekLayer, PeekService, Peeked},
    prebuffer::{PrebufferFuture, PrebufferLayer, PrebufferService, ReplayBody},
    replay::{LateAnswer, ReplayBudget, ReplayBudgetLayer, ReplayBudgetService, ReplayMethods},
    service::RenewalService,
    when::{Answer, Expired},
};
