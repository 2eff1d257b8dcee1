//! What the descriptions of the entities are made of: how a body becomes a type of the store, how what is
//! given on the command line names a row, and macros that write the calls.

use agentkeep::core::{
    AgentId, Error, FilterOperator, ListRequest, McpServerId, Page, Result, SessionId, TeamId, TenantId, UserId,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Body, Home};
use crate::settings;

/// A call of the store: a function whose future borrows what it works on.
macro_rules! call {
    (|$home:ident $(, $argument:ident)*| $body:expr) => {
        |$home, $($argument),*| Box::pin(async move { $body })
    };
}
pub(super) use call;

/// An entity as JSON.
pub(super) fn value(item: impl Serialize) -> Result<Value> {
    serde_json::to_value(item).map_err(|error| Error::database(format!("what was stored is no JSON: {error}")))
}

/// An entity that may be absent, as JSON.
pub(super) fn optional(item: Option<impl Serialize>) -> Result<Option<Value>> {
    item.map(value).transpose()
}

/// A page of entities, as JSON.
pub(super) fn page<T: Serialize>(page: Page<T>) -> Result<Page<Value>> {
    let items = page.items.into_iter().map(value).collect::<Result<_>>()?;
    Ok(Page { items, next: page.next, total: page.total })
}

/// A body as a type of the store; what does not fit is told with its field.
pub(super) fn parse<T: DeserializeOwned>(body: Body) -> Result<T> {
    let read = |body: &Body| serde_json::from_str::<T>(&Value::Object(body.clone()).to_string());
    let Err(error) = read(&body) else { return read(&body).map_err(|error| Error::invalid("data", error.to_string())) };
    let reason = |error: &serde_json::Error| {
        let text = error.to_string();
        text.split(" at line ").next().unwrap_or_default().to_owned()
    };
    let first = reason(&error);
    // The parser does not say which field it stood in: it is the one without which the error is gone.
    let culprit = body.keys().find(|key| {
        let mut rest = body.clone();
        rest.shift_remove(*key);
        read(&rest).err().is_none_or(|error| reason(&error) != first)
    });
    match culprit {
        Some(key) if first.starts_with("unknown field") => Err(Error::invalid(key, first)),
        Some(key) => Err(Error::invalid(key, first.trim_start_matches("json: "))),
        None => Err(Error::invalid("data", first)),
    }
}

/// Takes a field out of a body as text.
pub(super) fn take_text(body: &mut Body, field: &str) -> Result<String> {
    match body.shift_remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Error::invalid(field, format!("{other} is not text"))),
        None => Err(Error::invalid(field, "is missing")),
    }
}

/// The value of an option among the arguments of an action.
pub(super) fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

/// A tenant by id or name.
pub(super) async fn tenant_id(home: &Home, key: &str) -> Result<TenantId> {
    settings::find_tenant(&home.store, key).await
}

/// A user by id, e-mail or phone number.
pub(super) async fn user_id(home: &Home, key: &str) -> Result<UserId> {
    let user = home.tenant.users().get_by_identifier(key).await?;
    user.map(|user| user.id).ok_or_else(|| Error::not_found("user", key))
}

/// An agent by id or name.
pub(super) async fn agent_id(home: &Home, key: &str) -> Result<AgentId> {
    if let Ok(id) = key.parse::<AgentId>()
        && home.tenant.agents().get(id).await?.is_some()
    {
        return Ok(id);
    }
    let agent = home.tenant.agents().get_by_name(key).await?;
    agent.map(|agent| agent.id).ok_or_else(|| Error::not_found("agent", key))
}

/// A team by id or name.
pub(super) async fn team_id(home: &Home, key: &str) -> Result<TeamId> {
    if let Ok(id) = key.parse() {
        return Ok(id);
    }
    let team = home.tenant.teams().get_by_name(key).await?;
    team.map(|team| team.id).ok_or_else(|| Error::not_found("team", key))
}

/// An MCP server by id or name.
pub(super) async fn mcp_server_id(home: &Home, key: &str) -> Result<McpServerId> {
    if let Ok(id) = key.parse() {
        return Ok(id);
    }
    let server = home.tenant.mcp_servers().get_by_name(key).await?;
    server.map(|server| server.id).ok_or_else(|| Error::not_found("MCP server", key))
}

/// A session by id, or by the beginning of one that only one session has.
pub async fn session_id(home: &Home, key: &str) -> Result<SessionId> {
    let Some((first, last)) = id_range(key) else { return key.parse() };
    let request = ListRequest::new()
        .filter_by("id", FilterOperator::GreaterOrEqual, first)
        .filter_by("id", FilterOperator::LessOrEqual, last)
        .limit(2);
    match &home.tenant.sessions().list(&request).await?.items[..] {
        [session] => Ok(session.id),
        [] => Err(Error::not_found("session", format!("{key}…"))),
        _ => Err(Error::invalid("session_id", format!("{key:?} begins the ids of several sessions; give more of it"))),
    }
}

/// The smallest and the largest UUID that begin with `text`; `None` when it is none, or a whole one.
fn id_range(text: &str) -> Option<(String, String)> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    if !(4..32).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let filled = |digit: char| format!("{digits}{}", String::from(digit).repeat(32 - digits.len()));
    Some((filled('0'), filled('f')))
}

#[cfg(test)]
mod tests {
    use agentkeep::core::{NewSession, NewUser};

    use super::*;

    fn body(text: &str) -> Body {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_field() {
        for (text, wanted) in [
            (r#"{"name":"a","emial":"x"}"#, "emial: unknown field `emial`"),
            (r#"{"name":3,"email":"x"}"#, "name: invalid type"),
            (r#"{"metadata":[]}"#, "metadata: "),
        ] {
            let error = parse::<NewUser>(body(text)).expect_err(text).to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
        let error = parse::<NewSession>(body(r#"{"kind":"crowd"}"#)).expect_err("a kind").to_string();
        assert!(error.starts_with("kind: "), "{error}");
    }

    #[test]
    fn the_beginning_of_an_id_is_a_range() {
        let (first, last) = id_range("0195f5a0-00").expect("a range");
        assert_eq!(first, "0195f5a0000000000000000000000000");
        assert_eq!(last, "0195f5a000ffffffffffffffffffffff");
        assert_eq!(id_range("0195f5a0-0000-7000-8000-000000000001"), None);
        assert_eq!(id_range("hello"), None);
    }
}
