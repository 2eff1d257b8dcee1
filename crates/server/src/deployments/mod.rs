//! Deployments and their steps.

mod create;
mod get;
mod history;
mod list;
mod update_status;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get::get, update_status::update_status))
        .routes(routes!(history::history))
}
