//! The worker is what it would be without an init: everything it inherits, and nothing more.

mod common;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Stdio;

use common::{Launch, Process, Running, bit, cannot_run, is_root, nested, pid1, until};

const IDLE: [&str; 2] = ["say=ready", "pause"];

fn idle_worker(launch: Launch) -> (Running, Process) {
    let running = launch.worker(IDLE).start();
    running.expect("ready");
    let worker = running.worker();
    (running, worker)
}

/// All that a process inherits and the kernel shows.
fn inherited(process: Process) -> Vec<(&'static str, String)> {
    let fields = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Cpus_allowed",
        "Mems_allowed",
    ];
    let files = ["limits", "oom_score_adj", "timerslack_ns", "coredump_filter", "personality", "cgroup"];
    let links = ["cwd", "root"];
    let numbers = [("nice", 19), ("priority", 18), ("realtime priority", 40), ("policy", 41)];
    let fields = fields.map(|name| (name, process.status(name)));
    let files = files.map(|name| (name, process.text(name)));
    let links = links.map(|name| (name, format!("{:?}", process.path(name).read_link())));
    let numbers = numbers.map(|(name, field)| (name, process.stat(field).to_string()));
    fields.into_iter().chain(files).chain(links).chain(numbers).collect()
}

#[track_caller]
fn assert_same_as_without_init(steps: &[&str]) {
    let alone = pid1().under(["nest"]).under(steps).worker(IDLE).start_without_init();
    alone.expect("ready");
    let command = alone.launcher().children()[0].children()[0];
    let (_init, worker) = idle_worker(pid1().under(steps));
    for (seen, expected) in inherited(worker).into_iter().zip(inherited(command)) {
        assert_eq!(seen, expected, "with {steps:?}");
    }
}

#[test]
fn nothing_changes_by_default() {
    assert_same_as_without_init(&[]);
}

#[test]
fn umask_nice_limits_and_oom_score_are_kept() {
    assert_same_as_without_init(&[
        "umask=027",
        "nice=19",
        "limit=NOFILE:200",
        "limit=FSIZE:1000000",
        "limit=STACK:4194304",
        "write=/proc/self/oom_score_adj:500",
        "timer-slack=70000",
        "write=/proc/self/coredump_filter:0x7f",
    ]);
}

#[test]
fn blocked_and_ignored_signals_are_kept() {
    assert_same_as_without_init(&["block=USR1,TERM,CHLD,34,64", "ignore=HUP,INT,PIPE,TSTP,TTOU,40"]);
}

#[test]
fn blocked_signals_that_libc_hides_are_kept() {
    assert_same_as_without_init(&["block=32,33"]);
}

#[test]
fn credentials_and_capabilities_are_kept() {
    if !is_root() {
        return cannot_run("needs root to give credentials up");
    }
    assert_same_as_without_init(&["drop-capabilities", "no-new-privs"]);
}

#[test]
fn a_worker_starts_with_no_signal_blocked_ignored_or_caught() {
    let (_init, worker) = idle_worker(pid1());
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(worker.signals(set), 0, "{set}");
    }
}

#[test]
fn signals_ignored_at_entry_are_ignored_by_the_worker() {
    // As nohup does.
    let (_init, worker) = idle_worker(pid1().under(["ignore=HUP,QUIT,TERM,PIPE"]));
    let expected: u64 = [libc::SIGHUP, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE].map(bit).iter().sum();
    assert_eq!(worker.signals("SigIgn"), expected);
}

#[test]
fn a_worker_leads_its_own_process_group() {
    let (init, worker) = idle_worker(pid1());
    assert_eq!(worker.group(), i64::from(worker.0));
    assert_ne!(init.init().group(), worker.group());
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let odd: [&[u8]; 7] = [b"", b"-l", b"--", b"--help", b"a b\n\t", b"\xff\xfe", b"{fd} $HOME *"];
    let odd = odd.map(|bytes| OsString::from_vec(bytes.to_vec()));
    let command = ["say=ready", "pause"].map(OsString::from).into_iter().chain(odd.clone());
    let init = pid1().worker(command).start();
    init.expect("ready");
    let arguments = init.worker().arguments();
    assert_eq!(arguments[0], common::fixture().as_os_str().as_bytes());
    assert!(arguments[3..].iter().eq(odd.iter().map(|word| word.as_bytes())), "{arguments:?}");
}

#[test]
fn dashes_after_the_command_are_the_commands() {
    for dashes in ["-l", "-v", "-h", "-s", "--help", "--version", "--grace=1s", "-e"] {
        let outcome = pid1().without_separator().command(["printf", "%s\\n", dashes]).run();
        outcome.assert_code(0).assert_says(dashes);
    }
}

#[test]
fn the_environment_arrives_byte_for_byte() {
    let entries: [&[u8]; 7] =
        [b"PATH=/bin", b"TWICE=1", b"TWICE=2", b"EMPTY=", b"RAW=\xff\xfe=", b"=odd", b"no-equals-sign"];
    let steps = entries.map(|entry| OsString::from_vec([b"env=", entry].concat()));
    let launch = pid1().under(["clear-env"]).under(steps);
    let (_init, worker) = idle_worker(launch);
    assert_eq!(worker.environment(), entries);
}

#[test]
fn an_empty_environment_stays_empty() {
    let (_init, worker) = idle_worker(pid1().under(["clear-env"]));
    assert!(worker.environment().is_empty(), "{:?}", worker.environment());
}

