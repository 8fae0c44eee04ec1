//! How drainit knows that a worker accepts, with no word from it: by looking at what it waits for.
//!
//! A server that waits for connections has the socket in an epoll set (`tfd:` lines with `ino:` in
//! `/proc/PID/fdinfo`, proc_pid_fdinfo(5)) or sits in accept, poll or select on it
//! (`/proc/PID/task/TID/syscall`). Sampled only while something is starting.

use std::io;
use std::ops::ControlFlow;

use nix::libc;

use super::eyes::look_at;
use super::threads::Threads;
use super::{polled, procfs, sock_diag};
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

/// What was seen of a worker that waited for something, alone and on one thread; on any number of them, where it has many
/// descriptors. Until it runs again, nothing else can be seen of it: a server that is starting mostly waits, for a disk or
/// for others, and one that finishes for its clients.
#[derive(Debug)]
pub struct Waiting {
    /// Its /proc/PID/schedstat: the time that it has had on processors, and how often it has got onto one. That of all its
    /// threads, where they count.
    ran: Vec<u8>,
    many: bool,
    sockets: Vec<u64>,
    holds: bool,
}

/// Whether `worker` or a process below it waits for connections on one of these sockets. `last` is kept from one look to
/// the next.
pub fn on_sockets(worker: Pid, inodes: Vec<u64>, last: &mut Option<Waiting>) -> Sight {
    if let Some(last) = last.as_ref().filter(|last| last.sockets == inodes)
        && time_on_processors(worker, last.many).is_some_and(|ran| ran == last.ran)
    {
        return if last.holds { Sight::Holding } else { Sight::NotYet };
    }
    // Read first: whatever it does from here on shows the next time.
    let many = polled::has_many(worker).unwrap_or(false);
    let ran = time_on_processors(worker, many);
    let mut waits = false;
    let is_wanted = |inode| inodes.contains(&inode);
    let (sight, processes) = look(worker, &is_wanted, |pid, threads, descriptors, held| {
        let epolls = descriptors.iter().filter(|(_, link)| link == polled::EPOLL);
        let epolls: Vec<i32> = epolls.map(|(fd, _)| *fd).collect();
        if held.unwrap_or_else(|| epolls.iter().any(|fd| epoll_holds(pid, *fd, &inodes))) {
            return Sight::Accepting;
        }
        let sockets =
            descriptors.iter().filter(|(_, link)| procfs::socket_inode(link).is_some_and(is_wanted));
        let sockets: Vec<i32> = sockets.map(|(fd, _)| *fd).collect();
        if sockets.is_empty() {
            return Sight::NotYet;
        }
        let mut waiting = 0;
        let accepts = calls_of(threads).any(|call| {
            waiting += 1;
            call.waits_for(pid, &sockets)
        });
        waits = waiting == threads.count() && (many || waiting == 1);
        match (accepts, epolls.is_empty()) {
            (true, _) => Sight::Accepting,
            (false, false) => Sight::NotYet,
            (false, true) => Sight::Holding,
        }
    });
    *last = match (&sight, ran) {
        (Sight::NotYet | Sight::Holding, Some(ran)) if waits && processes == 1 => {
            Some(Waiting { ran, many, sockets: inodes, holds: matches!(sight, Sight::Holding) })
        }
        _ => None,
    };
    sight
}

/// Of its main thread, or of `all`. `None` where the kernel keeps no account: it is all zeros then.
fn time_on_processors(pid: Pid, all: bool) -> Option<Vec<u8>> {
    let main = procfs::read(format!("/proc/{pid}/schedstat")).ok().filter(|text| !text.starts_with(b"0 "))?;
    Some(if all { Threads::of(pid).read("schedstat").flatten().collect() } else { main })
}

/// Whether `worker` or a process below it has any listening stream socket of its own.
pub fn on_own_socket(worker: Pid) -> Sight {
    let listening = sock_diag::listening_inodes();
    let is_wanted = |inode| listening.contains(&inode);
    let (sight, _) = look(worker, &is_wanted, |_, _, descriptors, held| {
        let mut sockets = descriptors.iter().filter_map(|(_, link)| procfs::socket_inode(link));
        if held == Some(true) || sockets.any(is_wanted) { Sight::Accepting } else { Sight::NotYet }
    });
    sight
}

/// Whether a thread of this process sits in accept, poll or select on the descriptor.
pub fn is_waited_for(pid: Pid, fd: i32) -> bool {
    look_at(pid, || calls_of(&Threads::of(pid)).any(|call| call.waits_for(pid, &[fd])))
}

/// At one process after the other: at its descriptors, and whether it polls a socket that is wanted, where that is known.
/// Says how many there were.
fn look(
    worker: Pid,
    is_wanted: &dyn Fn(u64) -> bool,
    mut see: impl FnMut(Pid, &Threads, &[(i32, String)], Option<bool>) -> Sight,
) -> (Sight, usize) {
    if !procfs::is_ours() {
        let error = io::Error::new(io::ErrorKind::NotFound, "no /proc of this PID namespace");
        return (Sight::Blind(error), 0);
    }
    let mut seen = Sight::NotYet;
    let mut processes = 0;
    procfs::walk(worker, |pid, threads| {
        processes += 1;
        let looked = look_at(pid, || {
            descriptors(pid, is_wanted).map(|(descriptors, held)| see(pid, threads, &descriptors, held))
        });
        match looked {
            Ok(Sight::Accepting) => {
                seen = Sight::Accepting;
                return ControlFlow::Break(());
            }
            Ok(Sight::Holding) if matches!(seen, Sight::NotYet) => seen = Sight::Holding,
            Ok(_) => {}
            // Anything else passes: descriptors run short, or the process is about to go.
            Err(error) if pid == worker && error.kind() == io::ErrorKind::PermissionDenied => {
                seen = Sight::Blind(error)
            }
            Err(_) => {}
        }
        ControlFlow::Continue(())
    });
    (seen, processes)
}

