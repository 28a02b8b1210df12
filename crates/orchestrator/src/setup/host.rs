//! What commands do without a daemon: plan, make and check what the back ends need, rebuild the ledger, make keys.

use std::sync::Arc;

use super::{backends, clients, first, secret};
use crate::{
    client::{
        clock::{SystemClock, SystemEntropy},
        evidence::HttpEvidence,
    },
    config::{
        Config,
        section::{DatabaseBackend, Settlement},
    },
    core::{
        client::{clock::Entropy, database::DatabaseClient},
        madara::evidence::EvidenceSource,
        market::ids::IdGenerator,
    },
    error::{Error, ErrorCode, Result},
    resource::{
        Plan, RemoteResource, Resource,
        embedded::{DataDir, DataDirLock},
    },
    service::{
        access::{KeyService, KeySettings},
        proof::{ProvedAccount, verify_account_proof},
        settlement::{VerifyReport, verify_with_evidence},
        work::Work,
    },
};

/// Shows what the configured back ends need, without making anything.
///
/// # Errors
/// When it can't even be looked at.
pub async fn plan(config: &Config) -> Result<Plan> {
    let mut plan = data_dir(config).plan()?;
    plan.extend(DataDir::new(Settlement::directory(config), &[]).plan()?);
    for resource in remote(config).await? {
        plan.extend(resource.plan().await?);
    }
    Ok(plan)
}

pub(super) fn data_dir(config: &Config) -> DataDir {
    DataDir::new(&config.data.dir, &["storage", "provider"])
}

/// What is needed at services elsewhere.
async fn remote(config: &Config) -> Result<Vec<Arc<dyn RemoteResource>>> {
    let mut resources: Vec<Arc<dyn RemoteResource>> = Vec::new();
    #[cfg(feature = "aws")]
    if let Some(aws) = super::cloud::resources(config).await? {
        resources.push(aws);
    }
    #[cfg(feature = "mongodb")]
    if let Some(database) = backends::database_layout(config).await? {
        resources.push(database);
    }
    #[cfg(feature = "kafka")]
    resources.extend(backends::topics(config)?);
    #[cfg(not(any(feature = "aws", feature = "mongodb", feature = "kafka")))]
    let _ = (config, &mut resources);
    Ok(resources)
}

/// Makes what is missing: directories, secrets, schema, what the cloud must have; doing it twice changes nothing. Answers
/// what was done, after it was verified.
///
/// # Errors
/// [`ErrorCode::DataDirLocked`] while a daemon runs; whatever can't be made, or is not ready afterwards.
pub async fn apply(config: &Config) -> Result<Plan> {
    let directory = data_dir(config);
    let mut done = directory.apply()?;
    let settlement = DataDir::new(Settlement::directory(config), &[]);
    done.extend(settlement.apply()?);
    let _lock = directory.lock()?;
    secret::vault_key(config, &SystemEntropy)?;
    if config.provider.cohosted {
        first::provider_token(config)?;
    }
    for resource in remote(config).await? {
        done.extend(resource.apply().await?);
        resource.verify().await?;
    }
    let database = backends::database(config).await?;
    database.disconnect().await?;
    directory.verify()?;
    Ok(done)
}

/// What [`destroy`] would remove: what `setup` made at services elsewhere. The data directory is nobody's but its owner's.
///
/// # Errors
/// When it can't be looked at.
pub async fn plan_destroy(config: &Config) -> Result<Plan> {
    let mut plan = Plan::default();
    for resource in remote(config).await? {
        plan.extend(resource.plan_destroy().await?);
    }
    Ok(plan)
}

/// Removes what `setup` made at services elsewhere, with everything in it.
///
/// # Errors
/// When something can't be removed. What was removed before is gone.
pub async fn destroy(config: &Config) -> Result<Plan> {
    let mut plan = Plan::default();
    for resource in remote(config).await? {
        plan.extend(resource.destroy().await?);
    }
    Ok(plan)
}

