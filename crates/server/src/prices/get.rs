use agentkeep_core::{Price, PriceId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a price.
#[utoipa::path(get, path = "/prices/{id}", tag = "prices", params(("id" = PriceId, Path, description = "Its id")),
    responses((status = 200, description = "The price", body = Price)))]
pub(super) async fn get(caller: Caller, Id(id): Id<PriceId>) -> Result<Found<Price>> {
    Found::or_not(caller.tenant.prices().get(id).await?, id)
}
