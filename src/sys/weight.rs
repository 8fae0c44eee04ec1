//! How much memory the workers use, and how much is left for more of them.

use std::collections::BTreeMap;
use std::path::Path;

use super::cgroup::{self, Version};
use super::procfs;
use crate::core::types::Pid;

/// cgroups v1 say "no limit" by a number that no machine has.
const NO_LIMIT: u64 = 1 << 60;

/// Of a process group, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// What ps shows, added up: what the processes share counts for each of them.
    pub resident: u64,
    /// The same without files: those belong to all workers, and to nobody when memory runs short.
    pub own: u64,
}

/// The weight of every process group there is, by its leader; proc_pid_stat(5), proc_pid_statm(5). Nobody where /proc
/// cannot tell.
pub fn of_groups() -> BTreeMap<Pid, Weight> {
    let mut weights: BTreeMap<Pid, Weight> = BTreeMap::new();
    for pid in procfs::pids().unwrap_or_default() {
        if let Some((stat, (resident, shared))) = procfs::stat(pid).zip(pages(pid)) {
            let weight = weights.entry(stat.group).or_default();
            weight.resident += resident * page_size();
            weight.own += resident.saturating_sub(shared) * page_size();
        }
    }
    weights
}

/// `size resident shared …`, the last one being files and shared memory.
fn pages(pid: Pid) -> Option<(u64, u64)> {
    let text = procfs::read_text(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(1).map_while(|field| field.parse().ok());
    fields.next().zip(fields.next())
}

fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok().flatten().and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}

/// Bytes below the tightest limit of our cgroups, v1 and v2; `None` where there is no limit. What is used is the kubelet's working
/// set: without files that nobody has read lately, which the kernel gives up first.
pub fn headroom() -> Option<u64> {
    let groups = cgroup::lineages("memory").into_iter().flat_map(|lineage| {
        let version = lineage.version;
        lineage.groups.into_iter().filter_map(move |group| headroom_in(&group, version))
    });
    groups.min()
}

fn headroom_in(group: &Path, version: Version) -> Option<u64> {
    let (limit, usage, inactive) = match version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
        Version::Two => ("memory.max", "memory.current", "inactive_file "),
    };
    let read = |file: &str| procfs::read_text(group.join(file)).ok();
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let limit = number(limit).filter(|limit| *limit < NO_LIMIT)?;
    let stat = read("memory.stat").unwrap_or_default();
    let inactive = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok());
    let used = number(usage)?.saturating_sub(inactive.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn our_own_group_weighs_something() {
        let own = procfs::stat(crate::sys::process::own_pid()).unwrap().group;
        let weight = of_groups()[&own];
        assert!(weight.resident > 1 << 20, "{weight:?}");
        assert!(weight.own > 0 && weight.own <= weight.resident, "{weight:?}");
    }

    #[test]
    fn headroom_is_the_limit_less_the_working_set() {
        let group = std::env::temp_dir().join(format!("drainit-headroom-{}", std::process::id()));
        fs::create_dir_all(&group).unwrap();
        let write = |file: &str, text: &str| fs::write(group.join(file), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 100\ninactive_file 200\nactive_file 50\n");
        assert_eq!(headroom_in(&group, Version::Two), None);
        write("memory.max", "1000\n");
        assert_eq!(headroom_in(&group, Version::Two), Some(500));
        write("memory.max", "100\n");
        assert_eq!(headroom_in(&group, Version::Two), Some(0));
        write("memory.limit_in_bytes", "9223372036854771712\n");
        write("memory.usage_in_bytes", "300\n");
        assert_eq!(headroom_in(&group, Version::One), None);
        write("memory.limit_in_bytes", "1000\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
        assert_eq!(headroom_in(&group, Version::One), Some(800));
        fs::remove_dir_all(&group).unwrap();
    }
}
