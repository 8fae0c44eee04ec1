//! The limit of descriptors: a pool's own need does not become its workers' limit.

mod common;

use common::pool::{pool, pool_without_socket};
use common::{Process, pid1};

/// Soft and hard.
fn descriptors(process: Process) -> (String, String) {
    let limits = process.text("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut fields = line.split_whitespace().map(str::to_owned);
    (fields.next().unwrap_or_default(), fields.next().unwrap_or_default())
}

fn both(soft: &str, hard: &str) -> (String, String) {
    (soft.to_owned(), hard.to_owned())
}

const LIMITS: [&str; 2] = ["limit=NOFILE:1024", "soft-limit=NOFILE:64"];

#[test]
fn a_pool_of_40_with_64_descriptors_adopts_and_leaves_its_workers_their_64() {
    let launch = pool_without_socket();
    let port = launch.port().number.to_string();
    let pool = launch
        .options(["--workers", "40", "--listen", &port, "--adopt-bind", "on"])
        .under(LIMITS)
        .worker([format!("bind-and-serve={port}")])
        .start();
    pool.wait_ready(40);
    let status = pool.status();
    assert!(status["workers"].as_array().unwrap().iter().all(|worker| worker["socket"] == "adopted"));
    assert_eq!(descriptors(pool.init()), both("1024", "1024"));
    for member in pool.members() {
        assert_eq!(descriptors(member.process), both("64", "1024"));
    }
    assert!(pool.init().descriptors().len() > 64, "it was needed");
}

#[test]
fn checks_have_the_limit_of_the_workers() {
    let pool = pool()
        .options(["--ready-when", "exec=sh -c 'test $(ulimit -Sn):$(ulimit -Hn) = 64:1024'"])
        .under(LIMITS)
        .worker(["pause"])
        .start();
    pool.wait_ready(1);
}

#[test]
fn an_init_changes_no_limit() {
    let init = pid1().under(LIMITS).worker(["say=started", "pause"]).start();
    init.expect("started");
    assert_eq!(descriptors(init.init()), both("64", "1024"));
    assert_eq!(descriptors(init.worker()), both("64", "1024"));
}
