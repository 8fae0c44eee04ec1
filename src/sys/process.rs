//! drainit's own process: its place in the tree, its limits, its name among containers.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::libc;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getpid, getppid};

use super::check;
use crate::core::signal::Signal;
use crate::core::types::Pid;

/// Whether it is the init of its PID namespace.
pub fn is_init() -> bool {
    getpid().as_raw() == 1
}

pub fn own_pid() -> Pid {
    Pid(getpid().as_raw())
}

/// The CPU time that this thread has spent.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Make orphans below this process its children, as they are PID 1's anyway.
pub fn become_subreaper() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Get `signal` when the parent dies (PR_SET_PDEATHSIG). Says whether it is dead already: the kernel tells of
/// no death before the call.
pub fn on_parent_death(signal: Signal) -> io::Result<bool> {
    let parent = getppid();
    // SAFETY: this operation takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.number()) })?;
    Ok(getppid() != parent)
}

/// Leave the start directory, so that it can be unmounted.
pub fn leave_start_directory() {
    let _ = std::env::set_current_dir("/");
}

pub fn uid() -> u32 {
    Uid::effective().as_raw()
}

pub fn gid() -> u32 {
    Gid::effective().as_raw()
}

/// The inode that names this process' namespace of a kind (`mnt`, `pid`); namespaces(7).
pub fn namespace(kind: &str) -> Option<u64> {
    std::fs::metadata(format!("/proc/self/ns/{kind}")).ok().map(|namespace| namespace.ino())
}

/// The same of another process; `None` where that may not be looked at.
pub fn namespace_of(pid: Pid, kind: &str) -> Option<u64> {
    if !super::procfs::is_ours() {
        return None;
    }
    std::fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok().map(|namespace| namespace.ino())
}

/// Chance from the kernel; where getrandom(2) is forbidden, the clock and the pid have to do.
pub fn random_seed() -> u64 {
    let mut seed = [0_u8; 8];
    // SAFETY: the buffer is live and as long as is said.
    let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), libc::GRND_NONBLOCK) };
    if got == seed.len() as isize {
        return u64::from_ne_bytes(seed);
    }
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec is live.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_nsec.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id())
}

/// The environment as it is, entry by entry: the standard library drops those without `=`.
pub fn environment() -> Vec<CString> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: nobody in this process changes the environment.
    let mut at = unsafe { environ };
    loop {
        // SAFETY: environ(7): an array of strings that ends with a null pointer.
        let entry = if at.is_null() { std::ptr::null() } else { unsafe { *at } };
        if entry.is_null() {
            return entries;
        }
        // SAFETY: each entry is NUL-terminated and lives as long as the process.
        entries.push(unsafe { CStr::from_ptr(entry) }.to_owned());
        // SAFETY: not yet at the end.
        at = unsafe { at.add(1) };
    }
}
