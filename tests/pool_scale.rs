//! The pool's size, while it runs.

mod common;

use common::pool::{Pool, code, pool, pool_without_socket, text};
use common::{Exit, holds_for, until};

#[track_caller]
fn wait_for_size(pool: &Pool, workers: u64) {
    until(format_args!("{workers} wanted\n{}", **pool), || {
        (pool.status()["desired"] == workers).then_some(())
    });
    pool.wait_ready(workers);
}

#[test]
fn ttin_adds_a_worker_and_ttou_takes_one_away() {
    let pool = pool().options(["--workers", "2"]).worker(["poll=3"]).start();
    pool.wait_ready(2);
    pool.signal(libc::SIGTTIN);
    wait_for_size(&pool, 3);
    pool.signal(libc::SIGTTOU);
    wait_for_size(&pool, 2);
    let slots: Vec<_> = pool.members().iter().map(|member| member.slot).collect();
    assert_eq!(slots, [0, 1], "the highest slot goes first");
}

#[test]
fn ttou_never_takes_the_last_worker() {
    let pool = pool().options(["--workers", "2"]).worker(["poll=3"]).start();
    pool.wait_ready(2);
    for _ in 0..4 {
        pool.signal(libc::SIGTTOU);
        // One that waits to be taken in and a second one are one.
        until("it was taken in", || (pool.init().signals("ShdPnd") == 0).then_some(()));
        pool.status();
    }
    wait_for_size(&pool, 1);
    let last = pool.member(0).process;
    holds_for(std::time::Duration::from_millis(200), "it stays", || last.is_alive());
}

#[test]
fn scale_sets_the_size_and_says_so() {
    let pool = pool().worker(["poll=3"]).start();
    pool.wait_ready(1);
    for (size, says) in [("4", "1 -> 4"), ("2", "4 -> 2"), ("2", "2 -> 2")] {
        let output = pool.ask(&["scale", size]);
        assert_eq!(code(&output), 0, "{output:?}");
        assert!(text(&output.stdout).contains(says), "{output:?}");
        wait_for_size(&pool, size.parse().unwrap());
    }
    assert_eq!(pool.logged("pool resized")["to"], 4);
}

