//! What must be there at EventBridge: the bus of domain events, and a rule with its target for each schedule.

use async_trait::async_trait;

use super::{AwsLayout, Found, Item, Owner, ScheduleSpec};
use crate::client::{
    aws::{
        AwsClients, AwsError,
        rules::{FoundRule, QueueTarget, Rules},
    },
    cron::{event_bridge::parse_rate, rate_expression},
    queue::sqs::envelope,
};

pub(super) struct Bus {
    clients: AwsClients,
    owner: Owner,
}

impl Bus {
    pub(super) fn new(clients: AwsClients, owner: Owner) -> Self {
        Self { clients, owner }
    }
}

#[async_trait]
impl Item for Bus {
    fn kind(&self) -> &'static str {
        "event bus"
    }

    fn name(&self) -> String {
        self.owner.full_name(&self.clients, '/')
    }

    fn rank(&self) -> u8 {
        2
    }

    fn foreign(&self) -> bool {
        matches!(self.owner, Owner::Other(_))
    }

    fn service(&self) -> &'static str {
        "eventbridge"
    }

    async fn look(&self) -> Result<Found, AwsError> {
        // The ARN, where one is given: the bus may be another account's.
        let name = match &self.owner {
            Owner::Us(_) => self.name(),
            Owner::Other(arn) => arn.clone(),
        };
        match self.clients.events().describe_event_bus().name(name).send().await {
            Ok(_) => Ok(Found::Right),
            Err(error) => match AwsError::new("events:DescribeEventBus", error) {
                error if error.is_missing() => Ok(Found::Missing),
                error => Err(error),
            },
        }
    }

    async fn mend(&self, _: &Found) -> Result<(), AwsError> {
        let made = self.clients.events().create_event_bus().name(self.name()).send().await;
        made.map_err(|error| AwsError::new("events:CreateEventBus", error))?;
        Ok(())
    }

    async fn remove(&self) -> Result<(), AwsError> {
        if self.look().await? == Found::Missing {
            return Ok(());
        }
        let rules = Rules::new(self.clients.clone(), Some(self.name()));
        for rule in rules.list().await? {
            rules.delete(&rule.name).await?;
        }
        let removed = self.clients.events().delete_event_bus().name(self.name()).send().await;
        removed.map_err(|error| AwsError::new("events:DeleteEventBus", error))?;
        Ok(())
    }
}

/// Names of schedules that `setup` made and that the layout has no more, without the prefix: rules of this deployment with a
/// rate, whose targets are all queues of this deployment. What has other targets was made by somebody else.
///
/// A layout without schedules uses none of EventBridge's, and may have no right to ask for them.
pub(super) async fn left_over(clients: &AwsClients, layout: &AwsLayout) -> Result<Vec<String>, AwsError> {
    if layout.schedules.is_empty() {
        return Ok(Vec::new());
    }
    let rules = Rules::new(clients.clone(), None);
    let ours = clients.arn("sqs", &clients.name("")).await?;
    let mut names = Vec::new();
    for rule in rules.list().await? {
        let known = layout.schedules.iter().any(|schedule| schedule.name == rule.name);
        if known || rule.schedule.as_deref().and_then(parse_rate).is_none() {
            continue;
        }
        let targets = rules.targets(&rule.name).await?;
        if targets.iter().all(|(_, target)| target.arn.starts_with(&ours)) {
            names.push(rule.name);
        }
    }
    Ok(names)
}

pub(super) struct Schedule {
    clients: AwsClients,
    rules: Rules,
    spec: ScheduleSpec,
}

impl Schedule {
    pub(super) fn new(clients: AwsClients, spec: ScheduleSpec) -> Self {
        Self { rules: Rules::new(clients.clone(), None), clients, spec }
    }

    async fn target(&self) -> Result<QueueTarget, AwsError> {
        let arn = self.clients.arn("sqs", &self.clients.name(&self.spec.queue)).await?;
        let input = envelope(&self.spec.body);
        let input = input.map_err(|error| AwsError::odd("events:PutTargets", error.to_string()))?;
        Ok(QueueTarget { arn, input: Some(input) })
    }

    fn rate(&self) -> Result<String, AwsError> {
        rate_expression(self.spec.every).map_err(|reason| AwsError::odd("events:PutRule", reason))
    }
}

#[async_trait]
impl Item for Schedule {
    fn kind(&self) -> &'static str {
        "schedule"
    }

    fn name(&self) -> String {
        self.rules.full(&self.spec.name)
    }

    fn rank(&self) -> u8 {
        3
    }

    fn service(&self) -> &'static str {
        "eventbridge"
    }

    async fn look(&self) -> Result<Found, AwsError> {
        let wanted = self.rate()?;
        let Some(found) = self.rules.describe(&self.spec.name).await? else { return Ok(Found::Missing) };
        let mut changes = Vec::new();
        let rate = found.schedule.unwrap_or_default();
        if parse_rate(&rate) != Some(self.spec.every) {
            changes.push(format!("ScheduleExpression: {rate} → {wanted}"));
        }
        if !found.enabled {
            changes.push("State: DISABLED → ENABLED".to_owned());
        }
        let target = self.target().await?;
        let targets = self.rules.targets(&self.spec.name).await?;
        if targets.len() != 1 || targets.iter().any(|(_, found)| *found != target) {
            changes
                .push(format!("Targets: the queue `{}` and no other", self.clients.name(&self.spec.queue)));
        }
        Ok(if changes.is_empty() { Found::Right } else { Found::Different(changes) })
    }

    async fn mend(&self, _: &Found) -> Result<(), AwsError> {
        let name = self.spec.name.clone();
        let rule = FoundRule { name, schedule: Some(self.rate()?), pattern: None, enabled: true };
        self.rules.put(&rule).await?;
        let target = self.target().await?;
        self.rules.put_target(&rule.name, &target).await?;
        let others = self.rules.targets(&rule.name).await?;
        let others = others.into_iter().filter(|(_, found)| *found != target).map(|(id, _)| id).collect();
        self.rules.remove_targets(&rule.name, others).await
    }

    async fn remove(&self) -> Result<(), AwsError> {
        self.rules.delete(&self.spec.name).await
    }
}
