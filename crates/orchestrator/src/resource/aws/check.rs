//! A look at AWS for `doctor`: who we are, whether the clocks agree, and each service's resources, all at the same time.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_sdk_sts::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};
use futures::future;
use parking_lot::Mutex;

use super::{AwsResources, Found, Item};
use crate::{
    client::aws::{AwsError, Fault},
    core::market::quantity::Micros,
    resource::check::{Check, Finding},
};

/// How the check of the account is called.
const ACCOUNT: &str = "aws account";
/// AWS refuses requests that are further off than five minutes; a warning comes before.
const MAX_SKEW_SECONDS: i64 = 60;

/// Longest time for one service.
const PATIENCE: Duration = Duration::from_secs(15);

/// Something that is set as it should be and yet comes to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strain {
    pub(super) what: String,
    pub(super) fix: &'static str,
}

/// The time that an answer's `Date` header has, in seconds since the epoch.
#[derive(Debug, Clone, Default)]
struct ServerTime {
    seconds: Arc<Mutex<Option<i64>>>,
}

impl Intercept for ServerTime {
    fn name(&self) -> &'static str {
        "ServerTime"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date")
            && let Ok(date) = DateTime::from_str(date, DateTimeFormat::HttpDate)
        {
            *self.seconds.lock() = Some(date.secs());
        }
        Ok(())
    }
}

fn finding(error: &AwsError, what: &str) -> Finding {
    Finding {
        what: format!("{what}: {}: {}", error.operation, error.detail),
        fix: error.fault.fix().to_owned(),
    }
}

/// What to say about a clock that is this far ahead of AWS's.
fn skew(ahead: i64) -> Option<Finding> {
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    (ahead.abs() > MAX_SKEW_SECONDS).then(|| Finding {
        what: format!("this host's clock is {} s {direction} AWS's", ahead.abs()),
        fix: Fault::ClockSkew.fix().to_owned(),
    })
}

fn elapsed(since: Instant) -> Micros {
    Micros(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX))
}

impl AwsResources {
    /// A check of the account and one of each service that is used.
    pub async fn check(&self) -> Vec<Check> {
        let mut services: Vec<&'static str> = self.items.iter().map(|item| item.service()).collect();
        services.sort_unstable();
        services.dedup();
        let service = |name| bounded(name, self.check_service(name));
        let services = future::join_all(services.into_iter().map(service));
        let (account, services) = tokio::join!(bounded(ACCOUNT, self.check_account()), services);
        std::iter::once(account).chain(services).collect()
    }

    /// Whether everything can be reached and is there, however it is set: for `ready`.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub async fn answers(&self) -> Result<(), AwsError> {
        for item in &self.items {
            if item.look().await? == Found::Missing {
                let detail = format!("{} `{}` does not exist", item.kind(), item.name());
                return Err(AwsError { fault: Fault::Missing, ..AwsError::odd("look", detail) });
            }
        }
        Ok(())
    }

    async fn check_account(&self) -> Check {
        let (time, started) = (ServerTime::default(), Instant::now());
        let ask = self.clients.sts().get_caller_identity().customize().interceptor(time.clone());
        let answer = ask.send().await;
        let mut check =
            Check { name: ACCOUNT, latency: elapsed(started), version: None, findings: Vec::new() };
        match answer.map_err(|error| AwsError::new("sts:GetCallerIdentity", error)) {
            Ok(found) => {
                let arn = found.arn.unwrap_or_default();
                check.version = Some(format!("{arn} in {}", self.clients.region()));
            }
            Err(error) => check.findings.push(finding(&error, "the credentials don't work")),
        }
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        if let Some(theirs) = *time.seconds.lock() {
            check.findings.extend(skew(i64::try_from(ours).unwrap_or(i64::MAX).saturating_sub(theirs)));
        }
        check
    }

    async fn check_service(&self, service: &'static str) -> Check {
        let items: Vec<&dyn Item> =
            self.items.iter().filter(|item| item.service() == service).map(|item| &**item).collect();
        let started = Instant::now();
        let mut found = Vec::with_capacity(items.len());
        let mut latency = None;
        for chunk in items.chunks(super::CONCURRENCY) {
            found.extend(future::join_all(chunk.iter().map(|item| examine(*item))).await);
            // That of the first answers, not of all one after the other.
            latency.get_or_insert_with(|| elapsed(started));
            if found.iter().any(|examined: &Examined| examined.hopeless) {
                break;
            }
        }
        let findings = found.into_iter().flat_map(|examined| examined.findings).collect();
        let version = Some(format!("{} resources", items.len()));
        Check { name: service, latency: latency.unwrap_or_default(), version, findings }
    }
}

/// What came of looking at one resource.
struct Examined {
    findings: Vec<Finding>,
    /// Whether all others of the service will come to the same, after as long a time.
    hopeless: bool,
}

/// Gives a check up that takes too long, and no other one with it.
async fn bounded(name: &'static str, check: impl Future<Output = Check>) -> Check {
    let (started, outcome) = (Instant::now(), tokio::time::timeout(PATIENCE, check).await);
    outcome.unwrap_or_else(|_| Check {
        name,
        latency: elapsed(started),
        version: None,
        findings: vec![Finding {
            what: format!("it did not answer within {} s", PATIENCE.as_secs()),
            fix: "look at aws.endpoint and aws.region, and whether a firewall lies between".to_owned(),
        }],
    })
}

async fn examine(item: &dyn Item) -> Examined {
    let found = item.look().await;
    let hopeless = match &found {
        Ok(_) => false,
        Err(error) => match error.fault {
            Fault::NoRegion
            | Fault::Unreachable
            | Fault::Throttled
            | Fault::NoCredentials
            | Fault::ExpiredCredentials
            | Fault::WrongCredentials
            | Fault::ClockSkew => true,
            Fault::Forbidden | Fault::WrongRegion | Fault::Missing | Fault::Foreign | Fault::Invalid => false,
        },
    };
    let mut findings = Vec::new();
    if matches!(found, Ok(Found::Right | Found::Different(_)))
        && let Ok(Some(strain)) = item.strained().await
    {
        let what = format!("{} `{}` {}", item.kind(), item.name(), strain.what);
        findings.push(Finding { what, fix: strain.fix.to_owned() });
    }
    findings.extend(problem(item, found));
    Examined { findings, hopeless }
}

fn problem(item: &dyn Item, found: Result<Found, AwsError>) -> Option<Finding> {
    let what = format!("{} `{}`", item.kind(), item.name());
    match found {
        Ok(Found::Right) => None,
        Ok(Found::Missing) if item.foreign() => Some(Finding {
            what: format!("{what} does not exist"),
            fix: "make it, or leave its ARN out of the configuration so that setup makes one".to_owned(),
        }),
        Ok(Found::Missing) => {
            Some(Finding { what: format!("{what} does not exist"), fix: Fault::Missing.fix().to_owned() })
        }
        Ok(Found::Different(changes)) => Some(Finding {
            what: format!("{what} differs: {}", changes.join(", ")),
            fix: "run `orchestrator setup`, which mends it".to_owned(),
        }),
        Err(error) => Some(finding(&error, &what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_with_its_direction() {
        assert_eq!(skew(0), None);
        assert_eq!(skew(-60), None);
        assert!(skew(3_600).is_some_and(|finding| finding.what.contains("3600 s ahead of")));
        assert!(skew(-3_600).is_some_and(|finding| finding.what.contains("3600 s behind")));
    }
}
