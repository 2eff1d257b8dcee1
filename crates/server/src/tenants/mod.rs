//! Tenants: for those who run the whole database.

mod create;
mod delete;
mod get;
mod list;
mod update;

use agentkeep_core::{Error, Scope, TenantId};
use axum::{
    Extension,
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use utoipa_axum::routes;

use crate::{auth::Caller, error::Result, routes::Routes};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get::get, update::update, delete::delete))
        .layer(middleware::from_fn(operators_only))
}

/// Refuses whoever is not trusted with all tenants: every key but those of the default tenant that may do everything.
async fn operators_only(Extension(caller): Extension<Caller>, request: Request, next: Next) -> Result<Response> {
    let is_operator = caller
        .key
        .as_ref()
        .is_none_or(|key| caller.tenant_id() == TenantId::DEFAULT && key.scopes.contains(&Scope::Admin));
    if is_operator {
        return Ok(next.run(request).await);
    }
    Err(Error::NotPermitted("tenants are for keys of the default tenant with the scope admin".to_owned()).into())
}
