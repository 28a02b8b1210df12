//! What a queue at SQS is made with, and what of it differs from what it should be.

use std::collections::HashMap;

use aws_sdk_sqs::types::QueueAttributeName as Name;
use serde_json::{Value, json};

use super::body::seconds_up;
use crate::core::market::quantity::Micros;

/// Where messages go that were delivered so often and never removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// The ARN of the queue of dead letters.
    pub dead_letters: String,
    /// Deliveries before that.
    pub max_receives: u32,
}

/// What a queue is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueAttributes {
    /// How long a message is hidden when a receiver does not say. Ours always do.
    pub visibility: Micros,
    /// How long a message is kept.
    pub retention: Micros,
    /// Where messages go that nobody can handle.
    pub redrive: Option<Redrive>,
}

impl Default for QueueAttributes {
    fn default() -> Self {
        Self { visibility: Micros::from_secs(60), retention: Micros::from_days(14), redrive: None }
    }
}

/// A long poll by default: whoever does not say otherwise asks seldom.
const WAIT: &str = "20";

impl QueueAttributes {
    /// As SQS takes them.
    #[must_use]
    pub fn to_map(&self) -> HashMap<Name, String> {
        let mut map = HashMap::from([
            (Name::VisibilityTimeout, seconds_up(self.visibility).to_string()),
            (Name::MessageRetentionPeriod, seconds_up(self.retention).to_string()),
            (Name::ReceiveMessageWaitTimeSeconds, WAIT.to_owned()),
            (Name::SqsManagedSseEnabled, "true".to_owned()),
        ]);
        if let Some(Redrive { dead_letters, max_receives }) = &self.redrive {
            let policy = json!({ "deadLetterTargetArn": dead_letters, "maxReceiveCount": max_receives });
            map.insert(Name::RedrivePolicy, policy.to_string());
        }
        map
    }

    /// What must be set so that a queue with the attributes `found` has these; a key of its own is as good as SQS's.
    #[must_use]
    pub fn drift(&self, found: &HashMap<Name, String>) -> HashMap<Name, String> {
        let mut wanted = self.to_map();
        if found.contains_key(&Name::KmsMasterKeyId) {
            wanted.remove(&Name::SqsManagedSseEnabled);
        }
        wanted.retain(|name, value| !found.get(name).is_some_and(|found| same(name, found, value)));
        wanted
    }
}

fn same(name: &Name, found: &str, wanted: &str) -> bool {
    if *name != Name::RedrivePolicy {
        return found.eq_ignore_ascii_case(wanted);
    }
    // The same policy may be written in many ways: other order, the count as text.
    let read = |text: &str| {
        let policy: Value = serde_json::from_str(text).ok()?;
        let count = policy.get("maxReceiveCount")?;
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
        Some((policy.get("deadLetterTargetArn")?.as_str()?.to_owned(), count))
    };
    read(found).is_some() && read(found) == read(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_what_differs_and_no_more() {
        let redrive = Redrive { dead_letters: "arn:dead".into(), max_receives: 5 };
        let wanted = QueueAttributes { redrive: Some(redrive), ..QueueAttributes::default() };
        let mut found = wanted.to_map();
        let policy = r#"{"maxReceiveCount":"5","deadLetterTargetArn":"arn:dead"}"#;
        found.insert(Name::RedrivePolicy, policy.into());
        found.insert(Name::QueueArn, "arn:q".into());
        assert_eq!(wanted.drift(&found), HashMap::new());
        found.insert(Name::VisibilityTimeout, "30".into());
        found.insert(Name::RedrivePolicy, policy.replace("\"5\"", "6"));
        let drift = wanted.drift(&found);
        assert_eq!(drift.len(), 2);
        assert_eq!(drift[&Name::VisibilityTimeout], "60");
        found.remove(&Name::RedrivePolicy);
        assert!(wanted.drift(&found).contains_key(&Name::RedrivePolicy));
    }
}
