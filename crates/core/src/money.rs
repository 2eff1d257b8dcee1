//! Money: whole numbers of 10⁻¹² US dollars, never floating point.
//!
//! A price of one token is some millionths of a dollar; in this unit it is a whole number (3 USD for a million
//! tokens are 3,000,000 units a token), so costs and their sums are exact.

use std::{fmt, iter::Sum, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// Units of [`Money`] in one US dollar.
const UNITS_PER_DOLLAR: u128 = 1_000_000_000_000;
/// Decimal places of a dollar that are kept.
const PLACES: usize = 12;
/// Tokens of the usual unit of a price.
const MILLION: i64 = 1_000_000;

/// An amount of money: a whole number of 10⁻¹² US dollars, up to about 9.2 million dollars either way.
///
/// Written and read as decimal US dollars (`0.000003`), in JSON as a text of that form. Sums of many amounts are a
/// [`MoneyTotal`], which cannot overflow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount: 9,223,372.036854775807 US dollars.
    pub const MAX: Self = Self(i64::MAX);

    /// From units of 10⁻¹² US dollars.
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        Self(units)
    }

    /// Units of 10⁻¹² US dollars.
    #[must_use]
    pub const fn units(self) -> i64 {
        self.0
    }

    /// Whether it is less than nothing.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// The sum; `None` when it is too large for one amount.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` when it is too large for one amount.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// This amount for a million of something, as the amount for one; `None` when that is no whole number of units:
    /// more than 6 decimal places.
    #[must_use]
    pub fn per_million(self) -> Option<Self> {
        (self.0 % MILLION == 0).then_some(Self(self.0 / MILLION))
    }

    /// This amount for one of something, as the amount for a million.
    #[must_use]
    pub fn for_a_million(self) -> MoneyTotal {
        self.times(MILLION)
    }

    /// This amount so many times.
    #[must_use]
    pub fn times(self, count: i64) -> MoneyTotal {
        MoneyTotal(i128::from(self.0) * i128::from(count))
    }
}

/// A sum of amounts: exact, however many there are.
///
/// Written and read like [`Money`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MoneyTotal(i128);

impl MoneyTotal {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From units of 10⁻¹² US dollars.
    #[must_use]
    pub const fn from_units(units: i128) -> Self {
        Self(units)
    }

    /// From the two sums that databases keep, which no number of amounts makes overflow: of their units of 2³² · 10⁻¹²
    /// US dollars, and of what is left of each below that.
    #[must_use]
    pub fn from_halves(high: i64, low: i64) -> Self {
        Self((i128::from(high) << 32) + i128::from(low))
    }

    /// Units of 10⁻¹² US dollars.
    #[must_use]
    pub const fn units(self) -> i128 {
        self.0
    }

    /// As one amount.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `field` when it is more than about 9.2 million dollars.
    pub fn to_money(self, field: &str) -> Result<Money> {
        i64::try_from(self.0).map(Money).map_err(|_| too_large(field, &self.to_string()))
    }
}

impl From<Money> for MoneyTotal {
    fn from(money: Money) -> Self {
        Self(i128::from(money.0))
    }
}

impl std::ops::Add for MoneyTotal {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::AddAssign for MoneyTotal {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl std::ops::Sub for MoneyTotal {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Sum for MoneyTotal {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, |sum, amount| sum + amount)
    }
}

impl Sum<Money> for MoneyTotal {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Self {
        amounts.map(Self::from).sum()
    }
}

fn too_large(field: &str, text: &str) -> Error {
    Error::invalid(field, format!("{text} USD is too large; an amount is at most {} USD", Money::MAX))
}

/// Decimal dollars with two to twelve places.
fn write(units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (whole, rest) = (units.unsigned_abs() / UNITS_PER_DOLLAR, units.unsigned_abs() % UNITS_PER_DOLLAR);
    let rest = format!("{rest:0PLACES$}");
    let places = rest.trim_end_matches('0').len().max(2);
    f.pad_integral(units >= 0, "", &format!("{whole}.{}", &rest[..places]))
}

/// Units from decimal dollars: an optional sign, digits, and at most twelve places.
fn read(text: &str) -> Result<i128> {
    let refuse = |reason: &str| Error::invalid("money", format!("{text:?} {reason}"));
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && places.is_empty()) || !all_digits(whole) || !all_digits(places) {
        return Err(refuse("is no amount of US dollars such as 3 or 0.000003"));
    }
    let places = places.trim_end_matches('0');
    if places.len() > PLACES {
        return Err(refuse("has more than 12 decimal places"));
    }
    let units: i128 = format!("{whole}{places:0<PLACES$}").parse().map_err(|_| refuse("is too large"))?;
    Ok(if negative { -units } else { units })
}

