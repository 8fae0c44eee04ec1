//! At a terminal: keys, job control, and whose the foreground is.

mod common;

use common::{Exit, Launch, Process, Pty, Running, Scope, nested, pid1, signal_log, until};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

fn at_terminal(launch: Launch, worker: &[impl AsRef<std::ffi::OsStr>]) -> (Pty, Running) {
    let pty = Pty::open();
    let init = launch.on_terminal(&pty).worker(worker).start();
    pty.expect("ready");
    (pty, init)
}

/// The command line of the binary under test, quoted for a shell.
fn init_with(worker: &[&str]) -> String {
    let words = nested().worker(worker).command_line();
    words.iter().map(|word| format!("'{}'", word.display())).collect::<Vec<_>>().join(" ")
}

/// An interactive shell, its prompt `$?`, which can start the binary under test on this terminal.
struct Shell {
    pty: Pty,
    running: Running,
}

impl Shell {
    /// As PID 1's child, as a login shell is.
    fn start() -> Self {
        let pty = Pty::open();
        let shell = ["bash", "--norc", "--noprofile", "--noediting", "-i"];
        let running = Launch::new(&["pidns", "nest"])
            .under(["clear-env", "env=PS1=<$?> ", "env=PATH=/usr/bin:/bin"])
            .on_terminal(&pty)
            .command(["/usr/bin/env"].iter().chain(&shell))
            .start_without_init();
        pty.expect("<0> ");
        Self { pty, running }
    }

    fn type_line(&self, line: &str) {
        self.pty.send(&format!("{line}\n"));
        // What is typed is echoed.
        self.pty.expect("\r\n");
    }

    fn process(&self) -> Process {
        self.running.init()
    }

    /// Starts the binary under test; it and its worker.
    fn run(&self, background: &str) -> Job {
        self.type_line(&format!("{}{background}", init_with(&["say=started", "pause"])));
        self.pty.expect("started");
        let first_child = |parent: Process| until("a child", || parent.children().first().copied());
        let init = first_child(self.process());
        Job { init, worker: first_child(init) }
    }

    /// Until the keys go to the job, of which the init may be the one that takes them.
    #[track_caller]
    fn wait_until_in_foreground(&self, job: &Job) {
        let groups = [job.init.group(), job.worker.group()];
        until("the job in the foreground", || groups.contains(&self.pty.foreground_group()).then_some(()));
    }
}

struct Job {
    init: Process,
    worker: Process,
}

impl Job {
    #[track_caller]
    fn wait_for_state(&self, state: char) {
        until(format!("both {state}"), || {
            (self.init.state() == state && self.worker.state() == state).then_some(())
        });
    }
}

#[test]
fn the_worker_has_the_foreground() {
    let (pty, init) = at_terminal(pid1(), &["say-foreground", "say=ready", "pause"]);
    pty.wait_for_foreground(init.worker().group());
}

#[track_caller]
fn assert_ctrl_c_arrives_once(launch: Launch) {
    let (pty, init) = at_terminal(launch, &signal_log("USR2"));
    pty.wait_for_foreground(init.worker().group());
    pty.send(CTRL_C);
    pty.expect("got 2 0");
    init.signal(libc::SIGUSR2);
    // Whatever was forwarded as well comes before it, having been sent before.
    let between = until("USR2", || pty.look().split_once("got 12 0").map(|(before, _)| before.to_owned()));
    assert!(!between.contains("got 2 0"), "twice: {between}");
}

#[test]
fn ctrl_c_reaches_the_worker_once() {
    for scope in [Scope::Leader, Scope::Group] {
        assert_ctrl_c_arrives_once(pid1().scope(scope));
    }
}

#[test]
fn ctrl_c_reaches_the_worker_once_where_init_is_not_pid_1() {
    for scope in [Scope::Leader, Scope::Group] {
        assert_ctrl_c_arrives_once(nested().scope(scope));
    }
}

#[test]
fn ctrl_backslash_ends_a_worker_that_does_not_catch_it() {
    let (pty, mut init) = at_terminal(pid1(), &["limit=CORE:0", "say=ready", "pause"]);
    pty.wait_for_foreground(init.worker().group());
    pty.send(CTRL_BACKSLASH);
    assert_eq!(init.wait(), Exit::Code(128 + libc::SIGQUIT));
}

#[test]
fn ctrl_c_ends_a_worker_that_does_not_catch_it() {
    let (pty, mut init) = at_terminal(pid1(), &["say=ready", "pause"]);
    pty.wait_for_foreground(init.worker().group());
    pty.send(CTRL_C);
    assert_eq!(init.wait(), Exit::Code(128 + libc::SIGINT));
}

