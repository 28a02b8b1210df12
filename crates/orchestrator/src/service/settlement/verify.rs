//! The audit that trusts nobody: rebuilds a ledger from the settlement layer and the data-availability layer alone, and
//! compares every commitment on the way.

use serde::{Deserialize, Serialize};

use crate::{
    core::{
        madara::{
            da::DaClient,
            evidence::EvidenceSource,
            settlement::{Deposit, SettlementClient},
        },
        market::{
            block::{BlockHeader, Hash32},
            money::Amount,
            state::{LedgerState, Record, account_key_hash, decode_records, header::header_hash},
            terms::DomainId,
        },
    },
    error::Result,
    service::{
        block::prove::reexecute,
        settlement::credits::{CreditReport, Credits},
    },
};

/// An account as the rebuilt ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedAccount {
    /// Its index.
    pub index: u32,
    /// Hash of its domain and name, in hex: names are not published.
    pub key_hash: String,
    /// Money that can be moved.
    pub balance: Amount,
    /// Money ever released for withdrawal.
    pub withdrawable: Amount,
}

/// What the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The domain.
    pub domain: DomainId,
    /// Settled blocks that were executed again and agreed.
    pub blocks: u64,
    /// Whether the last of them is final.
    pub is_final: bool,
    /// Event records executed.
    pub records: u64,
    /// The state root that they lead to.
    pub state_root: Hash32,
    /// What deposits ever credited.
    pub total: Amount,
    /// Deposits consumed.
    pub deposits: u64,
    /// Every account.
    pub accounts: Vec<VerifiedAccount>,
    /// What does not agree; the audit stops at the first.
    pub problems: Vec<String>,
    /// What the credits came to; `None` when they were not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<CreditReport>,
}

impl VerifyReport {
    /// Whether everything agreed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.all_problems().next().is_none()
    }

    /// What does not agree, of the ledger and of the credits.
    pub fn all_problems(&self) -> impl Iterator<Item = &str> {
        let of_credits = self.credits.iter().flat_map(|credits| &credits.problems);
        self.problems.iter().chain(of_credits).map(String::as_str)
    }
}

/// Rebuilds the ledger of a domain and compares every root, the chain of headers, and each deposit with what the
/// settlement layer holds.
///
/// # Errors
/// When a layer can't be reached; what it holds being wrong is a problem in the report, not an error.
pub async fn verify_ledger(settlement: &dyn SettlementClient, da: &dyn DaClient) -> Result<VerifyReport> {
    verify_with_evidence(settlement, da, None).await
}

/// The same, and checks every credit from the evidence when there is a source of it. The credits of a ledger that is wrong
/// are not looked at.
///
/// # Errors
/// When a layer, or the source of the evidence, can't be reached.
pub async fn verify_with_evidence(
    settlement: &dyn SettlementClient,
    da: &dyn DaClient,
    evidence: Option<&dyn EvidenceSource>,
) -> Result<VerifyReport> {
    let domain = settlement.domain().clone();
    let last = settlement.last_settled().await?;
    let mut state = LedgerState::new(domain.clone());
    let credits = evidence.map(|_| Credits::default());
    let mut audit = Audit { parent: Hash32::default(), blocks: 0, records: 0, credits };
    let mut problems = Vec::new();
    for number in 1..=last.number {
        let outcome = match settlement.block(number).await? {
            None => Err("the settlement layer does not have it".to_owned()),
            Some((header, reference)) => match da.fetch(&reference).await {
                Ok(data) => audit.block(settlement, &mut state, number, &header, &data).await?,
                Err(error) if error.retryable() => return Err(error.into()),
                Err(error) => Err(error.to_string()),
            },
        };
        if let Err(problem) = outcome {
            problems.push(format!("block {number}: {problem}"));
            break;
        }
    }
    if problems.is_empty() && audit.parent != last.hash {
        problems.push("the last header is not the one that the settlement layer holds".to_owned());
    }
    let state_root = state.root();
    if problems.is_empty() && state_root != last.state_root {
        problems.push("the state root is not the one that the settlement layer holds".to_owned());
    }
    let credits = match (audit.credits, evidence) {
        (Some(credits), Some(source)) if problems.is_empty() => Some(credits.check(&domain, source).await?),
        _ => None,
    };
    Ok(VerifyReport {
        domain,
        blocks: audit.blocks,
        is_final: last.is_final,
        records: audit.records,
        state_root,
        total: state.total(),
        deposits: state.last_deposit(),
        accounts: accounts(&state),
        problems,
        credits,
    })
}

fn accounts(state: &LedgerState) -> Vec<VerifiedAccount> {
    let leaves = state.accounts().iter().zip(0_u32..);
    leaves
        .map(|(leaf, index)| VerifiedAccount {
            index,
            key_hash: hex::encode(leaf.key),
            balance: Amount(leaf.balance),
            withdrawable: Amount(leaf.withdrawable),
        })
        .collect()
}

struct Audit {
    parent: Hash32,
    blocks: u64,
    records: u64,
    /// Takes the blocks down, when the credits are to be checked.
    credits: Option<Credits>,
}

impl Audit {
    /// Checks one block; the inner error says what is wrong with it.
    async fn block(
        &mut self,
        settlement: &dyn SettlementClient,
        state: &mut LedgerState,
        number: u64,
        header: &BlockHeader,
        data: &[u8],
    ) -> Result<Result<(), String>> {
        if header.number != number || header.parent != self.parent || header.domain != *state.domain() {
            return Ok(Err("the header does not follow the one before".to_owned()));
        }
        let records = match decode_records(number, data) {
            Ok(records) => records,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let before = state.last_deposit();
        if let Err(error) = reexecute(state, header, &records) {
            return Ok(Err(crate::error::chain(&error)));
        }
        state.settle();
        let wanted = usize::try_from(state.last_deposit() - before).unwrap_or(usize::MAX);
        let deposits = settlement.deposits(before, wanted).await?;
        if !deposits_agree(state, &records, &deposits) {
            return Ok(Err("its deposits are not those of the settlement layer".to_owned()));
        }
        if let Some(credits) = &mut self.credits {
            credits.block(number, header.format(), &records);
        }
        self.parent = header_hash(header);
        self.blocks += 1;
        self.records += records.len() as u64;
        Ok(Ok(()))
    }
}

/// Whether the deposits that a block credits are those that the layer took, each to its account.
fn deposits_agree(state: &LedgerState, records: &[Record], deposits: &[Deposit]) -> bool {
    let credited: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Deposit { index, to, amount } => {
                Some((*index, state.account(*to).map(|leaf| leaf.key), *amount))
            }
            _ => None,
        })
        .collect();
    let taken: Vec<_> = deposits
        .iter()
        .map(|deposit| {
            let key = account_key_hash(state.domain(), deposit.owner.as_ref(), &deposit.account);
            (deposit.index, Some(key), deposit.amount.0)
        })
        .collect();
    credited == taken
}
