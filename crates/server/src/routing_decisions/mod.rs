//! Routing decisions of teams.

mod delete;
mod get;
mod list;
mod record;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list::list, record::record)).routes(routes!(get::get, delete::delete))
}
