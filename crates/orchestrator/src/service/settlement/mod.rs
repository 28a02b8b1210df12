//! Settlement domains: which client settles which, and the audit that rebuilds a ledger from settlement and data layer
//! alone.

pub mod credits;
pub mod verify;

use std::{collections::BTreeMap, sync::Arc};

pub use credits::CreditReport;
pub use verify::{VerifyReport, verify_ledger, verify_with_evidence};

use crate::{
    core::{
        madara::{
            attestation::EvidenceOracles,
            settlement::{SettlementClient, SettlementError},
        },
        market::{address::Address, terms::DomainId},
    },
    error::{Error, ErrorCode, Result},
};

/// The settlement clients by domain.
#[derive(Clone)]
pub struct SettlementDomains {
    clients: BTreeMap<DomainId, Arc<dyn SettlementClient>>,
}

impl SettlementDomains {
    /// The given clients, each for its own domain; a later one replaces an earlier one of the same domain.
    #[must_use]
    pub fn new(clients: impl IntoIterator<Item = Arc<dyn SettlementClient>>) -> Self {
        Self { clients: clients.into_iter().map(|client| (client.domain().clone(), client)).collect() }
    }

    /// The client of a domain.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for a domain that this daemon does not settle.
    pub fn get(&self, domain: &DomainId) -> Result<&Arc<dyn SettlementClient>> {
        self.clients.get(domain).ok_or_else(|| Error::not_found("settlement domain", domain))
    }

    /// Who owns the fees of a domain; `None` where accounts have no owners. Known without asking the layer.
    ///
    /// # Errors
    /// As [`SettlementDomains::get`].
    pub fn treasury(&self, domain: &DomainId) -> Result<Option<Address>> {
        Ok(self.get(domain)?.treasury())
    }

    /// Who vouches for the evidence of a domain's blocks; `None` where nobody is asked. Known without asking the layer.
    ///
    /// # Errors
    /// As [`SettlementDomains::get`].
    pub fn oracles(&self, domain: &DomainId) -> Result<Option<&dyn EvidenceOracles>> {
        Ok(self.get(domain)?.oracles())
    }

    /// Every domain, in order.
    pub fn domains(&self) -> impl Iterator<Item = &DomainId> {
        self.clients.keys()
    }

    /// The first domain: the one that is meant when none is named.
    ///
    /// # Errors
    /// [`ErrorCode::NotSupported`] when the daemon settles no domain at all.
    pub fn first(&self) -> Result<&DomainId> {
        self.clients
            .keys()
            .next()
            .ok_or_else(|| Error::new(ErrorCode::NotSupported, "this daemon settles no domain"))
    }
}

impl From<SettlementError> for Error {
    fn from(error: SettlementError) -> Self {
        let (code, detail) = match &error {
            SettlementError::Refused(reason) => {
                (ErrorCode::InvalidState, format!("the settlement layer refused: {reason}"))
            }
            SettlementError::Overflow => {
                let detail = "with this deposit, all deposits together would not fit 128 bits";
                return Self { code: ErrorCode::Overflow, ..Self::field("amount", detail) }.because(error);
            }
            SettlementError::NotSupported(what) => {
                (ErrorCode::NotSupported, format!("{what} is not supported by this settlement layer"))
            }
            SettlementError::Deferred(after) => {
                return Self::deferred("the settlement layer", *after).because(error);
            }
            SettlementError::NoTransaction(_) | SettlementError::Unavailable(_) => {
                (ErrorCode::SettlementFailed, "the settlement layer did not answer as expected".to_owned())
            }
        };
        Self::new(code, detail).because(error)
    }
}
