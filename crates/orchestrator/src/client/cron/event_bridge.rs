//! Schedules at EventBridge: rules with a rate, and queues at SQS as targets. EventBridge counts whole minutes; a rate that
//! it can't keep is refused, never rounded.
//!
//! What is there already is only looked at: a daemon that starts needs no right to change anything.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    client::{
        aws::{
            AwsClients, AwsError,
            rules::{FoundRule, QueueTarget, Rules},
        },
        queue::{
            SqsQueue,
            sqs::{envelope, unwrap_envelope},
        },
    },
    core::{
        client::queue::QueueError,
        madara::cron::{CronClient, CronError, CronSchedule, CronTarget},
        market::quantity::Micros,
    },
};

/// The unit of rates.
const MINUTE: Micros = Micros::from_secs(60);
/// The statement that lets schedules send to a queue.
pub(crate) const SID: &str = "orchestrator-schedules";

/// Schedules at EventBridge.
pub struct EventBridgeCron {
    clients: AwsClients,
    rules: Rules,
    queue: Arc<SqsQueue>,
}

/// `rate(1 minute)`, `rate(15 minutes)`.
///
/// # Errors
/// The reason why EventBridge can't keep this rate.
pub fn rate_expression(every: Micros) -> Result<String, String> {
    if every < MINUTE {
        return Err(
            "EventBridge fires once a minute at most; use a minute or more, or the local scheduler".into()
        );
    }
    if !every.get().is_multiple_of(MINUTE.get()) {
        return Err("EventBridge counts whole minutes; use whole minutes, or the local scheduler".into());
    }
    let minutes = every.get() / MINUTE.get();
    Ok(format!("rate({minutes} minute{})", if minutes == 1 { "" } else { "s" }))
}

/// The time that a rate stands for; `None` for another kind of schedule.
pub(crate) fn parse_rate(expression: &str) -> Option<Micros> {
    let (count, unit) = expression.strip_prefix("rate(")?.strip_suffix(')')?.split_once(' ')?;
    let seconds = match unit.trim_end_matches('s') {
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return None,
    };
    Some(Micros::from_secs(count.parse::<u64>().ok()?.checked_mul(seconds)?))
}

fn unavailable(error: AwsError) -> CronError {
    CronError::Unavailable(Box::new(error))
}

fn invalid(name: &str, reason: impl Into<String>) -> CronError {
    CronError::Invalid { name: name.chars().take(80).collect(), reason: reason.into() }
}

impl EventBridgeCron {
    /// Schedules that send to queues of `queue`.
    #[must_use]
    pub fn new(clients: AwsClients, queue: Arc<SqsQueue>) -> Self {
        Self { rules: Rules::new(clients.clone(), None), clients, queue }
    }

    async fn rule(&self, name: &str) -> Result<FoundRule, CronError> {
        let found = match self.rules.valid(name) {
            true => self.rules.describe(name).await.map_err(unavailable)?,
            false => None,
        };
        found.ok_or_else(|| CronError::NoSchedule(name.to_owned()))
    }

    fn read_target(&self, target: QueueTarget) -> CronTarget {
        let queue = target.arn.rsplit(':').next().unwrap_or_default();
        let ours = queue.strip_prefix(&self.clients.name(""));
        let input = target.input.unwrap_or_default();
        CronTarget { queue: ours.unwrap_or(queue).to_owned(), body: unwrap_envelope(&input).unwrap_or(input) }
    }
}

#[async_trait]
impl CronClient for EventBridgeCron {
    async fn create(&self, name: &str, every: Micros) -> Result<(), CronError> {
        if !self.rules.valid(name) {
            let reason = "with its prefix the name must have 1 to 64 of a-z A-Z 0-9 . - _";
            return Err(invalid(name, reason));
        }
        let rate = rate_expression(every).map_err(|reason| invalid(name, reason))?;
        let found = self.rules.describe(name).await.map_err(unavailable)?;
        // An equal rate may be written in other units.
        if found.as_ref().and_then(|rule| parse_rate(rule.schedule.as_deref()?)) == Some(every) {
            return Ok(());
        }
        let enabled = found.is_none_or(|rule| rule.enabled);
        let rule = FoundRule { name: name.to_owned(), schedule: Some(rate), pattern: None, enabled };
        self.rules.put(&rule).await.map_err(unavailable)
    }

    async fn add_target(&self, name: &str, target: CronTarget) -> Result<(), CronError> {
        self.rule(name).await?;
        let arn = self.queue.arn(&target.queue).await.map_err(|error| match error {
            QueueError::NoQueue(queue) => {
                invalid(name, format!("its queue `{queue}` does not exist; `orchestrator setup` makes it"))
            }
            error => CronError::Unavailable(Box::new(error)),
        })?;
        let input = envelope(&target.body).map_err(|error| CronError::Unavailable(Box::new(error)))?;
        let wanted = QueueTarget { arn, input: Some(input) };
        let source = self.rules.source().await.map_err(unavailable)?;
        let allowed = self.queue.allow(&target.queue, "events.amazonaws.com", SID, &source).await;
        allowed.map_err(|error| CronError::Unavailable(Box::new(error)))?;
        let found = self.rules.targets(name).await.map_err(unavailable)?;
        if found.iter().any(|(_, target)| *target == wanted) {
            return Ok(());
        }
        self.rules.put_target(name, &wanted).await.map_err(unavailable)
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), CronError> {
        let rule = self.rule(name).await?;
        if rule.enabled == enabled {
            return Ok(());
        }
        self.rules.put(&FoundRule { enabled, ..rule }).await.map_err(unavailable)
    }

    async fn list(&self) -> Result<Vec<CronSchedule>, CronError> {
        let mut schedules = Vec::new();
        for rule in self.rules.list().await.map_err(unavailable)? {
            let Some(every) = rule.schedule.as_deref().and_then(parse_rate) else { continue };
            let found = self.rules.targets(&rule.name).await.map_err(unavailable)?;
            let mut targets: Vec<_> = found.into_iter().map(|(_, target)| self.read_target(target)).collect();
            targets.sort_by(|a, b| (&a.queue, &a.body).cmp(&(&b.queue, &b.body)));
            schedules.push(CronSchedule { name: rule.name, every, enabled: rule.enabled, targets });
        }
        Ok(schedules)
    }

    async fn delete(&self, name: &str) -> Result<(), CronError> {
        match self.rules.valid(name) {
            true => self.rules.delete(name).await.map_err(unavailable),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_whole_minutes_or_refused() {
        for (seconds, expression) in
            [(60, "rate(1 minute)"), (120, "rate(2 minutes)"), (86_400, "rate(1440 minutes)")]
        {
            let every = Micros::from_secs(seconds);
            assert_eq!(rate_expression(every).unwrap(), expression);
            assert_eq!(parse_rate(expression), Some(every));
        }
        assert_eq!(parse_rate("rate(2 hours)"), Some(Micros::from_secs(7_200)));
        assert_eq!(parse_rate("cron(0 12 * * ? *)"), None);
        for bad in [Micros::ZERO, Micros::from_secs(59), Micros::from_secs(90), Micros(60_000_001)] {
            let reason = rate_expression(bad).unwrap_err();
            assert!(reason.contains("EventBridge"), "{reason}");
        }
    }
}
