//! What providers, consumers and units must look like before they are written down. Every fault names its field.

use std::collections::BTreeMap;

use super::input::{NewAdapter, NewUnit};
use crate::{
    core::market::{
        money::Amount,
        quantity::{Bytes, Micros, Ppm},
        terms::{MONTH, PriceBounds, PriceTerms, SlaTerms},
    },
    error::{Error, Result},
};

const LONGEST_LATENCY: Micros = Micros::from_secs(600);
const MAX_TAGS: usize = 32;
const MAX_TIERS: usize = 16;

/// 1 to 100 characters, none of them a control character.
pub(super) fn name(field: &str, name: &str) -> Result<()> {
    let length = name.chars().count();
    if !(1..=100).contains(&length) || name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(Error::field(field, "a name has 1 to 100 characters, not only spaces, no line breaks"));
    }
    Ok(())
}

/// Everything about a unit that can be told without the database.
pub(super) fn unit(new: &NewUnit) -> Result<()> {
    name("name", &new.name)?;
    if new.kind.as_deref().is_some_and(|kind| kind != "storage") {
        return Err(Error::field("kind", "this build serves units of the kind `storage`"));
    }
    if new.profile.as_deref().is_some_and(|profile| profile != "s3") {
        return Err(Error::field("profile", "this build serves the compatibility profile `s3`"));
    }
    if !word(&new.region, 64, "-") {
        return Err(Error::field(
            "region",
            "a region has 1 to 64 lower-case letters, digits and hyphens, such as `eu-central-1`",
        ));
    }
    if new.country.len() != 2 || !new.country.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(Error::field(
            "country",
            "a country is two upper-case letters (ISO 3166-1), such as `DE`",
        ));
    }
    size("capacity", new.capacity)?;
    tags(&new.tags)?;
    price(&new.price, new.price_bounds.as_ref(), new.capacity)?;
    sla(&new.sla)
}

/// 1 byte to [`Bytes::MAX`].
pub(in crate::service) fn size(field: &str, bytes: Bytes) -> Result<()> {
    if bytes.0 == 0 || bytes > Bytes::MAX {
        return Err(Error::field(field, format!("a size is 1 to {} bytes", Bytes::MAX.0)));
    }
    Ok(())
}

/// At most 32 pairs of a short key and a value.
pub(super) fn tags(tags: &BTreeMap<String, String>) -> Result<()> {
    if tags.len() > MAX_TAGS {
        return Err(Error::field("tags", format!("a unit has at most {MAX_TAGS} tags")));
    }
    for (key, value) in tags {
        if !word(key, 64, "-_.") {
            return Err(Error::field(
                "tags",
                "a tag's key has 1 to 64 lower-case letters, digits, hyphens, underscores and dots",
            ));
        }
        if value.chars().count() > 256 || value.chars().any(char::is_control) {
            return Err(Error::field(
                format!("tags.{key}"),
                "a tag's value has at most 256 characters, no line breaks",
            ));
        }
    }
    Ok(())
}

/// A price that can be computed with for any allocation of the unit, and that lies within its bounds.
pub(super) fn price(price: &PriceTerms, bounds: Option<&PriceBounds>, capacity: Bytes) -> Result<()> {
    const FITS: &str = "the price of the whole unit for a hundred years must fit 128 bits; use a smaller one";
    let century = Micros(MONTH.get() * 12 * 100);
    let storage = PriceTerms { per_gib_egress: Amount::ZERO, ..*price };
    if storage.ceiling(capacity, century, Bytes::MAX).is_none() {
        return Err(Error::field("price.per_gib_month", FITS));
    }
    if price.ceiling(capacity, century, Bytes::MAX).is_none() {
        return Err(Error::field("price.per_gib_egress", FITS));
    }
    let Some(bounds) = bounds else { return Ok(()) };
    if bounds.min.is_zero() || bounds.min > bounds.max {
        return Err(Error::field("price_bounds.min", "the lower bound is above zero and not above `max`"));
    }
    let highest = PriceTerms { per_gib_month: bounds.max, ..*price };
    if highest.ceiling(capacity, century, Bytes::MAX).is_none() {
        return Err(Error::field("price_bounds.max", FITS));
    }
    if !(bounds.min..=bounds.max).contains(&price.per_gib_month) {
        return Err(Error::field("price.per_gib_month", "the price must lie within `price_bounds`"));
    }
    Ok(())
}

/// A promise that can be judged.
pub(super) fn sla(sla: &SlaTerms) -> Result<()> {
    latency("sla.latency_avg", sla.latency_avg)?;
    if let Some(p95) = sla.latency_p95 {
        latency("sla.latency_p95", p95)?;
    }
    for (field, rate) in [
        ("sla.upload_bytes_per_s", sla.upload_bytes_per_s),
        ("sla.download_bytes_per_s", sla.download_bytes_per_s),
    ] {
        if rate > Bytes::MAX.0 {
            return Err(Error::field(field, format!("a rate is at most {} bytes per second", Bytes::MAX.0)));
        }
    }
    ratio("sla.uptime", sla.uptime, 1)?;
    ratio("sla.error_rate", sla.error_rate, 0)?;
    ratio("sla.min_coverage", sla.min_coverage, 1)?;
    ratio("sla.collateral_slash", sla.collateral_slash, 0)?;
    if sla.credit_tiers.len() > MAX_TIERS {
        return Err(Error::field("sla.credit_tiers", format!("there are at most {MAX_TIERS} tiers")));
    }
    for (index, tier) in sla.credit_tiers.iter().enumerate() {
        ratio(&format!("sla.credit_tiers.{index}.uptime_below_ppm"), tier.uptime_below_ppm, 1)?;
        ratio(&format!("sla.credit_tiers.{index}.credit_ppm"), tier.credit_ppm, 0)?;
    }
    let falls = sla
        .credit_tiers
        .iter()
        .zip(sla.credit_tiers.iter().skip(1))
        .all(|(a, b)| a.uptime_below_ppm > b.uptime_below_ppm && a.credit_ppm <= b.credit_ppm);
    if !falls {
        return Err(Error::field(
            "sla.credit_tiers",
            "tiers go from the highest uptime to the lowest, and their credits never fall",
        ));
    }
    Ok(())
}

