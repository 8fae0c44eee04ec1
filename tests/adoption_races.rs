//! Bind adoption where many things happen at once, where somebody is gone when the answer comes, and where somebody else
//! is asked already.

mod common;

use std::ffi::OsString;
use std::net::Ipv4Addr;

use common::pool::{Pool, PoolLaunch, Port, pool_without_socket, python};
use common::{Subject, cannot_run, example, http, until};

/// Accepts for ever, one client after the other.
const SERVE: &str = "\ndef serve(s):\n  \
    while True:\n    \
    c, _ = s.accept(); c.recv(999)\n    \
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok'); c.close()\n";

/// Three Python workers on a bare port, which is their only argument.
fn workers(script: &str) -> Option<PoolLaunch> {
    let Some(python) = python() else {
        cannot_run("no python3");
        return None;
    };
    let launch =
        pool_without_socket().options(["--workers", "3", "--max-crashes", "off", "--backoff", "0..5ms"]);
    let port = launch.port().number.to_string();
    let script =
        format!("import os, signal, socket, sys, threading, time\nport = int(sys.argv[1]){SERVE}{script}");
    let command = [python, OsString::from("-u"), "-c".into(), script.into(), port.clone().into()];
    Some(launch.options(["--listen", &port]).command(command))
}

#[track_caller]
fn assert_served(pool: &Pool) {
    // Of one and the same look: who was ready a moment ago may have been killed since.
    until(format_args!("three that are ready and adopted\n{}", **pool), || {
        let status = pool.status();
        let workers = status["workers"].as_array()?;
        let served = |worker: &&serde_json::Value| worker["ready"] == true && worker["socket"] == "adopted";
        (workers.len() == 3 && workers.iter().filter(served).count() == 3).then_some(())
    });
    let answer = http::get(pool.port.on(Ipv4Addr::LOCALHOST), "/");
    assert!(answer.is_ok_and(|answer| answer.body == "ok"), "{}", **pool);
}

#[test]
fn mptcp_sockets_are_adopted() {
    let enabled = std::fs::read_to_string("/proc/sys/net/mptcp/enabled").unwrap_or_default();
    if enabled.trim() != "1" {
        return cannot_run("no MPTCP in this kernel (net.mptcp.enabled)");
    }
    let script = "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n\
        s.bind(('0.0.0.0', port)); s.listen(); serve(s)";
    let Some(launch) = workers(script) else { return };
    assert_served(&launch.start());
}

/// Each thread's call waits for its own answer, and what is not ours is not touched.
#[test]
fn threads_that_bind_at_once_all_get_what_they_asked_for() {
    let script = "errors = []\n\
        def other():\n  \
        for _ in range(200):\n    \
        try:\n      \
        s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)\n      \
        s.bind(('::1', 0)); s.listen(); assert s.getsockname()[1] != port; s.close()\n    \
        except BaseException as e: errors.append(e)\n\
        def ours():\n  \
        for _ in range(50):\n    \
        try:\n      \
        s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(); assert s.getsockname()[1] == port; s.close()\n    \
        except BaseException as e: errors.append(e)\n\
        threads = [threading.Thread(target=t) for t in [other, ours] * 8]\n\
        [t.start() for t in threads]; [t.join() for t in threads]\n\
        if errors: print('failed:', errors[:3]); sys.exit(9)\n\
        print('bound all')\n\
        s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(); serve(s)";
    let Some(launch) = workers(script) else { return };
    let pool = launch.start();
    until(format_args!("three have bound all\n{}", *pool), || {
        (pool.lines().iter().filter(|line| *line == "bound all").count() == 3).then_some(())
    });
    assert_served(&pool);
    assert_eq!(pool.counter("restarts_crash"), 0, "{}", *pool);
}

