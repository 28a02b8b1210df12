//! What must be there at AWS: queues, a bucket, a bus, schedules, a topic. One list says it all: the plan, what is made and
//! mended, what is removed, what the daemon's policy allows and what `doctor` looks at come from it.
//!
//! What is given by its ARN belongs to somebody else: it is looked at, and neither made nor changed nor removed.

#[cfg(feature = "s3")]
mod bucket;
mod check;
#[cfg(feature = "eventbridge")]
mod events;
mod policy;
#[cfg(feature = "sqs")]
mod queue;
#[cfg(feature = "sns")]
mod topic;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Action, Plan, RemoteResource, Step};
use crate::{
    client::aws::{AwsClients, AwsError, Fault},
    core::market::quantity::Micros,
    error::{Error, ErrorCode, Result},
};

/// Resources that are looked at or changed at the same time.
const CONCURRENCY: usize = 8;

/// Why a schedule is removed.
const NO_TRIGGER: &str = "no trigger has this name";

/// Who makes a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// `setup`, under `<prefix>-<name>`.
    Us(String),
    /// Somebody else: its ARN.
    Other(String),
}

impl Owner {
    /// From a key of the configuration that is empty, or has an ARN.
    #[must_use]
    pub fn of(arn: &str, name: &str) -> Self {
        if arn.is_empty() { Self::Us(name.to_owned()) } else { Self::Other(arn.to_owned()) }
    }

    /// The name at AWS, in a service whose ARNs end in the name after the last of these characters.
    #[must_use]
    pub fn full_name(&self, clients: &AwsClients, before: char) -> String {
        match self {
            Self::Us(name) => clients.name(name),
            Self::Other(arn) => arn.rsplit(before).next().unwrap_or(arn).to_owned(),
        }
    }
}

/// A queue. Names are without the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name.
    pub name: String,
    /// How long a message is hidden when a receiver does not say.
    pub visibility: Micros,
    /// How long a message is kept.
    pub retention: Micros,
    /// The queue of dead letters, and the deliveries after which a message goes there.
    pub dead_letters: Option<(String, u32)>,
    /// Whether schedules send to it.
    pub scheduled: bool,
}

/// A schedule with its one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleSpec {
    /// Its name.
    pub name: String,
    /// Whole minutes.
    pub every: Micros,
    /// The queue, without the prefix.
    pub queue: String,
    /// The message.
    pub body: String,
}

/// Everything that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AwsLayout {
    /// The queues.
    pub queues: Vec<QueueSpec>,
    /// The bucket of the daemon's own data.
    pub bucket: Option<Owner>,
    /// The bus of domain events.
    pub bus: Option<Owner>,
    /// The schedules.
    pub schedules: Vec<ScheduleSpec>,
    /// The topic of alerts.
    pub topic: Option<Owner>,
    /// The key that signs the operator's transactions: its id or ARN. It is always somebody else's.
    pub signer: Option<String>,
}

/// How a resource was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// As it should be.
    Right,
    Missing,
    /// With these differences.
    #[cfg_attr(
        not(any(feature = "s3", feature = "sqs")),
        expect(dead_code, reason = "a topic is there or not")
    )]
    Different(Vec<String>),
}

/// One resource.
#[async_trait]
trait Item: Send + Sync {
    fn kind(&self) -> &'static str;
    fn name(&self) -> String;
    /// Those of a lower rank are made first, and removed last.
    fn rank(&self) -> u8;
    /// Whether it is somebody else's.
    fn foreign(&self) -> bool {
        false
    }
    /// The service, for [`check`].
    fn service(&self) -> &'static str;
    async fn look(&self) -> Result<Found, AwsError>;
    /// What a person should know although everything is as it should be.
    async fn strained(&self) -> Result<Option<check::Strain>, AwsError> {
        Ok(None)
    }
    /// Makes it, or mends what differs.
    async fn mend(&self, found: &Found) -> Result<(), AwsError>;
    /// Removes it; a missing one is no error.
    async fn remove(&self) -> Result<(), AwsError>;
}

