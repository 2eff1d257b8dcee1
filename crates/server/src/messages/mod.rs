//! Messages, appended whole or streamed in.

mod append;
mod append_many;
mod delete;
mod delta;
mod finish;
mod get;
mod list;
mod start;
mod update;

use agentkeep_core::{Message, NewMessage, SessionId};
use utoipa_axum::routes;

use crate::{auth::Caller, error::Result, routes::Routes};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, append::append))
        .routes(routes!(append_many::append_many))
        .routes(routes!(start::start))
        .routes(routes!(delta::delta))
        .routes(routes!(finish::finish))
        .routes(routes!(get::get, update::update, delete::delete))
}

/// Appends a message to a session, and tells those who watch it.
///
/// # Errors
/// 404 when there is no such session, and what the repository tells.
pub(crate) async fn appended(caller: &Caller, session: SessionId, new: NewMessage) -> Result<Message> {
    let message = caller.tenant.messages().append(session, new).await?;
    caller.tenant.session_changed(session);
    Ok(message)
}
