//! Values on their way to PostgreSQL: in the binary format where both sides have the type, as text that the
//! server reads where it may (`Value::Text` for a date, an enum, a vector), else an error that says CAST.

use std::{error::Error as StdError, fmt};

use agentkeep_core::Timestamp;
use bytes::{BufMut as _, BytesMut};
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::{
    super::{
        Value,
        value::{escape_json, escape_text},
    },
    decode::EPOCH,
};

type Failure = Box<dyn StdError + Sync + Send>;

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        if self.is_null() {
            return Ok(IsNull::Yes);
        }
        let ty = base(ty);
        if has_binary(self, ty) {
            binary(self, ty, out)?
        } else {
            text(self, ty, out)?
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, ty: &Type) -> Format {
        if self.is_null() || has_binary(self, base(ty)) { Format::Binary } else { Format::Text }
    }

    to_sql_checked!();
}

/// The type below all domains.
fn base(ty: &Type) -> &Type {
    match ty.kind() {
        Kind::Domain(inner) => base(inner),
        _ => ty,
    }
}

/// Types whose values are their text.
fn is_text(ty: &Type) -> bool {
    matches!(*ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN)
}

fn has_binary(value: &Value, ty: &Type) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => *ty == Type::BOOL,
        Value::I32(_) | Value::I64(_) => {
            matches!(*ty, Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::FLOAT4 | Type::FLOAT8)
        }
        Value::F64(_) => matches!(*ty, Type::FLOAT4 | Type::FLOAT8),
        Value::Text(_) => is_text(ty) || matches!(*ty, Type::JSON | Type::JSONB | Type::UUID),
        Value::Bytes(_) => *ty == Type::BYTEA,
        Value::Uuid(_) => *ty == Type::UUID || is_text(ty),
        Value::Time(_) => matches!(*ty, Type::TIMESTAMPTZ | Type::TIMESTAMP),
        Value::Json(_) => matches!(*ty, Type::JSON | Type::JSONB) || is_text(ty),
    }
}

fn binary(value: &Value, ty: &Type, out: &mut BytesMut) -> Result<(), Failure> {
    match value {
        Value::Null => {}
        Value::Bool(value) => out.put_u8(u8::from(*value)),
        Value::I32(number) => integer(i64::from(*number), ty, out)?,
        Value::I64(number) => integer(*number, ty, out)?,
        Value::F64(number) => float(*number, ty, out),
        Value::Text(text) if *ty == Type::UUID => {
            let id = Uuid::parse_str(text).map_err(|error| unfit(format!("is no UUID: {error}")))?;
            out.put_slice(id.as_bytes());
        }
        Value::Text(text) if matches!(*ty, Type::JSON | Type::JSONB) => json(text, ty, out),
        Value::Text(text) => out.put_slice(escape_text(text).as_bytes()),
        Value::Bytes(bytes) => out.put_slice(bytes),
        Value::Uuid(id) if *ty == Type::UUID => out.put_slice(id.as_bytes()),
        Value::Uuid(id) => out.put_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes()),
        Value::Time(time) => out.put_i64(time.as_micros() - EPOCH),
        Value::Json(value) => json(value.as_str(), ty, out),
    }
    Ok(())
}

fn integer(number: i64, ty: &Type, out: &mut BytesMut) -> Result<(), Failure> {
    let too_large = |_| unfit(format!("{number} does not fit into {}", ty.name()));
    match *ty {
        Type::INT2 => out.put_i16(i16::try_from(number).map_err(too_large)?),
        Type::INT4 => out.put_i32(i32::try_from(number).map_err(too_large)?),
        Type::OID => out.put_u32(u32::try_from(number).map_err(too_large)?),
        Type::FLOAT4 | Type::FLOAT8 => float(number as f64, ty, out),
        _ => out.put_i64(number),
    }
    Ok(())
}

fn float(number: f64, ty: &Type, out: &mut BytesMut) {
    if *ty == Type::FLOAT4 {
        out.put_f32(number as f32);
    } else {
        out.put_f64(number);
    }
}

/// JSON for `jsonb` behind its version byte; for `json` and text to the letter.
fn json(text: &str, ty: &Type, out: &mut BytesMut) {
    if *ty == Type::JSONB {
        out.put_u8(1);
        out.put_slice(escape_json(text).as_bytes());
    } else {
        out.put_slice(text.as_bytes());
    }
}

