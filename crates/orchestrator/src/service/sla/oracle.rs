//! Oracles: registered by an operator, known by their signing key.

use serde::Deserialize;

use crate::{
    core::{
        client::database::{Changeset, Filter, ReaderExt, Sort},
        market::{
            ids::OracleId,
            party::{Oracle, Principal},
            quantity::Ppm,
            sla::signature,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        page::{Listing, PageRequest, list},
        work::{Answer, Call, Draft, Work},
    },
};

/// An oracle to register.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOracle {
    /// A name for people, 1 to 100 characters.
    pub name: String,
    /// Ed25519 public key, 64 lower-case hex digits.
    pub public_key: String,
    /// Names the key inside reports, 1 to 64 printable ASCII characters.
    pub key_id: String,
}

/// Registers and lists oracles.
#[derive(Clone)]
pub struct OracleService {
    work: Work,
}

impl OracleService {
    /// A service over the unit of work.
    #[must_use]
    pub const fn new(work: Work) -> Self {
        Self { work }
    }

    /// Registers an oracle; for operators.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::InvalidField`]; [`ErrorCode::AlreadyExists`] when the key belongs to another one.
    pub async fn register(&self, call: &Call, new: NewOracle) -> Result<Answer<Oracle>> {
        call.operators_only("manage oracles")?;
        check(&new)?;
        self.work
            .run(call, "oracle.register", || async {
                let known =
                    self.work.reader.list_all::<Oracle>(crate::core::client::database::Filter::All).await?;
                if known.iter().any(|o| o.value.public_key == new.public_key) {
                    return Err(Error::new(
                        ErrorCode::AlreadyExists,
                        "an oracle with this public key is registered already",
                    ));
                }
                let oracle = Oracle {
                    id: self.work.ids.next(),
                    name: new.name.clone(),
                    public_key: new.public_key.clone(),
                    key_id: new.key_id.clone(),
                    last_nonce: 0,
                    standing: Ppm::ONE,
                    enabled: true,
                    created_at: self.work.now(),
                };
                let mut changes = Changeset::new();
                changes.insert(&oracle);
                Ok(Draft::new(changes, oracle))
            })
            .await
    }

    /// Oracles by id; operators see all, an oracle sees itself.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; database errors.
    pub async fn list(&self, call: &Call, page: PageRequest) -> Result<Listing<Oracle>> {
        if let Principal::Oracle(id) = call.principal {
            return Ok(Listing { items: vec![self.get(call, id).await?], next: None });
        }
        call.operators_only("manage oracles")?;
        list(self.work.reader.as_ref(), Filter::All, Sort::Id, page).await
    }

    /// One oracle; for operators and itself.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::NotFound`].
    pub async fn get(&self, call: &Call, id: OracleId) -> Result<Oracle> {
        match call.principal {
            Principal::Oracle(own) if own == id => {}
            Principal::Oracle(_) => return Err(Error::not_found("oracle", id)),
            _ => call.operators_only("manage oracles")?,
        }
        let found = self.work.reader.load::<Oracle>(&id.to_string()).await?;
        Ok(found.ok_or_else(|| Error::not_found("oracle", id))?.value)
    }

    /// Takes or refuses the oracle's reports from now on; for operators. Doing it twice changes nothing.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::NotFound`].
    pub async fn set_enabled(&self, call: &Call, id: OracleId, enabled: bool) -> Result<Answer<Oracle>> {
        call.operators_only("manage oracles")?;
        self.work
            .run(call, "oracle.set_enabled", || async {
                let found = self.work.reader.load::<Oracle>(&id.to_string()).await?;
                let mut stored = found.ok_or_else(|| Error::not_found("oracle", id))?;
                let mut changes = Changeset::new();
                if stored.value.enabled != enabled {
                    stored.value.enabled = enabled;
                    changes.replace(stored.version, &stored.value);
                }
                Ok(Draft::new(changes, stored.value))
            })
            .await
    }
}

fn check(new: &NewOracle) -> Result<()> {
    if !(1..=100).contains(&new.name.chars().count()) {
        return Err(Error::field("name", "give a name of 1 to 100 characters"));
    }
    if !(1..=64).contains(&new.key_id.len()) || !new.key_id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::field("key_id", "give 1 to 64 printable ASCII characters without spaces"));
    }
    if signature::parse_key(&new.public_key).is_none() {
        return Err(Error::field("public_key", "give an Ed25519 public key as 64 lower-case hex digits"));
    }
    Ok(())
}
