use agentkeep_core::{User, UserId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a user.
#[utoipa::path(get, path = "/users/{id}", tag = "users", params(("id" = UserId, Path, description = "Its id")),
    responses((status = 200, description = "The user", body = User)))]
pub(super) async fn get(caller: Caller, Id(id): Id<UserId>) -> Result<Found<User>> {
    Found::or_not(caller.tenant.users().get(id).await?, id)
}
