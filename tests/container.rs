//! drainit in real containers: PID 1 of a scratch image, stopped and asked as an orchestrator does it.
#![expect(clippy::disallowed_methods, reason = "a test reads the clock, and looks again after a while")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

#[path = "container/guest.rs"]
mod guest;
#[path = "common/not_run.rs"]
mod not_run;
#[path = "container/podman.rs"]
mod podman;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use guest::{APP, eventually};
use podman::podman;

#[test]
fn pid_1_of_a_scratch_image_is_drainit_and_the_worker_its_child() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&[], &[], "serve");
    assert_eq!(pool.get("/read/proc/1/comm"), "drainit\n");
    assert_eq!(field(&pool.get("/read/proc/self/status"), "PPid"), "1");
    assert_eq!(pool.stop(&[]), 0);
}

#[test]
fn podman_stop_drains_a_pool_and_a_request_in_flight_is_answered() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&[], &["--workers", "2"], "serve");
    let reply = pool.open(APP, "/slow/2000").unwrap();
    thread::scope(|threads| {
        let stopped = threads.spawn(|| pool.stop(&[]));
        assert_eq!(reply.text(), "to the end\n");
        assert_eq!(stopped.join().unwrap(), 0);
    });
    let exit = pool.logged("exit");
    assert!(exit["reason"].as_str().unwrap().starts_with("drained in "), "{exit}");
}

#[test]
fn by_default_124_comes_before_the_kill_of_podman_stop() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&[], &[], "serve-on");
    assert_eq!(pool.stop(&[]), 124);
    assert_eq!(pool.logged("exit")["code"], 124);
    // The grace period of 10 s, which is podman's own, less the margin of 1 s.
    assert_about(9.0, pool.seconds_between("drain planned", "exit"));
}

#[test]
fn one_worker_exits_for_its_container() {
    let Some(podman) = podman() else { return };
    assert_eq!(podman.worker(&[], &[], &["exit", "7"]).exit_code(), 7);
    for (worker, code) in [(&["wait", "5"][..], 5), (&["stay"], 143)] {
        let guest = podman.worker(&[], &[], worker);
        guest.until_said("waiting");
        assert_eq!(guest.stop(&[]), code, "{worker:?}");
    }
}

#[test]
fn a_container_without_root_capabilities_or_a_writable_file_serves() {
    let Some(podman) = podman() else { return };
    let hardened = [
        "--user=1000:1000",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--read-only",
        "--read-only-tmpfs=false",
    ];
    let pool = podman.pool(&hardened, &["--workers", "2"], "serve");
    for process in ["1", "self"] {
        let status = pool.get(&format!("/read/proc/{process}/status"));
        assert_eq!(field(&status, "Uid"), "1000\t1000\t1000\t1000");
        assert_eq!(field(&status, "CapBnd"), "0000000000000000");
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        // SECCOMP_MODE_FILTER: the runtime's default profile.
        assert_eq!(field(&status, "Seccomp"), "2");
    }
    assert_eq!(pool.drainit(&["probe", "ready"]).code, 0);
    assert_eq!(pool.drainit(&["prestop"]).code, 0);
    assert_eq!(pool.stop(&[]), 0);
}

/// The runtime's default capabilities: CAP_SYS_PTRACE is not among them.
#[test]
fn root_owns_the_port_and_workers_of_another_user_are_given_it() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&[], &["--workers", "2", "--user", "1000:1001"], "bind");
    assert_eq!(field(&pool.get("/read/proc/1/status"), "Uid"), "0\t0\t0\t0");
    let status = pool.get("/read/proc/self/status");
    assert_eq!(field(&status, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&status, "Groups").trim(), "1001");
    assert_eq!(field(&status, "CapPrm"), "0000000000000000");
    for worker in pool.status()["workers"].as_array().unwrap() {
        assert_eq!(worker["socket"], "adopted", "{worker}");
    }
    assert_eq!(pool.stop(&[]), 0);
}

#[test]
fn a_worker_that_eats_the_containers_memory_dies_alone_and_is_named() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&["--memory=48m"], &["--workers", "2"], "serve");
    // v2 only; where it is set the container dies as one, and nobody is left to say so.
    let as_one = pool.get("/read/sys/fs/cgroup/memory.oom.group");
    if as_one.trim() == "1" {
        return not_run::cannot_run("the runtime sets memory.oom.group");
    }
    let eaten = pool.open(APP, "/eat/256").unwrap().text();
    assert_eq!(eaten, "", "it was killed before it could answer");
    let line = pool.logged("worker ended unasked: it was killed by the kernel: out of memory (OOM)");
    assert!(line["slot"].is_u64(), "{line}");
    pool.until_ready();
    assert_eq!(pool.status()["counters"]["oom_kills"], 1);
    assert_eq!(pool.stop(&[]), 0);
}

