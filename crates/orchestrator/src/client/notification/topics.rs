//! Topics and their subscribers, kept in the database so that they survive a restart.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::core::client::{
    database::{Changeset, DatabaseClient, DatabaseError, Entity, Filter, Query, ReaderExt, Result, Stored},
    schema::{self, Collection},
};

/// What the ids of topics start with, among the facts about the store.
const PREFIX: &str = "topic/";

/// Tries of a change that others may overtake.
const TRIES: usize = 16;

/// A topic with its subscribers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Topic {
    pub(super) name: String,
    pub(super) addresses: BTreeSet<String>,
}

impl Entity for Topic {
    const NAME: &'static str = "notification_topic";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

/// The stored topics.
pub(super) struct Topics {
    database: Arc<dyn DatabaseClient>,
}

impl Topics {
    pub(super) const fn new(database: Arc<dyn DatabaseClient>) -> Self {
        Self { database }
    }

    pub(super) async fn create(&self, name: &str) -> Result<()> {
        let mut changes = Changeset::new();
        changes.insert(&Topic { name: name.to_owned(), addresses: BTreeSet::new() });
        match self.database.commit(changes).await {
            Err(DatabaseError::AlreadyExists { .. }) => Ok(()),
            result => result,
        }
    }

    pub(super) async fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let query = Query::new(schema::META).filter(Filter::IdPrefix(PREFIX.to_owned())).after(after);
            let (topics, next) = self.database.list::<Topic>(query).await?;
            names.extend(topics.into_iter().map(|topic| topic.value.name));
            match next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(names),
            }
        }
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<Stored<Topic>>> {
        self.database.load(&format!("{PREFIX}{name}")).await
    }

    /// Changes the subscribers of a topic; `false` when there is no such topic.
    pub(super) async fn change(
        &self,
        name: &str,
        change: impl Fn(&mut BTreeSet<String>) + Send + Sync,
    ) -> Result<bool> {
        let mut tries = 0;
        loop {
            let Some(mut topic) = self.get(name).await? else { return Ok(false) };
            let before = topic.value.addresses.clone();
            change(&mut topic.value.addresses);
            if topic.value.addresses == before {
                return Ok(true);
            }
            let mut changes = Changeset::new();
            changes.replace(topic.version, &topic.value);
            tries += 1;
            match self.database.commit(changes).await {
                Ok(()) => return Ok(true),
                Err(DatabaseError::Conflict { .. }) if tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }
}
