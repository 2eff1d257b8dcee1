//! Splitting a migration file into its statements.
//!
//! A semicolon ends a statement, except inside quotes, comments and parentheses, inside the body of a SQLite
//! trigger (`BEGIN … END`) and inside the SQL body of a PostgreSQL function (`BEGIN ATOMIC … END`). Each
//! statement keeps its number and its line, so that an error can say where to look.

use agentkeep_core::{Error, Result};

use super::lexer::{self, Kind, Token};
use crate::engine::Dialect;

/// One statement of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Its place in the file, from 1.
    pub(crate) number: usize,
    /// The line its first word stands on, from 1.
    pub(crate) line: usize,
    /// Its text, without the semicolon and the comments before it.
    pub(crate) text: String,
}

impl Statement {
    /// The keyword it begins with.
    pub(super) fn first_word(&self) -> &str {
        let end = self
            .text
            .find(|character: char| !character.is_alphanumeric() && character != '_')
            .unwrap_or(self.text.len());
        &self.text[..end]
    }
}

/// The statements of `text`.
///
/// # Errors
/// [`Error::Schema`] naming `file` and the line when a quote, a comment, a parenthesis or a body is never closed.
pub(crate) fn split(file: &str, text: &str, dialect: Dialect) -> Result<Vec<Statement>> {
    let tokens = lexer::tokens(text, dialect).map_err(|unclosed| {
        let line = line_of(text, unclosed.at);
        Error::Schema(format!("{file}, line {line}: {} opens here and is never closed", unclosed.what))
    })?;
    let mut statements = Vec::new();
    let mut parts: Vec<Token<'_>> = Vec::new();
    let mut shape = Shape::default();
    for token in tokens {
        if token.kind == Kind::Blank {
            continue;
        }
        if shape.ends_at(&token) {
            push(&mut statements, text, &parts);
            parts.clear();
            shape = Shape::default();
        } else {
            shape.take(&token, dialect);
            parts.push(token);
        }
    }
    if let (Some(open), Some(first)) = (shape.open(), parts.first()) {
        let line = line_of(text, first.at);
        return Err(Error::Schema(format!(
            "{file}: {open} of the statement that starts at line {line} is never closed"
        )));
    }
    push(&mut statements, text, &parts);
    Ok(statements)
}

