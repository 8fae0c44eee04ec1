//! One roll: from one generation to the next, or back.
//!
//! Each slot gets its turn: a worker of the new generation is started beside the old one (surge) or after it
//! (unavailable), proves itself, and takes the slot; only then is the old one told to go. Slots in which nobody serves
//! come first, for there is nothing to lose. One failure of a new worker, and the same machine goes back to where it
//! came from: those that were on their way are stopped at once, those that have arrived are replaced in turn.

use std::time::Duration;

use super::context::Context;
use super::event::{Notice, RequestId, RollTrigger};
use super::history::RollRecord;
use super::pool::{Pool, Standing, Survey, Turn};
use super::scales::Scales;
use super::snapshot::{RollOutcome, RollStage, RollView};
use super::time::Time;
use super::types::{Edition, Generation, SlotIndex, Target};

#[derive(Debug)]
pub(super) struct Roll {
    pub(super) id: u64,
    pub(super) trigger: RollTrigger,
    pub(super) from: Edition,
    pub(super) to: Edition,
    pub(super) target: Target,
    began: Time,
    /// Who wants to know how it ends.
    pub(super) waiting: Vec<RequestId>,
    /// Who wants to know when it is undone.
    pub(super) aborters: Vec<RequestId>,
    course: Course,
    /// Canaries that have not been judged yet.
    canaries: Option<u32>,
    /// Slots that have been given to the new generation.
    replaced: u32,
    failures: u32,
    least_ready: u32,
    done: u32,
    short_of_memory: bool,
}

#[derive(Debug)]
enum Course {
    Forward(Pace),
    Back(Retreat),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Slots may be turned.
    Going,
    /// Those that have been turned come first.
    Batch,
    Pausing(Time),
    Holding(Time),
}

#[derive(Debug)]
struct Retreat {
    outcome: RollOutcome,
    reason: String,
    /// The old generation's workers do not come up either.
    stuck: bool,
}

/// What a roll wants next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// To be asked again when something has happened.
    Waiting,
    /// It goes no further forward.
    Failed(String),
    Over,
}

/// Whether one more worker can be beside the others.
enum Memory {
    Fits,
    /// There is too little of it; or, where that has not been told, the surge is used up.
    Short {
        told: bool,
    },
    /// It is being found out.
    Unknown,
}

const NO_MEMORY: &str =
    "no memory for one worker more below the limit of the cgroup, and --max-unavailable lets none go first";

/// How many may come and go, and what is needed to count.
struct Bounds {
    target: Edition,
    min_ready: Duration,
    surge: u32,
    unavailable: u32,
}

impl Roll {
    pub(super) fn new(
        id: u64,
        trigger: RollTrigger,
        from: Edition,
        to: Edition,
        target: Target,
        ctx: &Context,
    ) -> Self {
        Self {
            id,
            trigger,
            from,
            to,
            target,
            began: ctx.now,
            waiting: Vec::new(),
            aborters: Vec::new(),
            course: Course::Forward(Pace::Going),
            canaries: ctx.config.roll.canary.map(|canary| canary.workers),
            replaced: 0,
            failures: 0,
            least_ready: u32::MAX,
            done: 0,
            short_of_memory: false,
        }
    }

    pub(super) fn is_forward(&self) -> bool {
        matches!(self.course, Course::Forward(_))
    }

