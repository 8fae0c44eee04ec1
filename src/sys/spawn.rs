//! Starting a process: clone(2) with CLONE_VM | CLONE_VFORK, as posix_spawn(3) does it.
//!
//! The child borrows our memory and we are suspended until it executes its command or fails. So an error comes
//! back without a descriptor (RLIMIT_NOFILE may leave none), no page table is copied (a memory cgroup may leave
//! no room), and nothing is lost in between: whatever signal reaches us waits until there is a program to pass
//! it on to. The child may only make system calls: no allocation, no lock, no panic. Signals are blocked in it
//! until the last moment, and no handler of ours exists that could run.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;

use super::check;
use super::seccomp::{self, Handover, Notifier};
use super::signals::{Inherited, TERMINAL_STOPS, discard, set_mask};
use super::standing::{self, Refused, Standing};
use crate::core::event::SpawnFailure;
use crate::core::signal::Signal;
use crate::core::types::Pid;

/// The child needs little: its frames and those of the system call wrappers.
const STACK_WORDS: usize = 4096;

/// What to execute and what to give it.
#[derive(Debug)]
pub struct Launch<'a> {
    pub argv: &'a [CString],
    /// Complete; `NAME=value`, or whatever drainit was given.
    pub env: &'a [CString],
    /// Names of variables that get the child's own pid, e.g. `LISTEN_PID`; known only after the fork.
    pub pid_variables: &'a [&'a str],
    /// What it inherits beyond 0, 1 and 2, to become 3, 4, … in this order: the sockets, a channel.
    pub descriptors: &'a [RawFd],
    /// A terminal whose foreground the child's group gets.
    pub foreground: Option<RawFd>,
    /// Where to start; `None`: where drainit is.
    pub directory: Option<&'a CStr>,
    /// `/dev/null` in place of 0, 1 and 2.
    pub silent: bool,
    pub inherited: Inherited,
    pub standing: &'a Standing,
    /// Be asked about its bind(2) and listen(2).
    pub adopt: Adopt,
    /// And about its handlers of this signal.
    pub handled: Option<Signal>,
}

/// Whether a worker's sockets are adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopt {
    No,
    /// Where the kernel permits it.
    Try,
    Must,
}

/// A process that executes its command.
#[derive(Debug)]
pub struct Started {
    pub pid: Pid,
    pub notifier: Option<Notifier>,
    /// Why there is none, where one was wanted.
    pub not_adopted: Option<io::Error>,
}

/// Start it as the leader of a new process group.
pub fn spawn(launch: &Launch<'_>) -> Result<Started, SpawnFailure> {
    let name = launch.argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (handover, mut not_adopted) = match launch.adopt {
        Adopt::No => (None, None),
        Adopt::Try => {
            Handover::new().map_or_else(|error| (None, Some(error)), |handover| (Some(handover), None))
        }
        Adopt::Must => {
            let refused =
                |error| SpawnFailure::System(format!("cannot start {name}: --adopt-bind on: {error}"));
            (Some(Handover::new().map_err(refused)?), None)
        }
    };
    let dumpable = launch.standing.account.is_some() && standing::is_dumpable();
    let mut plan = Plan::new(launch, handover.as_ref());
    // Not zeroed: most of it is never touched, and touching it costs page faults.
    let mut stack: Vec<u128> = Vec::with_capacity(STACK_WORDS);
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let plan: *mut Plan<'_> = &raw mut plan;
    // SAFETY: the stack is ours, aligned to 16 and lives until the child has left our memory, which is when
    // clone returns; the plan does too.
    let pid = check(unsafe { libc::clone(child, top.cast(), flags, plan.cast()) })
        .map_err(|error| SpawnFailure::System(format!("cannot start {name}: fork refused: {error}")))?;
    if dumpable {
        standing::be_dumpable();
    }
    let pid = Pid(i32::try_from(pid).unwrap_or_default());
    // SAFETY: the child does not run in our memory any more.
    let plan = unsafe { &*plan };
    match plan.errno.load(Ordering::Acquire) {
        0 => {
            let refused = plan.seccomp_errno.load(Ordering::Relaxed);
            if refused != 0 {
                not_adopted = Some(io::Error::from_raw_os_error(refused));
            }
            Ok(Started { pid, notifier: handover.and_then(|handover| handover.receive()), not_adopted })
        }
        errno => {
            let mut status = 0;
            // SAFETY: the child has failed and is exiting; it has not been waited for.
            unsafe { libc::waitpid(pid.0, &raw mut status, 0) };
            Err(failure(&name, plan.step(), errno))
        }
    }
}

