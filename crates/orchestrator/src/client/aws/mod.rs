//! What the adapters at AWS share: one configuration, one connection pool and one SDK client per service for the whole
//! process, bounds on the time of every call, and one reading of what an SDK's error means.

mod error;
mod policy;
#[cfg(feature = "eventbridge")]
pub(crate) mod rules;

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sts::config::SharedHttpClient;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
pub use error::{AwsError, Fault};
pub use policy::{Statement, has_statement, with_statement};
use tokio::sync::OnceCell;

/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest time of one attempt; a long poll has its own.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Longest time of a call with all its attempts.
const CALL: Duration = Duration::from_secs(30);
/// Longest time of one attempt that moves the bytes of a part of an object.
#[cfg(feature = "s3")]
const TRANSFER: Duration = Duration::from_secs(60);
/// Attempts of one call.
const ATTEMPTS: u32 = 4;

/// How AWS is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AwsSettings {
    /// The region. Empty: that of the environment or the profile.
    pub region: String,
    /// Another address for all services. Empty: those of AWS.
    pub endpoint: String,
    /// First part of every name.
    pub prefix: String,
}

/// Who the credentials belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The account's number.
    pub account: String,
    /// The user or role.
    pub arn: String,
}

/// The clients of one process; clones share everything.
#[derive(Clone)]
pub struct AwsClients {
    shared: Arc<Shared>,
}

struct Shared {
    prefix: String,
    region: String,
    sts: aws_sdk_sts::Client,
    identity: OnceCell<Identity>,
    #[cfg(feature = "sqs")]
    sqs: aws_sdk_sqs::Client,
    #[cfg(feature = "s3")]
    s3: aws_sdk_s3::Client,
    #[cfg(feature = "eventbridge")]
    events: aws_sdk_eventbridge::Client,
    #[cfg(feature = "kms")]
    kms: aws_sdk_kms::Client,
    #[cfg(feature = "sns")]
    sns: aws_sdk_sns::Client,
}

/// The bounds on every call.
fn timeouts(attempt: Duration, call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(call)
        .build()
}

/// The connections of one process.
fn http() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

fn loader(settings: &AwsSettings) -> aws_config::ConfigLoader {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http())
        .timeout_config(timeouts(ATTEMPT, CALL))
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    if !settings.region.is_empty() {
        loader = loader.region(Region::new(settings.region.clone()));
    }
    if !settings.endpoint.is_empty() {
        loader = loader.endpoint_url(settings.endpoint.clone());
    }
    loader
}

impl AwsClients {
    /// Clients with the credentials of the usual chain: environment, profile, web identity, container, instance. Nothing is
    /// called yet.
    ///
    /// # Errors
    /// When no region is set anywhere.
    pub async fn new(settings: &AwsSettings) -> Result<Self, AwsError> {
        Self::build(settings, &loader(settings).load().await)
    }

    /// Clients with a key pair of a test.
    ///
    /// # Errors
    /// When no region is set anywhere.
    #[cfg(any(test, feature = "test-util"))]
    pub async fn with_key(settings: &AwsSettings, key: &str, secret: &str) -> Result<Self, AwsError> {
        let key = aws_sdk_sts::config::Credentials::new(key, secret, None, None, "test");
        Self::build(settings, &loader(settings).credentials_provider(key).load().await)
    }

