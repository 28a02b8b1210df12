//! Every error code that the API may answer with, its HTTP status, its title and whether to try again: one table.
//! Each has a page in `docs/errors/`.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $retry:ident, $title:literal;)+) => {
        /// A stable error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)+
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code's text, which never changes.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }

            /// A short title for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }

            /// Whether the same request may succeed later, unchanged.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => codes!(@retry $retry)),+ }
            }
        }
    };
    (@retry retry) => { true };
    (@retry never) => { false };
}

codes! {
    /// The body is not JSON, or not of the shape that the endpoint takes.
    MalformedBody = "malformed_body", 400, never, "The request body is malformed";
    /// A parameter of the address is wrong.
    InvalidParameter = "invalid_parameter", 400, never, "A parameter is invalid";
    /// A header is wrong.
    InvalidHeader = "invalid_header", 400, never, "A header is invalid";
    /// A field of the body is out of its range.
    InvalidField = "invalid_field", 422, never, "A field is invalid";
    /// No key, or a wrong or revoked one.
    Unauthenticated = "unauthenticated", 401, never, "An API key is needed";
    /// The key's role may not do this.
    Forbidden = "forbidden", 403, never, "The key's role may not do this";
    /// It does not exist, or belongs to another tenant.
    NotFound = "not_found", 404, never, "Not found";
    /// The address exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, never, "Method not allowed";
    /// Changed at the same time by somebody else.
    Conflict = "conflict", 409, retry, "Changed at the same time";
    /// It exists already.
    AlreadyExists = "already_exists", 409, never, "It exists already";
    /// The idempotency key was used with another request.
    IdempotencyKeyReused = "idempotency_key_reused", 409, never, "The idempotency key was used for another request";
    /// The lifecycle does not allow it now.
    InvalidState = "invalid_state", 409, never, "Not possible in the present state";
    /// The reservation ran out.
    ReservationExpired = "reservation_expired", 409, never, "The reservation has expired";
    /// The unit has too little free capacity.
    InsufficientCapacity = "insufficient_capacity", 409, never, "Too little free capacity";
    /// No unit matches.
    NoMatchingOffering = "no_matching_offering", 422, never, "No offering matches";
    /// The account has too little money.
    InsufficientFunds = "insufficient_funds", 409, never, "Too little money";
    /// An amount or a size does not fit.
    Overflow = "overflow", 422, never, "A number is too large";
    /// The secret was shown once and the time to see it again is over.
    SecretGone = "secret_gone", 410, never, "The secret can't be shown again";
    /// The report's signature does not verify.
    BadSignature = "bad_signature", 422, never, "The signature does not verify";
    /// The report's nonce is not above the last one.
    StaleNonce = "stale_nonce", 409, never, "The nonce was used";
    /// The report's period overlaps one that is known, leaves its bucket, or lies in the future.
    InvalidPeriod = "invalid_period", 422, never, "The period is invalid";
    /// The period overlaps a report that is known.
    OverlappingPeriod = "overlapping_period", 409, never, "The period overlaps another report";
    /// The body is larger than allowed.
    BodyTooLarge = "body_too_large", 413, never, "The request body is too large";
    /// The body is not JSON by its content type.
    UnsupportedMediaType = "unsupported_media_type", 415, never, "The content type is not supported";
    /// Too many requests.
    RateLimited = "rate_limited", 429, retry, "Too many requests";
    /// Known to the plan, not built.
    NotSupported = "not_supported", 501, never, "Not supported";
    /// A provider did not do as asked.
    ProviderFailed = "provider_failed", 502, retry, "The provider failed";
    /// The settlement layer refused or did not answer.
    SettlementFailed = "settlement_failed", 502, retry, "The settlement layer failed";
    /// Something that the service needs does not answer.
    Unavailable = "unavailable", 503, retry, "The service is not ready";
    /// The disk is full.
    StorageFull = "storage_full", 507, retry, "The disk is full";
    /// A fault of ours.
    Internal = "internal", 500, retry, "Internal error";
    /// The configuration is wrong.
    InvalidConfig = "invalid_config", 500, never, "The configuration is invalid";
    /// Another daemon holds the data directory.
    DataDirLocked = "data_dir_locked", 500, never, "The data directory is in use";
    /// The data directory can't be written.
    DataDirUnwritable = "data_dir_unwritable", 500, never, "The data directory can't be written";
}
