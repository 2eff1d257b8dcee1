use agentkeep_core::MetricId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id},
};

/// Delete a sample.
#[utoipa::path(delete, path = "/metrics/{id}", tag = "metrics",
    params(("id" = MetricId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<MetricId>) -> Result<Gone> {
    caller.tenant.metrics().delete(id).await?;
    Ok(Gone)
}
