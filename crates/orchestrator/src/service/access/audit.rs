//! The audit log: every unit of work of a person left an entry in its own commit; operators read them here.

use std::sync::Arc;

use crate::{
    core::client::database::{Filter, Reader, Sort},
    error::Result,
    service::{
        page::{Listing, PageRequest, list},
        work::{AuditEntry, Call},
    },
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
        page: PageRequest,
    ) -> Result<Listing<AuditEntry>> {
        call.operators_only("read the audit log")?;
        let filter = subject.map_or(Filter::All, |subject| Filter::eq("subject", subject));
        list(self.reader.as_ref(), filter, Sort::IdDescending, page).await
    }
}
