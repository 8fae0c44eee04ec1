//! Where memory runs out: whom the kernel kills, and what drainit says of it.

mod common;
#[path = "common/memory_group.rs"]
mod memory_group;

use std::fs;

use common::pool::{Pool, pool};
use common::{Process, cannot_run, is_root, pid1, until};
use memory_group::MemoryGroup;

fn score(process: Process) -> i32 {
    process.text("oom_score_adj").trim().parse().unwrap_or(i32::MIN)
}

#[test]
fn a_worker_comes_before_pid_1() {
    for options in [&[][..], &["--user", "4711:4711"]] {
        if !options.is_empty() && !is_root() {
            continue;
        }
        let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
        let pool = pool().options(["--workers", "3"]).options(options).worker(["poll=3"]).start();
        pool.wait_ready(3);
        assert_eq!(
            score(pool.init()),
            own,
            "the workers' is their own, though it was written in drainit's memory"
        );
        for member in pool.members() {
            assert!(score(member.process) > own, "{}", score(member.process));
        }
    }
}

#[test]
fn who_is_first_of_all_already_has_nobody_before_it() {
    let pool = pool().under(["write=/proc/self/oom_score_adj:1000"]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    // Less than it was given is to be had with CAP_SYS_RESOURCE alone.
    assert!((999..=1000).contains(&score(pool.init())));
    assert_eq!(score(pool.member(0).process), 1000);
}

#[test]
fn an_init_leaves_the_score_as_it_is() {
    let init = pid1().worker(["say=started", "pause"]).start();
    init.expect("started");
    assert_eq!(score(init.init()), score(init.worker()));
}

fn metric(pool: &Pool, name: &str) -> f64 {
    let metrics = pool.get("/metrics").body;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
}

#[test]
fn a_worker_killed_for_want_of_memory_is_named_so_in_log_metrics_and_status() {
    let Some(group) = MemoryGroup::of_mebibytes(64) else {
        return cannot_run("no memory cgroup can be made here");
    };
    let folder = tempfile::tempdir().unwrap();
    let hungry = folder.path().join("hungry");
    let steps = [&format!("await={}", hungry.display()), "eat-memory=256"];
    let pool = pool()
        .options(["--ready-when", "started", "--backoff", "300ms..300ms", "--max-crashes", "off"])
        .under([group.join()])
        .worker(steps)
        .start();
    pool.wait_ready(1);
    let first = pool.member(0).process;
    let before = group.kills();
    fs::write(&hungry, "").unwrap();
    until("the first has gone", || (!first.is_alive()).then_some(()));
    fs::remove_file(&hungry).unwrap();
    let line = pool.logged("out of memory (OOM)");
    assert_eq!(line["slot"], 0);
    // Its successors may have been hungry too, before the file was gone.
    until(format_args!("one without hunger\n{}", *pool), || {
        let status = pool.status();
        let deaths = status["counters"]["spawns"].as_u64()? - 1;
        let named = status["counters"]["oom_kills"].as_u64()?;
        let calm = status["ready_workers"] == 1 && deaths == named && named == group.kills() - before;
        (calm && metric(&pool, "drainit_worker_oom_kills_total") as u64 == named).then_some(())
    });
    let named = pool.counter("oom_kills");
    assert!(named >= 1);
    assert_eq!(pool.counter("restarts_oom"), named);
    assert_eq!(pool.counter("restarts_crash"), 0);
    assert_eq!(metric(&pool, "drainit_worker_restarts_total{reason=\"oom\"}") as u64, named);

    // A kill by somebody else is no want of memory.
    pool.member(0).process.signal(libc::SIGKILL);
    pool.logged("was killed by SIGKILL");
    until("counted", || (pool.counter("restarts_crash") == 1).then_some(()));
    assert_eq!(pool.counter("oom_kills"), named);
}

#[test]
fn the_last_words_of_one_worker_name_it_too() {
    let Some(group) = MemoryGroup::of_mebibytes(48) else {
        return cannot_run("no memory cgroup can be made here");
    };
    let outcome = pid1()
        .options(["--log-level", "debug", "--log-format", "text"])
        .under([group.join()])
        .worker(["linger", "linger", "eat-memory=256"])
        .run();
    outcome.assert_code(137);
    assert!(outcome.stderr.contains("out of memory (OOM)"), "{outcome:?}");
}

#[test]
fn workers_smaller_than_drainit_are_killed_before_it() {
    let Some(group) = MemoryGroup::of_mebibytes(40) else {
        return cannot_run("no memory cgroup can be made here");
    };
    let pool = pool()
        .options([
            "--workers",
            "40",
            "--ready-when",
            "started",
            "--max-crashes",
            "off",
            "--backoff",
            "1s..1s",
        ])
        .under([group.join()])
        .worker(["hold-memory=1", "pause"])
        .start();
    until(format_args!("some are killed\n{}", *pool), || (group.kills() >= 20).then_some(()));
    let named = until("some are named", || Some(pool.counter("oom_kills")).filter(|named| *named >= 1));
    assert!(named <= group.kills());
    assert!(pool.init().is_alive());
}

/// A cgroup of v2 as a container sees its own, made of plain files.
fn in_a_group_with(oom_group: u8) -> [String; 3] {
    [
        "hide=/sys/fs/cgroup".to_owned(),
        "write=/sys/fs/cgroup/memory.events:oom 0\noom_kill 7\noom_group_kill 0\n".to_owned(),
        format!("write=/sys/fs/cgroup/memory.oom.group:{oom_group}\n"),
    ]
}

#[test]
fn a_container_that_dies_as_one_is_told_of_at_the_start() {
    const SAYS: &str = "memory.oom.group";
    let pools = [1, 0].map(|set| pool().under(in_a_group_with(set)).worker(["poll=3"]).start());
    pools.iter().for_each(|pool| pool.wait_ready(1));
    pools[0].logged(SAYS);
    assert!(!pools[1].has_logged(SAYS));
    let init = pid1().under(in_a_group_with(1)).worker(["say=started", "exit=0"]).run();
    assert!(!init.stderr.contains(SAYS), "{init:?}");
}

#[test]
fn the_events_of_cgroup_v2_are_understood() {
    let pool = pool()
        .options(["--workers", "2", "--max-crashes", "off"])
        .under(in_a_group_with(0))
        .worker(["poll=3"])
        .start();
    pool.wait_ready(2);
    let kill = |slot| pool.member(slot).process.signal(libc::SIGKILL);
    kill(0);
    until("an ordinary crash", || (pool.counter("restarts_crash") == 1).then_some(()));
    pool.wait_ready(2);
    let events = pool.init().path("root/sys/fs/cgroup/memory.events");
    fs::write(events, "oom 1\noom_kill 8\noom_group_kill 0\n").unwrap();
    kill(1);
    until("an OOM kill", || (pool.counter("restarts_oom") == 1).then_some(()));
    let table = pool.ask(&["status"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("out of memory (OOM): 1"), "{table}");
}
