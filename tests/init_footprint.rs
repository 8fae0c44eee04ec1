//! What the init costs while nothing happens, and what it says: nothing.

mod common;

use std::time::Duration;

use common::{Launch, Process, Running, Subject, holds_for, nested, pid1, until};

fn idle(launch: Launch) -> (Running, Process) {
    let running = launch.worker(["say=ready", "pause"]).start();
    running.expect("ready");
    let init = running.init();
    until("it sleeps", || (init.state() == 'S').then_some(()));
    (running, init)
}

fn context_switches(process: Process) -> [String; 2] {
    ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].map(|field| process.status(field))
}

fn assert_single_threaded_and_asleep(launch: Launch) {
    let (_running, init) = idle(launch);
    assert_eq!(init.status("Threads"), "1");
    // It may have something left to do after the start; then it must come to rest and stay so.
    let quiet = Duration::from_secs(3);
    until("no wake-up for 3 s", || {
        let before = context_switches(init);
        let disturbed = common::within(quiet, || (context_switches(init) != before).then_some(()));
        disturbed.is_none().then_some(())
    });
}

#[test]
fn it_has_one_thread_and_is_not_woken_when_idle() {
    assert_single_threaded_and_asleep(pid1());
}

#[test]
fn it_has_one_thread_and_is_not_woken_when_idle_with_all_defaults() {
    assert_single_threaded_and_asleep(pid1().bare());
}

#[test]
fn it_says_nothing_when_all_is_well() {
    for launch in [pid1(), nested()] {
        let outcome = launch.worker(["say=out", "exit=0"]).run();
        outcome.assert_code(0);
        assert_eq!(outcome.stdout, ["out"]);
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn it_is_a_static_binary() {
    let image = std::fs::read(Subject::from_env().path()).unwrap();
    assert_eq!(&image[..5], b"\x7fELF\x02", "a 64-bit ELF file");
    let word = |at: usize, size: usize| {
        image[at..at + size].iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (headers, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    const PT_INTERP: usize = 3;
    for index in 0..count {
        assert_ne!(word(headers + index * size, 4), PT_INTERP, "it asks for a dynamic loader");
    }
}

#[test]
fn a_pause_between_signals_is_a_rest_again() {
    let (_running, init) = idle(pid1());
    init.signal(libc::SIGURG);
    until("URG is taken", || (init.signals("ShdPnd") == 0 && init.state() == 'S').then_some(()));
    until("it rests", || {
        let before = context_switches(init);
        common::within(Duration::from_secs(1), || (context_switches(init) != before).then_some(()))
            .is_none()
            .then_some(())
    });
    let before = context_switches(init);
    holds_for(Duration::from_secs(1), "rest", || context_switches(init) == before);
}
