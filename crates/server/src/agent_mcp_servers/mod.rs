//! Which agent uses which MCP server.

mod assign;
mod get;
mod list;
mod list_by_server;
mod remove;
mod update;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list))
        .routes(routes!(get::get, assign::assign, update::update, remove::remove))
        .routes(routes!(list_by_server::list_by_server))
}
