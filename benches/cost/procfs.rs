//! What /proc tells about a process and the machine.

use std::fs;
use std::io;

/// The three averages.
pub(crate) fn load() -> String {
    let line = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

pub(crate) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// How often the threads of a process have been put to sleep to wait, all in all: each time, something woke it.
pub(crate) fn sleeps(pid: i32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        sum += field(&status, "voluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

pub(crate) fn threads(pid: i32) -> io::Result<u64> {
    field(&status(pid)?, "Threads:")
}

/// Resident memory in KiB.
pub(crate) fn resident(pid: i32) -> io::Result<u64> {
    field(&status(pid)?, "VmRSS:")
}

/// In the order in which they were born.
pub(crate) fn children_of(pid: i32) -> io::Result<Vec<i32>> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(list.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect())
}

/// Children of all kinds, and those of them that are dead and not reaped.
pub(crate) fn children(pid: i32) -> io::Result<(usize, usize)> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let zombies = list.split_ascii_whitespace().filter(|child| is_zombie(child)).count();
    Ok((list.split_ascii_whitespace().count(), zombies))
}

fn is_zombie(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn status(pid: i32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/status"))
}

fn field(status: &str, name: &str) -> io::Result<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no {name} in /proc/PID/status")))
}
