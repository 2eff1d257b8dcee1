//! Memories of agents.

mod create;
mod delete;
mod get;
mod list;
mod update;
mod upsert;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list::list, create::create, upsert::upsert)).routes(routes!(
        get::get,
        update::update,
        delete::delete
    ))
}
