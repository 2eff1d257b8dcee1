use agentkeep::Tenants;
use agentkeep_core::{NewTenant, Tenant};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a tenant.
///
/// 409 when the name is taken.
#[utoipa::path(post, path = "/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 201, description = "The tenant", body = Tenant)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewTenant>) -> Result<Created<Tenant>> {
    Ok(Created(Tenants::within(&caller.tenant).create(new).await?))
}
