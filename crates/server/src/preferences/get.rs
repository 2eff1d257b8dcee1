use agentkeep_core::{Preference, PreferenceId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get the preferences of a user in a category by their id.
#[utoipa::path(get, path = "/preferences/{id}", tag = "preferences",
    params(("id" = PreferenceId, Path, description = "Their id")),
    responses((status = 200, description = "The preferences", body = Preference)))]
pub(super) async fn get(caller: Caller, Id(id): Id<PreferenceId>) -> Result<Found<Preference>> {
    Found::or_not(caller.tenant.preferences().get_by_id(id).await?, id)
}