fn latency(field: &str, latency: Micros) -> Result<()> {
    if latency == Micros::ZERO || latency > LONGEST_LATENCY {
        return Err(Error::field(field, "a latency is above zero and at most ten minutes"));
    }
    Ok(())
}

fn ratio(field: &str, ratio: Ppm, least: u32) -> Result<()> {
    if !(least..=Ppm::ONE.0).contains(&ratio.0) {
        return Err(Error::field(field, format!("a ratio is {least} to 1,000,000 parts per million")));
    }
    Ok(())
}

fn word(text: &str, longest: usize, also: &str) -> bool {
    (1..=longest).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c))
}

/// How a provider's units are reached: an address and a token that an HTTP client can use.
pub(super) fn adapter(adapter: &NewAdapter) -> Result<()> {
    let NewAdapter::Embedded { admin_url, admin_token } = adapter else { return Ok(()) };
    let url = admin_url
        .parse::<url::Url>()
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.is_none() {
        return Err(Error::field("adapter.admin_url", "must be an address such as `http://127.0.0.1:7702`"));
    }
    if admin_token.len() < 16 || !admin_token.bytes().all(|b| b.is_ascii_graphic()) {
        let detail = "must be the provider's admin token: at least 16 visible ASCII characters";
        return Err(Error::field("adapter.admin_token", detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::market::{terms::CreditTier, unit::Features};

    fn good() -> NewUnit {
        NewUnit {
            provider: None,
            name: "disks".into(),
            kind: None,
            profile: None,
            region: "eu-1".into(),
            country: "DE".into(),
            capacity: Bytes(1 << 40),
            features: Features::default(),
            tags: BTreeMap::from([("disk".into(), "NVMe".into())]),
            price: PriceTerms { per_gib_month: Amount(20_000), per_gib_egress: Amount(10) },
            price_bounds: Some(PriceBounds { min: Amount(10_000), max: Amount(30_000) }),
            sla: SlaTerms::default(),
        }
    }

    fn tier(below: u32, credit: u32) -> CreditTier {
        CreditTier { uptime_below_ppm: Ppm(below), credit_ppm: Ppm(credit) }
    }

    #[test]
    fn each_fault_names_its_field() {
        assert!(unit(&good()).is_ok());
        type Change = fn(&mut NewUnit);
        let faults: [(&str, Change); 22] = [
            ("name", |u| u.name = String::new()),
            ("name", |u| u.name = "a\nb".into()),
            ("kind", |u| u.kind = Some("compute".into())),
            ("profile", |u| u.profile = Some("nfs".into())),
            ("region", |u| u.region = "EU 1".into()),
            ("country", |u| u.country = "de".into()),
            ("country", |u| u.country = "DEU".into()),
            ("capacity", |u| u.capacity = Bytes(0)),
            ("capacity", |u| u.capacity = Bytes(u64::MAX)),
            ("tags", |u| u.tags = (0..33).map(|i| (format!("t{i}"), String::new())).collect()),
            ("tags", |u| u.tags = BTreeMap::from([("Big Key".into(), String::new())])),
            ("tags.disk", |u| u.tags = BTreeMap::from([("disk".into(), "x".repeat(257))])),
            ("price.per_gib_month", |u| u.price.per_gib_month = Amount(u128::MAX)),
            ("price.per_gib_egress", |u| u.price.per_gib_egress = Amount(u128::MAX)),
            ("price.per_gib_month", |u| u.price.per_gib_month = Amount(9_999)),
            ("price_bounds.min", |u| {
                u.price_bounds = Some(PriceBounds { min: Amount(0), max: Amount(1) });
            }),
            ("price_bounds.max", |u| {
                u.price_bounds = Some(PriceBounds { min: Amount(1), max: Amount(u128::MAX) });
            }),
            ("sla.latency_avg", |u| u.sla.latency_avg = Micros::ZERO),
            ("sla.uptime", |u| u.sla.uptime = Ppm(1_000_001)),
            ("sla.min_coverage", |u| u.sla.min_coverage = Ppm(0)),
            ("sla.download_bytes_per_s", |u| u.sla.download_bytes_per_s = u64::MAX),
            ("sla.credit_tiers", |u| u.sla.credit_tiers = vec![tier(990_000, 1), tier(990_000, 2)]),
        ];
        for (field, change) in faults {
            let mut bad = good();
            change(&mut bad);
            assert_eq!(unit(&bad).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
