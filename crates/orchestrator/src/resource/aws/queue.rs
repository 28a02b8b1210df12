//! A queue at SQS: made, mended, removed.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_sqs::types::QueueAttributeName as Name;

use super::{Found, Item, QueueSpec, check::Strain};
use crate::client::{
    aws::{AwsClients, AwsError, Statement, has_statement, with_statement},
    queue::{QueueAttributes, Redrive},
};

/// SQS keeps at most so many messages of a queue that were received and are neither deleted nor visible again. Beyond it
/// a long poll is answered by nothing, without an error.
const MAX_IN_FLIGHT: u64 = 120_000;
/// From here on people are told.
const MANY_IN_FLIGHT: u64 = MAX_IN_FLIGHT / 10 * 8;

pub(super) struct Queue {
    clients: AwsClients,
    spec: QueueSpec,
}

impl Queue {
    pub(super) fn new(clients: AwsClients, spec: QueueSpec) -> Self {
        Self { clients, spec }
    }

    async fn url(&self) -> Result<Option<String>, AwsError> {
        match self.clients.sqs().get_queue_url().queue_name(self.name()).send().await {
            Ok(found) => Ok(found.queue_url),
            Err(error) => match AwsError::new("sqs:GetQueueUrl", error) {
                error if error.is_missing() => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn found(&self, url: &str) -> Result<HashMap<Name, String>, AwsError> {
        let get = self.clients.sqs().get_queue_attributes().queue_url(url).attribute_names(Name::All);
        let got = get.send().await.map_err(|error| AwsError::new("sqs:GetQueueAttributes", error))?;
        Ok(got.attributes.unwrap_or_default())
    }

    async fn wanted(&self) -> Result<QueueAttributes, AwsError> {
        let redrive = match &self.spec.dead_letters {
            None => None,
            Some((queue, max_receives)) => {
                let dead_letters = self.clients.arn("sqs", &self.clients.name(queue)).await?;
                Some(Redrive { dead_letters, max_receives: *max_receives })
            }
        };
        let QueueSpec { visibility, retention, .. } = self.spec;
        Ok(QueueAttributes { visibility, retention, redrive })
    }

    /// What lets schedules send, if they shall.
    async fn statement(&self) -> Result<Option<Statement>, AwsError> {
        #[cfg(feature = "eventbridge")]
        if self.spec.scheduled {
            use crate::client::{aws::rules::Rules, cron::event_bridge::SID};
            return Ok(Some(Statement {
                sid: SID.to_owned(),
                service: "events.amazonaws.com",
                action: "sqs:SendMessage",
                resource: self.clients.arn("sqs", &self.name()).await?,
                source: Rules::new(self.clients.clone(), None).source().await?,
            }));
        }
        Ok(None)
    }

    /// What must be set, and how people read it.
    async fn drift(&self, found: &HashMap<Name, String>) -> Result<Drift, AwsError> {
        let mut set = self.wanted().await?.drift(found);
        let mut changes: Vec<String> = set
            .iter()
            .map(|(name, value)| {
                let found = found.get(name).map_or("unset", String::as_str);
                format!("{}: {found} → {value}", name.as_str())
            })
            .collect();
        if self.spec.dead_letters.is_none() && found.contains_key(&Name::RedrivePolicy) {
            changes.push("RedrivePolicy: none is wanted".to_owned());
            set.insert(Name::RedrivePolicy, String::new());
        }
        if let Some(statement) = self.statement().await? {
            let policy = found.get(&Name::Policy).map(String::as_str);
            if !has_statement(policy, &statement) {
                changes.push("Policy: schedules may send".to_owned());
                set.insert(Name::Policy, with_statement(policy, &statement));
            }
        }
        changes.sort();
        Ok(Drift { set, changes })
    }
}

struct Drift {
    set: HashMap<Name, String>,
    changes: Vec<String>,
}

#[async_trait]
impl Item for Queue {
    fn kind(&self) -> &'static str {
        "queue"
    }

    fn name(&self) -> String {
        self.clients.name(&self.spec.name)
    }

    fn rank(&self) -> u8 {
        // Dead letters come before those whose dead letters they are.
        if self.spec.dead_letters.is_none() { 0 } else { 1 }
    }

    fn service(&self) -> &'static str {
        "sqs"
    }

    async fn look(&self) -> Result<Found, AwsError> {
        let Some(url) = self.url().await? else { return Ok(Found::Missing) };
        let Drift { changes, .. } = self.drift(&self.found(&url).await?).await?;
        Ok(if changes.is_empty() { Found::Right } else { Found::Different(changes) })
    }

    async fn strained(&self) -> Result<Option<Strain>, AwsError> {
        let Some(url) = self.url().await? else { return Ok(None) };
        let name = Name::ApproximateNumberOfMessagesNotVisible;
        let get = self.clients.sqs().get_queue_attributes().queue_url(url).attribute_names(name.clone());
        let got = get.send().await.map_err(|error| AwsError::new("sqs:GetQueueAttributes", error))?;
        let in_flight = got.attributes().and_then(|all| all.get(&name)).and_then(|text| text.parse().ok());
        Ok(in_flight.filter(|count| *count >= MANY_IN_FLIGHT).map(|count: u64| Strain {
            what: format!(
                "is full, or nearly: {count} messages were received and not finished; SQS gives out no more \
                 beyond {MAX_IN_FLIGHT}, without saying so"
            ),
            fix: "find the receivers that take and do not finish: stop what else reads these queues, mend replicas that \
                  hang, and let the rest come back after queue.visibility",
        }))
    }

    async fn mend(&self, _: &Found) -> Result<(), AwsError> {
        let Some(url) = self.url().await? else {
            let mut attributes = self.wanted().await?.to_map();
            if let Some(statement) = self.statement().await? {
                attributes.insert(Name::Policy, with_statement(None, &statement));
            }
            let create = self.clients.sqs().create_queue().queue_name(self.name());
            let made = create.set_attributes(Some(attributes)).send().await;
            made.map_err(|error| AwsError::new("sqs:CreateQueue", error))?;
            return Ok(());
        };
        let Drift { set, .. } = self.drift(&self.found(&url).await?).await?;
        if !set.is_empty() {
            let change = self.clients.sqs().set_queue_attributes().queue_url(url);
            let changed = change.set_attributes(Some(set)).send().await;
            changed.map_err(|error| AwsError::new("sqs:SetQueueAttributes", error))?;
        }
        Ok(())
    }

    async fn remove(&self) -> Result<(), AwsError> {
        let Some(url) = self.url().await? else { return Ok(()) };
        match self.clients.sqs().delete_queue().queue_url(url).send().await {
            Ok(_) => Ok(()),
            Err(error) => match AwsError::new("sqs:DeleteQueue", error) {
                error if error.is_missing() => Ok(()),
                error => Err(error),
            },
        }
    }
}
