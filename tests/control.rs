//! The control socket, who may use it, and the subcommands.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Command, Output};

use common::pool::{Pool, code, pool, text, unique_name};
use common::{Exit, Launch, Running, Stage, Subject, cannot_run, fresh_uid, is_root, pid1, until};

fn ready_pool() -> Pool {
    let pool = pool().options(["--workers", "2", "--lb-wait", "5s"]).worker(["poll=3"]).start();
    pool.wait_ready(2);
    pool
}

fn drainit() -> Command {
    let mut command = Command::new(Subject::from_env().path());
    command.env_remove("DRAINIT_CONTROL");
    command
}

/// An init with a control socket of its own choosing, at `options`.
fn init(options: &[&str]) -> Running {
    let running = launch(options).start();
    running.expect("here");
    running
}

fn launch(options: &[&str]) -> Launch {
    pid1()
        .bare()
        .options(["--admin", "off", "--ready-when", "started"])
        .options(options)
        .worker(["say=here", "pause"])
}

/// A subcommand in the namespaces of `running`, with that environment.
fn ask(running: &Running, environment: &[(&str, &str)], words: &[&str]) -> Output {
    let mut command = Command::new("nsenter");
    command.args(["--target", &running.init().0.to_string(), "--pid", "--mount"]);
    if !is_root() {
        command.args(["--user", "--preserve-credentials"]);
    }
    command.arg(Subject::from_env().path()).args(words).env_remove("DRAINIT_CONTROL");
    command.envs(environment.iter().copied()).output().expect("nsenter")
}

/// The socket is served as soon as the worker has been started, not before.
fn ask_until_answered(running: &Running, environment: &[(&str, &str)], words: &[&str]) -> Output {
    until(format_args!("an answer to {words:?}\n{running}"), || {
        Some(ask(running, environment, words)).filter(|output| code(output) != 2)
    })
}

#[test]
fn probes_say_yes_by_0_and_nothing() {
    let pool = ready_pool();
    for which in ["live", "ready", "startup"] {
        let output = pool.ask(&["probe", which]);
        assert_eq!((code(&output), output.stdout.len(), output.stderr.len()), (0, 0, 0), "{output:?}");
    }
}

#[test]
fn probes_say_no_by_1_and_why_on_stdout() {
    let pool = pool().worker(["say=here", "pause"]).start();
    pool.expect("here");
    assert_eq!(code(&pool.ask(&["probe", "live"])), 0);
    for which in ["ready", "startup"] {
        let output = pool.ask(&["probe", which]);
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(text(&output.stdout).contains("[-]startup failed"), "{output:?}");
    }
}

