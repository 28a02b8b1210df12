//! Credentials: S3 keys scoped to one allocation, with rotation by overlap.

use serde::{Deserialize, Serialize};

use super::{
    ids::{AllocationId, CredentialId},
    quantity::Timestamp,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// What a credential may do inside its allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
}

/// Where a credential stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialState {
    /// Asked for at the provider.
    Pending,
    /// Works.
    Active,
    /// Replaced, and still works until the overlap ends.
    Rotating,
    /// Works no more; terminal.
    Revoked,
    /// Ran out; terminal.
    Expired,
}

/// A credential. The secret is sealed; only the POST that issues it shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its id; associated data of the seal.
    pub id: CredentialId,
    /// What it opens.
    pub allocation: AllocationId,
    /// S3 access key id.
    pub access_key_id: String,
    /// S3 secret access key, sealed by the vault.
    pub sealed_secret: String,
    /// What it may do.
    pub permissions: Permissions,
    /// Where it stands.
    pub state: CredentialState,
    /// The credential that it replaces.
    pub predecessor: Option<CredentialId>,
    /// When it runs out, if it does.
    pub expires_at: Option<Timestamp>,
    /// For a rotating one: when the overlap ends.
    pub overlap_until: Option<Timestamp>,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Entity for Credential {
    const NAME: &'static str = "credential";
    const COLLECTION: Collection = schema::CREDENTIALS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

/// What happens to a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialEvent {
    /// The provider installed it.
    Installed,
    /// A successor was installed; the overlap runs.
    Replaced,
    /// The provider took it away.
    Revoked,
    /// It ran out, and the provider took it away.
    Expired,
}

/// A move that the lifecycle of credentials does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {from:?} credential can't take {event:?}")]
pub struct InvalidCredentialTransition {
    /// The state.
    pub from: CredentialState,
    /// The event.
    pub event: CredentialEvent,
}

impl CredentialEvent {
    /// Every event.
    pub const ALL: [Self; 4] = [Self::Installed, Self::Replaced, Self::Revoked, Self::Expired];
}

impl CredentialState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Active, Self::Rotating, Self::Revoked, Self::Expired];

    /// Whether it works no more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Revoked | Self::Expired)
    }
}

/// The lifecycle of credentials.
///
/// # Errors
/// [`InvalidCredentialTransition`] for every pair that is not listed.
pub const fn transition(
    from: CredentialState,
    event: CredentialEvent,
) -> Result<CredentialState, InvalidCredentialTransition> {
    use CredentialEvent as E;
    use CredentialState as S;
    Ok(match (from, event) {
        (S::Pending, E::Installed) => S::Active,
        (S::Active, E::Replaced) => S::Rotating,
        (S::Pending | S::Active | S::Rotating, E::Revoked) => S::Revoked,
        (S::Pending | S::Active | S::Rotating, E::Expired) => S::Expired,
        _ => return Err(InvalidCredentialTransition { from, event }),
    })
}

impl Credential {
    /// Takes the event.
    ///
    /// # Errors
    /// [`InvalidCredentialTransition`].
    pub fn apply(
        &mut self,
        event: CredentialEvent,
        now: Timestamp,
    ) -> Result<(), InvalidCredentialTransition> {
        self.state = transition(self.state, event)?;
        self.updated_at = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CredentialEvent as E, CredentialState as S, *};

    #[test]
    fn every_state_and_event() {
        let allowed = [
            (S::Pending, E::Installed, S::Active),
            (S::Pending, E::Revoked, S::Revoked),
            (S::Pending, E::Expired, S::Expired),
            (S::Active, E::Replaced, S::Rotating),
            (S::Active, E::Revoked, S::Revoked),
            (S::Active, E::Expired, S::Expired),
            (S::Rotating, E::Revoked, S::Revoked),
            (S::Rotating, E::Expired, S::Expired),
        ];
        for from in S::ALL {
            for event in E::ALL {
                let expected = allowed.iter().find(|a| a.0 == from && a.1 == event).map(|a| a.2);
                assert_eq!(transition(from, event).ok(), expected, "{from:?} {event:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_key_that_is_gone_never_works_again(events in prop::collection::vec(0..E::ALL.len(), 0..20)) {
            let mut state = S::Pending;
            for index in events {
                let before = state;
                state = transition(state, E::ALL[index]).unwrap_or(state);
                prop_assert!(!before.is_terminal() || state == before);
                prop_assert!(before != S::Rotating || state != S::Active);
            }
        }
    }
}
