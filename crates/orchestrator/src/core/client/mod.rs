//! The ports: what the services need of the world, in domain types. Implementations live in `crate::client`; each port
//! has a contract suite that every implementation passes.

pub mod cache;
pub mod changes;
pub mod clock;
pub mod damaged;
pub mod database;
pub mod entity;
pub mod event_bus;
pub mod lease;
pub mod notification;
pub mod probe;
pub mod provider;
pub mod queue;
pub mod scheduler;
pub mod schema;
pub mod storage;
pub mod vault;
