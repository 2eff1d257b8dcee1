//! Which database and which tenant: the options over the environment over `agentkeep.toml` over the default.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use agentkeep::{Config, Store, core::Error, core::TenantId};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::{entity::Home, failure::Outcome, output::Output};

/// The options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The database: postgres://USER:PASSWORD@HOST:PORT/DATABASE, sqlite://PATH or sqlite::memory:
    ///
    /// Without it: DATABASE_URL, then POSTGRES_HOST and its companions, then `database` in agentkeep.toml, then
    /// the SQLite file agentkeep.db in the working folder.
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// The tenant to work in, by name or id; the default tenant if nothing is said
    #[arg(long, global = true, value_name = "NAME-or-ID")]
    tenant: Option<String>,
    /// Print JSON: one object, or one line for each item of a list
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Tell more of what is done (-v, -vv, -vvv); RUST_LOG chooses exactly
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How the log on standard error is written
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", env = "AGENTKEEP_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The file `agentkeep.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    database: Option<String>,
    tenant: Option<String>,
    pool_min: Option<u32>,
    pool_max: Option<u32>,
    acquire_timeout_ms: Option<u64>,
    statement_timeout_ms: Option<u64>,
    slow_statement_ms: Option<u64>,
    log_sql: Option<bool>,
    prepared_statements: Option<bool>,
    auto_migrate: Option<bool>,
    sqlite_synchronous: Option<String>,
    /// Where it was found.
    #[serde(skip)]
    path: PathBuf,
}

/// What a command works on.
#[derive(Debug)]
pub struct Settings {
    /// How to open the database.
    pub config: Config,
    tenant: Option<String>,
    /// Whether nobody chose the database.
    by_default: bool,
}

impl Settings {
    /// Reads the environment and the file.
    pub fn new(global: &Global) -> Outcome<Self> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let file = File::find()?;
        let chosen = global.database.clone().or_else(|| variable("DATABASE_URL"));
        let has_parts = ["HOST", "PORT", "USER", "PASSWORD", "DB"]
            .iter()
            .any(|part| variable(&format!("POSTGRES_{part}")).is_some());
        let url = if chosen.is_some() || has_parts { chosen } else { file.database() };
        let by_default = url.is_none() && !has_parts;
        let lookup = |name: &str| match name {
            "DATABASE_URL" => url.clone(),
            name => variable(name).or_else(|| file.variable(name)),
        };
        let tenant = global.tenant.clone().or_else(|| variable("AGENTKEEP_TENANT")).or_else(|| file.tenant.clone());
        Ok(Self { config: Config::from_lookup(&lookup)?, tenant, by_default })
    }

    /// The tenant that was chosen, by name or id.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// How to open the database.
    pub fn into_config(self) -> Config {
        self.config
    }

    /// Tells where the database is, when nobody chose it.
    pub fn tell(&self, output: &Output) {
        if let Some(path) = self.config.sqlite_path().filter(|_| self.by_default) {
            let path = std::path::absolute(&path).unwrap_or(path);
            output.say(&format!("database: {}", path.display()));
        }
    }

    /// Opens the database, and the tenant in it.
    pub async fn open(self, output: &Output) -> Outcome<Home> {
        self.tell(output);
        let mut config = self.config;
        // A command needs few connections; those that it needs are opened as it goes.
        config.pool_min = 0;
        let store = Store::open_with(config).await?;
        let tenant = match &self.tenant {
            None => TenantId::DEFAULT,
            Some(name) => find_tenant(&store, name).await?,
        };
        Ok(Home { tenant: store.tenant(tenant), store })
    }
}

/// The tenant with that id or name.
pub async fn find_tenant(store: &Store, key: &str) -> agentkeep::core::Result<TenantId> {
    let tenants = store.tenants();
    if let Ok(id) = key.parse()
        && let Some(tenant) = tenants.get(id).await?
    {
        return Ok(tenant.id);
    }
    let tenant = tenants.get_by_name(key).await?;
    tenant.map(|tenant| tenant.id).ok_or_else(|| Error::not_found("tenant", key))
}

impl File {
    /// The file of the working folder, of the nearest folder above it, or of the user; empty when there is none.
    fn find() -> Outcome<Self> {
        let working = env::current_dir().unwrap_or_default();
        let above = working.ancestors().map(|folder| folder.join("agentkeep.toml"));
        let home = env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
        let own = home.map(|folder| folder.join("agentkeep").join("agentkeep.toml"));
        match above.chain(own).find(|path| path.is_file()) {
            Some(path) => Ok(Self::read(&path)?),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |what: &dyn std::fmt::Display| Error::Config(format!("{}{what}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(&format!(": {error}")))?;
        let mut file: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let place = line.map(|line| format!(", line {line}")).unwrap_or_default();
            wrong(&format!("{place}: {}", error.message().replace('\n', ", ")))
        })?;
        file.path = path.to_owned();
        Ok(file)
    }

    /// The address; the path of a SQLite file is meant from the folder of this file.
    fn database(&self) -> Option<String> {
        let url = self.database.clone()?;
        let path = url.strip_prefix("sqlite://").filter(|path| !path.is_empty() && !path.starts_with(['/', ':']));
        match (path, self.path.parent()) {
            (Some(path), Some(folder)) => Some(format!("sqlite://{}", folder.join(path).display())),
            _ => Some(url),
        }
    }

    /// The key that stands for a variable of the environment.
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "POSTGRES_POOL_MIN" => text(self.pool_min),
            "POSTGRES_POOL_MAX" => text(self.pool_max),
            "AGENTKEEP_ACQUIRE_TIMEOUT_MS" => text(self.acquire_timeout_ms),
            "AGENTKEEP_STATEMENT_TIMEOUT_MS" => text(self.statement_timeout_ms),
            "AGENTKEEP_SLOW_STATEMENT_MS" => text(self.slow_statement_ms),
            "AGENTKEEP_LOG_SQL" => text(self.log_sql),
            "AGENTKEEP_PREPARED_STATEMENTS" => text(self.prepared_statements),
            "AGENTKEEP_AUTO_MIGRATE" => text(self.auto_migrate),
            "AGENTKEEP_SQLITE_SYNCHRONOUS" => self.sqlite_synchronous.clone(),
            _ => None,
        }
    }
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<File, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agentkeep.toml");
        fs::write(&path, text).expect("written");
        File::read(&path)
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let error = read("tenant = \"acme\"\n\npool_size = 3\n").expect_err("unknown").to_string();
        assert!(error.contains("agentkeep.toml, line 3: unknown field `pool_size`"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn the_path_of_a_sqlite_file_is_meant_from_the_folder_of_the_settings() {
        let file = read("database = \"sqlite://data/x.db\"\n").expect("read");
        let expected = format!("sqlite://{}", file.path.parent().expect("a folder").join("data/x.db").display());
        assert_eq!(file.database(), Some(expected));
        assert_eq!(
            read("database = \"sqlite::memory:\"").expect("read").database().as_deref(),
            Some("sqlite::memory:")
        );
    }
}
