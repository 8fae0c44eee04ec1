//! `--watch`: one roll for whatever happens to a path in one go, none for what happens beside it.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::pool::{Pool, pool, pool_without_socket};
use common::{cannot_run, fresh_uid, holds_for, is_root, timed, until, within};

/// After this much quiet a burst is over.
const QUIET: Duration = Duration::from_secs(1);

/// Longer than whatever has been noticed could take to become a roll.
const SETTLED: Duration = Duration::from_millis(1_800);

/// What a change comes to, so far.
fn rolls(pool: &Pool) -> usize {
    let log = pool.log();
    log.iter().filter(|line| line["message"] == "roll started" && line["trigger"] == "watch").count()
}

fn lines(pool: &Pool, message: &str) -> usize {
    pool.log().iter().filter(|line| line["message"].as_str().is_some_and(|m| m.contains(message))).count()
}

/// A directory that any user can see, and a pool that watches paths in it.
struct Watched {
    pool: Pool,
    at: PathBuf,
    _directory: tempfile::TempDir,
}

impl Watched {
    fn start(prepare: impl FnOnce(&Path), paths: &[&str]) -> Self {
        Self::under(&[], prepare, paths)
    }

    fn under(steps: &[&str], prepare: impl FnOnce(&Path), paths: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().to_owned();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&at);
        let options = paths.iter().flat_map(|path| ["--watch".into(), at.join(path).into_os_string()]);
        let launch = pool().options(options).options(["--ready-when", "started"]);
        let pool = launch.under(steps).worker(["poll=3"]).start();
        pool.wait_ready(1);
        Self { pool, at, _directory: directory }
    }

    /// Exactly one roll comes of it, and no sooner than the burst is over.
    #[track_caller]
    fn rolls_once(&self, act: impl FnOnce(&Path)) {
        let before = rolls(&self.pool);
        act(&self.at);
        let ((), taken) = timed(|| {
            until(format_args!("a roll\n{}", *self.pool), || (rolls(&self.pool) > before).then_some(()))
        });
        assert!(taken > QUIET / 2, "after {taken:?}");
        holds_for(SETTLED, "one roll", || rolls(&self.pool) == before + 1);
    }

    #[track_caller]
    fn does_not_roll(&self, act: impl FnOnce(&Path)) {
        let before = rolls(&self.pool);
        act(&self.at);
        holds_for(SETTLED, "no roll", || rolls(&self.pool) == before);
    }
}

fn write(path: impl AsRef<Path>, text: &str) {
    fs::write(path, text).unwrap();
}

