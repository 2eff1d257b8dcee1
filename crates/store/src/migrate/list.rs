//! The migrations a program carries: their files, versions, check sums and statements.
//!
//! A migration has one file for each engine, with the same version and name. The files of agentkeep are compiled
//! into the program ([`Migrations::embedded`]); tests hand in lists of their own.

use std::{borrow::Cow, fmt::Write as _};

use agentkeep_core::{Error, Result};
use sha2::{Digest, Sha256};

use super::split::{self, Statement};
use crate::engine::Dialect;

/// Lists the embedded files: one line for each, the same for both engines.
macro_rules! embed {
    ($($file:literal),* $(,)?) => {
        &[$((
            $file,
            include_str!(concat!("../../migrations/postgres/", $file, ".sql")),
            include_str!(concat!("../../migrations/sqlite/", $file, ".sql")),
        )),*]
    };
}

/// Every file of `migrations/`, in order. A new migration is added here and nowhere else.
const EMBEDDED: &[(&str, &str, &str)] = embed![
    "20250101_000000_initial",
    "20250102_000000_ledger",
    "20250103_000000_jobs",
    "20250104_000000_deployments",
    "20250105_000000_api_keys",
    "20250106_000000_idempotency_keys",
    "20250107_000000_streams",
];

/// One step of the schema's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    version: Cow<'static, str>,
    name: Cow<'static, str>,
    postgres: Cow<'static, str>,
    sqlite: Cow<'static, str>,
}

impl Migration {
    /// A migration from the name of its files (without `.sql`) and their texts.
    ///
    /// # Errors
    /// [`Error::Schema`] when the name is not `YYYYMMDD_HHMMSS_description`.
    pub fn new(file: &str, postgres: impl Into<String>, sqlite: impl Into<String>) -> Result<Self> {
        let (version, name) = parse_file_name(file)?;
        Ok(Self {
            version: version.to_owned().into(),
            name: name.to_owned().into(),
            postgres: postgres.into().into(),
            sqlite: sqlite.into().into(),
        })
    }

    /// `YYYYMMDD_HHMMSS`: orders the migrations.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it does, as in the name of its file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its file, the same in both folders.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}_{}.sql", self.version, self.name)
    }

    fn text(&self, dialect: Dialect) -> &str {
        dialect.pick(&self.postgres, &self.sqlite)
    }

    /// The SHA-256 of the engine's file, in hexadecimal digits.
    pub(super) fn sha256(&self, dialect: Dialect) -> String {
        Sha256::digest(self.text(dialect).as_bytes()).iter().fold(String::with_capacity(64), |mut digits, byte| {
            // Writing to a String cannot fail.
            let _ = write!(digits, "{byte:02x}");
            digits
        })
    }

    /// The engine's file, read.
    ///
    /// # Errors
    /// [`Error::Schema`] naming file and line when it cannot be split or says what a migration must not say.
    pub(super) fn script(&self, dialect: Dialect) -> Result<Script> {
        let (file, text) = (self.file(), self.text(dialect));
        let mut script = Script { statements: split::split(&file, text, dialect)?, ..Script::default() };
        for line in text.lines().map_while(|line| line.strip_prefix("-- agentkeep:")) {
            script.follow(line.trim(), &file, dialect)?;
        }
        if script.no_transaction && script.foreign_keys_off {
            return Err(Error::Schema(format!("{file}: no-transaction and foreign-keys-off exclude each other")));
        }
        script.statements.iter().try_for_each(|statement| refuse_control(&file, statement))?;
        Ok(script)
    }
}

/// The engine's file of a migration, read.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Each statement is its own transaction, and its progress is recorded.
    pub(super) no_transaction: bool,
    /// SQLite: foreign keys are off while it runs and checked at its end.
    pub(super) foreign_keys_off: bool,
    pub(super) statements: Vec<Statement>,
}

impl Script {
    fn follow(&mut self, directive: &str, file: &str, dialect: Dialect) -> Result<()> {
        match directive {
            "no-transaction" => self.no_transaction = true,
            "foreign-keys-off" if dialect.pick(false, true) => self.foreign_keys_off = true,
            "foreign-keys-off" => {
                return Err(Error::Schema(format!("{file}: foreign-keys-off is for SQLite files; remove it here")));
            }
            other => {
                return Err(Error::Schema(format!(
                    "{file}: the directive {other:?} is not known; write no-transaction or foreign-keys-off"
                )));
            }
        }
        Ok(())
    }
}

/// A migration runs inside transactions that the migrator opens and closes; a file that does it too would end the
/// one that protects it.
fn refuse_control(file: &str, statement: &Statement) -> Result<()> {
    const CONTROL: &[&str] =
        &["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH"];
    let first = statement.first_word().to_ascii_uppercase();
    let pragma = first == "PRAGMA" && statement.text.to_ascii_lowercase().contains("foreign_keys");
    let reason = if CONTROL.contains(&first.as_str()) {
        "the migrator opens and closes transactions itself; remove it"
    } else if pragma {
        "it has no effect inside a transaction; start the file with `-- agentkeep: foreign-keys-off` instead"
    } else {
        return Ok(());
    };
    let Statement { number, line, .. } = statement;
    Err(Error::Schema(format!(
        "{file}, statement {number} (line {line}): {first} is not allowed in a migration: {reason}"
    )))
}

