//! Connections that no worker accepts any more, answered by drainit itself; and then nobody is listened to any more.
//!
//! Looked at from time to time and all together, like everything else that happens in a drain's last moments: no task, no
//! descriptor and hardly any memory for each of them, and it works where there is no event loop.

mod answer;
mod connection;
mod request;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::admin::Stats;
use crate::config::LateAnswer;
use crate::config::values::LateResponse;
use crate::core::config::LateRules;
use crate::core::time::Time;
use crate::daemon::sockets::Sockets;
use crate::sys::doors::Accepted;
use crate::sys::listen::Listener;
use crate::sys::peer::Peer;
use crate::sys::sock_diag;
use answer::{Answer, Answers};
use connection::{Connection, SILENCE, Turn};

/// No more are open at once, where there are descriptors for so many; the others wait in the queue.
const OPEN_MAX: usize = 512;

/// So many are accepted in one look, and no more turns taken than that in a row: signals and probes have theirs, too.
const ACCEPTED_AT_ONCE: usize = 128;
const TURNS_AT_ONCE: usize = 512;

/// Between two looks: where there is more to do, where somebody is waited for, and where nobody is there.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOK_OUT_EVERY: Duration = Duration::from_millis(20);

/// How long handshakes may take that had begun when newcomers were turned away.
const HANDSHAKES_MAX: Duration = Duration::from_millis(250);

/// So many looks in a row find nobody: between its handshake and the queue a connection is nowhere to be seen.
const EMPTY_LOOKS: u32 = 2;

/// What is read at once.
const SCRATCH: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Late {
    resets: bool,
    answers: Answers,
    patience: Duration,
    linger_until: Time,
    doors: Doors,
    open: Vec<Connection>,
    due: Time,
    scratch: Vec<u8>,
}

/// Of the listening sockets.
#[derive(Debug)]
enum Doors {
    Open,
    /// Nobody new gets into the queues.
    Closing {
        since: Time,
        empty_looks: u32,
    },
    Shut,
}

impl Late {
    pub(super) fn new(config: &LateAnswer, now: Time, linger_until: Time) -> Self {
        Self {
            resets: config.response == LateResponse::Reset,
            answers: Answers::new(&config.body, config.retry_after),
            patience: config.timeout,
            linger_until,
            doors: Doors::Open,
            open: Vec::new(),
            due: now,
            scratch: vec![0; SCRATCH],
        }
    }

    pub(super) fn due(&self) -> Time {
        self.due
    }

    /// Who has not been told all, or waits in a queue still.
    pub(super) fn left(&self, sockets: &Sockets) -> usize {
        let open = self.open.iter().filter(|connection| !connection.is_answered()).count();
        open + sockets.all_waiting() as usize
    }

    /// There are descriptors for `room` connections. Says whether it is all over.
    pub(super) fn look(&mut self, now: Time, sockets: &mut Sockets, room: usize, stats: &Stats) -> bool {
        let admitted = match self.doors {
            Doors::Open | Doors::Closing { .. } => self.admit(now, sockets, room.min(OPEN_MAX), stats),
            Doors::Shut => 0,
        };
        let busy = self.serve(now, stats) || admitted > 0;
        let pause = match self.doors {
            Doors::Closing { .. } => LOOK_AGAIN,
            Doors::Open | Doors::Shut if busy => LOOK_AGAIN,
            Doors::Open | Doors::Shut if self.open.is_empty() => LOOK_OUT_EVERY,
            Doors::Open | Doors::Shut => LOOK_EVERY,
        };
        self.due = now + pause;
        matches!(self.doors, Doors::Shut) && self.open.is_empty()
    }