/// Everything that must be there, at AWS.
pub struct AwsResources {
    clients: AwsClients,
    layout: AwsLayout,
    items: Vec<Box<dyn Item>>,
}

fn failed(what: &dyn Item, error: AwsError) -> Error {
    let code = match error.fault {
        Fault::Unreachable | Fault::Throttled => ErrorCode::Unavailable,
        _ => ErrorCode::InvalidConfig,
    };
    Error::new(code, format!("{} `{}`: {error}", what.kind(), what.name())).because(error)
}

impl AwsResources {
    /// The resources of a layout. Those of a service that this build lacks are left out: the configuration is refused before.
    #[must_use]
    pub fn new(clients: AwsClients, layout: AwsLayout) -> Self {
        let mut items: Vec<Box<dyn Item>> = Vec::new();
        #[cfg(feature = "sqs")]
        for queue in &layout.queues {
            items.push(Box::new(queue::Queue::new(clients.clone(), queue.clone())));
        }
        #[cfg(feature = "s3")]
        if let Some(owner) = &layout.bucket {
            items.push(Box::new(bucket::Bucket::new(clients.clone(), owner.clone())));
        }
        #[cfg(feature = "eventbridge")]
        {
            if let Some(owner) = &layout.bus {
                items.push(Box::new(events::Bus::new(clients.clone(), owner.clone())));
            }
            for schedule in &layout.schedules {
                items.push(Box::new(events::Schedule::new(clients.clone(), schedule.clone())));
            }
        }
        #[cfg(feature = "sns")]
        if let Some(owner) = &layout.topic {
            items.push(Box::new(topic::Topic::new(clients.clone(), owner.clone())));
        }
        items.sort_by_key(|item| item.rank());
        Self { clients, layout, items }
    }

    /// Schedules that `setup` made once and nothing needs any more.
    #[cfg(feature = "eventbridge")]
    async fn left_over(&self) -> Result<Vec<String>> {
        events::left_over(&self.clients, &self.layout).await.map_err(|error| {
            let code = if error.retryable() { ErrorCode::Unavailable } else { ErrorCode::InvalidConfig };
            Error::new(code, format!("schedules: {error}")).because(error)
        })
    }

    /// Without EventBridge in the build no schedule was made there.
    #[cfg(not(feature = "eventbridge"))]
    async fn left_over(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Removes schedules by their names, without the prefix.
    #[cfg(feature = "eventbridge")]
    async fn remove_left_over(&self, names: &[String]) -> Result<()> {
        let rules = crate::client::aws::rules::Rules::new(self.clients.clone(), None);
        for name in names {
            let removed = rules.delete(name).await;
            removed.map_err(|error| {
                Error::new(ErrorCode::InvalidConfig, format!("schedule `{}`: {error}", rules.full(name)))
                    .because(error)
            })?;
        }
        Ok(())
    }

    #[cfg(not(feature = "eventbridge"))]
    async fn remove_left_over(&self, _: &[String]) -> Result<()> {
        Ok(())
    }

    /// What stands in a plan for schedules that are left over.
    fn removals(&self, names: &[String], reason: Option<&str>) -> Vec<Step> {
        let step = |name: &String| Step {
            kind: "schedule",
            name: format!("{}.{name}", self.clients.prefix()),
            action: Action::Remove,
            changes: reason.map(str::to_owned).into_iter().collect(),
        };
        names.iter().map(step).collect()
    }

    async fn look(&self) -> Result<Vec<Found>> {
        let looks: Vec<_> = self
            .items
            .iter()
            .map(|item| async move {
                match item.look().await.map_err(|error| failed(&**item, error))? {
                    Found::Missing if item.foreign() => Err(Error::new(
                        ErrorCode::InvalidConfig,
                        format!(
                            "{} `{}` does not exist; make it, or leave its ARN out so that setup makes one",
                            item.kind(),
                            item.name()
                        ),
                    )),
                    found => Ok(found),
                }
            })
            .collect();
        stream::iter(looks).buffered(CONCURRENCY).try_collect().await
    }

    fn steps(&self, found: &[Found]) -> Plan {
        let step = |(item, found): (&dyn Item, &Found)| {
            let (action, changes) = match found {
                Found::Right => (Action::Exists, Vec::new()),
                Found::Missing => (Action::Create, Vec::new()),
                Found::Different(changes) => (Action::Change, changes.clone()),
            };
            Step { kind: item.kind(), name: item.name(), action, changes }
        };
        Plan {
            steps: self.items.iter().map(|item| &**item).zip(found).map(step).collect(),
            ..Plan::default()
        }
    }
}

#[async_trait]
impl RemoteResource for AwsResources {
    async fn plan(&self) -> Result<Plan> {
        let mut plan = self.steps(&self.look().await?);
        plan.steps.extend(self.removals(&self.left_over().await?, Some(NO_TRIGGER)));
        Ok(plan)
    }

