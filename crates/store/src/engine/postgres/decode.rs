//! Columns as PostgreSQL sends them, in its binary format, without a copy where the type allows it.

use std::fmt::Write as _;

use agentkeep_core::{Error, Result, Timestamp};
use tokio_postgres::types::{FromSql, Kind, Type};
use uuid::Uuid;

use super::super::ColumnRef;

type Failure = Box<dyn std::error::Error + Sync + Send>;

/// 2000-01-01T00:00:00Z, from where PostgreSQL counts, in microseconds since 1970.
pub(super) const EPOCH: i64 = 946_684_800_000_000;

/// Column `index` of a row, counted from 0.
///
/// # Errors
/// [`Error::Database`] for a type without a counterpart: the statement has to CAST it.
pub(in super::super) fn column(row: &tokio_postgres::Row, index: usize) -> Result<ColumnRef<'_>> {
    row.try_get::<_, Column<'_>>(index).map(|column| column.0).map_err(|error| {
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        match row.columns().get(index) {
            Some(column) => Error::database(format!("column {index} ({}): {reason}", column.name())),
            None => Error::database(format!("there is no column {index}: the row has {}", row.len())),
        }
    })
}

/// A [`ColumnRef`] that the driver may decode.
struct Column<'a>(ColumnRef<'a>);

impl<'a> FromSql<'a> for Column<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        decode(ty, raw).map(Self)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failure> {
        Ok(Self(ColumnRef::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn decode<'a>(ty: &Type, raw: &'a [u8]) -> Result<ColumnRef<'a>, Failure> {
    Ok(match *ty {
        Type::BOOL => ColumnRef::Bool(bool::from_sql(ty, raw)?),
        Type::INT2 => ColumnRef::Int(i16::from_sql(ty, raw)?.into()),
        Type::INT4 => ColumnRef::Int(i32::from_sql(ty, raw)?.into()),
        Type::INT8 => ColumnRef::Int(i64::from_sql(ty, raw)?),
        Type::OID => ColumnRef::Int(u32::from_sql(ty, raw)?.into()),
        Type::FLOAT4 => ColumnRef::Float(f32::from_sql(ty, raw)?.into()),
        Type::FLOAT8 => ColumnRef::Float(f64::from_sql(ty, raw)?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            ColumnRef::Text(std::str::from_utf8(raw)?)
        }
        Type::JSONB => match raw.split_first() {
            Some((1, text)) => ColumnRef::Jsonb(std::str::from_utf8(text)?),
            _ => return Err("the server sent jsonb of an unknown version".into()),
        },
        Type::BYTEA => ColumnRef::Bytes(raw),
        Type::UUID => ColumnRef::Uuid(Uuid::from_slice(raw)?),
        Type::TIMESTAMPTZ | Type::TIMESTAMP => ColumnRef::Time(time(i64::from_sql(ty, raw)?)?),
        Type::NUMERIC => ColumnRef::Numeric(Numeric::new(raw)?),
        // What a function that gives nothing gives: `SELECT pg_notify(…)`.
        Type::VOID => ColumnRef::Null,
        _ if let Kind::Domain(base) = ty.kind() => return decode(base, raw),
        _ => return Err(format!("type {} has no counterpart here; CAST it to text in the statement", ty.name()).into()),
    })
}

fn time(since_2000: i64) -> Result<Timestamp, Failure> {
    if matches!(since_2000, i64::MIN | i64::MAX) {
        return Err("infinity is no point in time; CAST it to text in the statement".into());
    }
    let micros = since_2000.checked_add(EPOCH).ok_or("the time lies outside the years 0001 to 9999")?;
    Timestamp::from_micros(micros).map_err(|error| error.to_string().into())
}

/// A `numeric` as the server sends it: groups of four decimal digits.
#[derive(Clone, Copy)]
pub(crate) struct Numeric<'a> {
    groups: &'a [u8],
    weight: i16,
    sign: u16,
    scale: u16,
}

const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xC000;
const INFINITE: u16 = 0xD000;
const MINUS_INFINITE: u16 = 0xF000;

impl<'a> Numeric<'a> {
    fn new(raw: &'a [u8]) -> Result<Self, Failure> {
        let word = |at: usize| raw.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let malformed = || Failure::from("the server sent a malformed numeric");
        let (Some(count), Some(weight), Some(sign), Some(scale)) = (word(0), word(2), word(4), word(6)) else {
            return Err(malformed());
        };
        let groups = raw.get(8..8 + 2 * usize::from(count)).ok_or_else(malformed)?;
        Ok(Self { groups, weight: weight.cast_signed(), sign, scale })
    }

    fn group(&self, index: i32) -> u16 {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.groups.get(2 * index..2 * index + 2))
            .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

/// The exact decimal text, as the server itself would write it.
impl std::fmt::Display for Numeric<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.sign {
            NOT_A_NUMBER => return f.write_str("NaN"),
            INFINITE => return f.write_str("Infinity"),
            MINUS_INFINITE => return f.write_str("-Infinity"),
            NEGATIVE => f.write_char('-')?,
            _ => {}
        }
        let weight = i32::from(self.weight);
        write!(f, "{}", if weight < 0 { 0 } else { self.group(0) })?;
        for index in 1..=weight {
            write!(f, "{:04}", self.group(index))?;
        }
        let mut missing = usize::from(self.scale);
        if missing > 0 {
            f.write_char('.')?;
        }
        let mut index = weight + 1;
        while missing > 0 {
            let digits = format!("{:04}", if index < 0 { 0 } else { self.group(index) });
            let taken = missing.min(4);
            f.write_str(&digits[..taken])?;
            missing -= taken;
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(groups: &[u16], weight: i16, sign: u16, scale: u16) -> String {
        let mut raw = Vec::new();
        for word in [u16::try_from(groups.len()).expect("few"), weight.cast_unsigned(), sign, scale] {
            raw.extend_from_slice(&word.to_be_bytes());
        }
        groups.iter().for_each(|group| raw.extend_from_slice(&group.to_be_bytes()));
        Numeric::new(&raw).expect("well formed").to_string()
    }

    #[test]
    fn a_numeric_keeps_every_digit() {
        assert_eq!(numeric(&[], 0, 0, 0), "0");
        assert_eq!(numeric(&[], 0, 0, 2), "0.00");
        assert_eq!(numeric(&[1, 2345], 1, NEGATIVE, 0), "-12345");
        assert_eq!(numeric(&[1], 2, 0, 1), "100000000.0");
        assert_eq!(numeric(&[12, 3400], 0, 0, 2), "12.34");
        assert_eq!(numeric(&[5], -2, 0, 8), "0.00000005");
        assert_eq!(numeric(&[], 0, NOT_A_NUMBER, 0), "NaN");
    }

    #[test]
    fn infinity_and_unknown_types_are_errors_that_say_what_to_do() {
        let error = decode(&Type::TIMESTAMPTZ, &i64::MAX.to_be_bytes()).expect_err("infinity");
        assert!(error.to_string().contains("CAST"), "{error}");
        let error = decode(&Type::DATE, &[0; 4]).expect_err("a date");
        assert!(error.to_string().contains("type date"), "{error}");
    }
}
