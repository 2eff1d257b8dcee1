use agentkeep_core::{Message, SessionId};
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::Caller,
    cache::{Sent, View},
    error::Result,
    history,
    query::{ListOf, Query},
    resource::Id,
};

/// Which messages an agent is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ContextParams {
    /// How many of the newest messages are read.
    #[param(minimum = 1, maximum = 1000, default = 30)]
    limit: u32,
    /// Whether the history is made valid for a provider: a tool call without a result gets one that says that it was
    /// interrupted, and a result whose call is not among the messages is left out.
    #[param(default = true)]
    valid: bool,
}

impl Default for ContextParams {
    fn default() -> Self {
        Self { limit: 30, valid: true }
    }
}

/// Get the newest messages of a session, oldest first: what an agent goes on from.
///
/// Results that are filled in have no row: their id is all zeros, their metadata has `synthesised`.
#[utoipa::path(get, path = "/sessions/{id}/context", tag = "sessions",
    params(("id" = SessionId, Path, description = "Its id"), ContextParams),
    responses((status = 200, description = "The messages", body = ListOf<Message>)))]
pub(super) async fn context(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<SessionId>,
    Query(ContextParams { limit, valid }): Query<ContextParams>,
) -> Result<Sent> {
    let load = || async {
        let messages = caller.tenant.messages().recent(id, limit).await?;
        Sent::value(&ListOf::whole(if valid { history::valid(messages) } else { messages }))
    };
    app.kept.get(&caller.tenant, id, View::Context { limit, valid }, load).await
}