/// A signal interrupts bind(2) before it has been taken in: the kernel asks a second time, and only the second answer
/// finds somebody. (Where the handler was installed without SA_RESTART, the call fails with EINTR.)
#[test]
fn a_bind_that_signals_interrupt_is_answered() {
    let script = "signal.signal(signal.SIGUSR1, lambda *a: None); signal.siginterrupt(signal.SIGUSR1, False)\n\
        if os.fork() == 0:\n  \
        parent = os.getppid()\n  \
        end = time.monotonic() + 2\n  \
        while time.monotonic() < end: os.kill(parent, signal.SIGUSR1); time.sleep(0.0002)\n  \
        os._exit(0)\n\
        end = time.monotonic() + 2\n\
        while time.monotonic() < end:\n  \
        s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(); assert s.getsockname()[1] == port; s.close()\n\
        s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(); serve(s)";
    let Some(launch) = workers(script) else { return };
    let pool = launch.start();
    assert_served(&pool);
    assert_eq!(pool.counter("restarts_crash"), 0, "{}", *pool);
}

/// drainit stands still while the workers ask and die: it finds questions of the dead, answers nobody, and goes on.
#[test]
fn a_worker_killed_while_it_waits_for_an_answer_is_just_a_dead_worker() {
    let script = "print('about to bind')\n\
        s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(); serve(s)";
    let Some(launch) = workers(script) else { return };
    let pool = launch.start();
    assert_served(&pool);
    let init = pool.init();
    for _ in 0..5 {
        let before = pool.lines().len();
        pool.member(1).process.signal(libc::SIGKILL);
        let asking = until(format_args!("another is about to bind\n{}", *pool), || {
            init.signal(libc::SIGCONT);
            let known = pool.lines().len() > before;
            init.signal(libc::SIGSTOP);
            known.then(|| init.children()).filter(|children| children.len() == 3)
        });
        // Whoever it is, it is in bind by now, has been, or has been answered: all of it is to be survived.
        asking.iter().for_each(|worker| worker.signal(libc::SIGKILL));
        init.signal(libc::SIGCONT);
        assert_served(&pool);
    }
    assert!(!pool.has_logged("panic"), "{}", *pool);
}

/// What a worker may do with a socket that it has been given, it may do again.
#[test]
fn a_second_listen_a_close_and_a_second_bind_are_what_they_are_elsewhere() {
    let script = "s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(1); s.listen(5)\n\
        try: s.bind(('0.0.0.0', port)); sys.exit(8)\n\
        except OSError as e: assert e.errno == 22, e\n\
        s.close()\n\
        s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(0)\n\
        assert s.getsockname() == ('0.0.0.0', port), s.getsockname()\n\
        if os.environ.get('AGAIN') is None:\n  \
        os.environ['AGAIN'] = '1'; os.execv(sys.executable, [sys.executable] + sys.orig_argv[1:])\n\
        serve(s)";
    let Some(launch) = workers(script) else { return };
    let pool = launch.start();
    assert_served(&pool);
    assert_eq!(pool.counter("restarts_crash"), 0, "{}", *pool);
}

/// A process can be asked about by one only, so below a drainit that adopts another one cannot.
#[test]
fn below_another_that_is_asked_auto_goes_on_and_on_does_not() {
    let below = |adopt: &str| {
        let launch = pool_without_socket();
        let inner = Port::reserve();
        let (outer, inner) = (launch.port().number.to_string(), inner.number.to_string());
        let options = ["--workers", "2", "--listen", &inner, "--admin", "off", "--control", "off"];
        let subject = Subject::from_env().path().to_owned().into_os_string();
        let fixture = example("fixture").into_os_string();
        let command = std::iter::once(subject)
            .chain(options.iter().map(OsString::from))
            .chain(["--adopt-bind", adopt, "--log-format", "json", "--"].map(OsString::from))
            .chain([fixture, "say=started".into(), "poll=3".into()]);
        launch
            .options(["--listen", &outer, "--ready-when", "started", "--restart", "never"])
            .command(command.collect::<Vec<_>>())
            .start()
    };
    let pool = below("auto");
    pool.logged("--adopt-bind");
    until(format_args!("two are started\n{}", *pool), || {
        (pool.lines() == ["started", "started"]).then_some(())
    });

    let mut pool = below("on");
    let outcome = pool.outcome();
    outcome.assert_code(71);
    assert!(outcome.stderr.contains("--adopt-bind on") && outcome.stdout.is_empty(), "{outcome:?}");
}
