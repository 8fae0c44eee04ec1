//! `--user`: workers that are somebody else, and what a drainit with another user's workers still can.

mod common;

use common::pool::{Companion, PoolLaunch, code, pool, pool_without_socket, text};
use common::{Exit, Process, cannot_run, is_root, nested, pid1, until};

const CAP_KILL: &str = "drop-capability=5";
const CAP_SYS_PTRACE: &str = "drop-capability=19";
const CAP_SYS_ADMIN: &str = "drop-capability=21";

/// Says so where it cannot be.
#[track_caller]
fn may_change_users() -> bool {
    if !is_root() {
        cannot_run("not root: no worker can be another user");
    }
    is_root()
}

#[track_caller]
fn assert_is(process: Process, uid: &str, gid: &str, groups: &str) {
    let four = |id: &str| [id; 4].join("\t");
    assert_eq!(process.status("Uid"), four(uid));
    assert_eq!(process.status("Gid"), four(gid));
    assert_eq!(process.status("Groups"), groups);
}

/// What /etc/passwd and /etc/group are for this drainit.
fn with_accounts(launch: PoolLaunch, folder: &tempfile::TempDir) -> PoolLaunch {
    let bind = |name: &str, content: &str| {
        let file = folder.path().join(name);
        assert!(std::fs::write(&file, content).is_ok(), "{name}");
        format!("bind={}:/etc/{name}", file.display())
    };
    let passwd = bind("passwd", "root:x:0:0::/root:/bin/sh\napp:x:4711:4712::/srv/app:\n");
    let group = bind("group", "root:x:0:\napp:x:4712:\nvideo:x:44:app\naudio:x:29:else\n");
    launch.under([passwd, group])
}

#[test]
fn workers_are_the_user_and_pid_1_stays_who_it_is() {
    if !may_change_users() {
        return;
    }
    let pool = pool().options(["--workers", "2", "--user", "4711:4712"]).worker(["poll=3"]).start();
    pool.wait_ready(2);
    for member in pool.members() {
        assert_is(member.process, "4711", "4712", "4712");
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(member.process.signals(set), 0, "{set}");
        }
    }
    assert_eq!(pool.init().status("Uid"), "0\t0\t0\t0");
    assert_ne!(pool.init().signals("CapEff"), 0);
    // It is replaced by one of the same user.
    pool.member(0).process.signal(libc::SIGKILL);
    until("a replacement", || (pool.counter("spawns") == 3).then_some(()));
    assert_is(pool.member(0).process, "4711", "4712", "4712");
}

