//! What cases need around the entity they are about.

use agentkeep_core::{
    AgentId, JsonArray, MessageId, MessageRole, NewAgent, NewMessage, NewSession, NewTeam, NewUser, SessionId, TeamId,
    UserId,
};

use super::support;
pub(super) use super::support::object;
use crate::TenantStore;

/// A JSON array.
pub(super) fn array(text: &str) -> JsonArray {
    JsonArray::parse("array", text).expect("a JSON array")
}

/// A new user.
pub(super) async fn user(tenant: &TenantStore) -> UserId {
    tenant.users().create(NewUser::default()).await.expect("a user is created").id
}

/// A new session, of a user or of nobody.
pub(super) async fn session(tenant: &TenantStore, user_id: Option<UserId>) -> SessionId {
    let new = NewSession { user_id, ..NewSession::default() };
    tenant.sessions().create(new).await.expect("a session is created").id
}

/// A new message at the end of a session.
pub(super) async fn message(tenant: &TenantStore, session: SessionId) -> MessageId {
    let new = NewMessage::text(MessageRole::User, "hello");
    tenant.messages().append(session, new).await.expect("a message is appended").id
}

/// A new agent.
pub(super) async fn agent(tenant: &TenantStore) -> AgentId {
    let name: UserId = tenant.new_id(tenant.now());
    tenant.agents().create(NewAgent::new(name.to_string())).await.expect("an agent is created").id
}

/// A new team.
pub(super) async fn team(tenant: &TenantStore) -> TeamId {
    let name: UserId = tenant.new_id(tenant.now());
    tenant.teams().create(NewTeam::new(name.to_string())).await.expect("a team is created").id
}

/// Does the same `times` times at once; what came of each.
pub(super) async fn race<T, F, Work>(tenant: &TenantStore, times: usize, work: F) -> Vec<T>
where
    T: Send + 'static,
    F: Fn(TenantStore, usize) -> Work,
    Work: Future<Output = T> + Send + 'static,
{
    support::race(times, |index| work(tenant.clone(), index)).await
}
