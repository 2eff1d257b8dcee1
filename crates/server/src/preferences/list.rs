use agentkeep_core::Preference;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List preferences.
///
/// Who likes it dark: `preferences.theme=dark`. Filters: id, user_id, category, created_at, updated_at,
/// preferences.PATH, metadata.PATH. Orders: id, created_at (the default), updated_at, category.
#[utoipa::path(get, path = "/preferences", tag = "preferences", params(ListParams),
    responses((status = 200, description = "A page of preferences", body = ListOf<Preference>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Preference>> {
    Ok(caller.tenant.preferences().list(&request).await?.into())
}
