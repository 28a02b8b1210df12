//! The policy that the daemon itself needs: enough to work on what `setup` has made, and not to make or change any of it.

use serde_json::{Value, json};

use super::{AwsResources, Owner};
use crate::client::aws::{AwsClients, AwsError};

fn statement(sid: &str, actions: &[&str], resources: &[String]) -> Value {
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources })
}

async fn arn(clients: &AwsClients, owner: &Owner, service: &str, kind: &str) -> Result<String, AwsError> {
    match owner {
        Owner::Us(name) => clients.arn(service, &format!("{kind}{}", clients.name(name))).await,
        Owner::Other(arn) => Ok(arn.clone()),
    }
}

impl AwsResources {
    /// The least that the daemon needs, as an IAM policy document.
    ///
    /// # Errors
    /// When AWS can't be asked which account this is.
    pub async fn policy(&self) -> Result<Value, AwsError> {
        let (clients, layout) = (&self.clients, &self.layout);
        let mut statements = Vec::new();
        let mut queues = Vec::new();
        for queue in &layout.queues {
            queues.push(clients.arn("sqs", &clients.name(&queue.name)).await?);
        }
        if !queues.is_empty() {
            let actions = [
                "sqs:GetQueueUrl",
                "sqs:GetQueueAttributes",
                "sqs:SendMessage",
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:ChangeMessageVisibility",
            ];
            statements.push(statement("Queues", &actions, &queues));
        }
        if let Some(owner) = &layout.bucket {
            let partition = clients.identity().await?.arn.split(':').nth(1).unwrap_or("aws").to_owned();
            let bucket = format!("arn:{partition}:s3:::{}", owner.full_name(clients, ':'));
            let actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"];
            statements.push(statement("Objects", &actions, &[format!("{bucket}/*")]));
            // Without the right to list S3 answers "forbidden" where it means "missing"; `ready` and `doctor` look at how
            // the bucket is set.
            let mut actions = vec!["s3:ListBucket"];
            if matches!(owner, Owner::Us(_)) {
                actions.extend(["s3:GetBucketPublicAccessBlock", "s3:GetLifecycleConfiguration"]);
            }
            statements.push(statement("Bucket", &actions, &[bucket]));
        }
        if let Some(owner) = &layout.bus {
            let bus = arn(clients, owner, "events", "event-bus/").await?;
            statements.push(statement("Events", &["events:PutEvents", "events:DescribeEventBus"], &[bus]));
        }
        if !layout.schedules.is_empty() {
            let mut rules = Vec::new();
            for schedule in &layout.schedules {
                let rule = format!("rule/{}.{}", clients.prefix(), schedule.name);
                rules.push(clients.arn("events", &rule).await?);
            }
            let actions = ["events:DescribeRule", "events:ListTargetsByRule"];
            statements.push(statement("Schedules", &actions, &rules));
        }
        if let Some(owner) = &layout.topic {
            let topic = arn(clients, owner, "sns", "").await?;
            let actions =
                ["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic", "sns:Subscribe", "sns:Publish"];
            statements.push(statement("Alerts", &actions, &[topic]));
        }
        if let Some(key) = &layout.signer {
            let key = match key.starts_with("arn:") {
                true => key.clone(),
                false => clients.arn("kms", &format!("key/{key}")).await?,
            };
            statements.push(statement("Signer", &["kms:GetPublicKey", "kms:Sign"], &[key]));
        }
        Ok(json!({ "Version": "2012-10-17", "Statement": statements }))
    }
}
