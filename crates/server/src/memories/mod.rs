//! Memories of agents.

mod create;
mod delete;
mod get;
mod list;
mod update;
mod upsert;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list::list, create::create, upsert::upsert)).routes(routes!(
        get::get,
        update::update,
        delete::delete
    ))
}
