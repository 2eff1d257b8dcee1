//! Checkpoints of runs.

mod add_writes;
mod create;
mod delete;
mod get;
mod latest;
mod list;
mod prune;
mod put;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list, create::create, put::put))
        .routes(routes!(latest::latest))
        .routes(routes!(prune::prune))
        .routes(routes!(get::get, delete::delete))
        .routes(routes!(add_writes::add_writes))
}
