//! One verdict: does its record follow from the evidence? Holds the bundle against the two records, and judges again.

use super::book::Claim;
use crate::{
    core::market::{
        address::Address,
        allocation::Span,
        ids::AllocationId,
        money::Amount,
        quantity::Ppm,
        sla::{JudgeRules, Window, credit_of},
        state::{
            commitment::{AllocationTerms, verdict_subject},
            hash::cut,
        },
        terms::{DomainId, PenaltyPolicy},
        verdict::VerdictStatus,
    },
    service::sla::{
        bundle::{AllocationBundle, BUNDLE_VERSION, VerdictBundle},
        verdict::EvidenceFile,
    },
};

/// A billing period whose verdict is on the chain. Status and credit are the chain's, whatever the evidence says.
#[derive(Debug, Clone)]
pub(super) struct Period {
    pub(super) block: u64,
    pub(super) number: u32,
    pub(super) window: Window,
    pub(super) status: VerdictStatus,
    pub(super) credit: Ppm,
    /// What the bundle says that the period cost.
    pub(super) payment: Amount,
    pub(super) terms: AllocationTerms,
    pub(super) earlier: Vec<Span>,
    pub(super) consumer_owner: Option<Address>,
    pub(super) provider_owner: Option<Address>,
}

/// What one bundle came to.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// The period, when it is known which one it is; a verdict without an allocation has none.
    pub(super) period: Option<Period>,
    /// The rules that it was judged by.
    pub(super) rules: Option<JudgeRules>,
    /// Whether the credit hangs on a reputation that the chain does not show.
    pub(super) by_reputation: bool,
    /// What does not agree.
    pub(super) problems: Vec<String>,
}

impl Judged {
    fn problem(text: impl Into<String>) -> Self {
        Self { problems: vec![text.into()], ..Self::default() }
    }
}

/// Holds a bundle against a verdict's records.
pub(super) fn judged(domain: &DomainId, claim: &Claim, bytes: &[u8]) -> Judged {
    let bundle: VerdictBundle<EvidenceFile> = match serde_json::from_slice(bytes) {
        Ok(bundle) => bundle,
        Err(error) => return Judged::problem(format!("its evidence can't be read: {error}")),
    };
    if bundle.version != BUNDLE_VERSION {
        return Judged::problem(format!("its evidence has the unknown form {}", bundle.version));
    }
    if bundle.domain != *domain || verdict_subject(bundle.unit, &bundle.period_key) != claim.subject {
        return Judged::problem("its evidence is that of another verdict");
    }
    let mut judged = Judged {
        rules: Some(bundle.file.rules.clone()),
        by_reputation: claim.status == VerdictStatus::Breached
            && bundle.file.terms.penalty == PenaltyPolicy::Reputation,
        ..Judged::default()
    };
    follows(claim, &bundle, &mut judged.problems);
    match period(claim, &bundle) {
        Ok(period) => judged.period = period,
        Err(problem) => judged.problems.push(problem),
    }
    judged
}

/// Whether root, status, coverage and credit follow from the file.
fn follows(claim: &Claim, bundle: &VerdictBundle<EvidenceFile>, problems: &mut Vec<String>) {
    let file = &bundle.file;
    let unit = bundle.unit.to_string();
    if file.evidence.buckets.iter().any(|bucket| bucket.subject != unit) {
        problems.push("its evidence is about another unit".to_owned());
    }
    let Ok(judgement) = file.judge() else {
        problems.push("its evidence can't be judged".to_owned());
        return;
    };
    if cut::<30>(&judgement.evidence_root) != claim.root {
        problems.push("its evidence has another root than the chain's".to_owned());
    }
    let credit = credit_of(&judgement, &file.terms, file.reputation);
    let pairs = [
        ("status", format!("{:?}", claim.status), format!("{:?}", judgement.status)),
        ("coverage", claim.coverage.to_string(), judgement.coverage.0.to_string()),
        ("credit in ppm", claim.credit.to_string(), credit.0.to_string()),
    ];
    for (what, on_chain, found) in pairs.iter().filter(|(_, on_chain, found)| on_chain != found) {
        problems.push(format!("its {what} is {on_chain} on the chain, and {found} by the evidence"));
    }
}

/// The billing period; `None` for a verdict that names none, on which no money can rest.
fn period(claim: &Claim, bundle: &VerdictBundle<EvidenceFile>) -> Result<Option<Period>, String> {
    let named = bundle.period_key.split_once('/');
    let named = named.and_then(|(id, number)| Some((id.parse::<AllocationId>().ok()?, number.parse().ok()?)));
    let Some((allocation, number)) = named else { return Ok(None) };
    let Some(AllocationBundle { consumer_owner, provider_owner, terms, earlier }) = &bundle.allocation else {
        return Err("its evidence lacks the allocation's terms".to_owned());
    };
    let terms: AllocationTerms =
        serde_json::from_str(terms).map_err(|error| format!("its terms can't be read: {error}"))?;
    let file = &bundle.file;
    if terms.allocation != allocation || terms.unit != bundle.unit || terms.provider != file.provider {
        return Err("its terms are those of another allocation".to_owned());
    }
    if terms.sla != file.terms {
        return Err("it was judged by other terms than the allocation's".to_owned());
    }
    Ok(Some(Period {
        block: claim.block,
        number,
        window: file.window,
        status: claim.status,
        credit: Ppm(claim.credit),
        payment: bundle.payment,
        terms,
        earlier: earlier.clone(),
        consumer_owner: *consumer_owner,
        provider_owner: *provider_owner,
    }))
}
