use agentkeep::TenantStore;
use agentkeep_core::{Agent, NewAgent};

use super::told;
use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create an agent, and its version 1.
///
/// 409 when the name is taken.
#[utoipa::path(post, path = "/agents", tag = "agents", request_body = NewAgent,
    responses((status = 201, description = "The agent", body = Agent)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewAgent>) -> Result<Created<Agent>> {
    let create = |tenant: TenantStore| {
        let new = new.clone();
        async move { tenant.agents().create(new).await }
    };
    Ok(Created(told(&caller.tenant, |agent: &Agent| agent.id, create).await?))
}
