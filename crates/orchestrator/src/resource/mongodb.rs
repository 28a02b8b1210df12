//! What the daemon needs of a MongoDB database: collections and indexes. Making them is the client's business; here it is
//! planned, and said what differs.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use super::{Action, Plan, RemoteResource, Step};
use crate::{
    client::{
        clock::SystemClock,
        db::mongodb::{Drift, DriftKind, MongoDatabase, MongoSettings},
    },
    core::client::{database::DatabaseClient, schema::CollectionSpec},
    error::{Error, ErrorCode, Result},
};

/// The collections and indexes of a database.
pub struct MongoResource {
    settings: MongoSettings,
    schema: &'static [CollectionSpec],
}

impl MongoResource {
    /// Those of a schema.
    #[must_use]
    pub fn new(settings: MongoSettings, schema: &'static [CollectionSpec]) -> Self {
        Self { settings, schema }
    }

    async fn drift(&self) -> Result<(Arc<MongoDatabase>, Vec<Drift>)> {
        let database = MongoDatabase::open(self.settings.clone()).await?;
        let found = database.inspect(self.schema, &SystemClock::new()).await?;
        match found.unusable {
            Some(reason) => Err(Error::new(ErrorCode::InvalidConfig, format!("database.url: {reason}"))),
            None => Ok((database, found.drift)),
        }
    }

    /// One step for each collection: its indexes come and go with it.
    fn steps(&self, drift: &[Drift]) -> Plan {
        let mut by_collection: BTreeMap<&str, Vec<&Drift>> = BTreeMap::new();
        for one in drift {
            by_collection.entry(one.collection.0).or_default().push(one);
        }
        let step = |spec: &CollectionSpec| {
            let found = by_collection.get(spec.collection.0).map(Vec::as_slice).unwrap_or_default();
            let missing = found.iter().any(|one| one.index.is_none() && one.kind == DriftKind::Missing);
            let action = match (found.is_empty(), missing) {
                (true, _) => Action::Exists,
                (_, true) => Action::Create,
                _ => Action::Change,
            };
            let changes = match action {
                Action::Change => found.iter().map(ToString::to_string).collect(),
                _ => Vec::new(),
            };
            let name = format!("{}.{}", self.settings.name, spec.collection);
            Step { kind: "collection", name, action, changes }
        };
        Plan { steps: self.schema.iter().map(step).collect(), ..Plan::default() }
    }
}

#[async_trait]
impl RemoteResource for MongoResource {
    async fn plan(&self) -> Result<Plan> {
        let (database, drift) = self.drift().await?;
        database.disconnect().await?;
        Ok(self.steps(&drift))
    }

    async fn apply(&self) -> Result<Plan> {
        let (database, drift) = self.drift().await?;
        database.connect(self.schema).await?;
        database.disconnect().await?;
        Ok(self.steps(&drift))
    }

    async fn verify(&self) -> Result<()> {
        match self.plan().await?.steps.into_iter().find(|step| step.action != Action::Exists) {
            None => Ok(()),
            Some(step) => Err(Error::new(
                ErrorCode::InvalidConfig,
                format!(
                    "{} `{}` is not as it should be; `orchestrator setup` mends it",
                    step.kind, step.name
                ),
            )),
        }
    }

    /// Nothing: a database may hold what nobody can make again, so that its owner drops it by hand.
    async fn plan_destroy(&self) -> Result<Plan> {
        Ok(Plan::default())
    }

    async fn destroy(&self) -> Result<Plan> {
        Ok(Plan::default())
    }
}
