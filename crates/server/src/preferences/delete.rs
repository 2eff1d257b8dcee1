use agentkeep::{Lockable, TenantStore};
use agentkeep_core::PreferenceId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete the preferences of a user in a category.
#[utoipa::path(delete, path = "/preferences/{id}", tag = "preferences",
    params(("id" = PreferenceId, Path, description = "Their id")),
    responses((status = 204, description = "They are gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<PreferenceId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.preferences().delete_by_id(id).await };
    if_match.then(&caller, Lockable::Preference(id), delete).await.map(|()| Gone)
}
