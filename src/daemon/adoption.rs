//! Bind adoption: a worker that binds an address of ours is given our socket in place of its own.
//!
//! The worker notices nothing: bind(2) and listen(2) succeed, the descriptor is its own. Whatever is not ours goes on
//! untouched, and so does whatever cannot be seen.

use std::collections::BTreeMap;

use crate::sys::accepting::is_waited_for;
use crate::sys::eyes::look_at;
use crate::sys::foreign_socket as foreign;
use crate::sys::listen::Listener;
use crate::sys::seccomp::{Call, Notification, Notifier, Verdict};

/// V6ONLY settings of sockets that have not been bound; more than a process has reason to keep.
const REMEMBERED: usize = 1024;

/// What is known of the workers' sockets before they are bound.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    /// By the socket's number.
    v6_only: BTreeMap<u64, bool>,
}

/// What a call has told of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// It has a socket of ours.
    Adopted,
    /// It listens on one.
    Listening,
    /// It has done with one.
    Done,
    /// It does something about the stop signal from now on; once only, where the handler goes with its first use.
    Handles {
        once: bool,
    },
}

impl Adoption {
    /// Answer one call. `all_finish`: nobody goes on with what is shut.
    pub(super) fn answer(
        &mut self,
        notifier: &Notifier,
        call: &Notification,
        part: usize,
        listeners: &mut [Listener],
        all_finish: bool,
    ) -> Told {
        let (verdict, told) = match call.call {
            Call::Bind { fd, address, length } => {
                self.bind(notifier, call, fd, (address, length), part, listeners)
            }
            Call::Listen { fd } => listen(call, fd, listeners),
            Call::Shutdown { fd } => keep_open(notifier, call, fd, listeners, all_finish),
            Call::V6Only { fd, value } => {
                self.remember_v6_only(call, fd, value);
                (Verdict::Continue, Told::Nothing)
            }
            Call::Handle { flags } => (Verdict::Continue, handles(notifier, call, flags)),
            Call::Other => (Verdict::Continue, Told::Nothing),
        };
        notifier.answer(call, verdict);
        told
    }

    fn bind(
        &mut self,
        notifier: &Notifier,
        call: &Notification,
        fd: i32,
        (address, length): (u64, u64),
        part: usize,
        listeners: &mut [Listener],
    ) -> (Verdict, Told) {
        let untouched = (Verdict::Continue, Told::Nothing);
        let process = call.thread;
        let seen = look_at(process, || {
            let protocol = foreign::protocol(process, fd)?;
            let wanted = foreign::wanted(process, address, length)?;
            Some((protocol, wanted, foreign::inode_and_flags(process, fd)?))
        });
        let Some((protocol, wanted, (inode, flags))) = seen else { return untouched };
        // It is bound already, and binding it once more is the kernel's business.
        if listeners.iter().any(|listener| listener.owns(inode)) {
            return untouched;
        }
        // All of that was the caller's only if the caller is still there.
        if !notifier.is_valid(call) {
            return untouched;
        }
        let v6_only = self.v6_only.remove(&inode).unwrap_or(false);
        let socket =
            listeners.iter_mut().find_map(|listener| listener.socket_for(part, protocol, &wanted, v6_only));
        let socket = match socket {
            None => return untouched,
            Some(Err(error)) => {
                tracing::warn!(pid = %process, %error, "an address of ours cannot be bound as a worker wants it");
                return (Verdict::Fail(error.raw_os_error().unwrap_or(nix::libc::EADDRINUSE)), Told::Nothing);
            }
            Some(Ok(socket)) => socket,
        };
        // Never taken back: many servers bind first and set it then, and one that accepts already would block.
        if flags.non_blocking
            && let Err(error) = foreign::set_non_blocking(&socket)
        {
            tracing::warn!(%error, "O_NONBLOCK not carried over");
        }
        match notifier.replace(call, socket, fd, flags.close_on_exec) {
            Ok(()) => (Verdict::Succeed, Told::Adopted),
            Err(error) => {
                tracing::warn!(pid = %process, %error, "socket not adopted");
                untouched
            }
        }
    }

    fn remember_v6_only(&mut self, call: &Notification, fd: i32, value: u64) {
        let seen = look_at(call.thread, || {
            foreign::inode(call.thread, fd).zip(foreign::read_int(call.thread, value))
        });
        if let Some((inode, value)) = seen {
            if self.v6_only.len() >= REMEMBERED {
                self.v6_only.clear();
            }
            self.v6_only.insert(inode, value != 0);
        }
    }
}

fn handles(notifier: &Notifier, call: &Notification, flags: u64) -> Told {
    let seen = look_at(call.thread, || foreign::read_int(call.thread, flags));
    match seen.filter(|_| notifier.is_valid(call)) {
        Some(flags) => Told::Handles { once: flags & nix::libc::SA_RESETHAND != 0 },
        None => Told::Nothing,
    }
}

fn listen(call: &Notification, fd: i32, listeners: &mut [Listener]) -> (Verdict, Told) {
    let Some(inode) = look_at(call.thread, || foreign::inode(call.thread, fd)) else {
        return (Verdict::Continue, Told::Nothing);
    };
    for listener in listeners {
        match listener.listen_on(inode) {
            Ok(false) => {}
            Ok(true) => return (Verdict::Succeed, Told::Listening),
            Err(error) => {
                return (Verdict::Fail(error.raw_os_error().unwrap_or(nix::libc::EADDRINUSE)), Told::Nothing);
            }
        }
    }
    (Verdict::Continue, Told::Nothing)
}

/// shutdown(2) is for all who have the socket: nobody could connect any more, whoever waits in the queue would be reset, and
/// some servers (gRPC) never accept again once accept(2) has failed. Who calls it closes its own descriptor next, or has a
/// thread in accept(2) that it wakes that way: when all finish, nothing else would.
fn keep_open(
    notifier: &Notifier,
    call: &Notification,
    fd: i32,
    listeners: &[Listener],
    all_finish: bool,
) -> (Verdict, Told) {
    let process = call.thread;
    let inode = look_at(process, || foreign::inode(process, fd));
    let is_ours = inode.is_some_and(|inode| listeners.iter().any(|listener| listener.owns(inode)));
    if is_ours && !(all_finish && is_waited_for(process, fd)) && notifier.is_valid(call) {
        (Verdict::Succeed, Told::Done)
    } else {
        (Verdict::Continue, Told::Nothing)
    }
}
