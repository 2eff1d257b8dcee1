//! The question before what cannot be undone.

use std::io::{self, IsTerminal, Write};

use crate::failure::{Failure, Outcome};

/// Goes on only if the person says yes: by `--yes`, or by typing it on a terminal.
pub fn confirm(what: &str, yes: bool) -> Outcome {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!("{what} Without a terminal to ask on, --yes is needed.")));
    }
    eprint!("{what} Type yes to go on: ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure { code: "canceled", message: Some("nothing was changed".to_owned()), exit: 1 })
}
