use agentkeep_core::SessionId;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::conversation::Conversation;
use crate::{
    app::App,
    auth::Caller,
    cache::{Sent, View},
    error::Result,
    query::Query,
    resource::Id,
    sessions,
};

/// How much of a conversation is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct GetParams {
    /// How many of the newest messages come along.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: u32,
}

impl Default for GetParams {
    fn default() -> Self {
        Self { limit: 100 }
    }
}

/// Get a conversation with its newest messages, oldest first.
#[utoipa::path(get, path = "/conversations/{session_id}", tag = "conversations",
    params(("session_id" = SessionId, Path, description = "Its id"), GetParams),
    responses((status = 200, description = "The conversation", body = Conversation)))]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<SessionId>,
    Query(GetParams { limit }): Query<GetParams>,
) -> Result<Sent> {
    let load = || async {
        let session = sessions::existing(&caller.tenant, id).await?;
        let messages = caller.tenant.messages().recent(id, limit).await?;
        Sent::resource(&Conversation::from(session).with(messages))
    };
    app.kept.get(&caller.tenant, id, View::Conversation { limit }, load).await
}
