//! Who may come in: API keys, and the record of what was done with them.

pub mod audit;
pub mod keys;

pub use audit::AuditService;
pub use keys::{Authenticated, KeyService, KeySettings, NewKey};
