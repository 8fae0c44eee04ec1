//! Workers that are old or large are replaced while they serve, and nobody is started for whom there is no memory.
#![allow(clippy::expect_used, reason = "a test")]

mod common;
#[path = "common/memory_group.rs"]
mod memory_group;

use std::collections::BTreeSet;

use common::pool::{Pool, code, pool, text};
use common::{cannot_run, pid1, until};
use memory_group::MemoryGroup;
use serde_json::Value;

/// What was seen of a pool that is to stay whole.
#[derive(Default)]
struct Seen {
    pids: BTreeSet<i64>,
    most: usize,
    least_ready: Option<u64>,
}

impl Seen {
    fn look(&mut self, pool: &Pool) {
        let status = pool.status();
        let workers = status["workers"].as_array().expect("workers").clone();
        self.most = self.most.max(workers.len());
        self.pids.extend(workers.iter().filter_map(|worker| worker["pid"].as_i64()));
        let ready = status["ready_workers"].as_u64();
        self.least_ready = self.least_ready.into_iter().chain(ready).min();
    }
}

#[test]
fn old_workers_are_replaced_one_at_a_time_and_nobody_is_missing() {
    let options = ["--workers", "3", "--max-lifetime", "1s", "--max-surge", "3"];
    let pool = pool().options(options).worker(["poll=3"]).start();
    pool.wait_ready(3);
    let mut seen = Seen::default();
    until(format_args!("six recyclings\n{}", *pool), || {
        seen.look(&pool);
        (pool.counter("recycled_lifetime") >= 6).then_some(())
    });
    assert_eq!(seen.least_ready, Some(3));
    assert!(seen.most <= 5, "one beside the others, and whoever has just been told to go: {}", seen.most);
    assert!(pool.counter("spawns") >= 9, "{}", *pool);
    let status = pool.status();
    assert_eq!((&status["generation"], &status["rolls"]["total"]), (&1.into(), &0.into()), "no roll");
    assert_eq!(pool.counter("restarts_crash"), 0);
    assert!(pool.get("/metrics").body.contains("drainit_workers_recycled_total{reason=\"lifetime\"} "));
    assert!(pool.has_logged("it is old (--max-lifetime)"));
}

#[test]
fn a_worker_that_grows_is_replaced_with_its_replacement_first() {
    let folder = tempfile::tempdir().expect("a directory");
    let hungry = folder.path().join("hungry");
    let eats = format!("await={}", hungry.display());
    // What it forks counts.
    let steps = ["{", &eats, "hold-memory=64", "pause", "}", "poll=3"];
    let pool = pool().options(["--workers", "2", "--max-rss", "40Mi"]).worker(steps).start();
    pool.wait_ready(2);
    let mut seen = Seen::default();
    seen.look(&pool);
    let first = seen.pids.clone();
    std::fs::write(&hungry, "").expect("written");
    until("one is recycled", || {
        seen.look(&pool);
        (pool.counter("recycled_memory") >= 1).then_some(())
    });
    std::fs::remove_file(&hungry).expect("removed");
    common::until_at_last(std::time::Duration::from_secs(60), "none of the first is left", || {
        seen.look(&pool);
        let members: BTreeSet<_> = pool.members().iter().map(|member| i64::from(member.process.0)).collect();
        let status = pool.status();
        let pids: BTreeSet<_> = pids(&status);
        (!members.is_empty() && pids.is_disjoint(&first)).then_some(())
    });
    assert_eq!(seen.least_ready, Some(2));
    assert!(seen.most <= 3, "{}", seen.most);
    assert_eq!(pool.counter("restarts_crash"), 0);
    assert!(pool.has_logged("it is large (--max-rss)"));
}

fn pids(status: &Value) -> BTreeSet<i64> {
    let workers = status["workers"].as_array().into_iter().flatten();
    workers.filter_map(|worker| worker["pid"].as_i64()).collect()
}

/// Two workers of 24 MiB each; the pool goes before its group does.
fn in_a_group_of(mebibytes: u64, options: &[&str]) -> Option<(MemoryGroup, Pool)> {
    let group = MemoryGroup::of_mebibytes(mebibytes)?;
    let pool = pool()
        .options(["--workers", "2"])
        .options(options)
        .under([group.join()])
        .worker(["hold-memory=24", "poll=3"])
        .start();
    pool.wait_ready(2);
    Some((group, pool))
}

#[test]
fn without_memory_for_one_more_a_roll_is_refused_before_it_begins() {
    let Some((group, pool)) = in_a_group_of(64, &[]) else {
        return cannot_run("no memory cgroup can be made here");
    };
    let before = pids(&pool.status());
    let output = pool.ask(&["restart", "--wait"]);
    assert_eq!(code(&output), 2, "{output:?}");
    assert!(text(&output.stderr).contains("no memory for one worker more"), "{output:?}");
    let status = pool.status();
    assert_eq!(pids(&status), before, "nobody came and nobody went");
    assert_eq!((&status["rolls"]["refused"], &status["rolls"]["total"]), (&1.into(), &0.into()));
    assert_eq!((pool.counter("spawns"), group.kills()), (2, 0));
    assert!(pool.has_logged("no surge"));
}

#[test]
fn without_memory_one_goes_before_the_other_comes_where_that_is_allowed() {
    let Some((group, pool)) = in_a_group_of(64, &["--max-unavailable", "1"]) else {
        return cannot_run("no memory cgroup can be made here");
    };
    let output = pool.ask(&["restart", "--wait"]);
    assert_eq!(code(&output), 0, "{output:?}\n{}", *pool);
    pool.wait_ready(2);
    let status = pool.status();
    let last = &status["history"][0];
    assert_eq!((&last["short_of_memory"], &last["least_ready"]), (&true.into(), &1.into()), "{last}");
    assert_eq!(group.kills(), 0);
}

#[test]
fn with_memory_enough_there_is_a_surge() {
    let Some((group, pool)) = in_a_group_of(160, &["--max-unavailable", "1"]) else {
        return cannot_run("no memory cgroup can be made here");
    };
    let output = pool.ask(&["restart", "--wait"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let status = pool.status();
    assert_eq!(status["history"][0]["short_of_memory"], false);
    assert_eq!(group.kills(), 0);
}

#[test]
fn sizes_and_lifetimes_that_cannot_be_are_refused() {
    for (options, says) in [
        (["--max-rss", "0"], "is no size"),
        (["--max-rss", "much"], "is no size"),
        (["--max-lifetime", "0"], "--max-lifetime 0"),
    ] {
        let outcome = pid1().bare().options(options).options(["--workers", "2"]).worker(["pause"]).run();
        outcome.assert_code(64);
        assert!(outcome.stderr.contains(says), "{}", outcome.stderr);
    }
}
