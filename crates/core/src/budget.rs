//! Budgets: what may be spent in a period, and reservations of it for work that is about to cost.

use serde::{Deserialize, Serialize};

use crate::{
    AgentId, BudgetId, Error, JobId, JsonObject, Money, MoneyTotal, ReservationId, Result, Timestamp, TokenCounts,
    UserId, limits, text_enum,
};

text_enum! {
    /// Whose spending a budget limits.
    BudgetScope, "scope" {
        /// That of everybody in the tenant.
        Tenant = "tenant",
        /// That for one user.
        User = "user",
        /// That of one agent.
        Agent = "agent",
        /// That with one model.
        Model = "model",
    }
}

text_enum! {
    /// After how long a budget begins anew: calendar periods, UTC.
    BudgetPeriod, "period" {
        /// Every full hour.
        Hour = "hour",
        /// Every midnight.
        Day = "day",
        /// Every Monday at midnight.
        Week = "week",
        /// Every first of a month at midnight.
        Month = "month",
        /// Never.
        Total = "total",
    }
}

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
/// 1970-01-05 was the first Monday.
const FIRST_MONDAY: i64 = 4 * DAY;

impl BudgetPeriod {
    /// The start of the period that holds `time`; that of `total` is 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn start(self, time: Timestamp) -> Timestamp {
        let micros = time.as_micros();
        let floor = |unit: i64, first: i64| (micros - first).div_euclid(unit) * unit + first;
        let start = match self {
            Self::Hour => floor(HOUR, 0),
            Self::Day => floor(DAY, 0),
            Self::Week => floor(7 * DAY, FIRST_MONDAY),
            Self::Month => month(micros.div_euclid(DAY)).0 * DAY,
            Self::Total => 0,
        };
        Timestamp::from_micros(start).unwrap_or(Timestamp::MIN)
    }

    /// The start of the period after the one that holds `time`; `None` when there is none.
    #[must_use]
    pub fn end(self, time: Timestamp) -> Option<Timestamp> {
        let start = self.start(time).as_micros();
        let end = match self {
            Self::Hour => start + HOUR,
            Self::Day => start + DAY,
            Self::Week => start + 7 * DAY,
            Self::Month => month(time.as_micros().div_euclid(DAY)).1 * DAY,
            Self::Total => return None,
        };
        Timestamp::from_micros(end).ok()
    }
}

/// The first day of the month that holds a day, and of the next month; days since 1970-01-01. The Gregorian calendar
/// by Howard Hinnant's `civil_from_days` (https://howardhinnant.github.io/date_algorithms.html), whose years begin
/// in March.
fn month(day: i64) -> (i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Counted from March as 0.
    let month = (5 * day_of_year + 2) / 153;
    let first = day - (day_of_year - (153 * month + 2) / 5);
    let year = year_of_era + era * 400 + 1;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 6 | 8 => 30,
        11 if leap => 29,
        11 => 28,
        _ => 31,
    };
    (first, first + length)
}

/// A budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Budget {
    /// Its id.
    pub id: BudgetId,
    /// Name to show.
    pub name: Option<String>,
    /// Whose spending it limits.
    pub scope: BudgetScope,
    /// The user, when it is one's; deleted with them.
    pub user_id: Option<UserId>,
    /// The agent, when it is one's; deleted with it.
    pub agent_id: Option<AgentId>,
    /// The model, when it is one's.
    pub model: Option<String>,
    /// After how long it begins anew.
    pub period: BudgetPeriod,
    /// What may be spent in a period.
    pub limit: Money,
    /// Whether reservations beyond the limit are refused; a soft budget only warns.
    pub hard: bool,
    /// From when on it counts: the start of the period in which it was created.
    pub counts_from: Timestamp,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Budget {
    /// Whether what is spent for this user, by this agent, with this model counts.
    #[must_use]
    pub fn applies_to(&self, user: Option<UserId>, agent: Option<AgentId>, model: Option<&str>) -> bool {
        match self.scope {
            BudgetScope::Tenant => true,
            BudgetScope::User => user.is_some() && self.user_id == user,
            BudgetScope::Agent => agent.is_some() && self.agent_id == agent,
            BudgetScope::Model => model.is_some() && self.model.as_deref() == model,
        }
    }
}

/// A budget to create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewBudget {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<BudgetId>,
    /// Name to show.
    #[serde(default)]
    pub name: Option<String>,
    /// Whose spending it limits.
    pub scope: BudgetScope,
    /// The user, of a budget of scope `user`.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// The agent, of a budget of scope `agent`.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// The model, of a budget of scope `model`.
    #[serde(default)]
    pub model: Option<String>,
    /// After how long it begins anew.
    pub period: BudgetPeriod,
    /// What may be spent in a period; more than 0.
    pub limit: Money,
    /// Whether reservations beyond the limit are refused (the default) or only warned of.
    #[serde(default = "yes")]
    pub hard: bool,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

const fn yes() -> bool {
    true
}

