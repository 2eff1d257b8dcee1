use agentkeep::Tenants;
use agentkeep_core::Tenant;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List tenants.
///
/// Filters: id, name, created_at, updated_at, metadata.PATH. Orders: id (the default), name, created_at, updated_at.
#[utoipa::path(get, path = "/tenants", tag = "tenants", params(ListParams),
    responses((status = 200, description = "A page of tenants", body = ListOf<Tenant>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Tenant>> {
    Ok(Tenants::within(&caller.tenant).list(&request).await?.into())
}
