//! Connections that no worker accepts any more: when they are answered, and how long the exit waits for that.

use std::time::Duration;

use drainit::core::config::{Config, LateRules, LbWait, Restart};
use drainit::core::event::{Action, Event};
use drainit::core::signal::Signal;
use drainit::core::time::Time;
use drainit::core::types::{Exit, WorkerId};

use crate::story::{BY_TERM, Story, pool};

/// No wait for load balancers: the hard deadline is 29 s after SIGTERM.
fn answering(workers: u32, linger: u64) -> Config {
    let none = LbWait { min: Duration::ZERO, max: Duration::ZERO };
    let late = Some(LateRules { linger: Duration::from_secs(linger) });
    Config { late, lb_wait: none, ..pool(workers) }
}

fn linger_until(story: &Story) -> Option<Time> {
    story.actions.iter().find_map(|action| match action {
        Action::AnswerLate { linger_until } => Some(*linger_until),
        _ => None,
    })
}

fn watched(story: &Story) -> Vec<u64> {
    let watched = story.actions.iter().filter_map(|action| match action {
        Action::Listen { worker, sure: true } => Some(worker.0),
        _ => None,
    });
    watched.collect()
}

fn seconds(seconds: u64) -> Time {
    Time::at(Duration::from_secs(seconds))
}

fn deaf(story: &mut Story, worker: u64, sure: bool) {
    story.tell(Event::Deaf { worker: WorkerId(worker), sure });
}

#[test]
fn it_begins_when_the_last_worker_is_gone_and_the_exit_waits_for_it() {
    let mut story = Story::serving(answering(2, 0));
    story.at(100.0).signal(Signal::TERM);
    story.exits(1, BY_TERM);
    assert_eq!(linger_until(&story), None);
    story.exits(2, BY_TERM);
    assert_eq!(linger_until(&story), None, "whom they have left behind may accept");
    story.nothing_is_left();
    assert_eq!(linger_until(&story), Some(seconds(100)));
    assert_eq!(story.exit_code(), None);
    story.at(105.0);
    assert_eq!(story.exit_code(), None);
    story.tell(Event::LateAnswered);
    assert_eq!(story.exit_code(), Some(0));
}

#[test]
fn it_begins_while_workers_finish_once_each_is_known_to_accept_no_more() {
    let mut story = Story::serving(answering(2, 0));
    story.at(100.0).signal(Signal::TERM);
    assert_eq!(watched(&story), [1, 2]);
    deaf(&mut story, 1, true);
    deaf(&mut story, 2, false);
    assert_eq!(linger_until(&story), None, "one may come back to it");
    deaf(&mut story, 2, true);
    assert_eq!(linger_until(&story), Some(seconds(100)));
    story.tell(Event::LateAnswered);
    story.exits(1, Exit::Code(0));
    story.exits(2, Exit::Code(0));
    assert_eq!(linger_until(&story), None, "once");
    story.nothing_is_left();
    assert_eq!(story.exit_code(), Some(0));
}

#[test]
fn who_has_never_been_ready_may_yet_accept() {
    let mut story = Story::start(answering(2, 0));
    story.comes_up(1);
    story.spawned(2);
    story.at(1.0).signal(Signal::TERM);
    assert_eq!(watched(&story), [1]);
    deaf(&mut story, 1, true);
    assert_eq!(linger_until(&story), None);
    story.exits(2, BY_TERM);
    assert!(linger_until(&story).is_some());
}

#[test]
fn no_more_than_a_few_are_looked_at_together() {
    let mut story = Story::serving(answering(20, 0));
    story.signal(Signal::TERM);
    assert_eq!(watched(&story).len(), 8);
    deaf(&mut story, 1, true);
    assert_eq!(watched(&story), [9]);
    story.exits(2, BY_TERM);
    assert_eq!(watched(&story), [10]);
}

#[test]
fn what_outlives_the_workers_is_ended_first() {
    let mut story = Story::serving(answering(1, 0));
    story.at(100.0).signal(Signal::TERM);
    story.exits(1, BY_TERM);
    story.tell(Event::Descendants { left: true });
    assert_eq!(linger_until(&story), None);
    story.at(101.0);
    assert_eq!(story.swept(), Some(Signal::KILL));
    assert!(linger_until(&story).is_some());
    story.tell(Event::LateAnswered);
    assert_eq!(story.exit_code(), None, "somebody is left");
    story.nothing_is_left();
    assert_eq!(story.exit_code(), Some(0));
}

#[test]
fn the_hard_deadline_ends_it_and_changes_no_code() {
    let mut story = Story::serving(answering(1, 3600));
    story.at(100.0).signal(Signal::TERM);
    story.exits(1, BY_TERM);
    story.nothing_is_left();
    let until = linger_until(&story).expect("it begins");
    assert_eq!(until, Time::at(Duration::from_millis(128_500)), "the last moments are for who has come");
    story.at(128.9);
    assert_eq!(story.exit_code(), None);
    story.at(129.0);
    assert_eq!(story.exit_code(), Some(0));
}

#[test]
fn after_the_hard_deadline_there_is_a_moment_for_it() {
    let mut story = Story::serving(answering(1, 0));
    story.at(100.0).signal(Signal::TERM);
    story.at(129.0);
    assert_eq!(story.swept(), Some(Signal::KILL));
    story.exits(1, Exit::Signal(Signal::KILL));
    assert!(linger_until(&story).is_some());
    story.nothing_is_left();
    assert_eq!(story.exit_code(), None);
    story.at(129.1);
    assert_eq!(story.exit_code(), Some(124));
}

#[test]
fn a_pool_that_finishes_by_itself_answers_too_and_a_signal_bounds_it() {
    let mut story = Story::serving(Config { restart: Restart::Never, ..answering(1, 0) });
    story.at(100.0).exits(1, Exit::Code(3));
    story.nothing_is_left();
    assert!(linger_until(&story).is_some());
    story.at(110.0).signal(Signal::TERM);
    assert_eq!(story.exit_code(), None);
    story.at(129.0);
    assert_eq!(story.exit_code(), Some(3));
}

#[test]
fn nobody_is_answered_where_that_is_not_wanted() {
    let mut story = Story::serving(Config { late: None, ..answering(1, 0) });
    story.at(100.0).signal(Signal::TERM);
    assert!(watched(&story).is_empty());
    story.exits(1, BY_TERM);
    story.nothing_is_left();
    assert_eq!((linger_until(&story), story.exit_code()), (None, Some(0)));
}
