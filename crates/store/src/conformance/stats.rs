//! Counts.

use agentkeep_core::{ListRequest, MessageRole, NewAgent, NewMessage, NewSession, Stats, VersionNote};

use super::Home;

/// System D's `get_stats`.
pub async fn totals_are_those_of_the_lists(home: &Home) {
    let tenant = &home.tenant;
    assert_eq!(tenant.stats().await.expect("counted"), Stats::default());
    let mut agents = Vec::new();
    for name in ["ada", "bob", "cid"] {
        agents.push(tenant.agents().create(NewAgent::new(name)).await.expect("created").id);
    }
    tenant.agents().soft_delete(agents[0], &VersionNote::default()).await.expect("deleted");
    tenant.agents().delete(agents[1]).await.expect("deleted");
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let session = tenant.sessions().create(NewSession::default()).await.expect("created").id;
        let new = (0..5).map(|number| NewMessage::text(MessageRole::User, format!("message {number}"))).collect();
        let messages = tenant.messages().append_many(session, new).await.expect("appended");
        tenant.messages().delete(messages[2].id).await.expect("deleted");
        sessions.push(session);
    }
    tenant.sessions().delete(sessions[0]).await.expect("deleted");
    let expected = Stats { total_agents: 1, total_conversations: 2, total_messages: 8 };
    assert_eq!(tenant.stats().await.expect("counted"), expected);
    let all = ListRequest::new().with_total();
    assert_eq!(tenant.messages().list(&all).await.expect("listed").total, Some(8));
    assert_eq!(home.other.stats().await.expect("counted"), Stats::default());
}
