//! Issuing, rotating and revoking: the request commits what is wanted together with the job that brings it to the
//! provider, and then waits for the job, so that the answer is what holds.

use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{CredentialService, IssueCredential, IssuedCredential, RotateCredential};
use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Filter, ReaderExt, Sort, Stored},
            schema,
        },
        job::{JobKind, NewJob},
        market::{
            allocation::Allocation,
            credential::{Credential, CredentialState, Permissions},
            ids::{AllocationId, CredentialId},
            party::Principal,
            quantity::{Micros, Timestamp},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        allocation::change,
        page::{Listing, PageRequest, list},
        work::{Answer, Call, Draft},
    },
};

/// Upper-case letters and digits that can't be mistaken for each other: 32, so that a byte gives one without bias.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Characters of a secret: 64, none of which needs quoting in a shell or an address.
const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// First and longest pause between two looks at a credential that is waited for.
const PAUSES: (Micros, Micros) = (Micros::from_millis(1), Micros::from_millis(50));

/// What the request's marker keeps: which credential it made, never its secret.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Made {
    id: CredentialId,
}

impl CredentialService {
    /// Issues a key for an allocation that is in use, and waits until the provider knows it.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` for anybody but the consumer; `InvalidState`; `InvalidField`; `SecretGone` for a replay that
    /// comes too late.
    pub async fn issue(
        &self,
        call: &Call,
        allocation: AllocationId,
        request: IssueCredential,
    ) -> Result<IssuedCredential> {
        consumers_only(call)?;
        let compute = || async {
            let owner = change::own(&self.work, call, allocation).await?.value;
            self.in_use(&owner).await?;
            if request.expires_at.is_some_and(|at| at <= self.work.now()) {
                return Err(Error::field("expires_at", "a credential runs out in the future, or not at all"));
            }
            let credential = self.fresh(allocation, request.permissions, request.expires_at, None)?;
            let key = credential.id.to_string();
            self.draft(call, credential, key, Micros::ZERO)
        };
        let made = self.work.run(call, "credential.issue", compute).await?;
        self.show(made).await
    }

    /// Issues a successor with the same rights, and waits until the provider knows it. The old key works beside it until the
    /// overlap ends.
    ///
    /// # Errors
    /// As [`CredentialService::issue`]; `InvalidState` unless the old one is active and not being rotated already.
    pub async fn rotate(
        &self,
        call: &Call,
        id: CredentialId,
        request: RotateCredential,
    ) -> Result<IssuedCredential> {
        consumers_only(call)?;
        let overlap = request.overlap.unwrap_or(self.settings.overlap);
        if overlap > Micros::from_days(30) {
            return Err(Error::field("overlap", "an overlap is at most 30 days long"));
        }
        let compute = || async {
            let Stored { version, value: old } = self.owned(call, id).await?;
            let owner = change::own(&self.work, call, old.allocation).await?.value;
            self.in_use(&owner).await?;
            if old.state != CredentialState::Active {
                return Err(Error::new(
                    ErrorCode::InvalidState,
                    format!("only an active credential can be rotated, this is {:?}", old.state),
                ));
            }
            let new = self.fresh(old.allocation, old.permissions, old.expires_at, Some(id))?;
            // The key names the state that is left: of two rotations at once, the database lets one in.
            self.draft(call, new, format!("{id}@{version}"), overlap)
        };
        let twice = |error: DatabaseError| match &error {
            DatabaseError::AlreadyExists { collection: schema::JOBS, .. } => {
                Error::new(ErrorCode::InvalidState, "this credential is being rotated already").because(error)
            }
            _ => Error::from(error),
        };
        let made = self.work.run_mapped(call, "credential.rotate", compute, twice).await?;
        self.show(made).await
    }

    /// Takes a key away and waits until the provider has dropped it. One that works no more stays as it is.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`.
    pub async fn revoke(&self, call: &Call, id: CredentialId) -> Result<Answer<Credential>> {
        let compute = || async {
            let credential = self.owned(call, id).await?.value;
            let mut changes = Changeset::new();
            if !credential.state.is_terminal() {
                let now = self.work.now();
                let key = format!("{id}:{}", self.work.ids.next::<CredentialId>());
                let mut job = NewJob::now(JobKind::RevokeCredential, credential.allocation, key, now)
                    .input(json!({"credential": id}));
                job.trace_id.clone_from(&call.trace_id);
                job.enqueue(&mut changes, &self.work.ids);
            }
            Ok(Draft::new(changes, Made { id }))
        };
        let made = self.work.run(call, "credential.revoke", compute).await?;
        let value = self.wait_for(id, CredentialState::is_terminal).await?;
        Ok(Answer { value, replayed: made.replayed })
    }

    /// A credential, without its secret in the clear.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden` for providers.
    pub async fn get(&self, call: &Call, id: CredentialId) -> Result<Credential> {
        Ok(self.owned(call, id).await?.value)
    }

    /// The credentials of an allocation, without their secrets in the clear.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden` for providers.
    pub async fn list(
        &self,
        call: &Call,
        allocation: AllocationId,
        page: PageRequest,
    ) -> Result<Listing<Credential>> {
        change::own(&self.work, call, allocation).await?;
        let filter = Filter::eq("allocation", allocation.to_string());
        list(self.work.reader.as_ref(), filter, Sort::Id, page).await
    }

