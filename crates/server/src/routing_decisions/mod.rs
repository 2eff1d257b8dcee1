//! Routing decisions of teams.

mod delete;
mod get;
mod list;
mod record;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list::list, record::record)).routes(routes!(get::get, delete::delete))
}
