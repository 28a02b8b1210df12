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
            database::{DatabaseError, Filter, Query, ReaderExt, Sort},
            schema,
        },
        market::{
            event::{Audience, DomainEvent},
            ids::{EventId, Id},
            party::Principal,
            quantity::Micros,
        },
    },
    error::ErrorCode,
    service::outbox::{OutboxRow, Outgoing, WAITING},
};

/// Events that wait for a slow client, before it is cut off and has to come again.
const PENDING: usize = 256;
const REPLAY_PAGE: usize = 500;
/// What was published so shortly before the last event seen is sent again: relays of other replicas go by other clocks.
const REPLAY_OVERLAP: Micros = Micros::from_secs(1);

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
/// `lagged`; it comes again with the last id it saw. None is lost while the outbox keeps it; one may come twice after a
/// break, with the same id.
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

    /// Sends an event of the past, unless it was sent on this stream before.
    async fn replayed(&mut self, event: DomainEvent) -> Result<(), Gone> {
        if self.seen.insert(event.id) { self.send(&event).await } else { Ok(()) }
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

/// Sends what the outbox still has of what was published after `last`, in the order of publication. Ids are no such
/// order: an event may get its id before another one and be committed after it. Rows are kept for a while only; what is
/// older is gone.
async fn replay(state: &ApiState, stream: &mut Stream, last: EventId) -> Result<(), Gone> {
    let known = read(state.work.reader.load::<OutboxRow>(&last.to_string()).await)?;
    // An event is never published before its id was drawn.
    let published = known.and_then(|row| row.value.sent_at).unwrap_or_else(|| drawn_at(last));
    let overlap = i64::try_from(REPLAY_OVERLAP.get()).unwrap_or(i64::MAX);
    stream.seen.insert(last);
    // Those that wait are read first: one that is published meanwhile is among the published then, or comes live.
    let waiting = Query::new(schema::OUTBOX).filter(Filter::eq("unsent", WAITING));
    let (mut not_yet, mut pages) = (Vec::new(), Pages::new(waiting));
    while let Some(events) = pages.next(state).await? {
        not_yet.extend(events);
    }
    let since = Filter::Ge("sent_at".into(), published.saturating_sub(overlap).into());
    let sent = Query::new(schema::OUTBOX).filter(since).sort(Sort::Field("sent_at".into()));
    let mut pages = Pages::new(sent);
    while let Some(events) = pages.next(state).await? {
        for event in events {
            stream.replayed(event).await?;
        }
    }
    for event in not_yet {
        stream.replayed(event).await?;
    }
    stream.seen.remove(&last);
    Ok(())
}

/// The events of a query, page by page.
struct Pages {
    query: Query,
    over: bool,
}

impl Pages {
    fn new(query: Query) -> Self {
        Self { query: query.limit(REPLAY_PAGE), over: false }
    }

    async fn next(&mut self, state: &ApiState) -> Result<Option<Vec<DomainEvent>>, Gone> {
        if self.over {
            return Ok(None);
        }
        let (rows, next) = read(state.work.reader.list::<OutboxRow>(self.query.clone()).await)?;
        self.over = next.is_none();
        self.query.after = next;
        let events = rows.into_iter().filter_map(|row| match row.value.outgoing {
            Outgoing::Event(event) => Some(event),
            _ => None,
        });
        Ok(Some(events.collect()))
    }
}

fn read<T>(answer: Result<T, DatabaseError>) -> Result<T, Gone> {
    answer.map_err(|error| {
        tracing::warn!(error = crate::error::chain(&error), "an event stream could not be replayed");
        Gone
    })
}

/// The instant in an id, in microseconds; its first 48 bits are milliseconds.
fn drawn_at(id: EventId) -> i64 {
    let millis = id.uuid().as_u128() >> 80;
    i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::market::ids::{ConsumerId, OperatorId};

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
