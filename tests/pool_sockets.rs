//! The sockets that drainit owns: which addresses, which are refused, what becomes of files.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::time::Duration;

use common::pool::{Pool, PoolLaunch, pool_without_socket, unique_name};
use common::{Exit, Outcome, cannot_run, http, pid1, until};

fn serving(launch: PoolLaunch, addresses: &[String]) -> Pool {
    let options = addresses.iter().flat_map(|address| ["--listen", address]);
    let pool = launch.options(options).worker(["serve=3"]).start();
    pool.wait_ready(1);
    pool
}

#[track_caller]
fn assert_served(address: SocketAddr) {
    assert_eq!(http::get(address, "/").expect("an answer").status, 200, "{address}");
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn an_ipv4_address_is_listened_on_and_no_other() {
    let launch = pool_without_socket();
    let port = launch.port().number;
    let pool = serving(launch, &[format!("127.0.0.1:{port}")]);
    assert_served(pool.port.on(Ipv4Addr::LOCALHOST));
    assert!(is_refused(pool.port.on(Ipv4Addr::new(127, 0, 0, 2))));
}

#[test]
fn an_ipv6_address_is_listened_on_and_no_other() {
    if !has_ipv6() {
        return cannot_run("needs IPv6");
    }
    let launch = pool_without_socket();
    let port = launch.port().number;
    let pool = serving(launch, &[format!("[::1]:{port}")]);
    assert_served(pool.port.on(Ipv6Addr::LOCALHOST));
    assert!(is_refused(pool.port.on(Ipv4Addr::LOCALHOST)));
}

#[test]
fn a_bare_port_takes_both_families() {
    if !has_ipv6() {
        return cannot_run("needs IPv6");
    }
    let launch = pool_without_socket();
    let port = launch.port().number;
    let pool = serving(launch, &[port.to_string()]);
    assert_served(pool.port.on(Ipv4Addr::LOCALHOST));
    assert_served(pool.port.on(Ipv6Addr::LOCALHOST));
}

#[test]
fn both_wildcards_of_a_port_can_be_had_side_by_side() {
    if !has_ipv6() {
        return cannot_run("needs IPv6");
    }
    for first in ["[::]", "0.0.0.0"] {
        let second = if first == "[::]" { "0.0.0.0" } else { "[::]" };
        let launch = pool_without_socket();
        let port = launch.port().number;
        let pool = launch
            .options(["--listen", &format!("{first}:{port}"), "--listen", &format!("{second}:{port}")])
            .worker(["{", "serve=4", "}", "serve=3"])
            .start();
        pool.wait_ready(1);
        assert_served(pool.port.on(Ipv4Addr::LOCALHOST));
        assert_served(pool.port.on(Ipv6Addr::LOCALHOST));
    }
}

#[test]
fn a_unix_socket_is_served_and_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let mut pool = serving(pool_without_socket(), &[format!("unix:{}", path.display())]);
    assert!(speak(UnixStream::connect(&path).unwrap()).contains(" 200 "));
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
    assert!(!path.exists());
}

#[test]
fn an_abstract_unix_socket_is_served() {
    let name = unique_name();
    let pool = serving(pool_without_socket(), &[format!("unix:{name}")]);
    let address = UnixAddr::from_abstract_name(&name[1..]).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    assert!(speak(stream).contains(" 200 "), "{}", *pool);
}

fn speak(mut stream: UnixStream) -> String {
    use std::io::{Read, Write};
    let mut answer = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let _ = asked.and_then(|()| stream.read_to_string(&mut answer));
    answer
}

/// Nothing may be started, and one line says what is in the way.
#[track_caller]
fn assert_refused(listen: &str, outcome: &Outcome) {
    outcome.assert_code(69);
    assert!(outcome.stdout.is_empty(), "started: {outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    let address = listen.trim_start_matches("unix:");
    assert!(outcome.stderr.contains("--listen") && outcome.stderr.contains(address), "{outcome:?}");
}

fn started_on(listen: &str) -> Outcome {
    pid1().options(["--listen", listen]).worker(["say=started"]).run()
}

#[test]
fn a_taken_tcp_address_is_69_and_nothing_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let outcome = started_on(&listen);
    assert_refused(&listen, &outcome);
    assert!(outcome.stderr.contains("taken"), "{outcome:?}");
}

