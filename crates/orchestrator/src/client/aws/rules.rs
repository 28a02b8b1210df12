//! Rules of EventBridge with queues as targets: what schedules and buses share. A rule is named `<prefix>.<name>`: no prefix
//! has a dot, so that the rules of one deployment are never taken for those of another whose prefix begins alike.

use aws_sdk_eventbridge::{
    Client,
    types::{RuleState, Target},
};
use sha2::{Digest, Sha256};

use super::{AwsClients, AwsError};

/// A rule as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FoundRule {
    /// Without the prefix.
    pub(crate) name: String,
    /// `rate(…)` or `cron(…)`.
    pub(crate) schedule: Option<String>,
    /// The pattern of events.
    pub(crate) pattern: Option<String>,
    pub(crate) enabled: bool,
}

/// A queue as a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueTarget {
    /// Its ARN.
    pub(crate) arn: String,
    /// The message, as JSON; `None` sends the event's details.
    pub(crate) input: Option<String>,
}

impl QueueTarget {
    /// The same target has the same id: putting it twice makes one.
    pub(crate) fn id(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.arn.as_bytes());
        hash.update([0]);
        hash.update(self.input.as_deref().unwrap_or_default().as_bytes());
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The rules of one bus.
#[derive(Clone)]
pub(crate) struct Rules {
    clients: AwsClients,
    /// The name or ARN of the bus; `None` is the account's default one, which has the schedules.
    bus: Option<String>,
}

impl Rules {
    pub(crate) fn new(clients: AwsClients, bus: Option<String>) -> Self {
        Self { clients, bus }
    }

    fn client(&self) -> &Client {
        self.clients.events()
    }

    /// The rule's name at EventBridge.
    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}.{name}", self.clients.prefix())
    }

    /// Whether EventBridge takes this name.
    pub(crate) fn valid(&self, name: &str) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        !name.is_empty() && self.full(name).len() <= 64 && name.bytes().all(allowed)
    }

    /// The ARNs of all rules of this deployment on this bus, for the policies of queues.
    pub(crate) async fn source(&self) -> Result<String, AwsError> {
        let rule = match &self.bus {
            None => format!("rule/{}", self.full("*")),
            Some(bus) => format!("rule/{}/{}", bus.rsplit('/').next().unwrap_or(bus), self.full("*")),
        };
        self.clients.arn("events", &rule).await
    }

    pub(crate) async fn describe(&self, name: &str) -> Result<Option<FoundRule>, AwsError> {
        let describe = self.client().describe_rule().name(self.full(name));
        match describe.set_event_bus_name(self.bus.clone()).send().await {
            Ok(found) => Ok(Some(FoundRule {
                name: name.to_owned(),
                schedule: found.schedule_expression,
                pattern: found.event_pattern,
                enabled: found.state == Some(RuleState::Enabled),
            })),
            Err(error) => match AwsError::new("events:DescribeRule", error) {
                error if error.is_missing() => Ok(None),
                error => Err(error),
            },
        }
    }

    /// All rules of this deployment, by name.
    pub(crate) async fn list(&self) -> Result<Vec<FoundRule>, AwsError> {
        let start = self.full("");
        let (mut rules, mut token) = (Vec::new(), None);
        loop {
            let list = self.client().list_rules().name_prefix(&start).set_event_bus_name(self.bus.clone());
            let page = list.set_next_token(token).send().await;
            let page = page.map_err(|error| AwsError::new("events:ListRules", error))?;
            for rule in page.rules.unwrap_or_default() {
                if let Some(name) = rule.name.as_deref().and_then(|name| name.strip_prefix(&start)) {
                    rules.push(FoundRule {
                        name: name.to_owned(),
                        schedule: rule.schedule_expression,
                        pattern: rule.event_pattern,
                        enabled: rule.state == Some(RuleState::Enabled),
                    });
                }
            }
            token = page.next_token;
            if token.is_none() {
                rules.sort_by(|a, b| a.name.cmp(&b.name));
                return Ok(rules);
            }
        }
    }

    /// Makes a rule, or changes it; its targets stay.
    pub(crate) async fn put(&self, rule: &FoundRule) -> Result<(), AwsError> {
        let state = if rule.enabled { RuleState::Enabled } else { RuleState::Disabled };
        self.client()
            .put_rule()
            .name(self.full(&rule.name))
            .set_event_bus_name(self.bus.clone())
            .set_schedule_expression(rule.schedule.clone())
            .set_event_pattern(rule.pattern.clone())
            .state(state)
            .send()
            .await
            .map_err(|error| AwsError::new("events:PutRule", error))?;
        Ok(())
    }

    /// The targets of a rule with their ids. Empty when there is no such rule.
    pub(crate) async fn targets(&self, name: &str) -> Result<Vec<(String, QueueTarget)>, AwsError> {
        let (mut targets, mut token) = (Vec::new(), None);
        loop {
            let list = self.client().list_targets_by_rule().rule(self.full(name));
            let page = list.set_event_bus_name(self.bus.clone()).set_next_token(token).send().await;
            let page = match page.map_err(|error| AwsError::new("events:ListTargetsByRule", error)) {
                Err(error) if error.is_missing() => return Ok(Vec::new()),
                page => page?,
            };
            let read = |target: Target| (target.id, QueueTarget { arn: target.arn, input: target.input });
            targets.extend(page.targets.unwrap_or_default().into_iter().map(read));
            token = page.next_token;
            if token.is_none() {
                return Ok(targets);
            }
        }
    }

    pub(crate) async fn put_target(&self, name: &str, target: &QueueTarget) -> Result<(), AwsError> {
        const OPERATION: &str = "events:PutTargets";
        let whole = target.input.is_none().then(|| "$.detail".to_owned());
        let built = Target::builder()
            .id(target.id())
            .arn(&target.arn)
            .set_input(target.input.clone())
            .set_input_path(whole)
            .build()
            .map_err(|error| AwsError::odd(OPERATION, error.to_string()))?;
        let put = self.client().put_targets().rule(self.full(name)).targets(built);
        let put = put.set_event_bus_name(self.bus.clone()).send().await;
        let put = put.map_err(|error| AwsError::new(OPERATION, error))?;
        match put.failed_entries().first() {
            None => Ok(()),
            Some(failed) => {
                let code = failed.error_code().unwrap_or_default();
                Err(AwsError::entry(OPERATION, code, failed.error_message(), false))
            }
        }
    }

    pub(crate) async fn remove_targets(&self, name: &str, ids: Vec<String>) -> Result<(), AwsError> {
        if ids.is_empty() {
            return Ok(());
        }
        let remove = self.client().remove_targets().rule(self.full(name)).set_ids(Some(ids));
        match remove.set_event_bus_name(self.bus.clone()).send().await {
            Ok(_) => Ok(()),
            Err(error) => match AwsError::new("events:RemoveTargets", error) {
                error if error.is_missing() => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Removes a rule with its targets; a missing one is no error.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), AwsError> {
        let ids = self.targets(name).await?.into_iter().map(|(id, _)| id).collect();
        self.remove_targets(name, ids).await?;
        let delete = self.client().delete_rule().name(self.full(name));
        match delete.set_event_bus_name(self.bus.clone()).send().await {
            Ok(_) => Ok(()),
            Err(error) => match AwsError::new("events:DeleteRule", error) {
                error if error.is_missing() => Ok(()),
                error => Err(error),
            },
        }
    }
}
