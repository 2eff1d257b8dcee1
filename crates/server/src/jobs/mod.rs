//! Jobs, as callers and as workers see them.

mod attempt;
mod cancel;
mod checkpoint;
mod claim;
mod complete;
mod complete_many;
mod confirm_cancel;
mod counts;
mod enqueue;
mod enqueue_many;
mod fail;
mod get;
mod give_back;
mod heartbeat;
mod list;
mod pending;
mod prune;
mod request_approval;
mod retry;
mod snooze;
mod tend;
mod update_status;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, enqueue::enqueue))
        .routes(routes!(get::get, update_status::update_status))
        .routes(routes!(enqueue_many::enqueue_many))
        .routes(routes!(counts::counts))
        .routes(routes!(pending::pending))
        .routes(routes!(claim::claim))
        .routes(routes!(heartbeat::heartbeat))
        .routes(routes!(complete::complete))
        .routes(routes!(complete_many::complete_many))
        .routes(routes!(fail::fail))
        .routes(routes!(snooze::snooze))
        .routes(routes!(give_back::give_back))
        .routes(routes!(checkpoint::checkpoint))
        .routes(routes!(cancel::cancel))
        .routes(routes!(confirm_cancel::confirm_cancel))
        .routes(routes!(retry::retry))
        .routes(routes!(request_approval::request_approval))
        .routes(routes!(tend::tend))
        .routes(routes!(prune::prune))
}
