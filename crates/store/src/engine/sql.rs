//! Statements: one text for both engines, or one for each where they must differ.

use std::{borrow::Cow, fmt, sync::OnceLock};

use agentkeep_core::{Error, Result};

use super::Value;

/// Which engine a text is for. Handed to code that assembles statements, so that it can pick fragments
/// without knowing what there is to pick from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// The text of this engine: for fragments of assembled statements.
    pub(crate) fn pick<T>(self, postgres: T, sqlite: T) -> T {
        match self {
            Self::Postgres => postgres,
            Self::Sqlite => sqlite,
        }
    }
}

/// A statement with parameters `$1`, `$2` … in any order, each as often as needed.
pub struct Sql {
    texts: Texts,
    /// Bounded work on few rows: may run on the caller's thread (SQLite) or share a connection with other
    /// statements (PostgreSQL).
    short: bool,
    sqlite_ready: OnceLock<String>,
}

enum Texts {
    Both(Cow<'static, str>),
    PerEngine { postgres: &'static str, sqlite: &'static str },
}

impl Sql {
    /// One text for both engines.
    #[must_use]
    pub const fn both(text: &'static str) -> Self {
        Self::new(Texts::Both(Cow::Borrowed(text)))
    }

    /// A text for each engine. Say in a comment why they must differ.
    #[must_use]
    pub const fn per_engine(postgres: &'static str, sqlite: &'static str) -> Self {
        Self::new(Texts::PerEngine { postgres, sqlite })
    }

    /// A text made at run time, for the engine it will run on.
    #[must_use]
    pub fn assembled(text: impl Into<String>) -> Self {
        Self::new(Texts::Both(Cow::Owned(text.into())))
    }

    /// A statement of a user's own. One that opens or ends transactions would reach a connection that others
    /// share.
    ///
    /// # Errors
    /// [`Error::Invalid`] for BEGIN, COMMIT and their like.
    pub(crate) fn raw(text: &str) -> Result<Self> {
        if let Some(word) = control_word(text) {
            let reason = format!("{word} reaches a shared connection; open a transaction with begin()");
            return Err(Error::invalid("sql", reason));
        }
        Ok(Self::assembled(text))
    }

    /// As [`Sql::raw`], inside a transaction: savepoints are allowed there.
    ///
    /// # Errors
    /// As [`Sql::raw`].
    pub(crate) fn raw_in_transaction(text: &str) -> Result<Self> {
        match control_word(text) {
            Some("SAVEPOINT" | "RELEASE" | "ROLLBACK TO") | None => Ok(Self::assembled(text)),
            Some(word) => Err(Error::invalid("sql", format!("{word} is for commit() and rollback() to say"))),
        }
    }

    const fn new(texts: Texts) -> Self {
        Self { texts, short: false, sqlite_ready: OnceLock::new() }
    }

    /// Marks a read as short: it finds its few rows by an index, whatever the size of the table.
    #[must_use]
    pub const fn short(mut self) -> Self {
        self.short = true;
        self
    }

    pub(super) const fn is_short(&self) -> bool {
        self.short
    }

    /// The text for PostgreSQL.
    pub(super) fn postgres(&self) -> &str {
        match &self.texts {
            Texts::Both(text) => text,
            Texts::PerEngine { postgres, .. } => postgres,
        }
    }

    /// The text for SQLite, with `?n` in place of `$n`: SQLite takes `$1` for a *name* and numbers names by
    /// their first appearance, so `$2 … $1` would bind wrongly in silence.
    pub(super) fn sqlite(&self) -> &str {
        self.sqlite_ready.get_or_init(|| {
            number_parameters(match &self.texts {
                Texts::Both(text) => text,
                Texts::PerEngine { sqlite, .. } => sqlite,
            })
        })
    }
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.postgres())
    }
}

/// The word that makes a statement one of transaction control, if it does.
fn control_word(text: &str) -> Option<&'static str> {
    // PostgreSQL's comments nest, SQLite's do not: what either of them would run counts.
    [true, false].into_iter().find_map(|nested| {
        let statement = without_blanks(text, nested);
        let mut words = statement.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
        let first = words.next().unwrap_or_default();
        let known = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"];
        let word = known.into_iter().find(|word| first.eq_ignore_ascii_case(word))?;
        let to = word == "ROLLBACK" && words.any(|word| word.eq_ignore_ascii_case("TO"));
        Some(if to { "ROLLBACK TO" } else { word })
    })
}

/// A statement from its first word on: without the blanks, comments and empty statements before it.
fn without_blanks(text: &str, nested: bool) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|character: char| character.is_whitespace() || character == ';');
        if rest.starts_with("--") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = &rest[comment_length(rest, nested)..];
        } else {
            return rest;
        }
    }
}

