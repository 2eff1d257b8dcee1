use agentkeep::{Lockable, TenantStore};
use agentkeep_core::PriceId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a price.
///
/// Costs that were computed before stay as they are.
#[utoipa::path(delete, path = "/prices/{id}", tag = "prices",
    params(("id" = PriceId, Path, description = "Its id")), responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<PriceId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.prices().delete(id).await };
    if_match.then(&caller, Lockable::Price(id), delete).await.map(|()| Gone)
}