#[test]
fn names_come_from_the_images_own_files() {
    if !may_change_users() {
        return;
    }
    for (user, gid, groups) in [
        ("app", "4712", "44 4712"),
        ("4711", "4712", "44 4712"),
        ("app:video", "44", "44"),
        ("app:7", "7", "7"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let launch = with_accounts(pool().options(["--user", user]), &folder);
        let pool = launch.worker(["poll=3"]).start();
        pool.wait_ready(1);
        assert_is(pool.member(0).process, "4711", gid, groups);
    }
}

#[test]
fn an_image_without_these_files_takes_numbers_and_no_names() {
    if !may_change_users() {
        return;
    }
    let pool = pool().options(["--user", "4711"]).under(["hide=/etc"]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    assert_is(pool.member(0).process, "4711", "0", "0");

    for (user, named) in [("app", "/etc/passwd"), ("4711:app", "/etc/group")] {
        let outcome = pid1().options(["--user", user]).under(["hide=/etc"]).worker(["say=started"]).run();
        outcome.assert_code(64);
        assert!(outcome.stdout.is_empty(), "nothing may have been started: {outcome:?}");
        for part in ["--user", "'app'", named] {
            assert!(outcome.stderr.contains(part), "no {part}: {outcome:?}");
        }
    }
}

#[test]
fn who_may_not_change_users_starts_nothing_and_ends_with_71() {
    if !may_change_users() {
        return;
    }
    for options in [&["--user", "4711:4711"][..], &["--user", "0"], &["--user", "4711", "--workers", "3"]] {
        let outcome = pid1().options(options).under(["uid=4710"]).worker(["say=started"]).run();
        outcome.assert_code(71);
        assert!(outcome.stdout.is_empty(), "nothing may have been started: {outcome:?}");
        assert!(outcome.stderr.contains("--user"), "{outcome:?}");
    }
}

#[test]
fn who_is_that_user_already_needs_no_permission() {
    if !may_change_users() {
        return;
    }
    let steps = ["uid=4710", "clear-env", "env=HOME=/root"];
    let mut init =
        pid1().options(["--user", "4710:4710"]).under(steps).worker(["say=started", "read"]).start();
    init.expect("started");
    assert_eq!(init.worker().status("Uid"), "4710\t4710\t4710\t4710");
    assert_eq!(init.worker().variable("HOME").as_deref(), Some("/root"), "nothing has changed");
    init.close_stdin();
    assert_eq!(init.wait(), Exit::Code(0));
}

#[test]
fn an_init_takes_the_user_and_leaves_all_else_as_it_is() {
    if !may_change_users() {
        return;
    }
    for launch in [pid1(), nested()] {
        let mut init = launch
            .options(["--user", "4711:4712"])
            .under(["clear-env", "env=B=2", "env=A=1", "env=B=3", "env=HOME=/data"])
            .worker(["say=started", "read", "exit=7"])
            .start();
        init.expect("started");
        let worker = init.worker();
        assert_is(worker, "4711", "4712", "4712");
        let environment: Vec<_> = worker.environment().into_iter().map(|entry| text(&entry)).collect();
        assert_eq!(environment, ["B=2", "A=1", "B=3", "HOME=/data"]);
        assert_eq!(worker.text("limits"), init.init().text("limits"));
        init.close_stdin();
        init.outcome().assert_code(7).assert_nothing_left();
    }
}

#[test]
fn home_is_the_users_unless_somebody_chose_another() {
    if !may_change_users() {
        return;
    }
    let homes: [(&[&str], &str); 4] = [
        (&["env=HOME=/root"], "/srv/app"),
        (&[], "/srv/app"),
        (&["env=HOME="], "/srv/app"),
        (&["env=HOME=/data"], "/data"),
    ];
    for (environment, home) in homes {
        let folder = tempfile::tempdir().unwrap();
        let launch = with_accounts(pool().options(["--user", "app"]), &folder);
        let pool = launch.under(["clear-env"]).under(environment).worker(["poll=3"]).start();
        pool.wait_ready(1);
        assert_eq!(pool.member(0).process.variable("HOME").as_deref(), Some(home), "{environment:?}");
    }
}

#[test]
fn servers_of_another_user_are_given_the_socket_when_they_bind() {
    if !may_change_users() {
        return;
    }
    // A container's root has no CAP_SYS_PTRACE by default, nor CAP_SYS_ADMIN.
    for without in [&[][..], &[CAP_SYS_PTRACE], &[CAP_SYS_PTRACE, CAP_SYS_ADMIN]] {
        let launch = pool_without_socket();
        let port = launch.port().number.to_string();
        let pool = launch
            .options(["--workers", "3", "--listen", &port, "--user", "4711:4711", "--adopt-bind", "on"])
            .under(without)
            .worker([format!("bind-and-serve={port}")])
            .start();
        pool.wait_ready(3);
        for worker in pool.status()["workers"].as_array().unwrap() {
            assert_eq!(worker["socket"], "adopted", "without {without:?}\n{}", *pool);
        }
        let worker = pool.member(0).process;
        assert_is(worker, "4711", "4711", "4711");
        // The filter comes before the change of user: afterwards it would take no_new_privs.
        assert_eq!(worker.status("Seccomp"), "2");
        let needed = if without.contains(&CAP_SYS_ADMIN) { "1" } else { "0" };
        assert_eq!(worker.status("NoNewPrivs"), needed);
        assert_eq!(pool.init().status("Uid"), "0\t0\t0\t0", "what was borrowed has been given back");
    }
}

#[test]
fn a_worker_that_becomes_another_user_by_itself_is_served_as_well() {
    if !may_change_users() {
        return;
    }
    let launch = pool_without_socket();
    let port = launch.port().number.to_string();
    // As an image's gosu, su-exec or setpriv does it.
    let pool = launch
        .options(["--workers", "2", "--listen", &port])
        .under([CAP_SYS_PTRACE])
        .worker([
            "uid=4711".to_owned(),
            "--".to_owned(),
            common::fixture().display().to_string(),
            format!("bind-and-serve={port}"),
        ])
        .start();
    pool.wait_ready(2);
    assert_eq!(pool.status()["workers"][0]["socket"], "adopted", "{}", *pool);
    assert_is(pool.member(0).process, "4711", "4711", "");
}

#[test]
fn a_worker_of_another_user_is_seen_to_wait_for_connections() {
    if !may_change_users() {
        return;
    }
    let pool = pool()
        .options(["--workers", "2", "--user", "4711:4711", "--adopt-bind", "off"])
        .under([CAP_SYS_PTRACE])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(2);
    assert!(!pool.has_logged("cannot see"), "{}", *pool);
}

#[test]
fn a_worker_of_another_user_may_say_that_it_is_ready() {
    if !may_change_users() {
        return;
    }
    let pool = pool()
        .options(["--user", "4711:4711", "--ready-when", "notify"])
        .under([CAP_SYS_PTRACE])
        .worker(["notify=READY=1", "pause"])
        .start();
    pool.wait_ready(1);
}

#[test]
fn checks_are_run_as_the_workers_are() {
    if !may_change_users() {
        return;
    }
    let pool = pool()
        .options(["--user", "4711:4712", "--ready-when", "exec=sh -c 'test $(id -u):$(id -G) = 4711:4712'"])
        .worker(["pause"])
        .start();
    pool.wait_ready(1);
}

#[test]
fn a_worker_of_another_user_cannot_control_drainit() {
    if !may_change_users() {
        return;
    }
    let pool = pool().options(["--user", "4711:4711"]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    let (init, control) = (pool.init().0.to_string(), &pool.control);
    let mut ask = std::process::Command::new("nsenter");
    ask.args(["--target", &init, "--pid", "--mount", "--setuid", "4711", "--setgid", "4711", "--"]);
    ask.arg(pool.init().path("exe").read_link().unwrap())
        .args(["scale", "2"])
        .env("DRAINIT_CONTROL", control);
    let output = ask.output().expect("nsenter");
    assert_ne!(code(&output), 0, "{output:?}");
    assert_eq!(pool.status()["desired"], 1);
    assert_eq!(code(&pool.ask(&["scale", "2"])), 0, "root may");
}

#[test]
fn a_unix_socket_serves_through_workers_that_could_not_open_it() {
    if !may_change_users() {
        return;
    }
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let launch = pool_without_socket().options(["--workers", "2", "--user", "4711:4711"]);
    let launch = launch.options(["--listen".to_owned(), format!("unix:{}", path.display())]);
    let pool = launch.under(["umask=077"]).worker(["serve=3"]).start();
    pool.wait_ready(2);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
}

#[test]
fn a_signal_that_may_not_be_sent_is_a_line_in_the_log() {
    if !may_change_users() {
        return;
    }
    let mut pool = pool()
        .options(["--user", "4711:4711", "--grace", "2s", "--margin", "500ms", "--orphan-grace", "0"])
        .under([CAP_KILL])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    pool.signal(libc::SIGUSR1);
    let line = pool.logged("signal not sent");
    assert_eq!(line["signal"], "SIGUSR1");
    assert_eq!(pool.readyz(), 200);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(124), "{}", *pool);
}

#[test]
fn a_drain_of_another_users_workers_is_as_any_other() {
    if !may_change_users() {
        return;
    }
    let mut pool = pool().options(["--workers", "2", "--user", "4711:4711"]).server().start();
    pool.wait_ready(2);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn root_without_cap_sys_ptrace_can_still_look_at_drainit() {
    if !may_change_users() {
        return;
    }
    let pool = pool().options(["--user", "4711:4711"]).under([CAP_SYS_PTRACE]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    // The change of user of a process that shares drainit's memory makes that memory undumpable, and so does each look.
    let cwd = format!("cwd={}", pool.init().path("cwd").display());
    let mut reader =
        Companion::start(std::process::Command::new(common::fixture()).args([CAP_SYS_PTRACE, &cwd]));
    assert!(reader.wait().unwrap().success());
}
