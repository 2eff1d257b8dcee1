//! The command `agentkeep`: the store, on the command line.
//!
//! Data goes to standard output, talk to standard error. Exit codes: 0, 1 (it failed), 2 (it was called in a
//! way that cannot work), 4 (not permitted), 130 (interrupted).

mod chats;
mod confirm;
mod db;
mod entity;
mod failure;
mod output;
mod serve;
mod settings;
mod telemetry;
mod transcript;
mod work;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, Command, FromArgMatches};
use clap_complete::Shell;

use crate::{
    chats::{Export, Import},
    db::Db,
    failure::{Failure, Outcome},
    output::Output,
    serve::Serve,
    settings::{Global, Settings},
    work::Work,
};

/// With many connections the C library's allocator was a seventh of the work: it gives larger buffers back to the system
/// and takes them anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ABOUT: &str = "The state of AI agents, kept: conversations, messages, memories, on SQLite or PostgreSQL";

const EXAMPLES: &str = "Examples:
  agentkeep import examples/support-chats.json      keep recorded conversations in ./agentkeep.db
  agentkeep sessions list --order created_at:desc   the newest first
  agentkeep sessions show 0195f5a0                  a transcript
  agentkeep export > sessions.jsonl                 the conversations as they came
  DATABASE_URL=postgres://… agentkeep db init       the same on PostgreSQL
  agentkeep serve                                   the same over HTTP

Settings may stand in agentkeep.toml, in this folder or one above it, or in ~/.config/agentkeep:
  database = \"postgres://agentkeep@db/agentkeep\"
  tenant = \"acme\"
  pool_max = 25";

fn main() -> ExitCode {
    let mut command = command();
    let matches = command.get_matches_mut();
    let global = match Global::from_arg_matches(&matches) {
        Ok(global) => global,
        Err(error) => error.exit(),
    };
    let output = Output::new(global.json, global.quiet);
    let telemetry = telemetry::start(&global);
    let outcome = match matches.subcommand() {
        Some(("completions", matches)) => complete(&mut command, matches),
        Some(("openapi", _)) => write!(io::stdout(), "{}", agentkeep_server::document()).map_err(Failure::from),
        Some((name, matches)) => block_on(run(&global, name, matches, &output)),
        None => Err(Failure::usage("a command is needed")),
    };
    telemetry.end();
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    if let Some(message) = &failure.message {
        if output.json {
            output.warn(&serde_json::json!({ "code": failure.code, "message": message }).to_string());
        } else {
            output.warn(&format!("error: {message}"));
        }
    }
    // A thread that reads standard input would be waited for.
    std::process::exit(i32::from(failure.exit));
}

fn command() -> Command {
    let command = Command::new("agentkeep")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Import::augment_args(Command::new("import")))
        .subcommand(Export::augment_args(Command::new("export")))
        .subcommand(Db::augment_args(Command::new("db")))
        .subcommand(Work::augment_args(Command::new("work")))
        .subcommand(Serve::augment_args(Command::new("serve")))
        .subcommand(Command::new("openapi").about("Print the OpenAPI document of `serve`"));
    let entities = entity::ENTITIES.iter().map(|entity| match entity.name {
        "sessions" => entity.command().subcommand(transcript::command()),
        _ => entity.command(),
    });
    let shell = clap::Arg::new("shell").required(true).value_parser(clap::value_parser!(Shell));
    let completions = Command::new("completions").about("Print the completions for a shell").arg(shell);
    Global::augment_args(command).about(ABOUT).long_about(None).subcommands(entities).subcommand(completions)
}

async fn run(global: &Global, name: &str, matches: &clap::ArgMatches, output: &Output) -> Outcome {
    let settings = Settings::new(global)?;
    match name {
        "import" => parsed::<Import>(matches)?.run(settings, output).await,
        "export" => parsed::<Export>(matches)?.run(settings, output).await,
        "db" => parsed::<Db>(matches)?.run(settings, output).await,
        "work" => parsed::<Work>(matches)?.run(settings, output).await,
        "serve" => parsed::<Serve>(matches)?.run(settings, output).await,
        name => {
            let entity = entity::ENTITIES.iter().find(|entity| entity.name == name);
            let entity = entity.ok_or_else(|| Failure::usage(format!("unknown command {name}")))?;
            let home = settings.open(output).await?;
            let outcome = match matches.subcommand() {
                Some(("show", matches)) if name == "sessions" => transcript::run(&home, matches, output).await,
                _ => entity.run(&home, matches, output).await,
            };
            home.store.close().await;
            outcome
        }
    }
}

fn parsed<T: FromArgMatches>(matches: &clap::ArgMatches) -> Outcome<T> {
    T::from_arg_matches(matches).map_err(|error| Failure::usage(error.to_string()))
}

fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    // Two at least: what is handed to the runtime goes on while a command thinks.
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.map_err(|error| Failure {
        code: "runtime",
        message: Some(format!("the runtime cannot be started: {error}")),
        exit: 1,
    })?;
    runtime.block_on(work)
}

fn complete(command: &mut Command, matches: &clap::ArgMatches) -> Outcome {
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        let mut script = Vec::new();
        clap_complete::generate(*shell, command, "agentkeep", &mut script);
        io::stdout().write_all(&script)?;
    }
    Ok(())
}
