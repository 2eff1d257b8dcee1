//! Who is in a team.

mod add;
mod get;
mod list;
mod list_by_agent;
mod remove;
mod set;
mod set_position;
mod set_role;

use utoipa_axum::routes;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, set::set, add::add))
        .routes(routes!(get::get, remove::remove))
        .routes(routes!(set_position::set_position))
        .routes(routes!(set_role::set_role))
        .routes(routes!(list_by_agent::list_by_agent))
}
