use agentkeep::{Lockable, TenantStore, Tenants};
use agentkeep_core::TenantId;
use axum::extract::State;

use crate::{
    app::App,
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a tenant and everything that belongs to it.
///
/// 400 for the default tenant: it stays.
#[utoipa::path(delete, path = "/tenants/{id}", tag = "tenants",
    params(("id" = TenantId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<TenantId>,
    if_match: IfMatch,
) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { Tenants::within(&tenant).delete(id).await };
    if_match.then(&caller.of(&app, id)?, Lockable::Tenant, delete).await.map(|()| Gone)
}
