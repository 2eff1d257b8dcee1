//! Artifacts of messages.

mod create;
mod delete;
mod get;
mod list;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list::list, create::create)).routes(routes!(get::get, delete::delete))
}
