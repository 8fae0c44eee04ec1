//! The other side of the measuring: what runs below the inits. This program, started with a role.
#![allow(unsafe_code, reason = "fork(2): orphans have to be made; seccomp(2)")]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pause, setpgid};

use crate::{clock, serve};

pub(crate) const ROLE: &str = "--worker";

/// The command that starts this program in a role.
pub(crate) fn command(role: &str) -> io::Result<Vec<OsString>> {
    Ok(vec![std::env::current_exe()?.into(), ROLE.into(), role.into()])
}

pub(crate) const FILTERED: &str = "--filtered";

/// The same command below a filter that lets everything pass, as a container runtime's does with nearly everything.
pub(crate) fn filtered(command: Vec<OsString>) -> io::Result<Vec<OsString>> {
    Ok([std::env::current_exe()?.into(), FILTERED.into()].into_iter().chain(command).collect())
}

pub(crate) fn run_filtered(mut command: impl Iterator<Item = String>) -> io::Result<()> {
    let mut allow =
        libc::sock_filter { code: libc::BPF_RET as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    prctl::set_no_new_privs()?;
    let filter = &raw const program;
    // SAFETY: the program is live and as long as it says.
    if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, filter) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let program = command.next().unwrap_or_default();
    Err(std::process::Command::new(program).args(command).exec())
}

/// What the name of the role is followed by, where it takes anything.
pub(crate) fn arguments() -> impl Iterator<Item = String> {
    std::env::args().skip(3)
}

pub(crate) fn run(role: &str) -> io::Result<()> {
    match role {
        "stamp" => stamp(),
        "orphans" => orphans(),
        "accept" => accept(),
        "calls" => calls(),
        "late" => late(),
        "keep" => serve::keep(arguments()),
        "boot" => serve::boot(),
        _ => Err(io::Error::other(format!("no role {role}"))),
    }
}

/// Answers each SIGUSR1 with the time of its receipt; at first once without.
fn stamp() -> io::Result<()> {
    let mut usr1 = SigSet::empty();
    usr1.add(Signal::SIGUSR1);
    usr1.thread_block()?;
    let mut stdout = io::stdout().lock();
    loop {
        stdout.write_all(&clock::now().to_ne_bytes())?;
        stdout.flush()?;
        usr1.wait()?;
    }
}

/// Makes orphans as it is told: `storm N` or `burst N` a line, each answered by a dot when the last one is made.
fn orphans() -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(b".")?;
    stdout.flush()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (kind, count) = line.split_once(' ').unwrap_or_default();
        let count = count.parse().map_err(io::Error::other)?;
        match kind {
            "storm" => storm(count)?,
            _ => burst(count)?,
        }
        stdout.write_all(b".")?;
        stdout.flush()?;
    }
    Ok(())
}

/// One after the other, as fast as they can be made.
fn storm(count: usize) -> io::Result<()> {
    for _ in 0..count {
        in_child(|| in_grandchild(|| ()))?;
    }
    Ok(())
}

/// All at once.
fn burst(count: usize) -> io::Result<()> {
    let parent = in_child(|| {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        (0..count).try_for_each(|_| in_grandchild(pause))
    })?;
    Ok(killpg(parent, Signal::SIGKILL)?)
}

/// Do it in a child, wait for the child.
fn in_child(job: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => std::process::exit(i32::from(job().is_err())),
        ForkResult::Parent { child } => match waitpid(child, None)? {
            nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(child),
            other => Err(io::Error::other(format!("no orphans: {other:?}"))),
        },
    }
}

/// Do it in a child that nobody here waits for.
fn in_grandchild(job: impl FnOnce()) -> io::Result<()> {
    // SAFETY: as above.
    if let ForkResult::Child = unsafe { fork() }? {
        job();
        std::process::exit(0);
    }
    Ok(())
}

/// Calls of each measured kind in one go: some milliseconds' worth.
const CALLS: u32 = 20_000;

/// For each line, so many calls of each kind, and how many nanoseconds each took.
fn calls() -> io::Result<()> {
    let mut byte = [0];
    let mut zero = File::open("/dev/zero")?;
    let mut null = File::options().write(true).open("/dev/null")?;
    // SAFETY: descriptor 3 is the first inherited socket, and nobody else here owns it.
    let socket = unsafe { TcpListener::from_raw_fd(3) };
    let mut stdout = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        line?;
        let figures = [
            nanos_each(|| {
                nix::unistd::getppid();
                Ok(())
            })?,
            nanos_each(|| {
                zero.read_exact(&mut byte)?;
                null.write_all(&byte)
            })?,
            nanos_each(|| Ok(setsockopt(&socket, ReuseAddr, &true)?))?,
        ];
        stdout.write_all(figures.map(f64::to_ne_bytes).as_flattened())?;
        stdout.flush()?;
    }
    Ok(())
}

fn nanos_each(mut call: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let start = clock::now();
    (0..CALLS).try_for_each(|_| call())?;
    Ok(clock::since(start) * 1000.0 / f64::from(CALLS))
}

/// A server that waits on the socket it has inherited, as far as a worker of a pool must.
fn accept() -> io::Result<()> {
    // SAFETY: descriptor 3 is the first inherited socket, and nobody else here owns it.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    listener.incoming().try_for_each(|connection| connection.map(drop))
}

/// How long that server takes to start.
pub(crate) const LATE: Duration = Duration::from_millis(20);

/// A server that takes its time to start, binds `ADDRESS` for itself as any program does, tells when it accepts, and
/// takes a millisecond for each request.
fn late() -> io::Result<()> {
    std::thread::sleep(LATE);
    let listener = TcpListener::bind(arguments().next().unwrap_or_default())?;
    io::stdout().write_all(&clock::now().to_ne_bytes())?;
    io::stdout().flush()?;
    let pid = std::process::id();
    loop {
        let Ok((mut connection, _)) = listener.accept() else { continue };
        let mut request = [0; 1024];
        if connection.read(&mut request).is_ok_and(|length| length > 0) {
            std::thread::sleep(Duration::from_millis(1));
            let body = pid.to_string();
            let length = body.len();
            let _ = write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    }
}
