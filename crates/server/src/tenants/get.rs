use agentkeep::Tenants;
use agentkeep_core::{Tenant, TenantId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a tenant.
#[utoipa::path(get, path = "/tenants/{id}", tag = "tenants", params(("id" = TenantId, Path, description = "Its id")),
    responses((status = 200, description = "The tenant", body = Tenant)))]
pub(super) async fn get(caller: Caller, Id(id): Id<TenantId>) -> Result<Found<Tenant>> {
    Found::or_not(Tenants::within(&caller.tenant).get(id).await?, id)
}
