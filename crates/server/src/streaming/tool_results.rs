use std::collections::{HashMap, HashSet};

use agentkeep_core::{Error, Json, JsonObject, MessageRole, NewMessage, RunId, RunStatus, SessionId};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Beginning, LastEvent, regardless};
use crate::{
    answers::{Answers, OpenCall, open_calls, run_messages},
    app::App,
    auth::Caller,
    error::{ApiError, Result},
    idempotency::{Claim, Keyed},
    sessions,
};

/// The results of the tools that a run waits for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolResults {
    /// The session of the run.
    session_id: SessionId,
    /// The run.
    run_id: RunId,
    /// One for every call that it waits for.
    results: Vec<ToolResult>,
}

/// The result of one call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolResult {
    /// The id of the call.
    tool_call_id: String,
    /// What came of it: a text, or any other JSON, which the model gets as text.
    content: Json,
    /// Whether the tool failed.
    #[serde(default)]
    is_error: bool,
}

/// Give a run the results of its tools.
///
/// Appends a message for every result, all in one transaction, lets the run go on, and streams it from there, as
/// `/streaming/start` does. Every call that the run waits for has to have exactly one result.
///
/// 404 when there is no such run in the session, 409 when it does not wait, 422 when results are missing, twice there
/// or for calls that it does not wait for.
#[utoipa::path(post, path = "/streaming/tool-results", tag = "streaming", request_body = ToolResults,
    params(("Last-Event-ID" = Option<String>, Header, description = "Of a repeated request: what was told last")),
    responses((status = 200, description = "The events of the run", body = String, content_type = "text/event-stream")))]
pub(super) async fn tool_results(
    State(app): State<App>,
    caller: Caller,
    last: LastEvent,
    Keyed { body, claim }: Keyed<ToolResults>,
) -> Result<Response> {
    let tenant = caller.tenant.clone();
    let (beginning, is_repeated) = regardless(resume(app.clone(), caller, body, claim)).await?;
    beginning.stream(&app, tenant, last.filter(is_repeated)).await
}

/// Lets the run go on, or finds where it went on under the same key.
async fn resume(app: App, caller: Caller, body: ToolResults, claim: Option<Claim>) -> Result<(Beginning, bool)> {
    let (store, tenant) = (app.store()?, &caller.tenant);
    let run = tenant.runs().get(body.run_id).await?.filter(|run| run.session_id == body.session_id);
    let run = run.ok_or_else(|| ApiError::not_found("run", body.run_id))?;
    let session = sessions::existing(tenant, run.session_id).await?;
    let agent = run.agent_id.ok_or_else(|| ApiError::not_found("agent", "of the run"))?;
    // What a repeated request needs of it was there the first time.
    let instance = app.answers.instance(tenant, agent).await;
    let tx = store.begin().await?;
    let within = store.tenant_in(&tx, tenant.id());
    if let Some(beginning) = Beginning::kept(&within, claim.as_ref()).await? {
        return Ok((beginning, true));
    }
    if run.status != RunStatus::Waiting {
        return Err(not_waiting(run.status));
    }
    let instance = instance?;
    let open = open_calls(&run_messages(&within, &run).await?);
    let messages = within.messages().append_many(run.session_id, messages(run.id, open, body.results)?).await?;
    // The appended messages hold the head: the next event is the one that tells that the run goes on.
    let stamp = within.sessions().stamps(&[run.session_id]).await?.into_iter().next().flatten();
    let number = stamp.map_or(0, |stamp| stamp.last_event) + 1;
    let (owner, until) = app.answers.lease(tenant.now());
    let run = match within.runs().resume(run.id, owner, until).await {
        Err(Error::IllegalTransition { .. }) => return Err(not_waiting(RunStatus::Running)),
        resumed => resumed?,
    };
    let first = messages.first().map_or(run.first_seq, |message| message.seq);
    let beginning = Beginning::before(&run, first, number);
    beginning.keep(&within, claim.as_ref()).await?;
    drop(within);
    tx.commit().await?;
    Answers::begin(&app, tenant.clone(), &session, run, instance);
    Ok((beginning, false))
}

/// The messages of the results, in the order of the calls.
fn messages(run: RunId, open: Vec<OpenCall>, results: Vec<ToolResult>) -> Result<Vec<NewMessage>> {
    let known: HashSet<&str> = open.iter().map(|call| call.id.as_str()).collect();
    let mut given: HashMap<String, ToolResult> = HashMap::new();
    for (index, result) in results.into_iter().enumerate() {
        let field = format!("results[{index}].tool_call_id");
        if !known.contains(result.tool_call_id.as_str()) {
            return Err(unfit(
                "tool_call_unknown",
                &field,
                format!("the run waits for no call {:?}", result.tool_call_id),
            ));
        }
        if let Some(twice) = given.insert(result.tool_call_id.clone(), result) {
            return Err(unfit("tool_result_twice", &field, format!("{:?} has a result already", twice.tool_call_id)));
        }
    }
    open.into_iter()
        .map(|open| {
            let missing = || unfit("tool_result_missing", "results", format!("the call {:?} has no result", open.id));
            let result = given.get(&open.id).ok_or_else(missing)?;
            let metadata = json!({"run": run, "step": open.step, "is_error": result.is_error});
            let content = match result.content.as_str().trim_start().starts_with('"') {
                true => result.content.decode("content")?,
                false => result.content.as_str().to_owned(),
            };
            Ok(NewMessage {
                content: Some(content),
                tool_name: open.call["function"]["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
                tool_call_id: Some(open.id),
                metadata: JsonObject::from_serialize("metadata", &metadata)?,
                ..NewMessage::empty(MessageRole::Tool)
            })
        })
        .collect()
}

fn not_waiting(status: RunStatus) -> ApiError {
    let detail = format!("the run is {status}: it waits for no results");
    ApiError::new(StatusCode::CONFLICT, "run_not_waiting", detail)
}

fn unfit(code: &'static str, field: &str, detail: String) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, &detail).field(field, detail)
}