impl NewBudget {
    /// A hard budget of the whole tenant.
    #[must_use]
    pub fn tenant(period: BudgetPeriod, limit: Money) -> Self {
        Self {
            id: None,
            name: None,
            scope: BudgetScope::Tenant,
            user_id: None,
            agent_id: None,
            model: None,
            period,
            limit,
            hard: true,
            metadata: JsonObject::default(),
        }
    }

    /// A hard budget of one user.
    #[must_use]
    pub fn user(user: UserId, period: BudgetPeriod, limit: Money) -> Self {
        Self { scope: BudgetScope::User, user_id: Some(user), ..Self::tenant(period, limit) }
    }

    /// A hard budget of one agent.
    #[must_use]
    pub fn agent(agent: AgentId, period: BudgetPeriod, limit: Money) -> Self {
        Self { scope: BudgetScope::Agent, agent_id: Some(agent), ..Self::tenant(period, limit) }
    }

    /// A hard budget of one model.
    #[must_use]
    pub fn model(model: impl Into<String>, period: BudgetPeriod, limit: Money) -> Self {
        Self { scope: BudgetScope::Model, model: Some(model.into()), ..Self::tenant(period, limit) }
    }

    /// Makes it only warn.
    #[must_use]
    pub fn soft(mut self) -> Self {
        self.hard = false;
        self
    }

    /// Refuses a limit that is not more than 0, a scope without its user, agent or model or with another's, and
    /// empty or overlong texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("name", self.name.as_deref())?;
        limits::check_optional_name("model", self.model.as_deref())?;
        limits::check_content("metadata", self.metadata.as_str())?;
        check_limit(self.limit)?;
        let scope = self.scope;
        for (field, owner, given) in [
            ("user_id", BudgetScope::User, self.user_id.is_some()),
            ("agent_id", BudgetScope::Agent, self.agent_id.is_some()),
            ("model", BudgetScope::Model, self.model.is_some()),
        ] {
            if given != (scope == owner) {
                let reason = if given { "does not belong to" } else { "is needed for" };
                return Err(Error::invalid(field, format!("{reason} a budget of scope {scope}")));
            }
        }
        Ok(())
    }
}

fn check_limit(limit: Money) -> Result<()> {
    if limit > Money::ZERO {
        return Ok(());
    }
    Err(Error::invalid("limit", format!("is {limit} USD; a budget must be more than 0")))
}

/// Changes of a budget; what is `None` stays, `Some(None)` takes the value away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BudgetPatch {
    /// A new name.
    #[serde(deserialize_with = "crate::present")]
    pub name: Option<Option<String>>,
    /// Another limit; more than 0. Below what is spent, it refuses everything until the next period.
    pub limit: Option<Money>,
    /// Whether reservations beyond the limit are refused.
    pub hard: Option<bool>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl BudgetPatch {
    /// Refuses a limit that is not more than 0, and an empty or overlong name.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("name", self.name.as_ref().and_then(Option::as_deref))?;
        self.limit.map_or(Ok(()), check_limit)
    }
}

/// What a budget holds in one of its periods.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BudgetUsage {
    /// The budget.
    pub budget_id: BudgetId,
    /// The start of the period.
    pub starts_at: Timestamp,
    /// The start of the next one; `None` when there is none.
    pub ends_at: Option<Timestamp>,
    /// What may be spent.
    pub limit: Money,
    /// What was spent.
    pub spent: Money,
    /// What reservations hold that are neither settled, released nor expired.
    pub reserved: MoneyTotal,
}

impl BudgetUsage {
    /// What is left to be reserved; negative when more was spent than the limit.
    #[must_use]
    pub fn left(&self) -> MoneyTotal {
        MoneyTotal::from(self.limit) - self.spent.into() - self.reserved
    }
}

/// Why a hard budget did not allow a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BudgetExceeded {
    /// The budget.
    pub budget: BudgetId,
    /// What may be spent in the period.
    pub limit: Money,
    /// What was spent in it.
    pub spent: Money,
    /// What is reserved in it.
    pub reserved: MoneyTotal,
    /// What was asked for.
    pub asked: Money,
    /// When the next period begins; `None` when there is none.
    pub renews_at: Option<Timestamp>,
}

impl std::fmt::Display for BudgetExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { budget, limit, spent, reserved, asked, renews_at } = self;
        write!(
            f,
            "budget {budget} does not allow {asked} USD: of {limit} USD {spent} are spent and {reserved} reserved"
        )?;
        renews_at.map_or(Ok(()), |time| write!(f, "; it begins anew at {time}"))
    }
}

text_enum! {
    /// Where a reservation stands.
    ReservationStatus, "status" {
        /// It holds its amount, until it expires.
        Held = "held",
        /// The work was done: what it cost is spent, the rest given back.
        Settled = "settled",
        /// The work was not done: everything was given back.
        Released = "released",
    }
}

