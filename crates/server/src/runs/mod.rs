//! Runs: the answers of agents.

mod cancel;
mod get;
mod list;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list::list)).routes(routes!(get::get)).routes(routes!(cancel::cancel))
}
