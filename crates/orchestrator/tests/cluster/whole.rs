//! The configuration of a whole cluster, every back end in use, on the servers that tests share, under names of a test's own;
//! and SDK clients that know nothing of the daemon's.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sts::config::Credentials;
use mongodb::bson::Document;
use serde_json::Value;

use super::{
    servers::variable,
    world::{prefix, vault_key},
};
use crate::daemon::harness::{Finished, Place, output};

/// The region of these tests.
pub const REGION: &str = "us-east-1";

/// Rates that EventBridge keeps, where the usual ones are shorter than a minute.
pub const EVENT_BRIDGE_RATES: [(&str, &str); 8] = [
    ("triggers.end_periods", "60s"),
    ("triggers.close_sla_windows", "60s"),
    ("triggers.seal_blocks", "60s"),
    ("triggers.watch_deposits", "60s"),
    ("triggers.pay_out", "60s"),
    ("triggers.unit_maintenance", "60s"),
    ("triggers.expire_credentials", "60s"),
    ("triggers.expire_reservations", "60s"),
];

/// A configuration with every back end, and its names.
pub struct Whole {
    pub place: Place,
    pub prefix: String,
    pub endpoint: String,
}

impl Whole {
    /// On the servers of `cargo xtask test`.
    pub fn new() -> Self {
        Self::at(&variable("ORCHESTRATOR_TEST_AWS_ENDPOINT"))
    }

    /// With AWS at another address.
    pub fn at(endpoint: &str) -> Self {
        let (prefix, place) = (prefix(), Place::new());
        let vault = vault_key(place.dir.path());
        let settings = [
            ("database.backend", "mongodb".to_owned()),
            ("database.url", variable("ORCHESTRATOR_TEST_MONGODB_URL")),
            ("database.name", prefix.clone()),
            ("storage.backend", "s3".to_owned()),
            ("queue.backend", "sqs".to_owned()),
            ("jobs.dispatch", "sqs".to_owned()),
            ("schedule.backend", "event_bridge".to_owned()),
            ("events.backend", "event_bridge".to_owned()),
            ("notification.backend", "sns".to_owned()),
            ("cache.backend", "redis".to_owned()),
            ("cache.url", variable("ORCHESTRATOR_TEST_REDIS_URL")),
            ("aws.endpoint", endpoint.to_owned()),
            ("aws.region", REGION.to_owned()),
            ("aws.prefix", prefix.clone()),
            ("provider.cohosted", "false".to_owned()),
            ("settlement.dir", place.dir.path().join("chain").display().to_string()),
            ("data.vault_key_file", vault.display().to_string()),
        ];
        let place = settings.iter().fold(place, |place, (key, value)| place.with(key, value));
        let whole = Self { place, prefix, endpoint: endpoint.to_owned() };
        EVENT_BRIDGE_RATES.iter().fold(whole, |whole, (trigger, rate)| whole.with(trigger, rate))
    }

    /// With one more setting.
    pub fn with(self, key: &str, value: &str) -> Self {
        Self { place: self.place.with(key, value), ..self }
    }

    /// Runs a command in an environment with these variables too.
    pub async fn cli_in(&self, environment: &[(&str, &str)], args: &[&str]) -> Finished {
        let mut command = self.place.command(args);
        for (name, value) in environment {
            match *value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        output(command).await
    }

    /// What `setup` with these arguments did or would do, by kind and name.
    pub async fn steps(&self, args: &[&str]) -> Vec<Step> {
        let args: Vec<&str> = ["setup", "--json"].iter().chain(args).copied().collect();
        let plan = self.place.cli(&args).await.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let step = |step: &Value| Step {
            kind: text(&step["kind"]),
            name: text(&step["name"]),
            action: text(&step["action"]),
            changes: step["changes"].to_string(),
        };
        plan["steps"].as_array().unwrap().iter().map(step).collect()
    }

    /// Queues whose names begin with the prefix, as an SDK finds them.
    pub async fn queues(&self) -> Vec<String> {
        let found = Sdk::at(&self.endpoint, REGION, "test").await.sqs.list_queues();
        let found = found.queue_name_prefix(&self.prefix).max_results(1_000).send().await.unwrap();
        found.queue_urls.unwrap_or_default()
    }

    /// The database, by the driver.
    pub async fn database(&self) -> mongodb::Database {
        let client = mongodb::Client::with_uri_str(self.place.setting("database.url")).await.unwrap();
        client.database(&self.prefix)
    }

    /// Removes everything.
    pub async fn clean(&self) {
        self.place.cli(&["setup", "--destroy", "--yes"]).await.ends(0, &[]);
        self.database().await.drop().await.unwrap();
    }

    /// Names of a collection's indexes, without that of the id.
    pub async fn indexes(&self, collection: &str) -> Vec<String> {
        let names = self.database().await.collection::<Document>(collection).list_index_names().await;
        names.unwrap().into_iter().filter(|name| name != "_id_").collect()
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub kind: String,
    pub name: String,
    pub action: String,
    pub changes: String,
}

/// Clients of an emulator as the SDK makes them.
pub struct Sdk {
    pub sqs: aws_sdk_sqs::Client,
    pub s3: aws_sdk_s3::Client,
    pub sns: aws_sdk_sns::Client,
    pub events: aws_sdk_eventbridge::Client,
}

impl Sdk {
    /// In a region, with an access key: twelve digits are an account of LocalStack's.
    pub async fn at(endpoint: &str, region: &str, key: &str) -> Self {
        let config: SdkConfig = aws_config::defaults(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new(region.to_owned()))
            .credentials_provider(Credentials::new(key, "test", None, None, "test"))
            .endpoint_url(endpoint)
            .load()
            .await;
        let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        Self {
            sqs: aws_sdk_sqs::Client::new(&config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            sns: aws_sdk_sns::Client::new(&config),
            events: aws_sdk_eventbridge::Client::new(&config),
        }
    }

    /// A bucket, in the region of the client.
    pub async fn bucket(&self, name: &str, region: &str) {
        use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
        let place = (region != REGION).then(|| {
            let region = BucketLocationConstraint::from(region);
            CreateBucketConfiguration::builder().location_constraint(region).build()
        });
        let create = self.s3.create_bucket().bucket(name).set_create_bucket_configuration(place);
        create.send().await.unwrap();
    }
}
