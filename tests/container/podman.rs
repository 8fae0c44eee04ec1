//! podman as it can be had on this host, and the image that the tests run.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::not_run::cannot_run;

/// On what the tests leave for a while.
pub(crate) const LABEL: &str = "drainit.test=1";

/// What podman may need to start a container, tried in this order. A root without CAP_SYS_RESOURCE is refused
/// podman's default limits, and crun refuses a hybrid cgroup hierarchy.
const SETTINGS: [Option<&str>; 3] = [
    None,
    Some("[containers]\ndefault_ulimits = []\n"),
    Some("[containers]\ndefault_ulimits = []\n[engine]\nruntime = \"runc\"\n"),
];

/// A podman that has been seen to run the image.
#[derive(Debug)]
pub(crate) struct Podman {
    settings: Option<PathBuf>,
    pub(crate) image: String,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Says so where there is none, and the test is to return.
#[track_caller]
pub(crate) fn podman() -> Option<&'static Podman> {
    static FOUND: OnceLock<Result<Podman, String>> = OnceLock::new();
    match FOUND.get_or_init(Podman::find) {
        Ok(podman) => Some(podman),
        Err(why) => {
            cannot_run(why);
            None
        }
    }
}

impl Podman {
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        run(self.settings.as_deref(), arguments)
    }

    /// Its standard output, where it must succeed.
    pub(crate) fn must<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "podman: {ended:?}");
        ended.stdout
    }

    fn find() -> Result<Self, String> {
        if run(None, ["--version"]).code != 0 {
            return Err("there is no podman".to_owned());
        }
        let image = image()?;
        let own = std::env::var_os("CONTAINERS_CONF").is_some();
        let mut refusal = String::new();
        for (number, settings) in SETTINGS.into_iter().enumerate().take(if own { 1 } else { SETTINGS.len() })
        {
            let settings = settings.map(|text| {
                let path = scratch().join(format!("containers-{number}.conf"));
                fs::write(&path, text).expect("target/tmp can be written");
                path
            });
            let trial = ["run", "--rm", "--publish=127.0.0.1::8080", &image, "--version"];
            let ended = run(settings.as_deref(), trial);
            if ended.code == 0 {
                return Ok(Self { settings, image });
            }
            refusal = ended.stderr;
        }
        Err(format!("podman cannot start a container: {refusal}"))
    }
}

fn run<S: AsRef<OsStr>>(settings: Option<&Path>, arguments: impl IntoIterator<Item = S>) -> Ended {
    // podman has been seen to hang; a test must not.
    let mut command = Command::new("timeout");
    // conmon leaves a file named oom where it was started, when a container is killed for its memory.
    command.current_dir(std::env::temp_dir());
    command.args(["--kill-after=5", "120", "podman"]).args(arguments).stdin(Stdio::null());
    if let Some(settings) = settings {
        command.env("CONTAINERS_CONF", settings);
    }
    let output = command.output().expect("coreutils' timeout");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The image of the Dockerfile's stage for a binary of the host, and the worker on top; named for what is in it, so
/// that it is built when something has changed and found otherwise.
fn image() -> Result<String, String> {
    let drainit = Path::new(env!("CARGO_BIN_EXE_drainit"));
    let worker = worker();
    let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
    let mut hasher = DefaultHasher::new();
    for path in [drainit, &worker, &dockerfile] {
        hasher.write(&fs::read(path).expect("what was built can be read"));
    }
    let tag = format!("localhost/drainit-test:{:016x}", hasher.finish());
    if run(None, ["image", "exists", &tag]).code == 0 {
        return Ok(tag);
    }
    // Those of earlier builds; an hour, because other checkouts have theirs.
    let label = format!("--filter=label={LABEL}");
    run(None, ["image", "prune", "--all", "--force", "--filter=until=1h", &label]);

    let context = scratch().join(format!("image-{}", std::process::id()));
    fs::create_dir_all(context.join("dist")).expect("target/tmp can be written");
    fs::copy(drainit, context.join("dist/drainit")).expect("target/tmp can be written");
    fs::copy(worker, context.join("worker")).expect("target/tmp can be written");
    let base = format!("{tag}-base");
    let on_top = format!("FROM {base}\nLABEL {LABEL}\nCOPY worker /worker\n");
    fs::write(context.join("Containerfile"), on_top).expect("target/tmp can be written");
    let built = build(&base, &dockerfile, &["--target=host"], &context)
        .and_then(|()| build(&tag, &context.join("Containerfile"), &["--squash-all"], &context));
    run(None, ["rmi", &base]);
    let _ = fs::remove_dir_all(&context);
    built.map(|()| tag)
}

fn build(tag: &str, file: &Path, options: &[&str], context: &Path) -> Result<(), String> {
    // No layers: what is cached of a test's build must not end up in somebody's image.
    let mut arguments: Vec<&OsStr> =
        ["build", "--layers=false", "--tag", tag, "--file"].map(OsStr::new).to_vec();
    arguments.push(file.as_os_str());
    arguments.extend(options.iter().map(OsStr::new));
    arguments.push(context.as_os_str());
    match run(None, arguments) {
        Ended { code: 0, .. } => Ok(()),
        Ended { stderr, .. } => Err(format!("podman cannot build an image: {stderr}")),
    }
}

/// Cargo builds no example for a single test, and tells no test where one is.
fn worker() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", "container-worker", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(built.status.success(), "the worker cannot be built");
    let executable = built.stdout.split(|byte| *byte == b'\n').find_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        let ours = message["target"]["name"] == "container-worker";
        ours.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.expect("cargo names what it has built")
}