    fn build(settings: &AwsSettings, config: &SdkConfig) -> Result<Self, AwsError> {
        let region = config.region().ok_or_else(AwsError::no_region)?.to_string();
        #[cfg(feature = "s3")]
        let s3 = {
            // Another address has no names of buckets below it.
            let path_style = !settings.endpoint.is_empty();
            let settings = aws_sdk_s3::config::Builder::from(config)
                .force_path_style(path_style)
                .timeout_config(timeouts(TRANSFER, TRANSFER * 3));
            aws_sdk_s3::Client::from_conf(settings.build())
        };
        let shared = Shared {
            prefix: settings.prefix.clone(),
            region,
            sts: aws_sdk_sts::Client::new(config),
            identity: OnceCell::new(),
            #[cfg(feature = "sqs")]
            sqs: aws_sdk_sqs::Client::new(config),
            #[cfg(feature = "s3")]
            s3,
            #[cfg(feature = "eventbridge")]
            events: aws_sdk_eventbridge::Client::new(config),
            #[cfg(feature = "kms")]
            kms: aws_sdk_kms::Client::new(config),
            #[cfg(feature = "sns")]
            sns: aws_sdk_sns::Client::new(config),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// First part of every name.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.shared.prefix
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.shared.region
    }

    /// `<prefix>-<name>`.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.shared.prefix)
    }

    /// Who the credentials belong to; asked once.
    ///
    /// # Errors
    /// When the credentials are missing or wrong, or AWS can't be reached.
    pub async fn identity(&self) -> Result<&Identity, AwsError> {
        let ask = || async {
            let answer = self.shared.sts.get_caller_identity().send().await;
            let answer = answer.map_err(|error| AwsError::new("sts:GetCallerIdentity", error))?;
            Ok(Identity { account: answer.account.unwrap_or_default(), arn: answer.arn.unwrap_or_default() })
        };
        self.shared.identity.get_or_try_init(ask).await
    }

    /// `arn:<partition>:<service>:<region>:<account>:<name>` in the region and account of these clients.
    ///
    /// # Errors
    /// As [`AwsClients::identity`].
    pub async fn arn(&self, service: &str, name: &str) -> Result<String, AwsError> {
        let identity = self.identity().await?;
        // The partition (`aws`, `aws-cn`, `aws-us-gov`) is that of the caller.
        let partition = identity.arn.split(':').nth(1).unwrap_or("aws");
        Ok(format!("arn:{partition}:{service}:{}:{}:{name}", self.shared.region, identity.account))
    }

    pub(crate) fn sts(&self) -> &aws_sdk_sts::Client {
        &self.shared.sts
    }

    #[cfg(feature = "sqs")]
    pub(crate) fn sqs(&self) -> &aws_sdk_sqs::Client {
        &self.shared.sqs
    }

    #[cfg(feature = "s3")]
    pub(crate) fn s3(&self) -> &aws_sdk_s3::Client {
        &self.shared.s3
    }

    #[cfg(feature = "eventbridge")]
    pub(crate) fn events(&self) -> &aws_sdk_eventbridge::Client {
        &self.shared.events
    }

    #[cfg(feature = "kms")]
    pub(crate) fn kms(&self) -> &aws_sdk_kms::Client {
        &self.shared.kms
    }

    #[cfg(feature = "sns")]
    pub(crate) fn sns(&self) -> &aws_sdk_sns::Client {
        &self.shared.sns
    }
}

#[cfg(test)]
mod tests {
    use aws_config::{profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig};

    use super::*;

    #[tokio::test]
    async fn missing_credentials_and_a_missing_region_are_told_with_what_to_set() {
        let settings = AwsSettings {
            endpoint: "http://127.0.0.1:9".into(),
            region: "r".into(),
            ..AwsSettings::default()
        };
        let provider = ProviderConfig::empty().with_http_client(http());
        let none = ProfileFileCredentialsProvider::builder().configure(&provider);
        let none = none.profile_name("a profile that nobody has").build();
        let config = loader(&settings).credentials_provider(none).load().await;
        let error = AwsClients::build(&settings, &config).unwrap().identity().await.unwrap_err();
        assert_eq!(error.fault, Fault::NoCredentials, "{}", crate::error::chain(&error));
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");

        let nowhere = config.into_builder().region(None).build();
        let error = AwsClients::build(&settings, &nowhere).err().unwrap();
        assert_eq!(error.fault, Fault::NoRegion);
        assert!(error.to_string().contains("aws.region"), "{error}");
    }
}
