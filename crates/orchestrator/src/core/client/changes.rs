//! The change port: what other processes write to a database that this one shares with them.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{database::Result, schema::Collection};

/// That a document was written, by whomever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub collection: Collection,
    /// Which document.
    pub id: String,
    /// Whether it is new.
    pub inserted: bool,
}

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// First of all: from here on every change is told. What was written before must be looked at.
    Following,
    /// A change.
    Changed(Change),
}

/// A database that tells of changes.
#[async_trait]
pub trait ChangeSource: Send + Sync + 'static {
    /// Sends [`Told::Following`] once, and from then on every change of these collections, own ones included, in the order of
    /// each document, until the receiver is closed. A change may be sent twice.
    ///
    /// # Errors
    /// When changes may have been missed: the caller looks at everything anew and calls again.
    async fn follow(&self, collections: &[Collection], changes: mpsc::Sender<Told>) -> Result<()>;
}
