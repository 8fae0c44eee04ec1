//! Single histories of the core, told as given, when and then.

#[path = "scenarios/late.rs"]
mod late;
#[path = "scenarios/lb_wait.rs"]
mod lb_wait;
#[path = "scenarios/rolls.rs"]
mod rolls;
#[path = "scenarios/stop_message.rs"]
mod stop_message;
#[path = "scenarios/story.rs"]
mod story;

use std::collections::BTreeMap;
use std::time::Duration;

use drainit::core::Supervisor;
use drainit::core::config::{Config, Count, MaxCrashes, ReadinessOnDrain, Restart};
use drainit::core::event::{Action, Event, Hang, Outcome, QuietEnd};
use drainit::core::signal::Signal;
use drainit::core::snapshot::Phase;
use drainit::core::time::Time;
use drainit::core::types::{Exit, WorkerId};
use drainit::core::word::{Lifecycle, Ping, Word};

use story::{BY_TERM, Story, cannot_execute, not_found, pool, refused, single};

#[test]
fn the_pool_serves_once_enough_workers_are_ready() {
    let mut story = Story::start(Config { min_ready: Count::Percent(60), ..pool(3) });
    assert_eq!(story.spawns(), [0, 1, 2]);
    story.comes_up(1);
    assert_eq!((story.phase(), story.is_ready()), (Phase::Starting, false));
    story.comes_up(2);
    assert_eq!((story.phase(), story.is_ready()), (Phase::Serving, true));
}

#[test]
fn sigterm_waits_for_the_load_balancers_then_stops_the_workers() {
    let mut story = Story::serving(pool(2));
    story.at(100.0).signal(Signal::TERM);
    assert_eq!((story.phase(), story.is_ready()), (Phase::LameDuck, false));
    assert!(story.sent(Signal::TERM).is_empty());

    story.at(109.9);
    assert_eq!(story.phase(), Phase::LameDuck);

    story.at(110.0);
    assert_eq!(story.phase(), Phase::Draining);
    assert_eq!(story.sent(Signal::TERM), [101, 102]);
    assert_eq!(story.drains_with(BY_TERM), Some(0));
}

#[test]
fn readiness_is_kept_in_lame_duck_where_that_is_asked_for() {
    let mut story = Story::serving(Config { readiness_on_drain: ReadinessOnDrain::Keep, ..pool(1) });
    story.signal(Signal::TERM);
    assert_eq!((story.phase(), story.is_ready()), (Phase::LameDuck, true));
    story.at(10.0);
    assert_eq!((story.phase(), story.is_ready()), (Phase::Draining, false));
}

#[test]
fn a_second_term_ends_the_wait_and_a_third_is_passed_on() {
    let mut story = Story::serving(pool(2));
    story.at(100.0).signal(Signal::TERM);
    story.at(101.0).signal(Signal::TERM);
    assert_eq!(story.sent(Signal::TERM), [101, 102]);
    story.at(102.0).signal(Signal::TERM);
    assert_eq!(story.sent(Signal::TERM), [101, 102]);
}

#[test]
fn int_skips_the_wait_and_is_the_stop_signal() {
    let mut story = Story::serving(pool(2));
    story.signal(Signal::INT);
    assert_eq!(story.phase(), Phase::Draining);
    assert_eq!(story.sent(Signal::INT), [101, 102]);
    assert!(story.sent(Signal::TERM).is_empty());
}

#[test]
fn prestop_then_term_counts_one_budget() {
    let mut story = Story::serving(pool(1));
    story.at(100.0).prestop(1);
    assert_eq!((story.phase(), story.is_ready()), (Phase::LameDuck, false));
    assert_eq!(story.replied(1), None);

    story.at(110.0);
    assert!(matches!(story.replied(1), Some(Outcome::Done(_))));
    assert!(story.sent(Signal::TERM).is_empty());

    story.at(112.0).signal(Signal::TERM);
    assert_eq!(story.sent(Signal::TERM), [101]);
    story.at(128.9);
    assert!(story.sent(Signal::KILL).is_empty());
    story.at(129.0);
    assert_eq!(story.sent(Signal::KILL), [101]);
}

#[test]
fn term_while_the_hook_waits_ends_the_wait() {
    let mut story = Story::serving(pool(1));
    story.prestop(1);
    story.at(2.0).signal(Signal::TERM);
    assert_eq!(story.sent(Signal::TERM), [101]);
    assert!(story.replied(1).is_some());
}

