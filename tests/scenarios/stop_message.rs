//! A message before the stop signal.

use std::time::Duration;

use drainit::core::config::{Config, StopMessage};
use drainit::core::event::{Action, Event, Hang};
use drainit::core::signal::Signal;
use drainit::core::snapshot::Phase;
use drainit::core::types::WorkerId;

use super::story::{BY_TERM, Story, pool};

fn messaging(workers: u32, wait: Option<u64>) -> Config {
    Config { stop_message: Some(StopMessage { wait: wait.map(Duration::from_secs) }), ..pool(workers) }
}

fn messages(story: &Story) -> Vec<i32> {
    let pids = story.actions.iter().filter_map(|action| match action {
        Action::Message { pid } => Some(pid.0),
        _ => None,
    });
    pids.collect()
}

/// Of 30 s a margin of one and 10 s of LB wait are gone: the workers have from 110 to 129.
fn draining(config: Config) -> Story {
    let mut story = Story::serving(config);
    story.at(100.0).signal(Signal::TERM);
    story.at(110.0);
    assert_eq!(story.phase(), Phase::Draining);
    story
}

#[test]
fn the_message_comes_first_and_whoever_ends_by_it_gets_no_signal() {
    let mut story = draining(messaging(2, None));
    assert_eq!(messages(&story), [101, 102]);
    assert!(story.sent(Signal::TERM).is_empty());
    assert_eq!(story.drains_with(drainit::core::types::Exit::Code(0)), Some(0));
}

#[test]
fn the_signal_follows_after_its_wait() {
    let mut story = draining(messaging(1, Some(5)));
    story.at(114.9);
    assert!(story.sent(Signal::TERM).is_empty());
    story.at(115.0);
    assert_eq!(story.sent(Signal::TERM), [101]);
    assert_eq!(story.core.snapshot(story.now).counters.stop_message_timeouts, 1);
}

#[test]
fn by_default_the_signal_comes_a_second_before_kill() {
    let mut story = draining(messaging(1, None));
    story.at(128.0);
    assert_eq!(story.sent(Signal::TERM), [101]);
    story.at(129.0);
    assert_eq!(story.sent(Signal::KILL), [101]);
    assert_eq!(story.drains_with(BY_TERM), Some(124));
}

#[test]
fn a_message_that_does_not_arrive_costs_no_time() {
    let mut story = draining(messaging(2, None));
    story.tell(Event::Undelivered { worker: WorkerId(2) });
    assert_eq!(story.sent(Signal::TERM), [102]);
    story.tell(Event::Undelivered { worker: WorkerId(2) });
    assert!(story.sent(Signal::TERM).is_empty(), "once");
}

#[test]
fn a_signal_while_they_drain_ends_the_wait_of_those_who_wait() {
    let mut story = draining(Config { stop_signal: Signal::HUP, ..messaging(2, None) });
    story.tell(Event::Undelivered { worker: WorkerId(2) });
    story.signal(Signal::TERM);
    assert_eq!(story.sent(Signal::HUP), [101]);
    assert_eq!(story.sent(Signal::TERM), [102]);
}

#[test]
fn a_drain_leaves_time_for_the_signal_of_those_who_were_told_before() {
    let long = Duration::from_secs(3600);
    let mut story = Story::serving(Config { drain_timeout: Some(long), ..messaging(2, None) });
    story.at(100.0).scale(1);
    assert_eq!(messages(&story), [102]);
    story.signal(Signal::TERM);
    story.at(110.0);
    assert_eq!(messages(&story), [101]);
    story.at(128.0);
    assert_eq!(story.sent(Signal::TERM), [101, 102]);
}

#[test]
fn whoever_is_late_or_hung_gets_the_signal_at_once() {
    let mut story = Story::start(messaging(1, None));
    story.spawned(1);
    story.at(30.0);
    assert_eq!(story.sent(Signal::TERM), [101]);
    assert!(messages(&story).is_empty());

    let mut story = Story::serving(messaging(1, None));
    story.at(20.0).tell(Event::Hung { worker: WorkerId(1), why: Hang::Checks });
    story.comes_up(2);
    assert_eq!(story.sent(Signal::TERM), [101]);
    assert!(messages(&story).is_empty());
}

#[test]
fn a_worker_that_is_told_before_it_has_a_pid_gets_the_message_with_it() {
    let mut story = Story::start(messaging(2, None));
    story.comes_up(1);
    story.scale(1);
    assert!(messages(&story).is_empty());
    story.spawned(2);
    assert_eq!(messages(&story), [102]);
    assert!(story.sent(Signal::TERM).is_empty());
}
