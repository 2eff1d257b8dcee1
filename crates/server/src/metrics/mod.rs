//! Samples of measures.

mod delete;
mod get;
mod list;
mod prune;
mod record;
mod record_many;
mod statistics;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list, record::record))
        .routes(routes!(record_many::record_many))
        .routes(routes!(statistics::statistics))
        .routes(routes!(prune::prune))
        .routes(routes!(get::get, delete::delete))
}
