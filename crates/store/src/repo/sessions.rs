//! Sessions, each with its head: the narrow row that an append moves.

use std::collections::HashMap;

use agentkeep_core::{
    Direction, Error, ListRequest, NewSession, Page, Result, Session, SessionId, SessionPatch, SessionStamp,
    SessionStatus, TenantId,
};

use super::{
    list::list,
    table::{
        Changes, Field, FieldKind, Reference, Table, check_reference, delete, digits_of, id_list, params, record, write,
    },
};
use crate::{
    engine::{Executor, FromRow, RowRef, Sql, Value},
    store::TenantStore,
};

/// The sessions of a tenant.
pub struct Sessions<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "s.id, s.user_id, s.agent_id, s.team_id, s.kind, s.name, s.platform, s.chat_id, s.status, s.state, s.metadata, \
         h.message_count, h.last_seq, h.last_message_at, s.finished_at, s.revision, s.created_at, s.updated_at"
    };
}

macro_rules! source {
    () => {
        "sessions s JOIN session_heads h ON h.tenant_id = s.tenant_id AND h.session_id = s.id"
    };
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM ",
            source!(),
            " WHERE s.tenant_id = $1 AND h.tenant_id = $1 AND ",
            $condition
        )
    };
}

record!(Session, &TABLE, {
    id, user_id, agent_id, team_id, kind, name, platform, chat_id, status, state, metadata, message_count, last_seq,
    last_message_at, finished_at, revision, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "session",
    name: "sessions",
    from: source!(),
    tenant: "s.tenant_id = $1 AND h.tenant_id = $1",
    columns: columns!(),
    key: "s.id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).column("s.id").sortable(),
        Field::new("user_id", FieldKind::Uuid).column("s.user_id"),
        Field::new("agent_id", FieldKind::Int).column("s.agent_id"),
        Field::new("team_id", FieldKind::Uuid).column("s.team_id"),
        Field::new("kind", FieldKind::Text).column("s.kind"),
        Field::new("name", FieldKind::Text).column("s.name"),
        Field::new("platform", FieldKind::Text).column("s.platform"),
        Field::new("chat_id", FieldKind::Text).column("s.chat_id"),
        Field::new("status", FieldKind::Text).column("s.status"),
        Field::new("message_count", FieldKind::Int).column("h.message_count").sortable(),
        // A session without messages takes the place of its creation.
        Field::new("last_message_at", FieldKind::Time).column("COALESCE(h.last_message_at, s.created_at)").sortable(),
        Field::new("created_at", FieldKind::Time).column("s.created_at").sortable(),
        Field::new("updated_at", FieldKind::Time).column("s.updated_at").sortable(),
        Field::new("state", FieldKind::Json).column("s.state"),
        Field::new("metadata", FieldKind::Json).column("s.metadata"),
    ],
    unique: &[&["platform", "chat_id"]],
    references: &[Reference::new("user_id", "user", "users")],
};

/// What a changed row gives back: the session itself is read with its head.
static CHANGED: Table = Table { columns: "id", ..TABLE };

static CREATE: Sql = Sql::both(
    "INSERT INTO sessions (tenant_id, id, user_id, agent_id, team_id, kind, name, platform, chat_id, status, state, \
     metadata, revision, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'active', $10, $11, 1, $12, $12)
     RETURNING id",
);
static CREATE_UNLESS_CHAT_EXISTS: Sql = Sql::both(
    "INSERT INTO sessions (tenant_id, id, user_id, agent_id, team_id, kind, name, platform, chat_id, status, state, \
     metadata, revision, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'active', $10, $11, 1, $12, $12)
     ON CONFLICT (tenant_id, platform, chat_id) WHERE chat_id IS NOT NULL DO NOTHING
     RETURNING id",
);
static CREATE_HEAD: Sql =
    Sql::both("INSERT INTO session_heads (tenant_id, session_id, last_seq, message_count) VALUES ($1, $2, 0, 0)");
