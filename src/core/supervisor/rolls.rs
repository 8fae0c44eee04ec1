//! Rolls: who asks for one, whether it may begin, and what becomes of whoever waits for its end.

use super::Supervisor;
use crate::core::config::Kind;
use crate::core::drain::Life;
use crate::core::event::{Action, Notice, Outcome, RequestId, RollOrder, RollTrigger};
use crate::core::roll::{Progress, Roll};
use crate::core::snapshot::RollOutcome;
use crate::core::timeline::Timeline;
use crate::core::types::{Edition, Generation, Release, SlotIndex, Target};

/// The roll that follows the one that runs.
#[derive(Debug)]
pub(super) struct Queued {
    trigger: RollTrigger,
    /// `None`: whatever the pool is by then. What has changed on disk is no reason to try again what has just failed.
    target: Option<Target>,
    waiting: Vec<RequestId>,
    /// A watched path has changed, be it that this took the place of the roll that was to follow.
    watched: bool,
}

impl Queued {
    /// Nobody asks again for what has changed on disk.
    fn for_what_changed() -> Self {
        Self { trigger: RollTrigger::Watch, target: None, waiting: Vec::new(), watched: true }
    }

    pub(super) fn release(&self) -> Option<Release> {
        self.target.as_ref().map(|target| target.release)
    }
}

impl Supervisor {
    /// A signal asks for it; it waits for no answer.
    pub(super) fn roll_by_signal(&mut self, trigger: RollTrigger) {
        if let Err(reason) = self.order_roll(trigger, None, None) {
            self.refuse_roll(trigger, &reason);
        }
    }

    pub(super) fn on_roll_ordered(&mut self, order: RollOrder, request: RequestId) {
        let RollOrder { target, trigger, wait } = order;
        match self.order_roll(trigger, target, wait.then_some(request)) {
            Ok(text) if !wait => self.ctx.act(Action::Reply { request, outcome: Outcome::Done(text) }),
            Ok(_) => {}
            Err(reason) => {
                self.refuse_roll(trigger, &reason);
                self.ctx.act(Action::Reply { request, outcome: Outcome::Refused(reason) });
            }
        }
    }

    fn refuse_roll(&mut self, trigger: RollTrigger, reason: &str) {
        self.history.on_refused();
        self.ctx.tell(Notice::RollRefused { trigger, reason: reason.to_owned() });
    }

    /// Begin it, join the one that runs, or wait for its end: whoever came last is the one that counts.
    fn order_roll(
        &mut self,
        trigger: RollTrigger,
        target: Option<Target>,
        waiter: Option<RequestId>,
    ) -> Result<String, String> {
        // A watched path says nothing of what the pool shall be.
        let wanted = target.or_else(|| match trigger {
            RollTrigger::Watch => self.queued.as_ref().and_then(|queued| queued.target.clone()),
            RollTrigger::Signal(_) | RollTrigger::Request => Some(self.target_ahead().clone()),
        });
        let target = wanted.as_ref().unwrap_or_else(|| self.target_ahead()).clone();
        if let Err(reason) = self.may_roll() {
            let can_wait = trigger == RollTrigger::Watch && !self.life.is_ending();
            if !can_wait || self.ctx.config.kind == Kind::Single {
                return Err(reason);
            }
            return Ok(self.queue_roll(trigger, wanted, waiter, &reason));
        }
        let Some(roll) = &mut self.roll else {
            let text = format!("generation {} is on its way", self.last_generation.0 + 1);
            // What could not begin before and may do so in this very moment is older.
            let mut waiting = self.inherit(target.release);
            waiting.extend(waiter);
            self.begin_roll(trigger, target, waiting);
            return Ok(text);
        };
        let same = roll.is_forward() && roll.to.release == target.release && trigger != RollTrigger::Watch;
        if same {
            roll.waiting.extend(waiter);
            self.ctx.tell(Notice::RollJoined { roll: roll.id, trigger });
            let text = format!("generation {} is on its way already", roll.to.generation.0);
            let leads_there = |queued: &Queued| queued.release().is_none_or(|ahead| ahead == target.release);
            let is_kept = self
                .queued
                .as_ref()
                .is_some_and(|queued| queued.trigger == RollTrigger::Watch && leads_there(queued));
            if !is_kept {
                // What has changed on disk has not been read by whoever runs already.
                let watched = self.queued.as_ref().is_some_and(|queued| queued.watched);
                self.supersede("the roll that runs was asked for once more");
                self.queued = watched.then(Queued::for_what_changed);
            }
            return Ok(text);
        }
        let why = format!("roll {} is not over", roll.id);
        Ok(self.queue_roll(trigger, wanted, waiter, &why))
    }

