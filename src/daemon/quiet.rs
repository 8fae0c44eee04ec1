//! When a worker serves nobody: judged by its connections, as they are seen one look after another.
//!
//! A connection has a request in flight while something is unread or unsent, and where the last data came from the
//! client. It has none where the server spoke last and has been silent since: for long enough that it is not just
//! between two parts of an answer. Who speaks again and again without being asked (a stream, server-sent events) is
//! still answering until it has been silent for that long.
//!
//! What it cannot tell: a client that sends something after the answer (an HTTP/2 acknowledgement) looks as if it had
//! asked, and a long poll has; both are in flight for as long as they last. A stream with longer pauses than
//! [`WATCH`] looks answered.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::time::Time;
use crate::sys::connections::{Connection, State, Traffic};

/// So long a connection has been silent, or been watched and has not spoken unasked, before its silence counts; half of
/// the time there is, where that is less.
const WATCH: Duration = Duration::from_secs(1);

/// So long it has been silent then: a tick of the kernel's clock and a little.
const SETTLE: Duration = Duration::from_millis(5);

/// What is known of one worker's connections.
#[derive(Debug)]
pub(super) struct Watch {
    began: Time,
    patience: Duration,
    /// Nothing shorter counts as silence.
    least: Option<Duration>,
    known: BTreeMap<u64, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    since: Time,
    traffic: Traffic,
    turn: Turn,
    /// When it last spoke without having been asked.
    spoke: Option<Time>,
}

/// How still it is on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stillness {
    /// A request is in flight, or may be.
    None,
    /// It was answered only just: it is over, unless the worker is at work on the rest.
    Brief,
    /// Silent for long.
    Long,
}

impl Stillness {
    /// Whether nothing is in flight, of a worker that is or is not at work.
    pub(super) fn is_idle(self, is_at_work: impl FnOnce() -> bool) -> bool {
        match self {
            Self::None => false,
            Self::Brief => !is_at_work(),
            Self::Long => true,
        }
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Something has been asked, and not answered.
    Server,
    /// Everything has been answered, as far as it goes.
    Client,
    /// Question and answer came within the same tick of the kernel's clock.
    Unknown,
}

impl Watch {
    /// From `now` to `until` there is time.
    pub(super) fn new(now: Time, until: Time) -> Self {
        Self { began: now, patience: until.since(now), least: None, known: BTreeMap::new() }
    }

    /// For as long as it takes, and for connections that have been silent for `least`.
    pub(super) fn for_idle(now: Time, least: Duration) -> Self {
        Self { began: now, patience: least, least: Some(least), known: BTreeMap::new() }
    }

    /// Of the time that there is.
    pub(super) fn left(&self, now: Time) -> Duration {
        (self.began + self.patience).since(now)
    }

    /// When half of the time will be over.
    pub(super) fn half_time(&self) -> Time {
        self.began + self.patience / 2
    }

    /// Half of the time has to do for being careful.
    fn care(&self) -> Duration {
        self.least.unwrap_or_else(|| WATCH.min(self.patience / 2))
    }

    /// Take in what there is at `now`, and say how still each of them is, in their order.
    pub(super) fn judge(&mut self, now: Time, connections: &[Connection]) -> Vec<Stillness> {
        let before = std::mem::take(&mut self.known);
        let judged = connections.iter().map(|connection| match connection.traffic {
            Some(traffic) => self.has_settled(now, connection, traffic, before.get(&connection.inode)),
            None if self.may_be_idle(now, connection) => Stillness::Long,
            None => Stillness::None,
        });
        judged.collect()
    }

