//! The ledger: what calls of models used and cost.

mod get;
mod list;
mod log;
mod log_many;
mod range;
mod rebuild;
mod statistics;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, log::log))
        .routes(routes!(log_many::log_many))
        .routes(routes!(get::get))
        .routes(routes!(statistics::statistics))
        .routes(routes!(rebuild::rebuild))
}