#[test]
fn prestop_without_term_returns_to_serving_and_forgets_the_deadline() {
    let mut story = Story::serving(pool(1));
    story.prestop(1);
    story.at(19.9);
    assert_eq!(story.phase(), Phase::LameDuck);
    story.at(20.0);
    assert_eq!((story.phase(), story.is_ready()), (Phase::Serving, true));

    story.at(28.0).signal(Signal::TERM);
    story.at(38.0);
    assert_eq!(story.sent(Signal::TERM), [101]);
    story.at(56.9);
    assert!(story.sent(Signal::KILL).is_empty());
    story.at(57.0);
    assert_eq!(story.sent(Signal::KILL), [101]);
}

/// It was not started when the hook came, and nothing else happens when the hook is forgotten.
#[test]
fn workers_that_came_up_in_lame_duck_serve_after_the_return() {
    let mut story = Story::start(pool(1));
    story.prestop(1);
    story.at(5.0).comes_up(1);
    story.at(20.0);
    assert_eq!((story.phase(), story.is_ready()), (Phase::Serving, true));
}

#[test]
fn a_term_long_after_a_forgotten_hook_gets_the_whole_budget() {
    let mut story = Story::serving(pool(1));
    story.prestop(1);
    story.at(10.0);
    story.sleeps_until(3_600).signal(Signal::TERM);
    assert_eq!(story.phase(), Phase::LameDuck);
    assert!(story.sent(Signal::KILL).is_empty());
}

#[test]
fn a_crash_is_healed_at_once_then_with_backoff() {
    let mut story = Story::serving(pool(2));
    story.at(1.0).exits(1, Exit::Code(1));
    assert_eq!(story.spawns(), [0]);

    story.comes_up(3);
    story.at(2.0).exits(3, Exit::Code(1));
    assert!(story.spawns().is_empty());
    story.at(2.1);
    assert_eq!(story.spawns(), [0]);

    story.comes_up(4);
    story.at(20.0).exits(4, Exit::Code(1));
    assert_eq!(story.spawns(), [0], "it was healthy");
}

#[test]
fn a_crash_loop_ends_with_75() {
    let mut story = Story::start(pool(1));
    for worker in 1..=6 {
        assert_eq!(story.phase(), Phase::Starting);
        story.spawned(worker);
        story.exits(worker, Exit::Code(1));
        if worker < 6 && story.spawns().is_empty() {
            let due = story.core.poll_timeout().unwrap().since_start();
            story.at(due.as_secs_f64());
        }
    }
    assert_eq!((story.phase(), story.spawns()), (Phase::Draining, vec![]));
    story.nothing_is_left();
    assert_eq!(story.exit_code(), Some(75));
}

#[test]
fn crashes_end_nothing_while_somebody_serves() {
    let mut story = Story::serving(Config {
        max_crashes: Some(MaxCrashes { count: 0, window: Duration::from_secs(60) }),
        ..pool(2)
    });
    story.exits(1, Exit::Code(1));
    assert_eq!((story.phase(), story.spawns()), (Phase::Serving, vec![0]));
}

#[test]
fn a_worker_that_dies_in_lame_duck_is_replaced_in_draining_it_is_not() {
    let mut story = Story::serving(pool(2));
    story.signal(Signal::TERM);
    story.at(1.0).exits(1, Exit::Code(1));
    assert_eq!(story.spawns(), [0]);
    story.comes_up(3);
    story.at(10.0);
    assert_eq!(story.sent(Signal::TERM), [102, 103]);
    story.exits(2, Exit::Code(1));
    assert!(story.spawns().is_empty());
}

#[test]
fn a_stuck_worker_is_killed_at_the_deadline_and_the_code_is_124() {
    let mut story = Story::serving(pool(2));
    story.signal(Signal::TERM);
    story.at(11.0).exits(2, BY_TERM);
    story.at(28.9);
    assert_eq!(story.phase(), Phase::Draining);
    story.at(29.0);
    assert_eq!((story.phase(), story.sent(Signal::KILL)), (Phase::Killing, vec![101]));
    assert_eq!(story.drains_with(Exit::Signal(Signal::KILL)), Some(124));
}

