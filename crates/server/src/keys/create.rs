use agentkeep_core::{IssuedApiKey, NewApiKey};
use axum::{
    Extension,
    http::{HeaderName, header},
};

use crate::{
    auth::{self, Caller},
    body::Body,
    error::Result,
    idempotency::NotKept,
    resource::Created,
};

/// Create a key. Its text is in the answer, and nowhere else ever after.
///
/// A key gives others no more than it has: 403 for a scope that the caller lacks. 400 with an `Idempotency-Key`, since
/// the answer is not kept.
#[utoipa::path(post, path = "/keys", tag = "keys", request_body = NewApiKey,
    params(("Idempotency-Key" = Option<String>, Header, description = "Is refused: the answer holds a secret")),
    responses((status = 201, description = "The key with its text", body = IssuedApiKey)))]
pub(super) async fn create(
    caller: Caller,
    Body(new): Body<NewApiKey>,
) -> Result<([(HeaderName, &'static str); 1], Extension<NotKept>, Created<IssuedApiKey>)> {
    auth::permit_grant(&caller, &new.scopes)?;
    let issued = caller.tenant.api_keys().create(new).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Extension(NotKept), Created(issued)))
}