#[test]
fn a_new_window_size_reaches_the_worker() {
    let (pty, _init) = at_terminal(pid1(), &signal_log("TERM"));
    pty.resize(50, 132);
    pty.expect(&format!("got {} 0", libc::SIGWINCH));
}

#[test]
fn a_hang_up_ends_a_worker_that_does_not_catch_it() {
    let (pty, mut init) = at_terminal(pid1(), &["say=ready", "pause"]);
    pty.wait_for_foreground(init.worker().group());
    pty.hang_up();
    assert_eq!(init.wait(), Exit::Code(128 + libc::SIGHUP));
}

#[test]
fn a_shell_as_worker_has_job_control() {
    let pty = Pty::open();
    let init = pid1()
        .under(["clear-env", "env=PS1=<$?> ", "env=PATH=/usr/bin:/bin"])
        .on_terminal(&pty)
        .command(["bash", "--norc", "--noprofile", "--noediting", "-i"])
        .start();
    pty.expect("<0> ");
    assert!(!pty.look().contains("no job control"));
    pty.send(&format!("{} say=started pause\n", common::fixture().display()));
    pty.expect("\r\nstarted\r\n");
    pty.send(CTRL_Z);
    pty.expect("Stopped");
    pty.expect("<148> ");
    pty.send("fg\n");
    pty.expect("pause\r\n");
    // The shell names the job before it gives it the terminal.
    let shell = init.init().children()[0];
    let job = shell.children()[0].group();
    until("the job in the foreground", || (pty.foreground_group() == job).then_some(()));
    pty.send(CTRL_C);
    pty.expect("<130> ");
    pty.send("echo still $((40 + 2))\n");
    pty.expect("still 42");
}

#[test]
fn ctrl_z_suspends_the_job_and_fg_resumes_it() {
    let shell = Shell::start();
    let job = shell.run("");
    // Twice, as what the first time left behind may spoil the second.
    for _ in 0..2 {
        shell.wait_until_in_foreground(&job);
        shell.pty.send(CTRL_Z);
        shell.pty.expect("Stopped");
        job.wait_for_state('T');
        shell.type_line("fg");
        job.wait_for_state('S');
    }
    shell.wait_until_in_foreground(&job);
    shell.pty.send(CTRL_C);
    shell.pty.expect("<130> ");
}

#[test]
fn a_start_in_the_background_does_not_steal_the_terminal() {
    let shell = Shell::start();
    shell.run(" &");
    shell.type_line("echo still $((40 + 2))");
    shell.pty.expect("still 42");
    assert_eq!(shell.pty.foreground_group(), shell.process().group());
}

#[test]
fn a_job_brought_from_the_background_gets_the_keys() {
    let shell = Shell::start();
    let job = shell.run(" &");
    shell.type_line("fg");
    shell.wait_until_in_foreground(&job);
    shell.pty.send(CTRL_C);
    shell.pty.expect("<130> ");
}

#[test]
fn the_foreground_is_returned_at_the_end() {
    // Else the shell, which is not interactive and takes nothing back, could not read any more.
    let pty = Pty::open();
    let init = init_with(&["exit=0"]);
    let _running = nested()
        .on_terminal(&pty)
        .command(["/bin/sh", "-c", &format!("{init}; echo ended; cat")])
        .start_without_init();
    pty.expect("ended");
    pty.send("hello\n");
    // Once as the echo, once from cat.
    pty.expect("hello\r\n");
    pty.expect("hello\r\n");
}

#[test]
fn tstp_and_stop_never_stop_pid_1() {
    let (pty, init) = at_terminal(pid1().scope(Scope::Leader), &signal_log("TERM"));
    let process = init.init();
    process.signal(libc::SIGTSTP);
    process.signal(libc::SIGTTIN);
    process.signal(libc::SIGTTOU);
    process.signal(libc::SIGUSR1);
    pty.expect("got 10 0");
    assert_ne!(process.state(), 'T');
}

#[test]
fn tstp_suspends_both_and_cont_resumes_both_where_init_is_not_pid_1() {
    // The group is not orphaned: its parent, the shell, is in the same session and another group.
    let shell = Shell::start();
    let job = shell.run(" &");
    job.init.signal(libc::SIGTSTP);
    job.wait_for_state('T');
    job.init.signal(libc::SIGCONT);
    job.wait_for_state('S');
}
