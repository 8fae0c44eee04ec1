//! In the barest of containers: what an init cannot have, it must not need.

mod common;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use common::{Exit, Launch, Stage, cannot_run, fresh_uid, is_root, nested, pid1, until};

/// Starts, forwards a signal, reaps an orphan and ends with the worker's code.
#[track_caller]
fn assert_serves(launch: Launch) {
    let steps = ["{", "{", "}", "}", "wait", "watch", "say=ready", "log=TERM", "exit=3"];
    let mut init = launch.worker(steps).start();
    init.expect("ready");
    let process = init.init();
    until("the orphan is reaped", || (process.zombies() == 0).then_some(()));
    process.signal(libc::SIGUSR1);
    init.expect("got 10 0");
    process.signal(libc::SIGTERM);
    assert_eq!(init.wait(), Exit::Code(3), "{init}");
}

/// The same with copies that any user can execute.
#[track_caller]
fn assert_serves_as_stranger(launch: Launch) {
    let stage = Stage::new();
    assert_serves(launch.init_at(stage.init()).fixture_at(stage.fixture()));
}

#[test]
fn a_read_only_root() {
    assert_serves(pid1().under(["read-only-root"]));
}

#[test]
fn no_proc() {
    assert_serves(pid1().under(["hide=/proc"]));
    assert_serves(nested().under(["hide=/proc"]));
}

#[test]
fn an_empty_dev() {
    assert_serves(pid1().under(["hide=/dev"]));
}

#[test]
fn an_empty_dev_and_closed_stdin() {
    // Runtimes that open /dev/null in its place cannot.
    assert_serves(pid1().under(["hide=/dev", "close=0"]));
}

#[test]
fn no_proc_no_sys_no_dev_no_tmp_and_nothing_writable() {
    let stage = Stage::new();
    let hide = ["hide=/proc", "hide=/sys", "hide=/dev", "read-only-root"];
    assert_serves(pid1().under(hide).init_at(stage.init()).fixture_at(stage.fixture()));
}

#[test]
fn any_user() {
    if !is_root() {
        return cannot_run("needs root to become another user");
    }
    assert_serves_as_stranger(pid1().under(["uid=65534"]));
    assert_serves_as_stranger(nested().under(["uid=65534"]));
}

#[test]
fn no_capabilities() {
    assert_serves_as_stranger(pid1().under(["drop-capabilities"]));
}

#[test]
fn no_new_privileges() {
    assert_serves(pid1().under(["no-new-privs"]));
}

#[test]
fn everything_at_once() {
    if !is_root() {
        return cannot_run("needs root to become another user");
    }
    let under = ["hide=/proc", "hide=/dev", "no-new-privs", "uid=65534", "close=0"];
    assert_serves_as_stranger(pid1().under(["read-only-root"]).under(under));
}

const MODERN_CALLS: [&str; 12] = [
    "signalfd4",
    "epoll_create1",
    "eventfd2",
    "timerfd_create",
    "pidfd_open",
    "close_range",
    "getrandom",
    "prctl",
    "sigaltstack",
    "clone3",
    "socket",
    "socketpair",
];

#[test]
fn system_calls_that_the_sandbox_does_not_know() {
    for call in MODERN_CALLS {
        assert_serves(pid1().under([format!("seccomp=ENOSYS:{call}")]));
    }
}

#[test]
fn system_calls_that_the_sandbox_forbids() {
    for call in MODERN_CALLS {
        assert_serves(pid1().under([format!("seccomp=EPERM:{call}")]));
    }
}

#[test]
fn all_these_system_calls_refused_at_once() {
    for errno in ["ENOSYS", "EPERM"] {
        assert_serves(pid1().under([format!("seccomp={errno}:{}", MODERN_CALLS.join(","))]));
    }
}

#[test]
fn no_signalfd_no_epoll_no_eventfd() {
    for errno in ["ENOSYS", "EPERM"] {
        assert_serves(pid1().under([format!("seccomp={errno}:signalfd4,epoll_create1,eventfd2")]));
    }
}

#[test]
fn hardly_any_descriptors() {
    for limit in 4..=16 {
        assert_serves(pid1().under([format!("limit=NOFILE:{limit}")]));
    }
}

