//! How the command fails: one sentence, a stable code for programs, and an exit code.

use std::{fmt, io};

use agentkeep::{chat_log::ExportError, core::Error};

/// Why the command ends without success.
#[derive(Debug)]
pub struct Failure {
    /// The stable name of the kind of failure.
    pub code: &'static str,
    /// What to tell; `None` when everything is told already.
    pub message: Option<String>,
    /// The exit code of the process.
    pub exit: u8,
}

/// The result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The command was called in a way that cannot work.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: "usage", message: Some(message.into()), exit: 2 }
    }

    /// It ends with this exit code, and what there is to tell has been told.
    pub fn told(exit: u8) -> Self {
        Self { code: "told", message: None, exit }
    }

    /// A file could not be opened, read or written.
    pub fn file(path: &std::path::Path, error: &io::Error) -> Self {
        Self { code: "file", message: Some(format!("{}: {error}", path.display())), exit: 1 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or_default())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = if matches!(error, Error::NotPermitted(_)) { 4 } else { 1 };
        Self { code: error.code(), message: Some(error.to_string()), exit }
    }
}

impl From<io::Error> for Failure {
    /// A fault of standard output. A reader that has seen enough is no failure.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::told(0);
        }
        Self { code: "output", message: Some(format!("the output cannot be written: {error}")), exit: 1 }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Store(error) => error.into(),
            ExportError::Output(error) => error.into(),
        }
    }
}
