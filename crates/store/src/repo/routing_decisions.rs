//! Routing decisions of teams.

use agentkeep_core::{
    Direction, Error, ListRequest, NewRoutingDecision, Page, Result, RoutingDecision, RoutingDecisionId, SessionId,
};

use super::{
    list::list,
    table::{Field, FieldKind, Reference, Table, check_reference, delete, params, record, write_one},
};
use crate::{
    engine::{Sql, Value},
    store::TenantStore,
};

/// The routing decisions of a tenant.
pub struct RoutingDecisions<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, team_id, session_id, message_id, agent_id, candidates, reason, latency_ms, metadata, created_at"
    };
}

record!(RoutingDecision, &TABLE, {
    id, team_id, session_id, message_id, agent_id, candidates, reason, latency_ms, metadata, created_at,
});

static TABLE: Table = Table {
    entity: "routing decision",
    name: "routing_decisions",
    from: "routing_decisions",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("team_id", FieldKind::Uuid),
        Field::new("session_id", FieldKind::Uuid),
        Field::new("message_id", FieldKind::Uuid),
        Field::new("agent_id", FieldKind::Int),
        Field::new("latency_ms", FieldKind::Float),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[
        Reference::new("team_id", "team", "teams"),
        Reference::new("session_id", "session", "sessions"),
        Reference::new("message_id", "message", "messages"),
    ],
};

static RECORD: Sql = Sql::both(concat!(
    "INSERT INTO routing_decisions (tenant_id, id, team_id, session_id, message_id, agent_id, candidates, reason,
         latency_ms, metadata, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     RETURNING ",
    columns!(),
));
static GET: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM routing_decisions WHERE tenant_id = $1 AND id = $2")).short();
static SESSION_OF_MESSAGE: Sql = Sql::both("SELECT session_id FROM messages WHERE tenant_id = $1 AND id = $2").short();
static DELETE: Sql = Sql::both("DELETE FROM routing_decisions WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&RECORD, &GET, &SESSION_OF_MESSAGE, &DELETE]);

impl RoutingDecisions<'_> {
    /// Records a decision. Its session is that of the message when only the message is given.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule and for a message of another session,
    /// [`Error::AlreadyExists`] when the id is taken, [`Error::MissingReference`] when team, session, message
    /// or agent do not exist in this tenant.
    pub async fn record(&self, new: NewRoutingDecision) -> Result<RoutingDecision> {
        new.check()?;
        let (executor, tenant) = (&self.0.executor, self.0.tenant);
        // A soft reference: the agent must exist when it is set, and may go afterwards.
        check_reference(executor, tenant, "agent_id", "agent", "agents", new.agent_id).await?;
        let session = self.session_of(&new).await?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let held = [
            ("id", Value::from(id)),
            ("team_id", Value::from(new.team_id)),
            ("session_id", Value::from(session)),
            ("message_id", Value::from(new.message_id)),
        ];
        let params = params![
            tenant,
            id,
            new.team_id,
            session,
            new.message_id,
            new.agent_id,
            new.candidates,
            new.reason,
            new.latency_ms,
            new.metadata,
            now,
        ];
        write_one(executor, &TABLE, &RECORD, &params, &held).await
    }

    /// The session that was given, which has to be that of the message, or the one that follows from it.
    async fn session_of(&self, new: &NewRoutingDecision) -> Result<Option<SessionId>> {
        let Some(message) = new.message_id else { return Ok(new.session_id) };
        let found: Option<(SessionId,)> =
            self.0.executor.fetch_optional(&SESSION_OF_MESSAGE, &params![self.0.tenant, message]).await?;
        match (found, new.session_id) {
            (Some((actual,)), Some(given)) if actual != given => {
                Err(Error::invalid("message_id", format!("{message} belongs to session {actual}, not to {given}")))
            }
            (Some((actual,)), _) => Ok(Some(actual)),
            // The foreign key tells that there is no such message.
            (None, given) => Ok(given),
        }
    }

    /// The decision with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: RoutingDecisionId) -> Result<Option<RoutingDecision>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// One page of the decisions. Filters: id, team_id, session_id, message_id, agent_id, latency_ms,
    /// created_at, metadata.PATH. Orders: id, created_at (the default).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<RoutingDecision>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Deletes a decision.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: RoutingDecisionId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }
}