#[test]
fn whom_not_even_kill_ends_is_left_behind() {
    let mut story = Story::serving(pool(1));
    story.signal(Signal::TERM);
    story.at(29.0);
    assert_eq!((story.sent(Signal::KILL), story.exit_code()), (vec![101], None));
    story.at(29.1);
    assert_eq!(story.exit_code(), Some(124));
}

/// Nobody had to be killed: the last one went in the very last moment.
#[test]
fn a_worker_that_exits_at_the_hard_deadline_was_in_time() {
    let mut story = Story::serving(pool(1));
    story.signal(Signal::TERM);
    story.at(28.999);
    story.now = Time::at(Duration::from_secs(29));
    assert_eq!(story.drains_with(BY_TERM), Some(0));
}

#[test]
fn a_clock_that_jumps_over_the_hard_deadline_still_kills_first() {
    let mut story = Story::serving(pool(1));
    story.signal(Signal::TERM);
    story.at(12.0);
    story.sleeps_until(3_600).tell(Event::Tick);
    assert_eq!((story.sent(Signal::KILL), story.exit_code()), (vec![101], None));
    story.at(3_600.1);
    assert_eq!(story.exit_code(), Some(124));
}

#[test]
fn a_term_after_the_budget_of_the_hook_kills_and_does_not_just_exit() {
    let mut story = Story::serving(Config { grace: Duration::from_secs(5), ..pool(1) });
    story.prestop(1);
    story.at(10.0).signal(Signal::TERM);
    assert_eq!((story.sent(Signal::KILL), story.exit_code()), (vec![101], None));
    story.at(10.1);
    assert_eq!(story.exit_code(), Some(124));
}

#[test]
fn the_first_spawn_not_found_is_127() {
    for (failure, code) in [not_found(), cannot_execute(), refused()].into_iter().zip([127, 126, 71]) {
        let mut story = Story::start(pool(2));
        story.spawn_fails(1, failure);
        assert_eq!(story.exit_code(), Some(code));
    }
}

#[test]
fn nobody_else_is_started_when_the_first_start_failed() {
    let mut core = Supervisor::new(pool(3));
    core.handle(Time::ZERO, Event::Start);
    assert!(matches!(core.poll_action(), Some(Action::Spawn { worker: WorkerId(1), .. })));
    core.handle(Time::ZERO, Event::SpawnFailed { worker: WorkerId(1), failure: not_found() });
    let rest = || core.poll_action();
    assert!(std::iter::from_fn(rest).all(|action| !matches!(action, Action::Spawn { .. })));
}

#[test]
fn fork_refused_later_is_retried() {
    let mut story = Story::serving(pool(2));
    story.at(20.0).exits(1, Exit::Code(1));
    story.spawn_fails(3, refused());
    assert_eq!((story.phase(), story.spawns()), (Phase::Serving, vec![0]));
    story.spawn_fails(4, refused());
    assert!(story.spawns().is_empty());
    story.at(20.1);
    assert_eq!(story.spawns(), [0]);
}

#[test]
fn a_late_worker_is_failed_and_replaced() {
    let mut story = Story::serving(pool(2));
    story.at(20.0).exits(1, Exit::Code(0));
    story.spawned(3);
    story.at(49.9);
    assert!(story.sent(Signal::TERM).is_empty());
    story.at(50.0);
    assert_eq!(story.sent(Signal::TERM), [103]);
    story.exits(3, BY_TERM);
    assert_eq!(story.core.snapshot(story.now).counters.restarts_late, 1);
}

#[test]
fn an_oom_kill_is_a_crash_with_a_name_of_its_own() {
    let mut story = Story::serving(pool(2));
    story.at(20.0).exits(1, Exit::OutOfMemory);
    assert_eq!(story.spawns(), [0]);
    let counters = story.core.snapshot(story.now).counters;
    assert_eq!((counters.oom_kills, counters.restarts_oom, counters.restarts_crash), (1, 1, 0));
    // While it finishes it is nobody's to replace, and has been killed all the same.
    story.scale(1);
    story.exits(2, Exit::OutOfMemory);
    let counters = story.core.snapshot(story.now).counters;
    assert_eq!((counters.oom_kills, counters.restarts_oom), (2, 1));
}

