//! Processes of a peer: each does one case, prints lines of JSON, and waits for what it is told.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A peer that says nothing for so long has hung.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running process; dropping it ends it.
pub struct Process {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    errors: File,
}

impl Process {
    /// Starts `program script url case settings`.
    pub fn start(
        name: &'static str,
        program: &Path,
        script: &Path,
        url: &str,
        case: &str,
        settings: &Value,
    ) -> Result<Self> {
        let errors = tempfile::tempfile()?;
        let mut command = Command::new(program);
        command.arg(script).args([url, case, &settings.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let input = child.stdin.take().context("a pipe was asked for")?;
        let output = child.stdout.take().context("a pipe was asked for")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { name, child, input, lines, errors })
    }

    /// Its next line.
    pub fn line(&mut self) -> Result<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name)),
            Err(RecvTimeoutError::Timeout) => bail!("{} has said nothing for {PATIENCE:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                let words = self.last_words();
                bail!("{} ended ({status}): {words}", self.name)
            }
        }
    }

    fn try_line(&mut self, patience: Duration) -> Result<Option<Value>> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name)).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => self.line().map(Some),
        }
    }

    pub fn tell(&mut self, word: &str) -> Result<()> {
        writeln!(self.input, "{word}").and_then(|()| self.input.flush()).context("the peer does not listen")
    }

    fn last_words(&mut self) -> String {
        let mut told = String::new();
        // Without what it said there is still its exit status.
        let _ = self.errors.seek(SeekFrom::Start(0)).and_then(|_| self.errors.read_to_string(&mut told));
        let lines: Vec<_> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended by itself, or nobody is interested in how it ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets processes that are ready go at once, and returns what each said at its end and how long all of them took.
/// Those that tell their progress are told to stop when they have done `jobs` together.
pub fn race(mut processes: Vec<Process>, jobs: u64) -> Result<(Vec<Value>, Duration)> {
    for process in &mut processes {
        let line = process.line()?;
        if line.get("ready").is_none() {
            bail!("{} is not ready, it said {line}", process.name);
        }
    }
    let begun = Instant::now();
    for process in &mut processes {
        process.tell("go")?;
    }
    let mut ends: Vec<Option<Value>> = processes.iter().map(|_| None).collect();
    let mut progress = vec![0; processes.len()];
    let mut stopped = false;
    let mut heard = Instant::now();
    while ends.iter().any(Option::is_none) {
        let before = heard;
        for (place, process) in processes.iter_mut().enumerate() {
            if ends[place].is_some() {
                continue;
            }
            // One that runs alone is waited for without looking around.
            let patience = if progress.len() == 1 { PATIENCE } else { Duration::from_millis(2) };
            let Some(line) = process.try_line(patience)? else { continue };
            heard = Instant::now();
            match line.get("progress").and_then(Value::as_u64) {
                Some(done) => progress[place] = done,
                None => ends[place] = Some(line),
            }
        }
        if !stopped && jobs > 0 && progress.iter().sum::<u64>() >= jobs {
            stopped = true;
            for process in &mut processes {
                process.tell("stop")?;
            }
        }
        if heard == before && heard.elapsed() > PATIENCE {
            bail!("{} has said nothing for {PATIENCE:?}", processes[0].name);
        }
    }
    let took = begun.elapsed();
    Ok((ends.into_iter().flatten().collect(), took))
}
