//! The one place that names concrete clients: config → resource → client → service → controller. Starts and stops the
//! daemon, and opens parts of it for commands.
//!
//! - `backends` chooses the client of each port, `clients` puts them together, `services` builds on them.
//! - `backup` copies the embedded default and puts a copy back.
//! - `daemon` starts and stops the whole, `background` its loops, `first` makes what the first start needs.
//! - `dev_chain` is a chain of one's own, with the contract on it.
//! - `doctor` asks every dependency for a person, `readiness` for a load balancer.
//! - `replica` is the daemon's inside over ports that are given: what the simulation runs.
//! - `host` is what commands do without a daemon.

mod backends;
mod background;
mod backup;
mod chain;
mod clients;
#[cfg(feature = "aws")]
mod cloud;
mod daemon;
#[cfg(feature = "ethereum")]
mod dev_chain;
mod doctor;
mod first;
mod host;
#[cfg(feature = "ethereum")]
mod onlooker;
mod readiness;
mod replica;
mod secret;
mod services;

pub use backup::{Manifest, Restored, backup, check_backup, restore};
pub use clients::Ports;
pub use daemon::{Daemon, StartOptions};
#[cfg(feature = "ethereum")]
pub use dev_chain::{DOMAIN as DEV_DOMAIN, DevChain, OperatorGas};
pub use doctor::{Checkup, doctor};
pub use first::{OPERATOR_KEY_FILE, provider_token_path, start_provider};
pub use host::{OfflineKeys, apply, check_account_proof, destroy, plan, plan_destroy, policy, verify};
#[cfg(feature = "ethereum")]
pub use onlooker::{ChainPlace, ChainReport, ChallengeReport, ChallengerKey, challenge, verify_chain};
pub use replica::Replica;
pub use services::Services;
