//! `/events`: domain events as they happen, as server-sent events. Everybody sees what is meant for them. After a break
//! a client names the last event it saw in `last-event-id`, and gets what it missed from the outbox first.

use std::{collections::HashSet, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::Caller,
    problem::{Problem, Result},
    state::ApiState,
    view::common::Time,
};
use crate::{
    core::{
        client::{
            database::{Cursor, Query, ReaderExt},
            schema,
        },
        market::{
            event::{Audience, DomainEvent},
            ids::EventId,
            party::Principal,
        },
    },
    error::ErrorCode,
    service::outbox::{OutboxRow, Outgoing},
};

/// Events that wait for a slow client, before it is cut off and has to come again.
const PENDING: usize = 256;
const REPLAY_PAGE: usize = 500;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(events))
}

/// A domain event.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    /// Its id; sorts by time.
    id: String,
    /// Dotted name.
    #[serde(rename = "type")]
    #[schema(example = "allocation.active")]
    kind: String,
    /// The id of what changed.
    subject: String,
    /// When it became true.
    at: Time,
    /// Details.
    #[schema(value_type = Object)]
    data: serde_json::Value,
}

/// Events from now on, or from after `last-event-id`. When the client is too slow the stream ends with an event
/// `lagged`; it comes again with the last id it saw.
#[utoipa::path(get, path = "/events", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last event that was seen")),
    responses((status = 200, body = EventView, content_type = "text/event-stream")))]
async fn events(State(state): State<ApiState>, caller: Caller, headers: HeaderMap) -> Result<Response> {
    let last = last_seen(&headers)?;
    let (sender, receiver) = mpsc::channel(PENDING);
    // Subscribed before the replay is read, so that nothing falls between the two.
    let live = state.feed.subscribe();
    let stream = Stream { principal: caller.call.principal, sender, seen: HashSet::new() };
    let keep_alive = state.settings.keep_alive;
    tokio::spawn(run(state, stream, live, last));
    Ok(respond(receiver, keep_alive))
}

fn respond(receiver: mpsc::Receiver<Result<Event, Infallible>>, keep_alive: Duration) -> Response {
    Sse::new(ReceiverStream::new(receiver))
        .keep_alive(KeepAlive::new().interval(keep_alive).text("keep-alive"))
        .into_response()
}

fn last_seen(headers: &HeaderMap) -> Result<Option<EventId>> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    value.to_str().ok().and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
        Problem::at(
            ErrorCode::InvalidHeader,
            "last-event-id",
            "the last event's id is one that this stream sent, `evt_` and 32 hex digits",
        )
    })
}

/// One client's stream.
struct Stream {
    principal: Principal,
    sender: mpsc::Sender<Result<Event, Infallible>>,
    /// Replayed events, which may come once more over the live feed.
    seen: HashSet<EventId>,
}

/// The client is gone.
struct Gone;

impl Stream {
    async fn send(&self, event: &DomainEvent) -> Result<(), Gone> {
        if !may_see(&self.principal, &event.audience) {
            return Ok(());
        }
        let view = EventView {
            id: event.id.to_string(),
            kind: event.kind.clone(),
            subject: event.subject.clone(),
            at: event.at.into(),
            data: event.data.clone(),
        };
        let Ok(data) = serde_json::to_string(&view) else { return Ok(()) };
        // A line break in the name of an event would end the field; names are dotted words.
        let kind: String = view.kind.chars().filter(|c| !c.is_control()).collect();
        self.push(Event::default().id(view.id).event(kind).data(data)).await
    }

    async fn push(&self, event: Event) -> Result<(), Gone> {
        self.sender.send(Ok(event)).await.map_err(|_| Gone)
    }
}

fn may_see(principal: &Principal, audience: &Audience) -> bool {
    match audience {
        Audience::Public => true,
        Audience::Operators => principal.is_operator(),
        Audience::Tenants(tenants) => principal.is_operator() || tenants.contains(&principal.tenant()),
    }
}

async fn run(
    state: ApiState,
    mut stream: Stream,
    mut live: broadcast::Receiver<DomainEvent>,
    last: Option<EventId>,
) {
    if let Some(last) = last
        && replay(&state, &mut stream, last).await.is_err()
    {
        return;
    }
    loop {
        let event = tokio::select! {
            event = live.recv() => event,
            () = state.closing.cancelled() => return,
            () = stream.sender.closed() => return,
        };
        let sent = match event {
            Ok(event) if stream.seen.remove(&event.id) => Ok(()),
            Ok(event) => stream.send(&event).await,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let note = Event::default().event("lagged").data(format!("{{\"missed\":{missed}}}"));
                let _ = stream.push(note).await;
                return;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Sends what the outbox still has after `last`. Rows are kept for a while only; what is older is gone.
async fn replay(state: &ApiState, stream: &mut Stream, last: EventId) -> Result<(), Gone> {
    let mut after = Some(Cursor { key: serde_json::Value::Null, id: last.to_string() });
    loop {
        let query = Query::new(schema::OUTBOX).limit(REPLAY_PAGE).after(after);
        let (rows, next) = state.work.reader.list::<OutboxRow>(query).await.map_err(|error| {
            tracing::warn!(error = crate::error::chain(&error), "an event stream could not be replayed");
            Gone
        })?;
        for row in rows {
            if let Outgoing::Event(event) = row.value.outgoing {
                stream.send(&event).await?;
                stream.seen.insert(event.id);
            }
        }
        match next {
            Some(cursor) => after = Some(cursor),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::market::ids::{ConsumerId, Id, OperatorId};

    #[test]
    fn an_event_reaches_its_audience_and_operators_only() {
        let uuid = uuid::Uuid::from_u128;
        let consumer = Principal::Consumer(ConsumerId::from_uuid(uuid(1)));
        let other = Principal::Consumer(ConsumerId::from_uuid(uuid(2)));
        let operator = Principal::Operator(OperatorId::from_uuid(uuid(3)));
        let own = Audience::Tenants(vec![consumer.tenant()]);
        assert!(may_see(&consumer, &own) && may_see(&operator, &own) && !may_see(&other, &own));
        assert!(may_see(&other, &Audience::Public));
        assert!(!may_see(&consumer, &Audience::Operators) && may_see(&operator, &Audience::Operators));
    }
}
