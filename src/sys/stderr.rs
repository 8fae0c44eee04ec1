//! Writing to stderr without ever waiting for whoever reads it.
//!
//! It is usually a pipe to the container runtime, shared with the workers; a reader that is stuck would freeze
//! PID 1 in write(2), and O_NONBLOCK would hit the workers too, since it belongs to the open file. So: open the pipe
//! or terminal a second time for ourselves; where that cannot be (no /proc), ask first. Write at most PIPE_BUF, and drop
//! what does not fit.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::check;

/// POSIX' PIPE_BUF on Linux, pipe(7).
pub const LINE_MAX: usize = 4096;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that could not be written.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Write one line, newline included, if it can be done at once.
pub fn write_line(line: &[u8]) {
    if try_write(line).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// `drainit: text`, for errors before there is a log.
pub fn complain(text: &str) {
    let mut line = format!("drainit: {}\n", text.replace('\n', " ")).into_bytes();
    truncate(&mut line);
    write_line(&line);
}

/// Cut a line to what a pipe takes whole.
pub fn truncate(line: &mut Vec<u8>) {
    if line.len() > LINE_MAX {
        line.truncate(LINE_MAX - 1);
        line.push(b'\n');
    }
}

/// Whether stderr is a terminal.
pub fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

/// An open file of our own behind the same pipe or terminal: non-blocking, which the workers' stays as it was.
fn own() -> Option<BorrowedFd<'static>> {
    static OWN: OnceLock<Option<OwnedFd>> = OnceLock::new();
    OWN.get_or_init(|| {
        // SAFETY: 2 is open for the whole life of the process: a hole there has been plugged.
        let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
        let kind = nix::sys::stat::fstat(stderr).ok()?.st_mode & libc::S_IFMT;
        if kind != libc::S_IFIFO && kind != libc::S_IFCHR {
            return None;
        }
        let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: the path is a literal.
        let fd = check(unsafe { libc::open(c"/proc/self/fd/2".as_ptr(), flags) }).ok()?;
        let fd = RawFd::try_from(fd).ok()?;
        // SAFETY: the kernel has just given it to us and nobody else knows it.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    })
    .as_ref()
    .map(AsFd::as_fd)
}

fn try_write(line: &[u8]) -> io::Result<()> {
    if let Some(own) = own() {
        let written = nix::unistd::write(own, line)?;
        return if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) };
    }
    // SAFETY: 2 is open for the whole life of the process: a hole there has been plugged.
    let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    let mut ready = [PollFd::new(stderr, PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::ZERO)? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // SAFETY: the buffer is live and as long as is said. A SIGPIPE stays blocked and is known as our own.
    let written =
        check(unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) } as i64)?;
    if written == line.len() as i64 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
