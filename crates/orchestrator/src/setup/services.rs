//! Clients → services, job handlers and triggers.

use std::sync::Arc;

use super::clients::Clients;
use crate::{
    config::{Config, section::SettlementBackend},
    controller::worker::ScheduledTrigger,
    core::{
        job::JobKind,
        market::{
            quantity::{BasisPoints, Micros, Ppm},
            sla::JudgeRules,
            terms::DomainId,
        },
    },
    service::{
        access::{
            AccessSettings, AuditService, CredentialService, ExpireCredentials, KeyService, KeySettings,
        },
        allocation::{
            AllocationService, AllocationSettings, BlastRadius, EndPeriods, ExpireReservations,
            FinalSettlement, Reconcile, ReconcileSettings,
        },
        block::{
            self, AttestationService, BlockPorts, BlockService, BlockSettings, BlockStore, seal::SealTrigger,
        },
        canary::OwnHealth,
        job::{JobHandler, JobService, PurgeTrigger, Trigger, purge::PurgeSettings},
        ledger::{
            accounts::AccountService,
            deposits::DepositWatcher,
            dispute::{DisputeService, DisputeSettings},
        },
        market::{MarketService, MarketSettings, UnitMaintenance},
        pricing::{Controller, PricingService, Reprice},
        proof::{PayoutService, PayoutSettings, ProofService},
        provisioning::{self, ProvisioningSettings},
        scoring::{DailyReputation, OfferingService, OfferingSettings, ReputationService},
        settlement::SettlementDomains,
        sla::{
            CloseSlaWindows, EvidenceService, OracleService, PeriodSettlement, SlaCheck, SlaService,
            SlaSettings,
        },
    },
};

/// Every service of the daemon.
pub struct Services {
    /// API keys.
    pub keys: Arc<KeyService>,
    /// The audit log.
    pub audit: Arc<AuditService>,
    /// Providers, consumers, units.
    pub market: MarketService,
    /// Allocations.
    pub allocations: AllocationService,
    /// Credentials.
    pub credentials: CredentialService,
    /// Oracles.
    pub oracles: OracleService,
    /// Evidence reports.
    pub evidence: EvidenceService,
    /// Verdicts.
    pub sla: SlaService,
    /// How evidence becomes verdicts.
    pub sla_settings: SlaSettings,
    /// Accounts.
    pub accounts: AccountService,
    /// Disputes.
    pub disputes: DisputeService,
    /// Offerings.
    pub offerings: OfferingService,
    /// Reputations.
    pub reputations: ReputationService,
    /// Prices.
    pub pricing: PricingService,
    /// Jobs, for operators.
    pub jobs: JobService,
    /// Blocks.
    pub blocks: BlockService,
    /// Proofs of accounts.
    pub proofs: ProofService,
    /// Payouts on a chain.
    pub payouts: PayoutService,
    /// What oracles sign of blocks.
    pub attestations: AttestationService,
    /// What our own canary says.
    pub own_health: OwnHealth,
    /// The handlers of all kinds of jobs.
    pub handlers: Vec<Arc<dyn JobHandler>>,
    /// The triggers with their rates.
    pub triggers: Vec<ScheduledTrigger>,
}

