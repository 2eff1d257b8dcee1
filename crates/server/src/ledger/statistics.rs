use agentkeep_core::LedgerStatistics;

use super::range::{Range, RangeParams};
use crate::{auth::Caller, error::Result, query::ListOf};

/// What was used and spent in a range of time, in groups.
///
/// Exact sums of all entries that were committed before, ordered by what groups are formed by; empty when there are
/// none. By hour, day, scope, provider, model and agent it takes milliseconds however many entries there are. Groups by
/// user or session, and those of one user or session, are summed from the entries.
#[utoipa::path(get, path = "/ledger/statistics", tag = "ledger", params(RangeParams),
    responses((status = 200, description = "The groups", body = ListOf<LedgerStatistics>)))]
pub(super) async fn statistics(caller: Caller, Range(request): Range) -> Result<ListOf<LedgerStatistics>> {
    Ok(ListOf::of_values(caller.tenant.ledger().statistics(&request).await?))
}
