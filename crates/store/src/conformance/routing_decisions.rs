//! Routing decisions.

use std::slice;

use agentkeep_core::{
    AgentId, Error, FilterOperator, ListRequest, MessageId, NewRoutingDecision, RoutingDecision, SessionId, TeamId,
};

use super::{
    Home,
    fixtures::{agent, array, message, object, session, team},
};
use crate::TenantStore;

async fn all(tenant: &TenantStore) -> Vec<RoutingDecision> {
    tenant.routing_decisions().list(&ListRequest::new()).await.expect("listed").items
}

/// The life of a decision.
pub async fn decisions_are_recorded_read_and_listed(home: &Home) {
    let decisions = home.tenant.routing_decisions();
    let (team_a, team_b) = (team(&home.tenant).await, team(&home.tenant).await);
    let talk = session(&home.tenant, None).await;
    let asked = message(&home.tenant, talk).await;
    let bot = agent(&home.tenant).await;
    let new = NewRoutingDecision {
        message_id: Some(asked),
        agent_id: Some(bot),
        candidates: array(r#"[{"agent_id":3,"score":0.90},{"agent_id":4,"score":0.1}]"#),
        reason: Some("knows\0billing".into()),
        latency_ms: Some(12.5),
        metadata: object(r#"{"model":"m"}"#),
        ..NewRoutingDecision::new(team_a)
    };
    let first = decisions.record(new.clone()).await.expect("recorded");
    assert_eq!((first.session_id, first.message_id), (Some(talk), Some(asked)), "the session of the message");
    assert_eq!((&first.candidates, &first.reason, first.latency_ms), (&new.candidates, &new.reason, new.latency_ms));
    assert_eq!(decisions.get(first.id).await.expect("read"), Some(first.clone()));
    let second = decisions.record(NewRoutingDecision::new(team_b)).await.expect("recorded");
    assert_eq!((second.session_id, second.agent_id, second.latency_ms), (None, None, None));

    let listed = async |request: ListRequest| decisions.list(&request).await.expect("listed").items;
    assert_eq!(listed(ListRequest::new().filter("team_id", team_a)).await, slice::from_ref(&first));
    assert_eq!(listed(ListRequest::new().filter("session_id", talk)).await, slice::from_ref(&first));
    assert_eq!(listed(ListRequest::new().filter("message_id", asked)).await, slice::from_ref(&first));
    assert_eq!(listed(ListRequest::new().filter("agent_id", bot)).await, slice::from_ref(&first));
    let late = ListRequest::new().filter_by("created_at", FilterOperator::Greater, first.created_at);
    assert_eq!(listed(late).await, slice::from_ref(&second));
    let slow = ListRequest::new().filter_by("latency_ms", FilterOperator::Greater, serde_json::json!(10));
    assert_eq!(listed(slow).await, slice::from_ref(&first));

    home.tenant.agents().delete(bot).await.expect("deleted");
    assert_eq!(decisions.get(first.id).await.expect("read"), Some(first.clone()), "a decision outlives the agent");
    decisions.delete(first.id).await.expect("deleted");
    assert!(matches!(decisions.delete(first.id).await, Err(Error::NotFound { .. })));
    assert_eq!(all(&home.tenant).await, [second]);
}

/// Bad values and references, told by field; nothing is written.
pub async fn bad_decisions_are_refused_by_field(home: &Home) {
    let decisions = home.tenant.routing_decisions();
    let (mine, theirs) = (team(&home.tenant).await, team(&home.other).await);
    let (talk, their_talk) = (session(&home.tenant, None).await, session(&home.other, None).await);
    let asked = message(&home.tenant, talk).await;
    let their_message = message(&home.other, their_talk).await;
    let their_agent = agent(&home.other).await;
    let new = || NewRoutingDecision::new(mine);
    let missing = [
        (NewRoutingDecision::new(theirs), "team_id"),
        (NewRoutingDecision::new(TeamId(talk.0)), "team_id"),
        (NewRoutingDecision { session_id: Some(their_talk), ..new() }, "session_id"),
        (NewRoutingDecision { message_id: Some(their_message), ..new() }, "message_id"),
        (NewRoutingDecision { message_id: Some(MessageId(talk.0)), ..new() }, "message_id"),
        (NewRoutingDecision { agent_id: Some(their_agent), ..new() }, "agent_id"),
        (NewRoutingDecision { agent_id: Some(AgentId(-1)), ..new() }, "agent_id"),
    ];
    for (new, wanted) in missing {
        let outcome = decisions.record(new).await;
        let told = matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == wanted);
        assert!(told, "{wanted}: {outcome:?}");
    }
    let other_talk: SessionId = session(&home.tenant, None).await;
    for (new, wanted) in [
        (NewRoutingDecision { latency_ms: Some(-1.0), ..new() }, "latency_ms"),
        (NewRoutingDecision { latency_ms: Some(f64::NAN), ..new() }, "latency_ms"),
        (NewRoutingDecision { session_id: Some(other_talk), message_id: Some(asked), ..new() }, "message_id"),
    ] {
        let outcome = decisions.record(new).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    assert!(all(&home.tenant).await.is_empty());
}

/// Cascades and tenants.
pub async fn decisions_go_with_their_team_session_and_message(home: &Home) {
    let decisions = home.tenant.routing_decisions();
    let (first, second) = (team(&home.tenant).await, team(&home.tenant).await);
    let talk = session(&home.tenant, None).await;
    let asked = message(&home.tenant, talk).await;
    let new = || NewRoutingDecision::new(first);
    decisions.record(NewRoutingDecision { message_id: Some(asked), ..new() }).await.expect("recorded");
    decisions.record(NewRoutingDecision { session_id: Some(talk), ..new() }).await.expect("recorded");
    decisions.record(new()).await.expect("recorded");
    let kept = decisions.record(NewRoutingDecision::new(second)).await.expect("recorded");
    let their_team = team(&home.other).await;
    let theirs = home.other.routing_decisions().record(NewRoutingDecision::new(their_team)).await.expect("recorded");

    home.tenant.messages().delete(asked).await.expect("deleted");
    assert_eq!(all(&home.tenant).await.len(), 3);
    home.tenant.sessions().delete(talk).await.expect("deleted");
    assert_eq!(all(&home.tenant).await.len(), 2);
    let sql = "DELETE FROM teams WHERE tenant_id = $1 AND id = $2";
    home.store.execute(sql, &[home.tenant.id().into(), first.into()]).await.expect("deleted");
    assert_eq!(all(&home.tenant).await, [kept]);
    assert_eq!(decisions.get(theirs.id).await.expect("read"), None);
    assert!(matches!(decisions.delete(theirs.id).await, Err(Error::NotFound { .. })));
    assert_eq!(all(&home.other).await, [theirs]);
}
