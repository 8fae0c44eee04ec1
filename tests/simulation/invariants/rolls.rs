//! What holds of rolls, recyclings and the breaker.

use drainit::core::event::{Action, Notice};
use drainit::core::snapshot::{RollOutcome, RollStage};

use super::super::books::{Books, Ended};
use super::super::records::Step;
use super::{Check, Verdict, demand};

/// Judged action by action, as the books are kept; here they are held against the core.
macro_rules! promises {
    ($($name:literal),* $(,)?) => {
        [$(($name, (|books, _| promised(books, $name)) as Check)),*]
    };
}

pub(crate) const PROMISES: &[(&str, Check)] = &promises![
    "a batch waits for those who leave",
    "a drain suspends a roll",
    "a farewell has a reason",
    "a pause comes between batches",
    "a replacement proves itself first",
    "a request joins or waits",
    "a roll is over when nobody is heard any more",
    "a roll begins when it is asked for",
    "a roll ends at full strength",
    "a roll ends once",
    "a roll fails with its workers",
    "canaries come first",
    "enough serve while others are replaced",
    "everybody is of the generation that is due",
    "memory is weighed before a surge",
    "never more than the surge allows",
    "nobody is spawned for what has been given up",
    "one batch follows the other",
    "recycling waits its turn",
    "spawns fill vacancies",
    "the breaker's opening is told",
    "the least number of ready workers is told",
];

pub(crate) const ROLLS: &[(&str, Check)] = &[
    ("every objection has a name", every_objection_has_a_name),
    ("requests to roll are answered in time", requests_are_answered_in_time),
    ("rolls begin and end when they have to", rolls_begin_and_end),
    ("the roll is told as it is", the_roll_is_told_as_it_is),
    ("the breaker is told as it is", the_breaker_is_told_as_it_is),
    ("the history adds up", the_history_adds_up),
    ("whoever has failed is gone at once", whoever_has_failed_is_gone_at_once),
    ("whoever may be heard is listened to", whoever_may_be_heard_is_listened_to),
];

fn promised(books: &Books, name: &str) -> Verdict {
    let broken = books.this_step.objections.iter().find(|(promise, _)| *promise == name);
    demand(broken.is_none(), || broken.map(|(_, why)| why.clone()).unwrap_or_default())
}

fn every_objection_has_a_name(books: &Books, _: &Step<'_>) -> Verdict {
    let unnamed = books
        .this_step
        .objections
        .iter()
        .find(|(promise, _)| PROMISES.iter().all(|(known, _)| known != promise));
    demand(unnamed.is_none(), || format!("{unnamed:?}"))
}

/// At once, or with the end of the roll, by what became of it: each once.
fn requests_are_answered_in_time(books: &Books, _: &Step<'_>) -> Verdict {
    let step = &books.this_step;
    let (mut due, mut given) = (step.answers_due.clone(), step.answers.clone());
    due.sort();
    given.sort();
    demand(due == given, || format!("{given:?}, expected {due:?}"))
}

fn rolls_begin_and_end(books: &Books, _: &Step<'_>) -> Verdict {
    let step = &books.this_step;
    demand(step.rolls_due.is_empty(), || format!("never begun: {:?}", step.rolls_due))?;
    demand(step.notes_due.is_empty(), || format!("never told: {:?}", step.notes_due))?;
    demand(step.failures_due == 0, || "a failure that nobody told of".to_owned())?;
    demand(!step.drop_due, || "the roll was not dropped".to_owned())
}

fn the_roll_is_told_as_it_is(books: &Books, step: &Step<'_>) -> Verdict {
    let rolls = &books.rolls;
    let known = rolls.running.as_ref().map(|roll| (roll.id, roll.from.generation, roll.to.generation));
    let told = step.after.roll.as_ref().map(|roll| (roll.roll, roll.from, roll.to));
    demand(known == told, || format!("{told:?}, expected {known:?}"))?;
    let generation = step.after.generation;
    demand(generation == rolls.edition.generation, || {
        format!("{generation:?}, expected {:?}", rolls.edition)
    })?;
    let Some((view, roll)) = step.after.roll.as_ref().zip(rolls.running.as_ref()) else { return Ok(()) };
    let back = view.stage == RollStage::RollingBack;
    demand(back == roll.back.is_some() && view.reason.is_some() == back, || format!("{view:?}"))?;
    let queued = rolls.queued.is_some();
    demand(view.queued == queued, || format!("{view:?}, queued: {queued}"))
}