/// A list of migrations in the order of their versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrations(Vec<Migration>);

impl Migrations {
    /// The migrations of this program.
    #[must_use]
    pub fn embedded() -> Self {
        let read = |(file, postgres, sqlite): &(&'static str, &'static str, &'static str)| {
            let (version, name) = parse_file_name(file).ok()?;
            let texts = ((*postgres).into(), (*sqlite).into());
            Some(Migration { version: version.into(), name: name.into(), postgres: texts.0, sqlite: texts.1 })
        };
        // A test reads every file of the folder and compares, so nothing is left out here.
        Self(EMBEDDED.iter().filter_map(read).collect())
    }

    /// A list of one's own.
    ///
    /// # Errors
    /// [`Error::Schema`] when the versions do not ascend.
    pub fn new(migrations: Vec<Migration>) -> Result<Self> {
        match migrations.windows(2).find(|pair| pair[0].version >= pair[1].version) {
            None => Ok(Self(migrations)),
            Some(pair) => Err(Error::Schema(format!(
                "{} stands after {}: versions must ascend and each may be used once",
                pair[1].file(),
                pair[0].file()
            ))),
        }
    }

    /// The first `count` of them: the history as it was once.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self(self.0.iter().take(count).cloned().collect())
    }

    /// The migrations in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Migration> + ExactSizeIterator {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The migration of that version, if there is one.
    pub(super) fn get(&self, version: &str) -> Option<&Migration> {
        self.0.iter().find(|migration| migration.version == version)
    }
}

/// Version and description of `YYYYMMDD_HHMMSS_description`.
fn parse_file_name(file: &str) -> Result<(&str, &str)> {
    let parts = file.get(..15).zip(file.get(15..)).and_then(|(version, rest)| Some((version, rest.strip_prefix('_')?)));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    match parts {
        Some((version, name))
            if digits(&version[..8])
                && &version[8..9] == "_"
                && digits(&version[9..])
                && !name.is_empty()
                && name.bytes().all(word) =>
        {
            Ok((version, name))
        }
        _ => Err(Error::Schema(format!(
            "{file:?} is no name for a migration; write YYYYMMDD_HHMMSS_description in lower-case letters, digits and _"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn files(folder: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
        let mut names: Vec<String> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .filter(|name| name.ends_with(".sql"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn both_folders_hold_the_same_files_and_the_table_lists_them_all() {
        let embedded: Vec<String> = Migrations::embedded().iter().map(Migration::file).collect();
        assert_eq!(files("postgres"), embedded);
        assert_eq!(files("sqlite"), embedded);
    }

    #[test]
    fn every_embedded_file_can_be_read_and_their_versions_ascend() {
        let embedded = Migrations::embedded();
        for migration in embedded.iter() {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                let script = migration.script(dialect).expect("a script");
                assert!(!script.statements.is_empty(), "{} has no statement", migration.file());
            }
        }
        Migrations::new(embedded.iter().cloned().collect()).expect("ascending versions");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for file in ["1_initial", "20250101_000000", "20250101-000000_a", "20250101_000000_A", "2025010a_000000_a"] {
            assert!(Migration::new(file, "", "").is_err(), "{file}");
        }
    }

    #[test]
    fn versions_must_ascend() {
        let make = |file| Migration::new(file, "", "").expect("a migration");
        let error = Migrations::new(vec![make("20250102_000000_b"), make("20250101_000000_a")]).expect_err("order");
        assert!(error.to_string().contains("20250101_000000_a.sql stands after 20250102_000000_b.sql"), "{error}");
    }

    #[test]
    fn directives_are_read_and_unknown_ones_refused() {
        let read = |text: &str, dialect| Migration::new("20250101_000000_a", text, text).expect("one").script(dialect);
        let text = "-- agentkeep: no-transaction\nSELECT 1;";
        assert!(read(text, Dialect::Postgres).expect("a script").no_transaction);
        let text = "-- agentkeep: foreign-keys-off\n-- more\nSELECT 1;";
        assert!(read(text, Dialect::Sqlite).expect("a script").foreign_keys_off);
        assert!(read(text, Dialect::Postgres).is_err());
        assert!(read("-- agentkeep: no-transactions\n", Dialect::Sqlite).is_err());
        assert!(!read("-- words\n-- agentkeep: no-transaction\n", Dialect::Sqlite).expect("one").no_transaction);
    }

    #[test]
    fn a_file_must_not_control_transactions() {
        for text in ["SELECT 1;\n COMMIT;", "SELECT 1;\n begin;", "SELECT 1;\nPRAGMA foreign_keys = off;"] {
            let migration = Migration::new("20250101_000000_a", text, text).expect("a migration");
            let error = migration.script(Dialect::Sqlite).expect_err(text).to_string();
            assert!(error.contains("20250101_000000_a.sql, statement 2 (line 2)"), "{error}");
        }
    }
}
