//! The ledger: what every call of a model used and cost, and statistics of it.

use serde::{Deserialize, Serialize};

use crate::{
    AgentId, Error, JobId, JsonObject, LedgerEntryId, MessageId, Money, MoneyTotal, ReservationId, Result, SessionId,
    Timestamp, UserId, limits, text_enum,
};

/// Most tokens of one kind in an entry: a billion. Sums of more than nine billion such entries fit 64 bits.
pub const MOST_TOKENS: i64 = 1_000_000_000;

text_enum! {
    /// Why tokens were used.
    TokenScope, "scope" {
        /// The agent began by itself.
        Proactive = "proactive",
        /// The agent answered somebody.
        Reactive = "reactive",
    }
}

text_enum! {
    /// What tokens are counted and priced by.
    TokenKind, "kind" {
        /// Sent to the model and not read from its cache.
        Input = "input",
        /// Written by the model, reasoning apart.
        Output = "output",
        /// Sent to the model and read from its cache.
        CacheRead = "cache_read",
        /// Sent to the model and put into its cache.
        CacheWrite = "cache_write",
        /// Thought by the model, not shown.
        Reasoning = "reasoning",
    }
}

/// Tokens of each kind. A token belongs to one kind only: what a provider counts twice (cached tokens within its
/// input, reasoning within its output) is to be taken out of the larger count before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TokenCounts {
    /// Sent to the model and not read from its cache.
    pub input: i64,
    /// Written by the model, reasoning apart.
    pub output: i64,
    /// Sent to the model and read from its cache.
    pub cache_read: i64,
    /// Sent to the model and put into its cache.
    pub cache_write: i64,
    /// Thought by the model, not shown.
    pub reasoning: i64,
}

impl TokenCounts {
    /// Tokens sent and received.
    #[must_use]
    pub const fn new(input: i64, output: i64) -> Self {
        Self { input, output, cache_read: 0, cache_write: 0, reasoning: 0 }
    }

    /// Each kind with its count.
    #[must_use]
    pub const fn each(&self) -> [(TokenKind, i64); 5] {
        [
            (TokenKind::Input, self.input),
            (TokenKind::Output, self.output),
            (TokenKind::CacheRead, self.cache_read),
            (TokenKind::CacheWrite, self.cache_write),
            (TokenKind::Reasoning, self.reasoning),
        ]
    }

    /// The sum of all kinds.
    #[must_use]
    pub const fn total(&self) -> i64 {
        self.input + self.output + self.cache_read + self.cache_write + self.reasoning
    }

    /// Refuses counts below 0 and above a billion.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the kind as field.
    pub fn check(&self) -> Result<()> {
        for (kind, count) in self.each() {
            if !(0..=MOST_TOKENS).contains(&count) {
                return Err(Error::invalid(kind.as_str(), format!("is {count}; tokens are 0 to {MOST_TOKENS}")));
            }
        }
        Ok(())
    }
}

/// An entry of the ledger: one call of a model. It never changes and never goes: the history of cost outlives the
/// agent, user, session, message and job it names, which are soft references.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerEntry {
    /// Its id.
    pub id: LedgerEntryId,
    /// Why the tokens were used.
    pub scope: TokenScope,
    /// Who runs the model.
    pub provider: String,
    /// The model.
    pub model: Option<String>,
    /// Tokens of each kind.
    #[serde(flatten)]
    pub tokens: TokenCounts,
    /// All of them.
    pub total: i64,
    /// What they cost: as given, or by the prices that were valid; `None` when there were none.
    pub cost: Option<Money>,
    /// The agent that called.
    pub agent_id: Option<AgentId>,
    /// The user it was done for.
    pub user_id: Option<UserId>,
    /// The session it belongs to.
    pub session_id: Option<SessionId>,
    /// The message it belongs to.
    pub message_id: Option<MessageId>,
    /// The job it belongs to.
    pub job_id: Option<JobId>,
    /// The reservation of budgets that it settled.
    pub reservation_id: Option<ReservationId>,
    /// The provider's or caller's id of the request, unique within the tenant.
    pub request_id: Option<String>,
    /// What it is to be found by: names and values.
    pub tags: JsonObject,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When the tokens were used.
    pub created_at: Timestamp,
}

