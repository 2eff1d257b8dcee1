//! A price: what one token of a kind costs with a model, from a time to another.

use serde::{Deserialize, Serialize};

use crate::{
    Error, JsonObject, Money, MoneyTotal, PriceId, Result, Timestamp, TokenCounts, TokenKind, limits, present,
};

/// A price.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Price {
    /// Its id.
    pub id: PriceId,
    /// Who runs the model; `None` for whoever has no price of their own.
    pub provider: Option<String>,
    /// The model.
    pub model: String,
    /// The kind of tokens.
    pub kind: TokenKind,
    /// What one token costs.
    pub per_token: Money,
    /// The first time it is valid.
    pub valid_from: Timestamp,
    /// The first time it is valid no longer; `None` while no end is known.
    pub valid_to: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Price {
    /// What a million tokens cost: the usual unit of price lists.
    #[must_use]
    pub fn per_million(&self) -> MoneyTotal {
        self.per_token.for_a_million()
    }

    /// Whether it is valid at that time.
    #[must_use]
    pub fn is_valid_at(&self, time: Timestamp) -> bool {
        self.valid_from <= time && self.valid_to.is_none_or(|end| time < end)
    }
}

/// A price to create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewPrice {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<PriceId>,
    /// Who runs the model; without one it is for whoever has no price of their own.
    #[serde(default)]
    pub provider: Option<String>,
    /// The model.
    pub model: String,
    /// The kind of tokens.
    pub kind: TokenKind,
    /// What one token costs; this or `per_million`.
    #[serde(default)]
    pub per_token: Option<Money>,
    /// What a million tokens cost; this or `per_token`.
    #[serde(default)]
    pub per_million: Option<Money>,
    /// The first time it is valid; now when absent.
    #[serde(default)]
    pub valid_from: Option<Timestamp>,
    /// The first time it is valid no longer.
    #[serde(default)]
    pub valid_to: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewPrice {
    /// The price of a million tokens of a kind, valid from now on for every provider of the model.
    #[must_use]
    pub fn per_million(model: impl Into<String>, kind: TokenKind, price: Money) -> Self {
        Self {
            id: None,
            provider: None,
            model: model.into(),
            kind,
            per_token: None,
            per_million: Some(price),
            valid_from: None,
            valid_to: None,
            metadata: JsonObject::default(),
        }
    }

    /// Refuses empty or overlong texts, and a price that is missing, negative, given twice, or of a million tokens
    /// with more than 6 decimal places.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("model", &self.model)?;
        limits::check_optional_name("provider", self.provider.as_deref())?;
        limits::check_content("metadata", self.metadata.as_str())?;
        self.amount().map(|_| ())
    }

    /// What one token costs.
    ///
    /// # Errors
    /// As [`NewPrice::check`].
    pub fn amount(&self) -> Result<Money> {
        amount(self.per_token, self.per_million)?.ok_or_else(|| Error::invalid("per_million", "a price is missing"))
    }
}

fn amount(per_token: Option<Money>, per_million: Option<Money>) -> Result<Option<Money>> {
    let (field, amount) = match (per_token, per_million) {
        (Some(_), Some(_)) => return Err(Error::invalid("per_million", "cannot be given together with per_token")),
        (Some(price), None) => ("per_token", price),
        (None, Some(price)) => {
            let whole = price.per_million();
            let refuse = || Error::invalid("per_million", format!("{price} USD has more than 6 decimal places"));
            ("per_million", whole.ok_or_else(refuse)?)
        }
        (None, None) => return Ok(None),
    };
    if amount.is_negative() {
        return Err(Error::invalid(field, "must not be negative"));
    }
    Ok(Some(amount))
}

/// Changes of a price; what is `None` stays, `Some(None)` takes the value away. Costs that were computed stay as
/// they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PricePatch {
    /// Another price of one token.
    pub per_token: Option<Money>,
    /// Another price of a million tokens.
    pub per_million: Option<Money>,
    /// Another start.
    pub valid_from: Option<Timestamp>,
    /// Another end.
    #[serde(deserialize_with = "present")]
    pub valid_to: Option<Option<Timestamp>>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl PricePatch {
    /// The new price of one token, if there is one.
    ///
    /// # Errors
    /// [`Error::Invalid`] as [`NewPrice::check`].
    pub fn amount(&self) -> Result<Option<Money>> {
        amount(self.per_token, self.per_million)
    }
}

