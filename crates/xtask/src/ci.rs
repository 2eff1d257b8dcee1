//! What a change must pass: format, lints and documentation, then the tests.
//!
//! This is the only place that defines these steps; `.ci/run` calls them.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{postgres, process, test, workspace};

/// Name, arguments for cargo, flags for rustdoc.
type Step = (&'static str, &'static [&'static str], &'static str);

const LINTS: [Step; 3] = [
    ("format (to mend: cargo fmt)", &["fmt", "--all", "--check"], ""),
    ("lints", &["clippy", "--locked", "--workspace", "--all-targets", "--all-features", "--", "-Dwarnings"], ""),
    // The command's pages would overwrite those of the library, which has the same name.
    (
        "documentation",
        &["doc", "--locked", "--workspace", "--exclude", "agentkeep-cli", "--all-features", "--no-deps"],
        "-Dwarnings",
    ),
];

/// Where the recorded data lies beside a checkout.
const DATA: &str = "../shared/data";

/// Checks format, lints and documentation, all of them even if one fails.
pub fn lint() -> Result<ExitCode> {
    let mut failed = Vec::new();
    for (name, arguments, rustdoc_flags) in LINTS {
        eprintln!("== {name}");
        let mut cargo = workspace::cargo();
        cargo.args(arguments);
        if !rustdoc_flags.is_empty() {
            cargo.env("RUSTDOCFLAGS", rustdoc_flags);
        }
        let status = process::run(cargo).context("cannot run cargo")?;
        if !status.success() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Runs [`lint`] and, if that passes, every test, those on the recorded data too if it lies beside the checkout.
pub fn ci() -> Result<ExitCode> {
    let linted = lint()?;
    if linted != ExitCode::SUCCESS {
        return Ok(linted);
    }
    eprintln!("== tests");
    let data = workspace::root().join(DATA);
    let data = data.is_dir().then_some(data);
    test::test(data.as_deref(), &postgres::Options::default(), &[])
}
