//! The threads of a process: /proc/PID/task, proc_pid_task(5).

use std::fs::File;
use std::io;

use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::procfs;
use crate::core::types::Pid;

/// As they were when somebody looked; none of a process that is gone.
#[derive(Debug)]
pub(super) struct Threads(Option<(File, Vec<i32>)>);

impl Threads {
    pub(super) fn of(pid: Pid) -> Self {
        Self(procfs::numbers(&format!("/proc/{pid}/task")).ok())
    }

    pub(super) fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |(_, threads)| threads.len())
    }

    /// A file of each of them, of those that have it to read.
    pub(super) fn read(&self, name: &str) -> impl Iterator<Item = Vec<u8>> {
        self.each(name).filter_map(|(_, _, text)| text.ok())
    }

    /// The children of all of them; `None` where the kernel was built without telling.
    pub(super) fn children(&self) -> Option<Vec<Pid>> {
        let mut children = Vec::new();
        for (directory, thread, list) in self.each("children") {
            let is_there = || fstatat(directory, thread.to_string().as_str(), AtFlags::empty()).is_ok();
            match list {
                Ok(list) => children.extend(pids(&list)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_there() => return None,
                Err(_) => {}
            }
        }
        Some(children)
    }

    fn each(&self, name: &str) -> impl Iterator<Item = (&File, i32, io::Result<Vec<u8>>)> {
        self.0.iter().flat_map(move |(directory, threads)| {
            threads.iter().map(move |thread| {
                (directory, *thread, procfs::read_in(directory, &format!("{thread}/{name}")))
            })
        })
    }
}

/// `12 345 `
pub(super) fn pids(list: &[u8]) -> impl Iterator<Item = Pid> {
    let pids = list.split(|byte| *byte == b' ');
    pids.filter_map(|pid| std::str::from_utf8(pid).ok()?.trim_ascii().parse().ok().map(Pid))
}
