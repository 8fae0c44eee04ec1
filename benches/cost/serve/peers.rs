//! Peers that no Debian package has as they are now: from npm and PyPI, in folders that outlive a run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const PM2_RUNTIME: &str = "node_modules/pm2/bin/pm2-runtime";
pub(crate) const PM2_COMMAND: &str = "node_modules/pm2/bin/pm2";

/// Where PM2 is, if it is there.
pub(crate) fn pm2() -> Option<PathBuf> {
    let folder = folder("pm2");
    folder.join(PM2_RUNTIME).is_file().then_some(folder)
}

/// Where gunicorn and uvicorn are, if they are there.
pub(crate) fn python() -> Option<PathBuf> {
    let folder = folder("python").join("bin");
    ["gunicorn", "uvicorn"].iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

/// See to it that they are there, while there is a network: see [`crate::network`].
pub(crate) fn get_pm2() -> Result<(), String> {
    if pm2().is_some() {
        return Ok(());
    }
    let words = ["npm", "install", "--no-audit", "--no-fund", "--omit=optional", "pm2@7", "--prefix"];
    run(words.iter().map(OsStr::new).chain([folder("pm2").as_os_str()]))
}

pub(crate) fn get_python() -> Result<(), String> {
    if python().is_some() {
        return Ok(());
    }
    let folder = folder("python");
    run(["python3", "-m", "venv"].iter().map(OsStr::new).chain([folder.as_os_str()]))?;
    let pip = folder.join("bin/pip");
    let words = ["install", "--quiet", "gunicorn", "uvicorn", "uvicorn-worker"];
    run([pip.as_os_str()].into_iter().chain(words.iter().map(OsStr::new)))
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn run<'a>(words: impl Iterator<Item = &'a OsStr>) -> Result<(), String> {
    let words: Vec<_> = words.collect();
    let program = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let output = Command::new("timeout").arg("60").args(&words).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let told = errors.lines().find(|line| line.contains("error") || line.contains("ERR"));
    Err(format!("{program}: {}", told.unwrap_or("failed")))
}
