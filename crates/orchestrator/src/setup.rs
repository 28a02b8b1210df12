//! The one place that names concrete clients: config → resource → client → service → controller. Starts and stops the
//! daemon, and opens parts of it for commands.
//!
//! - `backends` chooses the client of each port, `clients` puts them together, `services` builds on them.
//! - `backup` copies the embedded default and puts a copy back.
//! - `daemon` starts and stops the whole, `background` its loops, `first` makes what the first start needs.
//! - `doctor` asks every dependency for a person, `readiness` for a load balancer.
//! - `host` is what commands do without a daemon.

mod backends;
mod background;
mod backup;
mod clients;
#[cfg(feature = "aws")]
mod cloud;
mod daemon;
mod doctor;
mod first;
mod host;
mod readiness;
mod secret;
mod services;

pub use backup::{Manifest, Restored, backup, check_backup, restore};
pub use daemon::{Daemon, StartOptions};
pub use doctor::{Checkup, doctor};
pub use first::{OPERATOR_KEY_FILE, provider_token_path, start_provider};
pub use host::{OfflineKeys, apply, check_account_proof, destroy, plan, plan_destroy, policy, verify};
