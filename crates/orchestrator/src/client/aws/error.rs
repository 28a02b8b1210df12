//! What an SDK's error means, in one place: adapters decide by the fault, people read what to do.

use aws_sdk_sts::{
    config::http::HttpResponse,
    error::{BoxError, ProvideErrorMetadata, SdkError},
};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No region is configured.
    NoRegion,
    /// No answer, or one of the server's own failures.
    Unreachable,
    /// Too many requests.
    Throttled,
    /// No credentials were found.
    NoCredentials,
    /// The credentials have run out.
    ExpiredCredentials,
    /// AWS does not know the credentials, or the secret is not theirs.
    WrongCredentials,
    /// The credentials are good, but may not do this.
    Forbidden,
    /// The resource is in another region.
    WrongRegion,
    /// The clocks differ by too much.
    ClockSkew,
    /// The resource does not exist.
    Missing,
    /// The name belongs to somebody else.
    Foreign,
    /// The request itself is wrong.
    Invalid,
}

impl Fault {
    /// What to do about it.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        match self {
            Self::NoRegion => "set aws.region, or AWS_REGION in the environment",
            Self::Unreachable => "check the network, aws.endpoint and aws.region; the call may be repeated",
            Self::Throttled => "wait, lower the load, or ask AWS for a higher quota",
            Self::NoCredentials => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a profile with AWS_PROFILE, or give the host a role"
            }
            Self::ExpiredCredentials => "renew the session: temporary credentials have run out",
            Self::WrongCredentials => "check the access key and its secret; it may have been deleted",
            Self::Forbidden => {
                "attach the policy that `orchestrator setup --policy` prints to this user or role"
            }
            Self::WrongRegion => "set aws.region to the region in which the resource was made",
            Self::ClockSkew => "set this host's clock, and let it follow a time server",
            Self::Missing => "run `orchestrator setup`, which makes what is missing",
            Self::Foreign => {
                "the name belongs to another account: choose another aws.prefix, or give an existing resource by its ARN"
            }
            Self::Invalid => "this is a fault of the configuration or of the program; the text says which",
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self {
            Self::Unreachable | Self::Throttled => true,
            Self::NoRegion
            | Self::NoCredentials
            | Self::ExpiredCredentials
            | Self::WrongCredentials
            | Self::Forbidden
            | Self::WrongRegion
            | Self::ClockSkew
            | Self::Missing
            | Self::Foreign
            | Self::Invalid => false,
        }
    }

    /// By the service's own code, else by the status of its answer.
    fn of(code: Option<&str>, message: &str, status: Option<u16>) -> Self {
        let code = code.unwrap_or_default();
        // SQS puts the name of its older protocol before some codes; some services end theirs in `Exception`.
        let short = code.rsplit('.').next().unwrap_or(code).trim_end_matches("Exception");
        match short {
            "Throttling"
            | "RequestThrottled"
            | "TooManyRequests"
            | "SlowDown"
            | "RequestLimitExceeded"
            | "Throttled"
            | "KmsThrottled"
            | "OverLimit"
            | "BandwidthLimitExceeded" => Self::Throttled,
            "ExpiredToken" | "TokenRefreshRequired" => Self::ExpiredCredentials,
            "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture" => Self::ClockSkew,
            "InvalidSignature" | "SignatureDoesNotMatch"
                if message.contains("Signature expired") || message.contains("Signature not yet current") =>
            {
                Self::ClockSkew
            }
            "InvalidSignature"
            | "SignatureDoesNotMatch"
            | "InvalidClientTokenId"
            | "UnrecognizedClient"
            | "InvalidAccessKeyId"
            | "IncompleteSignature"
            | "InvalidToken"
            | "InvalidSecurity"
            | "MissingAuthenticationToken"
            | "AuthFailure" => Self::WrongCredentials,
            "AccessDenied"
            | "AuthorizationError"
            | "UnauthorizedOperation"
            | "NotAuthorized"
            | "AllAccessDisabled"
            | "Forbidden" => Self::Forbidden,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraint" => {
                Self::WrongRegion
            }
            "NonExistentQueue" | "QueueDoesNotExist" | "NoSuchBucket" | "NoSuchKey" | "NotFound"
            | "ResourceNotFound" | "NoSuchUpload" => Self::Missing,
            "BucketAlreadyExists" => Self::Foreign,
            _ => match status {
                Some(301) => Self::WrongRegion,
                Some(403) => Self::Forbidden,
                Some(404) => Self::Missing,
                Some(408 | 429 | 500..) | None => Self::Unreachable,
                Some(_) => Self::Invalid,
            },
        }
    }
}

