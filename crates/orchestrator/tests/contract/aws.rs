//! Clients of the AWS emulator that the environment names, each with a prefix of its own, so that tests share one server.

use std::sync::atomic::{AtomicU32, Ordering};

use orchestrator::client::aws::{AwsClients, AwsSettings};

/// The region of all tests.
pub const REGION: &str = "eu-central-1";

/// The address of the emulator.
pub fn endpoint() -> String {
    std::env::var("ORCHESTRATOR_TEST_AWS_ENDPOINT").expect(
        "ORCHESTRATOR_TEST_AWS_ENDPOINT must name an AWS emulator, such as http://127.0.0.1:4566; `cargo xtask test` sets it",
    )
}

/// A prefix that no other test has.
pub fn prefix(test: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).unwrap();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{test}-{}-{count}", hex::encode(random))
}

/// Clients with a prefix of their own.
pub async fn clients(test: &str) -> AwsClients {
    clients_with(&prefix(test), "test").await
}

/// Clients with this prefix and access key; on the emulator a key of twelve digits is an account.
pub async fn clients_with(prefix: &str, key: &str) -> AwsClients {
    let settings = AwsSettings { region: REGION.into(), endpoint: endpoint(), prefix: prefix.into() };
    AwsClients::with_key(&settings, key, "test").await.unwrap()
}

#[cfg(feature = "sqs")]
mod sqs {
    use std::sync::Arc;

    use aws_sdk_sqs::types::MessageAttributeValue;
    use orchestrator::client::{
        clock::SystemClock,
        queue::{QueueAttributes, SqsQueue},
    };

    use super::*;

    /// A queue client of its own, as another process has.
    pub fn queue(clients: &AwsClients) -> Arc<SqsQueue> {
        Arc::new(SqsQueue::new(clients.clone(), Arc::new(SystemClock::new()), QueueAttributes::default()))
    }

    /// An SDK client that knows nothing of ours.
    async fn raw() -> aws_sdk_sqs::Client {
        let key = aws_sdk_sqs::config::Credentials::new("test", "test", None, None, "test");
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(key)
            .region(aws_sdk_sqs::config::Region::new(REGION))
            .endpoint_url(endpoint());
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    /// The address of a queue.
    async fn url(clients: &AwsClients, queue: &str) -> String {
        let found = raw().await.get_queue_url().queue_name(clients.name(queue)).send().await.unwrap();
        found.queue_url.unwrap()
    }

    /// Sends a message as it is.
    pub async fn raw_send(clients: &AwsClients, queue: &str, body: &str, attributes: &[(&str, &str)]) {
        let mut send = raw().await.send_message().queue_url(url(clients, queue).await).message_body(body);
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(*value);
            send = send.message_attributes(*name, value.build().unwrap());
        }
        send.send().await.unwrap();
    }
}

#[cfg(feature = "sqs")]
pub use sqs::{queue, raw_send};

/// An SDK client that knows nothing of ours.
#[cfg(all(feature = "eventbridge", feature = "s3", feature = "sns"))]
pub fn raw_events() -> aws_sdk_eventbridge::Client {
    use aws_sdk_eventbridge::config::{BehaviorVersion, Credentials, Region};
    let config = aws_sdk_eventbridge::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .region(Region::new(REGION))
        .endpoint_url(endpoint());
    aws_sdk_eventbridge::Client::from_conf(config.build())
}

#[cfg(feature = "s3")]
mod s3 {
    use aws_sdk_s3::{
        config::{BehaviorVersion, Credentials, Region},
        types::{BucketLocationConstraint, CreateBucketConfiguration},
    };

    use super::*;

    /// An SDK client that knows nothing of ours.
    pub fn raw_s3() -> aws_sdk_s3::Client {
        raw_s3_at(&endpoint())
    }

    /// An SDK client of another server.
    pub fn raw_s3_at(endpoint: &str) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .region(Region::new(REGION))
            .force_path_style(true)
            .endpoint_url(endpoint);
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// A bucket that a test has for itself.
    pub async fn bucket(clients: &AwsClients) -> (aws_sdk_s3::Client, String) {
        let (raw, name) = (raw_s3(), clients.name("data"));
        let place = CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::from(REGION))
            .build();
        raw.create_bucket().bucket(&name).create_bucket_configuration(place).send().await.unwrap();
        (raw, name)
    }
}

#[cfg(feature = "s3")]
pub use s3::{bucket, raw_s3, raw_s3_at};