    fn has_settled(
        &mut self,
        now: Time,
        connection: &Connection,
        traffic: Traffic,
        before: Option<&Known>,
    ) -> Stillness {
        let turn = turn(traffic, before);
        let again = before.is_some_and(|known| {
            known.turn == Turn::Client
                && known.traffic.received == traffic.received
                && known.traffic.sent != traffic.sent
        });
        let spoke = if again { Some(now) } else { before.and_then(|known| known.spoke) };
        let since = before.map_or(now, |known| known.since);
        self.known.insert(connection.inode, Known { since, traffic, turn, spoke });
        // It can say no more, and what it has said is the kernel's to deliver, unless something unread spoils that.
        if connection.state == State::OwnDone {
            return if connection.unread == 0 { Stillness::Long } else { Stillness::None };
        }
        if connection.unread > 0 || connection.unsent > 0 || turn == Turn::Server {
            return Stillness::None;
        }
        let silent = Duration::from_millis(traffic.last_sent_ms.min(traffic.last_received_ms).into());
        let is_known = now.since(since) >= self.care() && spoke.is_none_or(|at| now.since(at) >= self.care());
        let asked_once = traffic.received > 0;
        if silent >= self.care() {
            Stillness::Long
        } else if self.least.is_none() && turn == Turn::Client && asked_once && is_known && silent >= SETTLE {
            Stillness::Brief
        } else {
            Stillness::None
        }
    }

