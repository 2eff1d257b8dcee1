//! Samples of measures.

mod delete;
mod get;
mod list;
mod prune;
mod record;
mod record_many;
mod statistics;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, record::record))
        .routes(routes!(record_many::record_many))
        .routes(routes!(statistics::statistics))
        .routes(routes!(prune::prune))
        .routes(routes!(get::get, delete::delete))
}
