//! Who only looks at a chain, with no database and no key of the daemon: rebuilds the ledger from the contract's events and the blobs
//! alone, and finds what a challenge would show.

use std::{path::Path, sync::Arc};

use serde::Serialize;

use super::{clients::unready, host::evidence_source};
use crate::{
    client::{
        clock::SystemClock,
        da::ethereum::{Beacon, BlockIds, DaSettings, EthereumDa},
        settlement::ethereum::{
            EthereumSettlement,
            blocks::Place,
            deposits::LogSettings,
            fees::Caps,
            key::open_keystore,
            node::{Finality, Node},
            oracles::Oracles,
            sender::{Sender, SenderRules, Status},
            signer::{Policy, PolicySigner},
            watch::{self, Look},
        },
    },
    config::section::Ethereum,
    core::{
        client::clock::Clock,
        madara::{attestation::EvidenceOracles as _, evidence::EvidenceSource},
        market::{quantity::Micros, terms::DomainId},
    },
    error::{Error, Result},
    service::settlement::{VerifyReport, verify_with_evidence},
};

/// Which contract on which chain.
#[derive(Debug, Clone)]
pub struct ChainPlace {
    /// JSON-RPC address of a node.
    pub rpc_url: String,
    /// Address of a beacon node's API; that of the node when it is left out, as test chains have it.
    pub beacon_url: Option<String>,
    /// The contract.
    pub contract: String,
    /// The settlement domain's name.
    pub domain: String,
    /// The block in which the contract was made.
    pub from_block: u64,
    /// Blocks in one question for events, at most.
    pub log_range: u64,
    /// When the beacon chain's slot 0 was; 0 asks for blobs by the numbers of blocks.
    pub genesis_time: u64,
    /// Seconds in a slot.
    pub slot_seconds: u64,
}

impl ChainPlace {
    /// The contract that a daemon is configured for.
    #[must_use]
    pub fn of(config: &Ethereum) -> Self {
        Self {
            rpc_url: config.rpc_url.clone(),
            beacon_url: Some(config.beacon_url.clone()),
            contract: config.contract.clone(),
            domain: config.domain.clone(),
            from_block: config.from_block,
            log_range: config.log_range,
            genesis_time: config.genesis_time,
            slot_seconds: config.slot_seconds,
        }
    }
}

/// A ledger rebuilt from a chain.
#[derive(Debug, Clone, Serialize)]
pub struct ChainReport {
    /// What the rebuild came to.
    #[serde(flatten)]
    pub ledger: VerifyReport,
    /// Oracles' signatures that were checked against the evidence roots.
    pub signatures: u64,
    /// Blocks whose registration did not come by a plain call, so that their signatures are known to the contract only.
    pub signatures_unseen: u64,
    /// Whether the credits were checked from the evidence; what they came to is `credits`.
    pub credits_checked: bool,
}

/// What `challenge` found and did.
#[derive(Debug, Clone, Serialize)]
pub struct ChallengeReport {
    /// Blocks that are right.
    pub right: u64,
    /// The wrong block's number.
    pub wrong: Option<u64>,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// The call that shows it, in hex.
    pub call: Option<String>,
    /// How far the challenge is, when it was sent.
    pub sent: Option<String>,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    unready("chain", error)
}

struct Onlooker {
    node: Node,
    place: Place,
    settlement: EthereumSettlement,
    da: EthereumDa,
}

impl Onlooker {
    async fn open(place: &ChainPlace) -> Result<Self> {
        let timeout = Micros::from_secs(30);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let node = Node::new(&place.rpc_url, timeout).map_err(failed)?;
        let contract = place.contract.parse().map_err(|error| {
            Error::field("contract", "must be an address: `0x` and 40 hex digits").because(error)
        })?;
        let sender =
            Sender::watching(node.clone(), contract, Finality::Depth(0), clock).await.map_err(failed)?;
        let sender = Arc::new(sender);
        let domain = DomainId(place.domain.clone());
        let (from_block, log_range) = (place.from_block, place.log_range);
        let logs = LogSettings { from_block, log_range, confirmations: 0 };
        // Whose the fees are plays no part in a rebuild: accounts are known by their hashes.
        let nobody = crate::core::market::address::Address([0; 20]);
        let parties = (nobody, Oracles::new(sender.chain(), contract, None));
        let settlement = EthereumSettlement::connect(domain.clone(), Arc::clone(&sender), logs, parties)
            .await
            .map_err(failed)?;
        let ids = match place.genesis_time {
            0 => BlockIds::Numbers,
            genesis => BlockIds::Slots { genesis, seconds: place.slot_seconds.max(1) },
        };
        let beacon = place.beacon_url.as_ref().unwrap_or(&place.rpc_url);
        let beacon = Beacon::new(beacon, ids, timeout).map_err(failed)?;
        let settings = DaSettings { from_block, log_range, poll: Micros::from_secs(1) };
        let da = EthereumDa::new(domain.clone(), sender, beacon, settings);
        let place = Place { domain, contract, from_block, log_range };
        Ok(Self { node, place, settlement, da })
    }

