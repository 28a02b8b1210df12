//! Changes of the database by change stream, for what replicas keep in memory. The driver resumes a stream that broke off;
//! one that can't be resumed is an error, after which the caller looks at everything anew.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use mongodb::{
    bson::{Document as BsonDocument, doc},
    change_stream::event::{ChangeStreamEvent, OperationType},
};
use tokio::sync::mpsc;

use super::{MongoDatabase, fault::fault};
use crate::core::client::{
    changes::{Change, ChangeSource, Told},
    database::{DatabaseError, Result},
    schema::Collection,
};

/// How long the server holds an answer back while nothing happens: one call in so long is all that it costs.
const AWAIT: Duration = Duration::from_secs(10);

/// A stream ended that should have none.
#[derive(Debug, thiserror::Error)]
#[error("the change stream ended")]
struct Ended;

#[async_trait]
impl ChangeSource for MongoDatabase {
    async fn follow(&self, collections: &[Collection], changes: mpsc::Sender<Told>) -> Result<()> {
        let running = self.running()?;
        let names: Vec<&str> = collections.iter().map(|collection| collection.0).collect();
        let pipeline = [
            doc! { "$match": { "ns.coll": { "$in": names } } },
            // What was written is read where it is needed; here it would only travel.
            doc! { "$project": { "operationType": 1, "ns": 1, "documentKey": 1 } },
        ];
        let mut stream =
            running.database.watch().pipeline(pipeline).max_await_time(AWAIT).await.map_err(fault)?;
        // The server has the stream's beginning now.
        if changes.send(Told::Following).await.is_err() {
            return Ok(());
        }
        loop {
            let event = tokio::select! {
                biased;
                () = changes.closed() => return Ok(()),
                event = stream.next() => event,
            };
            let event = event.ok_or_else(|| DatabaseError::Unavailable(Box::new(Ended)))?.map_err(fault)?;
            if let Some(change) = change(&event, collections)
                && changes.send(Told::Changed(change)).await.is_err()
            {
                return Ok(());
            }
        }
    }
}

fn change(event: &ChangeStreamEvent<BsonDocument>, collections: &[Collection]) -> Option<Change> {
    let name = event.ns.as_ref()?.coll.as_deref()?;
    let collection = collections.iter().find(|collection| collection.0 == name)?;
    let id = event.document_key.as_ref()?.get_str("_id").ok()?;
    let inserted = event.operation_type == OperationType::Insert;
    Some(Change { collection: *collection, id: id.to_owned(), inserted })
}