/// A value in the format people write, for the server to read.
fn text(value: &Value, ty: &Type, out: &mut BytesMut) -> Result<(), Failure> {
    match value {
        Value::Text(text) => out.put_slice(text.as_bytes()),
        Value::I32(number) if *ty == Type::NUMERIC => out.put_slice(number.to_string().as_bytes()),
        Value::I64(number) if *ty == Type::NUMERIC => out.put_slice(number.to_string().as_bytes()),
        Value::F64(number) if *ty == Type::NUMERIC => out.put_slice(number.to_string().as_bytes()),
        other => {
            return Err(unfit(format!("is {other:?} where the statement takes {}; CAST the parameter", ty.name())));
        }
    }
    Ok(())
}

/// A parameter that does not fit its place in the statement; nothing is sent.
fn unfit(reason: String) -> Failure {
    reason.into()
}

/// One column of many rows, bound as an array and written straight into the send buffer.
pub(super) struct ColumnArray<'a> {
    pub(super) rows: &'a [&'a [Value]],
    pub(super) column: usize,
}

impl ColumnArray<'_> {
    fn values(&self) -> impl Iterator<Item = &Value> {
        self.rows.iter().map(|row| row.get(self.column).unwrap_or(&Value::Null))
    }
}

impl ToSql for ColumnArray<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        let element = element_type(ty)?;
        array_header(self.rows.len(), self.values().any(Value::is_null), element, out)?;
        for (index, value) in self.values().enumerate() {
            if value.is_null() {
                out.put_i32(-1);
                continue;
            }
            if !has_binary(value, base(element)) {
                return Err(unfit(format!(
                    "is {value:?} in row {index} where the statement takes {}; CAST the parameter",
                    element.name()
                )));
            }
            let start = out.len();
            out.put_i32(0);
            binary(value, base(element), out)?;
            let length = i32::try_from(out.len() - start - 4)?;
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}

fn element_type(ty: &Type) -> Result<&Type, Failure> {
    match ty.kind() {
        Kind::Array(element) => Ok(element),
        _ => Err(unfit(format!("is an array where the statement takes {}", ty.name()))),
    }
}

fn array_header(length: usize, has_nulls: bool, element: &Type, out: &mut BytesMut) -> Result<(), Failure> {
    if length == 0 {
        out.put_i32(0);
        out.put_i32(0);
        out.put_u32(element.oid());
        return Ok(());
    }
    out.put_i32(1);
    out.put_i32(i32::from(has_nulls));
    out.put_u32(element.oid());
    out.put_i32(i32::try_from(length)?);
    out.put_i32(1);
    Ok(())
}

// What a driver logs of it: never the values.
impl fmt::Debug for ColumnArray<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "array[{}]", self.rows.len())
    }
}

/// The header of an array without NULLs and its elements, each of a fixed length.
fn fixed_array<T>(
    values: &[T],
    ty: &Type,
    length: i32,
    out: &mut BytesMut,
    put: impl Fn(&T, &mut BytesMut),
) -> Result<IsNull, Failure> {
    array_header(values.len(), false, element_type(ty)?, out)?;
    for value in values {
        out.put_i32(length);
        put(value, out);
    }
    Ok(IsNull::No)
}

macro_rules! fixed_arrays {
    ($($(#[$doc:meta])* $name:ident($item:ty) $length:literal $accepts:pat => $put:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name(pub(super) Vec<$item>);

        impl ToSql for $name {
            fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
                fixed_array(&self.0, ty, $length, out, $put)
            }

            fn accepts(ty: &Type) -> bool {
                matches!(*ty, $accepts)
            }

            to_sql_checked!();
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "array[{}]", self.0.len())
            }
        }
    )*};
}

fixed_arrays! {
    /// Numbers bound as `int8[]`.
    NumberArray(i64) 8 Type::INT8_ARRAY => |number, out| out.put_i64(*number);
    /// Ids bound as `uuid[]`.
    UuidArray(Uuid) 16 Type::UUID_ARRAY => |id, out| out.put_slice(id.as_bytes());
    /// Times bound as `timestamptz[]`.
    TimeArray(Timestamp) 8 Type::TIMESTAMPTZ_ARRAY | Type::TIMESTAMP_ARRAY => |time, out| out.put_i64(time.as_micros() - EPOCH);
}
