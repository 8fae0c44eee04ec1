//! The books of the rolls: who asked, what begins, what fails, and who has to be told what.

use std::collections::{BTreeMap, BTreeSet};

use drainit::core::config::{Config, Kind};
use drainit::core::event::{Notice, Outcome, RequestId, RollOrder, RollTrigger};
use drainit::core::snapshot::{BreakerState, RollOutcome};
use drainit::core::time::Time;
use drainit::core::types::{Edition, Generation, Release, SlotIndex, Target, WorkerId};

use super::super::records::{Stage, Vacancy};
use super::Books;
use super::breaker::Breaker;
use super::workers::AT_ONCE;

pub(crate) struct Rolls {
    pub(crate) edition: Edition,
    pub(crate) target: Target,
    pub(crate) running: Option<Rolling>,
    pub(crate) queued: Option<Waiting>,
    pub(crate) breaker: Breaker,
    /// Nobody is spawned for them any more.
    pub(crate) given_up: BTreeSet<Generation>,
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    pub(crate) refused: u64,
    /// When the last one ended.
    pub(super) ended: Time,
    last_roll: u64,
    last_generation: u64,
    /// So many more workers have room, as far as has been found out.
    pub(super) room: Option<u32>,
    /// The step in which that was.
    pub(super) weighed_in: u64,
    /// When there was room for nobody.
    pub(super) short: Option<Time>,
    /// Questions that have not been answered yet.
    pub(super) weighing: u32,
    /// Whose place is being taken because it was old or large.
    pub(super) recycled: Option<SlotIndex>,
}

/// The roll that runs.
#[derive(Debug)]
pub(crate) struct Rolling {
    pub(crate) id: u64,
    pub(crate) from: Edition,
    pub(crate) to: Edition,
    pub(super) target: Target,
    pub(crate) began: Time,
    pub(super) waiting: Vec<RequestId>,
    pub(super) aborters: Vec<RequestId>,
    pub(crate) back: Option<RollOutcome>,
    /// The old release does not come up any more.
    pub(crate) stuck: bool,
    /// Slots that are the new generation's, or will be.
    pub(crate) turned: BTreeSet<SlotIndex>,
    /// When the last batch was begun, and in which step.
    pub(crate) batch: Option<(Time, u64)>,
    pub(crate) holds: Option<Time>,
    pub(crate) paused: Option<Time>,
    pub(crate) least_ready: u32,
    pub(crate) failures: u32,
    /// Slots that were given to the new generation, one by one.
    pub(crate) replaced: u32,
    /// Slots that may have been given away besides, which nobody sees: their workers had been told to go before.
    unseen: BTreeSet<SlotIndex>,
    /// Such slots that are no more.
    unseen_gone: u32,
    /// It was a trial: the breaker was half-open.
    pub(crate) trial: bool,
}

#[derive(Debug)]
pub(crate) struct Waiting {
    trigger: RollTrigger,
    /// Nothing, where that is whatever the pool is when it begins.
    target: Option<Target>,
    waiting: Vec<RequestId>,
    /// It has taken the place of one that a watched path asked for, or is one: what has changed on disk is rolled for
    /// in any case.
    watched: bool,
}

/// What has to be in the record of a roll that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: u64,
    pub(crate) from: Generation,
    pub(crate) to: Generation,
    pub(crate) version: Option<String>,
    pub(crate) outcome: RollOutcome,
    pub(crate) began: Time,
    pub(crate) replaced: u32,
    pub(crate) unseen: u32,
    pub(crate) failures: u32,
    pub(crate) least_ready: u32,
    pub(crate) workers: u32,
}

/// What a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    Done,
    Refused,
    RolledBack,
}

/// What has to be told of a request to roll.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Due {
    Joined(u64, RollTrigger),
    Queued(RollTrigger),
}

impl From<&Outcome> for Answer {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done(_) => Self::Done,
            Outcome::Refused(_) => Self::Refused,
            Outcome::RolledBack(_) => Self::RolledBack,
        }
    }
}

impl Waiting {
    fn for_what_changed() -> Self {
        Self { trigger: RollTrigger::Watch, target: None, waiting: Vec::new(), watched: true }
    }
}

