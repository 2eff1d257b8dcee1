//! Rows as they were received.

use postgres_protocol::message::backend::RowDescriptionBody;
use tokio_postgres::types::Type;

/// A column that a statement gives.
#[derive(Debug)]
pub(in super::super) struct Column {
    pub(in super::super) name: Box<str>,
    pub(in super::super) ty: Type,
}

/// Where a value lies in the row's body; no place is NULL.
type Span = Option<(u32, u32)>;

/// A row in the buffer that it was received in.
pub(crate) struct Row<'a> {
    columns: &'a [Column],
    body: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Row<'a> {
    /// Column `index`, counted from 0, and its value; `None` when there is no such column.
    #[inline]
    pub(in super::super) fn get(&self, index: usize) -> Option<(&'a Column, Option<&'a [u8]>)> {
        let (column, span) = (self.columns.get(index)?, self.spans.get(index)?);
        // Checked when it was read.
        let value = span.and_then(|(start, end)| self.body.get(start as usize..end as usize));
        Some((column, value))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.columns.iter().map(|column| &*column.name)
    }
}

/// Reads rows, one after another, in the same memory.
#[derive(Default)]
pub(in super::super) struct RowReader(Vec<Span>);

impl RowReader {
    /// A row of these columns; `None` when the body is none.
    pub(in super::super) fn read<'a>(&'a mut self, columns: &'a [Column], body: &'a [u8]) -> Option<Row<'a>> {
        let (count, mut rest) = body.split_first_chunk()?;
        self.0.clear();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, values) = rest.split_first_chunk()?;
            rest = values;
            let length = i32::from_be_bytes(*length);
            let Ok(length) = usize::try_from(length) else {
                self.0.push(None);
                continue;
            };
            let start = body.len() - values.len();
            rest = values.get(length..)?;
            self.0.push(Some((u32::try_from(start).ok()?, u32::try_from(start + length).ok()?)));
        }
        (self.0.len() == columns.len()).then_some(Row { columns, body, spans: &self.0 })
    }
}

/// Names of columns and the numbers of their types.
pub(super) fn described(body: &RowDescriptionBody) -> std::io::Result<Vec<(Box<str>, u32)>> {
    use tokio_postgres::fallible_iterator::FallibleIterator as _;
    body.fields().map(|field| Ok((field.name().into(), field.type_oid()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(count: usize) -> Vec<Column> {
        (0..count).map(|_| Column { name: "c".into(), ty: Type::TEXT }).collect()
    }

    #[test]
    fn values_are_found_where_they_lie_and_null_has_no_place() {
        let body = b"\0\x03\0\0\0\x02ab\xFF\xFF\xFF\xFF\0\0\0\0";
        let (columns, mut reader) = (columns(3), RowReader::default());
        let row = reader.read(&columns, body).expect("a row");
        let values: Vec<_> = (0..4).map(|index| row.get(index).map(|(_, value)| value)).collect();
        assert_eq!(values, [Some(Some(b"ab".as_slice())), Some(None), Some(Some(b"".as_slice())), None]);
    }

    #[test]
    fn a_body_that_ends_early_or_has_other_columns_is_no_row() {
        let mut reader = RowReader::default();
        let mut read = |count, body: &[u8]| reader.read(&columns(count), body).is_some();
        assert!(read(1, b"\0\x01\0\0\0\x01a"));
        for end in 0..7 {
            assert!(!read(1, &b"\0\x01\0\0\0\x01a"[..end]), "{end}");
        }
        assert!(!read(2, b"\0\x01\0\0\0\x01a"));
    }
}
