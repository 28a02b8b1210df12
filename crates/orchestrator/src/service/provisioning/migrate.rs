//! Moving an allocation to another unit is known to the plan, and not built.

use async_trait::async_trait;

use crate::{
    core::job::JobKind,
    error::{Error, ErrorCode},
    service::job::{JobContext, JobError, JobHandler, Processed},
};

/// Refuses to move an allocation.
pub struct Migrate;

#[async_trait]
impl JobHandler for Migrate {
    fn kind(&self) -> JobKind {
        JobKind::Migrate
    }

    async fn process(&self, _context: &dyn JobContext) -> Result<Processed, JobError> {
        Err(JobError::Permanent(Error::new(
            ErrorCode::NotSupported,
            "moving allocations to another unit is not supported yet",
        )))
    }
}