#[test]
fn room_for_the_worker_alone() {
    if !is_root() {
        return cannot_run("needs root to become a user with no other process");
    }
    let stage = Stage::new();
    let mut init = pid1()
        .under(["limit=NPROC:2", &format!("uid={}", fresh_uid())])
        .init_at(stage.init())
        .fixture_at(stage.fixture())
        .worker(["watch", "say=ready", "log=TERM", "exit=3"])
        .start();
    init.expect("ready");
    init.signal(libc::SIGTERM);
    assert_eq!(init.wait(), Exit::Code(3));
}

#[test]
fn no_room_for_queued_signals() {
    if !is_root() {
        return cannot_run("needs root to become a user with no other process");
    }
    assert_serves_as_stranger(pid1().under(["limit=SIGPENDING:0", &format!("uid={}", fresh_uid())]));
}

#[test]
fn an_address_space_of_24_mib() {
    assert_serves(pid1().under([format!("limit=AS:{}", 24 << 20)]));
}

#[test]
fn a_memory_cgroup_of_8_mib() {
    let Some(cgroup) = MemoryCgroup::new(8 << 20) else { return };
    assert_serves(Launch::new(&[cgroup.step().as_str(), "pidns"]));
}

#[test]
fn a_worker_that_the_kernel_kills_for_its_memory_is_137() {
    let Some(cgroup) = MemoryCgroup::new(16 << 20) else { return };
    let stage = Stage::new();
    let hungry = stage.path().join("hungry");
    let mut init = Launch::new(&[cgroup.step().as_str(), "pidns"])
        .worker(["say=ready", &format!("await={}", hungry.display()), "eat-memory=64"])
        .start();
    init.expect("ready");
    // The kernel may kill another one if that one asks for memory while the first victim still gives its own back.
    until("init rests", || (init.init().state() == 'S').then_some(()));
    fs::write(&hungry, "").unwrap();
    assert_eq!(init.wait(), Exit::Code(137));
}

#[test]
fn a_closed_stderr() {
    assert_serves(pid1().under(["close=2"]));
}

#[test]
fn a_stderr_that_is_full() {
    assert_serves(pid1().stderr(OpenOptions::new().write(true).open("/dev/full").unwrap()));
}

#[test]
fn a_stderr_that_nobody_reads() {
    assert_serves(pid1().under(["full-pipe=2"]));
}

#[test]
fn a_complaint_that_cannot_be_written_changes_nothing() {
    for stderr in ["close=2", "write-to=2:/dev/full", "full-pipe=2"] {
        pid1().under([stderr]).command(["/nowhere/no-such-command"]).run().assert_code(127);
    }
}

#[test]
fn a_stderr_whose_reader_is_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_serves(pid1().stderr(writer));
}

#[test]
fn a_root_with_nothing_but_two_static_binaries() {
    let stage = Stage::new();
    let launch =
        pid1().under([format!("chroot={}", stage.path().display())]).init_at("/init").fixture_at("/fixture");
    assert_serves(launch);
}

/// A memory limit, on either version of cgroups.
struct MemoryCgroup {
    path: PathBuf,
}

impl MemoryCgroup {
    /// `None`, and said so, where this host lets nobody make one.
    fn new(bytes: usize) -> Option<Self> {
        let name = format!("drainit-test-{}-{bytes}", std::process::id());
        let places = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
        ];
        for (root, limit) in places {
            let path = Path::new(root).join(&name);
            if !Path::new(root).join("cgroup.procs").exists() || fs::create_dir(&path).is_err() {
                continue;
            }
            let cgroup = Self { path };
            let limit = cgroup.path.join(limit);
            if limit.exists() && fs::write(limit, bytes.to_string()).is_ok() {
                return Some(cgroup);
            }
        }
        cannot_run("no memory cgroup can be made here");
        None
    }

    fn step(&self) -> String {
        format!("write={}:0", self.path.join("cgroup.procs").display())
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // Busy until the kernel has buried the last process.
        common::within(common::DEADLINE, || fs::remove_dir(&self.path).ok());
    }
}
