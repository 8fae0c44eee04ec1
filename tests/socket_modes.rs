//! `--sockets per-worker` and `sticky`: who gets which connection, and what becomes of those that wait.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "common/from.rs"]
mod from;
#[path = "../examples/support/load.rs"]
mod load;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use common::pool::{Pool, PoolLaunch, code, pool, pool_without_socket, python};
use common::{Exit, cannot_run, http, until};
use from::get_from;
use load::Load;

/// Scale-downs and scale-ups, so many of each.
const RESIZED: u32 = 500;

fn pool_of(workers: &str, mode: &str) -> PoolLaunch {
    pool().options(["--workers", workers, "--sockets", mode, "--max-crashes", "off"])
}

/// The answer of that server is its process id, as drainit sees it.
fn pid_of(answer: &http::Answer) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.trim().parse().unwrap_or_else(|_| panic!("no pid: {answer:?}"))
}

fn who_answers(pool: &Pool) -> u64 {
    pid_of(&http::get(pool.address(), "/").unwrap_or_else(|error| panic!("{error}\n{}", **pool)))
}

fn who_answers_to(client: Ipv4Addr, pool: &Pool) -> u64 {
    let source = SocketAddr::from((client, 0));
    pid_of(&get_from(source, pool.address(), "/").unwrap_or_else(|error| panic!("{error}\n{}", **pool)))
}

/// Of whoever is in each slot and not on its way out.
fn pids(pool: &Pool) -> BTreeMap<u64, u64> {
    let status = pool.status();
    let workers = status["workers"].as_array().cloned().unwrap_or_default();
    let here = workers.iter().filter(|worker| worker["state"] != "draining" && worker["state"] != "hung");
    here.map(|worker| (worker["slot"].as_u64().unwrap(), worker["pid"].as_u64().unwrap())).collect()
}

fn ratio(counts: &BTreeMap<u64, u32>, workers: usize) -> f64 {
    assert_eq!(counts.len(), workers, "{counts:?}");
    f64::from(*counts.values().max().unwrap()) / f64::from(*counts.values().min().unwrap())
}

#[test]
fn each_worker_gets_its_share_of_new_connections() {
    let pool = pool_of("4", "per-worker").server().start();
    pool.wait_ready(4);
    let mut counts = BTreeMap::new();
    for _ in 0..10_000 {
        *counts.entry(who_answers(&pool)).or_default() += 1;
    }
    let ratio = ratio(&counts, 4);
    assert!(ratio <= 1.2, "{counts:?}");
    eprintln!("most to least: {ratio:.3}, {counts:?}");
}