#[test]
fn a_container_of_16_mebibytes_is_large_enough() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&["--memory=16m"], &["--workers", "2"], "serve");
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.map(|file| pool.get(&format!("/read{file}"))).concat();
    assert_eq!(limit.trim_end(), (16 << 20).to_string());
    for _ in 0..100 {
        pool.get("/");
    }
    assert_eq!(pool.status()["ready_workers"], 2);
    assert_eq!(pool.stop(&[]), 0);
    assert_eq!(pool.state("{{.State.OOMKilled}}"), "false");
}

#[test]
fn exec_probes_say_yes_with_0_no_with_1_and_nobody_to_ask_with_2() {
    let Some(podman) = podman() else { return };
    let codes = |guest: &guest::Guest| {
        ["live", "ready", "startup"].map(|which| guest.drainit(&["probe", which]).code)
    };
    let ready = podman.pool(&[], &[], "serve");
    assert_eq!(codes(&ready), [0, 0, 0]);

    let never = ["--listen", "8080", "--ready-when", "notify"];
    let unready = podman.worker(&[], &never, &["serve"]);
    unready.until_probe("/livez", 200);
    assert_eq!(codes(&unready), [0, 1, 1]);
    assert_eq!([unready.probe("/readyz").unwrap(), unready.probe("/startupz").unwrap()], [503, 503]);

    let silent = podman.pool(&[], &["--control", "off"], "serve");
    assert_eq!(codes(&silent), [2, 2, 2]);
}

#[test]
fn the_deadline_counts_from_the_hook_and_the_pool_serves_unready_meanwhile() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&[], &["--grace", "9s", "--lb-wait", "4s"], "serve-on");
    let began = Instant::now();
    thread::scope(|threads| {
        let hook = threads.spawn(|| pool.drainit(&["prestop"]));
        pool.until_probe("/readyz", 503);
        pool.get("/");
        assert_eq!(pool.probe("/livez").unwrap(), 200);
        assert_eq!(pool.status()["phase"], "lame-duck");
        assert_eq!(hook.join().unwrap().code, 0);
    });
    assert!(began.elapsed() >= Duration::from_secs(4), "the hook waits: {:?}", began.elapsed());
    assert_eq!(pool.stop(&["--time=20"]), 124);
    assert_eq!(pool.logged("drain planned")["trigger"], "preStop");
    // 9 s less the margin of 1 s.
    assert_about(8.0, pool.seconds_between("drain planned", "exit"));
}

#[test]
fn a_hook_that_no_sigterm_follows_is_forgotten() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&[], &["--lb-wait", "0"], "serve");
    assert_eq!(pool.drainit(&["prestop"]).code, 0);
    assert_eq!(pool.probe("/readyz").unwrap(), 503);
    pool.until_ready();
    let back = "no SIGTERM followed the preStop hook: back to serving";
    assert_about(10.0, pool.seconds_between("load balancer wait over", back));
    let status = pool.status();
    assert_eq!(status["phase"], "serving");
    assert!(status["drain"].is_null(), "{status}");
    pool.get("/");
    assert_eq!(pool.stop(&[]), 0);
}

#[test]
fn status_shows_the_pool_and_scale_changes_it() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&[], &[], "serve");
    let status = pool.status();
    assert_eq!(status["phase"], "serving");
    assert_eq!(status["workers"].as_array().unwrap().len(), 1);

    assert_eq!(pool.drainit(&["scale", "3"]).code, 0);
    let status = eventually("three workers", || {
        let status = pool.status();
        (status["ready_workers"] == 3).then_some(status)
    });
    let slots: Vec<_> = status["workers"].as_array().unwrap().iter().map(|worker| &worker["slot"]).collect();
    assert_eq!(slots, [0, 1, 2]);
    assert_eq!(pool.stop(&[]), 0);
}

#[test]
fn the_reason_of_the_end_is_one_line_of_the_termination_log() {
    let Some(podman) = podman() else { return };
    let file = TerminationLog::new("reason");
    let volume = format!("--volume={}:/dev/termination-log", file.0.display());
    let pool = podman.pool(&[&volume, "--user=1000", "--read-only"], &[], "serve");
    assert_eq!(file.text(), "");
    assert_eq!(pool.stop(&[]), 0);
    let text = file.text();
    let reason = pool.logged("exit")["reason"].as_str().unwrap().to_owned();
    assert_eq!(text, reason + "\n");
    assert!(text.starts_with("drained in ") && text.contains("SIGTERM"), "{text}");

    let file = TerminationLog::new("usage");
    let volume = format!("--volume={}:/dev/termination-log", file.0.display());
    assert_eq!(podman.worker(&[&volume], &["--grace", "soon"], &["serve"]).exit_code(), 64);
    assert!(file.text().contains("--grace"), "{}", file.text());
    assert_eq!(file.text().lines().count(), 1);
}