fn failure(name: &str, step: &str, errno: c_int) -> SpawnFailure {
    let error = io::Error::from_raw_os_error(errno);
    if step != STEPS[EXEC] {
        return SpawnFailure::System(format!("cannot start {name}: {step}: {error}"));
    }
    match errno {
        libc::ENOENT if name.contains('/') && std::path::Path::new(name).exists() => {
            SpawnFailure::NotFound(format!(
                "cannot execute {name}: it is there, but the interpreter or loader that it names is not found"
            ))
        }
        libc::ENOENT => SpawnFailure::NotFound(format!("cannot execute {name}: not found")),
        libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE => {
            SpawnFailure::System(format!("cannot execute {name}: {error}"))
        }
        libc::EACCES => {
            SpawnFailure::CannotExecute(format!("cannot execute {name}: permission denied or not a program"))
        }
        libc::ENOEXEC => {
            SpawnFailure::CannotExecute(format!("cannot execute {name}: not a program for this machine"))
        }
        _ => SpawnFailure::CannotExecute(format!("cannot execute {name}: {error}")),
    }
}

const STEPS: [&str; 11] = [
    "setpgid",
    "terminal",
    "chdir",
    "descriptors",
    "/dev/null",
    "exec",
    "--adopt-bind on: seccomp",
    "RLIMIT_NOFILE",
    "--user: setgroups",
    "--user: setgid",
    "--user: setuid",
];
const SETPGID: usize = 0;
const CHDIR: usize = 2;
const DESCRIPTORS: usize = 3;
const EXEC: usize = 5;
const SECCOMP: usize = 6;

const fn step_of(refused: Refused) -> usize {
    match refused {
        Refused::Limit => 7,
        Refused::Groups => 8,
        Refused::Gid => 9,
        Refused::Uid => 10,
    }
}

/// Everything the child needs, allocated beforehand.
struct Plan<'a> {
    launch: &'a Launch<'a>,
    argv: Vec<*const c_char>,
    /// `/bin/sh`, the file, the arguments: for a file without a format that the kernel knows, as execvp(3) has it.
    shell_argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// The files to try, in the order of PATH.
    files: Vec<CString>,
    descriptors: Vec<RawFd>,
    pid_entries: Vec<PidEntry>,
    /// The filter that has us asked, and the socket on which to hand over who answers.
    adoption: Option<(Vec<libc::sock_filter>, RawFd)>,
    seccomp_errno: AtomicI32,
    errno: AtomicI32,
    failed_step: AtomicI32,
}

/// `NAME=` and room for the child's pid.
struct PidEntry {
    /// What the environment points to: written to, never moved.
    bytes: Vec<u8>,
    /// Where in it the digits go.
    digits: usize,
}

impl PidEntry {
    fn new(name: &str) -> Self {
        let mut bytes = format!("{name}=").into_bytes();
        let digits = bytes.len();
        bytes.extend([0; 12]);
        Self { bytes, digits }
    }
}

impl<'a> Plan<'a> {
    fn new(launch: &'a Launch<'a>, handover: Option<&Handover>) -> Self {
        let argv = pointers(launch.argv.iter().map(|arg| arg.as_ptr()));
        let arguments = launch.argv.iter().skip(1).map(|arg| arg.as_ptr());
        let shell_argv = pointers([c"/bin/sh".as_ptr(), ptr::null()].into_iter().chain(arguments));
        let pid_entries: Vec<_> = launch.pid_variables.iter().map(|name| PidEntry::new(name)).collect();
        let own = pid_entries.iter().map(|entry| entry.bytes.as_ptr().cast());
        let env = pointers(launch.env.iter().map(|entry| entry.as_ptr()).chain(own));
        Self {
            launch,
            argv,
            shell_argv,
            env,
            files: files_to_try(launch.argv.first().map_or(c"", CString::as_c_str), launch.env),
            descriptors: launch.descriptors.to_vec(),
            pid_entries,
            adoption: handover.map(|handover| (seccomp::filter(launch.handled), handover.childs.as_raw_fd())),
            seccomp_errno: AtomicI32::new(0),
            errno: AtomicI32::new(0),
            failed_step: AtomicI32::new(0),
        }
    }