impl Rolls {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            edition: Edition { generation: Generation(1), release: Release(1) },
            target: Target { release: Release(1), version: config.version.clone() },
            running: None,
            queued: None,
            breaker: Breaker::new(config.max_crashes, config.breaker),
            given_up: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            refused: 0,
            ended: Time::ZERO,
            last_roll: 0,
            last_generation: 1,
            room: None,
            weighed_in: 0,
            short: None,
            weighing: 0,
            recycled: None,
        }
    }

    pub(crate) fn forward(&self) -> Option<&Rolling> {
        self.running.as_ref().filter(|roll| roll.back.is_none())
    }

    /// There has been one.
    pub(crate) fn has_begun(&self) -> bool {
        self.last_roll > 0
    }

    /// What the pool will be.
    fn ahead(&self) -> &Target {
        let queued = self.queued.as_ref().and_then(|queued| queued.target.as_ref());
        queued.or(self.forward().map(|roll| &roll.target)).unwrap_or(&self.target)
    }
}

impl Rolling {
    /// There are only so many slots any more.
    pub(super) fn shrink(&mut self, slots: u32) {
        self.unseen_gone +=
            self.unseen.difference(&self.turned).filter(|index| **index >= slots).count() as u32;
        self.unseen.retain(|index| *index < slots);
        self.turned.retain(|index| *index < slots);
    }
}

impl Books {
    /// Whose slots may be given away without a word.
    pub(super) fn note_unseen(&mut self) {
        let (slots, workers) = (&self.slots, &self.workers);
        let Some(roll) = self.rolls.running.as_mut().filter(|roll| roll.back.is_none()) else { return };
        let told = |id: WorkerId| workers.get(&id).is_some_and(|worker| worker.told.is_some());
        let slots = (0..).zip(slots).filter(|(_, slot)| slot.occupant.is_some_and(told));
        roll.unseen.extend(slots.map(|(index, _)| index));
    }
}

impl Books {
    pub(super) fn on_roll_ordered(&mut self, order: &RollOrder, request: Option<RequestId>) {
        let waiter = request.filter(|_| order.wait);
        let target = order.target.clone().unwrap_or_else(|| self.rolls.ahead().clone());
        // A release that fails is given up, and comes back by nobody's doing but that of who asks for it by name. So a change
        // on disk, which names none, is rolled for in whatever the pool is by then.
        let names_none = order.trigger == RollTrigger::Watch && order.target.is_none();
        let named = self.rolls.queued.as_ref().and_then(|queued| queued.target.clone());
        let wanted = if names_none { named } else { Some(target.clone()) };
        // Nobody asks again for what has changed on disk.
        let is_kept = order.trigger == RollTrigger::Watch
            && self.config.kind == Kind::Pool
            && self.stage != Stage::Ending;
        let may_roll = self.may_roll();
        if !may_roll && !is_kept {
            self.rolls.refused += 1;
            return self.answer(request, Answer::Refused);
        }
        let at_once = request.filter(|_| !order.wait);
        self.answer(at_once, Answer::Done);
        if !may_roll {
            self.this_step.saw.push("a watched roll was kept");
            return self.queue_roll(order.trigger, wanted, waiter);
        }
        let Some(roll) = &mut self.rolls.running else {
            let mut waiting = self.inherit(&target);
            waiting.extend(waiter);
            return self.begin_roll(order.trigger, target, waiting);
        };
        let same = roll.back.is_none() && roll.to.release == target.release;
        // Whoever has started before a file changed has seen the old one.
        if same && order.trigger != RollTrigger::Watch {
            roll.waiting.extend(waiter);
            let id = roll.id;
            self.this_step.notes_due.push(Due::Joined(id, order.trigger));
            self.this_step.saw.push("joined");
            // Whoever waits for another release is not answered by this one.
            let another = self.rolls.queued.as_ref().is_some_and(|queued| {
                queued.trigger != RollTrigger::Watch
                    || queued.target.as_ref().is_some_and(|named| named.release != target.release)
            });
            if another {
                let watched = self.rolls.queued.as_ref().is_some_and(|queued| queued.watched);
                self.supersede();
                self.rolls.queued = watched.then(Waiting::for_what_changed);
            }
            return;
        }
        self.queue_roll(order.trigger, wanted, waiter);
    }

