//! Which database, and how to talk to it.

use std::{env, fmt, path::PathBuf, time::Duration};

use agentkeep_core::{Error, Result};

/// How much of a commit SQLite waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// Every commit is on the disk before it is acknowledged.
    #[default]
    Full,
    /// A commit survives the end of the process, not a power failure.
    Normal,
}

/// The settings of a store. [`Config::from_env`] reads them from the environment.
///
/// `Debug` and `Display` show the address without its password.
#[derive(Clone)]
pub struct Config {
    /// `postgres://…`, `postgresql://…`, `sqlite://PATH` or `sqlite::memory:`.
    pub url: String,
    /// Connections kept open (PostgreSQL).
    pub pool_min: usize,
    /// Connections opened at most; on PostgreSQL eight more at most are shared by short reads, appends
    /// and jobs, and one listens.
    pub pool_max: usize,
    /// How long a caller waits for a connection.
    pub acquire_timeout: Duration,
    /// How long a connection may take to come about, over all hosts.
    pub connect_timeout: Duration,
    /// How long one statement may run.
    pub statement_timeout: Duration,
    /// Whether each statement is logged.
    pub log_sql: bool,
    /// A statement that runs as long as this is always logged.
    pub slow_statement: Duration,
    /// Whether statements are prepared on the server. Off for a pooler in transaction mode that does not
    /// know prepared statements (PgBouncer before 1.21); `?prepared_statements=false` in the address says
    /// the same.
    pub prepared_statements: bool,
    /// How much of a commit SQLite waits for.
    pub synchronous: Synchronous,
    /// Whether opening a store brings an older schema up to date. A new database always gets its schema.
    pub auto_migrate: bool,
}

/// The file that is used when nothing is configured.
pub const DEFAULT_SQLITE_FILE: &str = "agentkeep.db";

impl Config {
    /// The default settings for a database.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool_min: 10,
            pool_max: 25,
            acquire_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_millis(4500),
            statement_timeout: Duration::from_secs(60),
            log_sql: false,
            slow_statement: Duration::from_millis(500),
            prepared_statements: true,
            synchronous: Synchronous::Full,
            auto_migrate: true,
        }
    }

    /// The settings of the environment.
    ///
    /// The database is `DATABASE_URL`, else the one of `POSTGRES_HOST`, `POSTGRES_PORT`, `POSTGRES_USER`,
    /// `POSTGRES_PASSWORD` and `POSTGRES_DB`, else the SQLite file `agentkeep.db` in the working folder.
    ///
    /// # Errors
    /// [`Error::Config`] naming the variable that cannot be read.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(&|name| env::var(name).ok())
    }

    /// The settings of the environment, with the address given.
    ///
    /// # Errors
    /// [`Error::Config`] naming the variable that cannot be read.
    pub fn from_env_with_url(url: impl Into<String>) -> Result<Self> {
        let url = url.into();
        Self::from_lookup(&|name| if name == "DATABASE_URL" { Some(url.clone()) } else { env::var(name).ok() })
    }

    /// The settings that `lookup` gives for the names of the environment's variables: for programs that read
    /// them from other places too.
    ///
    /// # Errors
    /// [`Error::Config`] naming the variable that cannot be read.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let url = set("DATABASE_URL")
            .or_else(|| postgres_from_parts(&set))
            .unwrap_or_else(|| format!("sqlite://{DEFAULT_SQLITE_FILE}"));
        let mut config = Self::new(url);
        config.check_scheme()?;
        let number = |name: &str, default: usize| match set(name) {
            None => Ok(default),
            Some(text) => {
                text.trim().parse().map_err(|_| Error::Config(format!("{name} is {text:?}, not a whole number")))
            }
        };
        config.pool_min = number("POSTGRES_POOL_MIN", config.pool_min)?;
        config.pool_max = number("POSTGRES_POOL_MAX", config.pool_max)?;
        if config.pool_max == 0 {
            return Err(Error::Config("POSTGRES_POOL_MAX is 0; at least 1 connection is needed".into()));
        }
        config.pool_min = config.pool_min.min(config.pool_max);
        let milliseconds = |name: &str, default: Duration| {
            let default = usize::try_from(default.as_millis()).unwrap_or(usize::MAX);
            number(name, default).map(|value| Duration::from_millis(value as u64))
        };
        config.statement_timeout = milliseconds("AGENTKEEP_STATEMENT_TIMEOUT_MS", config.statement_timeout)?;
        config.acquire_timeout = milliseconds("AGENTKEEP_ACQUIRE_TIMEOUT_MS", config.acquire_timeout)?;
        config.slow_statement = milliseconds("AGENTKEEP_SLOW_STATEMENT_MS", config.slow_statement)?;
        let truth = |name: &str| match set(name).as_deref().map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off") => Ok(Some(false)),
            Some(other) => Err(Error::Config(format!("{name} is {other:?}; write true or false"))),
        };
        config.log_sql = truth("AGENTKEEP_LOG_SQL")?.or(truth("AM_LOG_SQL")?).unwrap_or(false);
        config.prepared_statements = truth("AGENTKEEP_PREPARED_STATEMENTS")?.unwrap_or(true);
        config.auto_migrate = truth("AGENTKEEP_AUTO_MIGRATE")?.unwrap_or(true);
        config.synchronous =
            match set("AGENTKEEP_SQLITE_SYNCHRONOUS").as_deref().map(str::to_ascii_lowercase).as_deref() {
                None | Some("full") => Synchronous::Full,
                Some("normal") => Synchronous::Normal,
                Some(other) => {
                    return Err(Error::Config(format!(
                        "AGENTKEEP_SQLITE_SYNCHRONOUS is {other:?}; write full or normal"
                    )));
                }
            };
        Ok(config)
    }

    /// Refuses an address of a kind we do not know.
    ///
    /// # Errors
    /// [`Error::Config`] that lists the kinds there are.
    pub fn check_scheme(&self) -> Result<()> {
        if self.is_postgres() || self.url.starts_with("sqlite:") {
            return Ok(());
        }
        let scheme = self.url.split_once(':').map_or(self.url.as_str(), |(scheme, _)| scheme);
        Err(Error::Config(format!(
            "{scheme:?} is no database address; write postgres://user:password@host:port/database, sqlite://PATH or sqlite::memory:"
        )))
    }

    /// The engine that the address is of: `postgresql` or `sqlite`.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        if self.is_postgres() { "postgresql" } else { "sqlite" }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres://") || self.url.starts_with("postgresql://")
    }

    /// The settings for the database `postgres` on the same server, and the name of the database that ours are
    /// for: where it can be created. `None` on SQLite, or when the address names no other database.
    pub(crate) fn server_database(&self) -> Option<(Self, String)> {
        let login: tokio_postgres::Config = self.address_without_parameters()?.parse().ok()?;
        let name = login.get_dbname().or(login.get_user()).filter(|name| *name != "postgres")?.to_owned();
        let (_, rest) = self.url.split_once("://")?;
        let scheme = &self.url[..self.url.len() - rest.len()];
        let (base, query) = rest.split_once('?').map_or((rest, None), |(base, query)| (base, Some(query)));
        let authority = base.split_once('/').map_or(base, |(authority, _)| authority);
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let url = format!("{scheme}{authority}/postgres{query}");
        Some((Self { url, pool_min: 0, ..self.clone() }, name))
    }

    fn address_without_parameters(&self) -> Option<&str> {
        self.is_postgres().then(|| self.url.split_once('?').map_or(self.url.as_str(), |(address, _)| address))
    }

    /// The path of the SQLite file; `None` for a database in memory or on PostgreSQL.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        let rest = self.url.strip_prefix("sqlite:")?;
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        (!path.is_empty() && path != ":memory:").then(|| PathBuf::from(path))
    }

    /// The address without its password, to show to people.
    #[must_use]
    pub fn display_url(&self) -> String {
        let Some((scheme, rest)) = self.url.split_once("://") else { return self.url.clone() };
        let (authority, tail) = rest.find(['/', '?']).map_or((rest, ""), |end| rest.split_at(end));
        let shown = match authority.rsplit_once('@') {
            Some((user, hosts)) => match user.split_once(':') {
                Some((name, _)) => format!("{name}:***@{hosts}"),
                None => authority.to_owned(),
            },
            None => authority.to_owned(),
        };
        let tail = match tail.find("password=") {
            Some(at) => {
                let end = tail[at..].find('&').map_or(tail.len(), |end| at + end);
                format!("{}password=***{}", &tail[..at], &tail[end..])
            }
            None => tail.to_owned(),
        };
        format!("{scheme}://{shown}{tail}")
    }
}

