//! One file for each entity: its statements and its functions.

mod list;
pub(crate) mod table;

mod agent_mcp_servers;
mod agent_versions;
mod agents;
mod api_keys;
mod approvals;
mod artifacts;
mod budgets;
mod checkpoints;
mod deployments;
mod idempotency;
mod job_schedules;
mod jobs;
mod ledger;
mod ledger_rollups;
mod ledger_statistics;
mod ledger_sums;
mod lock;
mod mcp_servers;
mod memories;
mod messages;
mod messages_stream;
mod metrics;
mod preferences;
mod prices;
mod prompts;
mod reservations;
mod routing_decisions;
mod runs;
mod session_events;
mod sessions;
mod stats;
mod team_members;
mod teams;
mod tenants;
mod users;
mod words;

pub use agent_mcp_servers::AgentMcpServers;
pub use agent_versions::AgentVersions;
pub use agents::Agents;
pub use api_keys::ApiKeys;
pub use approvals::Approvals;
pub use artifacts::Artifacts;
pub use budgets::Budgets;
pub use checkpoints::Checkpoints;
pub use deployments::Deployments;
pub use idempotency::IdempotencyKeys;
pub use job_schedules::JobSchedules;
pub(crate) use jobs::Marks;
pub use jobs::{Failure, Jobs, Retry};
pub use ledger::Ledger;
pub use lock::Lockable;
pub use mcp_servers::McpServers;
pub use memories::Memories;
pub use messages::Messages;
pub use metrics::Metrics;
pub use preferences::Preferences;
pub use prices::Prices;
pub use prompts::Prompts;
pub use routing_decisions::RoutingDecisions;
pub use runs::Runs;
pub use session_events::SessionEvents;
pub use sessions::Sessions;
pub use team_members::TeamMembers;
pub use teams::Teams;
pub use tenants::Tenants;
pub use users::Users;

pub(crate) use ledger_rollups::Moves;

use crate::store::{Store, TenantStore};

/// Declares the functions that give access to the entities, on a tenant's view and on the store for the
/// default tenant.
macro_rules! entities {
    ($($(#[$doc:meta])* $name:ident: $type:ident),* $(,)?) => {
        impl TenantStore {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> $type<'_> {
                $type(self)
            })*
        }

        impl Store {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> $type<'_> {
                $type(self.default_tenant())
            })*
        }
    };
}

entities! {
    /// Users.
    users: Users,
    /// Agents.
    agents: Agents,
    /// The versions of agents: one for every change of one.
    agent_versions: AgentVersions,
    /// Teams of agents.
    teams: Teams,
    /// Who is in a team.
    team_members: TeamMembers,
    /// MCP servers.
    mcp_servers: McpServers,
    /// Which agent uses which MCP server.
    agent_mcp_servers: AgentMcpServers,
    /// Sessions.
    sessions: Sessions,
    /// Messages.
    messages: Messages,
    /// The events of sessions.
    session_events: SessionEvents,
    /// Runs of agents in sessions.
    runs: Runs,
    /// Artifacts of messages.
    artifacts: Artifacts,
    /// Memories of agents.
    memories: Memories,
    /// Versions of prompts.
    prompts: Prompts,
    /// Preferences of users.
    preferences: Preferences,
    /// Samples of measures.
    metrics: Metrics,
    /// Routing decisions of teams.
    routing_decisions: RoutingDecisions,
    /// Checkpoints of runs.
    checkpoints: Checkpoints,
    /// Jobs.
    jobs: Jobs,
    /// Approvals.
    approvals: Approvals,
    /// Prices of tokens.
    prices: Prices,
    /// The ledger of tokens and their cost.
    ledger: Ledger,
    /// Budgets and their reservations.
    budgets: Budgets,
    /// Deployments.
    deployments: Deployments,
    /// Schedules of jobs.
    job_schedules: JobSchedules,
    /// API keys.
    api_keys: ApiKeys,
    /// Keys of requests that are done once.
    idempotency_keys: IdempotencyKeys,
}

/// The table of an entity and its fixed statements.
#[cfg(any(test, feature = "conformance"))]
type Statements = (&'static table::Table, &'static [&'static crate::engine::Sql]);

/// The fixed statements of every repository: for the test that prepares them all.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn statements() -> Vec<Statements> {
    vec![
        tenants::STATEMENTS,
        users::STATEMENTS,
        agents::STATEMENTS,
        agent_versions::STATEMENTS,
        teams::STATEMENTS,
        team_members::STATEMENTS,
        mcp_servers::STATEMENTS,
        agent_mcp_servers::STATEMENTS,
        stats::STATEMENTS,
        sessions::STATEMENTS,
        messages::STATEMENTS,
        runs::STATEMENTS,
        artifacts::STATEMENTS,
        memories::STATEMENTS,
        prompts::STATEMENTS,
        preferences::STATEMENTS,
        metrics::STATEMENTS,
        routing_decisions::STATEMENTS,
        checkpoints::STATEMENTS,
        jobs::STATEMENTS,
        approvals::STATEMENTS,
        prices::STATEMENTS,
        ledger::STATEMENTS,
        budgets::STATEMENTS,
        reservations::STATEMENTS,
        deployments::STATEMENTS,
        job_schedules::STATEMENTS,
        api_keys::STATEMENTS,
    ]
}

/// The fixed statements beside them: of repositories that take more than one file.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn more_statements() -> Vec<&'static crate::engine::Sql> {
    let files = [
        ledger_rollups::FIXED,
        ledger_statistics::FIXED,
        idempotency::FIXED,
        session_events::FIXED,
        messages_stream::FIXED,
    ];
    jobs::statements().0.into_iter().chain(files.concat()).chain(lock::statements()).collect()
}

/// The appends of every repository.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn appends() -> Vec<&'static crate::engine::AppendSql> {
    vec![&messages::APPEND, &session_events::APPEND]
}

/// The batches of every repository.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn batches() -> Vec<&'static crate::engine::BatchSql> {
    let files = [ledger::BATCHES, ledger_rollups::BATCHES];
    jobs::statements().1.into_iter().chain(files.concat()).collect()
}

/// Every statement that lists of a table can assemble.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn list_statements(
    dialect: crate::engine::Dialect,
    table: &'static table::Table,
) -> agentkeep_core::Result<Vec<crate::engine::Sql>> {
    list::statements(dialect, table, (table.name == "ledger").then_some(&ledger::BY_HOUR))
}

impl Store {
    /// Tenants.
    #[must_use]
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants(self.default_tenant())
    }
}