#[test]
fn a_bare_port_that_is_taken_on_ipv4_alone_is_69() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let listen = taken.local_addr().unwrap().port().to_string();
    assert_refused(&listen, &started_on(&listen));
}

#[test]
fn an_address_of_another_machine_is_69() {
    assert_refused("192.0.2.1:8080", &started_on("192.0.2.1:8080"));
}

#[test]
fn two_sockets_on_one_address_are_69() {
    let launch = pool_without_socket();
    let address = launch.port().local().to_string();
    let outcome = pid1().options(["--listen", &address, "--listen", &address]).worker(["say=started"]).run();
    assert_refused(&address, &outcome);
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "it is left over");
    let _pool = serving(pool_without_socket(), &[format!("unix:{}", path.display())]);
    assert!(speak(UnixStream::connect(&path).unwrap()).contains(" 200 "));
}

#[test]
fn a_live_unix_socket_is_left_alone_and_is_69() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let live = UnixListener::bind(&path).unwrap();
    let listen = format!("unix:{}", path.display());
    assert_refused(&listen, &started_on(&listen));
    let _client = UnixStream::connect(&path).expect("still there");
    live.accept().expect("still the same");
}

#[test]
fn another_kind_of_file_is_left_alone_and_is_69() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    let listen = format!("unix:{}", path.display());
    assert_refused(&listen, &started_on(&listen));
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn a_unix_socket_in_no_directory_is_69() {
    assert_refused("unix:/nowhere/app.sock", &started_on("unix:/nowhere/app.sock"));
}

#[test]
fn a_refusal_takes_no_socket_file_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = format!("unix:{}", path.display());
    let outcome = pid1().options(["--listen", &listen, "--listen", &address]).worker(["say=started"]).run();
    assert_refused(&address, &outcome);
    assert!(!path.exists(), "left behind");
}

#[test]
fn umask_decides_the_mode_of_a_unix_socket() {
    for (umask, mode) in [("0", 0o777), ("027", 0o750), ("077", 0o700)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let step = format!("umask={umask}");
        let launch = pool_without_socket().under([step]);
        let _pool = serving(launch, &[format!("unix:{}", path.display())]);
        let file = fs::metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o777, mode, "umask {umask}");
    }
}

#[test]
fn a_socket_file_that_somebody_else_has_put_there_meanwhile_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let mut pool = serving(pool_without_socket(), &[format!("unix:{}", path.display())]);
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    pool.signal(libc::SIGTERM);
    pool.wait();
    assert!(path.exists());
}

#[test]
fn a_relative_socket_path_counts_from_where_drainit_was_started() {
    let directory = tempfile::tempdir().unwrap();
    let step = format!("cwd={}", directory.path().display());
    let mut pool = serving(pool_without_socket().under([step]), &["unix:app.sock".to_owned()]);
    let path = directory.path().join("app.sock");
    assert!(speak(UnixStream::connect(&path).unwrap()).contains(" 200 "));
    pool.signal(libc::SIGTERM);
    pool.wait();
    assert!(!path.exists());
}

#[test]
fn the_queue_is_as_long_as_the_kernel_allows() {
    let allowed: usize = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let launch = pool_without_socket();
    let address = launch.port().local().to_string();
    let pool = launch.options(["--listen", &address, "--ready-when", "started"]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    // Nobody accepts; the kernel lets in one more than it is asked to. Beyond that a connect waits in vain.
    let wanted = (allowed + 1).min(600);
    let clients: Vec<_> = (0..wanted)
        .map(|_| TcpStream::connect_timeout(&pool.address(), Duration::from_millis(500)))
        .collect();
    assert!(clients.iter().all(Result::is_ok), "of {wanted}, with a queue of {allowed}");
}

#[test]
fn the_socket_outlives_the_worker() {
    let launch = pool_without_socket();
    let address = launch.port().local().to_string();
    let pool = launch
        .options(["--listen", &address, "--ready-when", "started", "--backoff", "0..0"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    // Nobody has accepted it when its worker dies, nor after that: it is not reset.
    let mut client = TcpStream::connect(pool.address()).unwrap();
    let first = pool.member(0).process;
    first.signal(libc::SIGKILL);
    until("a second worker", || (pool.members().first()?.process != first).then_some(()));
    client.set_nonblocking(true).unwrap();
    let seen = std::io::Read::read(&mut client, &mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(seen, Err(std::io::ErrorKind::WouldBlock));
}
