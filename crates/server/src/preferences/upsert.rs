use agentkeep_core::{NewPreference, Preference};

use crate::{auth::Caller, body::Body, error::Result, resource::Found};

/// Create the preferences of a user in a category, or change those that are there to what is given here.
#[utoipa::path(put, path = "/preferences", tag = "preferences", request_body = NewPreference,
    responses((status = 200, description = "The preferences", body = Preference)))]
pub(super) async fn upsert(caller: Caller, Body(new): Body<NewPreference>) -> Result<Found<Preference>> {
    Ok(Found(caller.tenant.preferences().upsert(new).await?))
}
