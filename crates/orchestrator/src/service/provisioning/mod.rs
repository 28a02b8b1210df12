//! What happens at the providers: one file per kind of job. Every call to a provider carries the generation that the
//! attempt holds, so that whatever a slower worker sends later is refused there.

mod desk;
mod migrate;
mod provision;
mod purge;
mod release;
mod revoke_credential;
mod rotate_credential;
mod sync_access;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use desk::Desk;
pub use migrate::Migrate;
pub use provision::Provision;
pub use purge::Purge;
pub use release::Release;
pub use revoke_credential::RevokeCredential;
pub use rotate_credential::RotateCredential;
pub use sync_access::SyncAccess;

use super::{allocation::FinalSettlement, job::JobHandler, work::Work};
use crate::core::{
    client::{provider::ProviderDirectory, vault::Vault},
    market::quantity::Micros,
};

/// What the jobs are tuned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvisioningSettings {
    /// How long a provider may be at work on an allocation before it is given up.
    pub give_up: Micros,
    /// How often an asynchronous provider is asked how far it is.
    pub poll: Micros,
    /// For how long the consumer may fetch its data after closing.
    pub grace: Micros,
}

impl Default for ProvisioningSettings {
    fn default() -> Self {
        Self { give_up: Micros::from_secs(600), poll: Micros::from_millis(100), grace: Micros::from_days(7) }
    }
}

/// The handlers of all kinds of jobs that talk to providers.
#[must_use]
pub fn handlers(
    work: &Work,
    providers: &Arc<dyn ProviderDirectory>,
    vault: &Arc<dyn Vault>,
    settlement: &Arc<dyn FinalSettlement>,
    settings: ProvisioningSettings,
) -> Vec<Arc<dyn JobHandler>> {
    let desk = Desk::new(work.clone(), providers.clone());
    vec![
        Arc::new(Provision::new(desk.clone(), vault.clone(), settings)),
        Arc::new(Release::new(desk.clone(), settlement.clone(), settings)),
        Arc::new(Purge::new(desk.clone(), settings)),
        Arc::new(RotateCredential::new(desk.clone(), vault.clone())),
        Arc::new(RevokeCredential::new(desk.clone())),
        Arc::new(SyncAccess::new(desk)),
        Arc::new(Migrate),
    ]
}
