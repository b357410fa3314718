//! Events: a stream that goes on, or a page of them. The stream reads the store, which wakes it when there are more;
//! so nothing is lost between two reads, and a reader that comes back goes on after the last one it saw.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response, sse},
};
use decide::access::Permit;
use futures_util::{Stream, stream};
use model::{ServiceKey, event::Recorded};
use serde::Deserialize;
use store::EventFilter;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Api, access::Allowed, problem::Problem, serve::Stopping, show, take::Asked};
use crate::views;

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
pub struct EventsAsked {
    after: Option<u64>,
    service: Option<ServiceKey>,
    limit: Option<u32>,
}

pub async fn events(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    stopping: Stopping,
    headers: HeaderMap,
    Asked(asked): Asked<EventsAsked>,
) -> Result<Response, Problem> {
    let filter = EventFilter { service: asked.service };
    if asked.limit.is_none() && !wants_page(&headers) {
        let after = last_seen(&headers).or(asked.after);
        return Ok(follow(&api, permit, filter, after, stopping).await?.into_response());
    }
    let limit = asked.limit.unwrap_or(PAGE).min(MAX_PAGE);
    let events = match asked.after {
        Some(after) => api.control.store().events_after(after, &filter, limit).await?,
        None => newest(&api, &filter, limit).await?,
    };
    let events = events.iter().filter(|event| sees(&permit, event)).map(show::event).collect();
    Ok(Json(views::Events { events }).into_response())
}

/// The newest ones, oldest first: what somebody wants who asks for no place to begin.
async fn newest(api: &Api, filter: &EventFilter, limit: u32) -> Result<Vec<Recorded>, Problem> {
    let store = api.control.store();
    let latest = store.latest_event_seq().await?;
    let mut span = u64::from(limit);
    loop {
        let after = latest.saturating_sub(span);
        let mut found = store.events_after(after, filter, u32::MAX).await?;
        if found.len() >= limit as usize || after == 0 {
            let surplus = found.len().saturating_sub(limit as usize);
            return Ok(found.split_off(surplus));
        }
        span = span.saturating_mul(8);
    }
}

/// A page is for who asks for JSON, or for so many; everybody else gets the stream, plain `curl` among them.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds: Vec<&str> = accepted.flat_map(|value| value.split(',')).map(str::trim).collect();
    let takes = |kind: &str| kinds.iter().any(|accepted| accepted.starts_with(kind));
    takes("application/json") && !takes("text/event-stream")
}

fn last_seen(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Where a stream is.
struct Place {
    api: Api,
    permit: Permit,
    filter: EventFilter,
    after: u64,
    read: VecDeque<Recorded>,
    more: watch::Receiver<u64>,
    stopping: Stopping,
    _slot: OwnedSemaphorePermit,
}

async fn follow(
    api: &Api,
    permit: Permit,
    filter: EventFilter,
    after: Option<u64>,
    stopping: Stopping,
) -> Result<impl IntoResponse + use<>, Problem> {
    let slot = api.stream()?;
    let more = api.control.store().subscribe();
    let after = match after {
        Some(after) => after,
        None => api.control.store().latest_event_seq().await?,
    };
    let place =
        Place { api: api.clone(), permit, filter, after, read: VecDeque::new(), more, stopping, _slot: slot };
    let keep_alive = sse::KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    let unbuffered = [(header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
    Ok((unbuffered, sse::Sse::new(from_place(place)).keep_alive(keep_alive)))
}

fn from_place(place: Place) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
    stream::unfold(place, |mut place| async move {
        loop {
            if let Some(recorded) = place.read.pop_front() {
                place.after = recorded.seq;
                if !sees(&place.permit, &recorded) {
                    continue;
                }
                return Some((Ok(told(&recorded)), place));
            }
            place.more.mark_unchanged();
            match place.api.control.store().events_after(place.after, &place.filter, PAGE).await {
                Ok(read) if !read.is_empty() => place.read = read.into(),
                Ok(_) => {
                    tokio::select! {
                        changed = place.more.changed() => changed.ok()?,
                        () = place.stopping.wait() => return None,
                    }
                }
                Err(error) => {
                    // The reader comes back with the last id it saw.
                    tracing::warn!(%error, "a stream of events ended");
                    return None;
                }
            }
        }
    })
}

/// Events of no service are about the whole cluster.
fn sees(permit: &Permit, recorded: &Recorded) -> bool {
    permit.sees(recorded.event.service.as_ref().map(|service| &service.project))
}

fn told(recorded: &Recorded) -> sse::Event {
    let data = serde_json::to_string(&show::event(recorded)).unwrap_or_default();
    sse::Event::default().id(recorded.seq.to_string()).data(data)
}
