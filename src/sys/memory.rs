//! The memory of this container, cgroups v1 and v2: how much there may be, and whom the kernel has killed for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cgroup::{self, Version};
use crate::core::time::Time;

/// The tightest limit in bytes: of our groups, of the machine.
pub fn limit() -> Option<u64> {
    let groups = cgroup::lineages("memory").into_iter().flat_map(|lineage| {
        let file = match lineage.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        lineage.groups.into_iter().filter_map(move |group| number(&group.join(file)))
    });
    groups.chain(of_the_machine()).min()
}

/// `MemTotal:       16384 kB`
fn of_the_machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether the kernel kills everybody in our group where it kills one.
pub fn dies_as_one() -> bool {
    let lineages = cgroup::lineages("memory");
    let mut groups = lineages.iter().flat_map(|lineage| &lineage.groups);
    groups.any(|group| number(&group.join("memory.oom.group")) == Some(1))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whoever has been counted is dead by then.
const DEATH_TAKES: Duration = Duration::from_secs(2);

/// The kernel's count of those in our group that it killed for want of memory.
#[derive(Debug)]
pub struct OomKills {
    /// `None` where it cannot be seen.
    file: Option<PathBuf>,
    /// What it was when it was last looked at.
    seen: u64,
    /// Whose deaths have not been put down to it yet, and since when.
    unclaimed: u64,
    since: Time,
}

impl Default for OomKills {
    fn default() -> Self {
        Self { file: None, seen: 0, unclaimed: 0, since: Time::ZERO }
    }
}

impl OomKills {
    /// From now on.
    pub fn watch() -> Self {
        let mut found = cgroup::lineages("memory").into_iter().flat_map(|lineage| {
            let file = match lineage.version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            };
            // Not those above: others are in them too.
            lineage.own().map(|group| group.join(file))
        });
        let known = found.find_map(|file| Some((count(&file)?, file)));
        known.map_or_else(Self::default, |(seen, file)| Self { file: Some(file), seen, ..Self::default() })
    }

    /// Whether the worker whose death by SIGKILL has just been seen is among those. Others may be: its own children, of
    /// whose death nobody tells us.
    pub fn claim(&mut self, now: Time) -> bool {
        if now.since(self.since) > DEATH_TAKES {
            self.unclaimed = 0;
        }
        if let Some(count) = self.file.as_deref().and_then(count).filter(|count| *count > self.seen) {
            self.unclaimed += count - self.seen;
            self.seen = count;
            self.since = now;
        }
        let claimed = self.unclaimed > 0;
        self.unclaimed = self.unclaimed.saturating_sub(1);
        claimed
    }
}

/// `oom_kill 3`, since 4.13.
fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_is_one_death() {
        let file = std::env::temp_dir().join(format!("drainit-memory-events-{}", std::process::id()));
        let write =
            |kills: u32| fs::write(&file, format!("low 0\noom 7\noom_kill {kills}\noom_group_kill 0\n"));
        write(2).unwrap();
        let mut kills = OomKills { file: Some(file.clone()), seen: 2, ..OomKills::default() };
        let at = |seconds| Time::at(Duration::from_secs(seconds));
        assert!(!kills.claim(at(1)));
        write(4).unwrap();
        assert_eq!([kills.claim(at(1)), kills.claim(at(2)), kills.claim(at(2))], [true, true, false]);
        write(7).unwrap();
        assert!(kills.claim(at(3)));
        assert!(!kills.claim(at(10)), "the other two were somebody else");
        fs::write(&file, "oom_kill_disable 0\nunder_oom 0\noom_kill 8\n").unwrap();
        assert!(kills.claim(at(11)), "v1");
        fs::remove_file(&file).unwrap();
        assert!(!kills.claim(at(12)));
    }
}
