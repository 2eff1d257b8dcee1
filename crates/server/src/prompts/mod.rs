//! Versions of prompts.

mod activate;
mod create;
mod deactivate;
mod delete;
mod get;
mod get_active;
mod list;
mod update;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get_active::get_active))
        .routes(routes!(get::get, update::update, delete::delete))
        .routes(routes!(activate::activate))
        .routes(routes!(deactivate::deactivate))
}