impl Services {
    /// Builds every service over the clients.
    pub fn build(config: &Config, clients: &Clients) -> Self {
        let work = &clients.work;
        let sla_settings = sla_settings(config);
        let periods = PeriodSettlement::new(work.clone(), clients.storage.clone(), sla_settings.clone());
        let answers = &clients.answers;
        let offerings = OfferingService::sharing(
            clients.database.clone(),
            work.ids.clone(),
            clients.changes.clone(),
            // Evidence changes what offerings are worth once a bucket.
            OfferingSettings {
                full_refresh: config.sla.bucket.0.max(Micros::from_secs(1)),
                ..OfferingSettings::default()
            },
            answers.clone(),
        );
        let market =
            MarketService::new(work.clone(), clients.vault.clone(), market_settings(&clients.domains));
        let allocation_settings = AllocationSettings {
            reservation: config.market.reservation_ttl.0,
            ..AllocationSettings::default()
        };
        let allocations =
            AllocationService::new(work.clone(), Arc::new(offerings.clone()), allocation_settings);
        let accounts = AccountService::new(work.clone(), clients.domains.clone());
        let disputes = DisputeService::new(work.clone(), dispute_settings(config));
        let blocks = block_ports(config, clients);
        let own_health = OwnHealth::new(clients.clock.clone(), config.dependencies.canary_calm.0);
        let parts = Parts {
            config,
            clients,
            sla: &sla_settings,
            periods: &periods,
            market: &market,
            own_health: &own_health,
        };
        let handlers = parts.handlers(&blocks);
        let proofs = ProofService::new(accounts.clone(), blocks.store.clone(), clients.domains.clone());
        let payouts = PayoutService::new(
            work.clone(),
            proofs.clone(),
            clients.domains.clone(),
            payout_settings(config),
        );
        let mut triggers = parts.triggers(&allocations, &disputes, &blocks);
        let pays_out = |domain| clients.domains.get(domain).is_ok_and(|client| client.payouts().is_some());
        if clients.domains.domains().any(pays_out) {
            triggers.push(ScheduledTrigger::new(Arc::new(payouts.clone()), config.triggers.pay_out.0));
        }
        Self {
            keys: Arc::new(KeyService::new(work.clone(), clients.entropy.clone(), KeySettings::default())),
            audit: Arc::new(AuditService::new(clients.database.clone())),
            credentials: CredentialService::new(
                work.clone(),
                clients.vault.clone(),
                clients.entropy.clone(),
                clients.clock.clone(),
                access_settings(config),
            ),
            oracles: OracleService::new(work.clone()),
            evidence: EvidenceService::new(work.clone(), sla_settings.clone()).with_answers(answers.clone()),
            sla: SlaService::new(work.clone(), clients.storage.clone(), sla_settings.clone()),
            reputations: ReputationService::new(work.clone()).with_answers(answers.clone()),
            pricing: PricingService::new(work.clone()),
            jobs: JobService::new(work.clone()).with_dead_letters(clients.job_queue.clone()),
            attestations: AttestationService::new(
                work.clone(),
                blocks.store.clone(),
                clients.domains.clone(),
            ),
            proofs,
            payouts,
            blocks: BlockService::new(work.clone(), blocks.store),
            market,
            allocations,
            sla_settings,
            accounts,
            disputes,
            offerings,
            own_health,
            handlers,
            triggers,
        }
    }
}

/// What handlers and triggers are built from.
struct Parts<'a> {
    config: &'a Config,
    clients: &'a Clients,
    sla: &'a SlaSettings,
    periods: &'a PeriodSettlement,
    market: &'a MarketService,
    own_health: &'a OwnHealth,
}

impl Parts<'_> {
    fn handlers(&self, blocks: &BlockPorts) -> Vec<Arc<dyn JobHandler>> {
        let Self { config, clients, periods, .. } = self;
        let settlement: Arc<dyn FinalSettlement> = Arc::new((*periods).clone());
        let settings =
            ProvisioningSettings { grace: config.market.closing_grace.0, ..ProvisioningSettings::default() };
        let mut handlers =
            provisioning::handlers(&clients.work, &clients.providers, &clients.vault, &settlement, settings);
        handlers.push(Arc::new(SlaCheck::new((*periods).clone(), clients.providers.clone())));
        handlers.extend(block::handlers(blocks));
        let careful = |handler: Arc<dyn JobHandler>| match handler.kind() {
            JobKind::Purge | JobKind::SlaCheck => self.own_health.hold_job(handler),
            _ => handler,
        };
        handlers.into_iter().map(careful).collect()
    }

    fn triggers(
        &self,
        allocations: &AllocationService,
        disputes: &DisputeService,
        blocks: &BlockPorts,
    ) -> Vec<ScheduledTrigger> {
        let Self { config, clients, sla, periods, market, own_health } = self;
        let work = &clients.work;
        let reconcile = ReconcileSettings {
            teardowns_per_hour: config.market.max_teardowns_per_hour,
            blast_radius: BlastRadius {
                percent: config.market.max_teardown_percent,
                floor: config.market.min_teardowns,
            },
            ..ReconcileSettings::default()
        };
        let purge = PurgeSettings { completed_jobs: config.jobs.retention.0, ..PurgeSettings::default() };
        let mut triggers: Vec<Arc<dyn Trigger>> = vec![
            Arc::new(ExpireReservations::new(allocations.clone())),
            own_health.hold_trigger(Arc::new(EndPeriods::new(allocations.clone()))),
            own_health.hold_trigger(Arc::new(Reconcile::new(
                work.clone(),
                clients.providers.clone(),
                reconcile,
            ))),
            Arc::new(ExpireCredentials::new(work.clone())),
            Arc::new(UnitMaintenance::new((*market).clone())),
            own_health.hold_trigger(Arc::new(CloseSlaWindows::new(work.clone(), (*sla).clone()))),
            own_health.hold_trigger(Arc::new(DailyReputation::new(
                work.clone(),
                (*periods).clone(),
                (*sla).clone(),
            ))),
            Arc::new(SealTrigger::new(work.clone(), blocks.clone())),
            Arc::new(DepositWatcher::new(work.clone(), clients.domains.clone())),
            Arc::new(disputes.clone()),
            Arc::new(PurgeTrigger::new(work.clone(), purge)),
        ];
        if config.pricing.enabled {
            triggers.push(Arc::new(Reprice::new(work.clone(), Arc::new(Controller), Micros::from_days(1))));
        }
        let rates = config.triggers.rates();
        let every = |name: &str| rates.iter().find(|(known, _)| *known == name).map(|(_, rate)| rate.0);
        // A trigger without a rate of its own would be a mistake of ours; it then runs hourly.
        let scheduled = |trigger: Arc<dyn Trigger>| {
            let rate = every(trigger.name()).unwrap_or(Micros::from_secs(3_600));
            ScheduledTrigger::new(trigger, rate)
        };
        triggers.into_iter().map(scheduled).collect()
    }
}

