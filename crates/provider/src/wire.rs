//! The shapes of the admin API, as JSON. Clients may use these types.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// The store counts in 63 bits. A generation that did not fit would be kept as the largest that does, and no longer keep lower
/// ones out.
fn generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let generation = u64::deserialize(deserializer)?;
    match i64::try_from(generation) {
        Ok(_) => Ok(generation),
        Err(_) => Err(D::Error::custom("a generation is below 2^63")),
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
}

/// How wide an allocation is open, whatever its keys may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As the keys say.
    Full,
    /// Reading only; deleting is writing.
    ReadOnly,
    /// Nothing.
    None,
}

/// `GET /describe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Name and version of the software.
    pub software: String,
    /// Compatibility profiles: `s3`.
    pub profiles: Vec<String>,
    /// Bytes that may be allocated in all.
    pub capacity: u64,
    /// Bytes not allocated yet.
    pub free: u64,
    /// Region that clients sign for.
    pub region: String,
    /// Base address of the S3 endpoint.
    pub endpoint: String,
}

/// `PUT /allocations/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocate {
    /// Generation of the caller, below 2^63.
    #[serde(deserialize_with = "generation")]
    pub generation: u64,
    /// Quota in bytes.
    pub bytes: u64,
    /// Region wished for; empty takes what there is.
    #[serde(default)]
    pub region: String,
}

/// The answer of `PUT /allocations/{id}` with status 200; status 202 has an empty object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Base address of the S3 endpoint.
    pub endpoint: String,
    /// Region to sign for.
    pub region: String,
    /// The allocation's bucket.
    pub bucket: String,
}

/// `PUT /allocations/{id}/keys/{access key id}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutKey {
    /// Generation of the caller, below 2^63.
    #[serde(deserialize_with = "generation")]
    pub generation: u64,
    /// S3 secret access key.
    pub secret: String,
    /// What it may do.
    pub permissions: Permissions,
}

impl std::fmt::Debug for PutKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutKey")
            .field("generation", &self.generation)
            .field("permissions", &self.permissions)
            .finish_non_exhaustive()
    }
}

/// `PUT /allocations/{id}/access`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restrict {
    /// Generation of the caller, below 2^63.
    #[serde(deserialize_with = "generation")]
    pub generation: u64,
    /// How wide it is open.
    pub level: Level,
}

/// The query of the `DELETE`s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtGeneration {
    /// Generation of the caller, below 2^63.
    #[serde(deserialize_with = "generation")]
    pub generation: u64,
}

/// `GET /allocations/{id}/usage`: cumulative since the allocation began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes stored now: objects, and parts of unfinished uploads.
    pub stored: u64,
    /// Integral of the stored bytes over time, in byte-seconds rounded down; a decimal number as text.
    pub byte_seconds: String,
    /// Bytes sent to clients as object bodies.
    pub egress: u64,
    /// When it was read: microseconds since the Unix epoch.
    pub read_at_us: i64,
}

/// `GET /allocations`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocations {
    /// Ids of those that exist, ascending; tombstones apart.
    pub allocations: Vec<String>,
}

/// `GET /allocations/{id}/effects`: how often each kind of call changed something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects {
    /// Count per operation: `allocate`, `deallocate`, `put_key`, `delete_key`, `restrict`.
    pub effects: BTreeMap<String, u64>,
}

/// What was seen of one S3 operation since the start of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationQos {
    /// Requests answered.
    pub count: u64,
    /// Those answered with 4xx.
    pub client_errors: u64,
    /// Those answered with 5xx.
    pub server_errors: u64,
    /// Sum of the times until the head of the answer, in microseconds.
    pub latency_sum_us: u64,
    /// Key: upper bound in microseconds (a power of two); value: requests within it and above the next lower bound.
    pub latency: BTreeMap<u64, u64>,
}

/// `GET /qos`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qos {
    /// By S3 operation name.
    pub operations: BTreeMap<String, OperationQos>,
}

/// `GET` and `PUT /faults`; the latter only on a server that was started with `allow_faults`. Rates are kept exactly:
/// of a million calls `…_ppm` fail, evenly spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Delay before each S3 request is served.
    pub latency_ms: u64,
    /// S3 requests answered with 503 instead of being served.
    pub error_ppm: u32,
    /// Limit on each S3 body, both ways; zero is none.
    pub bytes_per_second: u64,
    /// Delay before each admin call is served.
    pub admin_latency_ms: u64,
    /// Admin calls answered with 500 instead of being served.
    pub admin_error_ppm: u32,
    /// Admin calls that are served, and then answered with 500: the answer got lost.
    pub admin_lost_ppm: u32,
}

/// Every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable code: `stale_generation`, `gone`, `unknown`, `mismatch`, `no_capacity`, `not_ready`, `invalid`,
    /// `unauthorized`, `forbidden`, `not_found`, `full`, `internal`, `injected`.
    pub code: String,
    /// For people.
    pub detail: String,
}
