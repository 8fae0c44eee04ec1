//! From one generation to the next, and back.

use std::time::Duration;

use drainit::core::config::{Backoff, BreakerRules, Canary, Config, Count, Restart, RollRules};
use drainit::core::event::{
    Action, Command, Event, Hang, Notice, Outcome, QuietEnd, RequestId, RollOrder, RollTrigger,
};
use drainit::core::signal::Signal;
use drainit::core::snapshot::{BreakerState, Phase, RollOutcome};
use drainit::core::types::{Exit, Release, WorkerId};

use super::story::{BY_TERM, Story, not_found, pool, refused};

fn rules(workers: u32, roll: RollRules) -> Config {
    Config { roll, ..pool(workers) }
}

fn recreate(workers: u32, unavailable: u32) -> Config {
    let (max_surge, max_unavailable) = (Count::Workers(0), Count::Workers(unavailable));
    rules(workers, RollRules { max_surge, max_unavailable, ..RollRules::default() })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn is_done(story: &Story, request: u64) -> bool {
    matches!(story.replied(request), Some(Outcome::Done(_)))
}

fn is_refused(story: &Story, request: u64) -> bool {
    matches!(story.replied(request), Some(Outcome::Refused(_)))
}

fn is_rolled_back(story: &Story, request: u64) -> bool {
    matches!(story.replied(request), Some(Outcome::RolledBack(_)))
}

#[test]
fn one_comes_proves_itself_and_one_goes() {
    let min_ready_time = seconds(2);
    let mut story = Story::serving(rules(2, RollRules { min_ready_time, ..RollRules::default() }));
    story.at(10.0).rolls(1, 2);
    story.weighed(9);
    assert_eq!(story.spawns(), [0]);
    story.comes_up(3);
    story.at(11.9);
    assert!(story.sent(Signal::TERM).is_empty(), "it has not proved itself");
    story.at(12.0);
    assert_eq!(story.sent(Signal::TERM), [101]);
    assert!(story.spawns().is_empty(), "the old one counts until it is gone");
    story.exits(1, BY_TERM);
    story.weighed(9);
    assert_eq!(story.spawns(), [1]);
    story.comes_up(4);
    story.at(14.0);
    assert_eq!(story.sent(Signal::TERM), [102]);
    story.exits(2, BY_TERM);
    assert!(is_done(&story, 1));
    assert_eq!(
        (story.outcomes(), story.generations()),
        (vec![RollOutcome::Rolled], vec![(0, 2, true), (1, 2, true)])
    );
    assert_eq!(story.core.snapshot(story.now).history[0].least_ready, 2);
}

#[test]
fn blue_and_green_stand_side_by_side() {
    let max_surge = Count::Percent(100);
    let mut story = Story::serving(rules(3, RollRules { max_surge, ..RollRules::default() }));
    story.rolls(1, 2);
    story.weighed(3);
    assert_eq!(story.spawns(), [0, 1, 2]);
    story.comes_up(4);
    assert_eq!(story.sent(Signal::TERM), [101]);
    story.comes_up(5);
    story.comes_up(6);
    (1..=3).for_each(|worker| story.exits(worker, BY_TERM));
    assert!(is_done(&story, 1));
}

#[test]
fn recreating_tells_everybody_first() {
    let mut story = Story::serving(recreate(2, 2));
    story.rolls(1, 2);
    assert_eq!((story.sent(Signal::TERM), story.spawns()), (vec![101, 102], vec![]));
    story.exits(1, BY_TERM);
    assert_eq!(story.spawns(), [0]);
    story.exits(2, BY_TERM);
    story.comes_up(3);
    story.comes_up(4);
    assert!(is_done(&story, 1));
    assert_eq!(story.core.snapshot(story.now).history[0].least_ready, 0);
}

#[test]
fn a_canary_that_fails_in_its_hold_is_all_that_was_replaced() {
    let canary = Some(Canary { workers: 1, hold: seconds(30) });
    let mut story = Story::serving(rules(3, RollRules { canary, ..RollRules::default() }));
    story.rolls(1, 2);
    story.weighed(9);
    story.comes_up(4);
    assert_eq!(story.sent(Signal::TERM), [101]);
    story.exits(1, BY_TERM);
    assert!(story.spawns().is_empty(), "it is being watched");
    story.at(20.0).exits(4, Exit::Code(1));
    assert_eq!(story.spawns(), [0]);
    story.comes_up(5);
    assert!(is_rolled_back(&story, 1));
    assert_eq!(story.generations(), [(0, 1, true), (1, 1, true), (2, 1, true)]);
}

#[test]
fn the_same_joins_another_waits_and_the_latest_counts() {
    let mut story = Story::serving(pool(1));
    story.rolls(1, 2);
    story.rolls(2, 2);
    assert_eq!(story.replied(2), None);
    story.rolls(3, 3);
    story.rolls(4, 4);
    assert!(is_refused(&story, 3), "superseded");
    story.tell(Event::Weighed { room: 9 });
    story.comes_up(2);
    story.exits(1, BY_TERM);
    assert!(is_done(&story, 1) && is_done(&story, 2));
    assert_eq!(story.replied(4), None);
    story.weighed(9);
    story.comes_up(3);
    story.exits(2, BY_TERM);
    assert!(is_done(&story, 4));
    assert_eq!(story.generations(), [(0, 3, true)]);
}

/// Whoever runs already has read what was there before.
#[test]
fn what_has_changed_on_disk_is_rolled_for_whoever_joins_meanwhile() {
    let mut story = Story::serving(pool(1));
    story.signal(Signal::HUP);
    story.watched_path_changes(7);
    story.signal(Signal::HUP);
    story.tell(Event::Weighed { room: 9 });
    story.comes_up(2);
    story.exits(1, BY_TERM);
    story.weighed(9);
    story.comes_up(3);
    story.exits(2, BY_TERM);
    assert_eq!(story.outcomes(), [RollOutcome::Rolled, RollOutcome::Rolled]);
    assert_eq!(story.generations(), [(0, 3, true)]);
}

#[test]
fn what_changes_while_the_breaker_is_open_is_rolled_for_later() {
    let mut story = with_an_open_breaker();
    story.at(2.0).watched_path_changes(7);
    assert!(story.spawns().is_empty());
    story.at(61.0);
    story.weighed(9);
    story.comes_up(3);
    story.exits(1, BY_TERM);
    assert_eq!(story.outcomes(), [RollOutcome::RolledBack, RollOutcome::Rolled]);
}

/// One failure opens it, at 1 s and for a minute.
fn with_an_open_breaker() -> Story {
    let breaker = BreakerRules { failures: 1, window: seconds(600), reset: seconds(60) };
    let mut story = Story::serving(Config { breaker, ..pool(1) });
    story.at(1.0).rolls(1, 2);
    story.weighed(9);
    story.spawn_fails(2, not_found());
    story
}

#[test]
fn whoever_waits_for_what_has_changed_is_answered_when_it_is_rolled() {
    let mut story = with_an_open_breaker();
    let order = RollOrder { target: None, trigger: RollTrigger::Watch, wait: true };
    story.tell(Event::Command { command: Command::Roll(order), request: RequestId(7) });
    assert_eq!(story.replied(7), None);
    story.at(61.0);
    story.weighed(9);
    story.comes_up(3);
    story.exits(1, BY_TERM);
    assert!(is_done(&story, 7));
}

/// Nobody was there when the breaker let it through, and the pool is not to go back to it afterwards.
#[test]
fn what_was_kept_gives_way_to_a_request_in_the_moment_it_may_begin() {
    let mut story = with_an_open_breaker();
    story.watched_path_changes(7);
    story.sleeps_until(61).rolls(8, 3);
    story.weighed(9);
    story.comes_up(3);
    story.exits(1, BY_TERM);
    assert!(is_done(&story, 8));
    assert_eq!(story.outcomes(), [RollOutcome::RolledBack, RollOutcome::Rolled]);
    assert!(story.core.snapshot(story.now).roll.is_none());
    assert_eq!(story.core.releases(), [Release(3)]);
}

#[test]
fn what_has_changed_is_rolled_for_where_the_request_that_took_its_place_is_refused() {
    let breaker = BreakerRules { failures: 1, window: seconds(600), reset: seconds(60) };
    let mut story = Story::serving(Config { breaker, ..pool(1) });
    story.at(1.0).rolls(1, 2);
    story.tell(Event::Weighed { room: 9 });
    story.watched_path_changes(7);
    story.rolls(8, 3);
    story.spawn_fails(2, not_found());
    assert!(is_refused(&story, 8), "the breaker is open");
    story.at(61.0);
    story.weighed(9);
    story.comes_up(3);
    story.exits(1, BY_TERM);
    assert_eq!(story.outcomes(), [RollOutcome::RolledBack, RollOutcome::Rolled]);
    assert_eq!(story.core.releases(), [Release(1)]);
}

#[test]
fn three_failures_open_the_breaker_and_a_trial_closes_it() {
    let breaker = BreakerRules { failures: 3, window: seconds(600), reset: seconds(60) };
    let mut story = Story::serving(Config { breaker, ..pool(1) });
    for worker in 2..=4 {
        story.at(worker as f64).rolls(worker, worker);
        story.weighed(9);
        story.spawn_fails(worker, not_found());
        assert!(is_rolled_back(&story, worker));
    }
    let state = |story: &Story| story.core.snapshot(story.now).breaker;
    assert_eq!(state(&story), BreakerState::Open);
    story.at(63.9).rolls(8, 8);
    assert!(is_refused(&story, 8));
    story.at(64.0);
    assert_eq!(state(&story), BreakerState::HalfOpen);
    story.rolls(9, 9);
    story.weighed(9);
    story.comes_up(5);
    story.exits(1, BY_TERM);
    assert!(is_done(&story, 9));
    assert_eq!((state(&story), story.phase()), (BreakerState::Closed, Phase::Serving));
}

#[test]
fn what_is_aborted_goes_back_to_full_strength() {
    let mut story = Story::serving(pool(2));
    story.rolls(1, 2);
    story.weighed(9);
    story.comes_up(3);
    story.exits(1, BY_TERM);
    story.weighed(9);
    assert_eq!(story.spawns(), [1]);
    story.spawned(4);
    story.aborts(2);
    assert_eq!(story.sent(Signal::TERM), [104], "it was on its way");
    story.exits(4, BY_TERM);
    assert_eq!(story.spawns(), [0]);
    story.comes_up(5);
    assert_eq!(story.sent(Signal::TERM), [103]);
    story.exits(3, BY_TERM);
    assert!(is_done(&story, 2) && is_rolled_back(&story, 1));
    assert_eq!(story.generations(), [(0, 1, true), (1, 1, true)]);
}

#[test]
fn a_term_in_the_middle_drops_it_and_drains_everybody() {
    let mut story = Story::serving(recreate(2, 1));
    story.rolls(1, 2);
    assert_eq!(story.sent(Signal::TERM), [101]);
    story.signal(Signal::TERM);
    assert!(is_refused(&story, 1));
    story.exits(1, BY_TERM);
    assert_eq!(story.spawns(), [0]);
    story.comes_up(3);
    assert_eq!(story.generations(), [(0, 1, true), (1, 1, true)], "what has been dropped is started no more");
    story.at(10.0);
    assert_eq!(story.sent(Signal::TERM), [102, 103]);
    assert_eq!(story.drains_with(BY_TERM), Some(0));
}

/// Nobody fills its slot in the end, which a deadline in the past would have waited for, for ever.
#[test]
fn who_was_to_make_room_makes_none_in_the_drain() {
    let mut story = Story::serving(recreate(1, 1));
    story.rolls(1, 2);
    story.signal(Signal::INT);
    story.exits(1, BY_TERM);
    assert!(story.spawns().is_empty());
    story.nothing_is_left();
    assert_eq!(story.exit_code(), Some(0));
}

#[test]
fn an_old_worker_that_crashes_in_a_roll_is_replaced_by_the_new_generation() {
    let mut story = Story::serving(pool(3));
    story.at(20.0).rolls(1, 2);
    story.weighed(9);
    story.exits(3, Exit::Code(1));
    assert_eq!(story.spawns(), [2]);
    story.comes_up(5);
    assert_eq!(story.generations().last(), Some(&(2, 2, true)));
}

/// Slot 0 has crashed twice and is starting: the other one is all there is.
#[test]
fn nobody_goes_first_where_a_slot_is_missing_already() {
    let mut story = Story::serving(recreate(2, 1));
    story.exits(1, Exit::Code(1));
    story.comes_up(3);
    story.exits(3, Exit::Code(1));
    story.at(1.0).spawned(4);
    story.rolls(1, 2);
    assert_eq!(story.sent(Signal::TERM), [104]);
}

#[test]
fn memory_is_weighed_anew_for_each_and_its_want_refuses() {
    let mut story = Story::serving(pool(2));
    story.rolls(1, 2);
    story.weighed(0);
    assert!(is_refused(&story, 1));
    assert!(story.outcomes().is_empty(), "nothing has begun");

    story.rolls(2, 2);
    story.weighed(1);
    story.comes_up(3);
    story.exits(1, BY_TERM);
    story.weighed(0);
    assert_eq!(story.spawns(), [0], "back");
    story.comes_up(4);
    story.exits(3, BY_TERM);
    assert!(is_rolled_back(&story, 2));
}

/// As many processes as when it was looked at, ten seconds later.
#[test]
fn memory_is_weighed_anew_where_the_pool_only_looks_as_it_did() {
    let max_surge = Count::Workers(3);
    let mut story = Story::serving(rules(2, RollRules { max_surge, ..RollRules::default() }));
    story.at(20.0).rolls(1, 2);
    story.tell(Event::Hung { worker: WorkerId(1), why: Hang::Checks });
    assert_eq!(story.spawns(), [0]);
    story.spawned(3);
    story.prestop(2);
    (0..3).for_each(|_| story.tell(Event::Weighed { room: 9 }));
    story.ready(3);
    story.exits(1, BY_TERM);
    story.at(40.0);
    assert_eq!((story.phase(), story.actions.contains(&Action::Weigh)), (Phase::Serving, true));
    story.tell(Event::Hung { worker: WorkerId(2), why: Hang::Checks });
    assert_eq!(story.spawns(), [1], "the hung one's replacement, and nobody for the roll");
}

#[test]
fn an_old_worker_is_recycled_its_replacement_first() {
    let mut story = Story::serving(Config { max_lifetime: Some(seconds(100)), ..pool(1) });
    story.at(89.9);
    story.at(100.0);
    story.weighed(1);
    assert_eq!(story.spawns(), [0]);
    assert!(story.sent(Signal::TERM).is_empty());
    story.comes_up(2);
    assert_eq!(story.sent(Signal::TERM), [101]);
    assert_eq!(story.core.snapshot(story.now).counters.recycled_lifetime, 1);
}

/// No other event would have told the roll that the slot is free.
#[test]
fn a_roll_goes_on_once_the_slot_has_been_recycled() {
    let mut config = recreate(1, 1);
    config.roll.min_ready_time = seconds(2);
    let mut story = Story::serving(config);
    story.at(10.0).tell(Event::Overweight { worker: WorkerId(1) });
    story.at(15.0);
    story.exits(1, BY_TERM);
    story.comes_up(2);
    story.rolls(1, 2);
    story.at(17.0);
    assert_eq!(story.sent(Signal::TERM), [102]);
}

/// The one that took its place belonged to the failed generation.
#[test]
fn a_hung_worker_is_replaced_by_the_old_generation_after_a_failure() {
    let mut story = Story::serving(pool(2));
    story.at(20.0).rolls(1, 2);
    story.weighed(9);
    story.spawned(3);
    story.tell(Event::Hung { worker: WorkerId(1), why: Hang::Checks });
    story.exits(3, Exit::Code(1));
    assert_eq!(story.spawns(), [0]);
    story.comes_up(4);
    assert!(is_rolled_back(&story, 1));
}

/// A slot that has finished serves no more, and nobody waits for it.
#[test]
fn a_finished_slot_does_not_keep_a_roll_waiting() {
    let mut story = Story::serving(Config { restart: Restart::OnFailure, ..pool(2) });
    story.exits(2, Exit::Code(0));
    story.rolls(1, 2);
    story.weighed(9);
    story.comes_up(3);
    story.exits(1, BY_TERM);
    assert!(is_done(&story, 1));
}

fn releases_spawned(story: &Story) -> Vec<Release> {
    let spawned = story.actions.iter().filter_map(|action| match action {
        Action::Spawn { edition, .. } => Some(edition.release),
        _ => None,
    });
    spawned.collect()
}

/// Who asked for it has been told that it was rolled back, and nobody has asked for it again.
#[test]
fn what_changes_while_a_release_fails_does_not_bring_it_back() {
    let mut story = Story::serving(pool(1));
    story.rolls(1, 2);
    story.weighed(9);
    story.watched_path_changes(7);
    story.spawn_fails(2, not_found());
    assert!(is_rolled_back(&story, 1));
    story.weighed(9);
    assert_eq!(releases_spawned(&story), [Release(1)]);
    story.comes_up(3);
    story.exits(1, BY_TERM);
    assert_eq!(story.outcomes(), [RollOutcome::RolledBack, RollOutcome::Rolled]);
    assert_eq!(story.core.releases(), [Release(1)]);
}

#[test]
fn what_changes_while_a_release_arrives_is_rolled_for_in_that_one() {
    let mut story = Story::serving(pool(1));
    story.rolls(1, 2);
    story.weighed(9);
    story.watched_path_changes(7);
    story.comes_up(2);
    story.exits(1, BY_TERM);
    assert!(is_done(&story, 1));
    story.weighed(9);
    assert_eq!(releases_spawned(&story), [Release(2)]);
}

/// It waited for release 3, which nobody will be.
#[test]
fn who_waits_for_another_release_is_not_answered_by_the_one_that_runs() {
    let mut story = Story::serving(pool(1));
    story.rolls(1, 2);
    story.rolls(2, 3);
    story.watched_path_changes(7);
    story.rolls(3, 2);
    assert!(is_refused(&story, 2), "superseded");
    story.tell(Event::Weighed { room: 9 });
    story.comes_up(2);
    story.exits(1, BY_TERM);
    assert!(is_done(&story, 1) && is_done(&story, 3));
    story.weighed(9);
    assert_eq!(releases_spawned(&story), [Release(2)], "what has changed is rolled for all the same");
}

/// The hook is forgotten in the moment in which the last worker ends.
#[test]
fn what_was_kept_does_not_begin_where_every_worker_has_finished() {
    let mut story = Story::serving(Config { restart: Restart::Never, ..pool(1) });
    story.prestop(1);
    story.watched_path_changes(7);
    story.at(15.0);
    story.sleeps_until(60).exits(1, Exit::Code(0));
    assert_eq!((story.phase(), story.outcomes()), (Phase::Draining, vec![]));
    assert!(!story.actions.iter().any(|action| matches!(action, Action::Tell(Notice::RollStarted { .. }))));
}

/// Slot 0 has crashed twice, and somebody comes to it soon: what is left is his.
#[test]
fn memory_for_one_is_for_whoever_is_sure_to_come() {
    let backoff = Backoff { min: seconds(20), max: seconds(20) };
    let mut story = Story::serving(Config { backoff, ..pool(3) });
    story.tell(Event::Overweight { worker: WorkerId(3) });
    story.now = story.core.poll_timeout().expect("it is to be recycled") - Duration::from_millis(1);
    story.exits(1, Exit::Code(1));
    story.comes_up(4);
    story.exits(4, Exit::Code(1));
    story.at(5.0);
    story.weighed(1);
    assert!(story.spawns().is_empty(), "not for the recycling");
    while story.spawns().is_empty() {
        story.now = story.core.poll_timeout().expect("somebody is to come");
        story.tell(Event::Tick);
    }
    assert_eq!(story.spawns(), [0]);
}

/// A recycling that keeps failing is not to take the roll's only chance.
#[test]
fn a_roll_takes_over_a_recycling_that_nobody_has_come_for() {
    let mut story = Story::serving(Config { max_lifetime: Some(seconds(100)), ..pool(1) });
    story.at(100.0);
    story.weighed(1);
    assert_eq!(story.spawns(), [0]);
    story.spawn_fails(2, refused());
    story.spawn_fails(3, refused());
    assert!(story.spawns().is_empty(), "it is tried again later");
    story.rolls(1, 2);
    story.weighed(1);
    assert_eq!(releases_spawned(&story), [Release(2)]);
    story.comes_up(4);
    story.exits(1, BY_TERM);
    assert!(is_done(&story, 1));
}

/// The kernel takes its time with the dead.
#[test]
fn a_straggler_that_is_ended_quietly_is_counted_once() {
    let mut story = Story::serving(Config { drain_timeout: Some(seconds(10)), ..pool(1) });
    story.rolls(1, 2);
    story.weighed(9);
    story.comes_up(2);
    assert_eq!(story.sent(Signal::TERM), [101]);
    story.tell(Event::Deaf { worker: WorkerId(1), sure: false });
    assert!(is_done(&story, 1));
    story.at(9.9).tell(Event::EndedQuietly { worker: WorkerId(1), why: QuietEnd::Straggler });
    story.at(10.0);
    assert_eq!(story.sent(Signal::KILL), [101], "to whatever of it is left");
    story.exits(1, Exit::Signal(Signal::KILL));
    let snapshot = story.core.snapshot(story.now);
    assert_eq!(snapshot.history[0].stragglers, 1);
    assert_eq!((snapshot.counters.ended_stragglers, snapshot.counters.forced_kills), (1, 0));
}

/// The word of it has been under way when its deadline passed.
#[test]
fn a_straggler_that_is_killed_is_not_ended_quietly_too() {
    let mut story = Story::serving(Config { drain_timeout: Some(seconds(10)), ..pool(1) });
    story.rolls(1, 2);
    story.weighed(9);
    story.comes_up(2);
    story.at(10.0);
    assert_eq!(story.sent(Signal::KILL), [101]);
    story.tell(Event::EndedQuietly { worker: WorkerId(1), why: QuietEnd::Straggler });
    story.exits(1, Exit::Signal(Signal::KILL));
    let snapshot = story.core.snapshot(story.now);
    assert_eq!(snapshot.history[0].stragglers, 1);
    assert_eq!((snapshot.counters.ended_stragglers, snapshot.counters.forced_kills), (0, 1));
}

/// The clock stood still: the recycling is over in the moment in which the roll may go on.
#[test]
fn a_batch_waits_for_whoever_a_recycling_tells_to_go() {
    let (max_surge, min_ready_time) = (Count::Workers(2), seconds(2));
    let roll = RollRules { max_surge, min_ready_time, waits_for_drain: true, ..RollRules::default() };
    let mut story = Story::serving(rules(2, roll));
    story.at(10.0).tell(Event::Overweight { worker: WorkerId(2) });
    story.at(15.0);
    story.weighed(9);
    assert_eq!(story.spawns(), [1]);
    story.comes_up(3);
    story.rolls(1, 2);
    story.sleeps_until(60).weighed(9);
    assert_eq!((story.sent(Signal::TERM), story.spawns()), (vec![102], vec![]));
    story.exits(2, BY_TERM);
    story.weighed(9);
    assert_eq!(story.spawns(), [0, 1]);
}
