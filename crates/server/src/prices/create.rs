use agentkeep_core::{NewPrice, Price};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a price.
///
/// Costs that were computed before stay as they are. 409 when another price of the same provider, model and kind is
/// valid at a time of this one, or the id is taken.
#[utoipa::path(post, path = "/prices", tag = "prices", request_body = NewPrice,
    responses((status = 201, description = "The price", body = Price)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewPrice>) -> Result<Created<Price>> {
    Ok(Created(caller.tenant.prices().create(new).await?))
}
