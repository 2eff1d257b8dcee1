use agentkeep_core::Metric;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List samples.
///
/// Filters: id, name, value, recorded_at, created_at, labels.PATH. Orders: id, recorded_at (the default), created_at,
/// name, value.
#[utoipa::path(get, path = "/metrics", tag = "metrics", params(ListParams),
    responses((status = 200, description = "A page of samples", body = ListOf<Metric>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Metric>> {
    Ok(caller.tenant.metrics().list(&request).await?.into())
}
