//! One late connection: it is heard, answered, and listened to until it has nothing more to say.
//!
//! A connection that is closed with something unread is reset, and what the client has not read of the answer by then is
//! lost to it. So the answer is followed by the end of our half alone, and whatever still comes, the rest of a request's
//! body mostly, is read and thrown away until the client has closed its own.

use std::io::{self, ErrorKind};
use std::time::Duration;

use super::answer::{Answer, Answers};
use super::request::{Reader, Spoken};
use crate::core::time::Time;
use crate::sys::peer::Peer;

/// Whoever has not said anything for so long will not.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

/// After the answer: whatever was under way when it was sent is there by then.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Whoever was in the middle of a body may have lost a packet or two: TCP sends it again after 200 ms, 400 ms, 800 ms.
const IN_THE_MIDDLE: Duration = Duration::from_secs(2);

/// What is read after the answer: more than that is somebody who does not listen.
const UNWANTED_MAX: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer,
    /// Since when it is in that stage.
    since: Time,
    /// It has last said something.
    heard: Time,
    stage: Stage,
    /// It has had more time than it may.
    overdue: bool,
}

#[derive(Debug)]
enum Stage {
    Hearing(Reader),
    Answering {
        answer: Answer,
        said: usize,
    },
    /// It is answered.
    Ending {
        unwanted: usize,
    },
}

/// What a turn has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There was nothing to do.
    Idle,
    /// There may be more to do at once.
    Busy,
    /// It has been told all; its end is waited for.
    Answered(Answer),
    /// It can be dropped. `unanswered`: before it was.
    Over { unanswered: bool },
}

impl Connection {
    pub(super) fn new(peer: Peer, now: Time) -> Self {
        Self { peer, since: now, heard: now, stage: Stage::Hearing(Reader::default()), overdue: false }
    }

    /// As far as it goes without waiting; each stage may take `patience`.
    pub(super) fn turn(
        &mut self,
        now: Time,
        patience: Duration,
        answers: &Answers,
        scratch: &mut [u8],
    ) -> Turn {
        match self.stage {
            Stage::Hearing(_) => self.hear(now, patience, scratch),
            Stage::Answering { answer, said } => self.say(answer, said, now, patience, answers),
            Stage::Ending { unwanted } => self.end(unwanted, now, patience, scratch),
        }
    }

    pub(super) fn was_overdue(&self) -> bool {
        self.overdue
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::Ending { .. })
    }

    /// Whether it has had more time in this stage than it may.
    fn is_overdue(&mut self, now: Time, patience: Duration) -> bool {
        let overdue = now.since(self.since) >= patience;
        self.overdue |= overdue;
        overdue
    }

    fn hear(&mut self, now: Time, patience: Duration, scratch: &mut [u8]) -> Turn {
        let Stage::Hearing(reader) = &mut self.stage else { return Turn::Idle };
        let spoken = match self.peer.hear(scratch) {
            // Whoever has closed its half of a connection may still listen to the other.
            Ok(0) => reader.conclude(),
            Ok(length) => {
                self.heard = now;
                match reader.take(scratch.get(..length).unwrap_or_default()) {
                    Some(spoken) => spoken,
                    None => return Turn::Busy,
                }
            }
            Err(error) if would_wait(&error) => {
                let spoken = reader.conclude();
                let is_mute = reader.has_nothing() && now.since(self.since) >= SILENCE;
                if !is_mute && !self.is_overdue(now, patience) {
                    return Turn::Idle;
                }
                spoken
            }
            Err(_) => return Turn::Over { unanswered: true },
        };
        let answer = match spoken {
            Spoken::Http1 { is_head } => Answer::Unavailable { is_head },
            Spoken::Http2 => Answer::GoAway,
            Spoken::Other => Answer::Close,
        };
        self.stage = Stage::Answering { answer, said: 0 };
        self.since = now;
        Turn::Busy
    }

    fn say(&mut self, answer: Answer, said: usize, now: Time, patience: Duration, answers: &Answers) -> Turn {
        let all = answers.bytes(answer).len();
        let rest = answers.due(answer, now.since(self.since)).get(said..).unwrap_or_default();
        if rest.is_empty() && said < all {
            return Turn::Idle;
        }
        if !rest.is_empty() {
            match self.peer.say(rest) {
                Ok(length) if said + length < all => {
                    self.stage = Stage::Answering { answer, said: said + length };
                    return Turn::Busy;
                }
                Ok(_) => {}
                Err(error) if would_wait(&error) && !self.is_overdue(now, patience) => return Turn::Idle,
                Err(_) => return Turn::Over { unanswered: true },
            }
        }
        self.peer.fall_silent();
        self.stage = Stage::Ending { unwanted: 0 };
        (self.since, self.heard) = (now, now);
        Turn::Answered(answer)
    }

    fn end(&mut self, unwanted: usize, now: Time, patience: Duration, scratch: &mut [u8]) -> Turn {
        const OVER: Turn = Turn::Over { unanswered: false };
        match self.peer.hear(scratch) {
            Ok(0) => OVER,
            Ok(length) => {
                self.heard = now;
                self.stage = Stage::Ending { unwanted: unwanted + length };
                if unwanted > UNWANTED_MAX || self.is_overdue(now, patience) { OVER } else { Turn::Busy }
            }
            Err(error) if would_wait(&error) => {
                let pause = if unwanted > 0 { IN_THE_MIDDLE } else { LAST_WORDS };
                let is_silent = now.since(self.heard) >= pause;
                if is_silent || self.is_overdue(now, patience) { OVER } else { Turn::Idle }
            }
            Err(_) => OVER,
        }
    }
}

fn would_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