/// What tokens cost by the prices that are valid at `time`, computed with whole numbers; `None` when a kind that was
/// used has no price.
///
/// A price of the provider comes before one for every provider. A kind without a price costs what the kind it is a
/// part of costs: `cache_read` and `cache_write` as `input`, `reasoning` as `output`.
///
/// # Errors
/// [`Error::Invalid`] when the cost is more than about 9.2 million dollars.
pub fn cost_of(prices: &[Price], provider: &str, tokens: &TokenCounts, time: Timestamp) -> Result<Option<Money>> {
    let find = |kind: TokenKind| {
        let valid = || prices.iter().filter(move |price| price.kind == kind && price.is_valid_at(time));
        let own = valid().find(|price| price.provider.as_deref() == Some(provider));
        own.or_else(|| valid().find(|price| price.provider.is_none())).map(|price| price.per_token)
    };
    let mut cost = MoneyTotal::ZERO;
    for (kind, count) in tokens.each() {
        let whole = match kind {
            TokenKind::CacheRead | TokenKind::CacheWrite => TokenKind::Input,
            TokenKind::Reasoning => TokenKind::Output,
            TokenKind::Input | TokenKind::Output => kind,
        };
        match find(kind).or_else(|| find(whole)) {
            _ if count == 0 => {}
            Some(per_token) => cost += per_token.times(count),
            None => return Ok(None),
        }
    }
    // Without any token and any price nothing is known of what it cost.
    if tokens.total() == 0 && prices.iter().all(|price| !price.is_valid_at(time)) {
        return Ok(None);
    }
    cost.to_money("cost").map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_micros(day * 86_400_000_000).expect("a time")
    }

    fn price(provider: Option<&str>, kind: TokenKind, per_million: &str, from: i64, to: Option<i64>) -> Price {
        Price {
            id: PriceId(uuid::Uuid::nil()),
            provider: provider.map(str::to_owned),
            model: "m".into(),
            kind,
            per_token: per_million.parse::<Money>().expect("dollars").per_million().expect("whole"),
            valid_from: at(from),
            valid_to: to.map(at),
            metadata: JsonObject::default(),
            created_at: at(0),
            updated_at: at(0),
        }
    }

    fn cost(prices: &[Price], provider: &str, tokens: TokenCounts, day: i64) -> Option<String> {
        cost_of(prices, provider, &tokens, at(day)).expect("a cost").map(|cost| cost.to_string())
    }

    #[test]
    fn a_cost_is_exact_and_by_the_price_of_its_time_and_provider() {
        let prices = [
            price(None, TokenKind::Input, "3", 0, Some(10)),
            price(None, TokenKind::Input, "2.50", 10, None),
            price(None, TokenKind::Output, "15", 0, None),
            price(Some("azure"), TokenKind::Input, "4", 0, None),
            price(None, TokenKind::CacheRead, "0.30", 0, None),
        ];
        assert_eq!(cost(&prices, "x", TokenCounts::new(1, 0), 5).as_deref(), Some("0.000003"));
        assert_eq!(cost(&prices, "x", TokenCounts::new(1_000_000, 1_000_000), 10).as_deref(), Some("17.50"));
        assert_eq!(cost(&prices, "azure", TokenCounts::new(1_000_000, 0), 10).as_deref(), Some("4.00"));
        let all = TokenCounts { input: 1, output: 1, cache_read: 1, cache_write: 1, reasoning: 1 };
        // 3 + 15 + 0.30, cache_write as input: 3, reasoning as output: 15.
        assert_eq!(cost(&prices, "x", all, 5).as_deref(), Some("0.0000363"));
    }

    #[test]
    fn without_a_price_the_cost_is_not_known() {
        let prices = [price(None, TokenKind::Input, "3", 5, None)];
        assert_eq!(cost(&prices, "x", TokenCounts::new(1, 0), 4), None);
        assert_eq!(cost(&prices, "x", TokenCounts::new(1, 1), 5), None);
        assert_eq!(cost(&prices, "x", TokenCounts::new(0, 0), 5).as_deref(), Some("0.00"));
        assert_eq!(cost(&[], "x", TokenCounts::new(0, 0), 5), None);
    }

    #[test]
    fn a_price_is_given_once_and_is_not_negative() {
        let new = NewPrice::per_million("m", TokenKind::Input, Money::from_units(3_000_000_000_000));
        assert_eq!(new.amount().expect("an amount"), Money::from_units(3_000_000));
        assert!(NewPrice { per_token: Some(Money::ZERO), ..new.clone() }.check().is_err());
        assert!(NewPrice { per_million: None, ..new.clone() }.check().is_err());
        assert!(NewPrice { per_million: Some(Money::from_units(1)), ..new.clone() }.check().is_err());
        assert!(NewPrice { per_million: Some(Money::from_units(-3_000_000)), ..new }.check().is_err());
    }
}
