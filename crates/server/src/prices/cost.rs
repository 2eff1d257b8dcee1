use agentkeep_core::{Money, Timestamp, TokenCounts};
use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{auth::Caller, error::Result, query::Query};

/// Tokens to price.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PricedTokens {
    /// Who runs the model.
    provider: String,
    /// The model.
    model: String,
    /// At which time; now when absent.
    at: Option<Timestamp>,
    /// Sent to the model and not read from its cache.
    #[serde(default)]
    input: i64,
    /// Written by the model, reasoning apart.
    #[serde(default)]
    output: i64,
    /// Sent to the model and read from its cache.
    #[serde(default)]
    cache_read: i64,
    /// Sent to the model and put into its cache.
    #[serde(default)]
    cache_write: i64,
    /// Thought by the model, not shown.
    #[serde(default)]
    reasoning: i64,
}

/// What tokens cost.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenCost {
    /// US dollars; null when a kind that is used has no price then.
    cost: Option<Money>,
}

/// Compute what tokens cost at a time.
#[utoipa::path(get, path = "/prices/cost", tag = "prices", params(PricedTokens),
    responses((status = 200, description = "The cost", body = TokenCost)))]
pub(super) async fn cost(caller: Caller, Query(tokens): Query<PricedTokens>) -> Result<Json<TokenCost>> {
    let PricedTokens { provider, model, at, input, output, cache_read, cache_write, reasoning } = tokens;
    let counts = TokenCounts { input, output, cache_read, cache_write, reasoning };
    counts.check()?;
    let time = at.unwrap_or_else(|| caller.tenant.now());
    Ok(Json(TokenCost { cost: caller.tenant.prices().cost(&provider, &model, &counts, time).await? }))
}