#[test]
fn a_probe_of_a_pool_that_drains_is_no() {
    let pool = ready_pool();
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    let output = pool.ask(&["probe", "ready"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(text(&output.stdout).contains("[-]shutdown failed: lame-duck"), "{output:?}");
    assert_eq!(code(&pool.ask(&["probe", "live"])), 0);
}

#[test]
fn whoever_cannot_be_asked_is_2_and_one_line() {
    let nobody = unique_name();
    for words in [&["probe", "ready"][..], &["status"], &["status", "--json"], &["scale", "2"], &["prestop"]]
    {
        let output = drainit().args(words).env("DRAINIT_CONTROL", &nobody).output().unwrap();
        assert_eq!(code(&output), 2, "{output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
        assert!(text(&output.stderr).contains(&nobody), "{output:?}");
    }
}

#[test]
fn a_drainit_that_hangs_cannot_be_asked() {
    let pool = ready_pool();
    pool.signal(libc::SIGSTOP);
    let output = pool.ask(&["probe", "live", "--timeout", "200ms"]);
    assert_eq!(code(&output), 2, "{output:?}");
    pool.signal(libc::SIGCONT);
}

#[test]
fn status_is_a_table_for_people() {
    let pool = ready_pool();
    let output = pool.ask(&["status"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let table = text(&output.stdout);
    assert!(table.starts_with("serving, ready: 2 of 2 workers ready, 1 needed"), "{table}");
    let rows: Vec<_> = table.lines().filter(|line| line.contains("inherited")).collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(table.lines().any(|line| line.starts_with("SLOT") && line.contains("STATE")), "{table}");
}

#[test]
fn status_json_is_what_the_admin_port_shows() {
    let pool = ready_pool();
    let output = pool.ask(&["status", "--json"]);
    assert_eq!(code(&output), 0);
    let mut shown: [serde_json::Value; 2] =
        [serde_json::from_slice(&output.stdout).expect("JSON"), pool.status()];
    for status in &mut shown {
        status["uptime_seconds"].take();
        status["workers"].as_array_mut().unwrap().iter_mut().for_each(|w| drop(w["uptime_seconds"].take()));
    }
    assert_eq!(shown[0], shown[1]);
}

#[test]
fn status_shows_a_drain() {
    let pool = ready_pool();
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    let table = text(&pool.ask(&["status"]).stdout);
    assert!(table.starts_with("lame-duck, not ready") && table.contains("drain by SIGTERM"), "{table}");
}

#[test]
fn status_does_not_mind_that_nobody_reads_it() {
    let pool = ready_pool();
    let command = pool.command(&["status"]);
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    for stdout in ["> /dev/full", "| true", ">&-"] {
        let script = format!("nsenter \"$@\" 2>&1 {stdout}");
        let output = Command::new("bash")
            .args(["-c", &format!("set -o pipefail; {script}"), "bash"])
            .args(&words)
            .env("DRAINIT_CONTROL", &pool.control)
            .output()
            .unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("panic") && !said.contains("bug"), "{stdout}: {said}");
    }
}

#[test]
fn another_user_is_refused() {
    if !is_root() {
        return cannot_run("needs root to become another user");
    }
    let pool = ready_pool();
    let stage = Stage::new();
    let uid = fresh_uid().to_string();
    for words in [&["status"][..], &["scale", "3"], &["prestop"], &["probe", "live"]] {
        let output = pool
            .inside()
            .args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"])
            .arg(stage.init())
            .args(words)
            .env("DRAINIT_CONTROL", &pool.control)
            .output()
            .unwrap();
        assert_eq!(code(&output), 2, "{words:?}: {output:?}");
        assert!(text(&output.stderr).contains("403"), "{output:?}");
    }
    let status = pool.status();
    assert_eq!((&status["desired"], &status["phase"]), (&2.into(), &"serving".into()));
}

#[test]
fn its_own_user_and_root_are_not_refused() {
    if !is_root() {
        return cannot_run("needs root to become another user");
    }
    let stage = Stage::new();
    let uid = fresh_uid().to_string();
    let pool = pool()
        .with(|launch| launch.init_at(stage.init()).fixture_at(stage.fixture()))
        .under([format!("uid={uid}")])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    let output = pool
        .inside()
        .args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"])
        .arg(stage.init())
        .args(["scale", "2"])
        .env("DRAINIT_CONTROL", &pool.control)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(code(&pool.ask(&["scale", "3"])), 0);
    pool.wait_ready(3);
}

#[test]
fn another_pid_namespace_is_refused_though_it_shares_the_network() {
    let pool = ready_pool();
    // From outside, and from another container of the pod.
    let outside = drainit().args(["scale", "3"]).env("DRAINIT_CONTROL", &pool.control).output().unwrap();
    let other = init(&["--control", "off"]);
    let sidecar = ask(&other, &[("DRAINIT_CONTROL", &pool.control)], &["scale", "3"]);
    for output in [outside, sidecar] {
        assert_eq!(code(&output), 2, "{output:?}");
        assert!(text(&output.stderr).contains("403"), "{output:?}");
    }
    assert_eq!(pool.status()["desired"], 2);
}

#[test]
fn a_path_is_for_its_owner_alone_and_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let name = path.to_str().unwrap();
    let mut running = launch(&["--control", name]).under(["umask=0"]).start();
    running.expect("here");
    let file = fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let output = ask_until_answered(&running, &[("DRAINIT_CONTROL", name)], &["probe", "live"]);
    assert_eq!(code(&output), 0, "{output:?}");
    running.signal(libc::SIGTERM);
    running.wait();
    assert!(!path.exists());
}

#[test]
fn a_stale_path_is_replaced_and_a_live_one_or_another_file_is_69() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let name = path.to_str().unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let running = init(&["--control", name]);
    let second = launch(&["--control", name]).run();
    second.assert_code(69);
    assert!(second.stdout.is_empty() && second.stderr.contains("--control"), "{second:?}");
    drop(running);
    let file = directory.path().join("precious");
    fs::write(&file, "data").unwrap();
    launch(&["--control", file.to_str().unwrap()]).run().assert_code(69);
    assert_eq!(fs::read_to_string(file).unwrap(), "data");
}

#[test]
fn an_abstract_name_needs_no_file_system() {
    let name = unique_name();
    let running = launch(&["--control", &name]).under(["read-only-root"]).start();
    running.expect("here");
    let output = ask_until_answered(&running, &[("DRAINIT_CONTROL", &name)], &["probe", "live"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let second = launch(&["--control", &name]).run();
    second.assert_code(69);
}

#[test]
fn off_means_that_there_is_none() {
    let running = init(&["--control", "off"]);
    let sockets = running.init().descriptors();
    let table = running.init().text("net/unix");
    for (_, path) in sockets {
        let path = path.to_string_lossy().into_owned();
        let Some(inode) = path.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) else {
            continue;
        };
        let listens = |line: &str| line.split_whitespace().nth(3) == Some("00010000");
        let own = table.lines().find(|line| line.split_whitespace().nth(6) == Some(inode));
        assert!(!own.is_some_and(listens), "{own:?}");
    }
    let output = ask(&running, &[("DRAINIT_CONTROL", "off")], &["status"]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("off"), "{output:?}");
}

#[test]
fn without_being_told_the_subcommands_find_the_drainit_of_their_container() {
    let (first, second) = (init(&[]), init(&[]));
    for running in [&first, &second] {
        let output = ask_until_answered(running, &[], &["status", "--json"]);
        assert_eq!(code(&output), 0, "{output:?}");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let worker = running.worker();
        assert_eq!(status["workers"][0]["pid"].to_string(), worker.pid_inside());
    }
}

#[test]
fn where_it_is_not_found_the_ones_that_there_are_are_named() {
    let name = unique_name();
    let other = init(&["--control", &name]);
    until("it listens", || other.init().text("net/unix").contains(&name).then_some(()));
    // In a mount namespace with no drainit of its own.
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user"])
        .arg(Subject::from_env().path())
        .arg("status")
        .env_remove("DRAINIT_CONTROL")
        .output()
        .unwrap();
    if text(&output.stderr).contains("unshare") {
        return cannot_run("needs user namespaces");
    }
    assert_eq!(code(&output), 2, "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("DRAINIT_CONTROL") && said.contains(&name), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn what_is_sent_to_the_control_socket_is_checked() {
    // By hand, in the container: the subcommand would not send it.
    let Some(python) = common::pool::python() else { return cannot_run("needs python3") };
    let pool = ready_pool();
    let ask = |request: &str| {
        let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\n\
            s.connect('\\0' + sys.argv[1][1:])\ns.sendall(sys.argv[2].encode())\n\
            print(s.makefile().readline())";
        let output =
            pool.inside().arg(&python).args(["-c", script, &pool.control, request]).output().unwrap();
        text(&output.stdout).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let post = |path: &str, body: &str| {
        let length = body.len();
        ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };
    assert_eq!(post("/scale", "{\"workers\": 3}"), "200");
    for body in ["", "3", "{}", "{\"workers\": 0}", "{\"workers\": 1025}", "{\"workers\": 2, \"x\": 1}"] {
        assert_eq!(post("/scale", body), "400", "{body}");
    }
    assert_eq!(post("/scale", &"x".repeat(5000)), "413");
    assert_eq!(post("/nothing", ""), "404");
    assert_eq!(ask("GET /scale HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "405");
    assert_eq!(pool.status()["desired"], 3);
}

#[test]
fn install_copies_the_binary_which_then_runs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("init");
    for target in [file.as_path(), directory.path()] {
        let output = drainit().arg("install").arg(target).output().unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
    }
    for copy in [file, directory.path().join("drainit")] {
        let installed = fs::metadata(&copy).unwrap();
        assert_eq!(installed.permissions().mode() & 0o777, 0o755);
        assert_eq!(installed.size(), fs::metadata(Subject::from_env().path()).unwrap().size());
        let version = Command::new(&copy).arg("--version").output().unwrap();
        assert_eq!(code(&version), 0);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no draft is left");
}

#[test]
fn install_replaces_a_file_even_one_that_is_being_run() {
    let stage = Stage::new();
    let copy = stage.init();
    let running = pid1().init_at(&copy).worker(["say=here", "pause"]).start();
    running.expect("here");
    let before = fs::metadata(&copy).unwrap().ino();
    assert_eq!(code(&drainit().arg("install").arg(&copy).output().unwrap()), 0);
    assert_ne!(fs::metadata(&copy).unwrap().ino(), before);
    assert!(running.init().is_alive());
}

#[test]
fn install_to_where_it_cannot_says_so() {
    let output = drainit().args(["install", "/nowhere/drainit"]).output().unwrap();
    assert_eq!(code(&output), 71, "{output:?}");
    assert!(text(&output.stderr).contains("/nowhere/drainit"), "{output:?}");
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
fn a_control_socket_full_of_idle_connections_still_answers() {
    let pool = ready_pool();
    let address = SocketAddr::from_abstract_name(&pool.control[1..]).unwrap();
    // Of strangers, for that matter.
    let idle: Vec<_> = (0..200).filter_map(|_| UnixStream::connect_addr(&address).ok()).collect();
    assert!(idle.len() > 100);
    assert_eq!(code(&pool.ask(&["probe", "ready"])), 0);
}

#[test]
fn the_end_of_drainit_ends_what_is_asked_of_it() {
    let mut pool = ready_pool();
    pool.signal(libc::SIGINT);
    assert_eq!(pool.wait(), Exit::Code(0));
    let output = drainit().arg("status").env("DRAINIT_CONTROL", &pool.control).output().unwrap();
    assert_eq!(code(&output), 2);
}