#[test]
fn the_working_directory_is_kept_and_not_pinned_by_init() {
    let directory = tempfile::tempdir().unwrap();
    let (init, worker) = idle_worker(pid1().under([format!("cwd={}", directory.path().display())]));
    assert_eq!(fs::read_link(worker.path("cwd")).unwrap(), directory.path().canonicalize().unwrap());
    let init = init.init();
    until("init has left the directory it was started in", || {
        (fs::read_link(init.path("cwd")).unwrap() == std::path::Path::new("/")).then_some(())
    });
}

#[test]
fn a_deleted_working_directory_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let cwd = format!("cwd={}", directory.path().display());
    pid1().under([cwd.as_str(), "remove-cwd"]).worker(["exit=12"]).run().assert_code(12);
}

#[test]
fn closed_stdin_is_no_obstacle() {
    let (_init, worker) = idle_worker(pid1().under(["close=0"]));
    assert_only_own_stdio(worker);
    pid1().under(["close=0"]).worker(["say=out", "exit=12"]).run().assert_code(12).assert_says("out");
}

#[test]
fn all_stdio_closed_is_no_obstacle() {
    for launch in [pid1(), nested()] {
        launch.under(["close=0", "close=1", "close=2"]).worker(["exit=12"]).run().assert_code(12);
    }
    let init = pid1().under(["close=0", "close=1", "close=2"]).worker(["pause"]).start();
    let fixture = common::fixture();
    let worker = until("the worker", || Some(init.worker()).filter(|worker| worker.runs(&fixture)));
    assert_only_own_stdio(worker);
}

/// A low number left free must not be taken by something of the init's own.
fn assert_only_own_stdio(worker: Process) {
    for (fd, target) in worker.descriptors() {
        let harmless =
            target.to_string_lossy().starts_with("pipe:") || target == std::path::Path::new("/dev/null");
        assert!(fd <= 2 && harmless, "{fd} -> {}", target.display());
    }
}

#[test]
fn stdio_is_passed_on_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    fs::write(&log, "before\n").unwrap();
    let append = OpenOptions::new().append(true).open(&log).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let launch = pid1().stdin(Stdio::from(reader)).stderr(append).under(["nonblock=0"]);
    let (_init, worker) = idle_worker(launch);
    let flags = |fd: i32| {
        let text = worker.text(&format!("fdinfo/{fd}"));
        let flags =
            text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default().trim().to_owned();
        i32::from_str_radix(&flags, 8).unwrap()
    };
    let targets = worker.descriptors();
    let own = fs::read_link(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    assert_eq!(targets[0].1, own);
    assert_eq!(targets[2].1, log.canonicalize().unwrap());
    assert_eq!(flags(0) & (libc::O_NONBLOCK | libc::O_ACCMODE), libc::O_NONBLOCK | libc::O_RDONLY);
    assert_eq!(flags(1) & libc::O_NONBLOCK, 0);
    assert_eq!(flags(2) & (libc::O_APPEND | libc::O_ACCMODE), libc::O_APPEND | libc::O_WRONLY);
}

#[test]
fn stdin_is_read_by_the_worker_alone() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input");
    fs::write(&input, "one\ntwo\nthree\n").unwrap();
    let outcome = pid1().stdin(File::open(&input).unwrap()).command(["cat"]).run();
    assert_eq!(outcome.stdout, ["one", "two", "three"]);
}

#[test]
fn a_worker_sees_stdin_stdout_and_stderr_only() {
    let (_init, worker) = idle_worker(pid1().under(["read-from=7:/dev/zero", "read-from=3:/dev/zero"]));
    let numbers: Vec<i32> = worker.descriptors().into_iter().map(|(fd, _)| fd).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

#[test]
fn inherited_descriptors_are_not_held_by_init() {
    // Else whoever reads the other end of such a pipe would never see its end.
    let under = ["read-from=3:/dev/zero", "read-from=7:/dev/zero", "read-from=200:/dev/zero"];
    let (init, _) = idle_worker(pid1().under(under));
    let init = init.init();
    until("init has closed them", || {
        let held = init.descriptors().into_iter().any(|(_, target)| target.ends_with("zero"));
        (!held).then_some(())
    });
}

#[test]
fn sockets_passed_to_init_are_passed_on() {
    let under =
        ["listen=3", "listen=4", "env=LISTEN_FDS=2", "env=LISTEN_FDNAMES=a:b", "env-own-pid=LISTEN_PID"];
    let (_init, worker) = idle_worker(pid1().under(under));
    assert_eq!(worker.variable("LISTEN_FDS").as_deref(), Some("2"));
    assert_eq!(worker.variable("LISTEN_FDNAMES").as_deref(), Some("a:b"));
    assert_eq!(worker.variable("LISTEN_PID"), Some(worker.pid_inside()));
    let targets = worker.descriptors();
    let sockets: Vec<i32> = targets
        .iter()
        .filter(|(_, t)| t.to_string_lossy().starts_with("socket:"))
        .map(|(fd, _)| *fd)
        .collect();
    assert_eq!(sockets, [3, 4], "{targets:?}");
}

#[test]
fn sockets_passed_to_somebody_else_are_not_passed_on() {
    let (_init, worker) = idle_worker(pid1().under(["listen=3", "env=LISTEN_FDS=1", "env=LISTEN_PID=4711"]));
    assert!(worker.descriptors().iter().all(|(fd, _)| *fd < 3), "{:?}", worker.descriptors());
    assert_eq!(worker.variable("LISTEN_PID").as_deref(), Some("4711"));
}
