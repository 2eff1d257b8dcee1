//! `db`: the database itself: its schema, its health, and starting over.

use std::io::Write;

use agentkeep::{Admin, Config, Health, MigrateOptions, MigrationEvent};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    confirm::confirm,
    failure::{Failure, Outcome},
    output::Output,
    settings::Settings,
};

/// Look after the database: its schema, its health, and starting over
#[derive(Debug, Args)]
pub struct Db {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the database, if it does not exist, and its schema
    Init {
        /// Drop everything that agentkeep made in it first, rows and all
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Bring the schema up to date
    Migrate {
        /// Show what would run, and run nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the migrations and how far each has come
    Status,
    /// Compare the schema with what the migrations make; exit code 1 when they differ
    Check,
    /// Tell how the database is doing; exit code 1 when it is not well
    Health {
        /// Read the whole of a SQLite file
        #[arg(long)]
        thorough: bool,
    },
    /// Remove the rows of every table; the schema stays
    Clear {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

impl Db {
    /// Runs the command.
    pub async fn run(self, settings: Settings, output: &Output) -> Outcome {
        settings.tell(output);
        let config = Config { pool_min: 0, ..settings.config };
        match self.command {
            Command::Init { force, yes } => init(config, force, yes, output).await,
            Command::Migrate { dry_run: true } => plan(config, output).await,
            Command::Migrate { dry_run: false } => migrate(config, output).await,
            Command::Status => status(config, output).await,
            Command::Check => check(config, output).await,
            Command::Health { thorough } => health(config, thorough, output).await,
            Command::Clear { yes } => clear(config, yes, output).await,
        }
    }
}

/// Tells on standard error what is being applied.
fn options(output: &Output) -> MigrateOptions {
    let output = output.clone();
    MigrateOptions::default().listen(move |event| {
        if let MigrationEvent::Applied { file } = event {
            output.say(&format!("applied {file}"));
        }
    })
}

async fn init(config: Config, force: bool, yes: bool, output: &Output) -> Outcome {
    if force {
        let what = format!("This drops all tables of agentkeep in {} and every row in them.", config.display_url());
        confirm(&what, yes)?;
    }
    let admin = Admin::create(config).await?;
    let outcome = admin.init(force, &options(output)).await;
    admin.close().await;
    told_files(&outcome?, output)
}

async fn migrate(config: Config, output: &Output) -> Outcome {
    let admin = Admin::open(config).await?;
    let outcome = admin.migrate(&options(output)).await;
    admin.close().await;
    told_files(&outcome?, output)
}

fn told_files(files: &[String], output: &Output) -> Outcome {
    if output.json {
        output.json(&json!({ "applied": files }))?;
    }
    if files.is_empty() {
        output.say("the schema is up to date");
    }
    Ok(())
}

async fn plan(config: Config, output: &Output) -> Outcome {
    let admin = Admin::open(config).await?;
    let outcome = admin.plan().await;
    admin.close().await;
    let plan = outcome?;
    for migration in &plan {
        if output.json {
            output.json(migration)?;
            continue;
        }
        output.line(&output.strong(&format!("-- {}", migration.file)))?;
        for statement in &migration.statements {
            output.line(&format!("{};", statement.text.trim().trim_end_matches(';')))?;
        }
    }
    let statements: usize = plan.iter().map(|migration| migration.statements.len()).sum();
    output.say(&format!("{} migrations with {statements} statements would run", plan.len()));
    Ok(())
}

async fn status(config: Config, output: &Output) -> Outcome {
    let admin = Admin::open(config).await?;
    let outcome = admin.status().await;
    admin.close().await;
    let items: Vec<Value> = outcome?.iter().filter_map(|migration| serde_json::to_value(migration).ok()).collect();
    let columns = ["version", "name", "status", "statements_done", "finished_at", "error"];
    Ok(output.items(&columns, &items, true)?)
}

async fn check(config: Config, output: &Output) -> Outcome {
    let admin = Admin::open(config).await?;
    let outcome = admin.check().await;
    admin.close().await;
    let differences = outcome?;
    if output.json {
        output.json(&json!({ "differences": differences }))?;
    } else {
        differences.iter().try_for_each(|difference| output.line(difference))?;
    }
    if differences.is_empty() {
        output.say("the schema is what the migrations make");
        return Ok(());
    }
    output.say(&format!("{} differences", differences.len()));
    Err(Failure::told(1))
}

async fn health(config: Config, thorough: bool, output: &Output) -> Outcome {
    let health: Health = Admin::health_of(config, thorough).await;
    output.record(&serde_json::to_value(&health).unwrap_or_default())?;
    std::io::stdout().flush()?;
    if health.healthy { Ok(()) } else { Err(Failure::told(1)) }
}

async fn clear(config: Config, yes: bool, output: &Output) -> Outcome {
    confirm(&format!("This removes every row in {}.", config.display_url()), yes)?;
    let admin = Admin::open(config).await?;
    let outcome = admin.clear(&options(output)).await;
    admin.close().await;
    outcome?;
    if output.json {
        output.json(&json!({ "cleared": true }))?;
    }
    output.say("all rows are removed");
    Ok(())
}