    /// The latest wins, and whoever waits for the same waits on.
    fn queue_roll(&mut self, trigger: RollTrigger, target: Option<Target>, waiter: Option<RequestId>) {
        let before = self.rolls.queued.as_ref().is_some_and(|queued| queued.watched);
        let watched = before || trigger == RollTrigger::Watch;
        let ahead = target.as_ref().unwrap_or_else(|| self.rolls.ahead()).clone();
        let mut waiting = self.inherit(&ahead);
        waiting.extend(waiter);
        self.this_step.notes_due.push(Due::Queued(trigger));
        self.rolls.queued = Some(Waiting { trigger, target, waiting, watched });
    }

    /// Whoever waits for the same; everything else is out.
    fn inherit(&mut self, target: &Target) -> Vec<RequestId> {
        let ahead = self.rolls.ahead().release;
        match self.rolls.queued.take_if(|_| ahead == target.release) {
            Some(queued) => return queued.waiting,
            None => self.supersede(),
        }
        Vec::new()
    }

    /// A pool, not draining, and the breaker is not open.
    pub(super) fn may_roll(&self) -> bool {
        let open = self.rolls.breaker.state(self.now) == BreakerState::Open;
        let running = self.stage == Stage::Running && self.budget_from.is_none() && self.ending.is_none();
        self.config.kind == Kind::Pool && running && !open
    }

    fn supersede(&mut self) {
        let Some(queued) = self.rolls.queued.take() else { return };
        self.rolls.refused += 1;
        self.this_step.saw.push("superseded");
        queued.waiting.into_iter().for_each(|request| self.answer(Some(request), Answer::Refused));
    }

    fn answer(&mut self, request: Option<RequestId>, answer: Answer) {
        self.this_step.answers_due.extend(request.map(|request| (request, answer)));
    }

    fn begin_roll(&mut self, trigger: RollTrigger, target: Target, waiting: Vec<RequestId>) {
        let rolls = &mut self.rolls;
        rolls.last_roll += 1;
        rolls.last_generation += 1;
        let to = Edition { generation: Generation(rolls.last_generation), release: target.release };
        let trial = rolls.breaker.state(self.now) == BreakerState::HalfOpen;
        self.this_step.rolls_due.push((rolls.last_roll, rolls.edition.generation, to.generation, trigger));
        rolls.running = Some(Rolling {
            id: rolls.last_roll,
            from: rolls.edition,
            to,
            target,
            began: self.now,
            waiting,
            aborters: Vec::new(),
            back: None,
            stuck: false,
            turned: BTreeSet::new(),
            batch: None,
            holds: None,
            paused: None,
            least_ready: u32::MAX,
            failures: 0,
            replaced: 0,
            unseen: BTreeSet::new(),
            unseen_gone: 0,
            trial,
        });
        self.leave_recycling_to_the_roll();
    }

    /// Says whether it is the roll's affair, and no crash of the pool's.
    pub(crate) fn on_generation_failed(&mut self, generation: Generation) -> bool {
        let running = self.rolls.running.as_mut().filter(|_| !self.this_step.drop_due);
        let Some(roll) = running else { return false };
        if roll.to.generation != generation {
            roll.stuck |= roll.back.is_some();
            return false;
        }
        if roll.back.is_none() {
            roll.failures += 1;
            if roll.holds.is_some() {
                self.this_step.saw.push("a canary failed in its hold");
            }
            self.fail_roll();
        }
        true
    }

    pub(super) fn fail_roll(&mut self) {
        self.retreat(RollOutcome::RolledBack);
        self.rolls.breaker.on_roll_failed(self.now);
    }

    pub(super) fn on_abort(&mut self, request: RequestId) {
        self.supersede();
        let Some(roll) = &mut self.rolls.running else { return self.answer(Some(request), Answer::Refused) };
        roll.aborters.push(request);
        if roll.back.is_none() {
            self.retreat(RollOutcome::Aborted);
        }
    }

