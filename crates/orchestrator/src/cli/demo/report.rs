//! What the demo ends with.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::cli::{Failure, Outcome, api::text, output};

/// What the contract's tests measure.
const GAS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/ethereum/gas.json"));

/// The report; `--json` prints it as it is.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Allocations that went the whole way.
    pub allocations: u64,
    /// Bytes that went to the S3 endpoints.
    pub bytes_stored: u64,
    /// Bytes that came back with equal hashes.
    pub bytes_verified: u64,
    /// Verdicts by status.
    pub verdicts: VerdictCounts,
    /// Credits in base units.
    pub credits_total: String,
    /// Sum over all accounts; anything but zero is a fault.
    pub ledger_sum: String,
    /// Blocks that are final.
    pub blocks_final: u64,
    /// Blocks that were rebuilt from what was published, with equal roots.
    pub blocks_verified: u64,
    /// Verdicts that were judged again from the evidence.
    pub verdicts_verified: u64,
    /// Credits that were held against their verdicts.
    pub credits_verified: u64,
    /// Whether the inclusion proof of a consumer's account verified.
    pub proof_verified: bool,
    /// How long it all took, in seconds.
    pub seconds: u64,
    /// Offerings as they rank at the end, after what was measured.
    pub offerings: Vec<OfferingLine>,
    /// The allocations, one by one.
    pub allocation_list: Vec<AllocationLine>,
    /// Balances before buying and at the end.
    pub balances: Vec<BalanceLine>,
    /// The newest block.
    pub last_block: Value,
    /// What the chain did, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
}

/// What the chain did.
#[derive(Debug, Serialize)]
pub struct Settled {
    /// Accounts that were paid out.
    pub accounts_paid: u64,
    /// Tokens that they got, in base units.
    pub paid: String,
    /// Records in all blocks.
    pub records: u64,
    /// Gas of the operator's transactions for blocks: bond, blobs, registrations, finality.
    pub operator_gas: u64,
    /// Transactions that paid them.
    pub payouts: u64,
    /// Gas of these.
    pub payout_gas: u64,
}

/// Verdicts by status.
#[derive(Debug, Default, Serialize)]
pub struct VerdictCounts {
    /// Promise kept.
    pub met: u64,
    /// Promise broken.
    pub breached: u64,
    /// Too little evidence.
    pub unknown: u64,
}

/// An offering with its rank and the reason for it.
#[derive(Debug, Clone, Serialize)]
pub struct OfferingLine {
    rank: u64,
    provider: String,
    score_ppm: u64,
    reason: String,
}

impl OfferingLine {
    /// From the API's view; `units` names the providers.
    pub fn of(view: &Value, units: &BTreeMap<String, String>) -> Self {
        Self {
            rank: view["rank"].as_u64().unwrap_or_default(),
            provider: units.get(&text(view, "unit")).cloned().unwrap_or_default(),
            score_ppm: view["score"]["score_ppm"].as_u64().unwrap_or_default(),
            reason: text(&view["score"], "explanation"),
        }
    }
}

/// An allocation at its end.
#[derive(Debug, Serialize)]
pub struct AllocationLine {
    consumer: &'static str,
    provider: String,
    state: String,
    periods: u64,
    paid: String,
    /// Credited back, in base units.
    pub credited: String,
}

impl AllocationLine {
    /// From the API's view.
    pub fn of(consumer: &'static str, provider: String, view: &Value) -> Self {
        Self {
            consumer,
            provider,
            state: text(view, "state"),
            periods: view["periods_settled"].as_u64().unwrap_or_default(),
            paid: text(view, "paid"),
            credited: text(view, "credited"),
        }
    }
}

/// A balance before and after.
#[derive(Debug, Serialize)]
pub struct BalanceLine {
    /// Whose.
    pub account: String,
    /// Before buying, in base units.
    pub before: String,
    /// At the end, in base units.
    pub after: String,
}

impl Report {
    /// Prints it for people.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self) -> Outcome {
        output::line("\nOfferings")?;
        let rows = self
            .offerings
            .iter()
            .map(|o| vec![o.rank.to_string(), o.provider.clone(), o.score_ppm.to_string(), o.reason.clone()]);
        output::table(&["rank", "provider", "score (ppm)", "why"], rows.collect(), "none")?;
        output::line("\nAllocations")?;
        let rows = self.allocation_list.iter().map(|a| {
            vec![
                a.consumer.into(),
                a.provider.clone(),
                a.state.clone(),
                a.periods.to_string(),
                a.paid.clone(),
                a.credited.clone(),
            ]
        });
        output::table(
            &["consumer", "provider", "state", "periods", "paid", "credited"],
            rows.collect(),
            "none",
        )?;
        output::line("\nBalances, in base units")?;
        let rows = self.balances.iter().map(|b| vec![b.account.clone(), b.before.clone(), b.after.clone()]);
        output::table(&["account", "before", "after"], rows.collect(), "none")?;
        output::line(&format!(
            "\nstored {} bytes, read back {} with equal hashes\nverdicts: {} met, {} breached, {} unknown; credits {}\n\
             sum over all accounts: {}\nblocks: {} final, the newest is {} with state root {}\n\
             inclusion proof verified: {}\ndone in {} s",
            self.bytes_stored,
            self.bytes_verified,
            self.verdicts.met,
            self.verdicts.breached,
            self.verdicts.unknown,
            self.credits_total,
            self.ledger_sum,
            self.blocks_final,
            text(&self.last_block, "number"),
            text(&self.last_block, "state_root"),
            self.proof_verified,
            self.seconds,
        ))?;
        let Some(settled) = &self.settled else { return Ok(()) };
        let gas: Value = serde_json::from_str(GAS).unwrap_or_default();
        output::line(&format!(
            "on the chain: {} records settled for {} gas by the operator, {} a record in blocks so small ({} a deal in blocks of 10,000, \
             as the contract's tests measure); {} accounts got {} base units by {} transactions for {} gas",
            settled.records,
            settled.operator_gas,
            settled.operator_gas / settled.records.max(1),
            gas["perDealBatched"],
            settled.accounts_paid,
            settled.paid,
            settled.payouts,
            settled.payout_gas,
        ))
    }

    /// Whether everything is as it must be.
    ///
    /// # Errors
    /// [`Failure::Difference`] that names what is not.
    pub fn judge(&self) -> Outcome {
        let faults = [
            (self.ledger_sum != "0", "the accounts do not sum to zero"),
            (!self.proof_verified, "the inclusion proof does not verify"),
            (self.bytes_stored != self.bytes_verified, "not every byte came back"),
            (self.blocks_final == 0, "no block is final"),
        ];
        match faults.iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err(Failure::Difference((*what).to_owned())),
            None => Ok(()),
        }
    }
}