/// A reservation: an amount held in every budget that applies.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// The caller's name for it, unique within the tenant.
    pub key: Option<String>,
    /// The user the work is for.
    pub user_id: Option<UserId>,
    /// The agent that does it.
    pub agent_id: Option<AgentId>,
    /// The model it is done with.
    pub model: Option<String>,
    /// What is held.
    pub amount: Money,
    /// Where it stands. One that is held holds nothing after it has expired.
    pub status: ReservationStatus,
    /// What the work cost; 0 until it is settled.
    pub cost: Money,
    /// When it expires; that of a job does not: it ends with the attempt.
    pub expires_at: Option<Timestamp>,
    /// The job that it was made for when it was claimed. A soft reference.
    pub job_id: Option<JobId>,
    /// The attempt of the job.
    pub job_attempt: Option<i32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A reservation that was made, and the soft budgets that it passes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reserved {
    /// The reservation.
    #[serde(flatten)]
    pub reservation: Reservation,
    /// The soft budgets that it passes, as they are with it.
    pub over: Vec<BudgetUsage>,
}

/// A reservation to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewReservation {
    /// A name for it, unique within the tenant: reserving it again gives the first reservation back.
    #[serde(default)]
    pub key: Option<String>,
    /// What to hold; this or `tokens`.
    #[serde(default)]
    pub amount: Option<Money>,
    /// The tokens that the work will use at most: their cost by the prices of today is held.
    #[serde(default)]
    pub tokens: Option<TokenCounts>,
    /// Who runs the model: for its price.
    #[serde(default)]
    pub provider: Option<String>,
    /// The user the work is for.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// The agent that does it.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// The model it is done with.
    #[serde(default)]
    pub model: Option<String>,
    /// When it expires if nobody settles or releases it; an hour from now when absent.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl NewReservation {
    /// A reservation of an amount, to fill in.
    #[must_use]
    pub fn of(amount: Money) -> Self {
        Self {
            key: None,
            amount: Some(amount),
            tokens: None,
            provider: None,
            user_id: None,
            agent_id: None,
            model: None,
            expires_at: None,
        }
    }

    /// Refuses an amount below 0, none or two of amount and tokens, tokens without their model, and empty or
    /// overlong texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("key", self.key.as_deref())?;
        limits::check_optional_name("provider", self.provider.as_deref())?;
        limits::check_optional_name("model", self.model.as_deref())?;
        match (self.amount, &self.tokens) {
            (Some(_), Some(_)) => Err(Error::invalid("tokens", "cannot be given together with an amount")),
            (None, None) => Err(Error::invalid("amount", "is missing; give an amount, or tokens and their model")),
            (Some(amount), None) if amount.is_negative() => {
                Err(Error::invalid("amount", format!("is {amount} USD; it must not be negative")))
            }
            (None, Some(_)) if self.model.is_none() => Err(Error::invalid("model", "is needed with tokens")),
            (None, Some(tokens)) => tokens.check().map_err(|error| error.at("tokens")),
            (Some(_), None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn periods_are_those_of_the_calendar() {
        for (period, at, start, end) in [
            (BudgetPeriod::Hour, "2025-03-09T23:59:59.999999Z", "2025-03-09T23:00:00Z", "2025-03-10T00:00:00Z"),
            (BudgetPeriod::Day, "2025-03-09T12:00:00Z", "2025-03-09T00:00:00Z", "2025-03-10T00:00:00Z"),
            // A Sunday, and the Monday behind it.
            (BudgetPeriod::Week, "2025-03-09T12:00:00Z", "2025-03-03T00:00:00Z", "2025-03-10T00:00:00Z"),
            (BudgetPeriod::Week, "2025-03-10T00:00:00Z", "2025-03-10T00:00:00Z", "2025-03-17T00:00:00Z"),
            (BudgetPeriod::Week, "1970-01-01T00:00:00Z", "1969-12-29T00:00:00Z", "1970-01-05T00:00:00Z"),
            (BudgetPeriod::Month, "2024-02-29T23:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            (BudgetPeriod::Month, "2025-12-31T00:00:00Z", "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!((period.start(time(at)), period.end(time(at))), (time(start), Some(time(end))), "{period} {at}");
        }
        assert_eq!(BudgetPeriod::Total.end(time("2025-01-01T00:00:00Z")), None);
    }

    #[test]
    fn months_are_those_of_another_calendar() {
        for day in -1_000..60_000_i64 {
            let at = jiff::Timestamp::from_second(day * 86_400).expect("a time").to_zoned(jiff::tz::TimeZone::UTC);
            let (first, next) = month(day);
            let (date, length) = (at.date(), i64::from(at.date().days_in_month()));
            assert_eq!((first, next), (day - i64::from(date.day()) + 1, first + length), "{date}");
        }
    }

    #[test]
    fn a_budget_of_nothing_is_refused() {
        for limit in [Money::ZERO, Money::from_units(-1)] {
            let outcome = NewBudget::tenant(BudgetPeriod::Day, limit).check();
            assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == "limit"), "{outcome:?}");
        }
        let new =
            NewBudget { user_id: None, ..NewBudget::user(UserId(uuid::Uuid::nil()), BudgetPeriod::Day, Money::MAX) };
        assert!(matches!(new.check(), Err(Error::Invalid { field, .. }) if field == "user_id"));
        let new = NewBudget { model: Some("m".into()), ..NewBudget::tenant(BudgetPeriod::Day, Money::MAX) };
        assert!(matches!(new.check(), Err(Error::Invalid { field, .. }) if field == "model"));
    }
}
