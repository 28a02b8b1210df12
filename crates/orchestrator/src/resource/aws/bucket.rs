//! The bucket of the daemon's own data: closed to the public, in the right region, and rid of the parts that uploads left.

use async_trait::async_trait;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint,
    CreateBucketConfiguration, ExpirationStatus, LifecycleRule, LifecycleRuleFilter,
    PublicAccessBlockConfiguration,
};

use super::{Found, Item, Owner};
use crate::client::{
    aws::{AwsClients, AwsError, Fault},
    storage::MARKER,
};

/// The lifecycle rule that is ours.
const RULE: &str = "orchestrator-abort-uploads";
/// Days after which an upload that was never finished is removed.
const DAYS: i32 = 1;
/// The region that takes no constraint.
const DEFAULT_REGION: &str = "us-east-1";

pub(super) struct Bucket {
    clients: AwsClients,
    owner: Owner,
}

impl Bucket {
    pub(super) fn new(clients: AwsClients, owner: Owner) -> Self {
        Self { clients, owner }
    }

    /// The region of the bucket; `None` when there is none.
    async fn head(&self) -> Result<Option<String>, AwsError> {
        let head = self.clients.s3().head_bucket().bucket(self.name());
        let expected = match self.foreign() {
            true => None,
            false => Some(self.clients.identity().await?.account.clone()),
        };
        match head.set_expected_bucket_owner(expected).send().await {
            Ok(found) => Ok(Some(found.bucket_region.unwrap_or_default())),
            Err(error) => match AwsError::new("s3:ListBucket", error) {
                error if error.is_missing() => Ok(None),
                // A HEAD has no body that could say why.
                error if error.fault == Fault::Forbidden && !self.foreign() => match self.listed().await? {
                    Some(false) => Err(self.belongs_to_another()),
                    _ => Err(self.may_belong_to_another(error)),
                },
                error => Err(error),
            },
        }
    }

    fn belongs_to_another(&self) -> AwsError {
        let detail = format!("the bucket `{}` belongs to another account", self.name());
        AwsError { fault: Fault::Foreign, ..AwsError::odd("s3:ListBucket", detail) }
    }

    fn may_belong_to_another(&self, error: AwsError) -> AwsError {
        let detail = format!(
            "these credentials may not see the bucket `{}`; if it belongs to another account, choose another aws.prefix",
            self.name()
        );
        AwsError { detail, ..error }
    }

    /// Whether the account's own list has the bucket; `None` when the list may not be read.
    async fn listed(&self) -> Result<Option<bool>, AwsError> {
        let (name, mut token) = (self.name(), None);
        loop {
            let list = self.clients.s3().list_buckets().prefix(&name).set_continuation_token(token);
            let page = match list.send().await.map_err(|error| AwsError::new("s3:ListAllMyBuckets", error)) {
                Err(error) if error.fault == Fault::Forbidden => return Ok(None),
                page => page?,
            };
            if page.buckets().iter().any(|bucket| bucket.name() == Some(&name)) {
                return Ok(Some(true));
            }
            token = page.continuation_token;
            if token.is_none() {
                return Ok(Some(false));
            }
        }
    }

    async fn is_closed(&self) -> Result<bool, AwsError> {
        let found = match self.clients.s3().get_public_access_block().bucket(self.name()).send().await {
            Ok(found) => found.public_access_block_configuration,
            Err(error) => match AwsError::new("s3:GetBucketPublicAccessBlock", error) {
                error if error.code.as_deref() == Some("NoSuchPublicAccessBlockConfiguration") => None,
                error => return Err(error),
            },
        };
        Ok(found == Some(closed()))
    }

    async fn lifecycle(&self) -> Result<Vec<LifecycleRule>, AwsError> {
        let get = self.clients.s3().get_bucket_lifecycle_configuration().bucket(self.name());
        match get.send().await {
            Ok(found) => Ok(found.rules.unwrap_or_default()),
            Err(error) => match AwsError::new("s3:GetLifecycleConfiguration", error) {
                error if error.code.as_deref() == Some("NoSuchLifecycleConfiguration") => Ok(Vec::new()),
                error => Err(error),
            },
        }
    }

