//! Prices of tokens.

mod cost;
mod create;
mod delete;
mod get;
mod list;
mod update;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get::get, update::update, delete::delete))
        .routes(routes!(cost::cost))
}
