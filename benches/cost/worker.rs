//! The other side of the measuring: what runs below the inits. This program, started with a role.
#![allow(unsafe_code, reason = "fork(2): orphans have to be made")]

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::net::TcpListener;
use std::os::fd::FromRawFd;

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pause, setpgid};

use crate::clock;

pub(crate) const ROLE: &str = "--worker";

/// The command that starts this program in a role.
pub(crate) fn command(role: &str) -> io::Result<Vec<OsString>> {
    Ok(vec![std::env::current_exe()?.into(), ROLE.into(), role.into()])
}

pub(crate) fn run(role: &str) -> io::Result<()> {
    match role {
        "stamp" => stamp(),
        "orphans" => orphans(),
        "accept" => accept(),
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

/// A server that waits on the socket it has inherited, as far as a worker of a pool must.
fn accept() -> io::Result<()> {
    // SAFETY: descriptor 3 is the first inherited socket, and nobody else here owns it.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    listener.incoming().try_for_each(|connection| connection.map(drop))
}
