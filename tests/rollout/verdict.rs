//! What is asked of a pod's end, and how times are told.

use std::time::Duration;

use super::kubelet::{Probe, Record};
use crate::common::Exit;

/// A probe that was on its way when the container ended is not answered.
const RACE: Duration = Duration::from_millis(250);

/// `ROLLOUTS` in the environment, or as many as usual.
pub fn rollouts(usually: u32) -> u32 {
    std::env::var("ROLLOUTS").ok().and_then(|number| number.parse().ok()).unwrap_or(usually)
}

/// As a pod should end: unready at once, nothing killed, its code 0, and its reason said.
#[track_caller]
pub fn drained(record: &Record, hook: bool) {
    assert_eq!(record.exit, Exit::Code(0), "{record:#?}");
    assert!(!record.killed, "{record:#?}");
    // A hook is a process that has to start first.
    let unready = &record.probes[usize::from(hook)..];
    assert!(unready.first().is_some_and(|first| first.2 == 503), "{record:#?}");
    // The last one may meet the end, as it does in a cluster.
    let ended = record.exited().map_or(record.ended, |exited| exited.min(record.ended));
    let raced = |(at, _, status): &(Duration, Probe, u16)| *status == 0 && ended < *at + RACE;
    let unanswered = unready.iter().filter(|probe| probe.2 != 503 && !raced(probe));
    // To the kubelet that is the same; and a machine may stand still for the second that it waits.
    assert!(unanswered.clone().all(|probe| probe.2 == 0) && unanswered.count() <= 1, "{record:#?}");
    let exit = record.logged("exit").unwrap_or_else(|| panic!("no last word: {record:#?}"));
    assert_eq!(exit["code"], 0, "{record:#?}");
    assert!(exit["reason"].as_str().is_some_and(|why| why.starts_with("drained in ")), "{record:#?}");
    if let Some((took, code)) = record.hook {
        assert_eq!(code, 0, "{record:#?}");
        assert!(record.terminated >= took, "{record:#?}");
    }
    assert_eq!(record.hook.is_some(), hook, "{record:#?}");
}

/// The shortest, the longest, and the one in the middle.
pub fn spread(times: impl Iterator<Item = Duration>) -> String {
    let mut list: Vec<_> = times.collect();
    list.sort_unstable();
    match (list.first(), list.get(list.len() / 2), list.last()) {
        (Some(first), Some(middle), Some(last)) => {
            let [first, middle, last] = [first, middle, last].map(Duration::as_secs_f64);
            format!("{first:.2}..{last:.2} s, median {middle:.2} s")
        }
        _ => "never".to_owned(),
    }
}
