//! The ledger: what calls of models used and cost.

mod get;
mod list;
mod log;
mod log_many;
mod range;
mod rebuild;
mod statistics;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list, log::log))
        .routes(routes!(log_many::log_many))
        .routes(routes!(get::get))
        .routes(routes!(statistics::statistics))
        .routes(routes!(rebuild::rebuild))
}
