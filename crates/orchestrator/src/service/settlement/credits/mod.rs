//! The check of every credit on a chain from its evidence. The records of verdicts and of money are taken down while the
//! ledger is rebuilt ([`book`]); then each verdict is held against its evidence ([`judged`]), those of an allocation against
//! one another and its terms ([`row`]), and the money against the verdicts ([`money`]). Nothing that the source of the evidence says is believed: names, terms and evidence are bound to
//! hashes that the chain holds. What the chain does not bind is listed in `docs/ethereum.md`.

mod book;
mod judged;
mod money;
mod row;
#[cfg(test)]
mod tests;

use book::Book;
use futures::{StreamExt, TryStreamExt};
use judged::{Judged, judged};
use serde::{Deserialize, Serialize};

use crate::{
    core::{
        madara::evidence::{EvidenceError, EvidenceSource},
        market::{block::BlockFormat, money::Amount, sla::JudgeRules, state::Record, terms::DomainId},
    },
    error::{Error, ErrorCode, Result},
};

/// Bundles that are asked for at once.
const AT_ONCE: usize = 4;
/// Problems that are told one by one.
const TOLD: usize = 100;

/// Rules that verdicts were given by. The chain does not bind them, so a reader should look at them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesUsed {
    /// The rules.
    pub rules: JudgeRules,
    /// How many verdicts.
    pub verdicts: u64,
}

/// What the check of the credits found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditReport {
    /// Verdicts on the chain, each held against its evidence.
    pub verdicts: u64,
    /// Payments that were held against their verdict.
    pub payments: u64,
    /// Credits, slashes and penalties that are what the verdicts come to.
    pub credits: u64,
    /// Their sum, in base units.
    pub credited: Amount,
    /// Payments whose verdict, and verdicts whose payment or penalty, is still to come in a later block.
    pub open: u64,
    /// Every set of rules that was judged by.
    pub rules: Vec<RulesUsed>,
    /// Verdicts whose credit hangs on a reputation, which the chain does not bind.
    pub by_reputation: u64,
    /// What does not agree, with the block to look at; the first hundred.
    pub problems: Vec<String>,
    /// How many more there are.
    pub more_problems: u64,
}

impl CreditReport {
    fn problem(&mut self, block: u64, text: impl std::fmt::Display) {
        if self.problems.len() < TOLD {
            self.problems.push(format!("block {block}: {text}"));
        } else {
            self.more_problems += 1;
        }
    }

    fn credit(&mut self, amount: Amount) {
        self.credits += 1;
        self.credited = Amount(self.credited.0.saturating_add(amount.0));
    }

    fn rules(&mut self, rules: JudgeRules) {
        match self.rules.iter_mut().find(|it| it.rules == rules) {
            Some(known) => known.verdicts += 1,
            None => self.rules.push(RulesUsed { rules, verdicts: 1 }),
        }
    }
}

/// The check of one chain: takes down its blocks, then looks at the evidence.
#[derive(Default)]
pub struct Credits(Book);

impl Credits {
    /// Takes down a block that was executed and found right.
    pub fn block(&mut self, number: u64, format: BlockFormat, records: &[Record]) {
        self.0.block(number, format, records);
    }

    /// Holds everything against the evidence.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] when the source does not answer.
    pub async fn check(self, domain: &DomainId, source: &dyn EvidenceSource) -> Result<CreditReport> {
        let Self(book) = self;
        let mut report = CreditReport { verdicts: book.claims.len() as u64, ..CreditReport::default() };
        let mut periods = Vec::new();
        let mut complete = true;
        let fetched = futures::stream::iter(&book.claims).map(|claim| async move {
            let bundle = source.bundle(&claim.subject).await?;
            let judged = bundle.map_or_else(
                || Judged { problems: vec!["its evidence is not there".to_owned()], ..Judged::default() },
                |bytes| judged(domain, claim, &bytes),
            );
            Ok::<_, EvidenceError>((claim, judged))
        });
        // In the order of the chain, so that two runs report the same.
        let mut fetched = fetched.buffered(AT_ONCE);
        while let Some((claim, judged)) = fetched.try_next().await.map_err(unavailable)? {
            let subject = hex::encode(claim.subject);
            for problem in &judged.problems {
                report.problem(claim.block, format!("verdict {subject}: {problem}"));
            }
            if let Some(rules) = judged.rules {
                report.rules(rules);
            }
            report.by_reputation += u64::from(judged.by_reputation);
            complete &= judged.period.is_some() || judged.problems.is_empty();
            periods.extend(judged.period);
        }
        money::Money::new(domain, &book, &mut report).check(periods, complete);
        Ok(report)
    }
}

fn unavailable(error: EvidenceError) -> Error {
    Error::new(ErrorCode::Unavailable, error.to_string()).because(error)
}
