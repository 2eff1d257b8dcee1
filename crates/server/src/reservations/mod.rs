//! Reservations: what budgets hold for work that is about to cost.

mod get;
mod list;
mod release;
mod reserve;
mod settle;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, reserve::reserve))
        .routes(routes!(get::get))
        .routes(routes!(settle::settle))
        .routes(routes!(release::release))
}