    /// Let it begin as soon as that may be.
    fn queue_roll(
        &mut self,
        trigger: RollTrigger,
        target: Option<Target>,
        waiter: Option<RequestId>,
        why: &str,
    ) -> String {
        let watched =
            trigger == RollTrigger::Watch || self.queued.as_ref().is_some_and(|queued| queued.watched);
        let ahead = target.as_ref().unwrap_or_else(|| self.target_ahead()).release;
        let mut waiting = self.inherit(ahead);
        waiting.extend(waiter);
        self.ctx.tell(Notice::RollQueued { trigger, why: why.to_owned() });
        self.queued = Some(Queued { trigger, target, waiting, watched });
        format!("queued: {why}")
    }

    /// Whoever waits for the same; another one that is queued is out.
    fn inherit(&mut self, release: Release) -> Vec<RequestId> {
        let ahead = self.target_ahead().release;
        if let Some(queued) = self.queued.take_if(|_| ahead == release) {
            return queued.waiting;
        }
        self.supersede("a later request took its place");
        Vec::new()
    }

    fn may_roll(&self) -> Result<(), String> {
        if self.ctx.config.kind == Kind::Single {
            return Err("not a pool: it has one worker and no --listen".to_owned());
        }
        if !matches!(self.life, Life::Running) {
            return Err(format!("the pool is {} and is not rolled any more", self.phase().name()));
        }
        if !self.begun {
            return Err(
                "nothing to roll yet: workers are not started before --wait-for has been answered".to_owned()
            );
        }
        match self.breaker.refusal(self.ctx.now) {
            Some((why, left)) => {
                Err(format!("the breaker is open for {:.0} s more: {why}", left.as_secs_f64().ceil()))
            }
            None => Ok(()),
        }
    }

    /// What the pool is, once everything that has been asked for is done.
    pub(super) fn target_ahead(&self) -> &Target {
        let rolling = self.roll.as_ref().filter(|roll| roll.is_forward()).map(|roll| &roll.target);
        let queued = self.queued.as_ref().and_then(|queued| queued.target.as_ref());
        queued.or(rolling).unwrap_or(&self.target)
    }

    fn supersede(&mut self, why: &str) {
        let Some(queued) = self.queued.take() else { return };
        let reason = format!("superseded: {why}");
        self.refuse_roll(queued.trigger, &reason);
        self.answer(queued.waiting, &Outcome::Refused(reason));
    }

    fn begin_roll(&mut self, trigger: RollTrigger, target: Target, waiting: Vec<RequestId>) {
        self.last_generation = Generation(self.last_generation.0 + 1);
        self.last_roll += 1;
        let to = Edition { generation: self.last_generation, release: target.release };
        let (id, from) = (self.last_roll, self.pool.edition());
        let mut roll = Roll::new(id, trigger, from, to, target, &self.ctx);
        roll.waiting = waiting;
        self.roll = Some(roll);
        self.pool.set_roll(Some(id));
        self.scales.forget();
        self.timeline = Timeline::begin(self.ctx.now);
        self.ctx.tell(Notice::RollStarted {
            roll: id,
            from: from.generation,
            to: to.generation,
            trigger,
            workers: self.pool.desired(),
        });
    }