macro_rules! decimal {
    ($name:ident, $from:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(self.0.into(), f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let from: fn(i128, &str) -> Result<Self> = $from;
                from(read(text)?, text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // A number is taken by its digits: it does not become binary on the way.
                let text = match serde_json::Value::deserialize(deserializer)? {
                    serde_json::Value::String(text) => text,
                    serde_json::Value::Number(number) => number.to_string(),
                    other => return Err(serde::de::Error::custom(format!("{other} is no amount of money"))),
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

decimal!(Money, |units, text| i64::try_from(units).map(Money).map_err(|_| too_large("money", text)));
decimal!(MoneyTotal, |units, _| Ok(MoneyTotal(units)));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_written_as_dollars_and_read_back() {
        for (units, text) in [
            (0, "0.00"),
            (1, "0.000000000001"),
            (3_000_000, "0.000003"),
            (-1_500_000_000_000, "-1.50"),
            (1_234_567_000_000_000_000, "1234567.00"),
            (i64::MAX, "9223372.036854775807"),
            (i64::MIN, "-9223372.036854775808"),
        ] {
            assert_eq!(Money(units).to_string(), text);
            assert_eq!(text.parse::<Money>().expect(text), Money(units));
        }
        assert_eq!("+3".parse::<Money>().expect("dollars"), Money(3_000_000_000_000));
        assert_eq!(".5".parse::<Money>().expect("dollars"), Money(500_000_000_000));
        assert_eq!("0.1000000000000000".parse::<Money>().expect("dollars"), Money(100_000_000_000));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", "-", "1e3", "0x1", "1,5", " 1", "1 ", "--1", "1.2.3", "NaN", "0.0000000000001", "9223373"]
        {
            assert!(text.parse::<Money>().is_err(), "{text:?}");
        }
        let error = "99999999".parse::<Money>().expect_err("too large").to_string();
        assert!(error.contains("9223372.036854775807"), "{error}");
        assert!("9".repeat(60).parse::<MoneyTotal>().is_err());
    }

    #[test]
    fn json_holds_text_and_a_number_keeps_its_digits() {
        assert_eq!(serde_json::to_string(&Money(3_000_000)).expect("json"), "\"0.000003\"");
        for text in ["\"0.1\"", "0.1", "0.10"] {
            assert_eq!(serde_json::from_str::<Money>(text).expect(text), Money(100_000_000_000));
        }
        let exact: Money = serde_json::from_str("1234567.123456789012").expect("a number");
        assert_eq!(exact, Money(1_234_567_123_456_789_012));
        assert!(serde_json::from_str::<Money>("true").is_err());
    }

    #[test]
    fn a_price_for_a_million_is_one_for_each_when_it_divides() {
        let price: Money = "0.075".parse().expect("dollars");
        assert_eq!(price.per_million(), Some(Money(75_000)));
        assert_eq!(Money(75_000).for_a_million().to_string(), "0.075");
        assert_eq!(Money(1).per_million(), None);
    }

    #[test]
    fn a_total_holds_more_than_an_amount() {
        let total: MoneyTotal = [Money::MAX; 3].into_iter().sum();
        assert_eq!(total.units(), 3 * i128::from(i64::MAX));
        assert_eq!(total.to_string(), "27670116.110564327421");
        assert!(total.to_money("limit").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(units: i64, more: i64) {
            let total = Money(units).times(more);
            prop_assert_eq!(Money(units).to_string().parse::<Money>().expect("read"), Money(units));
            prop_assert_eq!(total.to_string().parse::<MoneyTotal>().expect("read"), total);
        }
    }
}
