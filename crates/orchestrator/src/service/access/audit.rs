//! The audit log: every unit of work of a person left an entry in its own commit; operators read them here.

use std::sync::Arc;

use crate::{
    core::client::{
        database::{Cursor, Filter, Query, Reader, ReaderExt, Sort, Stored},
        schema,
    },
    error::Result,
    service::work::{AuditEntry, Call},
};

/// Reads the audit log.
pub struct AuditService {
    reader: Arc<dyn Reader>,
}

impl AuditService {
    /// Over a reader.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }

    /// Entries, newest first; those about `subject` only, if one is given.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] unless an operator asks; database errors.
    pub async fn list(
        &self,
        call: &Call,
        subject: Option<String>,
        limit: usize,
        after: Option<Cursor>,
    ) -> Result<(Vec<Stored<AuditEntry>>, Option<Cursor>)> {
        call.operators_only("read the audit log")?;
        let filter = subject.map_or(Filter::All, |subject| Filter::eq("subject", subject));
        let query =
            Query::new(schema::AUDIT).filter(filter).sort(Sort::IdDescending).limit(limit).after(after);
        Ok(self.reader.list(query).await?)
    }
}
