//! Errors as they leave a service: a stable code, a text that a caller may read, and a source that only the log shows.

mod code;
mod lifecycle;

use std::borrow::Cow;

pub use code::ErrorCode;
use serde_json::Value;

use crate::core::{
    client::{database::DatabaseError, storage::StorageError, vault::VaultError},
    market::quantity::Micros,
};

/// A boxed cause.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// The result of a service call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a service answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Error {
    /// The stable code.
    pub code: ErrorCode,
    /// What the caller may read: what is wrong, and how to mend it.
    pub detail: Cow<'static, str>,
    /// The input field that is wrong, as a dotted path.
    pub field: Option<String>,
    /// More that the caller may read, as a JSON object.
    pub extra: Option<Value>,
    /// When the same call is worth another try, if that is known.
    pub retry_after: Option<Micros>,
    /// The cause, for the log only.
    #[source]
    pub source: Option<Source>,
}

impl Error {
    /// An error with a text for the caller.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), field: None, extra: None, retry_after: None, source: None }
    }

    /// An input field that is wrong.
    #[must_use]
    pub fn field(field: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..Self::new(ErrorCode::InvalidField, detail) }
    }

    /// Something that does not exist, or that the caller may not know of.
    #[must_use]
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no {what} `{id}`"))
    }

    /// A fault of ours, with its cause.
    #[must_use]
    pub fn internal(source: impl Into<Source>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(ErrorCode::Internal, "something went wrong on our side")
        }
    }

    /// With more for the caller.
    #[must_use]
    pub fn extra(mut self, extra: Value) -> Self {
        self.extra = Some(extra);
        self
    }

    /// A dependency that is left alone for now.
    #[must_use]
    pub fn deferred(what: &str, after: Micros) -> Self {
        let detail = format!("{what} is left alone for a while because it failed too often; try again later");
        Self { retry_after: Some(after), ..Self::new(ErrorCode::Unavailable, detail) }
    }

    /// With the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        self.code.retryable()
    }
}

/// The causes of an error, outermost first, in one line for a log or a job's record.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        let (code, detail) = match &error {
            DatabaseError::Conflict { .. } => {
                (ErrorCode::Conflict, "somebody else changed this at the same time; try again")
            }
            DatabaseError::Full => {
                (ErrorCode::StorageFull, "the disk of the service is full; nothing was changed")
            }
            DatabaseError::Unavailable(_) => {
                (ErrorCode::Unavailable, "the database does not answer; try again")
            }
            DatabaseError::TooNew { .. } => (
                ErrorCode::Internal,
                "a newer release of the daemon wrote this; the operator must start that release again",
            ),
            DatabaseError::AlreadyExists { .. }
            | DatabaseError::Missing { .. }
            | DatabaseError::BelowFloor { .. }
            | DatabaseError::Invalid(_)
            | DatabaseError::Damaged { .. } => (ErrorCode::Internal, "something went wrong on our side"),
        };
        Self::new(code, detail).because(error)
    }
}

impl From<VaultError> for Error {
    fn from(error: VaultError) -> Self {
        Self::internal(error)
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let (code, detail) = match &error {
            StorageError::Full => {
                (ErrorCode::StorageFull, "the disk of the service is full; nothing was changed")
            }
            StorageError::Deferred(after) => {
                return Self::deferred("the storage of the service", *after).because(error);
            }
            StorageError::Unavailable(_) => {
                (ErrorCode::Unavailable, "the storage of the service does not answer; try again")
            }
            StorageError::NoBucket(_)
            | StorageError::NoObject(_)
            | StorageError::InvalidName(_)
            | StorageError::NotEmpty(_)
            | StorageError::NotSupported(_) => return Self::internal(error),
        };
        Self::new(code, detail).because(error)
    }
}
