//! Real files and the kernel's own events. inotify tells before the system call returns: nothing is waited for.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Findings, Watcher};

/// A directory, and a watcher of paths in it.
struct Bench {
    directory: tempfile::TempDir,
    watcher: Watcher,
    paths: Vec<PathBuf>,
}

impl Bench {
    fn new(prepare: impl FnOnce(&Path), paths: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        let paths: Vec<PathBuf> = paths.iter().map(|path| directory.path().join(path)).collect();
        let watcher = Watcher::new(paths.clone());
        assert!(watcher.trouble().is_none(), "{:?}", watcher.trouble());
        Self { directory, watcher, paths }
    }

    fn one(prepare: impl FnOnce(&Path), path: &str) -> Self {
        Self::new(prepare, &[path])
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn happens(&mut self, act: impl FnOnce(&Path)) -> (bool, Findings) {
        act(self.directory.path());
        let mut suspicious = false;
        loop {
            let events = self.watcher.read_events();
            suspicious |= events.suspicious;
            if !events.more {
                return (suspicious, self.watcher.settle());
            }
        }
    }

    #[track_caller]
    fn changes(&mut self, act: impl FnOnce(&Path)) {
        let changed = self.paths.clone();
        assert_eq!(self.happens(act), (true, Findings { changed, gone: Vec::new() }));
        self.is_quiet();
    }

    /// It may look like a change until one looks.
    #[track_caller]
    fn changes_nothing(&mut self, act: impl FnOnce(&Path)) {
        assert_eq!(self.happens(act).1, Findings::default());
    }

    /// The event itself is none of ours: nobody is woken, or not for long.
    #[track_caller]
    fn is_not_noticed(&mut self, act: impl FnOnce(&Path)) {
        assert_eq!(self.happens(act), (false, Findings::default()));
    }

    #[track_caller]
    fn is_quiet(&mut self) {
        self.is_not_noticed(|_| ());
    }

    #[track_caller]
    fn goes(&mut self, act: impl FnOnce(&Path)) {
        let gone = self.paths.clone();
        assert_eq!(self.happens(act), (true, Findings { changed: Vec::new(), gone }));
    }
}

fn write(path: impl AsRef<Path>, text: &str) {
    fs::write(path, text).unwrap();
}

fn rename(at: &Path, from: &str, to: &str) {
    fs::rename(at.join(from), at.join(to)).unwrap();
}

/// A link that takes the place of another at once.
fn relink(at: &Path, target: &str, name: &str) {
    symlink(target, at.join("link_tmp")).unwrap();
    rename(at, "link_tmp", name);
}

/// The kubelet's AtomicWriter, step by step.
fn project(volume: &Path, version: &str, files: &[&str]) {
    let old = fs::read_link(volume.join("..data")).ok();
    let fresh = format!("..2024_01_01_{version}");
    fs::create_dir(volume.join(&fresh)).unwrap();
    fs::set_permissions(volume.join(&fresh), fs::Permissions::from_mode(0o755)).unwrap();
    for file in files {
        write(volume.join(&fresh).join(file), version);
        fs::set_permissions(volume.join(&fresh).join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    symlink(&fresh, volume.join("..data_tmp")).unwrap();
    rename(volume, "..data_tmp", "..data");
    for file in files.iter().filter(|file| fs::symlink_metadata(volume.join(file)).is_err()) {
        symlink(Path::new("..data").join(file), volume.join(file)).unwrap();
    }
    for name in fs::read_dir(volume).unwrap().flatten().map(|entry| entry.file_name()) {
        let name = name.to_str().unwrap();
        if !name.starts_with("..") && !files.contains(&name) {
            fs::remove_file(volume.join(name)).unwrap();
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

#[test]
fn a_file_written_in_place() {
    let mut bench = Bench::one(|at| write(at.join("f"), "1"), "f");
    bench.is_quiet();
    bench.changes(|at| write(at.join("f"), "22"));
    bench.changes(|at| write(at.join("f"), ""));
    let mut kept = OpenOptions::new().append(true).open(bench.at("f")).unwrap();
    bench.changes(|_| kept.write_all(b"never closed").unwrap());
    bench.changes(|at| {
        File::open(at.join("f"))
            .and_then(|f| f.set_modified(f.metadata()?.modified()? + Duration::from_secs(1)))
            .unwrap()
    });
}

#[test]
fn a_file_that_is_read_or_whose_mode_changes() {
    let mut bench = Bench::one(|at| write(at.join("f"), "1"), "f");
    bench.is_not_noticed(|at| drop(fs::read(at.join("f")).unwrap()));
    bench.changes_nothing(|at| fs::set_permissions(at.join("f"), fs::Permissions::from_mode(0o600)).unwrap());
    bench.changes_nothing(|at| fs::hard_link(at.join("f"), at.join("g")).unwrap());
    bench.changes(|at| write(at.join("g"), "by its other name"));
}

#[test]
fn the_ways_of_editors() {
    let mut bench = Bench::one(|at| write(at.join("f"), "1"), "f");
    for round in 0..3 {
        bench.changes(|at| {
            write(at.join("f.tmp"), "2");
            rename(at, "f.tmp", "f");
        });
        bench.changes(|at| {
            write(at.join("4913"), "");
            fs::remove_file(at.join("4913")).unwrap();
            rename(at, "f", "f~");
            write(at.join("f"), "3");
            fs::remove_file(at.join("f~")).unwrap();
        });
        bench.changes(|at| {
            fs::remove_file(at.join("f")).unwrap();
            write(at.join("f"), &"4".repeat(round));
        });
    }
}

#[test]
fn others_in_the_same_directory_and_on_the_way() {
    let prepare = |at: &Path| {
        fs::create_dir_all(at.join("a/b")).unwrap();
        write(at.join("a/b/f"), "1");
    };
    let mut bench = Bench::one(prepare, "a/b/f");
    bench.is_not_noticed(|at| {
        write(at.join("a/b/g"), "1");
        write(at.join("a/f"), "1");
        rename(at, "a/b/g", "a/b/h");
        fs::remove_file(at.join("a/b/h")).unwrap();
        fs::create_dir(at.join("b")).unwrap();
    });
}

#[test]
fn a_file_that_is_gone_is_no_change_until_it_is_back() {
    let mut bench = Bench::one(|at| write(at.join("f"), "1"), "f");
    bench.goes(|at| rename(at, "f", "g"));
    bench.changes_nothing(|at| write(at.join("h"), "1"));
    bench.changes_nothing(|at| rename(at, "g", "f"));
    bench.goes(|at| fs::remove_file(at.join("f")).unwrap());
    bench.changes(|at| write(at.join("f"), "1"));
}

#[test]
fn a_path_that_comes_into_being() {
    let mut bench = Bench::one(|_| (), "a/b/c/f");
    bench.changes_nothing(|at| fs::create_dir(at.join("a")).unwrap());
    bench.changes_nothing(|at| fs::create_dir_all(at.join("a/b/c")).unwrap());
    bench.changes(|at| write(at.join("a/b/c/f"), "1"));
    bench.goes(|at| fs::remove_dir_all(at.join("a")).unwrap());
    bench.changes(|at| {
        fs::create_dir_all(at.join("a/b/c")).unwrap();
        write(at.join("a/b/c/f"), "1");
    });
    bench.changes(|at| write(at.join("a/b/c/f"), "22"));
}

#[test]
fn a_directory_on_the_way_that_is_replaced() {
    let prepare = |at: &Path| {
        fs::create_dir_all(at.join("a/b")).unwrap();
        fs::create_dir_all(at.join("new/b")).unwrap();
        write(at.join("a/b/f"), "1");
        write(at.join("new/b/f"), "2");
    };
    let mut bench = Bench::one(prepare, "a/b/f");
    bench.changes(|at| {
        rename(at, "a", "old");
        rename(at, "new", "a");
    });
    bench.is_not_noticed(|at| write(at.join("old/b/f"), "the old one"));
    bench.changes(|at| write(at.join("a/b/f"), "the new one"));
}

#[test]
fn the_swap_of_a_volume_seen_from_a_file() {
    let mut bench = Bench::one(|at| project(at, "1", &["f", "g"]), "f");
    for version in ["2", "3", "4"] {
        bench.changes(|at| project(at, version, &["f", "g"]));
    }
    bench.goes(|at| project(at, "5", &["g"]));
    bench.changes(|at| project(at, "6", &["f", "g"]));
}

#[test]
fn the_swap_of_a_volume_seen_from_its_directory() {
    let prepare = |at: &Path| {
        fs::create_dir(at.join("v")).unwrap();
        project(&at.join("v"), "1", &["f"]);
    };
    let mut bench = Bench::one(prepare, "v");
    bench.changes(|at| project(&at.join("v"), "2", &["f"]));
    bench.changes(|at| project(&at.join("v"), "3", &["f", "g"]));
    bench.changes(|at| project(&at.join("v"), "4", &["g"]));
    // The old directory may stay for a while: it is nothing that anybody sees.
    bench.changes_nothing(|at| fs::create_dir(at.join("v/..2023")).unwrap());
    bench.changes_nothing(|at| fs::remove_dir(at.join("v/..2023")).unwrap());
}

#[test]
fn a_link_to_a_release() {
    let prepare = |at: &Path| {
        for release in ["releases/41", "releases/42"] {
            fs::create_dir_all(at.join(release)).unwrap();
            write(at.join(release).join("f"), "1");
        }
        symlink("releases/41", at.join("current")).unwrap();
    };
    let mut bench = Bench::new(prepare, &["current", "current/f"]);
    bench.changes(|at| relink(at, "releases/42", "current"));
    bench.changes_nothing(|at| relink(at, "./releases/../releases/42/", "current"));
    bench.is_not_noticed(|at| write(at.join("releases/41/f"), "22"));
    bench.changes(|at| write(at.join("releases/42/f"), "22"));
    bench.changes(|at| {
        fs::remove_file(at.join("current")).unwrap();
        symlink(at.join("releases/41"), at.join("current")).unwrap();
    });
}

#[test]
fn links_that_lead_nowhere_yet_or_in_a_circle() {
    let prepare = |at: &Path| {
        symlink("b", at.join("a")).unwrap();
        symlink("c/d", at.join("b")).unwrap();
        symlink("a", at.join("c")).unwrap();
    };
    let mut bench = Bench::one(prepare, "a");
    bench.changes_nothing(|at| {
        fs::remove_file(at.join("c")).unwrap();
        fs::create_dir(at.join("c")).unwrap();
    });
    bench.changes(|at| write(at.join("c/d"), "1"));
}

#[test]
fn the_entries_of_a_directory() {
    let mut bench = Bench::one(|at| fs::create_dir_all(at.join("d/sub")).unwrap(), "d");
    bench.changes(|at| write(at.join("d/f"), "1"));
    bench.changes(|at| write(at.join("d/f"), "22"));
    bench.changes(|at| rename(at, "d/f", "d/g"));
    bench.changes(|at| fs::remove_file(at.join("d/g")).unwrap());
    bench.changes_nothing(|at| {
        write(at.join("d/f"), "1");
        fs::remove_file(at.join("d/f")).unwrap();
    });
    bench.is_not_noticed(|at| write(at.join("d/sub/f"), "deeper"));
}

#[test]
fn one_file_by_two_ways() {
    let prepare = |at: &Path| {
        fs::create_dir(at.join("d")).unwrap();
        write(at.join("d/f"), "1");
        symlink("d/f", at.join("l")).unwrap();
    };
    let mut bench = Bench::new(prepare, &["d", "d/f", "l"]);
    bench.changes(|at| write(at.join("d/f"), "22"));
    bench.changes(|at| {
        write(at.join("d/tmp"), "3");
        rename(at, "d/tmp", "d/f");
    });
}

/// The last events of a storm find no place in the kernel's queue.
#[test]
fn more_events_than_the_kernel_keeps() {
    let most: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let mut bench = Bench::one(|at| write(at.join("f"), "1"), "f");
    bench.changes(|at| {
        for _ in 0..=most / 2 {
            write(at.join("other"), "1");
            fs::remove_file(at.join("other")).unwrap();
        }
        write(at.join("f"), "22");
    });
    bench.changes(|at| write(at.join("f"), "333"));
}

#[test]
fn without_inotify_looking_finds_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let mut watcher = Watcher::new([path.clone()]);
    watcher.give_up_inotify(&std::io::Error::from_raw_os_error(24));
    assert!(watcher.trouble().is_some_and(|trouble| trouble.to_string().contains("max_user_instances")));
    assert!(!watcher.look_anew());
    write(&path, "1");
    assert!(watcher.look_anew());
    assert!(!watcher.look_anew());
    assert_eq!(watcher.settle().changed, std::slice::from_ref(&path));
    assert_eq!(watcher.settle(), Findings::default());
}