    /// Holds every signature against the contract's oracles; what does not agree is a problem of the report.
    async fn signatures(&self, report: &mut ChainReport) -> Result<()> {
        let oracles = Oracles::new(self.node.chain_id().await.map_err(failed)?, self.place.contract, None);
        oracles.refresh(&self.node).await.map_err(failed)?;
        for (number, block) in self.place.blocks(&self.node).await.map_err(failed)? {
            let Some(signatures) = self.place.signatures(&self.node, &block).await.map_err(failed)? else {
                report.signatures_unseen += 1;
                continue;
            };
            let wrong = signatures.iter().filter_map(|it| oracles.signer(&block.header, it).err()).next();
            if let Some(error) = wrong {
                report.ledger.problems.push(format!("block {number}: an oracle's signature: {error}"));
            } else if signatures.len() < oracles.threshold() {
                report.ledger.problems.push(format!("block {number}: too few oracles have signed"));
            }
            report.signatures += signatures.len() as u64;
        }
        Ok(())
    }
}

/// Rebuilds the ledger of a contract from its events and the blobs, and compares every root and signature; with the address
/// of a source of `evidence`, every credit, too.
///
/// # Errors
/// When node, beacon node or source do not answer; what they hold being wrong is a problem in the report.
pub async fn verify_chain(place: &ChainPlace, evidence: Option<&str>) -> Result<ChainReport> {
    let source = evidence_source(evidence)?;
    let source = source.as_ref().map(|it| it as &dyn EvidenceSource);
    let onlooker = Onlooker::open(place).await?;
    let ledger = verify_with_evidence(&onlooker.settlement, &onlooker.da, source).await?;
    let credits_checked = ledger.credits.is_some();
    let mut report = ChainReport { ledger, signatures: 0, signatures_unseen: 0, credits_checked };
    onlooker.signatures(&mut report).await?;
    Ok(report)
}

/// The challenger's key.
pub struct ChallengerKey<'a> {
    /// An encrypted JSON key file.
    pub keystore: &'a Path,
    /// The file with its password.
    pub password_file: &'a Path,
}

/// Executes every block that stands, and shows the contract what is wrong with the first wrong one, if a key is given.
///
/// # Errors
/// When node or beacon node do not answer, or the challenge is not taken.
pub async fn challenge(place: &ChainPlace, key: Option<ChallengerKey<'_>>) -> Result<ChallengeReport> {
    let onlooker = Onlooker::open(place).await?;
    let Look { right, finding } =
        watch::look(&onlooker.place, &onlooker.node, &onlooker.da).await.map_err(failed)?;
    let Some(found) = finding else {
        return Ok(ChallengeReport { right, wrong: None, problem: None, call: None, sent: None });
    };
    let mut report = ChallengeReport {
        right,
        wrong: Some(found.block.header.number),
        problem: Some(found.fraud.to_string()),
        call: Some(format!("0x{}", hex::encode(&found.call))),
        sent: None,
    };
    let Some(ChallengerKey { keystore, password_file }) = key else { return Ok(report) };
    const GWEI: u128 = 1_000_000_000;
    let policy = Policy {
        chain: onlooker.node.chain_id().await.map_err(failed)?,
        contract: onlooker.place.contract,
        methods: &["challengeStep", "challengeData", "challengeHead"],
        gas: 16_777_216,
        caps: Caps { gas: 5_000 * GWEI, blob: 0 },
    };
    let signer = PolicySigner::new(open_keystore(keystore, password_file).await.map_err(failed)?, policy);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let rules = SenderRules { finality: Finality::Depth(0), bump_after: Micros::from_secs(15) };
    let journal = crate::client::db::memory::MemoryDatabase::with_schema();
    let ports = (journal.clone() as _, journal as _);
    let sender = Sender::connect(onlooker.node.clone(), signer, ports, clock, rules).await.map_err(failed)?;
    let id = format!("challenge/{}", found.block.hash);
    let mut status = sender.send(&id, found.call, None).await.map_err(failed)?;
    while matches!(status, Status::Pending | Status::Needs) {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        status = sender.status(&id).await.map_err(failed)?;
    }
    report.sent = Some(match status {
        Status::Included(block) | Status::Final(block) => {
            format!("the block fell in block {block} of the chain")
        }
        other => format!("{other:?}"),
    });
    Ok(report)
}
