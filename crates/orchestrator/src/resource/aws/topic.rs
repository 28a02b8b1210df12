//! The topic of alerts at SNS.

use async_trait::async_trait;

use super::{Found, Item, Owner};
use crate::client::aws::{AwsClients, AwsError};

pub(super) struct Topic {
    clients: AwsClients,
    owner: Owner,
}

impl Topic {
    pub(super) fn new(clients: AwsClients, owner: Owner) -> Self {
        Self { clients, owner }
    }

    async fn arn(&self) -> Result<String, AwsError> {
        match &self.owner {
            Owner::Us(_) => self.clients.arn("sns", &self.name()).await,
            Owner::Other(arn) => Ok(arn.clone()),
        }
    }
}

#[async_trait]
impl Item for Topic {
    fn kind(&self) -> &'static str {
        "topic"
    }

    fn name(&self) -> String {
        self.owner.full_name(&self.clients, ':')
    }

    fn rank(&self) -> u8 {
        2
    }

    fn foreign(&self) -> bool {
        matches!(self.owner, Owner::Other(_))
    }

    fn service(&self) -> &'static str {
        "sns"
    }

    async fn look(&self) -> Result<Found, AwsError> {
        let get = self.clients.sns().get_topic_attributes().topic_arn(self.arn().await?);
        match get.send().await {
            Ok(_) => Ok(Found::Right),
            Err(error) => match AwsError::new("sns:GetTopicAttributes", error) {
                error if error.is_missing() => Ok(Found::Missing),
                error => Err(error),
            },
        }
    }

    async fn mend(&self, _: &Found) -> Result<(), AwsError> {
        let made = self.clients.sns().create_topic().name(self.name()).send().await;
        made.map_err(|error| AwsError::new("sns:CreateTopic", error))?;
        Ok(())
    }

    async fn remove(&self) -> Result<(), AwsError> {
        match self.clients.sns().delete_topic().topic_arn(self.arn().await?).send().await {
            Ok(_) => Ok(()),
            Err(error) => match AwsError::new("sns:DeleteTopic", error) {
                error if error.is_missing() => Ok(()),
                error => Err(error),
            },
        }
    }
}