/// As a load balancer opens them, and keeps them.
#[test]
fn a_few_kept_connections_are_shared_fairly() {
    let pool = pool_of("2", "per-worker").server().start();
    pool.wait_ready(2);
    let mut ratios: Vec<f64> = (0..15)
        .map(|_| {
            let kept: Vec<_> = (0..32).map(|_| TcpStream::connect(pool.address()).unwrap()).collect();
            let mut counts = BTreeMap::new();
            for stream in kept {
                let answer = http::exchange(stream, "GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
                *counts.entry(pid_of(&answer)).or_default() += 1;
            }
            ratio(&counts, 2)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[7] <= 1.5 && ratios[12] <= 2.0, "{ratios:?}");
}

#[test]
fn a_source_address_leads_to_one_slot() {
    let pool = pool_of("3", "per-worker").server().start();
    pool.wait_ready(3);
    for (slot, pid) in pids(&pool) {
        for _ in 0..5 {
            assert_eq!(who_answers_to(Ipv4Addr::new(127, 42, 0, slot as u8), &pool), pid, "slot {slot}");
        }
    }
}

/// In either mode nobody is sent to a worker that is not ready, and whose slot another could have.
#[test]
fn a_worker_that_is_not_ready_gets_no_connection() {
    let pool = pool_of("1", "per-worker")
        .options(["--ready-when", "exec=sh -c 'test $DRAINIT_SLOT = 0'", "--ready-timeout", "off"])
        .server()
        .start();
    pool.wait_ready(1);
    let first = pids(&pool)[&0];
    assert_eq!(code(&pool.ask(&["scale", "3"])), 0);
    until("three there are", || (pids(&pool).len() == 3).then_some(()));
    for _ in 0..200 {
        assert_eq!(who_answers(&pool), first);
    }
    // For its checks there is a way.
    let second = pids(&pool)[&1];
    assert_eq!(who_answers_to(Ipv4Addr::new(127, 42, 0, 1), &pool), second);
}

#[test]
fn a_dead_workers_queue_is_its_successors() {
    for mode in ["per-worker", "sticky"] {
        let pool = pool_of("1", mode).options(["--backoff", "1ms..1ms"]).server().start();
        pool.wait_ready(1);
        for _ in 0..5 {
            let victim = pool.member(0).process;
            victim.signal(libc::SIGSTOP);
            until("it stands still", || (victim.state() == 'T').then_some(()));
            let address = pool.address();
            let clients: Vec<_> =
                (0..8).map(|_| std::thread::spawn(move || http::get(address, "/"))).collect();
            until("they wait", || {
                let queue = std::fs::read_to_string("/proc/net/tcp").unwrap();
                let local = format!("0100007F:{:04X}", address.port());
                let waiting = queue.lines().find_map(|line| {
                    let fields: Vec<_> = line.split_whitespace().collect();
                    (fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"0A"))
                        .then(|| u32::from_str_radix(fields[4].split(':').nth(1)?, 16).ok())
                        .flatten()
                });
                (waiting >= Some(7)).then_some(())
            });
            victim.signal(libc::SIGKILL);
            for client in clients {
                assert_eq!(client.join().unwrap().expect("an answer").status, 200, "{mode}");
            }
        }
    }
}

#[test]
fn new_connections_go_to_those_who_serve_while_one_is_replaced() {
    let gate = tempfile::tempdir().unwrap();
    let closed = gate.path().join("closed");
    let pool = pool_of("2", "per-worker")
        .options(["--backoff", "1ms..1ms", "--ready-when"])
        .options([format!("exec=sh -c 'test $DRAINIT_SLOT = 0 || ! test -e {}'", closed.display())])
        .server()
        .start();
    pool.wait_ready(2);
    std::fs::write(&closed, "").unwrap();
    let survivor = pids(&pool)[&0];
    pool.member(1).process.signal(libc::SIGKILL);
    until("the other one is starting", || {
        (pids(&pool).len() == 2 && pool.status()["ready_workers"] == 1).then_some(())
    });
    for _ in 0..100 {
        assert_eq!(who_answers(&pool), survivor);
    }
    std::fs::remove_file(&closed).unwrap();
    pool.wait_ready(2);
    until("it gets some", || (who_answers(&pool) != survivor).then_some(()));
}

#[test]
fn nothing_is_lost_by_a_thousand_scale_downs_and_scale_ups() {
    let mut pool = pool_of("4", "per-worker")
        .options(["--log-level", "warn", "--grace", "60s", "--lb-wait", "5s"])
        .server()
        .start();
    pool.wait_ready(4);
    let load = Load::start(pool.address(), "/", 4, Duration::from_micros(300));
    for _ in 0..RESIZED {
        for (signal, workers) in [(libc::SIGTTOU, 3), (libc::SIGTTIN, 4)] {
            pool.signal(signal);
            pool.wait_ready(workers);
        }
    }
    pool.signal(libc::SIGTERM);
    until("unready", || (pool.readyz() == 503).then_some(()));
    let report = load.stop();
    assert!(report.failures.is_empty(), "{}\n{}", report.summary(), *pool);
    assert_eq!(pool.wait(), Exit::Code(0));
    eprintln!("{}, {RESIZED} times down and up", report.summary());
}

/// Binds for itself with SO_REUSEPORT, takes its time for each connection, and finishes what it has accepted on SIGTERM.
const REUSEPORT_SERVER: &str = "import signal, socket, sys, time\n\
    s = socket.socket()\n\
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n\
    s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(1024)\n\
    going = [True]\n\
    signal.signal(signal.SIGTERM, lambda *a: going.clear())\n\
    s.settimeout(0.05)\n\
    while going:\n  \
    try: c, _ = s.accept()\n  \
    except OSError: continue\n  \
    c.settimeout(5); c.recv(4096); time.sleep(0.002)\n  \
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok'); c.close()\n";

/// Failures in so many scale-downs under load.
fn lost(launch: PoolLaunch, rounds: u32) -> Option<usize> {
    let Some(python) = python() else {
        cannot_run("no python3");
        return None;
    };
    let port = launch.port().number.to_string();
    let command = [python, "-c".into(), REUSEPORT_SERVER.into(), port.into()];
    let pool = launch.options(["--workers", "4", "--max-crashes", "off"]).command(command).start();
    pool.wait_ready(4);
    let load = Load::start(pool.address(), "/", 16, Duration::ZERO);
    for _ in 0..rounds {
        for workers in [2, 4] {
            assert_eq!(code(&pool.ask(&["scale", &workers.to_string()])), 0);
            pool.wait_ready(workers);
            let before = load.answered();
            until("the load goes on", || (load.answered() > before + 50).then_some(()));
        }
    }
    let report = load.stop();
    eprintln!("{}", report.summary());
    Some(report.failures.len())
}

#[test]
fn reuseport_alone_loses_on_a_scale_down_what_drainit_does_not() {
    const ROUNDS: u32 = 6;
    let alone = lost(pool_without_socket(), ROUNDS);
    let launch = pool_without_socket();
    let address = launch.port().local().to_string();
    let ours = lost(launch.options(["--listen", &address, "--sockets", "per-worker"]), ROUNDS);
    let (Some(alone), Some(ours)) = (alone, ours) else { return };
    assert!(alone > 0, "there was something to be lost");
    assert_eq!(ours, 0);
}

fn clients() -> impl Iterator<Item = Ipv4Addr> {
    (0..150).map(|n| Ipv4Addr::new(127, 9, (n * 7) as u8, (n + 1) as u8))
}

#[test]
fn a_client_keeps_its_worker() {
    let pool = pool_of("4", "sticky").options(["--backoff", "1ms..1ms"]).server().start();
    pool.wait_ready(4);
    let slots = |pool: &Pool| -> Vec<u64> {
        let slots: BTreeMap<u64, u64> = pids(pool).into_iter().map(|(slot, pid)| (pid, slot)).collect();
        clients().map(|client| slots[&who_answers_to(client, pool)]).collect()
    };
    let before = slots(&pool);
    assert!((0..4).all(|slot| before.iter().filter(|known| **known == slot).count() > 15), "{before:?}");
    for _ in 0..3 {
        assert_eq!(slots(&pool), before);
    }
    pool.member(2).process.signal(libc::SIGKILL);
    until("it is seen", || (pool.status()["counters"]["restarts_crash"] == 1).then_some(()));
    pool.wait_ready(4);
    assert_eq!(slots(&pool), before, "the one that is replaced has the same clients");
    assert_eq!(code(&pool.ask(&["scale", "5"])), 0);
    pool.wait_ready(5);
    let after = slots(&pool);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!(moved * 100 <= 40 * before.len() && moved > 0, "{moved} of {} moved", before.len());
    eprintln!("{moved} of {} clients moved from four to five workers", before.len());
    assert_eq!(code(&pool.ask(&["scale", "4"])), 0);
    pool.wait_ready(4);
    assert_eq!(slots(&pool), before, "and they come back");
}

/// In a network of its own, whose loopback has more IPv6 addresses than one.
#[test]
fn a_client_of_ipv6_keeps_its_worker() {
    const SCRIPT: &str = r#"set -e
        ip link set lo up
        for i in $(seq 40); do ip -6 addr add fd00::$(printf %x $i)/128 dev lo nodad; done
        "$1" --workers 3 --listen '[::]:8080' --sockets sticky --admin off --control @v6 -- "$2" & drainit=$!
        until DRAINIT_CONTROL=@v6 "$1" status --json | grep -q '"ready_workers":3'; do sleep 0.05; done
        "$3" -c "$4"
        kill $drainit; wait $drainit"#;
    const CLIENT: &str = "import socket, sys\n\
        def who(n):\n  \
        s = socket.socket(socket.AF_INET6); s.bind(('fd00::%x' % n, 0)); s.connect(('::1', 8080))\n  \
        s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')\n  \
        answer = b''\n  \
        while True:\n    \
        part = s.recv(4096)\n    \
        if not part: return answer.split()[-1]\n    \
        answer += part\n\
        first = [who(n) for n in range(1, 41)]\n\
        assert first == [who(n) for n in range(1, 41)], 'a client moved'\n\
        assert len(set(first)) == 3, first\n";
    let Some(python) = python() else { return cannot_run("no python3") };
    if std::process::Command::new("ip").arg("-V").output().is_err() {
        return cannot_run("no ip (iproute2)");
    }
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", "--map-root-user", "sh", "-c", SCRIPT, "sh"]);
    command.arg(common::Subject::from_env().path()).arg(common::example("server")).arg(python).arg(CLIENT);
    let output = command.output().expect("unshare");
    assert!(output.status.success(), "{output:?}");
}
