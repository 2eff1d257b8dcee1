use agentkeep::TenantStore;
use agentkeep_core::{FilterOperator, ListRequest, Page, SessionStatus, parse_uuid};
use serde_json::Value;

use super::{agent::AgentRef, conversation::Conversation};
use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List conversations, without their messages.
///
/// Filters: user_id (also one that is kept in the metadata), agent_id (or the agent's name), title, status, and what
/// sessions can be filtered by. Deleted ones are left out unless the status is asked for. Orders: those of sessions.
#[utoipa::path(get, path = "/conversations", tag = "conversations", params(ListParams),
    responses((status = 200, description = "A page of conversations", body = ListOf<Conversation>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Conversation>> {
    let request = of_sessions(&caller.tenant, request).await?;
    let Page { items, next, total } = caller.tenant.sessions().list(&request).await?;
    Ok(Page { items: items.into_iter().map(Conversation::from).collect(), next, total }.into())
}

/// The same list, with the names that sessions have.
async fn of_sessions(tenant: &TenantStore, mut request: ListRequest) -> Result<ListRequest> {
    for filter in &mut request.filters {
        match (filter.field.as_str(), &filter.value) {
            ("title", _) => filter.field = "name".to_owned(),
            ("session_id" | "conversation_id", _) => filter.field = "id".to_owned(),
            ("user_id", Value::String(text)) if parse_uuid("user_id", text).is_err() => {
                filter.field = "metadata.user_id".to_owned();
            }
            // A text that is JSON was taken as that, and stands in the metadata as the text.
            ("user_id", Value::Number(number)) => {
                filter.value = Value::String(number.to_string());
                filter.field = "metadata.user_id".to_owned();
            }
            ("agent_id", Value::String(name)) => {
                filter.value = AgentRef::new(name).find(tenant).await?.id.0.into();
            }
            _ => {}
        }
    }
    if request.filters.iter().any(|filter| filter.field == "status") {
        return Ok(request);
    }
    Ok(request.filter_by("status", FilterOperator::NotEqual, SessionStatus::Deleted.as_str()))
}