    /// Whoever of it does not serve yet goes at once, and somebody of the old one comes where nobody is left.
    fn retreat(&mut self, outcome: RollOutcome) {
        let Some(roll) = &mut self.rolls.running else { return };
        roll.back = Some(outcome);
        let (failed, turned) = (roll.to.generation, roll.turned.clone());
        self.rolls.given_up.insert(failed);
        self.this_step.failures_due += 1;
        for index in 0..self.slots.len() {
            let is_failed = |id| self.workers.get(&id).is_some_and(|worker| worker.generation == failed);
            let is_starting = |id| self.workers.get(&id).is_some_and(|worker| worker.is_starting());
            let is_hung =
                |id| self.workers.get(&id).is_some_and(|worker| worker.hung && worker.told.is_none());
            let slot = &self.slots[index];
            let successor = slot.successor.filter(|id| is_failed(*id));
            let unready = slot.occupant.filter(|id| is_failed(*id) && is_starting(*id));
            // Whoever was to come in its place was the failed one.
            let forsaken = slot.occupant.is_some_and(is_hung);
            if !turned.contains(&(index as u32)) && successor.is_none() {
                continue;
            }
            let slot = &mut self.slots[index];
            slot.successor.take_if(|id| Some(*id) == successor);
            slot.refill |= unready.is_some();
            let wanted = slot.occupant.is_none() && !slot.finished || forsaken;
            let now = self.now;
            slot.vacancy = (wanted).then_some(Vacancy { since: now, ceiling: AT_ONCE });
            successor.into_iter().chain(unready).for_each(|id| self.let_go(id));
        }
    }

    /// A drain that is meant, or the end of everybody.
    pub(super) fn drop_roll(&mut self) {
        self.supersede();
        if self.rolls.running.is_some() {
            self.this_step.drop_due = true;
        }
    }

    pub(super) fn note_notice(&mut self, notice: &Notice) {
        match notice {
            Notice::RollStarted { roll, from, to, trigger, workers } => {
                let due = (!self.this_step.rolls_due.is_empty()).then(|| self.this_step.rolls_due.remove(0));
                let begun = Some((*roll, *from, *to, *trigger));
                self.object(
                    "a roll begins when it is asked for",
                    due == begun && *workers == self.desired,
                    || format!("{begun:?}, expected {due:?}"),
                );
            }
            Notice::RollJoined { roll, trigger } => self.note_due(Due::Joined(*roll, *trigger)),
            Notice::RollQueued { trigger, why } => {
                self.object("a request joins or waits", !why.is_empty(), || "no reason".to_owned());
                self.note_due(Due::Queued(*trigger));
            }
            Notice::BreakerOpen { reset, .. } => {
                self.rolls.breaker.told += 1;
                let right = *reset == self.config.breaker.reset;
                self.object("the breaker's opening is told", right, || format!("for {reset:?}"));
            }
            Notice::WorkerKilled { pid, .. } => self.note_killed(*pid),
            Notice::RollFailed { reason, .. } => self.note_failed(reason),
            Notice::RollOver { roll, outcome, least_ready, .. } => {
                self.note_over(*roll, *outcome, *least_ready);
            }
            Notice::RollRefused { reason, .. } if reason.starts_with("no memory") => self.note_recalled(),
            Notice::RollHolds { .. } => self.note_holds(),
            Notice::RollPauses { .. } => {
                self.nobody_is_on_the_way("a pause comes between batches", &[]);
                if let Some(roll) = &mut self.rolls.running {
                    roll.paused = Some(self.now);
                }
            }
            Notice::WorkerRecycled { slot, pid, why } => self.note_recycled(*slot, *pid, *why),
            Notice::RollShortOfMemory { .. } => {
                self.this_step.saw.push("short of memory");
            }
            _ => {}
        }
    }

    fn note_due(&mut self, told: Due) {
        let due = self.this_step.notes_due.iter().position(|due| *due == told);
        self.object("a request joins or waits", due.is_some(), || format!("{told:?} was not due"));
        due.into_iter().for_each(|index| _ = self.this_step.notes_due.remove(index));
    }

    /// Where memory is short in the middle of it, nothing but the core's word tells.
    fn note_failed(&mut self, reason: &str) {
        let short = reason.starts_with("no memory") && self.this_step.failures_due == 0;
        if short && self.rolls.forward().is_some() {
            self.demand_shortage();
            self.fail_roll();
            self.this_step.saw.push("no memory in the middle of a roll");
        }
        let due = self.this_step.failures_due;
        self.object("a roll fails with its workers", due == 1, || format!("told once, due {due} times"));
        self.this_step.failures_due = 0;
    }

