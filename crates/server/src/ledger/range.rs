//! What statistics are wanted, as a query says it.

use std::time::Duration;

use agentkeep_core::{AgentId, LedgerDimension, LedgerStatisticsRequest, SessionId, Timestamp, TokenScope, UserId};
use axum::{extract::FromRequestParts, http::request::Parts};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::Caller,
    error::{ApiError, Result, renamed},
    query,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred years.
const MOST_DAYS: u32 = 36_500;

/// A range of time, and which entries count.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RangeParams {
    /// So many times 24 hours before now up to now, instead of `from` and `to`.
    #[param(minimum = 0, maximum = 36500)]
    days_back: Option<u32>,
    /// The first time that counts; from the first entry when absent.
    from: Option<Timestamp>,
    /// The first time that counts no longer; to the last entry when absent.
    to: Option<Timestamp>,
    /// What to group by; may be repeated, or be several with commas between them: hour, day, scope, provider, model,
    /// agent, user, session. One group when absent; with `days_back` by scope and provider.
    // Taken out before the rest is read: it may stand more than once.
    #[param(inline)]
    group_by: Option<Vec<LedgerDimension>>,
    /// Only entries of this scope.
    scope: Option<TokenScope>,
    /// Only entries of this provider.
    provider: Option<String>,
    /// Only entries of this model.
    model: Option<String>,
    /// Only entries of this agent.
    agent_id: Option<AgentId>,
    /// Only entries of this user.
    user_id: Option<UserId>,
    /// Only entries of this session.
    session_id: Option<SessionId>,
}

/// What statistics are wanted.
pub(super) struct Range(pub(super) LedgerStatisticsRequest);

impl FromRequestParts<App> for Range {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let now = Caller::from_request_parts(parts, app).await?.tenant.now();
        read(parts.uri.query().unwrap_or_default(), now).map(Self)
    }
}

fn read(query: &str, now: Timestamp) -> Result<LedgerStatisticsRequest> {
    let (groups, rest): (Vec<_>, Vec<_>) = query::pairs(query)?.into_iter().partition(|(name, _)| name == "group_by");
    let rest = form_urlencoded::Serializer::new(String::new()).extend_pairs(rest).finish();
    let mut params: RangeParams = query::parse(&rest)?;
    if !groups.is_empty() {
        let words = groups.iter().flat_map(|(_, words)| words.split(',')).filter(|word| !word.is_empty());
        let dimensions = words.map(str::parse).collect::<agentkeep_core::Result<_>>();
        params.group_by = Some(dimensions.map_err(by_group)?);
    }
    let mut by = params.group_by.unwrap_or_default();
    if let Some(days) = params.days_back {
        if days > MOST_DAYS {
            return Err(ApiError::invalid("days_back", format!("is {days}; at most {MOST_DAYS} are allowed")));
        }
        if params.from.is_some() || params.to.is_some() {
            return Err(ApiError::invalid("days_back", "cannot be combined with from and to"));
        }
        params.from = Some(now.minus(DAY * days));
        if groups.is_empty() {
            by = vec![LedgerDimension::Scope, LedgerDimension::Provider];
        }
    }
    let RangeParams { from, to, scope, provider, model, agent_id, user_id, session_id, .. } = params;
    let request = LedgerStatisticsRequest { from, to, by, scope, provider, model, agent_id, user_id, session_id };
    request.check().map_err(by_group)?;
    Ok(request)
}

fn by_group(error: agentkeep_core::Error) -> ApiError {
    renamed(error, "by", "group_by")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &str) -> Result<LedgerStatisticsRequest> {
        read(query, Timestamp::from_micros(1_000_000_000_000_000).expect("a time"))
    }

    #[test]
    fn groups_may_be_repeated_or_listed() {
        use LedgerDimension::{Agent, Day, Model};
        let request = request("group_by=day,model&group_by=agent&agent_id=7&scope=reactive").expect("a request");
        assert_eq!(request.by, [Day, Model, Agent]);
        assert_eq!((request.agent_id, request.scope), (Some(AgentId(7)), Some(TokenScope::Reactive)));
    }

    #[test]
    fn days_back_are_grouped_by_scope_and_provider_unless_it_is_said() {
        let week = request("days_back=7").expect("a request");
        assert_eq!(week.by, [LedgerDimension::Scope, LedgerDimension::Provider]);
        assert_eq!(week.from.map(Timestamp::as_micros), Some(1_000_000_000_000_000 - 7 * 86_400_000_000));
        assert_eq!(request("days_back=7&group_by=").expect("a request").by, []);
        assert_eq!(request("").expect("a request").by, []);
    }

    #[test]
    fn what_is_wrong_is_told_by_the_name_of_the_parameter() {
        for (query, field) in [
            ("group_by=week", "group_by"),
            ("group_by=hour,day", "group_by"),
            ("group_by=day&group_by=day", "group_by"),
            ("days_back=-1", "days_back"),
            ("days_back=1&to=2025-01-01T00:00:00Z", "days_back"),
            ("from=2025-01-02T00:00:00Z&to=2025-01-01T00:00:00Z", "to"),
            ("from=yesterday", "from"),
            ("session=x", "session"),
        ] {
            let told = format!("{:?}", request(query).map(|_| ()).expect_err(query));
            assert!(told.contains(&format!("field: \"{field}\"")), "{query}: {told}");
        }
    }
}
