//! Checkpoints of runs.

mod add_writes;
mod create;
mod delete;
mod get;
mod latest;
mod list;
mod prune;
mod put;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, create::create, put::put))
        .routes(routes!(latest::latest))
        .routes(routes!(prune::prune))
        .routes(routes!(get::get, delete::delete))
        .routes(routes!(add_writes::add_writes))
}
