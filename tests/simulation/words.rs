//! What workers say of themselves: what the books make of it, and what the world has them say.

use std::time::Duration;

use drainit::core::event::Event;
use drainit::core::time::Time;
use drainit::core::types::{Pid, WorkerId};
use drainit::core::word::{Lifecycle, Ping, Word};

use super::books::Books;
use super::records::Stage;
use super::rng::Rng;

/// Whoever looks for a deadline so much later was not there.
const ABSENT: Duration = Duration::from_secs(1);

/// An interval that no world lives to see the end of.
const FOR_EVER: Duration = Duration::from_secs(366 * 24 * 3600);

/// Nobody waits for what is further away.
pub(crate) const FAR: Duration = Duration::from_secs(100 * 24 * 3600);

impl Books {
    pub(crate) fn on_ready(&mut self, id: WorkerId) {
        let now = self.now;
        let record = self.workers.get_mut(&id).filter(|record| record.pid.is_some());
        if let Some(record) = record.filter(|record| record.is_starting()) {
            record.ready_at = Some(now);
            record.watchdog_due = record.watchdog.map(|every| now + every);
        }
    }

    pub(crate) fn on_said(&mut self, id: WorkerId, word: &Word) {
        if word.lifecycle == Some(Lifecycle::Ready) {
            self.on_ready(id);
        }
        let (now, patience) = (self.now, self.patience());
        let hard = self.hard_deadline().filter(|_| self.stage == Stage::Ending);
        let ending = self.stage == Stage::Ending;
        let Some(record) = self.workers.get_mut(&id).filter(|record| record.pid.is_some()) else { return };
        match word.lifecycle {
            Some(Lifecycle::Ready) => record.reloading = false,
            Some(Lifecycle::Reloading) => record.reloading |= record.is_ready(),
            Some(Lifecycle::Stopping) if record.is_ready() || record.is_starting() => {
                self.this_step.lost_ready += u32::from(record.is_ready());
                record.stopping = Some(now + patience);
                record.leaving = true;
                (record.ready_by, record.watchdog_due) = (None, None);
            }
            Some(Lifecycle::Stopping) | None => {}
        }
        if word.watchdog.is_some() {
            record.watchdog = word.watchdog;
        }
        if record.is_ready() && word.watchdog.is_some() {
            record.watchdog_due = word.watchdog.map(|every| now + every);
        }
        if let Some(extra) = word.extend.filter(|_| !record.killed) {
            let until = hard.map_or(now + extra, |hard| hard.min(now + extra));
            let waits =
                [&mut record.told, &mut record.stopping, &mut record.ready_by, &mut record.watchdog_due];
            waits.into_iter().for_each(|at| *at = at.map(|at| at.max(until)));
        }
        match word.ping {
            Some(Ping::Alive) if record.watchdog_due.is_some() => {
                record.watchdog_due = record.watchdog.map(|every| now + every);
            }
            Some(Ping::Trigger) if !ending && record.is_starting() => {
                record.failed = true;
                record.tell(now + patience);
                let generation = record.generation;
                self.on_generation_failed(generation);
            }
            Some(Ping::Trigger) if !ending => self.on_hung(id),
            Some(_) | None => {}
        }
    }

    pub(crate) fn mind_watchdogs(&mut self) {
        let now = self.now;
        let silent = |books: &Self| {
            let mut due = books.workers.iter().filter(|(_, worker)| worker.is_ready());
            due.find(|(_, worker)| worker.watchdog_due.is_some_and(|at| at <= now)).map(|(id, _)| *id)
        };
        while !self.crash_loop
            && let Some(id) = silent(self)
        {
            let Some(record) = self.workers.get_mut(&id) else { return };
            let absent = record.watchdog_due.is_some_and(|at| now.since(at) >= ABSENT);
            if absent {
                record.watchdog_due = record.watchdog.map(|every| now + every);
            } else {
                record.watchdog_due = None;
                self.silences += 1;
                self.on_hung(id);
            }
        }
    }
}

/// Anything that anybody may say at any time.
pub(crate) fn any_word(rng: &mut Rng) -> Word {
    let mut word = Word::default();
    let (seconds, states) = (
        [0, 1, 5, 60].map(Duration::from_secs),
        [Lifecycle::Ready, Lifecycle::Reloading, Lifecycle::Reloading, Lifecycle::Stopping],
    );
    match rng.below(7) {
        0..2 => word.lifecycle = Some(rng.pick(&states)),
        2 => word.extend = Some(rng.pick(&seconds)),
        3 => word.ping = Some(Ping::Alive),
        4 => word.ping = Some(Ping::Trigger),
        5 => word.watchdog = Some(rng.pick(&seconds).max(Duration::from_millis(1))),
        _ => {
            word.lifecycle = rng.chance(50).then(|| rng.pick(&states));
            word.extend = rng.chance(50).then(|| rng.pick(&seconds));
            word.ping = rng.chance(30).then_some(Ping::Alive);
            word.status = Some("at work".to_owned());
            word.main_pid = Some(Pid(7));
        }
    }
    word
}

/// What a worker with a watchdog says next, and when again; nothing, where it falls silent. In quiet times it says that
/// it will say nothing more.
pub(crate) fn sign_of_life(
    rng: &mut Rng,
    every: Duration,
    quiet: bool,
    falls_silent: u64,
    now: Time,
) -> Option<(Word, Option<Time>)> {
    if quiet {
        return Some((Word { watchdog: Some(FOR_EVER), ..Word::default() }, None));
    }
    if rng.chance(falls_silent) {
        return None;
    }
    let word = Word { ping: Some(Ping::Alive), ..Word::default() };
    let pause = rng.up_to(every).max(Duration::from_millis(200));
    Some((word, Some(now + pause)))
}

pub(crate) fn said(worker: WorkerId, word: Word) -> Event {
    Event::Said { worker, word }
}