fn comment_length(text: &str, nested: bool) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        let Some(end) = text[at..].find("*/") else { return text.len() };
        let opened = if nested { text[at..at + end].matches("/*").count() } else { 0 };
        depth = depth + opened - 1;
        at += end + 2;
    }
    at
}

/// Rewrites `$n` to `?n` outside of quotes and comments.
fn number_parameters(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut numbered = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        let skip_to = |end: Option<usize>| end.map_or(bytes.len(), |end| end + 1);
        match bytes[at] {
            quote @ (b'\'' | b'"' | b'`') => at = skip_to(find(bytes, at + 1, &[quote])),
            b'-' if bytes[at..].starts_with(b"--") => at = skip_to(find(bytes, at, b"\n")),
            b'/' if bytes[at..].starts_with(b"/*") => at = skip_to(find(bytes, at + 2, b"*/").map(|end| end + 1)),
            b'$' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                numbered.push_str(&text[copied..at]);
                numbered.push('?');
                at += 1;
                copied = at;
            }
            _ => at += 1,
        }
    }
    numbered.push_str(&text[copied..]);
    numbered
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    bytes.get(from..).and_then(|rest| memchr::memmem::find(rest, needle)).map(|found| from + found)
}

/// A statement that appends rows to counted parents, taking the next number of the parent's counter for
/// each row: the shape of a message appended to its session.
///
/// Rows that wait are written together, so PostgreSQL has one statement for many rows; SQLite has one that moves a
/// parent's counter and one that inserts a row. They differ by necessity: unnest and data-modifying CTEs exist on
/// PostgreSQL only.
#[derive(Debug)]
pub(crate) struct AppendSql {
    /// Parameters: `$1` tenant, `$2` uuid[] the distinct parents, `$3` int8[] how many rows each gets, `$4`
    /// timestamptz[] the latest time of its rows, `$5` int8[] the place of each row among those of its
    /// parent from 1, `$6 …` one array for each column of the rows, the parent's id first and the time
    /// second. Returns a row (parent, number before its first row) for each parent that exists.
    pub postgres: Sql,
    /// The same for rows that are empty from column `plain_columns` on, as most are: PostgreSQL spends a good part
    /// of such a statement on arrays of nothing.
    pub postgres_plain: Sql,
    /// How many columns of a row `postgres_plain` takes.
    pub plain_columns: usize,
    /// The same for a lone row, which waits for nobody and should not pay for arrays. Parameters: `$1` tenant,
    /// `$2 …` its columns. Returns the same.
    pub postgres_one: Sql,
    /// The same for a lone row that is empty from column `plain_columns` on.
    pub postgres_one_plain: Sql,
    /// Parameters: `$1` tenant, `$2` the parent, `$3` how many rows it gets, `$4` the latest time of its rows.
    /// Moves the counter of the parent on, and gives `agentkeep_note` what it was before. May do without the time.
    pub sqlite_count: Sql,
    /// Parameters: `$1` tenant, `$2` the number of the row, `$3 …` its columns. Inserts it.
    pub sqlite_insert: Sql,
}

/// PostgreSQL's statement for some rows.
#[derive(Clone, Copy)]
pub(super) enum PostgresAppend<'a> {
    /// The first columns of one row, as many as told, as they are.
    One(&'a Sql, usize),
    /// Arrays of the first columns of the rows, as many as told.
    Arrays(&'a Sql, usize),
}

impl PostgresAppend<'_> {
    pub(super) fn text(&self) -> &str {
        let (Self::One(sql, _) | Self::Arrays(sql, _)) = self;
        sql.postgres()
    }
}

impl AppendSql {
    /// The statements that an engine runs for it.
    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn statements(&self, dialect: Dialect) -> Vec<&Sql> {
        dialect.pick(
            vec![&self.postgres, &self.postgres_plain, &self.postgres_one, &self.postgres_one_plain],
            vec![&self.sqlite_count, &self.sqlite_insert],
        )
    }

    /// PostgreSQL's statement for those rows.
    pub(super) fn postgres_for(&self, rows: &[&[Value]]) -> PostgresAppend<'_> {
        let is_plain = |row: &&[Value]| row.iter().skip(self.plain_columns).all(|value| matches!(value, Value::Null));
        let columns = || rows.first().map_or(0, |row| row.len());
        match (rows, rows.iter().all(is_plain)) {
            ([_], true) => PostgresAppend::One(&self.postgres_one_plain, self.plain_columns),
            ([_], false) => PostgresAppend::One(&self.postgres_one, columns()),
            (_, true) => PostgresAppend::Arrays(&self.postgres_plain, self.plain_columns),
            (_, false) => PostgresAppend::Arrays(&self.postgres, columns()),
        }
    }
}

