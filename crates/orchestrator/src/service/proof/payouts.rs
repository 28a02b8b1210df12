//! Pays out what accounts have released, on layers where the daemon does it: many by one proof and one transaction. One that can't
//! be paid is found by halving, set aside with its reason, and keeps nobody else waiting.
//!
//! **What is paid once is paid once**, whatever falls over: claims are cumulative, so a batch that is sent twice pays once. Each
//! payout is marked with its transaction before that is sent; a mark whose transaction never was is taken back.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{ClaimReceipt, ProofAt, ProofService};
use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Filter, Query, ReaderExt, Sort, Stored},
            schema,
        },
        madara::{
            payout::{PayoutBatch, PayoutClient, Trial},
            settlement::{SettlementClient, SettlementError, TransactionStatus},
        },
        market::{
            account::{Account, AccountKey},
            event::Audience,
            money::Amount,
            payout::{Payout, PayoutState},
            quantity::Micros,
            state::ShortHash,
            terms::DomainId,
        },
    },
    error::{Error, Result},
    service::{
        job::{Trigger, TriggerReport},
        ledger::{Owners, accounts::owner_of, payout},
        outbox,
        page::{Listing, PageRequest, list},
        settlement::SettlementDomains,
        work::{Call, Work},
    },
};

/// How payouts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayoutSettings {
    /// Accounts in one transaction, at most.
    pub batch: usize,
    /// Payouts looked at in one turn, of each state.
    pub turn: usize,
    /// How long a payout may be marked with a transaction that the layer does not know.
    pub patience: Micros,
    /// Transactions that may leave an account out before it is set aside.
    pub attempts: u32,
    /// What is less than this waits until more is released, because whoever releases does not pay for the transaction.
    pub least: Amount,
}

impl Default for PayoutSettings {
    fn default() -> Self {
        Self { batch: 200, turn: 1_000, patience: Micros::from_secs(60), attempts: 3, least: Amount(1) }
    }
}

type Found = Stored<Payout>;

/// A payout that can be made: a final block has it.
struct Due {
    found: Found,
    /// What that block says was released.
    upto: Amount,
}

/// Claims that work together.
struct Ready {
    dues: Vec<Due>,
    batch: PayoutBatch,
}

/// What came of trying.
#[derive(Default)]
struct Sifted {
    ready: Vec<Ready>,
    failing: Vec<(Found, String)>,
}

/// The service, and the trigger that calls it.
#[derive(Clone)]
pub struct PayoutService {
    work: Work,
    proofs: ProofService,
    domains: SettlementDomains,
    settings: PayoutSettings,
}

impl PayoutService {
    /// A service over these parts.
    #[must_use]
    pub const fn new(
        work: Work,
        proofs: ProofService,
        domains: SettlementDomains,
        settings: PayoutSettings,
    ) -> Self {
        Self { work, proofs, domains, settings }
    }

    /// The payouts of a domain, in some state or any; for operators.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; database errors.
    pub async fn payouts(
        &self,
        call: &Call,
        domain: Option<DomainId>,
        state: Option<&str>,
        page: PageRequest,
    ) -> Result<Listing<Payout>> {
        call.operators_only("list all payouts")?;
        let domain = domain.map_or_else(|| self.domains.first().cloned(), Ok)?;
        let mut filter = Filter::eq("domain", domain.as_str());
        if let Some(state) = state {
            filter = filter.and(Filter::eq("state.kind", state));
        }
        list(self.work.reader.as_ref(), filter, Sort::Id, page).await
    }

    /// The payouts of an account; for its owner and operators.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for accounts of others, and for those that never released anything; database errors.
    pub async fn payout(&self, call: &Call, account: AccountKey) -> Result<Payout> {
        let domain = self.proofs.accounts.visible(call, account).await?;
        let id = Account::id_of(&domain, &account);
        let found = self.work.reader.load::<Payout>(&id).await?;
        Ok(found.ok_or_else(|| Error::not_found("payout of account", account))?.value)
    }