    /// Nobody knows who spoke last, so in the first half of the time it is open, and in the second its queues decide.
    fn may_be_idle(&self, now: Time, connection: &Connection) -> bool {
        let empty = connection.unread == 0 && connection.unsent == 0;
        empty && now.since(self.began) >= self.least.unwrap_or(self.patience / 2)
    }
}

fn turn(traffic: Traffic, before: Option<&Known>) -> Turn {
    let Traffic { last_sent_ms, last_received_ms, sent, received } = traffic;
    if received == 0 || (sent > 0 && last_sent_ms < last_received_ms) {
        return Turn::Client;
    }
    if sent == 0 || last_received_ms < last_sent_ms {
        return Turn::Server;
    }
    let Some(before) = before else { return Turn::Unknown };
    let (asked, answered) =
        (received.wrapping_sub(before.traffic.received), sent.wrapping_sub(before.traffic.sent));
    match (asked, answered) {
        (0, 0) => before.turn,
        (0, _) => Turn::Client,
        (_, 0) => Turn::Server,
        (asked, _) => match before.turn {
            // One segment came, and a server that speaks when it is asked has spoken.
            Turn::Client if asked == 1 => Turn::Client,
            // What has been answered is what had been asked before.
            Turn::Server => Turn::Server,
            Turn::Client | Turn::Unknown => Turn::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Time {
        Time::at(ms(millis))
    }

    /// Milliseconds since data were sent and received, segments sent and received.
    fn seen(last_sent_ms: u32, last_received_ms: u32, sent: u32, received: u32) -> Connection {
        let traffic = Some(Traffic { last_sent_ms, last_received_ms, sent, received });
        Connection { inode: 7, state: State::Established, ends: None, unread: 0, unsent: 0, traffic }
    }

    impl Watch {
        fn is_quiet(&mut self, now: Time, connections: &[Connection]) -> bool {
            self.judge(now, connections).iter().all(|stillness| stillness.is_idle(|| false))
        }
    }

    fn watch() -> Watch {
        Watch::new(at(0), at(10_000))
    }

    fn alone(connection: Connection) -> bool {
        watch().is_quiet(at(0), &[connection])
    }

    #[test]
    fn nobody_there_is_quiet() {
        assert!(watch().is_quiet(at(0), &[]));
    }

    #[test]
    fn whoever_spoke_last_decides() {
        assert!(alone(seen(2_000, 2_100, 1, 1)), "answered long ago");
        assert!(!alone(seen(2_100, 2_000, 1, 1)), "asked again, and not answered yet");
        assert!(!alone(seen(3_000, 2_000, 0, 1)), "asked for the first time");
        assert!(!alone(seen(20, 120, 1, 1)), "just answered: there may be more of it");
    }

    #[test]
    fn a_silent_connection_is_idle_once_it_is_old_enough() {
        assert!(!alone(seen(3, 3, 0, 0)), "its request is on the way");
        assert!(alone(seen(1_500, 1_500, 0, 0)));
    }

    #[test]
    fn what_waits_in_a_queue_is_in_flight() {
        assert!(!alone(Connection { unread: 1, ..seen(2_000, 2_100, 1, 1) }));
        assert!(!alone(Connection { unsent: 1, ..seen(2_000, 2_100, 1, 1) }));
    }

    #[test]
    fn a_side_that_is_done_has_nothing_in_flight_but_what_it_has_not_read() {
        let done = Connection { state: State::OwnDone, unsent: 1, ..seen(0, 1, 1, 1) };
        assert!(alone(done));
        assert!(!alone(Connection { unread: 1, ..done }));
    }

    #[test]
    fn a_connection_that_has_been_watched_need_not_be_silent_for_long() {
        let mut watch = watch();
        assert!(!watch.is_quiet(at(0), &[seen(8, 12, 5, 5)]));
        assert!(!watch.is_quiet(at(500), &[seen(8, 12, 9, 9)]));
        assert_eq!(watch.judge(at(1_000), &[seen(8, 12, 12, 12)]), [Stillness::Brief]);
        assert!(!watch.is_quiet(at(1_010), &[seen(0, 12, 13, 13)]), "it has just answered");
    }

    #[test]
    fn a_stream_is_in_flight_until_it_has_been_silent_for_a_while() {
        let mut watch = watch();
        for chunk in 0..20 {
            let now = at(u64::from(chunk) * 200);
            assert!(!watch.is_quiet(now, &[seen(8, 200 * chunk + 20, 1 + chunk, 1)]), "{now:?}");
        }
        assert!(!watch.is_quiet(at(4_600), &[seen(800, 4_600, 20, 1)]));
        assert!(watch.is_quiet(at(4_900), &[seen(1_100, 4_900, 20, 1)]));
    }

    #[test]
    fn within_a_tick_the_last_look_tells_question_from_answer() {
        let fast = |first: Connection, then: Connection| {
            let mut watch = watch();
            watch.is_quiet(at(0), &[first]);
            watch.is_quiet(at(995), &[first]);
            watch.is_quiet(at(1_000), &[then])
        };
        assert!(fast(seen(8, 12, 1, 1), seen(8, 8, 2, 2)), "one came, one went");
        assert!(!fast(seen(8, 12, 1, 1), seen(8, 8, 2, 3)), "two came, one went");
        assert!(!fast(seen(12, 8, 1, 2), seen(8, 8, 2, 3)), "what went was for what had come before");
        assert!(!fast(seen(8, 8, 1, 1), seen(8, 8, 1, 1)), "never seen apart");
    }

    #[test]
    fn where_nobody_tells_who_spoke_last_an_open_connection_has_half_of_the_time() {
        let open = Connection { traffic: None, ..seen(0, 0, 0, 0) };
        let mut watch = watch();
        assert!(!watch.is_quiet(at(4_999), &[open]));
        assert!(watch.is_quiet(at(5_000), &[open]));
        assert!(!watch.is_quiet(at(5_000), &[Connection { unread: 1, ..open }]));
    }

    #[test]
    fn who_is_to_be_idle_for_long_is_asked_for_that() {
        let mut watch = Watch::for_idle(at(0), ms(3_000));
        assert!(!watch.is_quiet(at(0), &[seen(2_900, 3_100, 1, 1)]));
        assert!(!watch.is_quiet(at(4_000), &[seen(2_900, 3_100, 2, 2)]));
        assert!(watch.is_quiet(at(4_100), &[seen(3_000, 3_200, 2, 2)]));
        assert!(!watch.is_quiet(at(4_200), &[seen(3_500, 3_400, 2, 3)]), "it was asked last");
    }

    #[test]
    fn where_there_is_little_time_there_is_little_care() {
        assert!(Watch::new(at(0), at(200)).is_quiet(at(0), &[seen(110, 120, 1, 1)]));
        assert!(!Watch::new(at(0), at(200)).is_quiet(at(0), &[seen(90, 120, 1, 1)]));
    }
}
