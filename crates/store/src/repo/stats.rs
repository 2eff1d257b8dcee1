//! How much there is of what.

use agentkeep_core::{Result, Stats};

use super::table::params;
use crate::{
    engine::Sql,
    store::{Store, TenantStore},
};

// The heads of the sessions count the messages as they come and go, so that no message has to be looked at.
static STATS: Sql = Sql::both(
    "SELECT (SELECT count(*) FROM agents WHERE tenant_id = $1 AND deleted_at IS NULL),
            count(*), CAST(COALESCE(SUM(message_count), 0) AS bigint)
     FROM session_heads WHERE tenant_id = $1",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&super::agents::TABLE, &[&STATS]);

impl TenantStore {
    /// How many agents, conversations and messages the tenant has at this moment: the totals that the lists
    /// of them give, at the cost of one narrow row for each conversation.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn stats(&self) -> Result<Stats> {
        let (total_agents, total_conversations, total_messages) =
            self.executor.fetch_one(&STATS, &params![self.tenant]).await?;
        Ok(Stats { total_agents, total_conversations, total_messages })
    }
}

impl Store {
    /// As [`TenantStore::stats`], of the default tenant.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn stats(&self) -> Result<Stats> {
        self.default_tenant().stats().await
    }
}
