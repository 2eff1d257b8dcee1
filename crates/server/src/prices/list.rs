use agentkeep_core::Price;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List prices.
///
/// Filters: id, provider, model, kind, per_token, valid_from, valid_to, created_at, updated_at, metadata.PATH. Orders:
/// id, model, kind, valid_from, created_at (the default), updated_at.
#[utoipa::path(get, path = "/prices", tag = "prices", params(ListParams),
    responses((status = 200, description = "A page of prices", body = ListOf<Price>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Price>> {
    Ok(caller.tenant.prices().list(&request).await?.into())
}
