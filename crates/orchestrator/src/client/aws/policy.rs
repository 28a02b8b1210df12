//! Access policies as JSON: single statements that are put among those that are there, whoever made them.

use serde_json::{Value, json};

/// A statement of a resource's policy that lets a service of AWS act on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Names the statement within the policy.
    pub sid: String,
    /// The service, such as `events.amazonaws.com`.
    pub service: &'static str,
    /// The action, such as `sqs:SendMessage`.
    pub action: &'static str,
    /// The ARN of the resource that has the policy.
    pub resource: String,
    /// Which ARNs the service may act for; `*` and `?` are wild.
    pub source: String,
}

impl Statement {
    fn json(&self) -> Value {
        json!({
            "Sid": self.sid,
            "Effect": "Allow",
            "Principal": { "Service": self.service },
            "Action": self.action,
            "Resource": self.resource,
            "Condition": { "ArnLike": { "aws:SourceArn": self.source } },
        })
    }
}

fn parse(policy: Option<&str>) -> Option<Value> {
    policy.and_then(|text| serde_json::from_str::<Value>(text).ok()).filter(Value::is_object)
}

/// Whether a policy has the statement.
#[must_use]
pub fn has_statement(policy: Option<&str>, statement: &Statement) -> bool {
    let wanted = statement.json();
    parse(policy)
        .as_ref()
        .and_then(|policy| policy.get("Statement")?.as_array())
        .is_some_and(|all| all.contains(&wanted))
}

/// The policy with the statement in it, in the place of one of the same name; every other statement stays.
#[must_use]
pub fn with_statement(policy: Option<&str>, statement: &Statement) -> String {
    let policy = parse(policy);
    let mut statements = match policy.as_ref().and_then(|policy| policy.get("Statement")) {
        Some(Value::Array(all)) => all.clone(),
        // One statement may stand alone.
        Some(one @ Value::Object(_)) => vec![one.clone()],
        _ => Vec::new(),
    };
    statements.retain(|other| other.get("Sid").and_then(Value::as_str) != Some(&statement.sid));
    statements.push(statement.json());
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_others_stay_and_ours_is_there_once() {
        let mut ours = Statement {
            sid: "events".into(),
            service: "events.amazonaws.com",
            action: "sqs:SendMessage",
            resource: "arn:aws:sqs:r:1:q".into(),
            source: "arn:aws:events:r:1:rule/p.*".into(),
        };
        let foreign = r#"{"Version":"2012-10-17","Statement":{"Sid":"theirs","Effect":"Deny"}}"#;
        assert!(!has_statement(Some(foreign), &ours) && !has_statement(None, &ours));
        let once = with_statement(Some(foreign), &ours);
        assert!(has_statement(Some(&once), &ours));
        assert!(once.contains("theirs"));
        assert_eq!(with_statement(Some(&once), &ours), once);
        ours.source.push('x');
        assert!(!has_statement(Some(&once), &ours));
        let changed: Value = serde_json::from_str(&with_statement(Some(&once), &ours)).unwrap();
        assert_eq!(changed["Statement"].as_array().unwrap().len(), 2);
    }
}
