//! What the driver's errors mean to the caller.

use std::time::Duration;

use ::mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::core::client::database::DatabaseError;

/// A call that took longer than it may.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub(super) struct TimedOut(pub(super) Duration);

/// The driver's error, without what it repeats of the command's content.
pub(super) fn fault(error: Error) -> DatabaseError {
    match &*error.kind {
        ErrorKind::Command(command) => by_code(command.code, error),
        ErrorKind::Write(WriteFailure::WriteError(write)) => by_code(write.code, error),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => by_code(concern.code, error),
        // What we asked makes no sense to the driver.
        ErrorKind::InvalidArgument { .. } | ErrorKind::Bson(_) => DatabaseError::Invalid(error.to_string()),
        // Not reached, not the primary any more, no session, no right to: nobody knows but the operator, and it may
        // pass.
        _ => DatabaseError::Unavailable(Box::new(error)),
    }
}

fn by_code(code: i32, error: Error) -> DatabaseError {
    match code {
        // OutOfDiskSpace, and the code that older servers give it.
        14_031 | 17_507 => DatabaseError::Full,
        _ => refused(code).unwrap_or_else(|| DatabaseError::Unavailable(Box::new(error))),
    }
}

/// Codes that mean that the request can't be served, now or later.
fn refused(code: i32) -> Option<DatabaseError> {
    match code {
        // BSONObjectTooLarge, and what an update makes too large.
        10_334 | 17_419 | 17_420 => Some(DatabaseError::Invalid("the document is too large".to_owned())),
        257 => Some(DatabaseError::Invalid("the changeset is too large for one transaction".to_owned())),
        _ => None,
    }
}

/// The server's answer to one statement of a command that as such went well.
pub(super) fn statement_fault(code: i32, message: &str) -> DatabaseError {
    match code {
        14_031 | 17_507 => DatabaseError::Full,
        _ => refused(code)
            .unwrap_or_else(|| DatabaseError::Unavailable(format!("code {code}: {message}").into())),
    }
}

/// The code of a unique index that objects.
pub(super) const DUPLICATE_KEY: i32 = 11_000;
/// The code of a write that met another one that is under way.
pub(super) const WRITE_CONFLICT: i32 = 112;

/// Whether a code means that the server gave up after the time that it was given.
pub(super) fn took_too_long(code: i32) -> bool {
    // MaxTimeMSExpired, LockTimeout, ExceededTimeLimit.
    matches!(code, 50 | 24 | 262)
}

/// What the server says of the unique index that objected, if that is what happened.
pub(super) fn duplicate(error: &Error) -> Option<&str> {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(write)) if write.code == DUPLICATE_KEY => {
            Some(&write.message)
        }
        ErrorKind::Command(command) if command.code == DUPLICATE_KEY => Some(&command.message),
        _ => None,
    }
}

/// The code of the command's error.
pub(super) fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// What can go wrong while documents are read.
pub(super) enum Trouble {
    /// The driver's error, with its labels.
    Driver(Error),
    /// A document that can't be read.
    Database(DatabaseError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<Trouble> for DatabaseError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Driver(error) => fault(error),
            Trouble::Database(error) => error,
        }
    }
}
