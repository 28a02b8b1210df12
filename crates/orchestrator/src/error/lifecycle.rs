//! Moves that a lifecycle does not allow, as errors of the API.

use super::{Error, ErrorCode};
use crate::core::market::{
    allocation::InvalidAllocationTransition, credential::InvalidCredentialTransition,
    unit::InvalidUnitTransition,
};

impl From<InvalidAllocationTransition> for Error {
    fn from(error: InvalidAllocationTransition) -> Self {
        Self::new(ErrorCode::InvalidState, error.to_string()).because(error)
    }
}

impl From<InvalidUnitTransition> for Error {
    fn from(error: InvalidUnitTransition) -> Self {
        Self::new(ErrorCode::InvalidState, error.to_string()).because(error)
    }
}

impl From<InvalidCredentialTransition> for Error {
    fn from(error: InvalidCredentialTransition) -> Self {
        Self::new(ErrorCode::InvalidState, error.to_string()).because(error)
    }
}