fn postgres_from_parts(set: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let names = ["POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"];
    if names.iter().all(|name| set(name).is_none()) {
        return None;
    }
    let part = |name: &str, default: &str| percent_encode(&set(name).unwrap_or_else(|| default.to_owned()));
    let password =
        set("POSTGRES_PASSWORD").map(|password| format!(":{}", percent_encode(&password))).unwrap_or_default();
    Some(format!(
        "postgres://{}{password}@{}:{}/{}",
        part("POSTGRES_USER", "postgres"),
        part("POSTGRES_HOST", "localhost"),
        part("POSTGRES_PORT", "5432"),
        part("POSTGRES_DB", "postgres"),
    ))
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.display_url())
            .field("pool_min", &self.pool_min)
            .field("pool_max", &self.pool_max)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("log_sql", &self.log_sql)
            .field("slow_statement", &self.slow_statement)
            .field("prepared_statements", &self.prepared_statements)
            .field("synchronous", &self.synchronous)
            .field("auto_migrate", &self.auto_migrate)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::from_lookup(&|name| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_configured_is_a_file_in_the_working_folder() {
        let config = from(&[]).expect("config");
        assert_eq!(config.sqlite_path(), Some(PathBuf::from("agentkeep.db")));
    }

    #[test]
    fn the_parts_of_a_postgres_address_are_put_together() {
        let config = from(&[("POSTGRES_HOST", "db"), ("POSTGRES_PASSWORD", "p@ss/w")]).expect("config");
        assert_eq!(config.url, "postgres://postgres:p%40ss%2Fw@db:5432/postgres");
        assert_eq!(config.display_url(), "postgres://postgres:***@db:5432/postgres");
    }

    #[test]
    fn a_database_is_created_through_the_one_every_server_has() {
        let of = |url: &str| Config::new(url).server_database().map(|(config, name)| (config.url, name));
        let expected = ("postgres://me:p%40@h:1,i:2/postgres?sslmode=disable".to_owned(), "my db".to_owned());
        assert_eq!(of("postgres://me:p%40@h:1,i:2/my%20db?sslmode=disable"), Some(expected));
        assert_eq!(of("postgres://me@h"), Some(("postgres://me@h/postgres".to_owned(), "me".to_owned())));
        assert_eq!(of("postgres://me@h/postgres"), None);
        assert_eq!(of("sqlite://a.db"), None);
    }

    #[test]
    fn a_variable_that_cannot_be_read_is_named() {
        for (name, value) in
            [("POSTGRES_POOL_MAX", "many"), ("AGENTKEEP_LOG_SQL", "perhaps"), ("DATABASE_URL", "mysql://x")]
        {
            let error = from(&[(name, value)]).expect_err(name);
            assert!(matches!(error, Error::Config(_)), "{error}");
        }
    }
}
