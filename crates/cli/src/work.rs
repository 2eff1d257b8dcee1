//! `work`: runs a command for each job of a queue.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agentkeep::{
    HandlerError, JobContext, Outcome as Ended, Retry, Worker, WorkerOptions,
    core::{Json, limits},
};
use clap::Args;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    failure::{Failure, Outcome},
    output::Output,
    settings::Settings,
};

/// The end of what a failed command said that is kept as the reason.
const LAST_WORDS: usize = 4096;

/// Run a command for each job of a queue
///
/// The payload is on the command's standard input. What it writes to standard output is the result: JSON if it is
/// JSON, else text. An exit code other than 0 is a failure; the end of what it wrote to standard error is the reason,
/// and the job is tried again as often as it may be. The command finds in its environment AGENTKEEP_JOB_ID,
/// AGENTKEEP_JOB_ATTEMPT, AGENTKEEP_JOB_QUEUE, AGENTKEEP_JOB_MODE, and AGENTKEEP_SESSION_ID if the job has one. What a
/// job costs is logged with `agentkeep tokens log --job-id "$AGENTKEEP_JOB_ID" …`.
///
/// Ctrl-C claims nothing more and waits for the commands that run; a second one stops them, and their jobs go to
/// others.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  agentkeep work --queue mails --exec ./send-mail\n  agentkeep work --queue sums --exec 'jq .a+.b' --concurrency 4\n  agentkeep work --queue mails --exec ./send-mail --until-empty"
)]
pub struct Work {
    /// The queue
    #[arg(long, short = 'Q', default_value = agentkeep::core::DEFAULT_QUEUE)]
    queue: String,
    /// The command; the shell runs it
    #[arg(long, value_name = "CMD")]
    exec: String,
    /// Commands that run at once
    #[arg(long, default_value_t = 1, value_name = "N")]
    concurrency: usize,
    /// Seconds after which the jobs of a worker that died go to others
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    lease: u64,
    /// Stop when the queue has nothing left that could run now
    #[arg(long)]
    until_empty: bool,
}

/// How many commands ended well, and how many did not.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Work {
    /// Works until it is told to stop.
    pub async fn run(self, settings: Settings, output: &Output) -> Outcome {
        let home = settings.open(output).await?;
        let mut options = WorkerOptions::new(self.queue.clone());
        options.concurrency = self.concurrency;
        options.prefetch = 0;
        options.lease = Duration::from_secs(self.lease);
        // The second Ctrl-C ends the wait.
        options.grace = Duration::from_secs(u64::from(u32::MAX));
        let tally = Arc::new(Tally::default());
        let exec: Arc<str> = self.exec.as_str().into();
        let queue: Arc<str> = self.queue.as_str().into();
        let worker = {
            let tally = Arc::clone(&tally);
            let handler = move |job: JobContext| {
                let (exec, queue, tally) = (Arc::clone(&exec), Arc::clone(&queue), Arc::clone(&tally));
                async move {
                    let ended = run_command(&exec, &queue, &job).await;
                    let counter = if matches!(ended, Ok(Ended::Done(_))) { &tally.done } else { &tally.failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    ended
                }
            };
            Worker::start(&home.tenant, options, handler)?
        };
        output.say(&format!("{} works on {}; Ctrl-C stops it", worker.name(), self.queue));
        let empty = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let Ok(counts) = home.tenant.jobs().counts(Some(&self.queue)).await else { continue };
                if self.until_empty && counts.ready == 0 && counts.running == 0 {
                    return;
                }
            }
        };
        let stopped = tokio::select! {
            signal = tokio::signal::ctrl_c() => signal.is_ok(),
            () = empty => false,
        };
        let killed = tokio::select! {
            () = worker.shutdown() => false,
            _ = tokio::signal::ctrl_c(), if stopped => true,
        };
        let (done, failed) = (tally.done.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
        if output.json {
            output.json(&serde_json::json!({ "done": done, "failed": failed }))?;
        } else {
            output.say(&format!("{done} done, {failed} failed attempts"));
        }
        home.store.close().await;
        if stopped || killed { Err(Failure::told(130)) } else { Ok(()) }
    }
}

async fn run_command(exec: &str, queue: &str, job: &JobContext) -> Result<Ended, HandlerError> {
    let claimed = job.job();
    let mut command = Command::new("sh");
    command
        .args(["-c", exec])
        .env("AGENTKEEP_JOB_ID", claimed.id.to_string())
        .env("AGENTKEEP_JOB_ATTEMPT", claimed.attempt.to_string())
        .env("AGENTKEEP_JOB_QUEUE", queue)
        .env("AGENTKEEP_JOB_MODE", claimed.mode.as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // Ctrl-C is for the worker; commands that run come to their end.
    #[cfg(unix)]
    command.process_group(0);
    match claimed.session_id {
        Some(session) => command.env("AGENTKEEP_SESSION_ID", session.to_string()),
        None => command.env_remove("AGENTKEEP_SESSION_ID"),
    };
    let mut child = command.spawn()?;
    #[cfg(unix)]
    let group = Group(child.id());
    if let Some(mut input) = child.stdin.take() {
        let payload = job.payload().to_string();
        // Beside the command, which may write before it has read; it need not read at all.
        tokio::spawn(async move {
            let _ = input.write_all(payload.as_bytes()).await;
        });
    }
    let output = tokio::select! {
        output = child.wait_with_output() => output?,
        () = job.stopped() => return Ok(Ended::Canceled),
    };
    #[cfg(unix)]
    group.has_ended();
    if output.status.success() {
        return Ok(Ended::Done(result(&output.stdout)?));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim_end();
    let start = (words.len().saturating_sub(LAST_WORDS)..=words.len()).find(|at| words.is_char_boundary(*at));
    let words = &words[start.unwrap_or(words.len())..];
    let error = if words.is_empty() { output.status.to_string() } else { format!("{}: {words}", output.status) };
    Ok(Ended::Failed { error, retry: Some(Retry::default()) })
}

/// The processes of a command: the shell leads their group. A command that is stopped in the middle leaves none of
/// them behind.
#[cfg(unix)]
struct Group(Option<u32>);

#[cfg(unix)]
impl Group {
    /// What the command has started to stay is not its own any more.
    fn has_ended(mut self) {
        self.0 = None;
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(leader) = leader {
            // They may be gone already.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

/// JSON if it is JSON, else text; nothing if it is nothing.
fn result(output: &[u8]) -> Result<Option<Json>, HandlerError> {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    limits::check_content("result", text)?;
    Ok(Some(Json::parse("result", text).or_else(|_| Json::from_serialize("result", &text))?))
}
