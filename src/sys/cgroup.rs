//! Our groups, cgroups v1 and v2; the processor quota in them, and how many processors we may run on.

use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::procfs;

/// How many workers keep the allowed processors busy: the quota rounded up, at least 1, at most the processors that the
/// affinity mask allows. The standard library rounds down, which would leave half a processor idle.
pub fn processors() -> u32 {
    let allowed = allowed_processors();
    quota().map_or(allowed, |quota| allowed.min(quota)).max(1)
}

fn allowed_processors() -> u32 {
    let Ok(mask) = sched_getaffinity(Pid::from_raw(0)) else { return 1 };
    let count = (0..CpuSet::count()).filter(|processor| mask.is_set(*processor).unwrap_or(false)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The tightest quota on the way from our group to the root, in whole processors; `None` where there is none.
fn quota() -> Option<u32> {
    let quotas = lineages("cpu").into_iter().flat_map(|lineage| {
        let quota_in = match lineage.version {
            Version::One => quota_v1,
            Version::Two => quota_v2,
        };
        lineage.groups.into_iter().filter_map(move |group| quota_in(&group))
    });
    quotas.min()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The groups of one hierarchy that we are in, from our own up to the root of what is mounted.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) version: Version,
    /// In a container the path may be the host's, whose first part is not there: then the root of the mount is our own.
    pub(super) groups: Vec<PathBuf>,
}

impl Lineage {
    /// Our own group.
    pub(super) fn own(&self) -> Option<&Path> {
        self.groups.iter().map(PathBuf::as_path).find(|group| group.exists())
    }
}

/// Where a controller may be: it is in one hierarchy of v1 or in that of v2.
pub(super) fn lineages(controller: &str) -> Vec<Lineage> {
    let groups = procfs::read_text("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(|line| lineage(line, controller)).collect()
}

/// `0::/path` of v2, `4:cpu,cpuacct:/path` of v1: cgroups(7).
fn lineage(line: &str, controller: &str) -> Option<Lineage> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (version, mount) = if controllers.is_empty() {
        (Version::Two, PathBuf::from("/sys/fs/cgroup"))
    } else {
        let named = controllers.split(',').any(|each| each == controller);
        let mounts = [controllers, controller].map(|name| Path::new("/sys/fs/cgroup").join(name));
        (Version::One, mounts.into_iter().find(|mount| named && mount.exists())?)
    };
    let group = mount.join(path.trim_start_matches('/'));
    let groups =
        group.ancestors().take_while(|group| group.starts_with(&mount)).map(Path::to_owned).collect();
    Some(Lineage { version, groups })
}

/// `150000 100000`, or `max 100000`.
fn quota_v2(group: &Path) -> Option<u32> {
    let text = procfs::read_text(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole(quota.parse().ok()?, period.parse().ok()?)
}

/// -1 where there is no quota.
fn quota_v1(group: &Path) -> Option<u32> {
    let read = |name: &str| procfs::read_text(group.join(name)).ok()?.trim().parse::<i64>().ok();
    let quota = u64::try_from(read("cpu.cfs_quota_us")?).ok()?;
    whole(quota, u64::try_from(read("cpu.cfs_period_us")?).ok()?)
}

fn whole(quota: u64, period: u64) -> Option<u32> {
    (period > 0).then(|| u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn quotas_round_up() {
        let group = std::env::temp_dir().join(format!("drainit-cgroup-{}", std::process::id()));
        fs::create_dir_all(&group).unwrap();
        let v2 = |text: &str| {
            fs::write(group.join("cpu.max"), text).unwrap();
            quota_v2(&group)
        };
        assert_eq!(v2("150000 100000\n"), Some(2));
        assert_eq!(v2("100000 100000\n"), Some(1));
        assert_eq!(v2("5000 100000\n"), Some(1));
        assert_eq!(v2("max 100000\n"), None);
        let v1 = |quota: &str| {
            fs::write(group.join("cpu.cfs_quota_us"), quota).unwrap();
            fs::write(group.join("cpu.cfs_period_us"), "100000\n").unwrap();
            quota_v1(&group)
        };
        assert_eq!(v1("250000\n"), Some(3));
        assert_eq!(v1("-1\n"), None);
        fs::remove_dir_all(&group).unwrap();
    }
}
