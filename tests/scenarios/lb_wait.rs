//! The LB wait, by what is seen of load balancers.

use std::time::Duration;

use drainit::core::config::{Config, LbWait, ReadinessOnDrain};
use drainit::core::event::{Action, Event, Notice, Outcome};
use drainit::core::lb_wait::Sighting;
use drainit::core::signal::Signal;
use drainit::core::snapshot::Phase;

use crate::story::{Story, pool};

fn waiting() -> Story {
    let mut story = Story::serving(pool(1));
    story.at(100.0).signal(Signal::TERM);
    assert!(story.actions.contains(&Action::Observe));
    story
}

fn seen(connections: impl Into<Option<u32>>) -> Sighting {
    Sighting { connections: connections.into(), checkers: 0, refused: 0 }
}

/// A look at that moment.
#[track_caller]
fn look(story: &mut Story, at: f64, sighting: Sighting) {
    story.at(at).tell(Event::Observed(sighting));
    let goes_on = story.phase() == Phase::LameDuck;
    assert_eq!(
        story.actions.contains(&Action::Observe),
        goes_on,
        "asked for the next look, or for none: {at}"
    );
}

fn reason(story: &Story) -> Option<&'static str> {
    story.core.snapshot(story.now).drain.and_then(|drain| drain.lb_wait).and_then(|wait| wait.reason)
}

#[test]
fn nobody_connects_and_the_wait_ends_at_its_minimum() {
    let mut story = waiting();
    for at in [100.1, 102.0, 102.9] {
        look(&mut story, at, seen(0));
        assert_eq!(story.phase(), Phase::LameDuck, "{at}");
    }
    look(&mut story, 103.0, seen(0));
    assert_eq!((story.phase(), reason(&story)), (Phase::Draining, Some("quiet")));
    assert_eq!(story.sent(Signal::TERM), [101]);
    assert_eq!(story.core.snapshot(story.now).counters.lb_waits_quiet, 1);
}

#[test]
fn each_connection_puts_the_end_off() {
    let mut story = waiting();
    look(&mut story, 102.5, seen(1));
    look(&mut story, 104.0, seen(3));
    look(&mut story, 105.9, seen(0));
    assert_eq!(story.phase(), Phase::LameDuck);
    let view = story.core.snapshot(story.now).drain.unwrap().lb_wait.unwrap();
    assert_eq!(view.connections, Some(4));
    look(&mut story, 106.0, seen(0));
    assert_eq!(story.phase(), Phase::Draining);
}

#[test]
fn time_alone_is_no_evidence() {
    let mut story = waiting();
    look(&mut story, 100.1, seen(0));
    // Nobody has looked meanwhile: that nobody came is not known.
    story.at(109.9);
    assert_eq!(story.phase(), Phase::LameDuck);
    look(&mut story, 109.95, seen(1));
    story.at(110.0);
    assert_eq!((story.phase(), reason(&story)), (Phase::Draining, Some("max")));
}

#[test]
fn what_nobody_can_see_lasts_until_the_maximum() {
    let mut story = waiting();
    for tenths in 1..100 {
        look(&mut story, 100.0 + f64::from(tenths) / 10.0, seen(None));
    }
    story.at(110.0);
    assert_eq!((story.phase(), reason(&story)), (Phase::Draining, Some("max")));
}

#[test]
fn whoever_checks_has_to_have_been_told() {
    let mut story = waiting();
    let told = |refused| Sighting { connections: Some(0), checkers: 2, refused };
    look(&mut story, 104.0, told(0));
    look(&mut story, 105.0, told(1));
    assert_eq!(story.phase(), Phase::LameDuck);
    look(&mut story, 106.0, told(2));
    assert_eq!(story.phase(), Phase::Draining);
}

#[test]
fn nobody_is_told_where_readiness_is_kept() {
    let config = Config { readiness_on_drain: ReadinessOnDrain::Keep, ..pool(1) };
    let mut story = Story::serving(config);
    story.signal(Signal::TERM);
    look(&mut story, 3.0, Sighting { connections: Some(0), checkers: 1, refused: 0 });
    assert_eq!(story.phase(), Phase::Draining);
}

#[test]
fn a_wait_of_one_length_needs_no_look() {
    let fixed = LbWait { min: Duration::from_secs(5), max: Duration::from_secs(5) };
    let mut story = Story::serving(Config { lb_wait: fixed, ..pool(1) });
    story.signal(Signal::TERM);
    assert!(!story.actions.contains(&Action::Observe));
    story.at(5.0);
    assert_eq!((story.phase(), reason(&story)), (Phase::Draining, Some("max")));
}

#[test]
fn a_look_that_comes_late_ends_nothing() {
    let mut story = waiting();
    story.at(101.0).signal(Signal::TERM);
    assert_eq!(reason(&story), Some("signal"));
    story.at(104.0).tell(Event::Observed(seen(0)));
    assert!(story.actions.is_empty(), "{:?}", story.actions);
    assert_eq!(reason(&story), Some("signal"));
}

#[test]
fn a_hook_returns_when_the_load_balancers_have_let_go() {
    let mut story = Story::serving(pool(1));
    story.prestop(1);
    story.at(3.0).tell(Event::Observed(seen(0)));
    assert!(matches!(story.replied(1), Some(Outcome::Done(_))));
    assert_eq!((story.phase(), reason(&story)), (Phase::LameDuck, Some("quiet")));
    // It asks no more, and is back to serving ten seconds later.
    assert!(!story.actions.contains(&Action::Observe));
    story.at(13.0);
    assert_eq!((story.phase(), reason(&story)), (Phase::Serving, None));
    story.at(20.0).signal(Signal::TERM);
    assert!(story.actions.contains(&Action::Observe), "and all over again");
}

#[test]
fn the_end_is_told_with_what_was_seen() {
    let mut story = waiting();
    look(&mut story, 101.0, Sighting { connections: Some(7), checkers: 1, refused: 2 });
    look(&mut story, 103.5, Sighting { connections: Some(0), checkers: 1, refused: 4 });
    let told = story.actions.iter().find_map(|action| match action {
        Action::Tell(Notice::LbWaitOver(wait)) => Some(wait.clone()),
        _ => None,
    });
    let told = told.expect("it is told");
    assert_eq!((told.reason, told.elapsed_seconds, told.quiet_seconds), (Some("quiet"), 3.5, Some(2.5)));
    assert_eq!((told.connections, told.checkers, told.refused), (Some(7), 1, 4));
}
