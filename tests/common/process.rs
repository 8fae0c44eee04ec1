use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A live process, by its pid in the namespace of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(pub i32);

impl Process {
    pub fn path(self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0).into()
    }

    pub fn read(self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_default()
    }

    pub fn text(self, name: &str) -> String {
        String::from_utf8_lossy(&self.read(name)).into_owned()
    }

    /// A line of /proc/PID/status; empty once the process is gone.
    pub fn status(self, field: &str) -> String {
        let text = self.text("status");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    /// `R`, `S`, `T`, `Z` ... or a space when there is no such process.
    pub fn state(self) -> char {
        self.status("State").chars().next().unwrap_or(' ')
    }

    pub fn is_alive(self) -> bool {
        !matches!(self.state(), ' ' | 'Z' | 'X')
    }

    /// One of the signal sets (`SigBlk`, `SigIgn`, `SigCgt`, `ShdPnd`); see [`bit`].
    pub fn signals(self, field: &str) -> u64 {
        u64::from_str_radix(&self.status(field), 16).unwrap_or_default()
    }

    /// Its pid as its own namespace counts.
    pub fn pid_inside(self) -> String {
        self.status("NSpid").split_whitespace().last().unwrap_or_default().to_owned()
    }

    /// A field of /proc/PID/stat, counted from 1 as in proc(5).
    pub fn stat(self, field: usize) -> i64 {
        let text = self.text("stat");
        // The name, field 2, may hold anything, parentheses too.
        let after_name = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(field - 3).and_then(|word| word.parse().ok()).unwrap_or(-1)
    }

    pub fn group(self) -> i64 {
        self.stat(5)
    }

    pub fn children(self) -> Vec<Self> {
        let text = self.text(&format!("task/{}/children", self.0));
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Self).collect()
    }

    /// It and all below it.
    pub fn family(self) -> Vec<Self> {
        let below = self.children().into_iter().flat_map(Self::family);
        std::iter::once(self).chain(below).collect()
    }

    pub fn zombies(self) -> usize {
        self.children().into_iter().filter(|child| child.state() == 'Z').count()
    }

    /// What each descriptor refers to, by number.
    pub fn descriptors(self) -> Vec<(i32, PathBuf)> {
        let entries = fs::read_dir(self.path("fd")).into_iter().flatten().flatten();
        let mut list: Vec<_> = entries
            .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, fs::read_link(e.path()).ok()?)))
            .collect();
        list.sort();
        list
    }

    /// The environment as it was at exec, in order.
    pub fn environment(self) -> Vec<Vec<u8>> {
        zero_terminated(&self.read("environ"))
    }

    pub fn variable(self, name: &str) -> Option<String> {
        let prefix = format!("{name}=").into_bytes();
        let environment = self.environment();
        let value = environment.iter().find_map(|entry| entry.strip_prefix(prefix.as_slice()))?;
        Some(OsStr::from_bytes(value).to_string_lossy().into_owned())
    }

    pub fn arguments(self) -> Vec<Vec<u8>> {
        zero_terminated(&self.read("cmdline"))
    }

    pub fn runs(self, program: &Path) -> bool {
        let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        identity(&self.path("exe")).is_some_and(|own| Some(own) == identity(program))
    }

    pub fn signal(self, signal: i32) {
        assert_eq!(unsafe { libc::kill(self.0, signal) }, 0, "kill({}, {signal})", self.0);
    }

    pub fn signal_if_alive(self, signal: i32) {
        unsafe { libc::kill(self.0, signal) };
    }

    /// Sends a signal with a value; false when the kernel's queue is full just now.
    pub fn queue(self, signal: i32, value: i32) -> bool {
        let value = libc::sigval { sival_ptr: value as usize as *mut _ };
        unsafe { libc::sigqueue(self.0, signal, value) == 0 }
    }
}

/// The place of a signal in the sets of /proc/PID/status.
pub fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

fn zero_terminated(bytes: &[u8]) -> Vec<Vec<u8>> {
    let body = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if body.is_empty() && bytes.is_empty() {
        return Vec::new();
    }
    body.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
}
