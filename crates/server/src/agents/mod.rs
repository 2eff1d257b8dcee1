//! Agents.

mod create;
mod delete;
mod get;
mod increment_run_id;
mod list;
mod put;
mod record_use;
mod restore;
mod restore_version;
mod update;
mod upsert;

use agentkeep::{Lockable, TenantStore};
use agentkeep_core::AgentId;
use utoipa_axum::routes;

use crate::{auth::Caller, error::Result, resource::IfMatch, routes::Routes};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, create::create, upsert::upsert))
        .routes(routes!(get::get, update::update, put::put, delete::delete))
        .routes(routes!(restore::restore))
        .routes(routes!(restore_version::restore_version))
        .routes(routes!(increment_run_id::increment_run_id))
        .routes(routes!(record_use::record_use))
}

/// Does something to an agent, and tells it to those who keep copies of agents, here and on other servers, once it is
/// committed. Whatever changes an agent goes through here; `agent` says which one it was.
pub(crate) async fn told<T, F, Work>(
    tenant: &TenantStore,
    agent: impl Fn(&T) -> AgentId,
    work: F,
) -> agentkeep_core::Result<T>
where
    F: Fn(TenantStore) -> Work,
    Work: Future<Output = agentkeep_core::Result<T>>,
{
    let (agent, work) = (&agent, &work);
    let told = |tenant: TenantStore| async move {
        let done = work(tenant.clone()).await?;
        tenant.agent_changed(agent(&done));
        Ok(done)
    };
    // One transaction: the news go out with its commit, also when the caller is gone by then.
    tenant.transaction(told).await
}

/// As [`told`], of an agent that is there, if it still has the version that the caller names.
async fn change<T, F, Work>(caller: &Caller, id: AgentId, if_match: IfMatch, work: F) -> Result<T>
where
    F: Fn(TenantStore) -> Work,
    Work: Future<Output = agentkeep_core::Result<T>>,
{
    let work = &work;
    let change = |tenant: TenantStore| async move { told(&tenant, |_| id, work).await };
    if_match.then(caller, Lockable::Agent(id), change).await
}