/// The least that the daemon needs at AWS, as an IAM policy document; `None` when it needs nothing there.
///
/// # Errors
/// When AWS can't be asked which account this is.
pub async fn policy(config: &Config) -> Result<Option<serde_json::Value>> {
    #[cfg(feature = "aws")]
    if let Some(aws) = super::cloud::resources(config).await? {
        return Ok(Some(aws.policy().await.map_err(|error| clients::unready("policy", error))?));
    }
    #[cfg(not(feature = "aws"))]
    let _ = config;
    Ok(None)
}

/// Rebuilds the ledger from what was published and compares it. Reads the settlement and data-availability layers
/// only, which are public, so that it may run beside the daemon. With the address of a source of `evidence`, every credit is
/// checked from it.
///
/// # Errors
/// When a layer, or the source, can't be read.
pub async fn verify(config: &Config, evidence: Option<&str>) -> Result<VerifyReport> {
    #[cfg(feature = "ethereum")]
    if config.settlement.backend == crate::config::section::SettlementBackend::Ethereum {
        let place = super::onlooker::ChainPlace::of(&config.ethereum);
        return Ok(super::onlooker::verify_chain(&place, evidence).await?.ledger);
    }
    let chain = Settlement::directory(config);
    if !chain.is_dir() {
        let detail =
            format!("{} does not exist: nothing was settled in this data directory yet", chain.display());
        return Err(Error::new(ErrorCode::NotFound, detail));
    }
    let (settlement, da) = clients::settlement_layer(config, Arc::new(SystemClock::new()))?;
    let source = evidence_source(evidence)?;
    let source = source.as_ref().map(|it| it as &dyn EvidenceSource);
    verify_with_evidence(settlement.as_ref(), da.as_ref(), source).await
}

/// The source of evidence at an address.
///
/// # Errors
/// [`ErrorCode::InvalidField`] when it is none of a web server.
pub(super) fn evidence_source(url: Option<&str>) -> Result<Option<HttpEvidence>> {
    let source = url.map(HttpEvidence::new).transpose();
    source.map_err(|error| Error::field("evidence", error.to_string()).because(error))
}

/// Checks an account's inclusion proof as the API gave it.
///
/// # Errors
/// When it is no proof at all.
pub fn check_account_proof(proof: &serde_json::Value) -> Result<bool> {
    let proved: ProvedAccount = serde_json::from_value(proof.clone()).map_err(|error| {
        Error::new(ErrorCode::MalformedBody, format!("this is no account proof: {error}"))
    })?;
    Ok(verify_account_proof(&proved))
}

/// The keys of a data directory on which no daemon runs.
pub struct OfflineKeys {
    /// The service.
    pub keys: KeyService,
    database: Arc<dyn DatabaseClient>,
    _lock: DataDirLock,
}

impl OfflineKeys {
    /// Opens the data directory under its lock.
    ///
    /// # Errors
    /// [`ErrorCode::DataDirLocked`] while a daemon runs; [`ErrorCode::NotFound`] when there is none.
    pub async fn open(config: &Config) -> Result<Self> {
        let directory = data_dir(config);
        if config.database.backend == DatabaseBackend::Sqlite
            && !config.data.dir.join("orchestrator.db").exists()
        {
            let detail = format!(
                "there is no database in {}; run `orchestrator setup` first",
                config.data.dir.display()
            );
            return Err(Error::new(ErrorCode::NotFound, detail));
        }
        let lock = directory.lock()?;
        let database = backends::database(config).await?;
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let ids = IdGenerator::new(Arc::new(SystemClock::new()), entropy.clone());
        let work = Work::new(database.clone(), database.clone(), ids);
        let keys = KeyService::new(work, entropy, KeySettings::default());
        Ok(Self { keys, database, _lock: lock })
    }

    /// Closes the data directory.
    ///
    /// # Errors
    /// When what was written can't be made durable.
    pub async fn close(self) -> Result<()> {
        Ok(self.database.disconnect().await?)
    }
}
