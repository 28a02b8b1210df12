//! Single values from texts: ids, account names, hashes, money, instants, durations, sizes, keys.

use std::{fmt, str::FromStr};

use orchestrator::{
    config::{HumanDuration, HumanSize},
    core::{
        job::JobKind,
        market::{
            account::AccountKey,
            allocation::Usage,
            block::Hash32,
            ids::{
                AllocationId, AuditId, BlockId, ConsumerId, CredentialId, DisputeId, EventId, JobId, KeyId,
                OperatorId, OracleId, PriceChangeId, ProviderId, ReportId, TransferId, UnitId, VerdictId,
            },
            money::Amount,
            quantity::Timestamp,
            sla::signature,
        },
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// What is read from a text is written as that text, and nothing else is read from another spelling of it.
pub fn scalar(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    macro_rules! exact_ids {
        ($($id:ty)+) => { $(exact::<$id>(text);)+ };
    }
    exact_ids!(AllocationId AuditId BlockId ConsumerId CredentialId DisputeId EventId JobId KeyId OperatorId OracleId
        PriceChangeId ProviderId ReportId TransferId UnitId VerdictId AccountKey);
    if let Some(hash) = there_and_back::<Hash32>(text) {
        assert!(hash.to_string().eq_ignore_ascii_case(text), "{text:?}");
    }
    if let Some(amount) = there_and_back::<Amount>(text) {
        assert_eq!(amount.to_string(), without_zeros(text));
        json(&amount);
    }
    there_and_back::<HumanDuration>(text);
    there_and_back::<HumanSize>(text);
    if let Ok(at) = Timestamp::parse_rfc3339(text) {
        assert_eq!(Timestamp::parse_rfc3339(&at.to_rfc3339()), Ok(at), "{text:?}");
    }
    if let Some(key) = signature::parse_key(text) {
        assert_eq!(hex::encode(key.as_bytes()), text);
        assert!(!key.is_weak());
    }
    if let Ok(kind) = serde_json::from_value::<JobKind>(text.into()) {
        assert_eq!(kind.to_string(), text);
    }
    meter(text);
}

/// A meter's integral has 128 bits, which JSON carries as text: digits, and nothing but digits.
fn meter(text: &str) {
    let body = serde_json::json!({"stored": 0, "byte_seconds": text, "egress": 0, "read_at": 0});
    if let Ok(usage) = serde_json::from_value::<Usage>(body) {
        assert_eq!(usage.byte_seconds.to_string(), without_zeros(text));
        json(&usage);
    }
}

fn exact<T: FromStr + fmt::Display + PartialEq + fmt::Debug + Serialize + DeserializeOwned>(text: &str) {
    if let Some(value) = there_and_back::<T>(text) {
        assert_eq!(value.to_string(), text);
        json(&value);
    }
}

fn there_and_back<T: FromStr + fmt::Display + PartialEq + fmt::Debug>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    let written = value.to_string();
    assert_eq!(written.parse::<T>().ok().as_ref(), Some(&value), "{text:?} became {written:?}");
    Some(value)
}

fn json<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
}

fn without_zeros(digits: &str) -> &str {
    match digits.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}
