//! Taking signals in: everything blocked from the first instruction on, read one by one.
//!
//! Raw system calls with the kernel's own 64-bit sets: the C libraries' sigfillset(3) leaves out 32 and 33
//! (musl 34 too), and what is left out is dropped for PID 1, since the kernel discards what has neither a
//! handler nor is blocked there (pid_namespaces(7)). An init handles nothing asynchronously: real-time
//! signals stay queued, in order, with their values.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::libc;

use super::check;
use crate::core::signal::Signal;

/// A set of signals as the kernel has it: bit n-1 for signal n.
pub type Mask = u64;

const MASK_BYTES: usize = size_of::<Mask>();
static ALL: Mask = !0;

/// What drainit was started with, to be handed to its workers unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    pub mask: Mask,
    pub child_ignored: bool,
}

/// One signal that reached drainit.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub signal: Signal,
    /// The SIGPIPE of a stderr that is closed, which drainit has brought upon itself.
    pub own: bool,
    /// What sigqueue(3) sent along.
    pub value: Option<u64>,
}

/// Block every signal, and make sure that dead children can be waited for.
pub fn take_over() -> Inherited {
    let mask = set_mask(ALL);
    // With SIGCHLD ignored the kernel reaps by itself and the exit codes are lost (wait(2), NOTES).
    // SAFETY: SIG_DFL installs no handler.
    let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    Inherited { mask, child_ignored: before == libc::SIG_IGN }
}

/// Undo [`take_over`] for a program that is no init.
pub fn give_back(inherited: Inherited) {
    if inherited.child_ignored {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    }
    set_mask(inherited.mask);
}

/// For a program that is told to stop before it has heard what it waits for: SIGTERM ends it with this code.
pub fn end_on_term(code: u8) {
    static CODE: AtomicU8 = AtomicU8::new(0);
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit(2) may be called in a handler.
        unsafe { libc::_exit(CODE.load(Ordering::Relaxed).into()) }
    }
    CODE.store(code, Ordering::Relaxed);
    let handler = end as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing but end the process.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
}

/// Set this thread's signal mask and return the one before.
pub(super) fn set_mask(mask: Mask) -> Mask {
    let mut before: Mask = 0;
    // SAFETY: both pointers are to live 8-byte sets, and 8 is the size that the kernel expects.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut before,
            MASK_BYTES,
        )
    };
    before
}

/// The signals that wait for this process.
pub(super) fn pending() -> Mask {
    let mut set: Mask = 0;
    // SAFETY: the set is live and has the size given.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, MASK_BYTES) };
    set
}

/// The signal as a set of one.
pub(super) const fn bit(signal: libc::c_int) -> Mask {
    1 << (signal - 1)
}

pub(super) const TERMINAL_STOPS: Mask = bit(libc::SIGTSTP) | bit(libc::SIGTTIN) | bit(libc::SIGTTOU);

/// Forget those of `set` that are pending. Nothing but system calls: the child of a spawn calls it.
pub(super) fn discard(set: Mask) {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let nowhere = ptr::null_mut::<libc::siginfo_t>();
    // SAFETY: the set and the timeout are live; nothing is to be written back.
    let take = || unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set, nowhere, &raw const at_once, MASK_BYTES)
    };
    while take() > 0 {}
}

/// A descriptor from which signals are read.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// As many as are read at once.
    pub const BATCH: usize = 16;

    /// signalfd(2) for every signal; fails where seccomp or a descriptor limit forbids it.
    pub fn new() -> io::Result<Self> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is live and has the size given.
        let fd = check(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const ALL, MASK_BYTES, flags) })?;
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has just given it to us and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// As many signals as are pending, at most [`Self::BATCH`]; no new ones mean that there are none.
    pub fn read(&self, into: &mut Vec<Received>) -> io::Result<()> {
        let mut buffer = [const { MaybeUninit::<libc::signalfd_siginfo>::zeroed() }; Self::BATCH];
        // SAFETY: the buffer is as long as is said, and any bytes make a valid signalfd_siginfo.
        let read =
            unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), size_of_val(&buffer)) };
        let read = match check(read as i64) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => return Ok(()),
            read => usize::try_from(read?).unwrap_or(0),
        };
        for info in buffer.iter().take(read / size_of::<libc::signalfd_siginfo>()) {
            // SAFETY: zeroed at first, and then written by the kernel as a whole.
            let info = unsafe { info.assume_init_ref() };
            into.extend(received(
                info.ssi_signo.cast_signed(),
                info.ssi_code,
                info.ssi_pid.cast_signed(),
                info.ssi_ptr,
            ));
        }
        Ok(())
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wait for one signal, at most so long; `None` waits for ever. Needs no descriptor at all.
pub fn wait(timeout: Option<Duration>) -> Option<Received> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set and the timeout are live, and the kernel writes at most one siginfo_t.
    let got = unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &raw const ALL, info.as_mut_ptr(), timeout, MASK_BYTES)
    };
    check(got).ok()?;
    // SAFETY: zeroed, then filled in by the kernel.
    let info = unsafe { info.assume_init() };
    // SAFETY: for signals without a sender the field holds other bytes of the union, which are never trusted.
    let pid = unsafe { info.si_pid() };
    // SAFETY: only used where the code says that the signal was queued with a value.
    let value = unsafe { info.si_value() };
    received(info.si_signo, info.si_code, pid, value.sival_ptr as u64)
}

fn received(number: i32, code: i32, pid: i32, value: u64) -> Option<Received> {
    let signal = Signal::new(number)?;
    // Not so any other signal: one may be pending from whoever executed drainit in his own place.
    let own = number == libc::SIGPIPE && pid == std::process::id().cast_signed();
    Some(Received { signal, own, value: (code == libc::SI_QUEUE).then_some(value) })
}