    /// Take in who waits; and close the doors behind the last one. Says how many they were.
    fn admit(&mut self, now: Time, sockets: &mut Sockets, room: usize, stats: &Stats) -> usize {
        let half_open = matches!(self.doors, Doors::Closing { since, .. } if now.since(since) < HANDSHAKES_MAX)
            && sock_diag::any_half_open(&sockets.ports().collect::<Vec<_>>());
        let mut admitted = 0;
        let mut emptied = true;
        for listener in sockets.own_listeners() {
            listener.be_non_blocking();
            let mut queue = 0;
            loop {
                if admitted == ACCEPTED_AT_ONCE || self.open.len() >= room {
                    emptied = false;
                    break;
                }
                match listener.accept(&mut queue) {
                    Accepted::Somebody(peer) => {
                        admitted += 1;
                        self.receive(peer, now, stats);
                    }
                    Accepted::Nobody => break,
                    Accepted::NoRoom => {
                        emptied = false;
                        break;
                    }
                }
            }
        }
        if emptied {
            self.close_doors(now, half_open, sockets);
        }
        admitted
    }

    fn receive(&mut self, peer: Peer, now: Time, stats: &Stats) {
        if self.resets {
            peer.reset();
            Stats::count(&stats.late.reset);
        } else {
            self.open.push(Connection::new(peer, now));
        }
    }

    /// All queues are empty.
    fn close_doors(&mut self, now: Time, half_open: bool, sockets: &mut Sockets) {
        self.doors = match self.doors {
            Doors::Open if now >= self.linger_until => {
                sockets.own_listeners().for_each(|listener| listener.turn_newcomers_away());
                Doors::Closing { since: now, empty_looks: 0 }
            }
            Doors::Closing { since, .. } if half_open => Doors::Closing { since, empty_looks: 0 },
            Doors::Closing { since, empty_looks } if empty_looks + 1 < EMPTY_LOOKS => {
                Doors::Closing { since, empty_looks: empty_looks + 1 }
            }
            Doors::Closing { .. } | Doors::Shut => {
                sockets.own_listeners().for_each(Listener::shut);
                Doors::Shut
            }
            Doors::Open => Doors::Open,
        };
    }

    /// Says whether there may be more to do at once.
    fn serve(&mut self, now: Time, stats: &Stats) -> bool {
        let mut turns = TURNS_AT_ONCE;
        let mut busy = false;
        let Self { open, answers, patience, scratch, .. } = self;
        open.retain_mut(|connection| {
            loop {
                match connection.turn(now, *patience, answers, scratch) {
                    Turn::Idle => return true,
                    Turn::Busy => busy = true,
                    Turn::Answered(answer) => {
                        busy = true;
                        Stats::count(counter(answer, stats));
                    }
                    Turn::Over { unanswered } => {
                        if unanswered {
                            Stats::count(&stats.late.closed);
                        }
                        if connection.was_overdue() {
                            Stats::count(&stats.late.overdue);
                        }
                        return false;
                    }
                }
                if turns == 0 {
                    return true;
                }
                turns -= 1;
            }
        });
        busy
    }
}

fn counter(answer: Answer, stats: &Stats) -> &AtomicU64 {
    match answer {
        Answer::Unavailable { .. } => &stats.late.unavailable,
        Answer::GoAway => &stats.late.goaway,
        Answer::Close => &stats.late.closed,
    }
}

/// What has come of it, in one line.
pub(super) fn tell(stats: &Stats, left: usize) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let late = &stats.late;
    let (unavailable, goaway, closed, reset) =
        (read(&late.unavailable), read(&late.goaway), read(&late.closed), read(&late.reset));
    let overdue = read(&late.overdue);
    if left > 0 {
        tracing::warn!(unavailable, goaway, closed, reset, overdue, left, "late connections cut");
    } else if unavailable + goaway + closed + reset > 0 {
        tracing::info!(unavailable, goaway, closed, reset, overdue, "late connections answered");
    } else {
        tracing::debug!("no late connections");
    }
}

/// The named deadlines.
pub(super) fn deadlines(
    answer: Option<&LateAnswer>,
    rules: Option<LateRules>,
) -> [(&'static str, Option<Duration>); 3] {
    let timeout = answer.map(|answer| answer.timeout);
    let linger = rules.map(|rules| rules.linger);
    [
        ("late", timeout),
        ("late-silence", timeout.map(|timeout| timeout.min(SILENCE))),
        ("late-linger", linger),
    ]
}
