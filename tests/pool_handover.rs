//! How a worker learns of its sockets, and of who it is.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::pool::{Pool, pool, pool_without_socket};
use common::{Process, until};

/// A pool of one on three sockets: `web` on TCP, one without a name on TCP, `app` on a unix path.
fn three_sockets(directory: &Path, under: &[&str], arguments: &[&str]) -> (Pool, [String; 3]) {
    let launch = pool_without_socket();
    let second = common::pool::Port::reserve();
    let addresses = [
        launch.port().local().to_string(),
        second.local().to_string(),
        directory.join("app.sock").display().to_string(),
    ];
    let worker: Vec<_> = arguments.iter().copied().chain(["poll=3"]).collect();
    let pool = launch
        .options(["--listen", &format!("web={}", addresses[0]), "--listen", &addresses[1]])
        .options(["--listen", &format!("app=unix:{}", addresses[2])])
        .under(under)
        .worker(worker)
        .start();
    pool.wait_ready(1);
    drop(second);
    (pool, addresses)
}

#[track_caller]
fn only_worker(pool: &Pool) -> Process {
    pool.member(0).process
}

fn environment(worker: Process) -> BTreeMap<String, String> {
    let entries = worker.environment();
    let pairs = entries.iter().filter_map(|entry| {
        let text = String::from_utf8_lossy(entry).into_owned();
        text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

#[test]
fn sockets_are_announced_in_every_convention_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (pool, [web, other, app]) = three_sockets(directory.path(), &[], &[]);
    let environment = environment(only_worker(&pool));
    let expected = [
        ("LISTEN_FDS", "3".to_owned()),
        ("LISTEN_FDNAMES", "web:unknown:app".to_owned()),
        ("SERVER_STARTER_PORT", format!("{web}=3;{other}=4;{app}=5")),
        ("EINHORN_FD_COUNT", "3".to_owned()),
        ("EINHORN_FD_0", "3".to_owned()),
        ("EINHORN_FD_1", "4".to_owned()),
        ("EINHORN_FD_2", "5".to_owned()),
        ("UNICORN_FD", "3,4,5".to_owned()),
        ("PUMA_INHERIT_0", format!("3:tcp://{web}")),
        ("PUMA_INHERIT_1", format!("4:tcp://{other}")),
        ("PUMA_INHERIT_2", format!("5:unix://{app}")),
        ("FPM_SOCKETS", format!("{web}=3,{other}=4,{app}=5")),
        ("PORT", web.rsplit(':').next().unwrap().to_owned()),
    ];
    for (name, value) in expected {
        assert_eq!(environment.get(name), Some(&value), "{name}");
    }
}

#[test]
fn listen_pid_is_the_workers_own() {
    let pool = pool().options(["--workers", "3"]).worker(["poll=3"]).start();
    pool.wait_ready(3);
    for member in pool.members() {
        let told = member.process.variable("LISTEN_PID");
        assert_eq!(told, Some(member.process.pid_inside()));
    }
}

#[test]
fn listen_pid_is_the_replacements_own_too() {
    let pool = pool().worker(["poll=3"]).start();
    let first = only_worker(&pool);
    first.signal(libc::SIGKILL);
    let second = until("a replacement", || {
        pool.members().first().map(|member| member.process).filter(|process| *process != first)
    });
    // Before that it may not even have been loaded.
    pool.wait_ready(1);
    assert_eq!(second.variable("LISTEN_PID"), Some(second.pid_inside()));
}

#[test]
fn port_is_left_as_it_is_where_it_is_set() {
    let pool = pool().under(["env=PORT=1234"]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    assert_eq!(only_worker(&pool).variable("PORT").as_deref(), Some("1234"));
}

#[test]
fn port_is_the_first_tcp_port_even_behind_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let launch = pool_without_socket();
    let port = launch.port().number.to_string();
    let unix = format!("unix:{}", directory.path().join("a.sock").display());
    let pool = launch
        .options(["--listen", &unix, "--listen", &port])
        .under(["clear-env"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    assert_eq!(only_worker(&pool).variable("PORT"), Some(port));
}

#[test]
fn a_worker_is_told_its_slot_and_generation() {
    let pool = pool().options(["--workers", "3"]).worker(["poll=3"]).start();
    pool.wait_ready(3);
    for member in pool.members() {
        assert_eq!(member.process.variable("DRAINIT_SLOT"), Some(member.slot.to_string()));
        assert_eq!(member.process.variable("DRAINIT_GENERATION").as_deref(), Some("1"));
        assert_eq!(member.process.variable("WORKER_GENERATION").as_deref(), Some("1"));
    }
    let mut slots: Vec<_> = pool.members().iter().map(|member| member.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2]);
}

#[test]
fn a_worker_generation_of_the_users_is_kept_and_drainits_own_is_not() {
    let pool = pool()
        .under(["env=WORKER_GENERATION=blue", "env=DRAINIT_GENERATION=7", "env=DRAINIT_SLOT=7"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    let environment = environment(only_worker(&pool));
    assert_eq!(environment["WORKER_GENERATION"], "blue");
    assert_eq!(environment["DRAINIT_GENERATION"], "1");
    assert_eq!(environment["DRAINIT_SLOT"], "0");
}

#[test]
fn the_version_comes_from_the_environment() {
    let pool = pool().under(["env=APP_VERSION=1.2.3"]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    assert_eq!(only_worker(&pool).variable("DRAINIT_VERSION").as_deref(), Some("1.2.3"));
    assert_eq!(pool.status()["workers"][0]["version"], "1.2.3");
}

#[test]
fn placeholders_in_the_arguments_are_filled_in() {
    let directory = tempfile::tempdir().unwrap();
    let words = ["say={fd}", "say={fd:app}:{fd:web}", "say=s{slot}g{generation}", "say={x}{", "say={fd"];
    let (pool, _) = three_sockets(directory.path(), &[], &words);
    for line in ["3", "5:3", "s0g1", "{x}{", "{fd"] {
        pool.expect(line);
    }
}

#[test]
fn a_placeholder_for_a_socket_that_there_is_not_is_64() {
    let port = common::pool::Port::reserve();
    let outcome = common::pid1()
        .options(["--listen", &format!("web={}", port.local())])
        .worker(["say=started", "say={fd:wbe}"])
        .run();
    outcome.assert_code(64);
    assert!(outcome.stdout.is_empty() && outcome.stderr.contains("{fd:wbe}"), "{outcome:?}");
}

#[test]
fn what_a_script_in_the_arguments_means_by_fd_is_left_alone() {
    for script in ["server.listen({fd: 3})", "server.listen({fd:3})", "{fd:'3'.length + 2}"] {
        let pool = pool().worker([&format!("say={script}"), "poll=3"]).start();
        pool.expect(script);
    }
}

#[test]
fn an_init_fills_in_nothing() {
    common::pid1().worker(["say={slot}{fd}{generation}"]).run().assert_says("{slot}{fd}{generation}");
}

#[test]
fn a_worker_has_its_standard_descriptors_and_the_sockets_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (pool, _) = three_sockets(directory.path(), &["read-from=9:/dev/null"], &[]);
    let worker = only_worker(&pool);
    let descriptors = worker.descriptors();
    let numbers: Vec<_> = descriptors.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "{descriptors:?}");
    let is_socket = |path: &Path| path.to_string_lossy().starts_with("socket:");
    assert!(descriptors[3..].iter().all(|(_, path)| is_socket(path)), "{descriptors:?}");
}

#[test]
fn every_worker_has_the_same_sockets() {
    let pool = pool().options(["--workers", "3"]).worker(["poll=3"]).start();
    pool.wait_ready(3);
    let sockets: Vec<_> =
        pool.members().iter().map(|member| member.process.descriptors().remove(3).1).collect();
    assert!(sockets.windows(2).all(|pair| pair[0] == pair[1]), "{sockets:?}");
}

#[test]
fn sockets_that_drainit_was_given_go_on_to_the_workers() {
    let launch = pool_without_socket();
    let listen = launch.port().local().to_string();
    let pool = launch
        .options(["--workers", "2", "--listen", &format!("own={listen}")])
        .under(["listen=3", "env=LISTEN_FDS=1", "env-own-pid=LISTEN_PID", "env=LISTEN_FDNAMES=given"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(2);
    for member in pool.members() {
        let environment = environment(member.process);
        assert_eq!(environment["LISTEN_FDS"], "2");
        assert_eq!(environment["LISTEN_FDNAMES"], "given:own");
        assert_eq!(environment["LISTEN_PID"], member.process.pid_inside());
        assert_eq!(member.process.descriptors().len(), 5);
    }
}

#[test]
fn sockets_that_were_meant_for_somebody_else_are_neither_taken_nor_passed_on() {
    let pool = pool()
        .under(["listen=3", "env=LISTEN_FDS=1", "env=LISTEN_PID=99999", "env=LISTEN_FDNAMES=given"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    let worker = only_worker(&pool);
    assert_eq!(worker.variable("LISTEN_FDNAMES").as_deref(), Some("unknown"));
    assert_eq!(worker.descriptors().len(), 4);
}