/// A statement about many rows at once: one on PostgreSQL, where each statement costs a round trip and a plan; one
/// for each row on SQLite, where a prepared statement costs next to nothing and there are no arrays.
#[derive(Debug)]
pub(crate) struct BatchSql {
    /// Parameters: the fixed ones, then one array for each column of the rows.
    pub postgres: Sql,
    pub sqlite: RowSql,
}

/// What SQLite does for the rows of a batch, all of it in one transaction.
#[derive(Debug)]
pub(crate) struct RowSql {
    /// Runs once for each row. Parameters: the fixed ones, then the columns of the row.
    pub each: Sql,
    pub then: Then,
    /// Run, with the same parameters, wherever a row came out. What reads and what writes are two statements: a
    /// RETURNING makes SQLite open a temporary table for each row.
    pub writes: [Option<Sql>; 2],
    pub last: Last,
}

/// What SQLite does with what came of a row.
#[derive(Debug)]
pub(crate) enum Then {
    Nothing,
    /// Runs once for each row that `each` gave; what it gives comes out. Parameters: the fixed ones, then the columns
    /// of that row.
    Each(Sql),
    /// `each` reads a list from its front; a row whose first column is NULL was in it in vain and does not come out.
    /// Neither does one whose first column, an id, came out before. Both run once behind that and take what was read from
    /// the list: what was read as a whole, and a part of the last. Parameters: the fixed ones, the columns of the row,
    /// then the last columns of the last row that was read, as many as the text has room for: its place.
    /// The writes run for each row that came out, with its first column in place of the row.
    TakeThrough(Sql, Sql),
}

/// What SQLite does about all rows that came out of a batch.
#[derive(Debug)]
pub(crate) enum Last {
    Nothing,
    /// Runs once if there are any. Parameters: the fixed ones, how many they are, and their first columns (ids) as
    /// one row of bytes.
    Together(Sql),
    /// Runs once for each value of their second column but NULL. Parameters: the fixed ones, the value, and how many
    /// have it.
    Grouped(Sql),
}

impl BatchSql {
    /// The statements that an engine runs for it.
    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn statements(&self, dialect: Dialect) -> Vec<&Sql> {
        if dialect == Dialect::Postgres {
            return vec![&self.postgres];
        }
        let last = match &self.sqlite.last {
            Last::Nothing => None,
            Last::Together(last) | Last::Grouped(last) => Some(last),
        };
        let (then, part) = match &self.sqlite.then {
            Then::Nothing => (None, None),
            Then::Each(then) => (Some(then), None),
            Then::TakeThrough(whole, part) => (Some(whole), Some(part)),
        };
        let steps = [Some(&self.sqlite.each), then, part, last];
        steps.into_iter().chain(self.sqlite.writes.iter().map(Option::as_ref)).flatten().collect()
    }

    /// A statement for all rows, and one for each row.
    pub(crate) const fn new(postgres: &'static str, each: &'static str) -> Self {
        Self::with(postgres, each, Then::Nothing, [None, None], Last::Nothing)
    }

    /// As [`BatchSql::new`], with what SQLite does for each row that came out.
    pub(crate) const fn chained(postgres: &'static str, each: &'static str, then: &'static str) -> Self {
        Self::with(postgres, each, Then::Each(Sql::both(then)), [None, None], Last::Nothing)
    }

    /// As [`BatchSql::new`], with everything that SQLite may do.
    pub(crate) const fn with(
        postgres: &'static str,
        each: &'static str,
        then: Then,
        [first, second]: [Option<&'static str>; 2],
        last: Last,
    ) -> Self {
        let each = Sql::both(each);
        let sqlite = RowSql { each, then, writes: [both(first), both(second)], last };
        Self { postgres: Sql::both(postgres), sqlite }
    }
}

/// One text for both engines, if there is one.
const fn both(text: Option<&'static str>) -> Option<Sql> {
    match text {
        Some(text) => Some(Sql::both(text)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_whatever_their_order() {
        let sql = Sql::both("SELECT '$1', \"$2\" -- $3\n, $12, $1 /* $4 */ FROM t WHERE a = $2");
        assert_eq!(sql.sqlite(), "SELECT '$1', \"$2\" -- $3\n, ?12, ?1 /* $4 */ FROM t WHERE a = ?2");
        assert!(sql.postgres().contains("$12, $1"));
    }
}
