//! API keys.

use std::time::Duration;

use agentkeep::core::{ApiKeyPatch, Clock as _, Error, NewApiKey, Result, SystemClock};
use serde_json::Value;

use super::{METADATA, entity, text};
use crate::entity::{
    Action, Answer, Body, Entity,
    call::{call, optional, page, parse, value},
};

pub(super) static KEYS: Entity = entity! {
    name: "keys",
    one: "API key",
    about: "API keys: who may come in over the network, and do what",
    columns: &["id", "name", "prefix", "scopes", "expires_at", "last_used_at", "revoked_at"],
    fields: &[
        text("name", "What it is for"),
        text(
            "scopes",
            "What it allows (create), with commas: read, write, jobs, approvals, admin, RESOURCE:read, RESOURCE:write",
        ),
        text("expires_at", "When it ends (create): 2030-01-01T00:00:00Z; never if nothing is said"),
        text("expires_in", "After how long it ends (create): 90s, 15m, 12h, 30d, 8w"),
        METADATA,
    ],
    list: call!(|home, request| page(home.tenant.api_keys().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.api_keys().get(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.api_keys().create(parse::<NewApiKey>(read(body)?)?).await?))),
    create_note: Some("the key is shown only now: keep it where nobody else reads it"),
    update: Some(call!(|home, key, body| {
        let id = key.parse()?;
        value(home.tenant.api_keys().update(id, parse::<ApiKeyPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.api_keys().delete(key.parse()?).await)),
    actions: &[Action {
        name: "revoke",
        about: "Revoke an API key: it opens nothing any more, and says so",
        arguments: &[("ID", "The API key")],
        columns: &[],
        run: call!(|home, arguments| {
            value(home.tenant.api_keys().revoke(arguments[0].parse()?).await?).map(Answer::One)
        }),
    }],
};

/// The fields of a new key: scopes with commas as a list, and the time from now as the time it is.
fn read(mut body: Body) -> Result<Body> {
    if let Some(Value::String(scopes)) = body.get("scopes") {
        let scopes = scopes.split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(Value::from).collect();
        body.insert("scopes".to_owned(), scopes);
    }
    let Some(after) = body.shift_remove("expires_in") else { return Ok(body) };
    if body.contains_key("expires_at") {
        return Err(Error::invalid("expires_in", "cannot be combined with expires_at"));
    }
    let end = SystemClock.now().plus(duration(after.as_str().unwrap_or_default())?);
    body.insert("expires_at".to_owned(), Value::from(end.to_string()));
    Ok(body)
}

/// A time span such as `30d`.
fn duration(text: &str) -> Result<Duration> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<u32>().ok());
    match number.filter(|_| unit > 0) {
        Some(number) => Ok(Duration::from_secs(u64::from(number) * unit)),
        None => Err(Error::invalid("expires_in", format!("{text:?} is none of 90s, 15m, 12h, 30d, 8w or their like"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_span_has_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)] {
            assert_eq!(duration(text).expect(text), Duration::from_secs(seconds));
        }
        for text in ["", "d", "30", "-1d", "1.5h", "30 d", "30y", "1ä"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn scopes_are_given_with_commas_or_as_a_list() {
        for text in [r#"{"scopes":"read, jobs,"}"#, r#"{"scopes":["read","jobs"]}"#] {
            let body = read(serde_json::from_str(text).expect("an object")).expect("a body");
            assert_eq!(body["scopes"], serde_json::json!(["read", "jobs"]));
        }
        let both = r#"{"expires_in":"1d","expires_at":"2030-01-01T00:00:00Z"}"#;
        assert!(read(serde_json::from_str(both).expect("an object")).is_err());
    }
}
