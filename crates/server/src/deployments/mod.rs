//! Deployments and their steps.

mod create;
mod get;
mod history;
mod list;
mod update_status;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get::get, update_status::update_status))
        .routes(routes!(history::history))
}
