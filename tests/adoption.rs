//! Servers that bind for themselves, unmodified: each of a pool's workers gets the one socket.

mod common;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use common::pool::{Pool, PoolLaunch, code, pool_without_socket, python};
use common::{Exit, Outcome, cannot_run, http, until};

/// A server of the standard library's, which knows nothing but its port. Its answer is its client's address.
const HTTP_SERVER: &str = "import http.server, socket, sys\n\
    class H(http.server.BaseHTTPRequestHandler):\n  def log_message(*a): pass\n  def do_GET(self):\n    \
    body = str(self.client_address[0]).encode()\n    \
    self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n\
    class S(http.server.ThreadingHTTPServer):\n  address_family = getattr(socket, sys.argv[3])\n\
    S((sys.argv[2], int(sys.argv[1])), H).serve_forever()";

const ASYNCIO: &str = "import asyncio, sys\n\
    async def serve(r, w):\n  await r.readuntil(b'\\r\\n\\r\\n')\n  \
    body = w.get_extra_info('peername')[0].encode()\n  \
    w.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body); w.close()\n\
    async def main():\n  s = await asyncio.start_server(serve, None, int(sys.argv[1]))\n  await s.serve_forever()\n\
    asyncio.run(main())";

const NODE: &str =
    "require('http').createServer((q, r) => r.end(q.socket.remoteAddress)).listen(+process.argv[1])";

/// A pool of three that owns the port, on every address.
fn on_bare_port() -> PoolLaunch {
    let launch = pool_without_socket().options(["--workers", "3"]);
    let port = launch.port().number.to_string();
    launch.options(["--listen", &port])
}

fn run_python(launch: PoolLaunch, script: &str, arguments: &[&str]) -> Option<PoolLaunch> {
    let Some(python) = python() else {
        cannot_run("no python3");
        return None;
    };
    let port = launch.port().number.to_string();
    let words = ["-u", "-c", script, &port].into_iter().chain(arguments.iter().copied());
    Some(launch.command(std::iter::once(python).chain(words.map(OsString::from))))
}

#[track_caller]
fn assert_adopted(pool: &Pool) {
    pool.wait_ready(3);
    let status = pool.status();
    for worker in status["workers"].as_array().into_iter().flatten() {
        assert_eq!(worker["socket"], "adopted", "{status}\n{}", **pool);
    }
}

/// What /status shows is seen before the log's line about it has been read, hence the wait.
#[track_caller]
fn assert_said_once(pool: &Pool, what: &str) {
    pool.logged(what);
    assert_eq!(pool.log().iter().filter(|line| line["message"].to_string().contains(what)).count(), 1);
}

#[track_caller]
fn body(pool: &Pool, ip: impl Into<IpAddr>) -> String {
    let answer = http::get(pool.port.on(ip), "/").unwrap_or_else(|error| panic!("{error}\n{}", **pool));
    assert_eq!(answer.status, 200);
    answer.body
}

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[test]
fn node_servers_share_one_port() {
    if Command::new("node").arg("--version").output().is_err() {
        return cannot_run("no node");
    }
    let launch = on_bare_port();
    let port = launch.port().number.to_string();
    let pool = launch.command(["/usr/bin/env", "node", "-e", NODE, &port]).start();
    assert_adopted(&pool);
    assert_eq!(body(&pool, Ipv4Addr::LOCALHOST), "::ffff:127.0.0.1");
    assert_eq!(body(&pool, Ipv6Addr::LOCALHOST), "::1");
}

#[test]
fn a_server_on_ipv4_sees_ipv4_clients() {
    let Some(launch) = run_python(on_bare_port(), HTTP_SERVER, &["0.0.0.0", "AF_INET"]) else { return };
    let pool = launch.start();
    assert_adopted(&pool);
    for _ in 0..20 {
        assert_eq!(body(&pool, Ipv4Addr::LOCALHOST), "127.0.0.1");
    }
    assert!(refuses(pool.port.on(Ipv6Addr::LOCALHOST)), "nobody has asked for IPv6");
}

#[test]
fn a_server_on_both_families_has_both() {
    let Some(launch) = run_python(on_bare_port(), ASYNCIO, &[]) else { return };
    let pool = launch.start();
    assert_adopted(&pool);
    for _ in 0..10 {
        assert_eq!(body(&pool, Ipv4Addr::LOCALHOST), "127.0.0.1");
        assert_eq!(body(&pool, Ipv6Addr::LOCALHOST), "::1");
    }
}

