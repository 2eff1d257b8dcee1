use agentkeep_core::{NewPreference, Preference};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create the preferences of a user in a category.
///
/// 409 when the user has preferences in this category, or the id is taken.
#[utoipa::path(post, path = "/preferences", tag = "preferences", request_body = NewPreference,
    responses((status = 201, description = "The preferences", body = Preference)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewPreference>) -> Result<Created<Preference>> {
    Ok(Created(caller.tenant.preferences().create(new).await?))
}
