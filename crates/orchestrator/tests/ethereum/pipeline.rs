//! The whole way of money, deposits, blocks and payouts, with a daemon that dies at every boundary on it, and two daemons with one
//! signer: each ends with every block settled once and exact balances.

use std::{collections::BTreeSet, sync::Arc};

use orchestrator::{
    core::{
        madara::{settlement::SettlementClient as _, transaction::TransactionState},
        market::quantity::Micros,
    },
    service::job::{EngineStep, Step},
};
use serde_json::json;

use super::{
    anvil::Anvil,
    market::{Daemon, End, FUNDS, Market, OWNERS},
};
use crate::promises::{
    steps::process::{Place, Process, Watch},
    world::Mortal,
};

/// What the consumers release.
const RELEASED: [u128; 2] = [250, 100];

/// How processes die.
#[derive(Clone)]
enum Fate {
    /// One after the other, each at the next of these boundaries of jobs.
    At(Vec<Place>),
    /// Each with its n-th write, which takes effect or not.
    Writes { lives: Vec<i64>, applies_the_last: bool },
}

/// A story told by processes that are replaced when they die.
struct Life {
    market: Market,
    watch: Arc<Watch>,
    fate: Fate,
    deaths: usize,
    daemon: Daemon,
    process: Arc<Process>,
}

async fn process(market: &Market, watch: &Arc<Watch>, fate: &Fate, deaths: usize) -> (Daemon, Arc<Process>) {
    let database = market.world.database.clone();
    let writes = match fate {
        Fate::Writes { lives, applies_the_last } => {
            Mortal::new(database, lives.get(deaths).copied().unwrap_or(i64::MAX), *applies_the_last)
        }
        Fate::At(_) => Mortal::new(database, i64::MAX, false),
    };
    let process = Process::new(Arc::clone(watch), Arc::clone(&writes));
    (market.daemon_with(writes, Some(process.clone())).await, process)
}

impl Life {
    async fn begin(anvil: &Arc<Anvil>, fate: Fate) -> Self {
        let market = Market::on(anvil, &OWNERS).await;
        let watch = Watch::killing_at(match &fate {
            Fate::At(places) => places.clone(),
            Fate::Writes { .. } => Vec::new(),
        });
        let (daemon, process) = process(&market, &watch, &fate, 0).await;
        Self { market, watch, fate, deaths: 0, daemon, process }
    }

    async fn turn(&mut self) {
        tokio::select! {
            // What comes to the boundary stays there for ever.
            () = self.process.died.cancelled() => {}
            () = self.daemon.turn() => {}
        }
        if self.daemon.is_dead() {
            self.deaths += 1;
            (self.daemon, self.process) = process(&self.market, &self.watch, &self.fate, self.deaths).await;
            // The leases of the old one run out.
            self.market.world.clock.advance(Micros::from_secs(120));
        }
        self.market.pass().await;
    }

    /// Tells it to its end.
    async fn tell(&mut self) -> End {
        let mut asked = [false; 2];
        for _ in 0..600 {
            self.turn().await;
            for (n, asked) in asked.iter_mut().enumerate() {
                // Until the deposit is booked there is too little; a dead process does not answer.
                *asked = *asked || self.market.withdraw(&self.daemon, n, RELEASED[n]).await.is_ok();
            }
            if asked == [true; 2] && !self.daemon.is_dead() && self.market.is_over().await {
                return self.market.end(&self.daemon, &OWNERS).await;
            }
        }
        panic!("it never ends: {:?}", self.market.transactions().await);
    }
}

fn right_end() -> End {
    End {
        tokens: RELEASED.to_vec(),
        held: 2 * FUNDS - RELEASED[0] - RELEASED[1],
        payouts: RELEASED.map(|amount| (amount, "paid".to_owned())).to_vec(),
        accounts: RELEASED.map(|amount| (FUNDS - amount, amount)).to_vec(),
    }
}

/// In the order in which they are first come by, without those that not every run comes by.
fn distinct(seen: Vec<Place>) -> Vec<Place> {
    let mut known = BTreeSet::new();
    let always = |place: &Place| {
        !matches!(place.step, Step::Engine(EngineStep::Renewed | EngineStep::Retried | EngineStep::Polled))
    };
    seen.into_iter().filter(|place| always(place) && known.insert(*place)).collect()
}