    async fn create(&self) -> Result<(), AwsError> {
        let region = self.clients.region();
        let place = (region != DEFAULT_REGION).then(|| {
            let constraint = BucketLocationConstraint::from(region);
            CreateBucketConfiguration::builder().location_constraint(constraint).build()
        });
        let create = self.clients.s3().create_bucket().bucket(self.name());
        match create.set_create_bucket_configuration(place).send().await {
            Ok(_) => Ok(()),
            Err(error) => match AwsError::new("s3:CreateBucket", error) {
                error if error.code.as_deref() == Some("BucketAlreadyOwnedByYou") => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Removes the markers of the port's buckets; they are all that an unused bucket has.
    async fn remove_markers(&self) -> Result<(), AwsError> {
        let list = self.clients.s3().list_objects_v2().bucket(self.name()).send().await;
        let list = list.map_err(|error| AwsError::new("s3:ListBucket", error))?;
        let keys: Vec<String> = list.contents.unwrap_or_default().into_iter().filter_map(|o| o.key).collect();
        if keys.iter().any(|key| !key.ends_with(MARKER)) {
            let detail = "the bucket has objects, which setup never removes; empty it first, if nothing in it is needed";
            return Err(AwsError::odd("s3:DeleteBucket", detail));
        }
        for key in keys {
            let delete = self.clients.s3().delete_object().bucket(self.name()).key(key).send().await;
            delete.map_err(|error| AwsError::new("s3:DeleteObject", error))?;
        }
        Ok(())
    }
}

fn closed() -> PublicAccessBlockConfiguration {
    PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true)
        .build()
}

fn abort_rule() -> Result<LifecycleRule, AwsError> {
    LifecycleRule::builder()
        .id(RULE)
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .abort_incomplete_multipart_upload(
            AbortIncompleteMultipartUpload::builder().days_after_initiation(DAYS).build(),
        )
        .build()
        .map_err(|error| AwsError::odd("s3:PutLifecycleConfiguration", error.to_string()))
}

/// Whether a rule does what ours does, for all keys.
fn aborts(rule: &LifecycleRule) -> bool {
    let days = rule.abort_incomplete_multipart_upload().and_then(|abort| abort.days_after_initiation());
    rule.id() == Some(RULE) && *rule.status() == ExpirationStatus::Enabled && days == Some(DAYS)
}

#[async_trait]
impl Item for Bucket {
    fn kind(&self) -> &'static str {
        "bucket"
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
        "s3"
    }

    async fn look(&self) -> Result<Found, AwsError> {
        let Some(region) = self.head().await? else { return Ok(Found::Missing) };
        if !region.is_empty() && region != self.clients.region() {
            let detail = format!("the bucket is in {region}, the client in {}", self.clients.region());
            return Err(AwsError { fault: Fault::WrongRegion, ..AwsError::odd("s3:ListBucket", detail) });
        }
        if self.foreign() {
            return Ok(Found::Right);
        }
        if self.listed().await? == Some(false) {
            return Err(self.belongs_to_another());
        }
        let mut changes = Vec::new();
        if !self.is_closed().await? {
            changes.push("PublicAccessBlock: all public access is blocked".to_owned());
        }
        if !self.lifecycle().await?.iter().any(aborts) {
            changes.push(format!("Lifecycle: uploads that were never finished go after {DAYS} day"));
        }
        Ok(if changes.is_empty() { Found::Right } else { Found::Different(changes) })
    }

    async fn mend(&self, found: &Found) -> Result<(), AwsError> {
        if *found == Found::Missing {
            self.create().await?;
        }
        if !self.is_closed().await? {
            let put = self.clients.s3().put_public_access_block().bucket(self.name());
            let put = put.public_access_block_configuration(closed()).send().await;
            put.map_err(|error| AwsError::new("s3:PutBucketPublicAccessBlock", error))?;
        }
        let mut rules = self.lifecycle().await?;
        if !rules.iter().any(aborts) {
            // Rules of others stay.
            rules.retain(|rule| rule.id() != Some(RULE));
            rules.push(abort_rule()?);
            let all = BucketLifecycleConfiguration::builder()
                .set_rules(Some(rules))
                .build()
                .map_err(|error| AwsError::odd("s3:PutLifecycleConfiguration", error.to_string()))?;
            let put = self.clients.s3().put_bucket_lifecycle_configuration().bucket(self.name());
            let put = put.lifecycle_configuration(all).send().await;
            put.map_err(|error| AwsError::new("s3:PutLifecycleConfiguration", error))?;
        }
        Ok(())
    }

    async fn remove(&self) -> Result<(), AwsError> {
        if self.head().await?.is_none() {
            return Ok(());
        }
        if self.listed().await? == Some(false) {
            return Err(self.belongs_to_another());
        }
        self.remove_markers().await?;
        let removed = self.clients.s3().delete_bucket().bucket(self.name()).send().await;
        removed.map_err(|error| AwsError::new("s3:DeleteBucket", error))?;
        Ok(())
    }
}