/// An entry to log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewLedgerEntry {
    /// Why the tokens were used; `reactive` when absent.
    #[serde(default = "reactive")]
    pub scope: TokenScope,
    /// Who runs the model.
    pub provider: String,
    /// The model.
    #[serde(default)]
    pub model: Option<String>,
    /// Tokens sent to the model and not read from its cache.
    #[serde(default)]
    pub input: i64,
    /// Tokens written by the model, reasoning apart.
    #[serde(default)]
    pub output: i64,
    /// Tokens sent to the model and read from its cache.
    #[serde(default)]
    pub cache_read: i64,
    /// Tokens sent to the model and put into its cache.
    #[serde(default)]
    pub cache_write: i64,
    /// Tokens thought by the model, not shown.
    #[serde(default)]
    pub reasoning: i64,
    /// All tokens; their sum when absent, and refused when it is not.
    #[serde(default)]
    pub total: Option<i64>,
    /// What they cost; computed from the prices valid at that time when absent.
    #[serde(default)]
    pub cost: Option<Money>,
    /// The agent that called.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// The user it was done for.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// The session it belongs to.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    /// The message it belongs to.
    #[serde(default)]
    pub message_id: Option<MessageId>,
    /// The job it belongs to.
    #[serde(default)]
    pub job_id: Option<JobId>,
    /// The reservation of budgets that this entry settles.
    #[serde(default)]
    pub reservation_id: Option<ReservationId>,
    /// The provider's or caller's id of the request: logging it again gives the first entry back.
    #[serde(default)]
    pub request_id: Option<String>,
    /// What it is to be found by: names and values.
    #[serde(default)]
    pub tags: JsonObject,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
    /// When the tokens were used; now when absent.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
}

const fn reactive() -> TokenScope {
    TokenScope::Reactive
}

impl NewLedgerEntry {
    /// Tokens sent to a provider and received from it, to fill in.
    #[must_use]
    pub fn new(scope: TokenScope, provider: impl Into<String>, input: i64, output: i64) -> Self {
        Self {
            scope,
            provider: provider.into(),
            model: None,
            input,
            output,
            cache_read: 0,
            cache_write: 0,
            reasoning: 0,
            total: None,
            cost: None,
            agent_id: None,
            user_id: None,
            session_id: None,
            message_id: None,
            job_id: None,
            reservation_id: None,
            request_id: None,
            tags: JsonObject::default(),
            metadata: JsonObject::default(),
            created_at: None,
        }
    }

    /// Tokens of each kind.
    #[must_use]
    pub const fn tokens(&self) -> TokenCounts {
        TokenCounts {
            input: self.input,
            output: self.output,
            cache_read: self.cache_read,
            cache_write: self.cache_write,
            reasoning: self.reasoning,
        }
    }

    /// Refuses counts below 0 or above a billion, a total that is not their sum, a negative cost, a time before
    /// 1970, and empty or overlong texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("provider", &self.provider)?;
        limits::check_optional_name("model", self.model.as_deref())?;
        limits::check_optional_name("request_id", self.request_id.as_deref())?;
        limits::check_content("tags", self.tags.as_str())?;
        limits::check_content("metadata", self.metadata.as_str())?;
        let tokens = self.tokens();
        tokens.check()?;
        if let Some(total) = self.total
            && total != tokens.total()
        {
            let reason = format!(
                "is {total}, but the kinds add up to {}: leave it out, and count each token in one kind only",
                tokens.total()
            );
            return Err(Error::invalid("total", reason));
        }
        if let Some(cost) = self.cost
            && cost.is_negative()
        {
            return Err(Error::invalid("cost", format!("is {cost} USD; it must not be negative")));
        }
        match self.created_at {
            Some(time) if time.as_micros() < 0 => {
                Err(Error::invalid("created_at", format!("{time} lies before 1970-01-01T00:00:00Z")))
            }
            _ => Ok(()),
        }
    }
}

text_enum! {
    /// What statistics are grouped by.
    LedgerDimension, "by" {
        /// The hour, UTC.
        Hour = "hour",
        /// The day, UTC.
        Day = "day",
        /// Proactive or reactive.
        Scope = "scope",
        /// Who runs the model.
        Provider = "provider",
        /// The model.
        Model = "model",
        /// The agent.
        Agent = "agent",
        /// The user.
        User = "user",
        /// The session.
        Session = "session",
    }
}