    async fn apply(&self) -> Result<Plan> {
        let (found, left_over) = (self.look().await?, self.left_over().await?);
        let mut plan = self.steps(&found);
        plan.steps.extend(self.removals(&left_over, Some(NO_TRIGGER)));
        let todo: Vec<_> =
            self.items.iter().zip(&found).filter(|(_, found)| **found != Found::Right).collect();
        for rank in todo.chunk_by(|(a, _), (b, _)| a.rank() == b.rank()) {
            let mends: Vec<_> = rank
                .iter()
                .map(|(item, found)| async move {
                    item.mend(found).await.map_err(|error| failed(&***item, error))
                })
                .collect();
            stream::iter(mends).buffered(CONCURRENCY).try_collect::<()>().await?;
        }
        self.remove_left_over(&left_over).await?;
        self.verify().await?;
        Ok(plan)
    }

    async fn verify(&self) -> Result<()> {
        for step in self.plan().await?.steps {
            let problem = match step.action {
                Action::Exists => continue,
                Action::Remove => format!("is left over: {NO_TRIGGER}"),
                Action::Create => "does not exist".to_owned(),
                Action::Change => format!("differs: {}", step.changes.join(", ")),
            };
            return Err(Error::new(
                ErrorCode::InvalidConfig,
                format!("{} `{}` {problem}; `orchestrator setup` mends it", step.kind, step.name),
            ));
        }
        Ok(())
    }

    async fn plan_destroy(&self) -> Result<Plan> {
        // What is somebody else's is not even looked at: it may be gone, and nothing here depends on it.
        let looks: Vec<_> = self
            .items
            .iter()
            .rev()
            .filter(|item| !item.foreign())
            .map(|item| async move {
                let found = item.look().await.map_err(|error| failed(&**item, error))?;
                let step = Step {
                    kind: item.kind(),
                    name: item.name(),
                    action: Action::Remove,
                    changes: Vec::new(),
                };
                Ok::<_, Error>((found != Found::Missing).then_some(step))
            })
            .collect();
        let steps: Vec<Option<Step>> = stream::iter(looks).buffered(CONCURRENCY).try_collect().await?;
        let mut plan = Plan { steps: steps.into_iter().flatten().collect(), ..Plan::default() };
        plan.steps.extend(self.removals(&self.left_over().await?, None));
        Ok(plan)
    }

    async fn destroy(&self) -> Result<Plan> {
        let plan = self.plan_destroy().await?;
        self.remove_left_over(&self.left_over().await?).await?;
        let ours: Vec<_> = self.items.iter().rev().filter(|item| !item.foreign()).collect();
        for rank in ours.chunk_by(|a, b| a.rank() == b.rank()) {
            let removals: Vec<_> = rank
                .iter()
                .map(|item| async move { item.remove().await.map_err(|error| failed(&***item, error)) })
                .collect();
            stream::iter(removals).buffered(CONCURRENCY).try_collect::<()>().await?;
        }
        Ok(plan)
    }
}