fn the_breaker_is_told_as_it_is(books: &Books, step: &Step<'_>) -> Verdict {
    let expected = books.rolls.breaker.state(books.now);
    demand(step.after.breaker == expected, || format!("{:?}, expected {expected:?}", step.after.breaker))?;
    let breaker = &books.rolls.breaker;
    demand(breaker.told == breaker.openings, || {
        format!("told of {} times, has opened {} times", breaker.told, breaker.openings)
    })
}

fn the_history_adds_up(books: &Books, step: &Step<'_>) -> Verdict {
    let (totals, history) = (&step.after.rolls, &step.after.history);
    let count = |outcome: RollOutcome| books.rolls.outcomes.get(outcome.name()).copied().unwrap_or(0);
    let counted = [totals.rolled, totals.rolled_back, totals.aborted, totals.dropped];
    let expected = RollOutcome::ALL.map(count);
    demand(counted == expected && totals.total == expected.iter().sum::<u64>(), || {
        format!("{totals:?}, expected {expected:?}")
    })?;
    demand(totals.refused == books.rolls.refused, || {
        format!("{} refused, expected {}", totals.refused, books.rolls.refused)
    })?;
    let remembered = totals.total.min(100) as usize;
    demand(history.len() == remembered, || format!("{} remembered of {}", history.len(), totals.total))?;
    books.this_step.ended.iter().try_for_each(|ended| recorded(ended, books, step))
}

fn recorded(ended: &Ended, books: &Books, step: &Step<'_>) -> Verdict {
    let record = step.after.history.iter().rev().find(|record| record.roll == ended.id);
    let record = record.ok_or_else(|| format!("no record of {ended:?}"))?;
    let names = record.from == ended.from && record.to == ended.to && record.version == ended.version;
    let (began, took) = (ended.began.since_start(), books.now.since(ended.began));
    let times = record.began_seconds == began.as_secs_f64() && record.duration_seconds == took.as_secs_f64();
    let replaced = (ended.replaced..=ended.replaced + ended.unseen).contains(&record.replaced);
    let counts = record.failures == ended.failures
        && record.least_ready == ended.least_ready
        && record.workers == ended.workers;
    let reason = record.reason.is_some() == (ended.outcome != RollOutcome::Rolled);
    let right = names && times && replaced && counts && reason && record.outcome == ended.outcome;
    demand(right, || format!("{record:?}, expected {ended:?}"))?;
    let told = step.actions.iter().any(|action| {
        matches!(action, Action::Tell(Notice::RollOver { roll, replaced, least_ready, .. })
            if (*roll, *replaced, *least_ready) == (record.roll, record.replaced, record.least_ready))
    });
    demand(told, || format!("{record:?} was told otherwise"))
}

/// Of a generation that goes, nobody is on his way any more.
fn whoever_has_failed_is_gone_at_once(books: &Books, _: &Step<'_>) -> Verdict {
    let Some(roll) = books.rolls.running.as_ref().filter(|roll| roll.back.is_some()) else { return Ok(()) };
    let on_its_way = books
        .workers
        .iter()
        .find(|(_, worker)| worker.generation == roll.to.generation && worker.is_starting());
    demand(on_its_way.is_none(), || format!("{on_its_way:?}"))
}

/// Where nothing but them keeps a roll from its end: nobody else would say when they accept no more.
fn whoever_may_be_heard_is_listened_to(books: &Books, _: &Step<'_>) -> Verdict {
    let Some(roll) = books.rolls.running.as_ref().filter(|_| !books.config.own_queues) else { return Ok(()) };
    let wanted = if roll.back.is_some() { roll.from.generation } else { roll.to.generation };
    if books.ending.is_some() || !books.has_arrived(wanted) {
        return Ok(());
    }
    let unheeded = books.workers.iter().find(|(_, worker)| {
        let leaves = worker.told.is_some() && !worker.killed && worker.pid.is_some();
        leaves && worker.generation != wanted && !worker.deaf && !worker.listened_to
    });
    demand(unheeded.is_none(), || format!("{unheeded:?}"))
}
