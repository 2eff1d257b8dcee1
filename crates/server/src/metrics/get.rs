use agentkeep_core::{Metric, MetricId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a sample.
#[utoipa::path(get, path = "/metrics/{id}", tag = "metrics",
    params(("id" = MetricId, Path, description = "Its id")),
    responses((status = 200, description = "The sample", body = Metric)))]
pub(super) async fn get(caller: Caller, Id(id): Id<MetricId>) -> Result<Found<Metric>> {
    Found::or_not(caller.tenant.metrics().get(id).await?, id)
}