#[test]
fn scaling_down_retires_the_highest_slots() {
    let mut story = Story::serving(pool(3));
    story.scale(1);
    assert_eq!(story.sent(Signal::TERM), [102, 103]);
    story.exits(2, BY_TERM);
    assert_eq!((story.phase(), story.spawns()), (Phase::Serving, vec![]));
    story.signal(Signal::TTOU);
    assert_eq!((story.sent(Signal::TERM), story.core.snapshot(story.now).desired), (vec![], 1));
    story.signal(Signal::TTIN);
    assert_eq!(story.spawns(), [1]);
}

/// Slot 1 was taken away and given back while its late worker took its time to die.
#[test]
fn a_retired_worker_does_not_touch_the_slot_that_was_its_own() {
    let mut story = Story::serving(Config { restart: Restart::OnFailure, ..pool(1) });
    story.scale(2);
    story.spawned(2);
    story.at(30.0);
    assert_eq!(story.sent(Signal::TERM), [102], "it is late");
    story.scale(1);
    story.scale(2);
    story.comes_up(3);
    story.exits(3, Exit::Code(0));
    story.exits(2, BY_TERM);
    assert!(story.spawns().is_empty(), "the slot has finished");
}

#[test]
fn one_worker_under_never_gives_its_code() {
    let mut story = Story::serving(single());
    story.at(5.0).exits(1, Exit::Code(3));
    story.nothing_is_left();
    assert_eq!(story.exit_code(), Some(3));

    let mut story = Story::serving(Config { remap_exit: BTreeMap::from([(143, 0)]), ..single() });
    story.signal(Signal::TERM);
    assert_eq!(story.drains_with(BY_TERM), Some(0));
}

#[test]
fn a_pool_under_never_gives_its_first_failure() {
    for workers in [1, 2] {
        let mut story = Story::serving(Config { restart: Restart::Never, ..pool(workers) });
        if workers == 1 {
            story.scale(2);
            story.comes_up(2);
        }
        story.exits(2, Exit::Code(5));
        story.exits(1, Exit::Code(0));
        story.nothing_is_left();
        assert_eq!(story.exit_code(), Some(5), "it began with {workers}");
    }
}

#[test]
fn every_signal_is_forwarded_once_and_with_its_value() {
    let mut story = Story::serving(pool(2));
    story.scale(3);
    story.tell(Event::Signal { signal: Signal::RTMIN, value: Some(7) });
    let values = story.actions.iter().map(|action| match action {
        Action::Kill { pid, signal: Signal::RTMIN, value, .. } => Some((pid.0, *value)),
        _ => None,
    });
    // The third one has not been forked yet.
    assert_eq!(values.collect::<Vec<_>>(), [Some((101, Some(7))), Some((102, Some(7)))]);
}

#[test]
fn what_outlives_the_workers_gets_term_and_then_kill() {
    let mut story = Story::serving(single());
    story.exits(1, Exit::Code(0));
    assert_eq!(story.swept(), Some(Signal::TERM));
    story.at(1.0);
    assert_eq!((story.swept(), story.phase()), (Some(Signal::KILL), Phase::Killing));
    story.at(2.0);
    assert_eq!(story.exit_code(), Some(0), "orphans change no code");
}

#[test]
fn a_term_in_the_sweep_sets_a_deadline() {
    let mut story = Story::serving(Config { orphan_grace: Duration::from_secs(60), ..single() });
    story.exits(1, Exit::Code(0));
    story.at(5.0).signal(Signal::TERM);
    story.at(14.0);
    assert_eq!(story.swept(), Some(Signal::KILL));
    story.at(14.1);
    assert_eq!(story.exit_code(), Some(0));
}

#[test]
fn a_hung_worker_goes_once_its_replacement_is_ready() {
    let mut story = Story::serving(pool(2));
    story.at(20.0).tell(Event::Hung { worker: WorkerId(1), why: Hang::Checks });
    assert_eq!(story.spawns(), [0]);
    assert!(story.sent(Signal::TERM).is_empty());
    assert!(story.is_ready());
    story.at(21.0).spawned(3);
    story.ready(3);
    assert_eq!(story.sent(Signal::TERM), [101]);
    story.exits(1, BY_TERM);
    assert!(story.spawns().is_empty());
}

