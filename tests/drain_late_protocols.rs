//! What a connection gets that no worker accepts any more, by what it speaks and how.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures, and some clients are slow")]

mod common;
mod late;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::pool::{Companion, pool_without_socket, python, text};
use common::{cannot_run, until};
use late::{answer, assert_unavailable, connect, deaf, hear, send, started, told, waiting};

/// Drains it and hears what this one gets.
#[track_caller]
fn late(bytes: &[u8]) -> Vec<u8> {
    let mut pool = started(deaf());
    let mut client = send(pool.address(), bytes);
    pool.signal(libc::SIGTERM);
    let heard = hear(&mut client).expect("a clean end");
    drop(client);
    pool.outcome().assert_code(0);
    heard
}

#[test]
fn a_request_is_answered_503_in_http_1_1_and_1_0() {
    let mut pool = started(deaf());
    let heads = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "DELETE /everything HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let mut clients = heads.map(|head| send(pool.address(), head.as_bytes()));
    pool.signal(libc::SIGTERM);
    clients.iter_mut().for_each(|client| assert_unavailable(client));
    drop(clients);
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert_eq!(told(&outcome, "unavailable"), heads.len() as u64);
}

#[test]
fn the_answer_to_a_head_has_no_body_and_says_how_long_it_would_be() {
    let heard = text(&late(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(heard.ends_with("Content-Length: 36\r\n\r\n"), "{heard:?}");
}

/// RFC 9112, 9.6: after `Connection: close` no further request is answered, and the client knows that it is not.
#[test]
fn of_pipelined_requests_the_first_is_answered() {
    let heard = text(&late(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20)));
    assert_eq!(heard.matches("HTTP/1.1 503").count(), 1, "{heard:?}");
}

#[test]
fn who_asks_whether_to_send_a_body_is_told_503_at_once() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
    let heard = text(&late(head.as_bytes()));
    assert!(heard.starts_with("HTTP/1.1 503 "), "{heard:?}");
}

#[test]
fn a_body_of_10_mb_in_flight_does_not_cost_the_answer() {
    const LENGTH: usize = 10_000_000;
    let pool = started(deaf());
    let address = pool.address();
    let mut client =
        send(address, format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
    let mut half = client.try_clone().unwrap();
    let sender = thread::spawn(move || half.write_all(&vec![b'x'; LENGTH]));
    // The queue takes what the buffers do, and no more.
    until("the sender is held up", || {
        let own = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
        let local = client.local_addr().ok()?;
        let end = format!("{:04X} ", local.port());
        // Its queue of what has not been taken in.
        let line = own
            .lines()
            .find(|line| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(end.trim())))?;
        let unsent = line.split_whitespace().nth(4)?.split(':').next()?.to_owned();
        (u64::from_str_radix(&unsent, 16).ok()? > 100_000).then_some(())
    });
    pool.signal(libc::SIGTERM);
    assert_unavailable(&mut client);
    let sent = sender.join().unwrap();
    assert!(sent.is_ok(), "not everything could be sent: {sent:?}\n{}", *pool);
}

#[test]
fn slow_senders_are_waited_for() {
    let pool = started(deaf());
    let mut client = connect(pool.address());
    pool.signal(libc::SIGTERM);
    // Two seconds and a half, never silent for one.
    for piece in b"GET / HTTP/1.1\r\nHost: example\r\n\r\n".chunks(4) {
        client.write_all(piece).expect("it is still listened to");
        thread::sleep(Duration::from_millis(280));
    }
    assert_unavailable(&mut client);
}

#[test]
fn a_head_that_does_not_end_is_answered_when_its_time_is_up() {
    let mut pool = started(deaf().options(["--late-timeout", "1500ms"]));
    let start = Instant::now();
    let mut client = send(pool.address(), b"GET / HTTP/1.1\r\nHost: a\r\n");
    pool.signal(libc::SIGTERM);
    assert_unavailable(&mut client);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    drop(client);
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert_eq!(told(&outcome, "overdue"), 1);
}

#[test]
fn who_has_closed_its_half_hears_the_answer() {
    let pool = started(deaf());
    let mut client = send(pool.address(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.shutdown(Shutdown::Write).unwrap();
    pool.signal(libc::SIGTERM);
    assert_unavailable(&mut client);
}

/// SETTINGS, then GOAWAY: last stream 0, NO_ERROR; and then the end, whatever else the client sends.
#[test]
fn http_2_gets_settings_and_goaway() {
    // The preface, empty SETTINGS, and HEADERS of stream 1.
    let preface = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86],
    ];
    let heard = late(&preface.concat());
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(heard, [&settings[..], &goaway].concat());
}

#[test]
fn tls_and_whatever_else_gets_a_clean_end() {
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    for bytes in [&hello[..], b"SSH-2.0-client\r\n", b"*1\r\n$4\r\nPING\r\n", &[0; 100_000], b"GET /\r\n"] {
        assert_eq!(late(bytes), b"", "{:?}", &bytes[..5]);
    }
}

