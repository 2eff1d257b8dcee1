//! Conversations: sessions of a user with an agent, under other names.

mod agent;
mod conversation;
mod delete;
mod get;
mod list;
mod send;
mod start;
mod update;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(start::start))
        .routes(routes!(list::list))
        .routes(routes!(get::get, update::update, delete::delete))
        .routes(routes!(send::send))
}
