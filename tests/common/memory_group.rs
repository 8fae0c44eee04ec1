//! Cgroups that limit memory.
#![allow(dead_code, reason = "shared by tests that need different parts of it")]

use std::fs;
use std::path::PathBuf;

use crate::common::until;

/// A memory cgroup of its own below the test's, by whichever version has the controller.
pub(crate) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    pub(crate) fn of_mebibytes(limit: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        for line in own.lines() {
            let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>().try_into().ok()?;
            let (mount, files) = match controllers {
                "" => ("/sys/fs/cgroup", &["memory.max", "memory.swap.max"][..]),
                "memory" => {
                    ("/sys/fs/cgroup/memory", &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"][..])
                }
                _ => continue,
            };
            let parent = std::path::Path::new(mount).join(path.trim_start_matches('/'));
            let own = format!("drainit-test-memory-{}-{limit}", std::process::id());
            // In a container with the host's cgroup namespace the path is the host's.
            for parent in [parent.as_path(), mount.as_ref()] {
                let path = parent.join(&own);
                if fs::create_dir(&path).is_err() {
                    continue;
                }
                let group = Self(path);
                let limits = [limit << 20, if controllers.is_empty() { 0 } else { limit << 20 }];
                let written = files
                    .iter()
                    .zip(limits)
                    .map(|(file, limit)| fs::write(group.0.join(file), limit.to_string()));
                // Without swap its limit may be missing.
                if written.collect::<Vec<_>>().first().is_some_and(Result::is_ok) {
                    return Some(group);
                }
            }
        }
        None
    }

    pub(crate) fn join(&self) -> String {
        format!("write={}:0", self.0.join("cgroup.procs").display())
    }

    /// To the group above it.
    pub(crate) fn leave(&self) -> String {
        let above = self.0.parent().unwrap_or(&self.0);
        format!("write={}:0", above.join("cgroup.procs").display())
    }

    pub(crate) fn kills(&self) -> u64 {
        let read = |file: &str| fs::read_to_string(self.0.join(file)).ok();
        let text = read("memory.events").or_else(|| read("memory.oom_control")).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        until("the group can be removed", || {
            (!self.0.exists() || fs::remove_dir(&self.0).is_ok()).then_some(())
        });
    }
}