#[tokio::test]
async fn a_daemon_that_dies_at_each_boundary_of_the_pipeline_pays_everybody_once() {
    let Some(anvil) = Anvil::start(&[]).await.map(Arc::new) else { return };
    let mut plain = Life::begin(&anvil, Fate::At(Vec::new())).await;
    assert_eq!(plain.tell().await, right_end());
    assert_eq!((plain.deaths, plain.market.called("withdrawMany").await), (0, 1), "one payout for both");
    let mut places = distinct(plain.watch.seen());
    assert!(places.len() > 40, "{places:?}");
    // A job that dies again and again is given up, so each story has a few deaths of each kind only.
    let mut stories = places.len().div_ceil(12);
    while !places.is_empty() {
        let mut left = Vec::new();
        for n in 0..stories.min(places.len()) {
            let deaths: Vec<Place> = places.iter().skip(n).step_by(stories).copied().collect();
            let mut life = Life::begin(&anvil, Fate::At(deaths.clone())).await;
            assert_eq!(life.tell().await, right_end());
            assert_eq!(life.deaths, deaths.len() - life.watch.left());
            // A death may change the way, so that the next boundary is not come by any more.
            left.extend_from_slice(&deaths[life.deaths..]);
        }
        assert!(left.len() < places.len(), "nobody comes by {left:?}");
        (places, stories) = (left, usize::MAX);
    }
}

#[tokio::test]
async fn a_daemon_that_dies_with_its_writes_pays_everybody_once() {
    let Some(anvil) = Anvil::start(&[]).await.map(Arc::new) else { return };
    for applies_the_last in [false, true] {
        // Deposits, releases, payouts and the journal of the chain are not jobs: their boundaries are their writes.
        let lives: Vec<i64> = (0..40).map(|n| 3 + (n * 5 + i64::from(applies_the_last)) % 7).collect();
        let mut life = Life::begin(&anvil, Fate::Writes { lives, applies_the_last }).await;
        assert_eq!(life.tell().await, right_end());
        assert!(life.deaths >= 10, "{}", life.deaths);
    }
}

#[tokio::test]
async fn two_daemons_with_one_signer_settle_each_block_once_in_dear_times_and_a_minute_without_a_node() {
    let Some(market) = Market::start(&OWNERS).await else { return };
    let daemons = [market.daemon().await, market.daemon().await];
    let mut asked = [false; 2];
    for round in 0..200 {
        if round == 2 {
            // A hundred times what it was.
            market.world.anvil.base_fee(100_000_000_000).await;
        }
        if round == 4 {
            // Longer than the daemons wait for an answer.
            market.world.anvil.freeze();
            let away = async {
                tokio::time::sleep(std::time::Duration::from_secs(60)).await;
                market.world.anvil.thaw();
            };
            tokio::join!(daemons[0].turn(), daemons[1].turn(), away);
        }
        tokio::join!(daemons[0].turn(), daemons[1].turn());
        market.pass().await;
        for (n, asked) in asked.iter_mut().enumerate() {
            *asked = *asked || market.withdraw(&daemons[n], n, RELEASED[n]).await.is_ok();
        }
        if asked == [true; 2] && market.is_over().await {
            assert_eq!(market.end(&daemons[0], &OWNERS).await, right_end());
            return;
        }
    }
    panic!("it never ends: {:?}", market.transactions().await);
}

#[tokio::test]
async fn a_reorganisation_of_64_blocks_takes_a_block_with_it_which_is_settled_again() {
    let Some(mut market) = Market::start(&OWNERS).await else { return };
    market.world.depth = 64;
    let daemon = market.daemon().await;
    // Its data is there for good before a block is registered, so what may go is the registration.
    let registered = async || {
        let all = market.transactions().await;
        all.into_iter().filter(|it| it.method == "register").find_map(|it| match it.state {
            TransactionState::Included { block, reverted: None, .. } => Some(block),
            _ => None,
        })
    };
    let mut block = None;
    for _ in 0..60 {
        daemon.turn().await;
        block = registered().await;
        if block.is_some() {
            break;
        }
        market.pass().await;
    }
    let block = block.unwrap();
    let head = market.world.anvil.number("eth_blockNumber", json!([])).await;
    assert!(head - block < 63, "it would be there for good");
    market.world.anvil.mine(63 - (head - block)).await;
    market.world.anvil.ask("anvil_reorg", json!([64, []])).await;
    assert_eq!(daemon.settlement.last_settled().await.unwrap().number, 0);

    let mut asked = [false; 2];
    for _ in 0..200 {
        daemon.turn().await;
        market.pass().await;
        for (n, asked) in asked.iter_mut().enumerate() {
            *asked = *asked || market.withdraw(&daemon, n, RELEASED[n]).await.is_ok();
        }
        if asked == [true; 2] && market.is_over().await {
            assert_eq!(market.end(&daemon, &OWNERS).await, right_end());
            return;
        }
    }
    panic!("it never ends: {:?}", market.transactions().await);
}
