//! Running other programs so that signals end them first and this program after them.
//!
//! Ctrl-C reaches every program of the terminal at once, so this program only outlives it; SIGTERM and
//! SIGHUP reach this program alone and are passed on. Either way the caller gets control back and can
//! stop what it started.

use std::future::Future;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

/// How long output may still trickle in after the program that was run has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Runs a program to its end; it shares this program's input and output.
pub fn run(command: Command) -> Result<ExitStatus> {
    in_runtime(async {
        let mut signals = Signals::listen()?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        signals.wait_for(&mut child).await
    })
}

/// Runs a program to its end and passes its standard output through, showing each line to `on_line`.
pub fn run_watching_lines(mut command: Command, mut on_line: impl FnMut(&str) + 'static) -> Result<ExitStatus> {
    command.stdout(Stdio::piped());
    in_runtime(async {
        let mut signals = Signals::listen()?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        let output = child.stdout.take().context("the program has no output")?;
        let pass_through = async move {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).await? > 0 {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&line)?;
                stdout.flush()?;
                on_line(&String::from_utf8_lossy(&line));
                line.clear();
            }
            anyhow::Ok(())
        };
        let reader = tokio::task::LocalSet::new();
        let reading = reader.spawn_local(pass_through);
        reader
            .run_until(async {
                let status = signals.wait_for(&mut child).await?;
                // A program left behind by a test may hold the pipe open for ever.
                if let Ok(read) = tokio::time::timeout(LAST_OUTPUT, reading).await {
                    read??;
                }
                Ok(status)
            })
            .await
    })
}

/// Waits for Ctrl-C, SIGTERM or SIGHUP; `check` is called now and then and may end the wait by an error.
pub fn wait_for_stop(mut check: impl FnMut() -> Result<()>) -> Result<()> {
    in_runtime(async {
        let mut signals = Signals::listen()?;
        loop {
            tokio::select! {
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.hang_up.recv() => return Ok(()),
                () = tokio::time::sleep(CHECK_EVERY) => check()?,
            }
        }
    })
}

/// The exit code that a shell gives for this end: the program's own, or 128 and the signal's number.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    let code = match status.signal() {
        Some(signal) => 128 + signal,
        None => status.code().unwrap_or(1),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

struct Signals {
    interrupt: Listener,
    terminate: Listener,
    hang_up: Listener,
}

impl Signals {
    fn listen() -> Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn wait_for(&mut self, child: &mut tokio::process::Child) -> Result<ExitStatus> {
        loop {
            let to_pass_on = tokio::select! {
                status = child.wait() => return Ok(status?),
                _ = self.interrupt.recv() => continue,
                _ = self.terminate.recv() => Signal::TERM,
                _ = self.hang_up.recv() => Signal::HUP,
            };
            let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            if let Some(pid) = pid {
                // It fails only when the child has just ended, which the next turn of the loop sees.
                let _ = kill_process(pid, to_pass_on);
            }
        }
    }
}

fn in_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn an_exit_code_is_passed_on() {
        let status = run(shell("exit 7")).unwrap();
        assert_eq!(exit_code(status), ExitCode::from(7));
    }

    #[test]
    fn an_end_by_a_signal_has_a_shells_exit_code() {
        let status = run(shell("kill -TERM $$")).unwrap();
        assert_eq!(exit_code(status), ExitCode::from(128 + 15));
    }

    #[test]
    fn every_line_is_seen_the_last_without_an_end_too() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let lines = Rc::clone(&seen);
        let status = run_watching_lines(shell("printf '#1\\n#2'"), move |line| {
            lines.borrow_mut().push(line.to_owned());
        });
        assert!(status.unwrap().success());
        assert_eq!(*seen.borrow(), ["#1\n", "#2"]);
    }
}
