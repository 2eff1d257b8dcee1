//! Versions of prompts.

mod activate;
mod create;
mod deactivate;
mod delete;
mod get;
mod get_active;
mod list;
mod update;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get_active::get_active))
        .routes(routes!(get::get, update::update, delete::delete))
        .routes(routes!(activate::activate))
        .routes(routes!(deactivate::deactivate))
}
