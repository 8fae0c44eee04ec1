//! The filter that has the kernel ask us about bind(2), listen(2) and shutdown(2) of a worker: seccomp_unotify(2).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::check;
use crate::core::signal::Signal;
use crate::core::types::Pid;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// x32 has the architecture of x86-64 and numbers of its own, under which the same calls would pass by.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Where struct seccomp_data has what the filter looks at.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const SIGNAL: u32 = 16;
const HOW: u32 = 16 + 8;
const LEVEL: u32 = 16 + 8;
const OPTION: u32 = 16 + 16;

/// sa_flags of the kernel's struct sigaction, behind the handler.
const SA_FLAGS: u64 = 8;

/// Every other system call takes the kernel's bitmap of what the filter always allows: arguments are looked at for
/// setsockopt and shutdown(2), of which most servers use the half that is of no interest, and where the handler of a signal
/// is, for sigaction(2).
pub(super) fn filter(handled: Option<Signal>) -> Vec<libc::sock_filter> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let ret = |value| statement(libc::BPF_RET | libc::BPF_K, value);
    let mut program =
        vec![load(ARCHITECTURE), jump_if_equal(ARCH, 1, 0), ret(libc::SECCOMP_RET_ALLOW), load(NUMBER)];
    #[cfg(target_arch = "x86_64")]
    program.extend([
        jump(libc::BPF_JGE, X32, 0, 1),
        ret(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
    ]);
    if let Some(signal) = handled {
        program.extend([
            jump_if_equal(libc::SYS_rt_sigaction as u32, 0, 4),
            load(SIGNAL),
            jump_if_equal(signal.number().cast_unsigned(), 0, 1),
            ret(libc::SECCOMP_RET_USER_NOTIF),
            ret(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    program.extend([
        jump_if_equal(libc::SYS_shutdown as u32, 0, 4),
        load(HOW),
        jump_if_equal(libc::SHUT_WR.cast_unsigned(), 1, 0),
        ret(libc::SECCOMP_RET_USER_NOTIF),
        ret(libc::SECCOMP_RET_ALLOW),
        jump_if_equal(libc::SYS_bind as u32, 6, 0),
        jump_if_equal(libc::SYS_listen as u32, 5, 0),
        jump_if_equal(libc::SYS_setsockopt as u32, 0, 5),
        load(LEVEL),
        jump_if_equal(libc::IPPROTO_IPV6.cast_unsigned(), 0, 3),
        load(OPTION),
        jump_if_equal(libc::IPV6_V6ONLY.cast_unsigned(), 0, 1),
        ret(libc::SECCOMP_RET_USER_NOTIF),
        ret(libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

const fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | condition | libc::BPF_K) as u16, jt, jf, k }
}

const fn jump_if_equal(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    jump(libc::BPF_JEQ, k, jt, jf)
}

/// In the child, before exec: install the filter and return the descriptor that answers for it, or the errno. Only
/// system calls. No privilege can be gained through a filtered process, so the kernel wants `no_new_privs` of
/// whoever has no CAP_SYS_ADMIN; it is asked for only then.
pub(super) fn install(program: &libc::sock_fprog) -> Result<RawFd, i32> {
    // It confines nobody, so it must not bring on what slows down the confined (before 5.16 the kernel did that to all
    // that are filtered).
    const NO_SANDBOX: libc::c_ulong =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let attempt_with = |flags: libc::c_ulong| {
        // SAFETY: the program is live and as long as it says.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                std::ptr::from_ref(program),
            )
        }
    };
    // Since 5.19 a call that has been received can be interrupted by a fatal signal alone; before, one that comes
    // often (Go's preemption) could have it start over without end.
    let attempt = || match attempt_with(NO_SANDBOX | WAIT_KILLABLE_RECV) {
        -1 if nix::errno::Errno::last_raw() == libc::EINVAL => attempt_with(NO_SANDBOX),
        listener => listener,
    };
    let mut listener = attempt();
    if listener == -1 && nix::errno::Errno::last_raw() == libc::EACCES {
        // SAFETY: takes numbers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        listener = attempt();
    }
    if listener == -1 { Err(nix::errno::Errno::last_raw()) } else { Ok(listener as RawFd) }
}

/// The supervisor's side of one worker's filter, and of everything that the worker forks.
#[derive(Debug)]
pub struct Notifier(OwnedFd);

/// A thread that waits in one of these calls.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    id: u64,
    /// The thread; /proc has it by this number.
    pub thread: Pid,
    pub call: Call,
}

#[derive(Clone, Copy, Debug)]
pub enum Call {
    Bind {
        fd: i32,
        address: u64,
        length: u64,
    },
    Listen {
        fd: i32,
    },
    /// shutdown(2) of more than what is sent.
    Shutdown {
        fd: i32,
    },
    /// setsockopt of IPV6_V6ONLY.
    V6Only {
        fd: i32,
        value: u64,
    },
    /// sigaction(2) of the signal that is of interest: the address of its new flags.
    Handle {
        flags: u64,
    },
    Other,
}

/// What becomes of the call.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// The kernel carries it out, as if nobody had asked.
    Continue,
    /// It succeeds without having been carried out.
    Succeed,
    Fail(i32),
}

impl Notifier {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The next call that waits, if one does `within` so long, which blocks everybody here.
    ///
    /// # Errors
    /// NotFound where its thread was killed meanwhile: the next one may wait already. Others are the end of all calls.
    pub fn receive(&self, within: Duration) -> io::Result<Option<Notification>> {
        // SAFETY: borrowed for the duration of the call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) };
        let mut ready = [PollFd::new(fd, PollFlags::POLLIN)];
        ppoll(&mut ready, Some(TimeSpec::from(within)), None)?;
        let events = ready[0].revents().unwrap_or(PollFlags::empty());
        if !events.contains(PollFlags::POLLIN) {
            // Nobody is left whose calls could wait.
            let hung_up = events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL);
            return if hung_up { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(None) };
        }
        let mut notification = MaybeUninit::<libc::seccomp_notif>::zeroed();
        // SAFETY: the kernel writes one seccomp_notif, and wants it zeroed.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, notification.as_mut_ptr())
        })?;
        // SAFETY: zeroed, and filled in by the kernel.
        let notification = unsafe { notification.assume_init() };
        let [first, second, third, fourth, ..] = notification.data.args;
        // Descriptors are ints: the upper half is whatever the register held.
        let fd = first as i32;
        let call = match i64::from(notification.data.nr) {
            libc::SYS_bind => Call::Bind { fd, address: second, length: third & u64::from(u32::MAX) },
            libc::SYS_listen => Call::Listen { fd },
            libc::SYS_shutdown => Call::Shutdown { fd },
            libc::SYS_setsockopt => Call::V6Only { fd, value: fourth },
            // Without a new action it only asks.
            libc::SYS_rt_sigaction if second != 0 => Call::Handle { flags: second + SA_FLAGS },
            _ => Call::Other,
        };
        Ok(Some(Notification { id: notification.id, thread: Pid(notification.pid.cast_signed()), call }))
    }

    /// Whether that thread still waits: what was read under its number before was its own then.
    pub fn is_valid(&self, notification: &Notification) -> bool {
        let id = notification.id;
        // SAFETY: the kernel reads one id.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const id)
        })
        .is_ok()
    }

    /// Put a copy of `source` over the waiting process' descriptor `target`.
    pub fn replace(
        &self,
        notification: &Notification,
        source: RawFd,
        target: i32,
        close_on_exec: bool,
    ) -> io::Result<()> {
        let addfd = libc::seccomp_notif_addfd {
            id: notification.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd: source.cast_unsigned(),
            newfd: target.cast_unsigned(),
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
        };
        // SAFETY: the kernel reads one seccomp_notif_addfd.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw const addfd)
        })
        .map(drop)
    }

    /// Let the thread go on. Whoever has been killed meanwhile does not mind.
    pub fn answer(&self, notification: &Notification, verdict: Verdict) {
        let (error, flags) = match verdict {
            Verdict::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Verdict::Succeed => (0, 0),
            Verdict::Fail(errno) => (-errno, 0),
        };
        let mut response = libc::seccomp_notif_resp { id: notification.id, val: 0, error, flags };
        // SAFETY: the kernel reads one seccomp_notif_resp.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut response) };
    }
}

