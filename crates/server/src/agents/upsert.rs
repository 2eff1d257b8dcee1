use agentkeep::TenantStore;
use agentkeep_core::{Agent, NewAgent};

use super::told;
use crate::{auth::Caller, body::Body, error::Result, resource::Found};

/// Create an agent, or change the one of that name to what is given here.
///
/// Its counters stay. A version is made only when something differs.
#[utoipa::path(put, path = "/agents", tag = "agents", request_body = NewAgent,
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn upsert(caller: Caller, Body(new): Body<NewAgent>) -> Result<Found<Agent>> {
    let upsert = |tenant: TenantStore| {
        let new = new.clone();
        async move { tenant.agents().upsert(new).await }
    };
    Ok(Found(told(&caller.tenant, |agent: &Agent| agent.id, upsert).await?))
}