fn block_ports(config: &Config, clients: &Clients) -> BlockPorts {
    let batch = usize::try_from(config.settlement.max_block_entries).unwrap_or(usize::MAX);
    // An entry is three records at most, and nodes take the registration of about 90,000.
    const MOST_ON_CHAIN: usize = 20_000;
    let (batch, poll) = match config.settlement.backend {
        SettlementBackend::Local => (batch, BlockSettings::default().poll),
        SettlementBackend::Ethereum => (batch.min(MOST_ON_CHAIN), config.ethereum.poll.0),
    };
    BlockPorts {
        store: BlockStore::new(clients.database.clone(), clients.storage.clone()),
        ids: clients.work.ids.clone(),
        domains: clients.domains.clone(),
        da: clients.da.clone(),
        settings: BlockSettings { batch, poll, ..BlockSettings::default() },
    }
}

fn sla_settings(config: &Config) -> SlaSettings {
    let rules =
        JudgeRules { bucket: config.sla.bucket.0, quorum: config.sla.quorum, ..JudgeRules::default() };
    SlaSettings {
        rules,
        billing_period: config.sla.billing_period.0,
        lateness: config.sla.settle_delay.0,
        metering_tolerance: Ppm(config.sla.usage_tolerance_ppm),
        fee: BasisPoints(config.market.fee_basis_points),
        disputes: dispute_settings(config),
        ..SlaSettings::default()
    }
}

fn payout_settings(config: &Config) -> PayoutSettings {
    let defaults = PayoutSettings::default();
    // The configuration was checked.
    let least = config.ethereum.min_payout.parse().unwrap_or(defaults.least);
    PayoutSettings { least: least.max(defaults.least), ..defaults }
}

fn dispute_settings(config: &Config) -> DisputeSettings {
    DisputeSettings {
        decision_time: config.market.dispute_deadline.0,
        fee: BasisPoints(config.market.fee_basis_points),
        ..DisputeSettings::default()
    }
}

fn access_settings(config: &Config) -> AccessSettings {
    AccessSettings {
        replay: config.access.reveal_window.0,
        overlap: config.access.rotation_overlap.0,
        ..AccessSettings::default()
    }
}

/// Providers and consumers may choose each domain that this daemon settles.
fn market_settings(domains: &SettlementDomains) -> MarketSettings {
    let owned = |domain: &&DomainId| domains.get(domain).is_ok_and(|client| client.treasury().is_some());
    MarketSettings {
        domains: domains.domains().cloned().collect(),
        owned_domains: domains.domains().filter(owned).cloned().collect(),
        ..MarketSettings::default()
    }
}