impl AsRawFd for Notifier {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A pair of sockets by which the child hands the notifier over: pidfd_getfd(2) is refused by the usual profiles.
pub(super) struct Handover {
    pub(super) ours: OwnedFd,
    pub(super) childs: OwnedFd,
}

impl Handover {
    pub(super) fn new() -> io::Result<Self> {
        let mut pair = [0; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: room for two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) })?;
        // SAFETY: just made, and nobody else's.
        let [ours, childs] = pair.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { ours, childs })
    }

    /// What the child has sent, after it has left our memory.
    pub(super) fn receive(&self) -> Option<Notifier> {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
        let mut byte = [0; 1];
        let mut control = nix::cmsg_space!(RawFd);
        let mut parts = [io::IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<()>(self.ours.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let fd = message.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })?;
        // SAFETY: the kernel has just given it to us.
        Some(Notifier::new(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// In the child: hand `listener` over. Only system calls; everything it needs is on the stack.
pub(super) fn hand_over(socket: RawFd, listener: RawFd) -> bool {
    #[repr(C, align(8))]
    struct Control {
        header: libc::cmsghdr,
        fd: RawFd,
        pad: u32,
    }
    // SAFETY: all zeroes is a valid cmsghdr.
    let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<RawFd>()) as _;
    let mut control = Control { header, fd: listener, pad: 0 };
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: everything that the message points to is live.
    unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run the filter by hand, as the kernel would.
    fn run(arch: u32, number: u32, level: u32, option: u32) -> u32 {
        run_with(arch, number, 0, level, option)
    }

    fn run_with(arch: u32, number: u32, signal: u32, level: u32, option: u32) -> u32 {
        let program = filter(Some(Signal::TERM));
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) & 0x07 {
                libc::BPF_LD => {
                    loaded = match k {
                        ARCHITECTURE => arch,
                        NUMBER => number,
                        LEVEL => level,
                        OPTION => option,
                        SIGNAL => signal,
                        _ => unreachable!(),
                    };
                }
                libc::BPF_RET => return k,
                _ => {
                    let holds =
                        if u32::from(code) & 0xf0 == libc::BPF_JGE { loaded >= k } else { loaded == k };
                    at += usize::from(if holds { jt } else { jf });
                }
            }
        }
    }

    use libc::sock_filter;

    #[test]
    fn few_calls_ask_and_the_others_pass() {
        let ask = libc::SECCOMP_RET_USER_NOTIF;
        let pass = libc::SECCOMP_RET_ALLOW;
        assert_eq!(run(ARCH, libc::SYS_bind as u32, 0, 0), ask);
        assert_eq!(run(ARCH, libc::SYS_listen as u32, 0, 0), ask);
        assert_eq!(run(ARCH, libc::SYS_setsockopt as u32, 41, 26), ask);
        assert_eq!(run(ARCH, libc::SYS_setsockopt as u32, 41, 25), pass);
        assert_eq!(run(ARCH, libc::SYS_setsockopt as u32, 1, 26), pass);
        let shutdown = |how: libc::c_int| run(ARCH, libc::SYS_shutdown as u32, how.cast_unsigned(), 0);
        let both = [libc::SHUT_RD, libc::SHUT_RDWR].map(shutdown);
        assert_eq!((both, shutdown(libc::SHUT_WR)), ([ask; 2], pass));
        let asked = [libc::SYS_bind, libc::SYS_listen, libc::SYS_shutdown];
        for number in (0..500).filter(|n| !asked.contains(&i64::from(*n))) {
            assert_eq!(run(ARCH, number, 0, 0), pass, "{number}");
        }
        assert_eq!(run(0x4000_0003, libc::SYS_bind as u32, 0, 0), pass, "another architecture");
        let sigaction = |signal| run_with(ARCH, libc::SYS_rt_sigaction as u32, signal, 0, 0);
        assert_eq!((sigaction(15), sigaction(2)), (ask, pass));
    }

    #[test]
    fn without_interest_in_a_signal_its_handlers_pass() {
        assert_eq!(filter(Some(Signal::TERM)).len(), filter(None).len() + 5);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn x32_is_refused() {
        assert_eq!(run(ARCH, X32 | 49, 0, 0), libc::SECCOMP_RET_ERRNO | 38);
    }
}
