use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Price, PriceId, PricePatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a price.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away. Costs that were computed before stay as
/// they are. 409 when it would be valid at a time of another one.
#[utoipa::path(patch, path = "/prices/{id}", tag = "prices",
    params(("id" = PriceId, Path, description = "Its id")),
    request_body(content = PricePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The price", body = Price)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<PriceId>,
    if_match: IfMatch,
    Body(patch): Body<PricePatch>,
) -> Result<Found<Price>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.prices().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::Price(id), change).await.map(Found)
}
