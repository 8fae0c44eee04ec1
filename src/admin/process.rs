//! What Prometheus wants to know of any process, from /proc; whatever cannot be read is left out.

use std::fs;

/// proc(5): times are in clock ticks. The kernel's USER_HZ is 100 wherever Rust runs on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The figures of this process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) start_time_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) virtual_memory_bytes: Option<u64>,
    pub(super) resident_memory_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/self/stat");
        let status = read("/proc/self/status");
        let ticks = |field| field_of_stat(&stat, field);
        Self {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            start_time_seconds: number_after(&read("/proc/stat"), "btime ")
                .zip(ticks(22))
                .map(|(boot, start)| boot as f64 + start / TICKS_PER_SECOND),
            // One of them is the directory that is being read.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: number_after(&read("/proc/self/limits"), "Max open files"),
            virtual_memory_bytes: number_after(&status, "VmSize:").map(|kib| kib * 1024),
            resident_memory_bytes: number_after(&status, "VmRSS:").map(|kib| kib * 1024),
            threads: number_after(&status, "Threads:"),
        }
    }
}

/// A field of /proc/PID/stat by its number in proc(5), from 3 on. The second one, the name, can hold anything.
fn field_of_stat(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// The first number of the line that starts with `key`.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let process = Process::read();
        assert!(process.cpu_seconds.is_some());
        assert!(process.start_time_seconds > Some(1.6e9), "{process:?}");
        assert!(process.open_fds >= Some(3), "{process:?}");
        assert!(process.max_fds >= process.open_fds, "{process:?}");
        assert!(process.virtual_memory_bytes >= process.resident_memory_bytes, "{process:?}");
        assert!(process.threads >= Some(1), "{process:?}");
    }

    #[test]
    fn a_name_with_parentheses_confuses_nobody() {
        assert_eq!(field_of_stat("1 (a) b) S 4 5", 4), Some(4.0));
        assert_eq!(field_of_stat("", 14), None);
    }
}