#[test]
fn a_hung_worker_that_dies_is_replaced_once() {
    let mut story = Story::serving(pool(1));
    story.at(20.0).tell(Event::Hung { worker: WorkerId(1), why: Hang::Checks });
    assert_eq!(story.spawns(), [0]);
    story.spawned(2);
    story.exits(1, Exit::Code(1));
    assert!(story.spawns().is_empty());
    story.ready(2);
    assert!(story.is_ready());
}

/// Its relief was to take its place, whatever `--restart` says of whoever ends well.
#[test]
fn a_hung_worker_is_replaced_though_its_relief_ends_by_itself() {
    let mut story = Story::serving(Config { restart: Restart::OnFailure, ..pool(2) });
    story.at(20.0).tell(Event::Hung { worker: WorkerId(2), why: Hang::Checks });
    assert_eq!(story.spawns(), [1]);
    story.spawned(3);
    story.exits(3, Exit::Code(0));
    assert_eq!(story.spawns(), [1], "or it would hang for ever");
    story.comes_up(4);
    assert_eq!(story.sent(Signal::TERM), [102]);
}

/// The kernel takes its time with the dead, which is no fault of the worker's.
#[test]
fn who_is_ended_quietly_in_the_drain_was_in_time() {
    let mut story = Story::serving(Config { drain_timeout: Some(seconds(5)), ..pool(1) });
    story.signal(Signal::INT);
    story.at(4.9).tell(Event::EndedQuietly { worker: WorkerId(1), why: QuietEnd::Straggler });
    story.at(5.0);
    assert_eq!((story.phase(), story.sent(Signal::KILL)), (Phase::Draining, vec![101]));
    assert_eq!(story.drains_with(Exit::Signal(Signal::KILL)), Some(0));
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_worker_that_falls_silent_is_replaced_and_one_that_pings_is_not() {
    let mut story = Story::serving(Config { watchdog: Some(seconds(10)), ..pool(2) });
    story.at(9.0).says(2, Word { ping: Some(Ping::Alive), ..Word::default() });
    story.at(10.0);
    assert_eq!(story.spawns(), [0], "the silent one's");
    assert!(story.sent(Signal::TERM).is_empty());
    story.comes_up(3);
    assert_eq!(story.sent(Signal::TERM), [101]);
}

#[test]
fn nobody_is_blamed_for_what_a_supervisor_that_slept_did_not_hear() {
    let mut story = Story::serving(Config { watchdog: Some(seconds(10)), ..pool(2) });
    story.sleeps_until(60).tell(Event::Tick);
    assert!(story.spawns().is_empty());
    story.at(70.0);
    assert_eq!(story.spawns(), [0, 1]);
}

#[test]
fn a_worker_that_stops_by_itself_is_replaced_when_it_is_gone() {
    let mut story = Story::serving(pool(1));
    story.at(20.0).says(1, Word { lifecycle: Some(Lifecycle::Stopping), ..Word::default() });
    assert!(!story.is_ready() && story.spawns().is_empty() && story.sent(Signal::TERM).is_empty());
    story.says(1, Word { lifecycle: Some(Lifecycle::Ready), ..Word::default() });
    assert!(!story.is_ready(), "there is no way back");
    story.exits(1, Exit::Code(0));
    assert_eq!(story.spawns(), [0]);
}

#[test]
fn more_time_to_start_has_to_be_asked_for_again_and_again() {
    let mut story = Story::start(pool(1));
    story.spawned(1);
    let more = Word { extend: Some(seconds(20)), ..Word::default() };
    story.at(5.0).says(1, more.clone());
    story.at(29.0).says(1, more);
    story.at(48.9);
    assert!(story.sent(Signal::TERM).is_empty());
    story.at(49.0);
    assert_eq!(story.sent(Signal::TERM), [101]);
}

#[test]
fn more_time_to_finish_ends_at_the_hard_deadline() {
    let mut story = Story::serving(Config { drain_timeout: Some(seconds(5)), ..pool(2) });
    story.at(100.0).signal(Signal::INT);
    story.at(104.0).says(1, Word { extend: Some(seconds(3_600)), ..Word::default() });
    story.at(105.0);
    assert_eq!(story.sent(Signal::KILL), [102]);
    story.at(128.9);
    assert!(story.sent(Signal::KILL).is_empty());
    story.at(129.0);
    assert_eq!(story.sent(Signal::KILL), [101]);
}
