//! The built-in provider, and what the first start makes: a provider, a unit, an operator's key.

use std::path::PathBuf;

use orchestrator_provider::{ProviderHandle, ProviderOptions, ProviderServer};

use super::{clients::Clients, secret, services::Services};
use crate::{
    client::clock::SystemEntropy,
    config::{Config, section::SettlementBackend},
    core::market::{
        ids::OperatorId,
        money::Amount,
        party::Principal,
        quantity::{Bytes, Ppm},
        terms::{PriceTerms, SlaTerms},
        unit::Features,
    },
    error::{Error, ErrorCode, Result},
    service::{
        market::{DefaultMarket, NewAdapter, NewProvider, NewUnit, ensure_default_market},
        work::Call,
    },
};

/// File in the data directory that holds the operator's API key.
pub const OPERATOR_KEY_FILE: &str = "operator.key";
/// File in the provider's directory that holds its admin token.
const PROVIDER_TOKEN_FILE: &str = "admin.token";

/// The built-in provider, co-hosted or alone.
///
/// # Errors
/// An address or a directory that can't be used.
pub async fn start_provider(config: &Config, allow_faults: bool) -> Result<ProviderHandle> {
    let mut options = ProviderOptions::new(provider_dir(config), provider_token(config)?);
    options.s3_listen = config.provider.s3_listen;
    options.admin_listen = config.provider.admin_listen;
    options.capacity = config.provider.capacity.0.get();
    options.region.clone_from(&config.provider.region);
    options.public_endpoint =
        Some(config.provider.public_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    options.allow_faults = allow_faults;
    ProviderServer::start(options).await.map_err(|error| {
        let detail = format!("the built-in provider can't start: {}", crate::error::chain(&error));
        Error::new(ErrorCode::InvalidConfig, detail).because(error)
    })
}

fn provider_dir(config: &Config) -> PathBuf {
    match config.provider.dir.as_os_str().is_empty() {
        true => config.data.dir.join("provider"),
        false => config.provider.dir.clone(),
    }
}

/// Where the provider's admin token lies.
#[must_use]
pub fn provider_token_path(config: &Config) -> PathBuf {
    provider_dir(config).join(PROVIDER_TOKEN_FILE)
}

pub(super) fn provider_token(config: &Config) -> Result<String> {
    std::fs::create_dir_all(provider_dir(config)).map_err(|error| {
        let detail = format!("{}: {error}", provider_dir(config).display());
        Error::new(ErrorCode::DataDirUnwritable, detail).because(error)
    })?;
    Ok(secret::read_or_make(&provider_token_path(config), &SystemEntropy)?.trim().to_owned())
}

/// Registers the built-in provider and its unit, once.
pub(super) async fn first_market(config: &Config, services: &Services) -> Result<DefaultMarket> {
    // A whole token has 18 decimals here; the price is 20 of them for a GiB-month, one for a GiB of egress.
    const TOKEN: u128 = 1_000_000_000_000_000_000;
    // Where the chain pays owners, the built-in provider is the operator's.
    let owner = match config.settlement.backend {
        SettlementBackend::Local => None,
        SettlementBackend::Ethereum => config.ethereum.treasury.parse().ok(),
    };
    let provider =
        NewProvider { name: "built-in".into(), domain: None, owner, adapter: NewAdapter::CoHosted };
    let sla = SlaTerms {
        upload_bytes_per_s: 1_000_000,
        download_bytes_per_s: 1_000_000,
        min_coverage: Ppm(500_000),
        ..SlaTerms::default()
    };
    let unit = NewUnit {
        provider: None,
        name: "built-in storage".into(),
        kind: None,
        profile: None,
        region: config.provider.region.clone(),
        country: config.provider.country.clone(),
        // The prober's own allocation comes out of the same capacity.
        capacity: Bytes(config.provider.capacity.0.get() / 100 * 95),
        features: Features::default(),
        tags: std::collections::BTreeMap::new(),
        price: PriceTerms { per_gib_month: Amount(20 * TOKEN), per_gib_egress: Amount(TOKEN) },
        price_bounds: None,
        sla,
    };
    ensure_default_market(&services.market, provider, unit).await
}

/// The operator's key: that of its file, or a new one at first start.
pub(super) async fn operator_key(
    config: &Config,
    services: &Services,
    clients: &Clients,
) -> Result<(String, bool)> {
    let path = config.data.dir.join(OPERATOR_KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((text.trim().to_owned(), false)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let principal = Principal::Operator(clients.work.ids.next::<OperatorId>());
            let made =
                services.keys.create(&Call::system("first start"), principal, "first operator").await?;
            secret::write(&path, &made.text)?;
            Ok((made.text, true))
        }
        Err(error) => {
            let detail = format!("{}: {error}", path.display());
            Err(Error::new(ErrorCode::DataDirUnwritable, detail).because(error))
        }
    }
}