/// A call that AWS did not do.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {detail}; {}", .fault.fix())]
pub struct AwsError {
    /// What is wrong.
    pub fault: Fault,
    /// The call, `service:Operation`, as policies name it.
    pub operation: &'static str,
    /// The service's own code, when it answered.
    pub code: Option<String>,
    /// What the service or the SDK said.
    pub detail: String,
    /// The cause.
    #[source]
    pub source: Option<BoxError>,
}

impl AwsError {
    /// Reads an SDK's error.
    pub(crate) fn new<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        let code = error.as_service_error().and_then(|error| error.code()).map(str::to_owned);
        let message = error.as_service_error().and_then(|error| error.message()).map(str::to_owned);
        let fault = match &error {
            SdkError::ServiceError(_) => {
                Fault::of(code.as_deref(), message.as_deref().unwrap_or_default(), status)
            }
            _ if names_credentials(&error) => Fault::NoCredentials,
            SdkError::ConstructionFailure(_) => Fault::Invalid,
            SdkError::ResponseError(_) => Fault::of(None, "", status),
            _ => Fault::Unreachable,
        };
        let detail = match (&code, message, status) {
            (Some(code), Some(message), _) => format!("{code}: {message}"),
            (Some(code), None, _) => code.clone(),
            (None, Some(message), _) => message,
            (None, None, Some(status)) => format!("status {status}"),
            (None, None, None) if fault == Fault::NoCredentials => "there are no credentials".to_owned(),
            (None, None, None) => "no answer".to_owned(),
        };
        Self { fault, operation, code, detail, source: Some(Box::new(error)) }
    }

    /// An entry of a batch that failed.
    #[cfg(feature = "sqs")]
    pub(crate) fn entry(operation: &'static str, code: &str, message: Option<&str>, ours: bool) -> Self {
        let message = message.unwrap_or_default();
        let fault = Fault::of(Some(code), message, Some(if ours { 400 } else { 500 }));
        let code = Some(code.to_owned());
        let detail = format!("{}: {message}", code.as_deref().unwrap_or_default());
        Self { fault, operation, code, detail, source: None }
    }

    /// Something that AWS answered and that can't be.
    pub(crate) fn odd(operation: &'static str, detail: impl Into<String>) -> Self {
        Self { fault: Fault::Invalid, operation, code: None, detail: detail.into(), source: None }
    }

    pub(super) fn no_region() -> Self {
        Self {
            fault: Fault::NoRegion,
            operation: "aws configuration",
            code: None,
            detail: "no region is set".to_owned(),
            source: None,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        self.fault.retryable()
    }

    /// Whether what was asked for does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.fault == Fault::Missing
    }
}

/// Whether a call never left because no credentials were found. The SDK has no type for it that all its crates share.
fn names_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = format!("{cause:?}");
        if text.contains("CredentialsNotLoaded") || text.contains("credential provider was not enabled") {
            return true;
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_all_services_are_told_apart() {
        let cases = [
            ("AWS.SimpleQueueService.NonExistentQueue", "", 400, Fault::Missing),
            ("ResourceNotFoundException", "", 400, Fault::Missing),
            ("ThrottlingException", "", 400, Fault::Throttled),
            ("SlowDown", "", 503, Fault::Throttled),
            ("ExpiredTokenException", "", 400, Fault::ExpiredCredentials),
            ("InvalidClientTokenId", "", 403, Fault::WrongCredentials),
            ("SignatureDoesNotMatch", "check your key", 403, Fault::WrongCredentials),
            ("SignatureDoesNotMatch", "Signature expired: 2026", 403, Fault::ClockSkew),
            ("RequestTimeTooSkewed", "", 403, Fault::ClockSkew),
            ("AccessDenied", "", 403, Fault::Forbidden),
            ("AuthorizationError", "", 403, Fault::Forbidden),
            ("BucketAlreadyExists", "", 409, Fault::Foreign),
            ("PermanentRedirect", "", 301, Fault::WrongRegion),
            ("InternalFailure", "", 500, Fault::Unreachable),
            ("SomethingNew", "", 400, Fault::Invalid),
        ];
        for (code, message, status, fault) in cases {
            assert_eq!(Fault::of(Some(code), message, Some(status)), fault, "{code} {status}");
        }
        assert_eq!(Fault::of(None, "", Some(403)), Fault::Forbidden);
        assert_eq!(Fault::of(None, "", None), Fault::Unreachable);
    }
}
