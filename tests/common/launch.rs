use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::process::Process;
use super::pty::Pty;
use super::subject::{Scope, Subject};
use super::wait::{DEADLINE, until, within};

/// What to start: conditions, options, command. By default drainit's quiet options, all stdio piped.
pub struct Launch {
    subject: Subject,
    init: Option<PathBuf>,
    fixture: Option<PathBuf>,
    steps: Vec<OsString>,
    defaults: bool,
    options: Vec<OsString>,
    separator: bool,
    command: Vec<OsString>,
    stdio: [Option<Stdio>; 3],
}

impl Launch {
    pub fn new<S: AsRef<OsStr>>(steps: &[S]) -> Self {
        Self {
            subject: Subject::from_env(),
            init: None,
            fixture: None,
            steps: owned(["pristine"].iter().map(OsStr::new).chain(steps.iter().map(AsRef::as_ref))),
            defaults: true,
            options: Vec::new(),
            separator: true,
            command: Vec::new(),
            stdio: [None, None, None],
        }
    }

    /// Steps of the fixture, carried out by the process that then executes the binary under test.
    pub fn under<S: AsRef<OsStr>>(mut self, steps: impl IntoIterator<Item = S>) -> Self {
        self.steps.extend(owned(steps));
        self
    }

    /// Another copy of the binary under test.
    pub fn init_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.init = Some(path.into());
        self
    }

    /// Another copy of the fixture for the worker.
    pub fn fixture_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.fixture = Some(path.into());
        self
    }

    /// No options but those that the test gives.
    pub fn bare(mut self) -> Self {
        self.defaults = false;
        self
    }

    pub fn options<S: AsRef<OsStr>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(self.subject.options(&owned(options)));
        self
    }

    pub fn scope(mut self, scope: Scope) -> Self {
        self.options.extend(self.subject.scope(scope));
        self
    }

    pub fn subreaper(mut self) -> Self {
        self.options.extend(self.subject.subreaper());
        self
    }

    /// No `--` before the command.
    pub fn without_separator(mut self) -> Self {
        self.separator = false;
        self
    }

    pub fn command<S: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.command = owned(command);
        self
    }

    /// A worker that does as it is told: see the fixture's steps.
    pub fn worker<S: AsRef<OsStr>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        let fixture = self.fixture.clone().unwrap_or_else(super::fixture).into_os_string();
        self.command([fixture].into_iter().chain(owned(steps)))
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdio[0] = Some(stdin.into());
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdio[1] = Some(stdout.into());
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stdio[2] = Some(stderr.into());
        self
    }

    /// With a pty as its controlling terminal.
    pub fn on_terminal(mut self, pty: &Pty) -> Self {
        self.stdio = [(); 3].map(|()| Some(pty.stdio()));
        self.under(["controlling-tty"])
    }

    /// The command line of the binary under test, for a shell to start it.
    pub fn command_line(&self) -> Vec<OsString> {
        let mut line = vec![self.init.as_deref().unwrap_or(self.subject.path()).into()];
        if self.defaults {
            line.extend(self.subject.quiet_options());
        }
        line.extend_from_slice(&self.options);
        if self.separator {
            line.push("--".into());
        }
        line.extend_from_slice(&self.command);
        line
    }

    pub fn start(self) -> Running {
        let line = self.command_line();
        self.start_program(line)
    }

    /// The command alone, as if there were no init: to compare with.
    pub fn start_without_init(self) -> Running {
        let command = self.command.clone();
        self.start_program(command)
    }

    fn start_program(self, program: Vec<OsString>) -> Running {
        let [stdin, stdout, stderr] = self.stdio.map(|stdio| stdio.unwrap_or_else(Stdio::piped));
        let mut launcher = Command::new(super::fixture())
            .args(&self.steps)
            .arg("--")
            .args(program)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .env_remove("DRAINIT_UNDER_TEST")
            .env_remove("DRAINIT_NOT_RUN")
            // The defaults are those outside of a pod, wherever the tests run.
            .env_remove("KUBERNETES_SERVICE_HOST")
            .spawn()
            .expect("start the fixture");
        Running {
            stdin: launcher.stdin.take(),
            stdout: Lines::read(launcher.stdout.take()),
            stderr: Lines::read(launcher.stderr.take()),
            launcher,
        }
    }

    /// Starts it and waits for its end.
    pub fn run(self) -> Outcome {
        let mut running = self.start();
        drop(running.stdin.take());
        running.outcome()
    }
}

fn owned<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Vec<OsString> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

