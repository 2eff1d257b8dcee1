//! `import` and `export`: logs of conversations in and out. The work is done by the library
//! ([`agentkeep::chat_log`]); here are the files, the progress and the words.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use agentkeep::{
    chat_log::{self, ExportReport, ImportOptions, ImportReport},
    core::{AgentId, Error, NewAgent},
};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    entity::{Home, session_id},
    failure::{Failure, Outcome},
    output::Output,
    settings::Settings,
};

/// The formats of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Chat messages as OpenAI's API has them
    OpenaiChat,
}

/// Import a log of conversations
///
/// FILE is a JSON array or JSON lines. Each item is an object with a list of chat messages under `messages`,
/// `traj` or `conversation`, and becomes a session; what stands beside the list becomes its metadata. The
/// messages are kept so that an export gives them back equal as JSON.
///
/// Importing the same file again adds exactly what is missing, also after an import that was interrupted.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  agentkeep import examples/support-chats.json\n  agentkeep import runs.jsonl --agent booking --json\n  zcat runs.jsonl.gz | agentkeep import -"
)]
pub struct Import {
    /// The log; - reads standard input
    file: PathBuf,
    /// The format of the log
    #[arg(long, value_enum, default_value = "openai-chat")]
    format: Format,
    /// The agent that leads the sessions; created when there is none of that name
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The platform of the sessions: the same log on another platform makes other sessions
    #[arg(long, value_name = "NAME", default_value = chat_log::PLATFORM)]
    platform: String,
}

/// Export sessions as JSON lines
///
/// One line a session, in the order they were created: its id, name, metadata and messages.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  agentkeep export > sessions.jsonl\n  agentkeep export --session 0195f5a0 --output one.jsonl"
)]
pub struct Export {
    /// The format to write
    #[arg(long, value_enum, default_value = "openai-chat")]
    format: Format,
    /// Only this session: its id, or the beginning of it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// The file to write, in place of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Import {
    /// Runs the command.
    pub async fn run(self, settings: Settings, output: &Output) -> Outcome {
        let Format::OpenaiChat = self.format;
        let (input, length) = open(&self.file)?;
        let home = settings.open(output).await?;
        let outcome = self.import(&home, input, length, output).await;
        home.store.close().await;
        let report = outcome?;
        tell(&report, output)?;
        match () {
            () if report.stopped => Err(Failure::told(130)),
            () if report.unreadable > 0 => Err(Failure::told(1)),
            () => Ok(()),
        }
    }

    async fn import(
        &self,
        home: &Home,
        input: Box<dyn Read + Send>,
        length: Option<u64>,
        output: &Output,
    ) -> Outcome<ImportReport> {
        let agent = match &self.agent {
            Some(name) => Some(find_or_create_agent(home, name).await?),
            None => None,
        };
        let options = ImportOptions { platform: self.platform.clone(), agent };
        let progress = progress(length, output.json || !output.talks());
        let mut latest = ImportReport::default();
        let tell_progress = |report: &ImportReport| {
            progress.set_position(report.bytes);
            progress.set_message(format!("{} sessions, {} messages", sessions(report), report.messages_added));
            latest = report.clone();
        };
        let outcome = chat_log::import(&home.tenant, input, &options, interrupted(), tell_progress).await;
        progress.finish_and_clear();
        if outcome.is_err() {
            tell(&latest, output)?;
            output.say("the import did not come to its end; run it again to add what is missing");
        }
        Ok(outcome?)
    }
}

/// Completes when the person presses Ctrl-C. A second time ends the process at once.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        return std::future::pending().await;
    }
    tokio::spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
}

/// The input, and how long it is if that is known.
fn open(path: &Path) -> Outcome<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let failed = |error: io::Error| Failure::file(path, &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(file), Some(metadata.len()).filter(|length| *length > 0)))
}

async fn find_or_create_agent(home: &Home, name: &str) -> Outcome<AgentId> {
    let agents = home.tenant.agents();
    if let Some(agent) = agents.get_by_name(name).await? {
        return Ok(agent.id);
    }
    match agents.create(NewAgent::new(name)).await {
        Ok(agent) => Ok(agent.id),
        // Somebody else was faster.
        Err(error @ Error::AlreadyExists { .. }) => match agents.get_by_name(name).await? {
            Some(agent) => Ok(agent.id),
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// A bar on standard error; it hides itself where there is no terminal.
fn progress(length: Option<u64>, hidden: bool) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {bytes}/{total_bytes} · {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} · {msg}"),
    };
    if hidden {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn sessions(report: &ImportReport) -> u64 {
    report.sessions_added + report.sessions_extended + report.sessions_unchanged
}

/// Tells what an import did.
fn tell(report: &ImportReport, output: &Output) -> Outcome {
    if output.json {
        output.json(report)?;
    }
    for problem in &report.problems {
        output.warn(&format!("item {} (line {}) cannot be read: {}", problem.item, problem.line, problem.reason));
    }
    let more = report.unreadable.saturating_sub(report.problems.len() as u64);
    if more > 0 {
        output.warn(&format!("… and {more} more that cannot be read"));
    }
    output.say(&format!(
        "{}: {} added, {} extended, {} already there; {} added; {} could not be read",
        count(report.items, "item"),
        count(report.sessions_added, "session"),
        report.sessions_extended,
        report.sessions_unchanged,
        count(report.messages_added, "message"),
        report.unreadable,
    ));
    if report.stopped {
        output.warn("interrupted: what is told above is stored; run the same command again to add the rest");
    }
    Ok(())
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

impl Export {
    /// Runs the command.
    pub async fn run(self, settings: Settings, output: &Output) -> Outcome {
        let Format::OpenaiChat = self.format;
        let home = settings.open(output).await?;
        let outcome = self.export(&home).await;
        home.store.close().await;
        let report = outcome?;
        output.say(&format!("{}, {}", count(report.sessions, "session"), count(report.messages, "message")));
        Ok(())
    }

    async fn export(&self, home: &Home) -> Outcome<ExportReport> {
        let session = match &self.session {
            Some(key) => Some(session_id(home, key).await?),
            None => None,
        };
        let Some(path) = self.output.as_deref().filter(|path| *path != Path::new("-")) else {
            let mut writer = BufWriter::new(io::stdout());
            let report = chat_log::export(&home.tenant, session, &mut writer, |_| {}).await?;
            writer.flush()?;
            return Ok(report);
        };
        let failed = |error: io::Error| Failure::file(path, &error);
        let mut writer = BufWriter::new(File::create(path).map_err(failed)?);
        let report = chat_log::export(&home.tenant, session, &mut writer, |_| {}).await?;
        writer.flush().map_err(failed)?;
        Ok(report)
    }
}