    fn step(&self) -> &'static str {
        usize::try_from(self.failed_step.load(Ordering::Relaxed))
            .ok()
            .and_then(|step| STEPS.get(step))
            .unwrap_or(&"")
    }

    fn fail(&self, step: usize) -> c_int {
        self.fail_with(step, errno())
    }

    fn fail_with(&self, step: usize, errno: c_int) -> c_int {
        self.failed_step.store(c_int::try_from(step).unwrap_or_default(), Ordering::Relaxed);
        self.errno.store(errno.max(1), Ordering::Release);
        127
    }
}

fn pointers(items: impl Iterator<Item = *const c_char>) -> Vec<*const c_char> {
    items.chain([ptr::null()]).collect()
}

/// As execvp(3) looks for a command: in the PATH of the environment that it will get.
fn files_to_try(command: &CStr, env: &[CString]) -> Vec<CString> {
    let name = command.to_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return vec![command.to_owned()];
    }
    let path =
        env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).unwrap_or(b"/bin:/usr/bin");
    let file = |directory: &[u8]| {
        let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        CString::new([directory, separator, name].concat()).ok()
    };
    path.split(|byte| *byte == b':').filter_map(file).collect()
}

/// The child's life between clone(2) and execve(2); returns its exit code where it fails.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: the parent passed a live Plan and is suspended; nobody else has a reference to it.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    // SAFETY: a system call that touches no memory.
    if unsafe { libc::setpgid(0, 0) } == -1 {
        return plan.fail(SETPGID);
    }
    if let Some(terminal) = plan.launch.foreground {
        let group = own_pid();
        // SAFETY: the pid is on our stack. Failure is no reason not to start.
        unsafe { libc::ioctl(terminal, libc::TIOCSPGRP, &raw const group) };
    }
    if let Some(directory) = plan.launch.directory {
        // SAFETY: a live, NUL-terminated string.
        if unsafe { libc::chdir(directory.as_ptr()) } == -1 {
            return plan.fail(CHDIR);
        }
    }
    if plan.launch.silent {
        silence();
    }
    // Before others take the places of descriptors that this needs.
    if let Err(errno) = filter_binds(plan) {
        plan.seccomp_errno.store(errno, Ordering::Relaxed);
        if plan.launch.adopt == Adopt::Must {
            return plan.fail_with(SECCOMP, errno);
        }
    }
    if !place_descriptors(&mut plan.descriptors) {
        return plan.fail(DESCRIPTORS);
    }
    for PidEntry { bytes, digits } in &mut plan.pid_entries {
        write_digits(bytes.get_mut(*digits..).unwrap_or_default(), own_pid());
    }
    if plan.launch.inherited.child_ignored {
        // SAFETY: dispositions are the child's own: CLONE_SIGHAND is not set.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    }
    // As somebody else from here on: all that needs drainit's privileges is done.
    if let Err(refused) = plan.launch.standing.take() {
        return plan.fail(step_of(refused));
    }
    // Ctrl-Z before we had left drainit's group would stop us here, and with us drainit, which waits for the exec.
    discard(TERMINAL_STOPS);
    // Last of all: a signal that waits for us may end us now, as it would end the program.
    set_mask(plan.launch.inherited.mask);
    exec(plan)
}

/// Try one file after the other, as execvp(3) does.
fn exec(plan: &mut Plan<'_>) -> c_int {
    let mut denied = false;
    let mut last = libc::ENOENT;
    for file in &plan.files {
        // SAFETY: all three are live, NUL-terminated and end with a null pointer.
        unsafe { libc::execve(file.as_ptr(), plan.argv.as_ptr(), plan.env.as_ptr()) };
        last = errno();
        match last {
            libc::ENOEXEC if is_binary(file) => return plan.fail_with(EXEC, libc::ENOEXEC),
            libc::ENOEXEC => {
                if let Some(entry) = plan.shell_argv.get_mut(1) {
                    *entry = file.as_ptr();
                }
                // SAFETY: as above.
                unsafe { libc::execve(c"/bin/sh".as_ptr(), plan.shell_argv.as_ptr(), plan.env.as_ptr()) };
                return plan.fail_with(EXEC, libc::ENOEXEC);
            }
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return plan.fail_with(EXEC, last),
        }
    }
    let searched = plan.files.len() != 1;
    let errno = match (denied, searched) {
        (true, _) => libc::EACCES,
        (false, true) => libc::ENOENT,
        (false, false) => last,
    };
    plan.fail_with(EXEC, errno)
}

