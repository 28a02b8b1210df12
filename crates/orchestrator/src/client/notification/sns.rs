//! Notifications by SNS: topics `<prefix>-<topic>`, or one that exists. A subscriber is an `https://` address, a mailbox
//! `mailto:…`, or the ARN of a queue whose policy lets the topic send. SNS delivers to each by itself and tries again by
//! itself; web addresses and mailboxes must confirm first.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_sns::types::{MessageAttributeValue, Subscription};
use parking_lot::RwLock;
use serde_json::json;

use crate::{
    client::aws::{AwsClients, AwsError},
    core::client::notification::{Notification, NotificationClient, NotificationError},
};

/// Longest subject.
const MAX_SUBJECT: usize = 100;
/// Longest message in bytes, with room for its frame.
const MAX_BODY: usize = 250 << 10;

/// Notifications by SNS.
pub struct SnsNotifier {
    clients: AwsClients,
    /// Topics that were not made by `setup`: their ARNs by the port's names.
    existing: HashMap<String, String>,
    known: RwLock<HashMap<String, String>>,
}

fn undelivered(error: AwsError) -> NotificationError {
    NotificationError::Undelivered(Box::new(error))
}

fn no_topic(topic: &str) -> NotificationError {
    NotificationError::NoTopic(topic.to_owned())
}

/// The protocol and the endpoint of an address.
fn endpoint(address: &str) -> Result<(&'static str, &str), NotificationError> {
    let invalid = |reason: &str| {
        Err(NotificationError::InvalidAddress { address: address.to_owned(), reason: reason.to_owned() })
    };
    if let Some(mailbox) = address.strip_prefix("mailto:") {
        return match mailbox.split_once('@') {
            Some((user, host)) if !user.is_empty() && host.contains('.') => Ok(("email", mailbox)),
            _ => invalid("it is no mailbox"),
        };
    }
    if address.starts_with("arn:") {
        return match address.split(':').nth(2) {
            Some("sqs") => Ok(("sqs", address)),
            _ => invalid("only queues at SQS can be subscribed by their ARN"),
        };
    }
    match url::Url::parse(address) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => invalid("it has a password"),
        Ok(url) if url.scheme() == "https" => Ok(("https", address)),
        Ok(url) if url.scheme() == "http" => Ok(("http", address)),
        Ok(_) => invalid("SNS delivers to https, http, mailto and ARNs of queues"),
        Err(_) => invalid("it is no address"),
    }
}

/// A subject as SNS takes it: ASCII without control characters, not too long, not blank.
fn subject(text: &str) -> String {
    let printable = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    let subject: String = text.trim().chars().map(printable).take(MAX_SUBJECT).collect();
    if subject.is_empty() { "notification".to_owned() } else { subject }
}

/// The message: the notification with its topic, as webhooks get it. Details that are too long for SNS are cut: an alert that
/// tells half is better than one that never comes.
fn message(topic: &str, notification: &Notification) -> String {
    let frame = |body: serde_json::Value| json!({ "topic": topic, "id": notification.id, "subject": notification.subject, "body": body });
    let whole = frame(notification.body.clone()).to_string();
    if whole.len() <= MAX_BODY {
        return whole;
    }
    let text = notification.body.to_string();
    // Within a string each character may be written as six.
    let mut end = MAX_BODY / 8;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    frame(json!({ "truncated": text.get(..end).unwrap_or_default() })).to_string()
}

impl SnsNotifier {
    /// Topics whose names start with the clients' prefix.
    #[must_use]
    pub fn new(clients: AwsClients) -> Self {
        Self { clients, existing: HashMap::new(), known: RwLock::default() }
    }

    /// With a topic that exists, by its ARN, in the place of the one that `setup` would make.
    #[must_use]
    pub fn with_existing(mut self, topic: &str, arn: impl Into<String>) -> Self {
        self.existing.insert(topic.to_owned(), arn.into());
        self
    }

    /// The ARN of a topic that exists.
    async fn arn(&self, topic: &str) -> Result<String, NotificationError> {
        if let Some(arn) = self.known.read().get(topic) {
            return Ok(arn.clone());
        }
        let arn = match self.existing.get(topic) {
            Some(arn) => arn.clone(),
            None => self.clients.arn("sns", &self.clients.name(topic)).await.map_err(undelivered)?,
        };
        match self.clients.sns().get_topic_attributes().topic_arn(&arn).send().await {
            Ok(_) => {
                self.known.write().insert(topic.to_owned(), arn.clone());
                Ok(arn)
            }
            Err(error) => match AwsError::new("sns:GetTopicAttributes", error) {
                error if error.is_missing() => Err(no_topic(topic)),
                error => Err(undelivered(error)),
            },
        }
    }

    async fn subscriptions(&self, arn: &str) -> Result<Vec<Subscription>, AwsError> {
        let (mut all, mut token) = (Vec::new(), None);
        loop {
            let list = self.clients.sns().list_subscriptions_by_topic().topic_arn(arn);
            let page = list.set_next_token(token).send().await;
            let page = page.map_err(|error| AwsError::new("sns:ListSubscriptionsByTopic", error))?;
            all.extend(page.subscriptions.unwrap_or_default());
            token = page.next_token;
            if token.is_none() {
                return Ok(all);
            }
        }
    }
}

