//! An HTTP server that answers like AWS in states that no emulator can be put into: throttled, with credentials that have run
//! out, with another clock, with queues that give out nothing more.

use std::net::SocketAddr;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The state that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Everybody is told to slow down.
    Throttled,
    /// The session has run out.
    Expired,
    /// Everything is well, but the clock is an hour ahead.
    HourAhead,
    /// Everything is well, but requests are said to be an hour old.
    Skewed,
    /// The queues have as many messages in flight as there may be.
    Full,
}

/// The server; ends with the test.
pub struct AwsLike {
    pub endpoint: String,
    task: tokio::task::JoinHandle<()>,
}

impl AwsLike {
    pub async fn start(mood: Mood) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(mood);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint: format!("http://{address}"), task }
    }
}

impl Drop for AwsLike {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(mood): State<Mood>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").map(|target| target.to_str().unwrap().to_owned());
    let mut response = match mood {
        Mood::Throttled => refusal(target.as_deref(), "ThrottlingException", "Rate exceeded"),
        Mood::Expired => refusal(target.as_deref(), "ExpiredToken", "The security token is expired"),
        Mood::Skewed => {
            let said = "Signature expired: 20260101T000000Z is now earlier than 20260101T005500Z";
            refusal(target.as_deref(), "SignatureDoesNotMatch", said)
        }
        Mood::HourAhead | Mood::Full => well(target.as_deref(), &body),
    };
    if mood == Mood::HourAhead {
        let ahead = Timestamp::now() + SignedDuration::from_hours(1);
        let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        response.headers_mut().insert(header::DATE, date.parse().unwrap());
    }
    response
}

/// In JSON where the request was, else in XML.
fn refusal(target: Option<&str>, code: &str, message: &str) -> Response {
    let status = StatusCode::BAD_REQUEST;
    match target {
        Some(_) => {
            let body = json!({ "__type": format!("com.amazonaws#{code}"), "message": message });
            (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], body.to_string()).into_response()
        }
        None => {
            let error =
                format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
            let body = format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>");
            (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
        }
    }
}

/// What STS and SQS answer when all is well; nothing else is asked in these states.
fn well(target: Option<&str>, body: &[u8]) -> Response {
    let Some(target) = target else {
        let found =
            "<Arn>arn:aws:iam::000000000000:root</Arn><UserId>root</UserId><Account>000000000000</Account>";
        let body = format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>{found}\
             </GetCallerIdentityResult></GetCallerIdentityResponse>"
        );
        return ([(header::CONTENT_TYPE, "text/xml")], body).into_response();
    };
    let asked: Value = serde_json::from_slice(body).unwrap();
    let answer = match target.rsplit('.').next().unwrap() {
        "GetQueueUrl" => {
            let name = asked["QueueName"].as_str().unwrap();
            json!({ "QueueUrl": format!("http://sqs.us-east-1.amazonaws.com/000000000000/{name}") })
        }
        _ => json!({ "Attributes": {
            "VisibilityTimeout": "60", "MessageRetentionPeriod": "1209600", "ApproximateNumberOfMessagesNotVisible": "119990",
        } }),
    };
    ([(header::CONTENT_TYPE, "application/x-amz-json-1.0")], answer.to_string()).into_response()
}
