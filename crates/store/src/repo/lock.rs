//! Rows that are locked before they are changed: for changes on the condition that nobody else has made one.

use agentkeep_core::{
    AgentId, ApiKeyId, ArtifactId, BudgetId, DeploymentId, Error, JobId, JobScheduleId, McpServerId, MemoryId,
    MessageId, PreferenceId, PriceId, PromptId, Result, SessionId, TeamId, Timestamp, UserId,
};

use super::{prompts, table::params};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// Declares what can be locked: its variant, its id, its table.
macro_rules! lockable {
    ($($(#[$doc:meta])* $name:ident($id:ident) $table:literal;)*) => {
        /// A row that can be locked ([`TenantStore::lock_updated_at`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Lockable {
            /// The tenant itself that the view is of.
            Tenant,
            $($(#[$doc])* $name($id),)*
        }

        impl Lockable {
            /// The statement that locks it, and its id.
            fn statement(self) -> (&'static Sql, Option<Value>) {
                match self {
                    Self::Tenant => (&TENANT, None),
                    $(Self::$name(id) => {
                        static SQL: Sql = locked!(concat!($table, " WHERE tenant_id = $1 AND id = $2"));
                        (&SQL, Some(Value::from(id)))
                    })*
                }
            }

            /// One of each, with an id that nothing has.
            #[cfg(any(test, feature = "conformance"))]
            fn each() -> Vec<Self> {
                vec![Self::Tenant, $(Self::$name($id(Default::default()))),*]
            }
        }
    };
}

// The transaction that may write is the only one on SQLite, which has no locks of rows. On PostgreSQL the lock leaves
// those alone who only refer to the row: a user under lock can be given a session.
macro_rules! locked {
    ($rest:expr) => {
        Sql::per_engine(
            concat!("SELECT updated_at FROM ", $rest, " FOR NO KEY UPDATE"),
            concat!("SELECT updated_at FROM ", $rest),
        )
    };
}

static TENANT: Sql = locked!("tenants WHERE id = $1");
// Whoever changes prices has the row of their model locked before.
static LOCK_MODEL: Sql = Sql::both(
    "UPDATE price_models SET changes = changes + 1
     WHERE tenant_id = $1 AND model = (SELECT model FROM prices WHERE tenant_id = $1 AND id = $2)",
);
// Whoever writes messages has the head of their session locked before.
static LOCK_HEAD: Sql = Sql::both(
    "UPDATE session_heads SET edits = edits
     WHERE tenant_id = $1 AND session_id = (SELECT session_id FROM messages WHERE tenant_id = $1 AND id = $2)",
);

lockable! {
    /// A user.
    User(UserId) "users";
    /// An agent.
    Agent(AgentId) "agents";
    /// A team.
    Team(TeamId) "teams";
    /// An MCP server.
    McpServer(McpServerId) "mcp_servers";
    /// A session.
    Session(SessionId) "sessions";
    /// A message.
    Message(MessageId) "messages";
    /// An artifact.
    Artifact(ArtifactId) "artifacts";
    /// A memory.
    Memory(MemoryId) "memories";
    /// A version of a prompt.
    Prompt(PromptId) "prompts";
    /// Preferences of a user.
    Preference(PreferenceId) "preferences";
    /// A job.
    Job(JobId) "jobs";
    /// A schedule of jobs.
    JobSchedule(JobScheduleId) "job_schedules";
    /// A price.
    Price(PriceId) "prices";
    /// A budget.
    Budget(BudgetId) "budgets";
    /// A deployment.
    Deployment(DeploymentId) "deployments";
    /// An API key.
    ApiKey(ApiKeyId) "api_keys";
}

/// Every statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) fn statements() -> Vec<&'static Sql> {
    let locks = Lockable::each().into_iter().map(|row| row.statement().0);
    locks.chain([&LOCK_MODEL, &LOCK_HEAD]).collect()
}

impl TenantStore {
    /// When a row was last changed, with the row locked until the transaction of this view ends: nobody else changes
    /// it meanwhile. `None` when there is none.
    ///
    /// For changes on a condition: lock, compare, change, commit. The changes of other callers may take locks in
    /// another order; of two that wait for each other PostgreSQL lets one fail, which [`TenantStore::transaction`]
    /// repeats.
    ///
    /// # Errors
    /// [`Error::Unsupported`] outside of a transaction, else what the database reports.
    pub async fn lock_updated_at(&self, row: Lockable) -> Result<Option<Timestamp>> {
        if let Executor::Engine(_) = self.executor {
            return Err(Error::Unsupported("a lock outside of a transaction".to_owned()));
        }
        // What is always locked before the row is locked before it here as well.
        match row {
            Lockable::Prompt(id) => self.executor.execute(&prompts::LOCK, &params![self.tenant, id]).await?,
            Lockable::Price(id) => self.executor.execute(&LOCK_MODEL, &params![self.tenant, id]).await?,
            Lockable::Message(id) => self.executor.execute(&LOCK_HEAD, &params![self.tenant, id]).await?,
            _ => 0,
        };
        let (sql, id) = row.statement();
        let params: Vec<Value> = [Some(Value::from(self.tenant)), id].into_iter().flatten().collect();
        Ok(self.executor.fetch_optional::<(Timestamp,)>(sql, &params).await?.map(|(time,)| time))
    }
}
