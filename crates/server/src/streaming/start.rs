use std::sync::Arc;

use agentkeep::TenantStore;
use agentkeep_core::{
    AgentId, Json, JsonArray, JsonObject, MessageRole, NewMessage, NewRun, Session, SessionId, SessionStatus, UserId,
};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::{Beginning, LastEvent, regardless};
use crate::{
    answers::{Answers, Instance},
    app::App,
    auth::Caller,
    error::{ApiError, Result},
    idempotency::{Claim, Keyed},
    sessions,
};

/// What an agent is to answer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// The session; it has to be active.
    session_id: SessionId,
    /// What the user says.
    message: Said,
    /// Who answers; the agent of the session when absent.
    #[serde(default)]
    agent_id: Option<AgentId>,
}

/// What a user says: a text, or an object.
#[derive(ToSchema)]
#[schema(as = UserMessage)]
#[allow(dead_code, reason = "describes both shapes")]
enum Said {
    #[schema(title = "text")]
    Text(String),
    #[schema(title = "object")]
    Message(UserMessage),
}

/// A message of a user.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct UserMessage {
    /// The text.
    content: Option<String>,
    /// Content blocks, as the model takes them: texts, images, files.
    parts: Option<JsonArray>,
    /// Who of several users wrote it.
    author_user_id: Option<UserId>,
    /// Anything the application wants to keep with it.
    metadata: JsonObject,
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        let read = match json.as_str().trim_start().starts_with('"') {
            true => json.decode("message").map(Self::Text),
            false => json.decode("message").map(Self::Message),
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl Said {
    fn message(self) -> Result<NewMessage> {
        let said = match self {
            Self::Text(text) => UserMessage { content: Some(text), ..UserMessage::default() },
            Self::Message(message) => message,
        };
        let is_blank = said.content.as_ref().is_none_or(|text| text.trim().is_empty());
        if is_blank && said.parts.is_none() {
            return Err(ApiError::invalid("message", "must have a content or parts"));
        }
        let UserMessage { content, parts, author_user_id, metadata } = said;
        let message = NewMessage { content, parts, author_user_id, metadata, ..NewMessage::empty(MessageRole::User) };
        message.check()?;
        Ok(message)
    }
}

/// Let an agent answer.
///
/// Appends the message of the user, begins a run, and streams what comes of it as server-sent events: `message.created`
/// (the user's), `run.started`, `message.started`, `message.delta` …, `message.completed` or `message.incomplete`, and
/// at last `run.completed`, `run.failed`, or `tool_calls.requested` when the client has to run tools. Each has an id.
/// The run goes on when the client goes away. Repeated with the same `Idempotency-Key` the same run is streamed again,
/// from its beginning or from behind `Last-Event-ID`.
///
/// 400 without an agent, 404 when there is no such session or agent, 409 when the session is not active, 422 when the
/// agent cannot answer.
#[utoipa::path(post, path = "/streaming/start", tag = "streaming", request_body = Start,
    params(("Last-Event-ID" = Option<String>, Header, description = "Of a repeated request: what was told last")),
    responses((status = 200, description = "The events of the run", body = String, content_type = "text/event-stream")))]
pub(super) async fn start(
    State(app): State<App>,
    caller: Caller,
    last: LastEvent,
    Keyed { body, claim }: Keyed<Start>,
) -> Result<Response> {
    let tenant = caller.tenant.clone();
    let (beginning, is_repeated) = regardless(begin(app.clone(), caller, body, claim)).await?;
    beginning.stream(&app, tenant, last.filter(is_repeated)).await
}

/// Begins the run, or finds the one that was begun under the same key.
async fn begin(app: App, caller: Caller, start: Start, claim: Option<Claim>) -> Result<(Beginning, bool)> {
    let (store, tenant) = (app.store()?, &caller.tenant);
    // What a repeated request needs of it was there the first time.
    let prepared = prepare(&app, tenant, start).await;
    let tx = store.begin().await?;
    let within = store.tenant_in(&tx, tenant.id());
    if let Some(beginning) = Beginning::kept(&within, claim.as_ref()).await? {
        return Ok((beginning, true));
    }
    let Prepared { session, message, instance } = prepared?;
    let message = within.messages().append(session.id, message).await?;
    let (owner, until) = app.answers.lease(tenant.now());
    let run = NewRun { agent_id: Some(instance.id), ..NewRun::new(session.id, owner, until) };
    let run = within.runs().create(run).await?;
    let beginning = Beginning::before(&run, message.seq, run.first_event);
    beginning.keep(&within, claim.as_ref()).await?;
    drop(within);
    tx.commit().await?;
    Answers::begin(&app, tenant.clone(), &session, run, instance);
    Ok((beginning, false))
}

/// What a run takes.
struct Prepared {
    session: Session,
    message: NewMessage,
    instance: Arc<Instance>,
}

async fn prepare(app: &App, tenant: &TenantStore, start: Start) -> Result<Prepared> {
    let session = sessions::existing(tenant, start.session_id).await?;
    if session.status != SessionStatus::Active {
        let detail = format!("the session is {}; only an active one goes on", session.status);
        return Err(ApiError::new(StatusCode::CONFLICT, "session_not_active", detail));
    }
    let agent = start.agent_id.or(session.agent_id);
    let agent = agent.ok_or_else(|| ApiError::invalid("agent_id", "is needed: the session has no agent of its own"))?;
    let instance = app.answers.instance(tenant, agent).await?;
    Ok(Prepared { session, message: start.message.message()?, instance })
}
