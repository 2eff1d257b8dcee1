use agentkeep::{Lockable, TenantStore, Tenants};
use agentkeep_core::{Tenant, TenantId, TenantPatch};
use axum::extract::State;

use crate::{
    app::App,
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a tenant.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away.
#[utoipa::path(patch, path = "/tenants/{id}", tag = "tenants", params(("id" = TenantId, Path, description = "Its id")),
    request_body(content = TenantPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The tenant", body = Tenant)))]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<TenantId>,
    if_match: IfMatch,
    Body(patch): Body<TenantPatch>,
) -> Result<Found<Tenant>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { Tenants::within(&tenant).update(id, patch).await }
    };
    if_match.then(&caller.of(&app, id)?, Lockable::Tenant, change).await.map(Found)
}