fn push(statements: &mut Vec<Statement>, text: &str, parts: &[Token<'_>]) {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return };
    statements.push(Statement {
        number: statements.len() + 1,
        line: line_of(text, first.at),
        text: text[first.at..last.at + last.text.len()].to_owned(),
    });
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// What has been seen of a statement so far.
#[derive(Default)]
struct Shape {
    /// Its first words, upper case: enough to tell what it creates.
    opening: Vec<String>,
    parentheses: usize,
    /// PostgreSQL: open `BEGIN ATOMIC` and `CASE` of a function body.
    bodies: usize,
    /// SQLite: where in a trigger's body we are.
    trigger: Trigger,
    after_dot: bool,
}

/// SQLite's own rule (`sqlite3_complete`): a trigger ends at `; END ;`.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Trigger {
    #[default]
    None,
    Body,
    AfterSemicolon,
    AfterEnd,
}

impl Shape {
    /// Whether `token` is the semicolon that ends the statement.
    fn ends_at(&self, token: &Token<'_>) -> bool {
        token.is_symbol(";")
            && self.parentheses == 0
            && self.bodies == 0
            && matches!(self.trigger, Trigger::None | Trigger::AfterEnd)
    }

    fn take(&mut self, token: &Token<'_>, dialect: Dialect) {
        if token.kind == Kind::Word && self.opening.len() < 4 {
            self.opening.push(token.text.to_ascii_uppercase());
            if dialect.pick(false, true) && self.creates_trigger() && self.trigger == Trigger::None {
                self.trigger = Trigger::Body;
            }
        }
        match token.text {
            "(" => self.parentheses += 1,
            ")" => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        self.follow_body(token, dialect);
        self.follow_trigger(token);
        self.after_dot = token.is_symbol(".");
    }

    /// psql's own rule: in a function, BEGIN ATOMIC and the CASEs in it open, END closes.
    fn follow_body(&mut self, token: &Token<'_>, dialect: Dialect) {
        if dialect.pick(false, true) || self.after_dot || !self.creates_routine() {
            return;
        }
        if token.is_word("BEGIN") || (token.is_word("CASE") && self.bodies > 0) {
            self.bodies += 1;
        } else if token.is_word("END") {
            self.bodies = self.bodies.saturating_sub(1);
        }
    }

    fn follow_trigger(&mut self, token: &Token<'_>) {
        self.trigger = match self.trigger {
            Trigger::None => Trigger::None,
            _ if token.is_symbol(";") => Trigger::AfterSemicolon,
            Trigger::AfterSemicolon if token.is_word("END") => Trigger::AfterEnd,
            _ => Trigger::Body,
        };
    }

    fn opens_with(&self, words: &[&str]) -> bool {
        self.opening.iter().map(String::as_str).take(words.len()).eq(words.iter().copied())
    }

    fn creates_trigger(&self) -> bool {
        [&["CREATE", "TRIGGER"] as &[&str], &["CREATE", "TEMP", "TRIGGER"], &["CREATE", "TEMPORARY", "TRIGGER"]]
            .iter()
            .any(|words| self.opens_with(words))
    }

    fn creates_routine(&self) -> bool {
        ["FUNCTION", "PROCEDURE"].iter().any(|routine| {
            self.opens_with(&["CREATE", routine]) || self.opens_with(&["CREATE", "OR", "REPLACE", routine])
        })
    }

    /// What is still open at the end of the file.
    fn open(&self) -> Option<&'static str> {
        match self {
            Self { parentheses: 1.., .. } => Some("a parenthesis"),
            Self { bodies: 1.., .. } => Some("the body"),
            Self { trigger: Trigger::Body | Trigger::AfterSemicolon, .. } => Some("the body"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str, dialect: Dialect) -> Vec<String> {
        split("file.sql", text, dialect).expect("statements").into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn a_statement_keeps_its_number_and_its_line() {
        let text = "-- first; comment\n\nSELECT 1;\n/* a;\nb */ SELECT\n2 ; ;\n-- the end";
        let statements = split("file.sql", text, Dialect::Postgres).expect("statements");
        let places: Vec<_> = statements.iter().map(|one| (one.number, one.line, one.text.as_str())).collect();
        assert_eq!(places, [(1, 3, "SELECT 1"), (2, 5, "SELECT\n2")]);
    }

    #[test]
    fn the_body_of_a_sqlite_trigger_is_one_statement() {
        let trigger = "CREATE TRIGGER t AFTER UPDATE ON a WHEN CASE 1 WHEN 1 THEN 1 END BEGIN\n\
                       UPDATE a SET b = CASE WHEN 1 THEN 2 END; SELECT new.begin; SELECT new.end;\nEND";
        assert_eq!(texts(&format!("{trigger};\nSELECT 1;"), Dialect::Sqlite), [trigger, "SELECT 1"]);
    }

    #[test]
    fn the_bodies_of_postgres_functions_are_one_statement() {
        let quoted = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN a; $$; END $body$";
        let atomic = "CREATE OR REPLACE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END";
        assert_eq!(texts(&format!("{quoted};{atomic};SELECT 1"), Dialect::Postgres), [quoted, atomic, "SELECT 1"]);
    }

    #[test]
    fn what_stays_open_is_an_error_with_its_line() {
        for (text, dialect, line) in [
            ("SELECT 1;\nSELECT 'a", Dialect::Sqlite, "line 2"),
            ("SELECT 1;\n\nSELECT (1;", Dialect::Postgres, "line 3"),
            ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2", Dialect::Sqlite, "line 1"),
        ] {
            let error = split("file.sql", text, dialect).expect_err(text).to_string();
            assert!(error.contains(line) && error.contains("file.sql"), "{error}");
        }
    }

    /// Pieces that hide semicolons, in a form both engines read the same way.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z_]{1,6}",
            "[0-9]{1,3}",
            "'(;|''|--|/\\*|[a-z\"$\n]){0,6}'",
            "\"(;|\"\"|--|'|[a-z\n]){1,6}\"",
            "\\((;|[a-z]){0,3}\\)",
            Just("/* ; ' */".to_owned()),
            Just("-- ; ' \"\n".to_owned()),
        ]
    }

    fn postgres_piece() -> impl Strategy<Value = String> {
        prop_oneof![
            piece(),
            "E'(;|''|\\\\'|\\\\\\\\|[a-z\n]){0,6}'",
            "\\$\\$(;|'|\"|--|[a-z\n]){0,6}\\$\\$",
            "\\$tag\\$(;|'|\\$\\$|[a-z\n]){0,6}\\$tag\\$",
            Just("/* ; /* ' */ ; */".to_owned()),
        ]
    }

    /// Statements that start with a word and end with one, so that their texts are known exactly.
    fn statements(piece: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<String>> {
        let statement =
            proptest::collection::vec(piece, 0..6).prop_map(|pieces| format!("SELECT {} x", pieces.join(" ")));
        proptest::collection::vec(statement, 0..6)
    }

    fn check(expected: &[String], dialect: Dialect) -> Result<(), TestCaseError> {
        let text = format!("-- start\n{}", expected.iter().map(|one| format!("{one} ;\n")).collect::<String>());
        let found = split("file.sql", &text, dialect).expect("statements");
        let texts: Vec<String> = found.iter().map(|one| one.text.clone()).collect();
        prop_assert_eq!(&texts, expected);
        let mut line = 2;
        for (index, one) in found.iter().enumerate() {
            prop_assert_eq!((one.number, one.line), (index + 1, line));
            line += one.text.matches('\n').count() + 1;
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn statements_come_back_as_they_were_put_together_for_sqlite(expected in statements(piece())) {
            check(&expected, Dialect::Sqlite)?;
        }

        #[test]
        fn statements_come_back_as_they_were_put_together_for_postgres(expected in statements(postgres_piece())) {
            check(&expected, Dialect::Postgres)?;
        }

        /// SQLite's own parser is the oracle: it runs one statement after another and says where each ended.
        #[test]
        fn sqlite_finds_the_same_statements(
            bodies in proptest::collection::vec("(SELECT ('(;|''|--)*'|1);| -- ;\n| /\\* ; \\*/ ){1,4}", 1..4),
        ) {
            let connection = rusqlite::Connection::open_in_memory().expect("sqlite");
            let mut text = "CREATE TABLE t (a);".to_owned();
            for (index, body) in bodies.iter().enumerate() {
                text.push_str(&format!("CREATE TRIGGER t{index} AFTER INSERT ON t BEGIN SELECT 0; {body} END; {body}"));
            }
            let expected = parse(&connection, &text);
            let found = split("file.sql", &text, Dialect::Sqlite).expect("statements").len();
            prop_assert_eq!(found, expected, "{}", text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                let _ = split("file.sql", &text, dialect);
            }
        }
    }

    fn parse(connection: &rusqlite::Connection, text: &str) -> usize {
        use rusqlite::fallible_iterator::FallibleIterator as _;
        let mut batch = rusqlite::Batch::new(connection, text);
        let mut count = 0;
        while let Some(mut statement) = batch.next().expect("a statement") {
            let mut rows = statement.query([]).expect("rows");
            while rows.next().expect("a row").is_some() {}
            count += 1;
        }
        count
    }
}