/// The binary under test and all below it, which end with this guard.
pub struct Running {
    launcher: Child,
    pub stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    /// The binary under test: the first process, going down from the launcher, that is not the fixture.
    #[track_caller]
    pub fn init(&self) -> Process {
        let launcher = self.launcher();
        let fixture = super::fixture();
        until(format_args!("the binary under test has started\n{self}"), || {
            let mut process = launcher;
            while process.runs(&fixture) {
                process = process.children().into_iter().find(|child| child.is_alive())?;
            }
            (process.is_alive() && process.path("exe").read_link().is_ok()).then_some(process)
        })
    }

    /// The process that runs the command.
    #[track_caller]
    pub fn worker(&self) -> Process {
        let init = self.init();
        until(format_args!("the worker has started\n{self}"), || {
            init.children().into_iter().find(|child| child.is_alive())
        })
    }

    /// The outermost process, outside of the namespace.
    pub fn launcher(&self) -> Process {
        Process(self.launcher.id().try_into().unwrap())
    }

    /// PID 1 of the namespace, which with `nested` is not the binary under test.
    pub fn parent_of_init(&self) -> Process {
        Process(self.init().stat(4).try_into().unwrap())
    }

    pub fn signal(&self, signal: i32) {
        self.init().signal(signal);
    }

    /// Waits for a line of output, the worker's or its children's.
    #[track_caller]
    pub fn expect(&self, line: &str) {
        let found = within(DEADLINE, || {
            let seen = self.stdout.get().iter().any(|l| l == line);
            (seen || self.stdout.ended()).then_some(seen)
        });
        assert!(found == Some(true) || self.has(line), "no line {line:?}\n{self}");
    }

    #[track_caller]
    pub fn expect_on_stderr(&self, part: &str) {
        until(format_args!("{part:?} on stderr\n{self}"), || {
            self.stderr.get().iter().any(|line| line.contains(part)).then_some(())
        });
    }

    pub fn has(&self, line: &str) -> bool {
        self.stdout.get().iter().any(|l| l == line)
    }

    pub fn lines(&self) -> Vec<String> {
        self.stdout.get().clone()
    }

    pub fn errors(&self) -> Vec<String> {
        self.stderr.get().clone()
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Whether the binary under test has ended.
    pub fn has_ended(&mut self) -> bool {
        self.launcher.try_wait().expect("wait").is_some()
    }

    /// How the binary under test ended, as whoever started the container sees it.
    #[track_caller]
    pub fn wait(&mut self) -> Exit {
        let status = within(DEADLINE, || self.launcher.try_wait().expect("wait"));
        let status = status.unwrap_or_else(|| panic!("does not end within {DEADLINE:?}\n{self}"));
        self.stdout.finish();
        self.stderr.finish();
        status.into()
    }

    #[track_caller]
    pub fn outcome(&mut self) -> Outcome {
        let exit = self.wait();
        Outcome { exit, stdout: self.stdout.get().clone(), stderr: self.stderr.get().join("\n") }
    }
}

impl Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stdout = self.stdout.get();
        let tail = &stdout[stdout.len().saturating_sub(20)..];
        write!(f, "stdout ({} lines): {tail:?}\nstderr: {:?}", stdout.len(), self.stderr.get())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The end of PID 1 is the end of its namespace. It comes first: were it orphaned, it could escape.
        for child in self.launcher().children() {
            unsafe { libc::kill(child.0, libc::SIGKILL) };
        }
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Self::Code(code),
            None => Self::Signal(status.signal().unwrap_or(0)),
        }
    }
}

#[derive(Debug)]
pub struct Outcome {
    pub exit: Exit,
    pub stdout: Vec<String>,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.exit, Exit::Code(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn assert_says(&self, line: &str) -> &Self {
        assert!(self.stdout.iter().any(|l| l == line), "no {line:?} in {self:#?}");
        self
    }

    /// Nothing below the init has outlived it (see `nested`).
    #[track_caller]
    pub fn assert_nothing_left(&self) -> &Self {
        assert!(!self.stdout.iter().any(|l| l == "survivors"), "{self:#?}");
        self
    }
}

/// A stream, read as it comes.
struct Lines {
    seen: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn read(stream: Option<impl Read + Send + 'static>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&seen);
        let reader = stream.map(|stream| {
            std::thread::spawn(move || {
                let lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
                for line in lines {
                    copy.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
                }
            })
        });
        Self { seen, reader }
    }

    fn get(&self) -> MutexGuard<'_, Vec<String>> {
        self.seen.lock().unwrap()
    }

    fn ended(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    #[track_caller]
    fn finish(&self) {
        until("the end of the output", || self.ended().then_some(()));
    }
}
