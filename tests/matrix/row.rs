//! What there is to know about a server: how it is had, started and asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::trial::WORKERS;
use crate::common::cannot_run;

/// Lists are words, as a shell splits them. In commands and files `{dir}` stands for where the files are, `{tmp}` for
/// where a server may write, `{port}` for the port.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// Programs in PATH, and files, which may end in `*`.
    pub needs: &'static str,
    /// From `tests/matrix/servers`.
    pub files: &'static str,
    pub build: &'static str,
    pub command: &'static str,
    pub socket: Socket,
    pub speaks: Protocol,
    /// `--stop-signal`
    pub stop: &'static str,
    pub modes: &'static [Mode],
    /// Started as root it serves as another user.
    pub drops_root: bool,
    pub in_container: Result<(), &'static str>,
}

impl Row {
    /// drainit's own.
    pub fn options(&self, mode: Mode, port: u16) -> [String; 4] {
        [
            format!("--workers={WORKERS}"),
            format!("--listen={port}"),
            format!("--sockets={}", mode.word()),
            format!("--stop-signal={}", self.stop),
        ]
    }
}

/// How a server comes by its socket, in the word that `/status` has for it.
#[derive(Clone, Copy, Debug)]
pub enum Socket {
    Adopted,
    Inherited,
}

impl Socket {
    pub fn word(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Inherited => "inherited",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// The path of a page.
    Http(&'static str),
    /// The file of a script.
    FastCgi(&'static str),
}

/// How the workers share the port: `--sockets`.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    Shared,
    PerWorker,
    Sticky,
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerWorker => "per-worker",
            Self::Sticky => "sticky",
        }
    }
}

/// What a row's placeholders stand for.
#[derive(Clone, Debug)]
pub struct Setting {
    pub dir: String,
    pub tmp: String,
    pub port: u16,
}

impl Setting {
    pub fn fill(&self, text: &str) -> String {
        let port = self.port.to_string();
        text.replace("{dir}", &self.dir).replace("{tmp}", &self.tmp).replace("{port}", &port)
    }

    pub fn words(&self, command: &str) -> Vec<String> {
        words(command).iter().map(|word| self.fill(word)).collect()
    }
}

/// A directory that every user can read, with the files of a row.
pub struct Stage(tempfile::TempDir);

impl Stage {
    /// Says so where something is missing, and the test is to return.
    #[track_caller]
    pub fn new(row: &Row) -> Option<Self> {
        if let Some(need) = words(row.needs).iter().find(|need| !is_there(need)) {
            cannot_run(&format!("no {need}"));
            return None;
        }
        let stage = Self(tempfile::tempdir().expect("a temporary directory"));
        open_to_all(stage.path(), 0o755);
        fs::create_dir(stage.path().join("tmp")).expect("the directory is new");
        open_to_all(&stage.path().join("tmp"), 0o1777);
        Some(stage)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where the stage itself is what the server sees.
    pub fn setting(&self, port: u16) -> Setting {
        let dir = self.path().display().to_string();
        Setting { tmp: format!("{dir}/tmp"), dir, port }
    }

    /// Its files, as the server is to see them, and what is built from them.
    pub fn furnish(&self, row: &Row, setting: &Setting) {
        for name in words(row.files) {
            let text = fs::read_to_string(source().join(&name)).expect("the row's file");
            fs::write(self.path().join(name), setting.fill(&text)).expect("the stage can be written");
        }
        if let [program, arguments @ ..] = &self.setting(setting.port).words(row.build)[..] {
            let output = Command::new(program).args(arguments).output().expect("what it is built with");
            assert!(output.status.success(), "{}: {output:?}", row.name);
        }
    }
}

fn words(text: &str) -> Vec<String> {
    shell_words::split(text).expect("a row's words")
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/matrix/servers")
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own directory");
}

fn is_there(need: &str) -> bool {
    let path = Path::new(need);
    match need.strip_suffix('*') {
        Some(start) => fs::read_dir(path.parent().unwrap_or(path)).is_ok_and(|found| {
            found.flatten().any(|entry| entry.path().to_string_lossy().starts_with(start))
        }),
        None if path.is_absolute() => path.exists(),
        None => std::env::var_os("PATH")
            .is_some_and(|list| std::env::split_paths(&list).any(|folder| folder.join(need).exists())),
    }
}
