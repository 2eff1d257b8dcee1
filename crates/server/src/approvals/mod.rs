//! Approvals: what somebody has to agree to.

mod create;
mod expire;
mod get;
mod list;
mod resolve;
mod wait;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get::get))
        .routes(routes!(resolve::resolve))
        .routes(routes!(wait::wait))
        .routes(routes!(expire::expire))
}
