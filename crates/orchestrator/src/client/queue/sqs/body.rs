//! What a message looks like at SQS. A body travels as it is when SQS takes it as it is; an empty one and one with
//! characters that SQS refuses travel as base64, and an attribute says so. A schedule of EventBridge can only send JSON: its
//! text comes in an envelope. A delay that is longer than SQS keeps is an attribute, too.

use aws_sdk_sqs::types::{Message as SqsMessage, MessageAttributeValue, MessageSystemAttributeName};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    client::aws::AwsError,
    core::{
        client::queue::Message,
        market::quantity::{Micros, Timestamp},
    },
};

/// The attribute that says how the body is written.
pub(super) const ENCODING: &str = "encoding";
/// The attribute that says when the message may be delivered, in microseconds since the epoch.
pub(super) const NOT_BEFORE: &str = "not_before";
const BASE64: &str = "base64";
/// Before the base64 of a text: SQS takes no empty body.
const MARK: &str = "base64:";

/// A text inside of JSON, as schedules send it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    orchestrator_body: String,
}

/// Wraps a text for a sender that can only send JSON.
///
/// # Errors
/// Never in practice; JSON can hold every text.
pub fn envelope(body: &str) -> serde_json::Result<String> {
    serde_json::to_string(&Envelope { orchestrator_body: body.to_owned() })
}

/// The text that [`envelope`] wrapped; `None` for anything else.
#[must_use]
pub fn unwrap_envelope(body: &str) -> Option<String> {
    // Most bodies are none: a look is cheaper than to parse.
    if !body.contains("orchestrator_body") {
        return None;
    }
    serde_json::from_str::<Envelope>(body).ok().map(|envelope| envelope.orchestrator_body)
}

/// Whether SQS takes this text as it is, and gives it back so.
fn plain(body: &str) -> bool {
    let allowed = |c: char| match c {
        '\t' | '\n' | '\r' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        c => c >= ' ',
    };
    !body.is_empty() && body.chars().all(allowed) && unwrap_envelope(body).is_none()
}

fn text(value: impl Into<String>) -> Result<MessageAttributeValue, AwsError> {
    let value = MessageAttributeValue::builder().data_type("String").string_value(value).build();
    value.map_err(|error| AwsError::odd("sqs:SendMessage", error.to_string()))
}

/// A message on its way out.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) body: String,
    pub(super) delay_seconds: i32,
    encoded: bool,
    not_before: Option<Timestamp>,
}

/// The longest delay that SQS keeps.
const LONGEST_DELAY: u64 = 900;

/// Whole seconds, rounded up: never sooner than asked.
pub(super) fn seconds_up(duration: Micros) -> u64 {
    duration.get().div_ceil(1_000_000)
}

impl Outgoing {
    pub(super) fn new(body: &str, delay: Micros, now: Timestamp) -> Self {
        let encoded = !plain(body);
        let body = if encoded { format!("{MARK}{}", STANDARD.encode(body)) } else { body.to_owned() };
        let seconds = seconds_up(delay);
        let not_before = (seconds > LONGEST_DELAY).then(|| now.plus(delay));
        let delay_seconds = i32::try_from(seconds.min(LONGEST_DELAY)).unwrap_or(0);
        Self { body, delay_seconds, encoded, not_before }
    }

    /// The attributes that travel with it.
    pub(super) fn attributes(&self) -> Result<Vec<(String, MessageAttributeValue)>, AwsError> {
        let mut attributes = Vec::new();
        if self.encoded {
            attributes.push((ENCODING.to_owned(), text(BASE64)?));
        }
        if let Some(at) = self.not_before {
            attributes.push((NOT_BEFORE.to_owned(), text(at.as_micros().to_string())?));
        }
        Ok(attributes)
    }
}

/// A message that came.
pub(super) struct Incoming {
    pub(super) message: Message,
    /// When it may be delivered, if it had to travel further than one delay.
    pub(super) not_before: Option<Timestamp>,
}

impl Incoming {
    pub(super) fn read(message: SqsMessage) -> Self {
        let attribute = |name: &str| {
            let value = message.message_attributes()?.get(name)?;
            value.string_value().map(str::to_owned)
        };
        let not_before = attribute(NOT_BEFORE).and_then(|at| at.parse().ok()).map(Timestamp);
        let encoded = attribute(ENCODING).is_some_and(|encoding| encoding == BASE64);
        let raw = message.body().unwrap_or_default();
        let body = match encoded {
            // Bytes that are not what the attribute says are delivered as they came: they are poison, and to be kept.
            true => raw
                .strip_prefix(MARK)
                .and_then(|text| STANDARD.decode(text).ok())
                .and_then(|bytes| String::from_utf8(bytes).ok()),
            false => unwrap_envelope(raw),
        };
        let deliveries = message
            .attributes()
            .and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount))
            .and_then(|count| count.parse().ok());
        let message = Message {
            body: body.unwrap_or_else(|| raw.to_owned()),
            id: message.message_id().unwrap_or_default().to_owned(),
            receipt: message.receipt_handle().unwrap_or_default().to_owned(),
            deliveries: deliveries.unwrap_or(1),
        };
        Self { message, not_before }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn there_and_back(body: &str) -> String {
        let out = Outgoing::new(body, Micros::ZERO, Timestamp(0));
        let allowed =
            |c: char| matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && !"\u{fffe}\u{ffff}".contains(c));
        assert!(!out.body.is_empty() && out.body.chars().all(allowed));
        let attributes: HashMap<_, _> = out.attributes().unwrap().into_iter().collect();
        let message = SqsMessage::builder().body(out.body).set_message_attributes(Some(attributes)).build();
        Incoming::read(message).message.body
    }

    proptest! {
        #[test]
        fn every_text_comes_back(body in any::<String>()) {
            prop_assert_eq!(there_and_back(&body), body);
        }
    }

    #[test]
    fn a_schedules_text_is_unwrapped_and_a_text_that_looks_like_one_is_not() {
        let wrapped = envelope("seal_blocks").unwrap();
        let incoming = Incoming::read(SqsMessage::builder().body(&wrapped).build());
        assert_eq!(incoming.message.body, "seal_blocks");
        assert_eq!(there_and_back(&wrapped), wrapped);
        assert_eq!(there_and_back(""), "");
    }

    #[test]
    fn delays_are_rounded_up_and_long_ones_carry_their_end() {
        let now = Timestamp(1_000);
        let out = Outgoing::new("a", Micros(1_000_001), now);
        assert_eq!((out.delay_seconds, out.not_before), (2, None));
        let day = Micros::from_days(1);
        let out = Outgoing::new("a", day, now);
        assert_eq!((out.delay_seconds, out.not_before), (900, Some(now.plus(day))));
    }
}