/// What statistics are wanted: a range of time, what to group by, and which entries count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LedgerStatisticsRequest {
    /// The first time that counts; from the first entry when absent.
    pub from: Option<Timestamp>,
    /// The first time that counts no longer; to the last entry when absent.
    pub to: Option<Timestamp>,
    /// What to group by; nothing gives one group.
    pub by: Vec<LedgerDimension>,
    /// Only entries of this scope.
    pub scope: Option<TokenScope>,
    /// Only entries of this provider.
    pub provider: Option<String>,
    /// Only entries of this model.
    pub model: Option<String>,
    /// Only entries of this agent.
    pub agent_id: Option<AgentId>,
    /// Only entries of this user.
    pub user_id: Option<UserId>,
    /// Only entries of this session.
    pub session_id: Option<SessionId>,
}

impl LedgerStatisticsRequest {
    /// Statistics of everything, grouped by this.
    #[must_use]
    pub fn by(by: &[LedgerDimension]) -> Self {
        Self { by: by.to_vec(), ..Self::default() }
    }

    /// Only entries from that time on.
    #[must_use]
    pub fn from(mut self, from: Timestamp) -> Self {
        self.from = Some(from);
        self
    }

    /// Only entries before that time.
    #[must_use]
    pub fn to(mut self, to: Timestamp) -> Self {
        self.to = Some(to);
        self
    }

    /// Refuses a range that ends before it begins, a dimension named twice, and hour together with day.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && to < from
        {
            return Err(Error::invalid("to", format!("{to} lies before from, {from}")));
        }
        for (index, dimension) in self.by.iter().enumerate() {
            if self.by[..index].contains(dimension) {
                return Err(Error::invalid("by", format!("{dimension} is named twice")));
            }
        }
        if self.by.contains(&LedgerDimension::Hour) && self.by.contains(&LedgerDimension::Day) {
            return Err(Error::invalid("by", "hour and day cannot be combined: an hour has its day"));
        }
        Ok(())
    }

    /// Whether groups are formed by that.
    #[must_use]
    pub fn has(&self, dimension: LedgerDimension) -> bool {
        self.by.contains(&dimension)
    }
}

/// What the entries of a group amount to. Of what groups are formed by, what was not asked for is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerStatistics {
    /// The start of the hour or day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// Proactive or reactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<TokenScope>,
    /// Who runs the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model; `None` also for entries without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The agent; `None` also for entries without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The user; `None` also for entries without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The session; `None` also for entries without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Entries.
    pub entries: i64,
    /// The sums of the tokens of each kind.
    #[serde(flatten)]
    pub tokens: TokenCounts,
    /// All tokens.
    pub total: i64,
    /// What they cost.
    pub cost: MoneyTotal,
    /// Entries whose cost is not known: no price was valid. They count nothing in `cost`.
    pub unpriced: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> NewLedgerEntry {
        NewLedgerEntry::new(TokenScope::Reactive, "anthropic", 100, 50)
    }

    #[test]
    fn a_total_is_the_sum_of_its_kinds_or_refused() {
        assert!(NewLedgerEntry { total: Some(150), ..entry() }.check().is_ok());
        let error = NewLedgerEntry { total: Some(149), ..entry() }.check().expect_err("no sum").to_string();
        assert!(error.starts_with("total: is 149, but the kinds add up to 150"), "{error}");
    }

    #[test]
    fn bad_entries_are_refused_by_field() {
        let before_1970 = Timestamp::from_micros(-1).expect("a time");
        for (bad, field) in [
            (NewLedgerEntry { input: -1, ..entry() }, "input"),
            (NewLedgerEntry { reasoning: MOST_TOKENS + 1, ..entry() }, "reasoning"),
            (NewLedgerEntry { cost: Some(Money::from_units(-1)), ..entry() }, "cost"),
            (NewLedgerEntry { provider: " ".into(), ..entry() }, "provider"),
            (NewLedgerEntry { created_at: Some(before_1970), ..entry() }, "created_at"),
        ] {
            let outcome = bad.check();
            assert!(matches!(&outcome, Err(Error::Invalid { field: told, .. }) if told == field), "{outcome:?}");
        }
    }
}