#[test]
fn scale_takes_no_size_that_cannot_be() {
    let pool = pool().worker(["poll=3"]).start();
    pool.wait_ready(1);
    for size in ["0", "-1", "1025", "many"] {
        let output = pool.ask(&["scale", size]);
        assert_eq!(code(&output), 64, "{size}: {output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
    }
    assert_eq!(pool.status()["desired"], 1);
}

#[test]
fn one_worker_without_a_socket_is_no_pool_to_be_scaled() {
    let pool = pool_without_socket().worker(["say=here", "pause"]).start();
    pool.expect("here");
    let output = pool.ask(&["scale", "2"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(text(&output.stderr).contains("not a pool"), "{output:?}");
}

#[test]
fn one_worker_without_a_socket_gets_ttin_and_ttou_itself() {
    let init = common::pid1().worker(common::signal_log("USR1")).start();
    init.expect("ready");
    init.signal(libc::SIGTTIN);
    init.expect("got 21 0");
    init.signal(libc::SIGTTOU);
    init.expect("got 22 0");
}

#[test]
fn scaling_is_refused_in_every_phase_of_a_drain() {
    let mut pool = pool()
        .options(["--workers", "2", "--lb-wait", "2s", "--ready-when", "started"])
        .worker(["watch", "say=here", "log=USR1"])
        .start();
    pool.expect("here");
    pool.wait_ready(2);
    pool.signal(libc::SIGTERM);
    for phase in ["lame-duck", "draining"] {
        pool.wait_for_phase(phase);
        let output = pool.ask(&["scale", "4"]);
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(text(&output.stderr).contains(phase), "{output:?}");
        pool.signal(libc::SIGTTIN);
        pool.logged("pool not resized");
        assert_eq!(pool.status()["desired"], 2);
    }
    // Forwarded to all of them.
    pool.signal(libc::SIGUSR1);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn any_signal_can_be_made_to_scale() {
    let pool = pool()
        .options(["--signal", "USR1=scale-up", "--signal", "USR2=scale-down"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    pool.signal(libc::SIGUSR1);
    wait_for_size(&pool, 2);
    pool.signal(libc::SIGUSR2);
    wait_for_size(&pool, 1);
}

#[test]
fn a_worker_that_is_scaled_away_may_finish_its_request() {
    use std::io::{Read, Write};
    let pool = pool().options(["--workers", "2"]).server().start();
    pool.wait_ready(2);
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(pool.address()).unwrap();
            stream.write_all(b"GET /slow HTTP/1.1\r\n\r\n").unwrap();
            stream
        })
        .collect();
    assert_eq!(code(&pool.ask(&["scale", "1"])), 0);
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
    wait_for_size(&pool, 1);
}

#[test]
fn a_worker_that_is_scaled_away_and_ignores_it_is_killed_after_the_drain_timeout() {
    let pool = pool()
        .options(["--workers", "2", "--drain-timeout", "300ms", "--ready-when", "started"])
        .worker(["ignore=TERM", "pause"])
        .start();
    pool.wait_ready(2);
    assert_eq!(code(&pool.ask(&["scale", "1"])), 0);
    pool.logged("worker killed");
    pool.wait_ready(1);
    assert_eq!(pool.phase(), "serving");
}

#[test]
fn scaling_back_and_forth_ends_where_it_was_asked_to() {
    let pool = pool().worker(["poll=3"]).start();
    for size in ["6", "1", "8", "2", "5", "3"] {
        assert_eq!(code(&pool.ask(&["scale", size])), 0);
    }
    wait_for_size(&pool, 3);
    until("nobody else", || (pool.init().children().len() == 3).then_some(()));
}

#[test]
fn a_worker_that_is_scaled_away_is_no_crash() {
    let pool = pool().options(["--workers", "5", "--max-crashes", "0/60s"]).worker(["poll=3"]).start();
    pool.wait_ready(5);
    assert_eq!(code(&pool.ask(&["scale", "1"])), 0);
    wait_for_size(&pool, 1);
    assert_eq!(pool.status()["breaker"], "closed");
}

/// A group of its own below the test's for the processor quota, by whichever cgroup version has the controller.
struct QuotaGroup {
    path: std::path::PathBuf,
    version: u8,
}

impl QuotaGroup {
    fn new() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        for line in own.lines() {
            let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>().try_into().ok()?;
            let (mount, version, file) = match controllers {
                "" => ("/sys/fs/cgroup".to_owned(), 2, "cpu.max"),
                _ if controllers.split(',').any(|one| one == "cpu") => {
                    (format!("/sys/fs/cgroup/{controllers}"), 1, "cpu.cfs_quota_us")
                }
                _ => continue,
            };
            let parent = std::path::Path::new(&mount).join(path.trim_start_matches('/'));
            let path = parent.join(format!("drainit-test-quota-{}", std::process::id()));
            if std::fs::create_dir(&path).is_ok() {
                let group = Self { path, version };
                if group.path.join(file).exists() && group.path.join("cgroup.procs").exists() {
                    return Some(group);
                }
            }
        }
        None
    }

    /// In hundredths of a processor.
    fn set(&self, quota: u32) {
        let (file, text) = match self.version {
            2 => ("cpu.max", format!("{} 100000", quota * 1000)),
            _ => ("cpu.cfs_quota_us", (quota * 1000).to_string()),
        };
        let written = std::fs::write(self.path.join(file), text);
        assert!(written.is_ok(), "{written:?}");
    }
}

impl Drop for QuotaGroup {
    fn drop(&mut self) {
        until("the group can be removed", || {
            (!self.path.exists() || std::fs::remove_dir(&self.path).is_ok()).then_some(())
        });
    }
}

#[test]
fn auto_follows_the_processor_quota_rounded_up() {
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        return common::cannot_run("one processor: every quota gives one worker");
    }
    let Some(group) = QuotaGroup::new() else {
        return common::cannot_run("no processor cgroup can be made here");
    };
    group.set(110);
    let join = format!("write={}:0", group.path.join("cgroup.procs").display());
    let pool = pool().options(["--workers", "auto"]).under([join]).worker(["poll=3"]).start();
    pool.wait_ready(2);
    group.set(60);
    pool.wait_ready(1);
    group.set(150);
    pool.wait_ready(2);
}