#[test]
fn a_server_on_loopback_is_not_exposed_wider() {
    let Some(launch) = run_python(on_bare_port(), HTTP_SERVER, &["127.0.0.1", "AF_INET"]) else { return };
    let pool = launch.start();
    assert_adopted(&pool);
    assert_eq!(body(&pool, Ipv4Addr::LOCALHOST), "127.0.0.1");
    assert!(refuses(pool.port.on(Ipv4Addr::new(127, 0, 0, 2))));
    assert!(refuses(pool.port.on(Ipv6Addr::LOCALHOST)));
}

#[test]
fn an_explicit_address_is_what_it_says() {
    let launch = pool_without_socket().options(["--workers", "3"]);
    let address = launch.port().local().to_string();
    let Some(launch) =
        run_python(launch.options(["--listen", &address]), HTTP_SERVER, &["0.0.0.0", "AF_INET"])
    else {
        return;
    };
    let pool = launch.start();
    assert_adopted(&pool);
    assert_eq!(body(&pool, Ipv4Addr::LOCALHOST), "127.0.0.1");
    assert!(refuses(pool.port.on(Ipv4Addr::new(127, 0, 0, 2))));
}

#[test]
fn nginx_runs_with_its_own_workers() {
    if Command::new("nginx").arg("-v").output().is_err() {
        return cannot_run("no nginx");
    }
    let stage = tempfile::tempdir().unwrap();
    let launch = on_bare_port();
    let port = launch.port().number;
    let file = stage.path().join("nginx.conf");
    let text = format!(
        "daemon off; worker_processes 2; error_log stderr; pid {0}/pid;\nevents {{}}\nhttp {{ access_log off; \
         client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; \
         scgi_temp_path {0}/e; server {{ listen {port}; location / {{ return 200 \"$remote_addr\"; }} }} }}\n",
        stage.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let pool =
        launch.command(["/usr/bin/env".as_ref(), "nginx".as_ref(), "-c".as_ref(), file.as_os_str()]).start();
    assert_adopted(&pool);
    for _ in 0..20 {
        assert_eq!(body(&pool, Ipv4Addr::LOCALHOST), "127.0.0.1");
    }
}

#[test]
fn a_unix_socket_is_adopted_by_its_path_from_a_server_that_removes_it_first() {
    let stage = tempfile::tempdir().unwrap();
    let path = stage.path().join("app.sock");
    let launch =
        pool_without_socket().options(["--workers", "3", "--listen", &format!("unix:{}", path.display())]);
    let script = "import os, socket, sys\nos.chdir(os.path.dirname(sys.argv[2])); p = 'app.sock'\n\
        os.unlink(p) if os.path.exists(p) else None\n\
        s = socket.socket(socket.AF_UNIX); s.bind(p); s.listen()\n\
        while True:\n  c, _ = s.accept(); c.sendall(b'%d' % os.getpid()); c.close()";
    let Some(launch) = run_python(launch, script, &[path.to_str().unwrap()]) else { return };
    let mut pool = launch.start();
    assert_adopted(&pool);
    for _ in 0..10 {
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut UnixStream::connect(&path).unwrap(), &mut answer).unwrap();
        assert!(!answer.is_empty());
    }
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(0);
    assert_eq!(std::fs::read_dir(stage.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn what_is_not_ours_goes_on_untouched() {
    let script = "import os, socket, sys\n\
        port = int(sys.argv[1])\n\
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', port)); assert u.getsockname()[1] == port\n\
        e = socket.socket(); e.bind(('127.0.0.1', 0)); e.listen(); assert e.getsockname()[1] not in (0, port)\n\
        c = socket.socket(); c.bind(('127.0.0.9', 0)); c.connect(e.getsockname()); assert c.getsockname()[0] == '127.0.0.9'\n\
        x = socket.socket(socket.AF_UNIX); x.bind('\\0' + 'drainit-test-%d' % os.getpid()); x.listen()\n\
        try: socket.socket().bind(('192.0.2.1', 1)); sys.exit('bound')\n\
        except OSError as error: assert error.errno in (99, 13), error\n\
        s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(7)\n\
        assert s.getsockname() == ('0.0.0.0', port), s.getsockname()\n\
        try: s.bind(('0.0.0.0', port)); sys.exit('bound twice')\n\
        except OSError as error: assert error.errno == 22, error\n\
        s.listen(9); print('fine', flush=True)\n\
        while True: s.accept()[0].close()";
    let launch = pool_without_socket();
    let port = launch.port().number.to_string();
    let Some(launch) = run_python(launch.options(["--listen", &port, "--max-crashes", "off"]), script, &[])
    else {
        return;
    };
    let pool = launch.start();
    pool.expect("fine");
}

#[test]
fn the_descriptors_own_flags_are_carried_over() {
    let script = "import fcntl, socket, sys, os\n\
        def flags(s): return fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK, fcntl.fcntl(s, fcntl.F_GETFD)\n\
        s = socket.socket(); before = flags(s)\n\
        s.bind(('0.0.0.0', int(sys.argv[1]))); assert flags(s) == before, (before, flags(s))\n\
        s.close(); s = socket.socket(); s.setblocking(False); os.set_inheritable(s.fileno(), True); before = flags(s)\n\
        s.bind(('0.0.0.0', int(sys.argv[1]))); assert flags(s) == before, (before, flags(s))\n\
        s.listen(); print('fine', flush=True)\n\
        while True: s.accept()[0].close()";
    let launch = pool_without_socket();
    let port = launch.port().number.to_string();
    let Some(launch) = run_python(launch.options(["--listen", &port]), script, &[]) else { return };
    let pool = launch.start();
    pool.expect("fine");
}

#[test]
fn whoever_binds_next_makes_no_accept_block() {
    let script = "import signal, socket, sys\n\
        here = ('0.0.0.0', int(sys.argv[1]))\n\
        s = socket.socket(); s.bind(here); s.setblocking(False); s.listen()\n\
        t = socket.socket(); t.bind(here)\n\
        try: s.accept(); sys.exit('nobody has connected')\n\
        except BlockingIOError: print('fine', flush=True)\n\
        signal.pause()";
    let launch = pool_without_socket();
    let port = launch.port().number.to_string();
    let Some(launch) = run_python(launch.options(["--listen", &port]), script, &[]) else { return };
    let pool = launch.start();
    pool.expect("fine");
}

#[test]
fn processes_that_a_worker_forks_are_asked_too() {
    let script = "import os, socket, sys\n\
        if os.fork(): os.wait()\n\
        s = socket.socket(); s.bind(('0.0.0.0', int(sys.argv[1]))); s.listen()\n\
        for _ in range(2): os.fork() or None\n\
        while True:\n  c, _ = s.accept(); c.recv(999)\n  \
        c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok'); c.close()";
    let Some(launch) = run_python(on_bare_port(), script, &[]) else { return };
    let pool = launch.start();
    assert_adopted(&pool);
    assert_eq!(body(&pool, Ipv4Addr::LOCALHOST), "ok");
}

#[test]
fn a_worker_killed_is_replaced_on_the_same_socket() {
    let launch = on_bare_port().options(["--max-crashes", "off", "--backoff", "0..10ms"]);
    let Some(launch) = run_python(launch, HTTP_SERVER, &["0.0.0.0", "AF_INET"]) else { return };
    let pool = launch.start();
    assert_adopted(&pool);
    for slot in [0, 1, 2] {
        let victim = pool.member(slot).process;
        victim.signal(libc::SIGKILL);
        // One that waits in accept, as the losers of a race do, still takes a connection while it dies.
        until("the victim is dead", || (!victim.is_alive()).then_some(()));
        assert_eq!(body(&pool, Ipv4Addr::LOCALHOST), "127.0.0.1");
        until("another in its place", || (pool.member(slot).process.0 != victim.0).then_some(()));
    }
    assert_adopted(&pool);
}

#[test]
fn off_leaves_the_server_to_itself() {
    let launch = on_bare_port().options(["--adopt-bind", "off", "--max-crashes", "3/60s"]);
    let Some(launch) = run_python(launch, HTTP_SERVER, &["0.0.0.0", "AF_INET"]) else { return };
    let mut pool = launch.start();
    pool.outcome().assert_code(75);
}

#[test]
fn where_the_kernel_refuses_auto_goes_on_and_on_does_not() {
    let refused =
        |launch: PoolLaunch| launch.under(["seccomp=EPERM:seccomp"]).worker(["say=started", "poll=3"]);
    let pool = refused(on_bare_port()).start();
    pool.wait_ready(3);
    assert_said_once(&pool, "--adopt-bind");
    assert_eq!(pool.member(0).process.status("NoNewPrivs"), pool.init().status("NoNewPrivs"));

    let mut pool = refused(on_bare_port().options(["--adopt-bind", "on"])).start();
    let outcome: Outcome = pool.outcome();
    outcome.assert_code(71);
    assert!(outcome.stderr.contains("--adopt-bind"), "{outcome:?}");
    assert!(outcome.stdout.is_empty(), "nothing may have been started: {outcome:?}");
}

#[test]
fn privileges_are_given_up_only_where_the_kernel_wants_it() {
    let pool = on_bare_port().worker(["poll=3"]).start();
    pool.wait_ready(3);
    assert_eq!(pool.member(0).process.status("NoNewPrivs"), "0");

    let pool = on_bare_port().under(["drop-capabilities"]).worker(["poll=3"]).start();
    pool.wait_ready(3);
    assert_eq!(pool.member(0).process.status("NoNewPrivs"), "1");
    assert_eq!(pool.init().status("NoNewPrivs"), "0");
}

#[test]
fn without_an_event_loop_a_server_is_adopted_all_the_same() {
    let launch = on_bare_port().under(["seccomp=EPERM:epoll_create1"]);
    let Some(launch) = run_python(launch, HTTP_SERVER, &["0.0.0.0", "AF_INET"]) else { return };
    let mut pool = launch.start();
    until(format_args!("an answer\n{}", *pool), || {
        http::get(pool.port.local(), "/").ok().filter(|answer| answer.body == "127.0.0.1")
    });
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(0);
}

#[test]
fn a_pool_that_has_no_descriptors_to_spare_does_without_and_says_so() {
    let pool = on_bare_port().under(["limit=NOFILE:24"]).worker(["poll=3"]).start();
    pool.wait_ready(3);
    assert_said_once(&pool, "--adopt-bind");
    assert_eq!(pool.status()["workers"][0]["socket"], "inherited");
}

/// Told to stop, it shuts its listening socket down, as servers of gRPC's core do, and takes its time. Such a server never
/// accepts again once accept has failed.
const SHUTS_DOWN: &str = "import os, selectors, signal, socket, sys, time\n\
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
    s.bind(('0.0.0.0', int(sys.argv[1]))); s.listen(); s.setblocking(False)\n\
    def stop(*_):\n  s.shutdown(socket.SHUT_RDWR); s.close(); os.write(1, b'shut\\n'); time.sleep(1); os._exit(0)\n\
    signal.signal(signal.SIGTERM, stop)\n\
    loop = selectors.EpollSelector(); loop.register(s, selectors.EVENT_READ)\n\
    while True:\n  loop.select()\n  try: c, _ = s.accept()\n  \
    except BlockingIOError: continue\n  \
    except OSError: time.sleep(1000)\n  \
    c.setblocking(True); c.recv(4096)\n  \
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'); c.shutdown(socket.SHUT_RDWR); c.close()";

fn status_of(pool: &Pool) -> u16 {
    http::get(pool.address(), "/").unwrap_or_else(|error| panic!("{error}\n{}", **pool)).status
}

#[test]
fn a_worker_that_shuts_its_socket_down_shuts_it_for_nobody_else() {
    let Some(launch) = run_python(on_bare_port(), SHUTS_DOWN, &[]) else { return };
    let pool = launch.start();
    assert_adopted(&pool);
    assert_eq!(code(&pool.ask(&["scale", "2"])), 0);
    pool.expect("shut");
    // The one that has shut it is still there, and then it is not.
    until("it is gone", || {
        assert_eq!(status_of(&pool), 200);
        (pool.members().len() == 2).then_some(())
    });
    for _ in 0..100 {
        assert_eq!(status_of(&pool), 200);
    }
    assert!(!pool.has_logged("had shut down a socket"), "{}", *pool);
}

/// Nobody is left to take who comes then, and drainit says so in the meantime.
#[test]
fn when_all_shut_it_down_to_finish_who_comes_is_answered() {
    let Some(launch) = run_python(on_bare_port(), SHUTS_DOWN, &[]) else { return };
    let mut pool = launch.options(["--late-linger", "500ms"]).start();
    assert_adopted(&pool);
    pool.signal(libc::SIGTERM);
    until("all have shut it", || {
        (pool.lines().iter().filter(|line| *line == "shut").count() == 3).then_some(())
    });
    until("drainit answers", || (status_of(&pool) == 503).then_some(()));
    assert!(!pool.members().is_empty(), "they still finish");
    assert_eq!(pool.wait(), Exit::Code(0), "{}", *pool);
}