    /// Where the daemon pays out, a claim asks for that, also of what was set aside; elsewhere the layer has paid it. Answers what
    /// is to be written.
    ///
    /// # Errors
    /// Database errors.
    pub async fn ask(&self, receipt: &mut ClaimReceipt, domain: &DomainId) -> Result<Changeset> {
        let mut changes = Changeset::new();
        if self.domains.get(domain)?.payouts().is_none() {
            return Ok(changes);
        }
        let account = receipt.claim.account;
        let stored = self.work.reader.load::<Account>(&Account::id_of(domain, &account)).await?;
        let released = stored.map_or(receipt.claim.cumulative, |stored| stored.value.withdrawable);
        receipt.payout = Some(payout::ask(&self.work, &mut changes, domain, account, released).await?);
        Ok(changes)
    }

    /// One turn for a domain: looks at what was sent, and sends what can be.
    ///
    /// # Errors
    /// Database errors; a settlement layer that does not answer. What was done before stays done.
    pub async fn turn(&self, domain: &DomainId) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let client = self.domains.get(domain)?;
        let Some(layer) = client.payouts() else { return Ok(report) };
        self.look_at_sent(domain, client.as_ref(), layer, &mut report).await?;
        // Owners take by themselves what was set aside.
        let aside = self.of_state(domain, "set_aside").await?;
        self.refresh(domain, layer, aside, &mut report).await?;
        let waiting = self.of_state(domain, "waiting").await?;
        let waiting = self.refresh(domain, layer, waiting, &mut report).await?;
        let (fresh, again): (Vec<Due>, Vec<Due>) =
            self.due(domain, waiting).await?.into_iter().partition(|due| due.found.value.attempts == 0);
        // What a transaction has left out before takes nobody else along.
        let alone = again.into_iter().map(|due| vec![due]);
        for dues in pieces(fresh, self.settings.batch).into_iter().chain(alone) {
            let sifted = self.sift(layer, dues).await?;
            for (found, reason) in sifted.failing {
                report.failed += 1;
                self.set_aside(found, reason).await?;
            }
            for ready in sifted.ready {
                report.changed += self.send(domain, layer, ready).await?;
            }
        }
        Ok(report)
    }

    async fn of_state(&self, domain: &DomainId, state: &str) -> Result<Vec<Found>> {
        let filter = Filter::eq("domain", domain.as_str()).and(Filter::eq("state.kind", state));
        let query = Query::new(schema::PAYOUTS).filter(filter).limit(self.settings.turn);
        Ok(self.work.reader.list::<Payout>(query).await?.0)
    }

    /// How records name the accounts of payouts, in their order.
    async fn names(&self, domain: &DomainId, found: &[Found]) -> Result<Vec<ShortHash>> {
        let accounts: BTreeSet<AccountKey> = found.iter().map(|stored| stored.value.account).collect();
        let owners = Owners::new(self.work.reader.as_ref(), domain, self.domains.treasury(domain)?);
        let names = owners.names(&accounts).await?;
        let name = |stored: &Found| {
            let account = stored.value.account;
            let none = || Error::not_found("owner on the chain of account", account);
            names.get(&account).copied().ok_or_else(none)
        };
        found.iter().map(name).collect()
    }

    /// What the layer has paid of each for good.
    async fn paid(
        &self,
        domain: &DomainId,
        layer: &dyn PayoutClient,
        found: &[Found],
    ) -> Result<Vec<Amount>> {
        let paid = layer.paid(&self.names(domain, found).await?).await?;
        if paid.len() == found.len() { Ok(paid) } else { Err(Error::internal("a payment is missing")) }
    }

    /// Looks at payouts of which nothing is on its way. Answers those that are not paid yet.
    async fn refresh(
        &self,
        domain: &DomainId,
        layer: &dyn PayoutClient,
        found: Vec<Found>,
        report: &mut TriggerReport,
    ) -> Result<Vec<Found>> {
        let paid = self.paid(domain, layer, &found).await?;
        let mut open = Vec::new();
        for (mut stored, paid) in found.into_iter().zip(paid) {
            report.examined += 1;
            if paid > stored.value.paid {
                let state = stored.value.state.clone();
                stored.value.look(paid, state, self.work.now());
                if !self.save(&mut stored).await? {
                    continue;
                }
            }
            if paid < stored.value.released {
                open.push(stored);
            }
        }
        Ok(open)
    }

    /// Those of which the last final block says more than was paid, and enough.
    async fn due(&self, domain: &DomainId, waiting: Vec<Found>) -> Result<Vec<Due>> {
        let Some(block) = self.proofs.last(domain, ProofAt::Final).await? else { return Ok(Vec::new()) };
        let keys = self.names(domain, &waiting).await?;
        let released =
            self.proofs.states.released(&self.proofs.store, domain, block.header.number, &keys).await?;
        let due = |(found, upto): (Found, Option<Amount>)| {
            let upto = upto.filter(|upto| upto.saturating_sub(found.value.paid) >= self.settings.least)?;
            Some(Due { found, upto })
        };
        Ok(waiting.into_iter().zip(released).filter_map(due).collect())
    }

    /// Finds what can be paid together, and what can't be paid at all, by halving what does not work.
    async fn sift(&self, layer: &dyn PayoutClient, dues: Vec<Due>) -> Result<Sifted> {
        let first = self.halve(layer, dues).await?;
        if first.failing.is_empty() || first.ready.len() < 2 {
            return Ok(first);
        }
        // Around what fails everything is in small pieces now: without it, most go together again.
        let dues = first.ready.into_iter().flat_map(|ready| ready.dues).collect();
        let mut second = self.halve(layer, dues).await?;
        second.failing.extend(first.failing);
        Ok(second)
    }

    async fn halve(&self, layer: &dyn PayoutClient, dues: Vec<Due>) -> Result<Sifted> {
        let mut sifted = Sifted::default();
        let mut open = vec![dues];
        while let Some(mut dues) = open.pop() {
            if dues.is_empty() {
                continue;
            }
            let batch = self.batch(&dues).await?;
            let failing = match layer.try_out(&batch).await? {
                Trial::Works => {
                    sifted.ready.push(Ready { dues, batch });
                    continue;
                }
                Trial::TooLarge => "it takes more gas than one transaction may".to_owned(),
                Trial::Fails(reason) => reason,
            };
            let half = dues.split_off(dues.len() / 2);
            if dues.is_empty() {
                sifted.failing.extend(half.into_iter().map(|due| (due.found, failing.clone())));
            } else {
                open.extend([half, dues]);
            }
        }
        Ok(sifted)
    }

    async fn batch(&self, dues: &[Due]) -> Result<PayoutBatch> {
        let accounts: Vec<AccountKey> = dues.iter().map(|due| due.found.value.account).collect();
        let proved = self.proofs.accounts_proof(&Call::system("pay_out"), &accounts, ProofAt::Final).await?;
        Ok(PayoutBatch {
            block: proved.header.number,
            accounts: proved.accounts.iter().map(|named| (named.account, named.owner)).collect(),
            proof: proved.proof,
        })
    }

    /// Marks the payouts of a batch with its transaction, then sends it; answers how many.
    async fn send(&self, domain: &DomainId, layer: &dyn PayoutClient, ready: Ready) -> Result<u64> {
        let Ready { mut dues, batch } = ready;
        let transaction = format!("payout/{domain}/{}/{}", batch.block, digest(&dues));
        let mut changes = Changeset::new();
        for due in &mut dues {
            due.found.value.state = PayoutState::Sent { transaction: transaction.clone(), upto: due.upto };
            due.found.value.changed_at = self.work.now();
            changes.replace(due.found.version, &due.found.value);
        }
        match self.work.committer.commit(changes).await {
            Ok(()) => {}
            // Another replica was faster, or more was released: the next turn sees.
            Err(DatabaseError::Conflict { .. }) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        layer.pay_out(&transaction, &batch).await?;
        tracing::info!(transaction, accounts = dues.len(), "payouts are on their way");
        Ok(dues.len() as u64)
    }

    async fn look_at_sent(
        &self,
        domain: &DomainId,
        client: &dyn SettlementClient,
        layer: &dyn PayoutClient,
        report: &mut TriggerReport,
    ) -> Result<()> {
        let mut by_transaction: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        for stored in self.of_state(domain, "sent").await? {
            if let PayoutState::Sent { transaction, .. } = &stored.value.state {
                by_transaction.entry(transaction.clone()).or_default().push(stored);
            }
        }
        for (transaction, found) in by_transaction {
            report.examined += found.len() as u64;
            let left_out = match client.transaction(&transaction).await {
                Ok(TransactionStatus::Pending | TransactionStatus::Included) => continue,
                Ok(TransactionStatus::Final) => "a transaction left it out: the payment failed".to_owned(),
                Ok(TransactionStatus::Rejected(reason)) => format!("its transaction failed: {reason}"),
                Err(SettlementError::NoTransaction(_)) => {
                    self.take_back(found).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let paid = self.paid(domain, layer, &found).await?;
            for (stored, paid) in found.into_iter().zip(paid) {
                self.outcome(stored, paid, &left_out).await?;
                report.changed += 1;
            }
        }
        Ok(())
    }

    /// The process that marked them was killed before it could send.
    async fn take_back(&self, found: Vec<Found>) -> Result<()> {
        let now = self.work.now();
        for mut stored in found {
            if now.since(stored.value.changed_at) >= self.settings.patience {
                stored.value.state = PayoutState::Waiting;
                stored.value.changed_at = now;
                self.save(&mut stored).await?;
            }
        }
        Ok(())
    }

    /// What came of a payout whose transaction is there for good.
    async fn outcome(&self, mut stored: Found, paid: Amount, left_out: &str) -> Result<()> {
        let PayoutState::Sent { upto, .. } = stored.value.state else { return Ok(()) };
        if paid >= upto {
            stored.value.attempts = 0;
        } else {
            stored.value.attempts = stored.value.attempts.saturating_add(1);
            if stored.value.attempts >= self.settings.attempts {
                return self.set_aside(stored, left_out.to_owned()).await;
            }
        }
        stored.value.look(paid, PayoutState::Waiting, self.work.now());
        self.save(&mut stored).await?;
        Ok(())
    }

    async fn set_aside(&self, mut stored: Found, reason: String) -> Result<()> {
        tracing::warn!(account = %stored.value.account, reason, "a payout is set aside");
        stored.value.state = PayoutState::SetAside { reason };
        stored.value.changed_at = self.work.now();
        self.save(&mut stored).await?;
        Ok(())
    }

    /// Writes a payout, and tells of it when it ended; `false` when somebody else was faster.
    async fn save(&self, stored: &mut Found) -> Result<bool> {
        let Payout { domain, account, paid, released, state, .. } = &stored.value;
        let mut changes = Changeset::new();
        changes.replace(stored.version, &stored.value);
        let tenants = Audience::Tenants(owner_of(*account));
        let ids = &self.work.ids;
        match state {
            PayoutState::Paid => {
                let data = json!({ "paid": paid });
                outbox::event(&mut changes, ids, "account.paid_out", account, tenants, data);
            }
            PayoutState::SetAside { reason } => {
                let data = json!({ "reason": reason, "paid": paid, "released": released });
                outbox::event(&mut changes, ids, "account.payout_set_aside", account, tenants, data.clone());
                let title = format!("a payout of domain {domain} is set aside: {account}");
                outbox::alert(&mut changes, ids, title, data);
            }
            PayoutState::Waiting | PayoutState::Sent { .. } => {}
        }
        match self.work.committer.commit(changes).await {
            Ok(()) => {
                stored.version += 1;
                Ok(true)
            }
            Err(DatabaseError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn pieces(mut dues: Vec<Due>, most: usize) -> Vec<Vec<Due>> {
    let mut pieces = Vec::new();
    while !dues.is_empty() {
        let rest = dues.split_off(dues.len().min(most.max(1)));
        pieces.push(std::mem::replace(&mut dues, rest));
    }
    pieces
}

/// Names one try to pay these. The version that each payout had makes it another one than the try before, which may have paid
/// nobody.
fn digest(dues: &[Due]) -> String {
    let mut hasher = Sha256::new();
    for Due { found, upto } in dues {
        hasher.update(format!("{} {upto} {}\n", found.value.account, found.version));
    }
    hex::encode(hasher.finalize())
}

#[async_trait]
impl Trigger for PayoutService {
    fn name(&self) -> &'static str {
        "pay_out"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        for domain in self.domains.domains() {
            match self.turn(domain).await {
                Ok(turn) => {
                    report.examined += turn.examined;
                    report.changed += turn.changed;
                    report.failed += turn.failed;
                }
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(%domain, error = crate::error::chain(&error), "payouts could not be looked after");
                }
            }
        }
        Ok(report)
    }
}
