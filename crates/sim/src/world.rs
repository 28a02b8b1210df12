//! What outlives every process: stores, providers, the settlement layer, and the market that is founded in them.

use std::{collections::BTreeMap, sync::Arc};

use orchestrator::service::job::Trigger;
use orchestrator::{
    client::{
        da::LocalDa,
        notification::MemoryNotifier,
        settlement::{LocalRules, LocalSettlement},
        storage::MemoryStorage,
        vault::AesVault,
    },
    config::{Config, HumanDuration},
    core::{
        client::{clock::Clock, notification::NotificationClient, vault::Vault},
        madara::settlement::SettlementClient,
        market::{
            account::AccountKey,
            ids::{ConsumerId, IdGenerator, ProviderId, UnitId},
            money::Amount,
            party::Principal,
            quantity::{Bytes, Micros, Ppm},
            terms::{DomainId, PriceBounds, PriceTerms, SlaTerms},
            unit::Features,
        },
    },
    error::Result,
    service::{
        ledger::{AccountService, DepositWatcher},
        market::{MarketService, MarketSettings, NewAdapter, NewConsumer, NewProvider, NewUnit},
        outbox::ALERT_TOPIC,
        settlement::SettlementDomains,
        sla::{SlaService, SlaSettings},
        work::{Call, RequestKey, Work},
    },
};
use zeroize::Zeroizing;

use crate::{
    chance::{Dice, Seeded},
    faults::{Faults, Profile, Weather},
    journal::Journal,
    lane::Fuse,
    port::{
        broker::SimBroker,
        database::{SharedStore, SimDatabase},
        provider::{Providers, SimProvider},
        settlement::Effects,
    },
    run::{Plan, WORLD},
    time::{LaneClock, LaneId, START, Time},
};

/// What each consumer begins with.
pub const FUNDS: u128 = 4_000_000;
/// What each provider pays in; half of it becomes collateral.
pub const STAKE: u128 = 2_000_000;

/// The world of one run.
#[derive(Clone)]
pub struct World {
    /// What was asked for.
    pub plan: Arc<Plan>,
    /// Time.
    pub time: Time,
    /// What happened.
    pub journal: Arc<Journal>,
    /// What goes wrong.
    pub weather: Arc<Weather>,
    /// The database.
    pub store: Arc<SharedStore>,
    /// Blocks and evidence.
    pub storage: Arc<MemoryStorage>,
    /// The settlement layer.
    pub settlement: LocalSettlement,
    /// What took effect there.
    pub settled: Effects,
    /// The data-availability layer.
    pub da: LocalDa,
    /// Alerts.
    pub alerts: Arc<MemoryNotifier>,
    /// The message service of runs with hints.
    pub broker: SimBroker,
    /// The providers.
    pub providers: Providers,
    /// The configuration of every replica.
    pub config: Arc<Config>,
    /// Whether workers learn of jobs by hints.
    pub hinted: bool,
    /// Whether breakers stand before what lies outside.
    pub guarded: bool,
}

/// Who is in the market.
#[derive(Debug, Clone, Default)]
pub struct Cast {
    /// Consumers.
    pub consumers: Vec<ConsumerId>,
    /// Providers with their units.
    pub providers: Vec<(ProviderId, Vec<UnitId>)>,
}

/// Periods and rates short enough for a whole market life in an hour.
fn config() -> Config {
    let mut config = Config::default();
    let secs = HumanDuration::secs;
    config.market.reservation_ttl = secs(150);
    config.market.closing_grace = secs(60);
    config.market.dispute_deadline = secs(300);
    config.market.max_teardowns_per_hour = 1_000;
    config.sla.bucket = secs(60);
    config.sla.billing_period = secs(240);
    config.sla.settle_delay = secs(60);
    config.prober.interval = secs(60);
    config.access.rotation_overlap = secs(300);
    config.settlement.finality = secs(5);
    config.dependencies.canary_interval = secs(20);
    let triggers = &mut config.triggers;
    triggers.expire_reservations = secs(60);
    triggers.end_periods = secs(60);
    triggers.close_sla_windows = secs(60);
    triggers.seal_blocks = secs(90);
    triggers.watch_deposits = secs(90);
    triggers.expire_disputes = secs(120);
    triggers.reconcile = secs(200);
    triggers.unit_maintenance = secs(120);
    triggers.expire_credentials = secs(120);
    triggers.reprice = secs(600);
    triggers.daily_reputation = secs(1_800);
    triggers.purge_records = secs(3_600);
    config
}