    async fn owned(&self, call: &Call, id: CredentialId) -> Result<Stored<Credential>> {
        let missing = || Error::not_found("credential", id);
        let stored = self.work.reader.load::<Credential>(&id.to_string()).await?.ok_or_else(missing)?;
        match change::own(&self.work, call, stored.value.allocation).await {
            Ok(_) => Ok(stored),
            Err(error) if error.code == ErrorCode::NotFound => Err(missing()),
            Err(error) => Err(error),
        }
    }

    async fn in_use(&self, allocation: &Allocation) -> Result<()> {
        if !allocation.state.is_in_use() {
            return Err(Error::new(
                ErrorCode::InvalidState,
                format!(
                    "credentials are issued for active and restricted allocations, this is {}",
                    allocation.state.as_str()
                ),
            ));
        }
        let filter = Filter::eq("allocation", allocation.id.to_string());
        let all = self.work.reader.list_all::<Credential>(filter).await?;
        if all.iter().filter(|stored| !stored.value.state.is_terminal()).count() >= self.settings.limit {
            return Err(Error::new(
                ErrorCode::InvalidState,
                format!(
                    "an allocation has at most {} live credentials; revoke one first",
                    self.settings.limit
                ),
            ));
        }
        Ok(())
    }

    fn fresh(
        &self,
        allocation: AllocationId,
        permissions: Permissions,
        expires_at: Option<Timestamp>,
        predecessor: Option<CredentialId>,
    ) -> Result<Credential> {
        let id: CredentialId = self.work.ids.next();
        let secret = Zeroizing::new(self.draw(SECRET_ALPHABET, 40));
        let now = self.work.now();
        Ok(Credential {
            id,
            allocation,
            access_key_id: self.draw(ID_ALPHABET, 20),
            sealed_secret: self.vault.seal(&id.to_string(), secret.as_bytes())?,
            permissions,
            state: CredentialState::Pending,
            predecessor,
            expires_at,
            overlap_until: None,
            created_at: now,
            updated_at: now,
        })
    }

    /// A random text; the alphabet's length is a power of two, so every character is equally likely.
    fn draw<const N: usize>(&self, alphabet: &[u8; N], length: usize) -> String {
        let mut bytes = Zeroizing::new(vec![0_u8; length]);
        self.entropy.fill(&mut bytes);
        bytes.iter().filter_map(|byte| alphabet.get(usize::from(*byte) % N)).map(|c| char::from(*c)).collect()
    }

    fn draft(
        &self,
        call: &Call,
        credential: Credential,
        key: String,
        overlap: Micros,
    ) -> Result<Draft<Made>> {
        let mut changes = Changeset::new();
        changes.insert(&credential);
        let input = json!({"credential": credential.id, "overlap": overlap});
        let now = self.work.now();
        let mut job = NewJob::now(JobKind::RotateCredential, credential.allocation, key, now).input(input);
        job.trace_id.clone_from(&call.trace_id);
        job.enqueue(&mut changes, &self.work.ids);
        Ok(Draft::new(changes, Made { id: credential.id }))
    }

    async fn show(&self, made: Answer<Made>) -> Result<IssuedCredential> {
        let late = made.replayed.is_some_and(|first| self.work.now().since(first) > self.settings.replay);
        if late {
            return Err(Error::new(
                ErrorCode::SecretGone,
                "the secret was shown when the credential was issued; issue or rotate to get a new one",
            ));
        }
        let credential = self.wait_for(made.value.id, |state| state != CredentialState::Pending).await?;
        if credential.state == CredentialState::Revoked && made.replayed.is_none() {
            return Err(Error::new(
                ErrorCode::ProviderFailed,
                "the provider did not take the new key, or the allocation was closed meanwhile",
            ));
        }
        let secret = self.vault.open(&credential.id.to_string(), &credential.sealed_secret)?;
        let secret = String::from_utf8(secret).map_err(Error::internal)?;
        Ok(IssuedCredential { credential, secret, replayed: made.replayed.is_some() })
    }

    /// Looks at the credential until it is as wanted or the wait is over, and answers how it is then.
    async fn wait_for(&self, id: CredentialId, wanted: fn(CredentialState) -> bool) -> Result<Credential> {
        let until = self.clock.now().plus(self.settings.wait);
        let (mut pause, longest) = PAUSES;
        loop {
            let stored = self.work.reader.load::<Credential>(&id.to_string()).await?;
            let credential = stored.ok_or_else(|| Error::not_found("credential", id))?.value;
            if wanted(credential.state) || self.clock.now() >= until {
                return Ok(credential);
            }
            self.clock.sleep(pause).await;
            pause = Micros(pause.0.saturating_mul(2)).min(longest);
        }
    }
}

/// Keys to a consumer's data are handed to that consumer alone, not even to operators.
fn consumers_only(call: &Call) -> Result<()> {
    match call.principal {
        Principal::Consumer(_) | Principal::System => Ok(()),
        Principal::Operator(_) | Principal::Provider(_) | Principal::Oracle(_) => Err(Error::new(
            ErrorCode::Forbidden,
            "only the consumer that owns the allocation may have keys to it",
        )),
    }
}