/// As the kubelet's AtomicWriter does it, in its order.
fn project(volume: &Path, version: &str, files: &[&str]) {
    let old = fs::read_link(volume.join("..data")).ok();
    let fresh = format!("..2024_01_01_00_00_00.{version}");
    fs::create_dir(volume.join(&fresh)).unwrap();
    fs::set_permissions(volume.join(&fresh), fs::Permissions::from_mode(0o755)).unwrap();
    for file in files {
        write(volume.join(&fresh).join(file), version);
        fs::set_permissions(volume.join(&fresh).join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    symlink(&fresh, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    for file in files.iter().filter(|file| fs::symlink_metadata(volume.join(file)).is_err()) {
        symlink(Path::new("..data").join(file), volume.join(file)).unwrap();
    }
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

#[test]
fn a_burst_of_writes_is_one_roll() {
    let watched = Watched::start(|at| write(at.join("f"), "0"), &["f"]);
    watched.rolls_once(|at| (1..=50).for_each(|n| write(at.join("f"), &"x".repeat(n))));
    assert!(watched.pool.logged("a watched path has changed")["path"].as_str().unwrap().ends_with("/f"));
    watched.rolls_once(|at| write(at.join("f"), "once more"));
}

#[test]
fn what_is_written_without_end_is_not_put_off_without_end() {
    let watched = Watched::start(|at| write(at.join("f"), ""), &["f"]);
    let ((), taken) = timed(|| {
        let mut size = 0;
        until("a roll", || {
            size += 1;
            write(watched.at.join("f"), &"x".repeat(size % 1000));
            (rolls(&watched.pool) > 0).then_some(())
        });
    });
    assert!((9..14).contains(&taken.as_secs()), "after {taken:?}");
}

#[test]
fn the_swap_of_a_config_map_is_one_roll_seen_from_a_file_or_from_its_directory() {
    for paths in [&["config/app.yaml"][..], &["config"], &["config", "config/app.yaml", "config/b"]] {
        let files = ["app.yaml", "b"];
        let prepare = |at: &Path| {
            fs::create_dir(at.join("config")).unwrap();
            project(&at.join("config"), "1", &files);
        };
        let watched = Watched::start(prepare, paths);
        for version in ["2", "3"] {
            watched.rolls_once(|at| project(&at.join("config"), version, &files));
        }
    }
}

#[test]
fn an_old_version_that_is_removed_late_is_nothing() {
    let prepare = |at: &Path| {
        fs::create_dir(at.join("config")).unwrap();
        project(&at.join("config"), "1", &["app.yaml"]);
    };
    let watched = Watched::start(prepare, &["config", "config/app.yaml"]);
    let late = Path::new("config/..late");
    watched.does_not_roll(|at| fs::create_dir(at.join(late)).unwrap());
    watched.rolls_once(|at| project(&at.join("config"), "2", &["app.yaml"]));
    watched.does_not_roll(|at| fs::remove_dir(at.join(late)).unwrap());
}

#[test]
fn an_editor_that_renames_is_one_roll() {
    let watched = Watched::start(|at| write(at.join("f"), "0"), &["f"]);
    watched.rolls_once(|at| {
        write(at.join(".f.tmp"), "1");
        fs::rename(at.join(".f.tmp"), at.join("f")).unwrap();
    });
    watched.rolls_once(|at| {
        fs::rename(at.join("f"), at.join("f~")).unwrap();
        write(at.join("f"), "2");
        fs::remove_file(at.join("f~")).unwrap();
    });
}

#[test]
fn a_file_that_is_created_later_with_its_directories() {
    let watched = Watched::start(|_| (), &["a/b/f"]);
    watched.does_not_roll(|at| fs::create_dir(at.join("a")).unwrap());
    watched.rolls_once(|at| {
        fs::create_dir(at.join("a/b")).unwrap();
        write(at.join("a/b/f"), "1");
    });
    watched.rolls_once(|at| write(at.join("a/b/f"), "22"));
}

#[test]
fn a_file_that_is_gone_rolls_nothing_before_it_is_back() {
    let watched = Watched::start(|at| write(at.join("f"), "0"), &["f"]);
    watched.does_not_roll(|at| fs::remove_file(at.join("f")).unwrap());
    assert_eq!(lines(&watched.pool, "a watched path is gone"), 1);
    watched.rolls_once(|at| write(at.join("f"), "1"));
}

#[test]
fn a_link_that_is_pointed_elsewhere() {
    let prepare = |at: &Path| {
        for release in ["41", "42"] {
            fs::create_dir_all(at.join("releases").join(release)).unwrap();
        }
        symlink("releases/41", at.join("current")).unwrap();
    };
    let watched = Watched::start(prepare, &["current"]);
    let point = |at: &Path, release: &str| {
        symlink(Path::new("releases").join(release), at.join("tmp")).unwrap();
        fs::rename(at.join("tmp"), at.join("current")).unwrap();
    };
    watched.rolls_once(|at| point(at, "42"));
    watched.does_not_roll(|at| point(at, "42"));
    watched.rolls_once(|at| point(at, "41"));
}

#[test]
fn what_happens_beside_it_rolls_nothing() {
    let watched = Watched::start(|at| write(at.join("f"), "0"), &["f"]);
    watched.does_not_roll(|at| {
        write(at.join("g"), "1");
        fs::rename(at.join("g"), at.join("h")).unwrap();
        fs::remove_file(at.join("h")).unwrap();
        fs::create_dir(at.join("d")).unwrap();
        fs::set_permissions(at.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::read(at.join("f")).unwrap();
    });
}

#[test]
fn a_change_while_the_first_worker_starts_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    write(&file, "0");
    let pool =
        pool().options(["--watch".as_ref(), file.as_os_str()]).worker(["say=started", "poll=3"]).start();
    pool.expect("started");
    write(&file, "11");
    until("a roll", || (rolls(&pool) == 1).then_some(()));
}

#[test]
fn relative_paths_are_those_of_the_start_and_variables_take_several() {
    let directory = tempfile::tempdir().unwrap();
    let start = format!("cwd={}", directory.path().display());
    let pool = pool().under([&start, "env=DRAINIT_WATCH=f,./g"]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    for (count, name) in ["f", "g"].into_iter().enumerate() {
        write(directory.path().join(name), "1");
        until("a roll", || (rolls(&pool) == count + 1).then_some(()));
    }
}

/// A file mounted by itself (a bind mount, Docker's `-v file:file`): no directory of the container's tells of it.
#[test]
fn a_file_that_is_mounted_by_itself() {
    let prepare = |at: &Path| {
        fs::create_dir(at.join("inside")).unwrap();
        write(at.join("inside/f"), "");
        write(at.join("outside"), "0");
    };
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let (from, to) = (directory.path().join("outside"), directory.path().join("inside/f"));
    let mount = format!("bind={}:{}", from.display(), to.display());
    let pool = pool().under([mount]).options(["--watch".as_ref(), to.as_os_str()]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    write(&from, "11");
    until("a roll", || (rolls(&pool) == 1).then_some(()));
}

#[test]
fn where_inotify_is_refused_it_is_looked_at() {
    for (refusal, says) in [
        ("seccomp=EPERM:inotify_init1", "not permitted"),
        ("seccomp=ENOSYS:inotify_init1,inotify_add_watch", "not implemented"),
        ("seccomp=EMFILE:inotify_init1", "max_user_instances"),
        ("seccomp=ENOSPC:inotify_add_watch", "max_user_watches"),
    ] {
        let watched = Watched::under(&[refusal], |at| write(at.join("f"), "0"), &["f", "g"]);
        let warning = watched.pool.logged("--watch");
        let message = warning["message"].as_str().unwrap();
        assert!(warning["level"] == "WARN" && message.contains(says), "{warning}");
        write(watched.at.join("f"), "11");
        until("a roll", || (rolls(&watched.pool) == 1).then_some(()));
        assert_eq!(lines(&watched.pool, "looked at every"), 1, "{}", *watched.pool);
    }
}

#[test]
fn a_directory_that_it_may_not_read_is_looked_at() {
    if !is_root() {
        return cannot_run("not root: drainit cannot be another user");
    }
    let uid = format!("uid={}", fresh_uid());
    let prepare = |at: &Path| {
        fs::create_dir(at.join("d")).unwrap();
        write(at.join("d/f"), "0");
        fs::set_permissions(at.join("d"), fs::Permissions::from_mode(0o711)).unwrap();
    };
    let watched = Watched::under(&[&uid], prepare, &["d/f"]);
    watched.pool.logged("looked at every");
    write(watched.at.join("d/f"), "11");
    until("a roll", || (rolls(&watched.pool) == 1).then_some(()));
    fs::set_permissions(watched.at.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    watched.pool.logged("the kernel tells of everything again");
    watched.rolls_once(|at| write(at.join("d/f"), "222"));
}

#[test]
fn a_quiet_pool_stays_asleep() {
    let watched = Watched::start(|at| write(at.join("f"), "0"), &["f", "missing/g"]);
    let switches = || watched.pool.init().status("voluntary_ctxt_switches");
    // Longer than it would sleep if it looked by itself.
    until("it sleeps for 6 s", || {
        let before = switches();
        within(Duration::from_secs(6), || (switches() != before).then_some(())).is_none().then_some(())
    });
}

#[test]
fn without_an_event_loop_it_says_that_nothing_is_watched() {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool()
        .options(["--watch".as_ref(), directory.path().as_os_str()])
        .under(["seccomp=ENOSYS:epoll_create1"])
        .worker(["say=here", "poll=3"])
        .start();
    pool.expect("here");
    pool.expect_on_stderr("--watch does nothing without an event loop");
}

#[test]
fn one_worker_without_a_socket_has_nothing_to_roll() {
    let pool = pool_without_socket().options(["--watch", "/etc"]).worker(["say=here", "pause"]).start();
    pool.expect("here");
    pool.expect_on_stderr("--watch does nothing without a pool");
}