    /// It would have to begin with a loss.
    fn note_recalled(&mut self) {
        self.demand_shortage();
        let Some(roll) = self.rolls.running.take() else {
            return self
                .object("a roll begins when it is asked for", false, || "recalled nothing".to_owned());
        };
        self.object("a roll begins when it is asked for", roll.turned.is_empty(), || {
            format!("recalled after {:?} were turned", roll.turned)
        });
        self.rolls.refused += 1;
        self.this_step.saw.push("refused for want of memory");
        roll.waiting.into_iter().for_each(|request| self.answer(Some(request), Answer::Refused));
        roll.aborters.into_iter().for_each(|request| self.answer(Some(request), Answer::Refused));
        self.begin_queued();
    }

    fn note_over(&mut self, id: u64, outcome: RollOutcome, least_ready: u32) {
        let Some(mut roll) = self.rolls.running.take() else {
            return self.object("a roll ends once", false, || format!("roll {id} is over, none ran"));
        };
        self.rolls.ended = self.now;
        if outcome != RollOutcome::Dropped {
            roll.least_ready = roll.least_ready.min(self.ready());
        }
        let expected = if self.this_step.drop_due {
            RollOutcome::Dropped
        } else {
            roll.back.unwrap_or(RollOutcome::Rolled)
        };
        self.object("a roll ends once", roll.id == id && outcome == expected, || {
            format!("roll {id} {outcome:?}, expected {expected:?} of {}", roll.id)
        });
        let least = roll.least_ready.min(self.desired);
        self.object("the least number of ready workers is told", least_ready == least, || {
            format!("{least_ready}, expected {least}")
        });
        self.judge_end(&roll, outcome);
        self.this_step.ended.push(Ended {
            id,
            from: roll.from.generation,
            to: roll.to.generation,
            version: roll.target.version.clone(),
            outcome,
            began: roll.began,
            replaced: roll.replaced,
            unseen: roll.unseen_gone + roll.unseen.difference(&roll.turned).count() as u32,
            failures: roll.failures,
            least_ready: least,
            workers: self.desired,
        });
        *self.rolls.outcomes.entry(outcome.name()).or_default() += 1;
        let (answer, undone) = match outcome {
            RollOutcome::Rolled => (Answer::Done, Answer::Done),
            RollOutcome::RolledBack | RollOutcome::Aborted => (Answer::RolledBack, Answer::Done),
            RollOutcome::Dropped => (Answer::Refused, Answer::Refused),
        };
        if roll.trial {
            self.this_step.saw.push(match outcome {
                RollOutcome::Rolled => "a trial succeeded",
                RollOutcome::RolledBack => "a trial failed",
                RollOutcome::Aborted | RollOutcome::Dropped => "a trial was given up",
            });
        }
        if outcome == RollOutcome::Rolled {
            self.rolls.edition = roll.to;
            self.rolls.target = roll.target;
            self.rolls.breaker.on_rolled();
        } else {
            self.rolls.given_up.insert(roll.to.generation);
            let names_none = self.rolls.queued.as_ref().is_some_and(|queued| queued.target.is_none());
            if names_none && roll.to.release != self.rolls.target.release {
                self.this_step.saw.push("what had changed went its own way");
            }
        }
        self.this_step.drop_due = false;
        roll.waiting.into_iter().for_each(|request| self.answer(Some(request), answer));
        roll.aborters.into_iter().for_each(|request| self.answer(Some(request), undone));
        self.begin_queued();
    }

    /// What was not let through when it was asked for.
    pub(super) fn begin_kept(&mut self) {
        let ends = self.ending.is_some() || self.crash_loop;
        if self.rolls.running.is_none() && self.may_roll() && !ends {
            self.begin_queued();
        }
    }

    fn begin_queued(&mut self) {
        let Some(queued) = self.rolls.queued.take() else { return };
        if self.may_roll() {
            self.this_step.saw.push("queued, then begun");
            let target = queued.target.unwrap_or_else(|| self.rolls.target.clone());
            return self.begin_roll(queued.trigger, target, queued.waiting);
        }
        if queued.trigger == RollTrigger::Watch {
            self.rolls.queued = Some(queued);
            return;
        }
        if queued.watched {
            self.this_step.saw.push("a watched roll outlived its successor");
            self.rolls.queued = Some(Waiting::for_what_changed());
        }
        self.rolls.refused += 1;
        queued.waiting.into_iter().for_each(|request| self.answer(Some(request), Answer::Refused));
    }
}
