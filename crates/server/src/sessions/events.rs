use agentkeep_core::SessionId;
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName},
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::Caller,
    error::{ApiError, Result},
    query::Query,
    resource::Id,
    stream::{self, Position},
};

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Where a stream begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsParams {
    /// The id of the last event that is known, if `Last-Event-ID` does not name it; `0.0` for all that there is.
    after: Option<String>,
}

/// Watch a session.
///
/// Server-sent events. `message.created` tells a message that was appended whole; `message.started`, `message.delta`,
/// `message.completed` and `message.incomplete` one that is streamed in; `message.updated` and `message.deleted` what
/// becomes of messages later, under the seq that they have; `run.started`, `run.resumed`, `run.completed`,
/// `run.failed` and `tool_calls.requested` what agents do. A stream begins behind the event that `Last-Event-ID` or
/// `after` names, else with what happens from now on; whoever goes on from the last id that they saw, here or at
/// another server, is told everything once.
///
/// It ends with `reset` when it cannot go on (events are not kept for ever, and a client that takes nothing is cut off),
/// and with `session.deleted`.
#[utoipa::path(get, path = "/sessions/{id}/events", tag = "sessions",
    params(("id" = SessionId, Path, description = "Its id"), EventsParams,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that is known")),
    responses((status = 200, description = "What happens", body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<SessionId>,
    headers: HeaderMap,
    Query(params): Query<EventsParams>,
) -> Result<Response> {
    let from = match (last_event_id(&headers)?, params.after) {
        (Some(position), _) => position,
        (None, Some(after)) => after.parse()?,
        (None, None) => {
            let present = stream::present(&caller.tenant, id).await?;
            present.ok_or_else(|| ApiError::not_found("session", id))?
        }
    };
    stream::respond(&app, caller.tenant, id, from, None).await
}

/// The position in the header; browsers send it by themselves when they come back.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Position>> {
    let Some(value) = headers.get(&LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    text.parse().map(Some).map_err(|_| ApiError::invalid("Last-Event-ID", format!("{text:?} is no id of an event")))
}