static GET: Sql = Sql::both(select!("s.id = $2")).short();
static GET_BY_CHAT: Sql = Sql::both(select!("s.platform = $2 AND s.chat_id = $3")).short();
static STATUS: Sql = Sql::both("SELECT status, revision FROM sessions WHERE tenant_id = $1 AND id = $2").short();
// A list of ids is one text on both engines: PostgreSQL splits it, SQLite has no arrays and reads it as JSON. OFFSET 0
// keeps PostgreSQL, as long as it knows nothing of the tables, from reading all sessions of the tenant first.
static STAMPS: Sql = Sql::per_engine(
    "SELECT wanted.id, s.revision, h.last_seq, h.message_count, h.last_event, h.edits, s.updated_at
     FROM unnest(CAST(string_to_array($2, ',') AS uuid[])) AS wanted (id)
         CROSS JOIN LATERAL (
             SELECT last_seq, message_count, last_event, edits FROM session_heads
             WHERE tenant_id = $1 AND session_id = wanted.id OFFSET 0
         ) h
         CROSS JOIN LATERAL (
             SELECT revision, updated_at FROM sessions WHERE tenant_id = $1 AND id = wanted.id OFFSET 0
         ) s",
    "SELECT s.id, s.revision, h.last_seq, h.message_count, h.last_event, h.edits, s.updated_at
     FROM json_each('[\"' || replace($2, ',', '\",\"') || '\"]') AS wanted
     CROSS JOIN session_heads h ON h.tenant_id = $1 AND h.session_id = unhex(wanted.value)
     CROSS JOIN sessions s ON s.tenant_id = $1 AND s.id = h.session_id",
)
.short();
static DELETE: Sql = Sql::both("DELETE FROM sessions WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&CREATE, &CREATE_UNLESS_CHAT_EXISTS, &CREATE_HEAD, &GET, &GET_BY_CHAT, &STATUS, &STAMPS, &DELETE]);

impl Sessions<'_> {
    /// Creates a session.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the chat or the id
    /// is taken, [`Error::MissingReference`] when user, agent or team do not exist in this tenant.
    pub async fn create(&self, new: NewSession) -> Result<Session> {
        let id = self.insert(&CREATE, new).await?;
        let id = id.ok_or_else(|| Error::database("the session that was written did not come back"))?;
        self.get(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id))
    }

    /// The session of a chat on a platform; created when there is none. Any number of callers at once get
    /// the same session.
    ///
    /// # Errors
    /// As [`Sessions::create`], the taken chat excepted; [`Error::Invalid`] without platform and chat id.
    pub async fn get_or_create(&self, new: NewSession) -> Result<Session> {
        let (Some(platform), Some(chat_id)) = (new.platform.clone(), new.chat_id.clone()) else {
            return Err(Error::invalid("chat_id", "platform and chat_id are needed to find the session by"));
        };
        loop {
            if let Some(session) = self.get_by_chat(&platform, &chat_id).await? {
                return Ok(session);
            }
            // Nobody's insert, or somebody else's, is there now; unless it is deleted again at once.
            self.insert(&CREATE_UNLESS_CHAT_EXISTS, new.clone()).await?;
        }
    }

    /// Writes the session and its head; `None` when the statement found the chat taken.
    async fn insert(&self, sql: &'static Sql, new: NewSession) -> Result<Option<SessionId>> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let tenant = self.0.tenant;
        let (kind, new) = (new.kind(), &new);
        let insert = |executor: Executor| async move {
            check_leaders(&executor, tenant, new.agent_id, new.team_id).await?;
            let held = [
                ("id", Value::from(id)),
                ("platform", Value::from(new.platform.clone())),
                ("chat_id", Value::from(new.chat_id.clone())),
                ("user_id", Value::from(new.user_id)),
            ];
            let params = params![
                tenant,
                id,
                new.user_id,
                new.agent_id,
                new.team_id,
                kind,
                new.name.clone(),
                new.platform.clone(),
                new.chat_id.clone(),
                new.state.clone(),
                new.metadata.clone(),
                now,
            ];
            let written: Vec<(SessionId,)> = write(&executor, &TABLE, sql, &params, &held).await?;
            if written.is_empty() {
                return Ok(None);
            }
            executor.execute(&CREATE_HEAD, &params![tenant, id]).await?;
            Ok(Some(id))
        };
        self.0.executor.transaction(insert).await
    }

    /// The session with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: SessionId) -> Result<Option<Session>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The session of a chat on a platform; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_chat(&self, platform: &str, chat_id: &str) -> Result<Option<Session>> {
        self.0.executor.fetch_optional(&GET_BY_CHAT, &params![self.0.tenant, platform, chat_id]).await
    }

    /// What tells whether what a reader knows of these sessions still holds, in the order of the ids; `None` for those
    /// that are not there. One short statement.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than 1,000 ids.
    pub async fn stamps(&self, ids: &[SessionId]) -> Result<Vec<Option<SessionStamp>>> {
        let list = id_list("ids", ids.iter().map(|id| digits_of(*id)))?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let found: Vec<SessionStamp> = self.0.executor.fetch_all(&STAMPS, &params![self.0.tenant, list]).await?;
        let found: HashMap<SessionId, SessionStamp> = found.into_iter().map(|stamp| (stamp.id, stamp)).collect();
        Ok(ids.iter().map(|id| found.get(id).copied()).collect())
    }

    /// One page of the sessions. Filters: id, user_id, agent_id, team_id, kind, name, platform, chat_id,
    /// status, message_count, last_message_at, created_at, updated_at, state.PATH, metadata.PATH. Orders: id,
    /// created_at (the default), updated_at, last_message_at, message_count.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Session>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes a session in one statement; what the patch leaves out stays, and no change of somebody else
    /// is lost: JSON is merged, and with a `revision` nothing is changed unless the session still has it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::MissingReference`], [`Error::IllegalTransition`],
    /// or [`Error::StaleRevision`] with the current revision.
    pub async fn update(&self, id: SessionId, patch: SessionPatch) -> Result<Session> {
        patch.check()?;
        let (tenant, executor) = (self.0.tenant, &self.0.executor);
        check_leaders(executor, tenant, patch.agent_id.flatten(), patch.team_id.flatten()).await?;
        let (expected, status, now) = (patch.revision, patch.status, self.0.now());
        let held = [("user_id", Value::from(patch.user_id.flatten()))];
        let mut changes = Changes::new(executor.dialect(), tenant, id);
        changes.set("user_id", patch.user_id);
        changes.set("agent_id", patch.agent_id);
        changes.set("team_id", patch.team_id);
        changes.set("kind", patch.kind);
        changes.set("name", patch.name);
        changes.merge("state", patch.state);
        changes.merge("metadata", patch.metadata);
        if let Some(next) = status {
            changes.set("status", Some(next));
            changes.set("finished_at", Some((next == SessionStatus::Finished).then_some(now)));
            changes.only_if_in("status", SessionStatus::ALL.iter().copied().filter(|from| from.can_become(next)));
        }
        changes.set_expression("revision = revision + 1");
        if let Some(expected) = expected {
            changes.only_if("revision", expected);
        }
        let (sql, params) = changes.statement(&CHANGED, now);
        let changed: Vec<(SessionId,)> = write(executor, &TABLE, &sql, &params, &held).await?;
        if changed.is_empty() {
            return Err(self.why_unchanged(id, expected, status).await?);
        }
        self.get(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id))
    }

    /// Marks a session as finished.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::IllegalTransition`] when it is not active.
    pub async fn finish(&self, id: SessionId) -> Result<Session> {
        self.update(id, SessionPatch { status: Some(SessionStatus::Finished), ..SessionPatch::default() }).await
    }

    async fn why_unchanged(&self, id: SessionId, expected: Option<i64>, next: Option<SessionStatus>) -> Result<Error> {
        let current =
            self.0.executor.fetch_optional::<(SessionStatus, i64)>(&STATUS, &params![self.0.tenant, id]).await?;
        let (entity, key) = (TABLE.entity, id.to_string());
        Ok(match (current, expected, next) {
            (None, _, _) => Error::NotFound { entity, key },
            (Some((_, current)), Some(expected), _) if current != expected => {
                Error::StaleRevision { entity, key, expected, current }
            }
            (Some((from, _)), _, Some(to)) if !from.can_become(to) => {
                Error::IllegalTransition { entity, key, from: from.to_string(), to: to.to_string() }
            }
            // It was changed in between and would be found now; the caller decides with fresh eyes.
            (Some((_, current)), expected, _) => {
                Error::StaleRevision { entity, key, expected: expected.unwrap_or(current), current }
            }
        })
    }

    /// Deletes a session with its messages, artifacts and checkpoints. A writer that comes late gets *not
    /// found*.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: SessionId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }
}

impl FromRow for SessionStamp {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            revision: row.get(1)?,
            last_seq: row.get(2)?,
            message_count: row.get(3)?,
            last_event: row.get(4)?,
            edits: row.get(5)?,
            updated_at: row.get(6)?,
        })
    }
}

/// Agent and team are soft references: they must exist when they are set, and may go afterwards.
async fn check_leaders(
    executor: &Executor,
    tenant: TenantId,
    agent: Option<agentkeep_core::AgentId>,
    team: Option<agentkeep_core::TeamId>,
) -> Result<()> {
    check_reference(executor, tenant, "agent_id", "agent", "agents", agent).await?;
    check_reference(executor, tenant, "team_id", "team", "teams", team).await
}