#[test]
fn who_says_nothing_gets_a_clean_end_after_a_second() {
    let mut pool = started(deaf());
    let mut client = connect(pool.address());
    pool.signal(libc::SIGTERM);
    let start = Instant::now();
    assert_eq!(hear(&mut client).expect("a clean end"), b"");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    drop(client);
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert_eq!((told(&outcome, "closed"), told(&outcome, "overdue")), (1, 0));
}

#[test]
fn on_a_unix_socket_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let address = format!("unix:{}", path.display());
    let mut pool = started(pool_without_socket().options(["--listen", &address]).worker(["poll=3"]));
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut clients: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for client in &mut clients {
        client.write_all(request).unwrap();
    }
    let mut other = UnixStream::connect(&path).unwrap();
    other.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
    pool.signal(libc::SIGTERM);
    clients.iter_mut().for_each(|client| assert_unavailable(client));
    assert_eq!(hear(&mut other).expect("a clean end"), b"");
    drop((clients, other));
    pool.outcome().assert_code(0);
    assert!(!path.exists());
}

#[test]
fn body_and_retry_after_are_anybodys_choice() {
    let options = ["--late-body", "come back", "--late-retry-after", "1500ms"];
    let pool = started(deaf().options(options));
    let mut client = send(pool.address(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    pool.signal(libc::SIGTERM);
    let answer = answer(&mut client);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.body, "come back");
}

#[test]
fn reset_means_reset_and_off_means_alone() {
    for what in ["reset", "off"] {
        let mut pool = started(deaf().options(["--late-response", what]));
        let mut client = send(pool.address(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        pool.signal(libc::SIGTERM);
        let error = hear(&mut client).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}");
        let outcome = pool.outcome();
        outcome.assert_code(0);
        match what {
            "reset" => assert_eq!(told(&outcome, "reset"), 1),
            _ => assert!(!outcome.stderr.contains("late connections"), "{outcome:?}"),
        }
    }
}

#[test]
fn real_clients_of_http_1_understand_it() {
    let Some(python) = python() else { return cannot_run("needs python3") };
    let pool = started(deaf());
    let url = format!("http://{}/", pool.address());
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    std::fs::write(&body, vec![b'x'; 10_000_000]).unwrap();
    let script = "import http.client, sys\n\
                  c = http.client.HTTPConnection(sys.argv[1]); c.request('POST', '/', body=b'x' * 10_000_000)\n\
                  r = c.getresponse(); print(r.status, r.getheader('Retry-After'), r.read().decode())";
    let address = pool.address().to_string();
    let mut clients = vec![{
        let mut command = Command::new(python);
        command.args(["-c", script, &address]);
        command
    }];
    if Command::new("curl").arg("--version").output().is_ok() {
        let mut command = Command::new("curl");
        command.args(["-sS", "-w", "\n%{http_code}", "-T"]).arg(&body).arg(&url);
        clients.push(command);
    }
    let running: Vec<_> = clients
        .iter_mut()
        .map(|command| {
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    until("they have connected", || (waiting(&pool) == running.len()).then_some(()));
    pool.signal(libc::SIGTERM);
    for client in running {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = text(&output.stdout);
        assert!(said.contains("503") && said.contains("please retry"), "{output:?}");
    }
}

/// Node's own HTTP/2 client, as a gRPC client does: what GOAWAY says was not looked at is asked for again elsewhere.
#[test]
fn a_client_of_http_2_that_retries_on_goaway_sees_no_error() {
    if Command::new("node").arg("--version").output().is_err() {
        return cannot_run("needs node");
    }
    let pool = started(deaf());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/late/h2client.js");
    let mut client = Companion::start(
        Command::new("node")
            .args([script, &format!("http://{}", pool.address()), "50"])
            .stdout(std::process::Stdio::piped()),
    );
    until("its connections wait", || (waiting(&pool) == 50).then_some(()));
    pool.signal(libc::SIGTERM);
    let mut said = String::new();
    client.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.trim(), "50 answered, 50 after GOAWAY, 0 errors", "{said}");
}

/// A client that is gone when its turn comes is nobody's trouble.
#[test]
fn who_has_gone_is_passed_over() {
    let mut pool = started(deaf());
    for _ in 0..20 {
        let client = send(pool.address(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let reset: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };
        set_linger(&client, &reset);
        drop(client);
        drop(connect(pool.address()));
    }
    let mut last = send(pool.address(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    pool.signal(libc::SIGTERM);
    assert_unavailable(&mut last);
    drop(last);
    pool.outcome().assert_code(0);
}

#[allow(unsafe_code, clippy::undocumented_unsafe_blocks)]
fn set_linger(stream: &TcpStream, linger: &libc::linger) {
    use std::os::fd::AsRawFd;
    let size = size_of::<libc::linger>() as libc::socklen_t;
    let place = std::ptr::from_ref(linger).cast();
    let result =
        unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, place, size) };
    assert_eq!(result, 0);
}
