//! The processor quota of this container, cgroups v1 and v2, and how many processors it may run on.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

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
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(quota_of_line).min()
}

/// `0::/path` of v2, `4:cpu,cpuacct:/path` of v1: cgroups(7).
fn quota_of_line(line: &str) -> Option<u32> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    if controllers.is_empty() {
        return tightest(Path::new("/sys/fs/cgroup"), path, quota_v2);
    }
    let named = controllers.split(',').any(|controller| controller == "cpu");
    let mounts = [format!("/sys/fs/cgroup/{controllers}"), "/sys/fs/cgroup/cpu".to_owned()];
    let mount = mounts.iter().map(Path::new).find(|mount| mount.exists()).filter(|_| named)?;
    tightest(mount, path, quota_v1)
}

/// In a container the path may be the host's, which is not there: then the root of the mount is our group.
fn tightest(mount: &Path, path: &str, quota_in: fn(&Path) -> Option<u32>) -> Option<u32> {
    let group = mount.join(path.trim_start_matches('/'));
    let groups: Vec<PathBuf> =
        group.ancestors().take_while(|group| group.starts_with(mount)).map(Path::to_owned).collect();
    groups.iter().filter_map(|group| quota_in(group)).min()
}

/// `150000 100000`, or `max 100000`.
fn quota_v2(group: &Path) -> Option<u32> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole(quota.parse().ok()?, period.parse().ok()?)
}

/// -1 where there is no quota.
fn quota_v1(group: &Path) -> Option<u32> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<i64>().ok();
    let quota = u64::try_from(read("cpu.cfs_quota_us")?).ok()?;
    whole(quota, u64::try_from(read("cpu.cfs_period_us")?).ok()?)
}

fn whole(quota: u64, period: u64) -> Option<u32> {
    (period > 0).then(|| u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
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