/// Some descriptors and where they lead, and whether a socket that is wanted is in a set; `None`: nobody has looked.
type Told = (Vec<(i32, String)>, Option<bool>);

/// Of who has many, and all of them but the lowest in its sets, the lowest tell everything, and the sets the rest.
fn descriptors(pid: Pid, is_wanted: &dyn Fn(u64) -> bool) -> io::Result<Told> {
    let mut held = false;
    match polled::each_of_many(pid, &mut |inode| held |= is_wanted(inode))? {
        Some((lowest, all)) if held || all => Ok((lowest, Some(held))),
        _ => Ok((procfs::descriptors(pid)?, None)),
    }
}

fn epoll_holds(pid: Pid, fd: i32, inodes: &[u64]) -> bool {
    let mut holds = false;
    polled::each_in(pid, fd, &mut |_, inode| holds |= inodes.contains(&inode));
    holds
}

/// Those that its threads are blocked in.
fn calls_of(threads: &Threads) -> impl Iterator<Item = Call> {
    threads.read("syscall").filter_map(|call| Call::parse(std::str::from_utf8(&call).ok()?))
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use nix::sys::stat::fstat;

    use super::*;

    /// It reads, on one thread of several, and has many descriptors.
    const CROWDED: &str = "import os, sys, threading, time
files = [os.open('/dev/null', 0) for _ in range(600)]
for _ in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
for line in sys.stdin: pass";

    #[test]
    fn who_waits_is_not_looked_into_until_it_has_run() {
        is_looked_into_when_it_has_run(Command::new("sh").args(["-c", "while read line; do :; done"]), 1);
    }

    #[test]
    fn with_many_descriptors_it_may_wait_on_many_threads() {
        is_looked_into_when_it_has_run(Command::new("python3").args(["-c", CROWDED]), 4);
    }

    fn is_looked_into_when_it_has_run(command: &mut Command, threads: usize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = fstat(&listener).unwrap().st_ino;
        let mut shell = command.stdin(Stdio::piped()).stdout(OwnedFd::from(listener)).spawn().unwrap();
        let pid = Pid(shell.id().cast_signed());
        while Threads::of(pid).count() != threads {
            std::thread::yield_now();
        }
        let mut last = None;
        let mut look_until = |done: &dyn Fn(&Sight, Option<&mut Waiting>) -> bool| {
            for _ in 0..100_000 {
                let sight = on_sockets(pid, vec![socket], &mut last);
                if done(&sight, last.as_mut()) {
                    return;
                }
                std::thread::yield_now();
            }
            panic!("never: {last:?}");
        };
        // What is remembered is made to be wrong, so that it shows.
        look_until(&|sight, last| {
            last.into_iter().for_each(|last| last.holds = false);
            matches!(sight, Sight::NotYet)
        });
        shell.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
        look_until(&|sight, last| matches!(sight, Sight::Holding) && last.is_some());
        assert!(matches!(on_sockets(pid, vec![1], &mut last), Sight::NotYet), "another socket");
        assert!(matches!(on_sockets(pid, vec![socket], &mut last), Sight::Holding));
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }

    #[test]
    fn who_accepts_is_seen_whoever_of_it_does() {
        let accept = "import os, socket, sys, threading; s = socket.socket(fileno=1)";
        for ways in [
            "s.accept()",
            "import select; select.select([s], [], [])",
            "threading.Thread(target=s.accept, daemon=True).start(); sys.stdin.read()",
            "os.fork() and sys.stdin.read() or s.accept()",
        ] {
            let (mut server, socket) = with_a_socket(&format!("{accept}; {ways}"));
            let pid = Pid(server.id().cast_signed());
            let mut last = None;
            for _ in 0..1_000_000 {
                if matches!(on_sockets(pid, vec![socket], &mut last), Sight::Accepting) {
                    break;
                }
                std::thread::yield_now();
            }
            let sight = on_sockets(pid, vec![socket], &mut last);
            for pid in procfs::descendants(pid).unwrap().into_iter().chain([pid]) {
                super::super::kill::send(
                    pid,
                    crate::core::signal::Signal::KILL,
                    crate::core::types::Scope::Leader,
                    None,
                )
                .unwrap();
            }
            server.wait().unwrap();
            assert!(matches!(sight, Sight::Accepting), "{ways}: {sight:?}");
        }
    }

    /// Of Python, as standard output; and its number.
    fn with_a_socket(program: &str) -> (std::process::Child, u64) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = fstat(&listener).unwrap().st_ino;
        let mut python = Command::new("python3");
        python.args(["-c", program]).stdin(Stdio::piped()).stdout(OwnedFd::from(listener));
        (python.spawn().expect("python3"), socket)
    }

    #[test]
    fn who_is_not_alone_is_looked_into_each_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = fstat(&listener).unwrap().st_ino;
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $! >&2; wait"]).stderr(Stdio::piped());
        let mut shell = command.stdout(OwnedFd::from(listener)).spawn().expect("a shell");
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(shell.stderr.take().unwrap()), &mut line).unwrap();
        let mut last = None;
        let sight = on_sockets(Pid(shell.id().cast_signed()), vec![socket], &mut last);
        assert!(matches!(sight, Sight::Holding) && last.is_none(), "{sight:?} {last:?}");
        super::super::kill::send(
            Pid(line.trim().parse().unwrap()),
            crate::core::signal::Signal::KILL,
            crate::core::types::Scope::Leader,
            None,
        )
        .unwrap();
        shell.wait().unwrap();
    }
}
