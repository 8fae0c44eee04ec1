//! What a worker leaves behind in drainit when it is gone, ten thousand times over: nothing.

mod common;

use std::time::Duration;

use common::pool::{Pool, pool};
use common::{Process, until, until_at_last};

#[track_caller]
fn wait_for_spawns(pool: &Pool, count: u64) {
    let limit = Duration::from_secs(180);
    until_at_last(limit, format_args!("{count} spawns"), || (pool.counter("spawns") >= count).then_some(()));
}

/// In KiB.
fn resident(process: Process) -> i64 {
    process.status("VmRSS").split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(-1)
}

/// The fewest of some looks: a worker and a visitor more or less are not what is counted.
fn descriptors(process: Process) -> usize {
    let looks = (0..20).map(|_| process.descriptors().len());
    looks.min().unwrap_or_default()
}

#[test]
fn ten_thousand_crashes_leave_no_descriptor_no_memory_and_no_process() {
    const WORKERS: usize = 2;
    let pool = pool()
        .options(["--workers", "2", "--max-crashes", "off", "--backoff", "0..0", "--log-level", "error"])
        .worker(["{", "}", "exit=1"])
        .start();
    wait_for_spawns(&pool, 1_000);
    let init = pool.init();
    let before = (descriptors(init), resident(init));
    wait_for_spawns(&pool, 10_000);
    let after = (descriptors(init), resident(init));
    println!("descriptors {} -> {}, resident {} -> {} KiB", before.0, after.0, before.1, after.1);
    assert!(after.0 <= before.0 + 2, "descriptors: {} -> {}", before.0, after.0);
    assert!(before.1 > 0 && after.1 <= before.1 + 512, "resident: {} -> {} KiB", before.1, after.1);
    assert_eq!(pool.counter("spawn_failures"), 0);
    // Each worker leaves an orphan, which is reaped as fast as they come.
    until("nobody but the workers and the orphans of just now", || {
        (init.children().len() <= 2 * WORKERS).then_some(())
    });
    assert_eq!(pool.readyz(), 503);
    assert_eq!(pool.get("/livez").status, 200);
}
