//! How drainit knows that a worker accepts, with no word from it: by looking at what it waits for.
//!
//! A server that waits for connections has the socket in an epoll set (`tfd:` lines with `ino:` in
//! `/proc/PID/fdinfo`, proc_pid_fdinfo(5)) or sits in accept, poll or select on it
//! (`/proc/PID/task/TID/syscall`). Sampled only while something is starting.

use std::fs;
use std::io;

use nix::libc;

use super::eyes::look_at;
use super::{procfs, sock_diag};
use crate::core::types::Pid;

/// What was seen of a worker.
#[derive(Debug)]
pub enum Sight {
    Accepting,
    /// It does not, and has the socket open in a process without an event loop: it may be busy with whom it has accepted
    /// last.
    Holding,
    NotYet,
    /// Its /proc may not be looked into, or there is none.
    Blind(io::Error),
}

/// More descriptors than these are not looked for in one poll(2) call.
const POLLED_MAX: u64 = 4096;

/// Whether `worker` or a process below it waits for connections on one of these sockets.
pub fn on_sockets(worker: Pid, inodes: &[u64]) -> Sight {
    look(worker, |pid, descriptors| {
        let mut epolls = descriptors.iter().filter(|(_, link)| link == "anon_inode:[eventpoll]").peekable();
        let has_loop = epolls.peek().is_some();
        if epolls.any(|(fd, _)| epoll_holds(pid, *fd, inodes)) {
            return Sight::Accepting;
        }
        let sockets: Vec<i32> = descriptors
            .iter()
            .filter(|(_, link)| procfs::socket_inode(link).is_some_and(|inode| inodes.contains(&inode)))
            .map(|(fd, _)| *fd)
            .collect();
        match sockets.is_empty() {
            true => Sight::NotYet,
            false if blocked_on(pid, &sockets) => Sight::Accepting,
            false if has_loop => Sight::NotYet,
            false => Sight::Holding,
        }
    })
}

/// Whether `worker` or a process below it has any listening stream socket of its own.
pub fn on_own_socket(worker: Pid) -> Sight {
    let listening = sock_diag::listening_inodes();
    look(worker, |_, descriptors| {
        let mut sockets = descriptors.iter().filter_map(|(_, link)| procfs::socket_inode(link));
        if sockets.any(|inode| listening.contains(&inode)) { Sight::Accepting } else { Sight::NotYet }
    })
}

/// Whether a thread of this process sits in accept, poll or select on the descriptor.
pub fn is_waited_for(pid: Pid, fd: i32) -> bool {
    look_at(pid, || blocked_on(pid, &[fd]))
}

fn look(worker: Pid, see: impl Fn(Pid, &[(i32, String)]) -> Sight) -> Sight {
    if !procfs::is_ours() {
        return Sight::Blind(io::Error::new(io::ErrorKind::NotFound, "no /proc of this PID namespace"));
    }
    let mut seen = Sight::NotYet;
    for pid in procfs::tree(worker) {
        match look_at(pid, || procfs::descriptors(pid).map(|descriptors| see(pid, &descriptors))) {
            Ok(Sight::Accepting) => return Sight::Accepting,
            Ok(Sight::Holding) if matches!(seen, Sight::NotYet) => seen = Sight::Holding,
            Ok(_) => {}
            // Anything else passes: descriptors run short, or the process is about to go.
            Err(error) if pid == worker && error.kind() == io::ErrorKind::PermissionDenied => {
                seen = Sight::Blind(error)
            }
            Err(_) => {}
        }
    }
    seen
}

/// `tfd:        5 events:       19 data:                5  pos:0 ino:2a4f sdev:8`
fn epoll_holds(pid: Pid, fd: i32, inodes: &[u64]) -> bool {
    let Ok(info) = procfs::read_text(format!("/proc/{pid}/fdinfo/{fd}")) else { return false };
    info.lines().filter(|line| line.starts_with("tfd:")).any(|line| {
        let inode = line.split_ascii_whitespace().find_map(|field| field.strip_prefix("ino:"));
        inode.and_then(|hex| u64::from_str_radix(hex, 16).ok()).is_some_and(|inode| inodes.contains(&inode))
    })
}

fn blocked_on(pid: Pid, sockets: &[i32]) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().any(|task| {
        let call = procfs::read_text(task.path().join("syscall")).ok();
        call.and_then(|call| Call::parse(&call)).is_some_and(|call| call.waits_for(pid, sockets))
    })
}

/// The system call that a thread is blocked in.
struct Call {
    number: libc::c_long,
    arguments: [u64; 3],
}

impl Call {
    /// `271 0x7f… 0x2 0x… …`; `running` where it is not blocked.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let number = fields.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
        Some(Self { number, arguments: [argument()?, argument()?, argument()?] })
    }

    fn waits_for(&self, pid: Pid, sockets: &[i32]) -> bool {
        let [first, second, _] = self.arguments;
        match self.number {
            libc::SYS_accept | libc::SYS_accept4 => {
                i32::try_from(first).is_ok_and(|fd| sockets.contains(&fd))
            }
            libc::SYS_ppoll => polled(pid, first, second, sockets),
            libc::SYS_pselect6 => selected(pid, first, second, sockets),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => polled(pid, first, second, sockets),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select => selected(pid, first, second, sockets),
            _ => false,
        }
    }
}

/// struct pollfd is eight bytes, the descriptor first: poll(2).
fn polled(pid: Pid, address: u64, count: u64, sockets: &[i32]) -> bool {
    let entries = procfs::read_memory(pid, address, count.min(POLLED_MAX) * 8);
    entries.chunks_exact(8).any(|entry| {
        let fd = entry.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        fd.is_some_and(|fd| sockets.contains(&fd))
    })
}

/// A bit a descriptor: select(2).
fn selected(pid: Pid, count: u64, address: u64, sockets: &[i32]) -> bool {
    let bits = procfs::read_memory(pid, address, count.min(1024).div_ceil(8));
    sockets.iter().any(|fd| {
        let fd = usize::try_from(*fd).unwrap_or(usize::MAX);
        bits.get(fd / 8).is_some_and(|byte| byte & (1 << (fd % 8)) != 0)
    })
}