#[async_trait]
impl NotificationClient for SnsNotifier {
    async fn create_topic(&self, topic: &str) -> Result<(), NotificationError> {
        match self.arn(topic).await {
            // An existing topic is the operator's to make.
            Err(NotificationError::NoTopic(_)) if !self.existing.contains_key(topic) => {}
            result => return result.map(drop),
        }
        let made = self.clients.sns().create_topic().name(self.clients.name(topic)).send().await;
        let made = made.map_err(|error| undelivered(AwsError::new("sns:CreateTopic", error)))?;
        self.known.write().insert(topic.to_owned(), made.topic_arn.unwrap_or_default());
        Ok(())
    }

    async fn topics(&self) -> Result<Vec<String>, NotificationError> {
        let start = self.clients.name("");
        let mut names: Vec<String> = self.existing.keys().cloned().collect();
        let mut token = None;
        loop {
            let page = self.clients.sns().list_topics().set_next_token(token).send().await;
            let page = page.map_err(|error| undelivered(AwsError::new("sns:ListTopics", error)))?;
            for topic in page.topics.unwrap_or_default() {
                let name = topic.topic_arn().and_then(|arn| arn.rsplit(':').next());
                names.extend(name.and_then(|name| name.strip_prefix(&start)).map(str::to_owned));
            }
            token = page.next_token;
            if token.is_none() {
                names.sort();
                names.dedup();
                return Ok(names);
            }
        }
    }

    async fn subscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        let arn = self.arn(topic).await?;
        let (protocol, endpoint) = endpoint(address)?;
        let found = self.subscriptions(&arn).await.map_err(undelivered)?;
        let same = |s: &Subscription| s.protocol() == Some(protocol) && s.endpoint() == Some(endpoint);
        if found.iter().any(same) {
            return Ok(());
        }
        let subscribe = self.clients.sns().subscribe().topic_arn(arn).protocol(protocol).endpoint(endpoint);
        // A queue and a webhook get the message itself, without SNS's own frame around it.
        let raw = (protocol != "email").then(|| ("RawMessageDelivery".to_owned(), "true".to_owned()));
        let subscribe = subscribe.set_attributes(raw.map(|raw| HashMap::from([raw])));
        subscribe.send().await.map_err(|error| undelivered(AwsError::new("sns:Subscribe", error)))?;
        Ok(())
    }

    async fn unsubscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        let arn = self.arn(topic).await?;
        // What can't be subscribed is not subscribed.
        let Ok((protocol, endpoint)) = endpoint(address) else { return Ok(()) };
        for found in self.subscriptions(&arn).await.map_err(undelivered)? {
            let same = found.protocol() == Some(protocol) && found.endpoint() == Some(endpoint);
            // One that waits for its confirmation has no ARN yet; it runs out by itself.
            let confirmed = found.subscription_arn().filter(|arn| arn.starts_with("arn:"));
            if let Some(subscription) = confirmed.filter(|_| same) {
                let remove = self.clients.sns().unsubscribe().subscription_arn(subscription).send().await;
                remove.map_err(|error| undelivered(AwsError::new("sns:Unsubscribe", error)))?;
            }
        }
        Ok(())
    }

    async fn publish(&self, topic: &str, notification: &Notification) -> Result<(), NotificationError> {
        let arn = self.arn(topic).await?;
        let odd = |error: String| undelivered(AwsError::odd("sns:Publish", error));
        let id = MessageAttributeValue::builder().data_type("String").string_value(&notification.id).build();
        let publish = self
            .clients
            .sns()
            .publish()
            .topic_arn(arn)
            .subject(subject(&notification.subject))
            .message(message(topic, notification))
            .message_attributes("id", id.map_err(|error| odd(error.to_string()))?);
        match publish.send().await {
            Ok(_) => Ok(()),
            Err(error) => match AwsError::new("sns:Publish", error) {
                error if error.is_missing() => {
                    self.known.write().remove(topic);
                    Err(no_topic(topic))
                }
                error => Err(undelivered(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_protocol_or_a_reason() {
        assert_eq!(endpoint("https://a.example/x").unwrap(), ("https", "https://a.example/x"));
        assert_eq!(endpoint("mailto:ops@a.example").unwrap(), ("email", "ops@a.example"));
        assert_eq!(endpoint("arn:aws:sqs:r:1:q").unwrap().0, "sqs");
        for bad in ["log:", "nonsense", "mailto:ops", "arn:aws:lambda:r:1:f", "https://u:p@a.example/", ""] {
            let refused = endpoint(bad);
            assert!(matches!(refused, Err(NotificationError::InvalidAddress { .. })), "{bad}");
        }
    }

    #[test]
    fn subjects_and_bodies_fit() {
        assert_eq!(subject("  disk\nfull \u{e4}"), "disk?full ?");
        assert_eq!(subject(&"x".repeat(200)).len(), MAX_SUBJECT);
        assert_eq!(subject(" \n"), "notification");
        for text in ["\u{1f600}".repeat(100_000), "\"\u{1}".repeat(200_000)] {
            let long = Notification { id: "n".into(), subject: "s".into(), body: json!(text) };
            let message = message("alerts", &long);
            assert!(message.len() <= MAX_BODY, "{}", message.len());
            assert!(message.contains("truncated"));
        }
    }
}
