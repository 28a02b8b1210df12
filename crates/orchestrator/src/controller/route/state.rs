//! What the routes work with: the services, and a few settings of the API itself.

use std::{ops::Deref, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::large::Large;
use crate::{
    controller::worker::trigger::TriggerRegistry,
    core::{
        client::{cache::CacheClient, event_bus::EventFeed},
        market::quantity::Micros,
    },
    service::{
        access::{AuditService, CredentialService, KeyService},
        allocation::AllocationService,
        block::{AttestationService, BlockService},
        job::{Backlog, JobService},
        ledger::{accounts::AccountService, dispute::DisputeService},
        market::MarketService,
        pricing::PricingService,
        proof::{PayoutService, ProofService},
        scoring::{OfferingService, ReputationService},
        sla::{EvidenceService, OracleService, SlaService},
        work::Work,
    },
};

/// Limits and times of the API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Largest body, in bytes.
    pub body_limit: usize,
    /// Longest time until an answer begins.
    pub timeout: Duration,
    /// Requests per key and window.
    pub rate_limit: u64,
    /// Requests that are worked on at once.
    pub max_in_flight: usize,
    /// Failed authentications per address and window.
    pub auth_failures: u64,
    /// The window.
    pub rate_window: Micros,
    /// Time between the signs of life of an idle event stream.
    pub keep_alive: Duration,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            body_limit: 1 << 20,
            timeout: Duration::from_secs(30),
            rate_limit: 30_000,
            max_in_flight: 1_024,
            auth_failures: 300,
            rate_window: Micros::from_secs(10),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// Something that the service needs to be ready.
#[async_trait]
pub trait Dependency: Send + Sync + 'static {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// Whether the service can do nothing without it. What only slows, or is made up for later, is reported and no more.
    fn needed(&self) -> bool {
        true
    }

    /// Whether it answers.
    async fn check(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Renders the metrics in Prometheus' text form.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Everything that the routes use.
pub struct Services {
    /// Limits and times.
    pub settings: ApiSettings,
    /// Reads, ids and the present instant.
    pub work: Work,
    /// Counts requests per key.
    pub cache: Arc<dyn CacheClient>,
    /// Live events.
    pub feed: Arc<dyn EventFeed>,
    /// What must answer for the service to be ready.
    pub dependencies: Vec<Arc<dyn Dependency>>,
    /// Renders the metrics; `None` when no recorder is installed.
    pub metrics: Option<RenderMetrics>,
    /// Cancelled when the daemon shuts down: ends event streams.
    pub closing: CancellationToken,
    /// API keys.
    pub keys: Arc<KeyService>,
    /// The audit log.
    pub audit: Arc<AuditService>,
    /// Providers, consumers, units.
    pub market: MarketService,
    /// Allocations.
    pub allocations: AllocationService,
    /// S3 credentials.
    pub credentials: CredentialService,
    /// Oracles.
    pub oracles: OracleService,
    /// Evidence and its history.
    pub evidence: EvidenceService,
    /// Verdicts.
    pub sla: SlaService,
    /// Accounts.
    pub accounts: AccountService,
    /// Disputes.
    pub disputes: DisputeService,
    /// What is paid out on a chain.
    pub payouts: PayoutService,
    /// Ranked offerings.
    pub offerings: OfferingService,
    /// Reputations.
    pub reputations: ReputationService,
    /// The history of prices.
    pub pricing: PricingService,
    /// Blocks.
    pub blocks: BlockService,
    /// What oracles sign of blocks.
    pub attestations: AttestationService,
    /// Proofs of accounts.
    pub proofs: ProofService,
    /// Jobs.
    pub jobs: JobService,
    /// How many jobs wait.
    pub backlog: Backlog,
    /// Triggers.
    pub triggers: Arc<TriggerRegistry>,
}

/// The state of the router: the services, shared.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

/// The services, and what the requests of this process share.
struct Shared {
    services: Services,
    places: Semaphore,
    large: Large,
}

impl ApiState {
    /// Shares the services.
    #[must_use]
    pub fn new(services: Services) -> Self {
        let places = Semaphore::new(services.settings.max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        Self(Arc::new(Shared { services, places, large: Large::default() }))
    }

    /// One for each request that may be worked on.
    pub(super) fn places(&self) -> &Semaphore {
        &self.0.places
    }

    /// Places for large answers.
    pub(super) fn large(&self) -> &Large {
        &self.0.large
    }
}

impl Deref for ApiState {
    type Target = Services;
    fn deref(&self) -> &Services {
        &self.0.services
    }
}