/// Have the parent asked about bind and listen from here on. Nothing that follows in the child is among what it asks
/// about.
fn filter_binds(plan: &mut Plan<'_>) -> Result<(), c_int> {
    let Some((filter, handover)) = &mut plan.adoption else { return Ok(()) };
    let program = libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
    let listener = seccomp::install(&program)?;
    if seccomp::hand_over(*handover, listener) { Ok(()) } else { Err(errno()) }
}

/// Whether a shell would only stumble over it: a script is no ELF file, and has no NUL in its first bytes.
fn is_binary(file: &CStr) -> bool {
    let mut head = [0_u8; 64];
    // SAFETY: a live, NUL-terminated string.
    let fd = unsafe { libc::open(file.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    // SAFETY: the buffer is live and as long as is said.
    let read = unsafe { libc::read(fd, head.as_mut_ptr().cast(), head.len()) };
    // SAFETY: nobody else knows this descriptor; closing -1 is harmless.
    unsafe { libc::close(fd) };
    let head = usize::try_from(read).ok().and_then(|read| head.get(..read)).unwrap_or_default();
    head.starts_with(b"\x7fELF") || head.contains(&0)
}

/// Put them at 3, 4, …; first out of each other's way, then in place, without close-on-exec.
fn place_descriptors(descriptors: &mut [RawFd]) -> bool {
    let end = 3 + descriptors.len() as RawFd;
    for (place, fd) in (3..).zip(descriptors.iter_mut()) {
        if *fd != place && *fd < end {
            // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC touches no memory.
            *fd = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, end) };
            if *fd == -1 {
                return false;
            }
        }
    }
    (3..).zip(descriptors.iter()).all(|(place, fd)| {
        let placed = if *fd == place {
            // SAFETY: fcntl(2) with F_SETFD touches no memory.
            unsafe { libc::fcntl(place, libc::F_SETFD, 0) }
        } else {
            // SAFETY: dup2(2) touches no memory.
            unsafe { libc::dup2(*fd, place) }
        };
        placed != -1
    })
}

/// An image may have no `/dev/null`; then the output goes where drainit's goes.
fn silence() {
    // SAFETY: the path is a literal.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if null != -1 {
        for fd in 0..=2 {
            // SAFETY: dup2(2) touches no memory.
            unsafe { libc::dup2(null, fd) };
        }
    }
}

/// Decimal digits without padding, which some parsers would read as octal.
fn write_digits(into: &mut [u8], number: libc::pid_t) {
    let mut length = 1;
    let mut rest = number / 10;
    while rest > 0 {
        length += 1;
        rest /= 10;
    }
    let mut rest = number;
    for byte in into.iter_mut().take(length).rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn own_pid() -> libc::pid_t {
    // SAFETY: getpid(2) cannot fail.
    unsafe { libc::getpid() }
}

fn errno() -> c_int {
    // Not through the standard library's error type: here is no place for anything but system calls.
    nix::errno::Errno::last_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_not_padded() {
        let digits = |number| {
            let mut buffer = [0_u8; 12];
            write_digits(&mut buffer, number);
            CStr::from_bytes_until_nul(&buffer).map(|text| text.to_string_lossy().into_owned())
        };
        assert_eq!(digits(1).as_deref(), Ok("1"));
        assert_eq!(digits(40).as_deref(), Ok("40"));
        assert_eq!(digits(4_194_304).as_deref(), Ok("4194304"));
    }

    #[test]
    fn commands_are_looked_for_like_execvp_does() {
        let env = [c"PATH=/a::/b".to_owned()];
        assert_eq!(files_to_try(c"x", &env), [c"/a/x".to_owned(), c"x".to_owned(), c"/b/x".to_owned()]);
        assert_eq!(files_to_try(c"./x", &env), [c"./x".to_owned()]);
        assert_eq!(files_to_try(c"x", &[]), [c"/bin/x".to_owned(), c"/usr/bin/x".to_owned()]);
    }
}
