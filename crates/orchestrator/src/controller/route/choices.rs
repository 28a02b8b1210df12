//! The words that a field or a parameter may hold, as enumerations of the description. They are taken from the domain's
//! own types, which know nothing of the description.

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::{
    OpenApi, RefOr,
    schema::{Object, Schema, SchemaType},
};

use crate::{
    core::{
        job::{JobKind, JobState, Phase},
        market::{
            account::TransferKind,
            allocation::{AccessState, AllocationState},
            block::BlockState,
            credential::{CredentialState, Permissions},
            dispute::{DisputeKind, DisputeState},
            party::Role,
            terms::PenaltyPolicy,
            unit::{UnitMode, UnitState},
            verdict::{Attribution, VerdictStatus},
        },
    },
    error::ErrorCode,
    service::{
        block::ProofKind,
        ledger::{UnsealedKind, dispute::Decision},
        proof::ProofAt,
        scoring::OfferingSort,
    },
};

/// What a block's record may be.
const RECORD_TYPES: [&str; 7] =
    ["open_account", "transfer", "deposit", "market_open", "market_set", "verdict", "verdict_evidence"];

/// A schema or an address, a field or a parameter of it, and its words.
type Choice = (&'static str, &'static str, Vec<Value>);

fn words<T: Serialize>(all: &[T]) -> Vec<Value> {
    all.iter().filter_map(|one| serde_json::to_value(one).ok()).collect()
}

fn roles() -> Vec<Value> {
    words(&[Role::Operator, Role::Provider, Role::Consumer, Role::Oracle])
}

fn block_states() -> Vec<Value> {
    use BlockState as B;
    words(&[B::Open, B::Sealed, B::Proven, B::Published, B::Registered, B::Settled, B::Final, B::Rejected])
}

fn unsealed_kinds() -> Vec<Value> {
    use UnsealedKind as U;
    words(&[U::Transfer, U::Verdict, U::Unit, U::Allocation, U::Score])
}

fn proofs_at() -> Vec<Value> {
    words(&[ProofAt::Final, ProofAt::Sealed])
}

fn transfer_kinds() -> Vec<Value> {
    use TransferKind as T;
    words(&[
        T::Deposit,
        T::CollateralPost,
        T::CollateralRelease,
        T::Fund,
        T::Payment,
        T::Fee,
        T::Credit,
        T::Slash,
        T::Refund,
        T::Hold,
        T::Release,
        T::Withdraw,
        T::Forfeit,
    ])
}

fn unit_states() -> Vec<Value> {
    use UnitState as U;
    words(&[U::Available, U::Reserved, U::InUse, U::Maintenance, U::Decommissioning, U::Decommissioned])
}

fn dispute_kinds() -> Vec<Value> {
    words(&[DisputeKind::Metering, DisputeKind::Billing, DisputeKind::Violation])
}

fn dispute_states() -> Vec<Value> {
    use DisputeState as D;
    words(&[D::Open, D::ForProvider, D::ForConsumer, D::Lapsed])
}

fn permissions() -> Vec<Value> {
    words(&[Permissions::ReadWrite, Permissions::ReadOnly])
}