    /// Move the roll on as far as it goes, and the one that waits for it.
    pub(super) fn advance_roll(&mut self) {
        self.write_stragglers();
        self.timeline.follow(&self.pool, self.ctx.now);
        self.move_roll();
    }

    fn move_roll(&mut self) {
        let may_turn = matches!(self.life, Life::Running);
        // Where every worker has finished there is nothing to roll.
        if self.pool.is_finished() {
            return;
        }
        // What was not let through when it was asked for.
        if self.roll.is_none() && self.queued.is_some() && self.may_roll().is_ok() {
            self.begin_queued();
        }
        while let Some(mut roll) = self.roll.take_if(|_| !self.life.is_ending() && !self.pool.is_finished()) {
            // Whoever has something better may try, where that is let through.
            if roll.is_stuck() && self.queued.is_some() && self.may_roll().is_ok() {
                self.pool.recall_turns(&mut self.ctx);
                roll.observe(&self.pool);
                self.roll = Some(roll);
                self.end_roll();
                continue;
            }
            let progress = roll.advance(may_turn, &mut self.pool, &mut self.scales, &mut self.ctx);
            let begun = roll.has_begun();
            self.roll = Some(roll);
            match progress {
                Progress::Waiting => return,
                Progress::Over => self.end_roll(),
                Progress::Failed(reason) if begun => self.fail_roll(reason),
                Progress::Failed(reason) => self.recall_roll(&reason),
            }
        }
    }

    fn write_stragglers(&mut self) {
        while let Some(roll) = self.pool.take_straggler() {
            self.stragglers.push(roll);
        }
        let running = self.roll.as_ref().map(|roll| roll.id);
        for roll in self.stragglers.extract_if(.., |roll| Some(*roll) != running) {
            self.history.on_straggler(roll);
        }
    }

    /// Its workers are where they shall be.
    fn end_roll(&mut self) {
        let Some(roll) = self.roll.as_ref() else { return };
        let (outcome, reason) = roll.verdict();
        if outcome == RollOutcome::Rolled {
            self.pool.become_edition(roll.to);
            self.target = roll.target.clone();
            self.breaker.on_rolled();
        }
        self.close_roll(outcome, reason);
        self.begin_queued();
    }

    /// Nothing of it is under way any more.
    fn close_roll(&mut self, outcome: RollOutcome, reason: Option<String>) {
        let Some(roll) = self.roll.take() else { return };
        self.pool.end_turns();
        self.pool.set_roll(None);
        self.scales.forget();
        self.timeline.follow(&self.pool, self.ctx.now);
        self.timeline.end();
        let record = roll.record(outcome, reason.clone(), self.pool.desired(), self.ctx.now);
        self.ctx.tell(Notice::RollOver {
            roll: roll.id,
            outcome,
            reason: reason.clone(),
            generation: self.pool.edition().generation,
            took: std::time::Duration::from_secs_f64(record.duration_seconds),
            replaced: record.replaced,
            least_ready: record.least_ready,
        });
        let took = record.duration_seconds;
        let (generation, least) = (roll.to.generation.0, record.least_ready);
        self.history.add(record);
        self.write_stragglers();
        let reason = reason.unwrap_or_default();
        let end = match outcome {
            RollOutcome::Rolled => Outcome::Done(format!(
                "rolled to generation {generation} in {took:.1} s; never fewer than {least} workers ready"
            )),
            RollOutcome::RolledBack => Outcome::RolledBack(format!("rolled back: {reason}")),
            RollOutcome::Aborted => Outcome::RolledBack(format!("aborted: {reason}")),
            RollOutcome::Dropped => Outcome::Refused(format!("the roll was dropped: {reason}")),
        };
        self.answer(roll.waiting, &end);
        let undone = match outcome {
            RollOutcome::Dropped => Outcome::Refused(reason),
            RollOutcome::Rolled | RollOutcome::RolledBack | RollOutcome::Aborted => {
                Outcome::Done(format!("generation {} is restored", self.pool.edition().generation.0))
            }
        };
        self.answer(roll.aborters, &undone);
    }

