//! Approvals: what somebody has to agree to.

mod create;
mod expire;
mod get;
mod list;
mod resolve;
mod wait;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get::get))
        .routes(routes!(resolve::resolve))
        .routes(routes!(wait::wait))
        .routes(routes!(expire::expire))
}