#[test]
fn containers_of_one_pod_are_told_apart() {
    let Some(podman) = podman() else { return };
    let first = podman.pool(&["--publish=127.0.0.1::9181"], &[], "serve");
    let network = format!("--network=container:{}", first.name());
    let options = ["--listen", "8081", "--admin", "9181", "--workers", "2"];
    let second = podman.worker(&[&network], &options, &["serve"]);
    eventually("the second is ready", || {
        first.open(9181, "/readyz").is_ok_and(|reply| reply.status == 200).then_some(())
    });
    assert_eq!(first.status()["desired"], 1);
    assert_eq!(second.status()["desired"], 2);

    assert_eq!(second.drainit(&["scale", "3"]).code, 0);
    assert_eq!(second.status()["desired"], 3);
    assert_eq!(first.status()["desired"], 1);

    assert_eq!(second.stop(&[]), 0);
    assert_eq!(first.drainit(&["probe", "ready"]).code, 0);
    assert_eq!(first.stop(&[]), 0);
}

#[test]
fn the_second_pool_of_a_pod_is_refused_the_admin_port_of_the_first() {
    let Some(podman) = podman() else { return };
    let first = podman.pool(&[], &[], "serve");
    let network = format!("--network=container:{}", first.name());
    assert_eq!(podman.worker(&[&network], &["--listen", "8081"], &["serve"]).exit_code(), 69);
    assert_eq!(
        podman.worker(&[&network], &["--admin", "9181", "--listen", "8080"], &["serve"]).exit_code(),
        69
    );
    first.get("/");
}

#[test]
fn only_its_own_pid_namespace_may_control_drainit() {
    let Some(podman) = podman() else { return };
    let pool = podman.pool(&[], &[], "serve");
    let network = format!("--network=container:{}", pool.name());
    let ask = |options: &[&str], subcommand: &[&str]| {
        podman.run([&["run", "--rm", &network], options, &[&podman.image], subcommand].concat())
    };
    // The neighbour has no drainit of its own, and is told the name of the one that is there.
    let stranger = ask(&[], &["status"]);
    assert_eq!(stranger.code, 2, "{stranger:?}");
    let name = stranger.stderr.split_ascii_whitespace().find(|word| word.starts_with("@drainit/"));
    let control = format!("--env=DRAINIT_CONTROL={}", name.expect("the name of the control socket"));

    for subcommand in [&["status"][..], &["scale", "5"], &["prestop"], &["probe", "live"]] {
        let refused = ask(&[&control], subcommand);
        assert_eq!(refused.code, 2, "{subcommand:?}: {refused:?}");
        assert!(refused.stderr.contains("403"), "{subcommand:?}: {refused:?}");
    }
    assert_eq!(pool.status()["desired"], 1);
    assert_eq!(pool.status()["phase"], "serving");

    // shareProcessNamespace.
    let pid = format!("--pid=container:{}", pool.name());
    assert_eq!(ask(&[&control, &pid], &["scale", "2"]).code, 0);
    assert_eq!(pool.status()["desired"], 2);
}

#[test]
fn in_a_pod_the_defaults_are_those_of_kubernetes() {
    let Some(podman) = podman() else { return };
    let planned = |options: &[&str]| {
        let pool = podman.pool(options, &[], "serve");
        pool.signal("TERM");
        let plan = pool.logged("drain planned");
        // Ends the wait for load balancers, where there is one.
        if plan["lb_wait_seconds"] != 0.0 {
            assert_eq!(pool.probe("/readyz").unwrap(), 503);
            pool.signal("TERM");
        }
        assert_eq!(pool.exit_code(), 0);
        ["grace_seconds", "margin_seconds", "lb_wait_seconds"].map(|key| plan[key].as_f64())
    };
    assert_eq!(planned(&["--env=KUBERNETES_SERVICE_HOST=10.0.0.1"]), [30.0, 1.0, 15.0].map(Some));
    assert_eq!(planned(&[]), [10.0, 1.0, 0.0].map(Some));
}

fn assert_about(expected: f64, seconds: f64) {
    assert!((expected - 0.1..expected + 0.9).contains(&seconds), "{seconds} s rather than {expected} s");
}

/// `Name:\tvalue` in /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    value.unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// The file that a kubelet mounts into each container.
struct TerminationLog(PathBuf);

impl TerminationLog {
    fn new(name: &str) -> Self {
        let name = format!("termination-log-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, "").unwrap();
        // As the kubelet has it, for whatever user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        Self(path)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for TerminationLog {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