    fn begin_queued(&mut self) {
        let Some(queued) = self.queued.take() else { return };
        match self.may_roll() {
            Ok(()) => {
                let target = queued.target.unwrap_or_else(|| self.target.clone());
                self.begin_roll(queued.trigger, target, queued.waiting);
            }
            Err(_) if queued.trigger == RollTrigger::Watch => self.queued = Some(queued),
            Err(reason) => {
                self.queued = queued.watched.then(Queued::for_what_changed);
                self.refuse_roll(queued.trigger, &reason);
                self.answer(queued.waiting, &Outcome::Refused(reason));
            }
        }
    }

    /// It would have to begin with a loss: nothing has been started.
    fn recall_roll(&mut self, reason: &str) {
        let Some(roll) = self.roll.take() else { return };
        self.pool.end_turns();
        self.pool.set_roll(None);
        self.scales.forget();
        self.timeline.end();
        self.refuse_roll(roll.trigger, reason);
        self.answer(roll.waiting, &Outcome::Refused(reason.to_owned()));
        self.answer(roll.aborters, &Outcome::Refused("no roll is running".to_owned()));
        self.begin_queued();
    }

    /// A worker of a generation failed. Says whether that was the roll's, and is no crash of the pool's.
    pub(super) fn on_generation_failed(
        &mut self,
        generation: Generation,
        slot: SlotIndex,
        what: &str,
    ) -> bool {
        let Some(roll) = &mut self.roll else { return false };
        if generation != roll.to.generation {
            if !roll.is_forward() {
                roll.on_retreat_failed();
            }
            return false;
        }
        if !roll.is_forward() {
            return true;
        }
        roll.on_failure();
        self.fail_roll(format!("worker {slot} of generation {} {what}", generation.0));
        true
    }

    fn fail_roll(&mut self, reason: String) {
        let Some(roll) = &mut self.roll else { return };
        let (id, to) = (roll.id, roll.to.generation);
        self.ctx.tell(Notice::RollFailed { roll: id, reason: reason.clone(), to });
        roll.retreat(RollOutcome::RolledBack, reason, &mut self.pool, &mut self.ctx);
        let now = self.ctx.now;
        if let Some(why) = self.breaker.on_roll_failed(now) {
            self.tell_breaker_open(why);
        }
    }

    pub(super) fn tell_breaker_open(&mut self, reason: String) {
        let reset = self.breaker.reset();
        self.ctx.tell(Notice::BreakerOpen { reason, reset });
    }

    pub(super) fn on_abort(&mut self, request: RequestId) {
        self.supersede("the roll before it was aborted");
        let Some(roll) = &mut self.roll else {
            let outcome = Outcome::Refused("no roll is running".to_owned());
            return self.ctx.act(Action::Reply { request, outcome });
        };
        roll.aborters.push(request);
        if roll.is_forward() {
            let reason = "by request".to_owned();
            let (id, to) = (roll.id, roll.to.generation);
            self.ctx.tell(Notice::RollFailed { roll: id, reason: format!("aborted {reason}"), to });
            roll.retreat(RollOutcome::Aborted, reason, &mut self.pool, &mut self.ctx);
        }
    }

    /// A drain that is meant: the generations are all one to it.
    pub(super) fn drop_roll(&mut self, why: &str) {
        self.supersede(why);
        self.close_roll(RollOutcome::Dropped, Some(why.to_owned()));
    }

    fn answer(&mut self, requests: Vec<RequestId>, outcome: &Outcome) {
        for request in requests {
            self.ctx.act(Action::Reply { request, outcome: outcome.clone() });
        }
    }
}