    /// It goes back, and does not get there: whoever has something better may try.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(&self.course, Course::Back(retreat) if retreat.stuck)
    }

    /// The old generation's workers do not come up either.
    pub(super) fn on_retreat_failed(&mut self) {
        if let Course::Back(retreat) = &mut self.course {
            retreat.stuck = true;
        }
    }

    pub(super) fn on_failure(&mut self) {
        self.failures += 1;
    }

    /// Go back.
    pub(super) fn retreat(
        &mut self,
        outcome: RollOutcome,
        reason: String,
        pool: &mut Pool,
        ctx: &mut Context,
    ) {
        self.course = Course::Back(Retreat { outcome, reason, stuck: false });
        pool.undo(self.to.generation, self.from, ctx);
    }

    /// Do whatever can be done now. New slots are turned only where it `may_turn` them.
    pub(super) fn advance(
        &mut self,
        may_turn: bool,
        pool: &mut Pool,
        scales: &mut Scales,
        ctx: &mut Context,
    ) -> Progress {
        self.observe(pool);
        let progress = self.step(may_turn, pool, scales, ctx);
        // The old workers that it has told to go serve no more.
        self.observe(pool);
        progress
    }

    pub(super) fn observe(&mut self, pool: &Pool) {
        self.least_ready = self.least_ready.min(pool.ready());
    }

    fn step(&mut self, may_turn: bool, pool: &mut Pool, scales: &mut Scales, ctx: &mut Context) -> Progress {
        pool.leave_recycling_to_the_roll();
        let bounds = self.bounds(pool.desired(), ctx);
        let mut survey = pool.survey(bounds.target.generation, bounds.min_ready, ctx.now);
        let spare = survey.available.saturating_sub(Self::floor(&bounds, &survey, pool.desired()));
        if pool.promote(|turn| turn == Turn::Roll, bounds.min_ready, spare, ctx) {
            survey = pool.survey(bounds.target.generation, bounds.min_ready, ctx.now);
        }
        let standings = || survey.standings.iter().copied();
        let count = |wanted: Standing| {
            u32::try_from(standings().filter(|each| *each == wanted).count()).unwrap_or(u32::MAX)
        };
        self.done = count(Standing::Done);
        for (slot, _) in (0..).zip(standings()).filter(|(_, standing)| *standing == Standing::Done) {
            if pool.end_turn(slot) {
                let (roll, generation, done, of) =
                    (self.id, bounds.target.generation, self.done, pool.desired());
                ctx.tell(Notice::SlotTurned { roll, slot, generation, done, of });
            }
        }
        let underway = count(Standing::Underway);
        let finished = count(Standing::Finished);
        let all_done = self.done + finished == pool.desired();
        // Whoever asks once it is over is not to be answered by what was before. With a queue of its own nobody is sent there.
        let still_heard = survey.accepting && !ctx.config.own_queues;
        if all_done && still_heard {
            pool.await_deaf(bounds.target.generation, ctx);
        }
        let may_turn = may_turn
            && match self.course {
                Course::Back(_) if all_done && !still_heard => return Progress::Over,
                Course::Back(_) => true,
                Course::Forward(_) if underway == 0 => match self.between_batches(all_done, &survey, ctx) {
                    Some(Progress::Waiting) => false,
                    Some(over) => return over,
                    None => true,
                },
                Course::Forward(pace) => pace == Pace::Going,
            };
        if may_turn { self.turn(&bounds, &survey, underway, pool, scales, ctx) } else { Progress::Waiting }
    }

    /// Of which generation a worker counts only once it has been ready for so long.
    pub(super) fn yardstick(&self, ctx: &Context) -> (Generation, Duration) {
        match self.course {
            Course::Forward(_) => (self.to.generation, ctx.config.roll.min_ready_time),
            // It has proved itself before.
            Course::Back(_) => (self.from.generation, Duration::ZERO),
        }
    }

    fn bounds(&self, workers: u32, ctx: &Context) -> Bounds {
        let (surge, unavailable) = ctx.config.roll.bounds(workers);
        let (_, min_ready) = self.yardstick(ctx);
        let target = match self.course {
            Course::Forward(_) => self.to,
            Course::Back(_) => self.from,
        };
        Bounds { target, min_ready, surge, unavailable }
    }

    /// Workers below which nobody is told to go whose replacement is ready.
    fn floor(bounds: &Bounds, survey: &Survey, workers: u32) -> u32 {
        workers.saturating_sub(bounds.unavailable).saturating_sub(survey.written_off())
    }

    /// Workers below which nobody is told to go before his replacement comes. A slot that keeps crashing is one that is
    /// missing; on the way back it would be missing for ever, and all but the last can be done without for that.
    fn least(&self, bounds: &Bounds, survey: &Survey, written_off: u32, workers: u32) -> u32 {
        let promised = workers.saturating_sub(bounds.unavailable);
        match self.course {
            Course::Forward(_) => promised.saturating_sub(survey.finished),
            Course::Back(_) => promised.saturating_sub(written_off).max(promised.min(1)),
        }
    }

    /// Nobody is on the way. `None`: more slots may be turned.
    fn between_batches(&mut self, all_done: bool, survey: &Survey, ctx: &mut Context) -> Option<Progress> {
        let Course::Forward(pace) = &mut self.course else { return None };
        let rules = ctx.config.roll;
        let roll = self.id;
        match *pace {
            Pace::Holding(until) | Pace::Pausing(until) if until > ctx.now => return Some(Progress::Waiting),
            Pace::Holding(_) | Pace::Pausing(_) => {
                *pace = Pace::Going;
                return self.between_batches(all_done, survey, ctx);
            }
            Pace::Going | Pace::Batch => {
                if let Some((canaries, canary)) = self.canaries.zip(rules.canary)
                    && (self.done >= canaries || all_done)
                {
                    self.canaries = None;
                    // It is the pause after their batch, too.
                    *pace = Pace::Holding(ctx.now + canary.hold.max(rules.pause));
                    ctx.tell(Notice::RollHolds { roll, canaries: self.done, hold: canary.hold });
                    return self.between_batches(all_done, survey, ctx);
                }
            }
        }
        if rules.waits_for_drain && survey.leaving > 0 {
            return Some(Progress::Waiting);
        }
        if all_done {
            let still_heard = survey.accepting && !ctx.config.own_queues;
            return Some(if still_heard { Progress::Waiting } else { Progress::Over });
        }
        if *pace == Pace::Batch {
            *pace = Pace::Going;
            if !rules.pause.is_zero() {
                *pace = Pace::Pausing(ctx.now + rules.pause);
                ctx.tell(Notice::RollPauses { roll, pause: rules.pause });
                return Some(Progress::Waiting);
            }
        }
        None
    }

    /// Give slots to the generation that is wanted: as many as may be on the way at once.
    fn turn(
        &mut self,
        bounds: &Bounds,
        survey: &Survey,
        underway: u32,
        pool: &mut Pool,
        scales: &mut Scales,
        ctx: &mut Context,
    ) -> Progress {
        let workers = pool.desired();
        let mut room = workers.saturating_add(bounds.surge).saturating_sub(survey.committed);
        let mut written_off = survey.written_off();
        let mut available = survey.available;
        let mut canaries = match self.course {
            Course::Forward(_) => self.canaries.map(|canaries| canaries.saturating_sub(self.done + underway)),
            Course::Back(_) => None,
        };
        let (mut turned, mut newcomers) = (0, 0);
        for (slot, standing) in candidates(survey) {
            if canaries == Some(0) {
                break;
            }
            let alone = matches!(standing, Standing::Broken { alive: false, .. });
            let serves = standing == Standing::Serving;
            let spare = available.saturating_sub(self.least(bounds, survey, written_off, workers));
            let memory = if alone {
                Memory::Fits
            } else if room == 0 {
                Memory::Short { told: false }
            } else {
                self.memory_for(newcomers + 1, survey, scales, ctx)
            };
            let make_room = match memory {
                Memory::Unknown => break,
                Memory::Fits => false,
                Memory::Short { told } if serves && spare == 0 => {
                    // Whoever is on the way out leaves some.
                    if told && underway + turned + survey.leaving == 0 {
                        return Progress::Failed(NO_MEMORY.to_owned());
                    }
                    break;
                }
                // Without memory, one at a time.
                Memory::Short { told: true } if underway + turned > 0 => break,
                Memory::Short { .. } => true,
            };
            let is_newcomer = !make_room && !alone;
            room -= u32::from(is_newcomer);
            newcomers += u32::from(is_newcomer);
            available -= u32::from(make_room && serves);
            // Whoever comes now is waited for.
            written_off -= u32::from(matches!(standing, Standing::Broken { hopeless: true, .. }));
            canaries = canaries.map(|left| left - 1);
            turned += 1;
            pool.turn(slot, Turn::Roll, bounds.target, make_room, ctx);
        }
        if newcomers > 0 {
            scales.forget();
        }
        if let Course::Forward(pace) = &mut self.course {
            self.replaced += turned;
            if turned > 0 && ctx.config.roll.has_batches() {
                *pace = Pace::Batch;
            }
        }
        Progress::Waiting
    }

    /// Whether there is memory for so many more. Whoever goes back makes room by it, and is not asked.
    fn memory_for(&mut self, more: u32, survey: &Survey, scales: &mut Scales, ctx: &mut Context) -> Memory {
        if !self.is_forward() {
            return Memory::Fits;
        }
        match scales.room(survey.load(), ctx) {
            None => Memory::Unknown,
            Some(room) if room >= more => Memory::Fits,
            Some(_) => {
                if !std::mem::replace(&mut self.short_of_memory, true) {
                    ctx.tell(Notice::RollShortOfMemory { roll: self.id });
                }
                Memory::Short { told: true }
            }
        }
    }

    /// The next moment at which time alone changes something.
    pub(super) fn next_deadline(&self, pool: &Pool, ctx: &Context) -> Option<Time> {
        let pace = match self.course {
            Course::Forward(Pace::Holding(until) | Pace::Pausing(until)) => Some(until),
            Course::Forward(Pace::Going | Pace::Batch) | Course::Back(_) => None,
        };
        let proof = self
            .is_forward()
            .then(|| pool.next_proof(self.to.generation, ctx.config.roll.min_ready_time, ctx.now));
        pace.filter(|at| *at > ctx.now).into_iter().chain(proof.flatten()).min()
    }

    /// Nothing has been begun: a refusal, rather than a failure.
    pub(super) fn has_begun(&self) -> bool {
        self.replaced > 0
    }

    pub(super) fn record(
        &self,
        outcome: RollOutcome,
        reason: Option<String>,
        workers: u32,
        now: Time,
    ) -> RollRecord {
        RollRecord {
            roll: self.id,
            from: self.from.generation,
            to: self.to.generation,
            version: self.target.version.clone(),
            trigger: self.trigger.to_string(),
            outcome,
            reason,
            began_seconds: self.began.since_start().as_secs_f64(),
            duration_seconds: now.since(self.began).as_secs_f64(),
            replaced: self.replaced,
            failures: self.failures,
            least_ready: self.least_ready.min(workers),
            workers,
            short_of_memory: self.short_of_memory,
            stragglers: 0,
        }
    }

    /// What became of it, now that it is over.
    pub(super) fn verdict(&self) -> (RollOutcome, Option<String>) {
        match &self.course {
            Course::Forward(_) => (RollOutcome::Rolled, None),
            Course::Back(retreat) => (retreat.outcome, Some(retreat.reason.clone())),
        }
    }

    pub(super) fn view(&self, workers: u32, queued: bool, now: Time) -> RollView {
        let (stage, reason) = match &self.course {
            Course::Forward(Pace::Going | Pace::Batch) => (RollStage::Replacing, None),
            Course::Forward(Pace::Holding(_)) => (RollStage::Holding, None),
            Course::Forward(Pace::Pausing(_)) => (RollStage::Pausing, None),
            Course::Back(retreat) => (RollStage::RollingBack, Some(retreat.reason.clone())),
        };
        RollView {
            roll: self.id,
            from: self.from.generation,
            to: self.to.generation,
            version: self.target.version.clone(),
            trigger: self.trigger.to_string(),
            stage,
            reason,
            elapsed_seconds: now.since(self.began).as_secs_f64(),
            done: self.done,
            workers,
            least_ready: self.least_ready.min(workers),
            queued,
        }
    }
}

/// Slots that can be turned, those first in which nobody serves.
fn candidates(survey: &Survey) -> Vec<(SlotIndex, Standing)> {
    let slots = || (0..).zip(survey.standings.iter().copied());
    let broken = slots().filter(|(_, standing)| matches!(standing, Standing::Broken { .. }));
    broken.chain(slots().filter(|(_, standing)| *standing == Standing::Serving)).collect()
}
