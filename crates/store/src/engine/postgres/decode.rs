//! Columns as PostgreSQL sends them, in its binary format, without a copy where the type allows it.

use std::fmt::Write as _;

use agentkeep_core::Timestamp;
use tokio_postgres::types::{Kind, Type};
use uuid::Uuid;

use super::{
    super::{ColumnRef, FromColumn},
    wire::Row,
};

/// 2000-01-01T00:00:00Z, from where PostgreSQL counts, in microseconds since 1970.
pub(super) const EPOCH: i64 = 946_684_800_000_000;

/// Column `index` of a row, counted from 0, as what it becomes; `None` when it cannot.
///
/// A column is decoded where its value is wanted: on the way through a [`ColumnRef`] in memory each of them would be
/// written in parts and read as a whole, for which the processor waits, and a conversation has hundreds of them.
#[inline]
pub(in super::super) fn value<T: FromColumn>(row: &Row<'_>, index: usize) -> Option<T> {
    match row.get(index)? {
        (_, None) => T::from_column(ColumnRef::Null).ok(),
        (column, Some(raw)) => T::from_column(decode(&column.ty, raw)).ok(),
    }
}

/// Column `index` of a row, counted from 0, to say what is wrong with it; [`ColumnRef::Broken`] when there is none, or
/// when its type has no counterpart.
pub(in super::super) fn column<'a>(row: &Row<'a>, index: usize) -> ColumnRef<'a> {
    match row.get(index) {
        None => ColumnRef::Broken("there is no such column"),
        Some((_, None)) => ColumnRef::Null,
        Some((column, Some(raw))) => decode(&column.ty, raw),
    }
}

/// Name and type of a column, for an error.
pub(in super::super) fn title(row: &Row<'_>, index: usize) -> Option<String> {
    row.get(index).map(|(column, _)| format!("{}, {}", column.name, column.ty.name()))
}

#[inline]
fn decode<'a>(ty: &Type, raw: &'a [u8]) -> ColumnRef<'a> {
    const TOO_SHORT: ColumnRef<'static> = ColumnRef::Broken("the server sent too few or too many bytes");

    fn number<'a, const N: usize>(raw: &'a [u8], make: impl FnOnce([u8; N]) -> ColumnRef<'a>) -> ColumnRef<'a> {
        raw.try_into().map_or(TOO_SHORT, make)
    }
    fn text<'a>(raw: &'a [u8], make: impl FnOnce(&'a str) -> ColumnRef<'a>) -> ColumnRef<'a> {
        std::str::from_utf8(raw).map_or(ColumnRef::Broken("the server sent text that is not UTF-8"), make)
    }

    match *ty {
        Type::BOOL => number(raw, |[byte]| ColumnRef::Bool(byte != 0)),
        Type::INT2 => number(raw, |bytes| ColumnRef::Int(i16::from_be_bytes(bytes).into())),
        Type::INT4 => number(raw, |bytes| ColumnRef::Int(i32::from_be_bytes(bytes).into())),
        Type::INT8 => number(raw, |bytes| ColumnRef::Int(i64::from_be_bytes(bytes))),
        Type::OID => number(raw, |bytes| ColumnRef::Int(u32::from_be_bytes(bytes).into())),
        Type::FLOAT4 => number(raw, |bytes| ColumnRef::Float(f32::from_be_bytes(bytes).into())),
        Type::FLOAT8 => number(raw, |bytes| ColumnRef::Float(f64::from_be_bytes(bytes))),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            text(raw, ColumnRef::Text)
        }
        Type::JSONB => match raw.split_first() {
            Some((1, json)) => text(json, ColumnRef::Jsonb),
            _ => ColumnRef::Broken("the server sent jsonb of an unknown version"),
        },
        Type::BYTEA => ColumnRef::Bytes(raw),
        Type::UUID => number(raw, |bytes| ColumnRef::Uuid(Uuid::from_bytes(bytes))),
        Type::TIMESTAMPTZ | Type::TIMESTAMP => number(raw, |bytes| time(i64::from_be_bytes(bytes))),
        Type::NUMERIC => {
            Numeric::new(raw).map_or(ColumnRef::Broken("the server sent a malformed numeric"), ColumnRef::Numeric)
        }
        // What a function that gives nothing gives: `SELECT pg_notify(…)`.
        Type::VOID => ColumnRef::Null,
        _ if let Kind::Domain(base) = ty.kind() => decode(base, raw),
        _ => ColumnRef::Broken("its type has no counterpart here; CAST it to text in the statement"),
    }
}

fn time<'a>(since_2000: i64) -> ColumnRef<'a> {
    if matches!(since_2000, i64::MIN | i64::MAX) {
        return ColumnRef::Broken("infinity is no point in time; CAST it to text in the statement");
    }
    let time = since_2000.checked_add(EPOCH).and_then(|micros| Timestamp::from_micros(micros).ok());
    time.map_or(ColumnRef::Broken("the time lies outside the years 0001 to 9999"), ColumnRef::Time)
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
    /// `None` when it is malformed.
    fn new(raw: &'a [u8]) -> Option<Self> {
        let word = |at: usize| raw.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let (count, weight, sign, scale) = (word(0)?, word(2)?, word(4)?, word(6)?);
        let groups = raw.get(8..8 + 2 * usize::from(count))?;
        Some(Self { groups, weight: weight.cast_signed(), sign, scale })
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
        let broken = |ty, raw: &[u8]| match decode(&ty, raw) {
            ColumnRef::Broken(why) => why,
            column => panic!("{column:?}"),
        };
        assert!(broken(Type::TIMESTAMPTZ, &i64::MAX.to_be_bytes()).contains("CAST"));
        assert!(broken(Type::DATE, &[0; 4]).contains("CAST"));
        assert!(broken(Type::INT8, &[0; 4]).contains("too few"));
        assert!(broken(Type::TEXT, &[0xFF]).contains("UTF-8"));
    }
}
