use agentkeep::TenantStore;
use agentkeep_core::{JsonObject, MessageRole, NewMessage, NewSession, UserId, parse_uuid};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{agent::AgentRef, conversation::Conversation};
use crate::{
    auth::Caller,
    body::Body,
    error::{ApiError, Result},
    resource::Created,
};

/// A conversation to start.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewConversation {
    /// The user: the id of one that is kept here, or any text that names them elsewhere, which is kept in the metadata.
    user_id: String,
    /// The agent.
    agent_id: AgentRef,
    /// What the user says first.
    #[serde(default)]
    initial_message: Option<String>,
    /// Its title.
    #[serde(default)]
    title: Option<String>,
}

impl NewConversation {
    /// The session that it is, without its agent.
    fn session(&self) -> Result<NewSession> {
        let new = NewSession { name: self.title.clone(), ..NewSession::default() };
        if self.user_id.trim().is_empty() {
            return Err(ApiError::invalid("user_id", "must not be empty"));
        }
        if let Ok(id) = parse_uuid("user_id", &self.user_id) {
            return Ok(NewSession { user_id: Some(UserId(id)), ..new });
        }
        let metadata = JsonObject::from_serialize("user_id", &serde_json::json!({ "user_id": self.user_id }))?;
        Ok(NewSession { metadata, ..new })
    }
}

/// Start a conversation of a user with an agent.
///
/// 404 when there is no such agent, 422 when the user is named by an id that nobody has.
#[utoipa::path(post, path = "/conversations/start", tag = "conversations", request_body = NewConversation,
    responses((status = 201, description = "The conversation, with its messages", body = Conversation)))]
pub(super) async fn start(caller: Caller, Body(new): Body<NewConversation>) -> Result<Created<Conversation>> {
    let agent = new.agent_id.find(&caller.tenant).await?;
    let session = NewSession { agent_id: Some(agent.id), ..new.session()? };
    let said = new.initial_message.map(|text| NewMessage::text(MessageRole::User, text));
    let begin = |tenant: TenantStore| {
        let (new, said) = (session.clone(), said.clone());
        async move {
            let session = tenant.sessions().create(new).await?;
            let Some(said) = said else { return Ok(Conversation::from(session).with(Vec::new())) };
            let message =
                tenant.messages().append(session.id, said).await.map_err(|error| error.at("initial_message"))?;
            let session = tenant.sessions().get(session.id).await?.unwrap_or(session);
            Ok(Conversation::from(session).with(vec![message]))
        }
    };
    Ok(Created(caller.tenant.transaction(begin).await?))
}