fn fields() -> Vec<Choice> {
    use Attribution as A;
    let codes = ErrorCode::ALL.iter().map(|code| code.as_str().into()).collect();
    vec![
        ("Problem", "code", codes),
        ("PrincipalView", "role", roles()),
        ("CreateKey", "role", roles()),
        ("AllocationView", "state", words(&AllocationState::ALL)),
        (
            "AllocationView",
            "access",
            words(&[AccessState::Active, AccessState::Restricted, AccessState::Expired]),
        ),
        ("CredentialView", "state", words(&CredentialState::ALL)),
        ("CredentialView", "permissions", permissions()),
        ("Issue", "permissions", permissions()),
        ("BlockView", "state", block_states()),
        ("BlockProofView", "kind", words(&[ProofKind::Reexecution])),
        ("ProofView", "block_state", block_states()),
        ("MarketProofView", "block_state", block_states()),
        ("QuarantinedView", "kind", unsealed_kinds()),
        ("RetriedView", "kind", unsealed_kinds()),
        ("RecordView", "type", RECORD_TYPES.iter().map(|word| (*word).into()).collect()),
        ("FailureView", "phase", words(&[Phase::Process, Phase::Verify])),
        ("JobView", "kind", words(&JobKind::ALL)),
        ("JobView", "state", words(&JobState::ALL)),
        ("TransferView", "kind", transfer_kinds()),
        ("DisputeView", "kind", dispute_kinds()),
        ("DisputeView", "state", dispute_states()),
        ("Contest", "kind", dispute_kinds()),
        ("Decide", "decision", words(&[Decision::Provider, Decision::Consumer])),
        (
            "VerdictView",
            "status",
            words(&[VerdictStatus::Met, VerdictStatus::Breached, VerdictStatus::Unknown]),
        ),
        ("VerdictView", "attribution", words(&[A::Provider, A::Path, A::Orchestrator, A::None])),
        (
            "SlaView",
            "penalty",
            words(&[PenaltyPolicy::Tiered, PenaltyPolicy::Reputation, PenaltyPolicy::Withhold]),
        ),
        ("UnitView", "state", unit_states()),
        ("LiveView", "status", vec!["live".into()]),
        ("ReadyView", "status", vec!["ready".into(), "not_ready".into()]),
    ]
}

fn parameters() -> Vec<Choice> {
    use OfferingSort as O;
    vec![
        ("/allocations", "state", words(&AllocationState::ALL)),
        ("/units", "mode", words(&UnitMode::ALL)),
        ("/jobs", "kind", words(&JobKind::ALL)),
        ("/jobs", "state", words(&JobState::ALL)),
        ("/market/offerings", "sort", words(&[O::Score, O::Price, O::Latency, O::Uptime, O::Free])),
        ("/accounts/{id}/proof", "at", proofs_at()),
        ("/units/{id}/proof", "at", proofs_at()),
        ("/allocations/{id}/proof", "at", proofs_at()),
        ("/blocks/{domain}/{number}/proof", "kind", words(&[ProofKind::Reexecution, ProofKind::Validity])),
    ]
}

/// Writes the words into the description. A field that is not there is a mistake of ours, which a test finds.
pub(super) fn name(api: &mut OpenApi) {
    let schemas = &mut api.components.get_or_insert_default().schemas;
    for (schema, field, words) in fields() {
        let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(schema) else { continue };
        if let Some(RefOr::T(Schema::Object(object))) = object.properties.get_mut(field) {
            choose(object, words);
        }
    }
    for (path, name, words) in parameters() {
        let operation = api.paths.paths.get_mut(path).and_then(|item| item.get.as_mut());
        let parameters = operation.and_then(|operation| operation.parameters.as_mut());
        for parameter in parameters.into_iter().flatten() {
            let RefOr::T(parameter) = parameter else { continue };
            if parameter.name == name
                && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
            {
                choose(object, words.clone());
            }
        }
    }
}

fn choose(object: &mut Object, mut words: Vec<Value>) {
    if matches!(object.schema_type, SchemaType::Array(_)) {
        words.push(Value::Null);
    }
    object.enum_values = Some(words);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_in_the_description() {
        let described = serde_json::to_value(super::super::openapi()).unwrap();
        for (schema, field, words) in fields() {
            let shown = described["components"]["schemas"][schema]["properties"][field]["enum"].as_array();
            let shown = shown.unwrap_or_else(|| panic!("{schema}.{field} has no words"));
            assert!(!words.is_empty() && words.iter().all(|word| shown.contains(word)), "{schema}.{field}");
        }
        for (path, name, words) in parameters() {
            let all = described["paths"][path]["get"]["parameters"].as_array().unwrap();
            let one = all.iter().find(|one| one["name"] == name).unwrap();
            let shown = one["schema"]["enum"].as_array().unwrap_or_else(|| panic!("{path} {name}"));
            assert!(words.iter().all(|word| shown.contains(word)), "{path} {name}");
        }
    }
}
