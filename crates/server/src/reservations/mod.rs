//! Reservations: what budgets hold for work that is about to cost.

mod get;
mod list;
mod release;
mod reserve;
mod settle;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list, reserve::reserve))
        .routes(routes!(get::get))
        .routes(routes!(settle::settle))
        .routes(routes!(release::release))
}