impl World {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let time = Time::default();
        let journal = Arc::new(Journal::default());
        let clock: Arc<dyn Clock> = Arc::new(LaneClock::new(time.clone(), WORLD, 0));
        let until = START.plus(plan.length());
        let rules = LocalRules { confirm_after: Micros::ZERO, final_after: Micros::from_secs(5) };
        let store = SharedStore::new(journal.clone(), plan.sabotage, Dice::new(plan.seed, 1));
        let hinted = Dice::new(plan.seed, 2).below(2) == 1;
        let guarded = Dice::new(plan.seed, 9).below(2) == 1;
        Self {
            time: time.clone(),
            weather: Arc::new(Weather::new(plan.faults.clone(), until)),
            store: Arc::new(store),
            storage: Arc::new(MemoryStorage::new(clock.clone())),
            settlement: LocalSettlement::in_memory(DomainId::local(), rules, clock),
            settled: Effects::default(),
            da: LocalDa::in_memory(),
            alerts: Arc::new(MemoryNotifier::new()),
            broker: SimBroker::new(time),
            providers: Providers::default(),
            config: Arc::new(config()),
            hinted,
            guarded,
            plan: Arc::new(plan),
            journal,
        }
    }

    /// The vault, which is the same for all replicas.
    #[must_use]
    pub fn vault(&self, dice: Dice) -> Arc<dyn Vault> {
        Arc::new(AesVault::new(&Zeroizing::new([7; 32]), Arc::new(Seeded::new(dice))))
    }

    /// Faults of a lane.
    #[must_use]
    pub fn faults(&self, lane: (LaneId, Arc<Fuse>), dice: Dice) -> Faults {
        Faults::new(self.weather.clone(), self.time.clone(), lane, dice)
    }

    /// The evidence behind every verdict, as it lies in the stores and past any fault.
    #[must_use]
    pub fn evidence(&self) -> SlaService {
        let clock: Arc<dyn Clock> = Arc::new(LaneClock::new(self.time.clone(), WORLD, 0));
        let ids = IdGenerator::new(clock, Arc::new(Seeded::new(Dice::new(self.plan.seed, 11))));
        let work = Work::new(self.store.memory.clone(), self.store.memory.clone(), ids);
        SlaService::new(work, self.storage.clone(), SlaSettings::default())
    }

    /// Registers parties and units, and pays money in: before any fault.
    ///
    /// # Errors
    /// None that are expected.
    pub async fn found(&self) -> Result<Cast> {
        let mut dice = Dice::new(self.plan.seed, 3);
        let calm = Arc::new(Weather::new(Profile::default(), START));
        let faults =
            Faults::new(calm, self.time.clone(), (WORLD, Fuse::endless()), Dice::new(self.plan.seed, 4));
        let database = Arc::new(SimDatabase::new(self.store.clone(), faults));
        let clock: Arc<dyn Clock> = Arc::new(LaneClock::new(self.time.clone(), WORLD, 0));
        let ids = IdGenerator::new(clock, Arc::new(Seeded::new(Dice::new(self.plan.seed, 5))));
        let work = Work::new(database.clone(), database, ids);
        let domains =
            SettlementDomains::new([Arc::new(self.settlement.clone()) as Arc<dyn SettlementClient>]);
        let vault = self.vault(Dice::new(self.plan.seed, 6));
        let market = MarketService::new(work.clone(), vault, MarketSettings::default());
        let call = Call::system("founding");
        let _ = self.alerts.create_topic(ALERT_TOPIC).await;
        let mut cast = Cast::default();
        for n in 0..2 {
            let new = NewProvider {
                name: format!("p{n}"),
                domain: None,
                owner: None,
                adapter: NewAdapter::CoHosted,
            };
            let id = market.register_provider(&call, new).await?.value.id;
            let (name, polls) = (format!("p{n}"), dice.below(3));
            let capacity = Bytes::GIB * 64;
            let (time, journal) = (self.time.clone(), self.journal.clone());
            let provider = SimProvider::new(name, capacity, polls, time, journal, self.plan.sabotage);
            self.providers.add(id, provider);
            let mut units = Vec::new();
            for unit in 0..=dice.below(2) {
                let new = new_unit(id, &format!("p{n}u{unit}"), &mut dice);
                units.push(market.register_unit(&call, new).await?.value.id);
            }
            self.pay_in(&format!("stake {n}"), AccountKey::Provider(id), STAKE).await?;
            cast.providers.push((id, units));
        }
        for n in 0..self.plan.consumers {
            let new = NewConsumer { name: format!("c{n}"), domain: None, owner: None };
            let id = market.register_consumer(&call, new).await?.value.id;
            self.pay_in(&format!("funds {n}"), AccountKey::Consumer(id), FUNDS).await?;
            cast.consumers.push(id);
        }
        DepositWatcher::new(work.clone(), domains.clone()).fire().await?;
        let accounts = AccountService::new(work, domains);
        for (n, (id, _)) in cast.providers.iter().enumerate() {
            let request = Some(RequestKey { id: format!("collateral {n}"), fingerprint: String::new() });
            let call =
                Call { principal: Principal::Provider(*id), request, trace_id: format!("collateral {n}") };
            accounts.post_collateral(&call, *id, Amount(STAKE / 2)).await?;
        }
        Ok(cast)
    }

    async fn pay_in(&self, key: &str, account: AccountKey, amount: u128) -> Result<()> {
        let paid = self.settlement.deposit(key, account, Amount(amount)).await;
        paid.map(drop).map_err(orchestrator::error::Error::internal)
    }
}

fn new_unit(owner: ProviderId, name: &str, dice: &mut Dice) -> NewUnit {
    // About 277 units of money for a GiB and second.
    let price = Amount(u128::from(dice.between(200_000_000, 1_200_000_000)));
    let bounds = PriceBounds { min: Amount(price.0 / 2), max: Amount(price.0 * 2) };
    NewUnit {
        provider: Some(owner),
        name: name.to_owned(),
        kind: None,
        profile: None,
        region: "sim".into(),
        country: "DE".into(),
        capacity: Bytes(Bytes::GIB * dice.between(2, 4)),
        features: Features::default(),
        tags: BTreeMap::new(),
        price: PriceTerms { per_gib_month: price, per_gib_egress: Amount(u128::from(dice.below(5_000))) },
        price_bounds: (dice.below(2) == 0).then_some(bounds),
        sla: SlaTerms {
            min_coverage: Ppm(400_000),
            collateral_slash: Ppm(if dice.below(2) == 0 { 100_000 } else { 0 }),
            ..SlaTerms::default()
        },
    }
}
