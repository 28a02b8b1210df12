//! What the demo's consumers do with their storage: real uploads and downloads over HTTP, signed with their own keys.

use std::time::Duration;

use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cli::{Failure, api::text};

/// How long a signed address is good for.
const SIGNED_FOR: Duration = Duration::from_secs(60);

/// A consumer's bucket with its keys.
pub struct Store {
    client: reqwest::Client,
    bucket: Bucket,
    keys: Credentials,
}

impl Store {
    /// From the routing of an allocation and the answer that issued the credential.
    ///
    /// # Errors
    /// When one of them is not what the API promises.
    pub fn new(routing: &Value, credential: &Value) -> Result<Self, Failure> {
        let endpoint = text(routing, "endpoint")
            .parse()
            .map_err(|error| Failure::Failed(format!("endpoint: {error}")))?;
        let bucket = Bucket::new(endpoint, UrlStyle::Path, text(routing, "bucket"), text(routing, "region"))
            .map_err(|error| Failure::Failed(format!("bucket: {error}")))?;
        let keys = Credentials::new(text(credential, "access_key_id"), text(credential, "secret_access_key"));
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().map_err(failed)?;
        Ok(Self { client, bucket, keys })
    }

    /// Stores an object.
    ///
    /// # Errors
    /// Any answer but success.
    pub async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), Failure> {
        let url = self.bucket.put_object(Some(&self.keys), key).sign(SIGNED_FOR);
        self.client
            .put(url)
            .body(body)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        Ok(())
    }

    /// Reads an object back and hashes it.
    ///
    /// # Errors
    /// Any answer but success.
    pub async fn get_hash(&self, key: &str) -> Result<(usize, [u8; 32]), Failure> {
        let url = self.bucket.get_object(Some(&self.keys), key).sign(SIGNED_FOR);
        let answer = self
            .client
            .get(url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        let body = answer.bytes().await.map_err(failed)?;
        Ok((body.len(), Sha256::digest(&body).into()))
    }
}

fn failed(error: reqwest::Error) -> Failure {
    Failure::Failed(crate::error::chain(&error.without_url()))
}
