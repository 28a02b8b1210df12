//! Providers and consumers.

use super::{MarketService, NewAdapter, NewConsumer, NewProvider, validate};
use crate::{
    core::{
        client::database::{Changeset, Filter, ReaderExt, Sort},
        market::{
            address::Address,
            event::Audience,
            ids::{ConsumerId, ProviderId},
            party::{AdapterConfig, Consumer, Principal, Provider},
            terms::DomainId,
        },
    },
    error::{Error, Result},
    service::{
        outbox,
        page::{Listing, PageRequest, list},
        work::{Answer, Call, Draft, Work},
    },
};

impl MarketService {
    /// Registers a provider; for operators.
    ///
    /// # Errors
    /// `Forbidden`; `InvalidField`; those of [`Work::run`].
    pub async fn register_provider(&self, call: &Call, new: NewProvider) -> Result<Answer<Provider>> {
        call.operators_only("register providers")?;
        validate::name("name", &new.name)?;
        validate::adapter(&new.adapter)?;
        let domain = self.domain(new.domain)?;
        self.owner(&domain, new.owner)?;
        let compute = || async {
            let id = self.work.ids.next();
            let provider = Provider {
                id,
                name: new.name.clone(),
                domain: domain.clone(),
                owner: new.owner,
                adapter: self.adapter(id, &new.adapter)?,
                created_at: self.work.now(),
            };
            let mut changes = Changeset::new();
            changes.insert(&provider);
            registered(&mut changes, &self.work, "provider.registered", &provider.id.to_string());
            Ok(Draft::new(changes, provider))
        };
        self.work.run(call, "provider.register", compute).await
    }

    fn adapter(&self, provider: ProviderId, new: &NewAdapter) -> Result<AdapterConfig> {
        Ok(match new {
            NewAdapter::CoHosted => AdapterConfig::Embedded { admin_url: None, sealed_token: None },
            NewAdapter::Embedded { admin_url, admin_token } => AdapterConfig::Embedded {
                admin_url: Some(admin_url.clone()),
                sealed_token: Some(self.vault.seal(&provider.to_string(), admin_token.as_bytes())?),
            },
        })
    }

    /// A provider: itself, or any for operators.
    ///
    /// # Errors
    /// `NotFound`; database errors.
    pub async fn provider(&self, call: &Call, id: ProviderId) -> Result<Provider> {
        if !call.principal.is_operator() && call.principal != Principal::Provider(id) {
            return Err(Error::not_found("provider", id));
        }
        self.stored_provider(id).await
    }

    /// All providers; for operators.
    ///
    /// # Errors
    /// `Forbidden`; database errors.
    pub async fn providers(&self, call: &Call, page: PageRequest) -> Result<Listing<Provider>> {
        call.operators_only("list providers")?;
        list(self.work.reader.as_ref(), Filter::All, Sort::Id, page).await
    }

    /// Registers a consumer; for operators.
    ///
    /// # Errors
    /// `Forbidden`; `InvalidField`; those of [`Work::run`].
    pub async fn register_consumer(&self, call: &Call, new: NewConsumer) -> Result<Answer<Consumer>> {
        call.operators_only("register consumers")?;
        validate::name("name", &new.name)?;
        let domain = self.domain(new.domain)?;
        self.owner(&domain, new.owner)?;
        let compute = || async {
            let consumer = Consumer {
                id: self.work.ids.next(),
                name: new.name.clone(),
                domain: domain.clone(),
                owner: new.owner,
                created_at: self.work.now(),
            };
            let mut changes = Changeset::new();
            changes.insert(&consumer);
            registered(&mut changes, &self.work, "consumer.registered", &consumer.id.to_string());
            Ok(Draft::new(changes, consumer))
        };
        self.work.run(call, "consumer.register", compute).await
    }

    /// A consumer: itself, or any for operators.
    ///
    /// # Errors
    /// `NotFound`; database errors.
    pub async fn consumer(&self, call: &Call, id: ConsumerId) -> Result<Consumer> {
        if !call.principal.is_operator() && call.principal != Principal::Consumer(id) {
            return Err(Error::not_found("consumer", id));
        }
        let stored = self.work.reader.load::<Consumer>(&id.to_string()).await?;
        stored.map(|stored| stored.value).ok_or_else(|| Error::not_found("consumer", id))
    }

    /// All consumers; for operators.
    ///
    /// # Errors
    /// `Forbidden`; database errors.
    pub async fn consumers(&self, call: &Call, page: PageRequest) -> Result<Listing<Consumer>> {
        call.operators_only("list consumers")?;
        list(self.work.reader.as_ref(), Filter::All, Sort::Id, page).await
    }

    pub(super) async fn stored_provider(&self, id: ProviderId) -> Result<Provider> {
        let stored = self.work.reader.load::<Provider>(&id.to_string()).await?;
        stored.map(|stored| stored.value).ok_or_else(|| Error::not_found("provider", id))
    }

    /// Whether there is an owner where the chain needs one, and none where it means nothing.
    fn owner(&self, domain: &DomainId, owner: Option<Address>) -> Result<()> {
        match (self.settings.owned_domains.contains(domain), owner) {
            (true, None) => {
                Err(Error::field("owner", format!("domain {domain} pays owners: give their address")))
            }
            // Tokens refuse to go there, so nobody would ever be paid.
            (true, Some(owner)) if owner == Address([0; 20]) => {
                Err(Error::field("owner", "the zero address belongs to nobody: give the owner's"))
            }
            (false, Some(_)) => Err(Error::field(
                "owner",
                format!("accounts of domain {domain} have no owners: leave it out"),
            )),
            _ => Ok(()),
        }
    }

    fn domain(&self, wanted: Option<DomainId>) -> Result<DomainId> {
        let first = || self.settings.domains.first().cloned().unwrap_or_else(DomainId::local);
        let domain = wanted.unwrap_or_else(first);
        if self.settings.domains.contains(&domain) {
            return Ok(domain);
        }
        let known: Vec<_> = self.settings.domains.iter().map(DomainId::as_str).collect();
        Err(Error::field("domain", format!("this market settles in: {}", known.join(", "))))
    }
}

fn registered(changes: &mut Changeset, work: &Work, kind: &str, id: &str) {
    let audience = Audience::Tenants(vec![id.to_owned()]);
    outbox::event(changes, &work.ids, kind, id, audience, serde_json::json!({}));
}
