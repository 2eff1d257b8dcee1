use agentkeep_core::User;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List users.
///
/// Filters: id, email, phone_number, name, created_at, updated_at, metadata.PATH. Orders: id, created_at (the default),
/// updated_at.
#[utoipa::path(get, path = "/users", tag = "users", params(ListParams),
    responses((status = 200, description = "A page of users", body = ListOf<User>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<User>> {
    Ok(caller.tenant.users().list(&request).await?.into())
}
