//! The house rules that no compiler checks: who may know whom, and what the core may not touch.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// A module at the top of `src`, and the ones it may name. Arrows point inward only:
/// cli → daemon → {sys, admin} → core.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("core", &[]),
    ("http", &[]),
    ("config", &["core"]),
    ("sys", &["core", "config"]),
    ("admin", &["core", "config"]),
    ("client", &["core", "config", "http"]),
    ("log", &["config", "sys"]),
    ("cli", &["config", "core"]),
    ("daemon", &["config", "core", "sys", "admin", "log", "http"]),
];

/// What would make the core impure, or its histories impossible to replay.
const NOT_IN_CORE: [&str; 12] = [
    "tokio",
    "nix",
    "libc",
    "std::io",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
];

/// Longer files hold two ideas.
const LINES_MAX: usize = 600;

#[test]
fn modules_reach_inward_only() {
    let mut broken = Vec::new();
    for (module, allowed) in MAY_USE {
        for (file, line, text) in lines_of(module) {
            for used in uses(&text) {
                if used != module && !allowed.contains(&used.as_str()) {
                    broken.push(format!(
                        "{}:{line}: {module} must not know {used}: {}",
                        file.display(),
                        text.trim()
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_module_has_its_place() {
    let known: Vec<&str> =
        MAY_USE.iter().map(|(module, _)| *module).chain(["lib", "main", "entry"]).collect();
    for entry in fs::read_dir(source()).unwrap().flatten() {
        let name = entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(known.contains(&name.as_str()), "src/{name}: say in MAY_USE what it may know");
    }
}

#[test]
fn the_core_is_pure() {
    let impure: Vec<_> = lines_of("core")
        .into_iter()
        .filter(|(_, _, text)| NOT_IN_CORE.iter().any(|word| text.contains(word)) || text.contains("async "))
        .map(|(file, line, text)| format!("{}:{line}: {}", file.display(), text.trim()))
        .collect();
    assert!(impure.is_empty(), "\n{}", impure.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    let outside: Vec<_> = all_lines()
        .into_iter()
        .filter(|(file, _, text)| {
            !file.starts_with(source().join("sys")) && !file.ends_with("main.rs") && text.contains("unsafe ")
        })
        .map(|(file, line, _)| format!("{}:{line}", file.display()))
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn the_core_does_not_wave_phases_through() {
    // A wildcard arm over a state would swallow the next state that somebody adds.
    let waved: Vec<_> = lines_of("core")
        .into_iter()
        .filter(|(file, _, text)| text.trim_start().starts_with("_ =>") && !file.ends_with("signal.rs"))
        .map(|(file, line, _)| format!("{}:{line}", file.display()))
        .collect();
    assert!(waved.is_empty(), "{waved:?}");
}

#[test]
fn files_are_small() {
    let mut files: Vec<PathBuf> = Vec::new();
    walk(&source(), &mut files);
    walk(&root().join("tests"), &mut files);
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines, {LINES_MAX} at most", file.display());
    }
}

/// The modules at the top that a line names as `crate::module`.
fn uses(line: &str) -> Vec<String> {
    line.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => {
                list.split('}').next().unwrap_or_default().split(',').map(first_name).collect::<Vec<_>>()
            }
            None => vec![first_name(rest)],
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn first_name(text: &str) -> String {
    text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn lines_of(module: &str) -> Vec<(PathBuf, usize, String)> {
    let (folder, file) = (source().join(module), source().join(format!("{module}.rs")));
    let lines: Vec<_> =
        all_lines().into_iter().filter(|(path, _, _)| path.starts_with(&folder) || *path == file).collect();
    assert!(!lines.is_empty(), "no module {module}");
    lines
}

/// Every line of code: comments and the tests at a file's end are left out.
fn all_lines() -> Vec<(PathBuf, usize, String)> {
    let mut files = Vec::new();
    walk(&source(), &mut files);
    let mut all = Vec::new();
    for file in files.into_iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.lines().take_while(|line| !line.starts_with("mod tests"));
        let code = code.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        all.extend(code.map(|(number, line)| (file.clone(), number + 1, line.to_owned())));
    }
    all
}

fn is_test(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_string_lossy();
    ["tests.rs", "testing.rs", "floods.rs"].contains(&name.as_ref())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn source() -> PathBuf {
    root().join("src")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
