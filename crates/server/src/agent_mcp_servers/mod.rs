//! Which agent uses which MCP server.

mod assign;
mod get;
mod list;
mod list_by_server;
mod remove;
mod update;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(get::get, assign::assign, update::update, remove::remove))
        .routes(routes!(list_by_server::list_by_server))
}
