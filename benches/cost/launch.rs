//! Starting what is measured, as PID 1 of a namespace of its own or as an ordinary process.
#![allow(unsafe_code, reason = "clone(2): the standard library starts nothing in a new namespace")]

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::clock;

/// How a PID namespace is to be had here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Privileged,
    /// Inside a user namespace.
    OfUser,
}

impl Namespace {
    /// `None` where there is no way.
    pub(crate) fn permitted() -> io::Result<Option<Self>> {
        let command = Command::new(vec!["/bin/true".into()])?;
        for namespace in [Self::Privileged, Self::OfUser] {
            if let Ok(mut process) = command.start(Some(namespace)) {
                process.wait()?;
                return Ok(Some(namespace));
            }
        }
        Ok(None)
    }

    fn flags(self) -> c_int {
        match self {
            Self::Privileged => libc::CLONE_NEWPID,
            Self::OfUser => libc::CLONE_NEWPID | libc::CLONE_NEWUSER,
        }
    }
}

/// A command line, ready to be executed many times.
pub(crate) struct Command {
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    pub(crate) fn new(argv: Vec<OsString>) -> io::Result<Self> {
        // Plain defaults: nothing is configured from outside.
        let env = std::env::vars_os().filter(|(name, _)| !name.as_bytes().starts_with(b"DRAINIT_"));
        let env = env.map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
        Ok(Self {
            argv: argv.into_iter().map(|arg| CString::new(arg.into_vec())).collect::<Result<_, _>>()?,
            env: env.map(CString::new).collect::<Result<_, _>>()?,
        })
    }

    /// Start it with nothing to read and nowhere to write.
    pub(crate) fn start(&self, namespace: Option<Namespace>) -> io::Result<Process> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        self.start_with(namespace, [null.as_raw_fd(); 3])
    }

    /// Start it with pipes to talk to it.
    pub(crate) fn start_piped(&self, namespace: Option<Namespace>) -> io::Result<Talk> {
        let null = File::options().write(true).open("/dev/null")?;
        let (stdin, to) = io::pipe()?;
        let (from, stdout) = io::pipe()?;
        let stdio = [stdin.as_raw_fd(), stdout.as_raw_fd(), null.as_raw_fd()];
        Ok(Talk { process: self.start_with(namespace, stdio)?, to, from })
    }

    /// Suspends us until the command is executed; the child borrows our memory until then.
    fn start_with(&self, namespace: Option<Namespace>, stdio: [RawFd; 3]) -> io::Result<Process> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
        };
        let (argv, env) = (pointers(&self.argv), pointers(&self.env));
        let mut image = Image { argv: argv.as_ptr(), env: env.as_ptr(), stdio, errno: 0 };
        let mut stack = [0_u128; 1024];
        let top = stack.as_mut_ptr_range().end;
        let flags =
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | namespace.map_or(0, Namespace::flags);
        let image: *mut Image = &raw mut image;
        // SAFETY: stack and image live until the child has left our memory, which is when clone returns.
        let pid = unsafe { libc::clone(child, top.cast(), flags, image.cast()) };
        if pid == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the child does not run in our memory any more.
        let errno = unsafe { (*image).errno };
        let mut process = Process { pid, ended: false };
        if errno != 0 {
            process.wait()?;
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(process)
    }
}

struct Image {
    argv: *const *const c_char,
    env: *const *const c_char,
    stdio: [RawFd; 3],
    errno: c_int,
}

/// Only system calls: the memory is the parent's.
extern "C" fn child(image: *mut c_void) -> c_int {
    // SAFETY: the parent passed a live image and is suspended.
    let image = unsafe { &mut *image.cast::<Image>() };
    for (fd, place) in image.stdio.into_iter().zip(0..) {
        // SAFETY: dup2(2) touches no memory.
        unsafe { libc::dup2(fd, place) };
    }
    let file = {
        // SAFETY: there is a first argument, or the null pointer that ends the list.
        unsafe { *image.argv }
    };
    // SAFETY: both lists are live and end with a null pointer.
    unsafe { libc::execve(file, image.argv, image.env) };
    image.errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    127
}

/// A child that is not left behind.
pub(crate) struct Process {
    pub(crate) pid: i32,
    ended: bool,
}

/// A child that can be talked to.
pub(crate) struct Talk {
    pub(crate) process: Process,
    pub(crate) to: PipeWriter,
    pub(crate) from: PipeReader,
}

impl Process {
    /// Wait for its end; its exit code.
    pub(crate) fn wait(&mut self) -> io::Result<i32> {
        let status = waitpid(Pid::from_raw(self.pid), None)?;
        self.ended = true;
        match status {
            WaitStatus::Exited(_, code) => Ok(code),
            other => Err(io::Error::other(format!("ended by {other:?}"))),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    fn ends_within(&mut self, patience: Duration) -> bool {
        let step = Duration::from_millis(2);
        let mut left = patience;
        loop {
            let status = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
            self.ended = !matches!(status, Ok(WaitStatus::StillAlive));
            if self.ended || left.is_zero() {
                return self.ended;
            }
            clock::sleep(step);
            left = left.saturating_sub(step);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended || (self.signal(Signal::SIGTERM).is_ok() && self.ends_within(Duration::from_secs(2))) {
            return;
        }
        let _ = self.signal(Signal::SIGKILL);
        self.ends_within(Duration::from_secs(2));
    }
}
