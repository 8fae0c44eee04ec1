//! What holds for every datagram, whoever made it.

use std::time::Duration;

use proptest::prelude::*;

use super::message::{Message, STATUS_MAX, parse};
use crate::core::types::Pid;
use crate::core::word::{Lifecycle, Ping, Word};

const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// As a sender writes it.
fn lines(word: &Word) -> Vec<String> {
    let lifecycle = word.lifecycle.map(|lifecycle| match lifecycle {
        Lifecycle::Ready => "READY=1".to_owned(),
        Lifecycle::Reloading => "RELOADING=1".to_owned(),
        Lifecycle::Stopping => "STOPPING=1".to_owned(),
    });
    let ping = word.ping.map(|ping| match ping {
        Ping::Alive => "WATCHDOG=1".to_owned(),
        Ping::Trigger => "WATCHDOG=trigger".to_owned(),
    });
    [
        lifecycle,
        word.status.as_ref().map(|text| format!("STATUS={text}")),
        word.main_pid.map(|pid| format!("MAINPID={pid}")),
        word.extend.map(|extra| format!("EXTEND_TIMEOUT_USEC={}", extra.as_micros())),
        ping,
        word.watchdog.map(|every| format!("WATCHDOG_USEC={}", every.as_micros())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn words() -> impl Strategy<Value = Word> {
    let lifecycle = prop_oneof![
        Just(None),
        Just(Some(Lifecycle::Ready)),
        Just(Some(Lifecycle::Reloading)),
        Just(Some(Lifecycle::Stopping))
    ];
    let ping = prop_oneof![Just(None), Just(Some(Ping::Alive)), Just(Some(Ping::Trigger))];
    let status = proptest::option::of("[a-zA-Z0-9=äöü√ .%-]{0,256}");
    let time =
        |least: u64| proptest::option::of((least..=YEAR.as_micros() as u64).prop_map(Duration::from_micros));
    let main_pid = proptest::option::of((1..=i32::MAX).prop_map(Pid));
    (lifecycle, status, main_pid, time(1), ping, time(1_000)).prop_map(
        |(lifecycle, status, main_pid, extend, ping, watchdog)| Word {
            lifecycle,
            status,
            main_pid,
            extend,
            ping,
            watchdog,
        },
    )
}

/// Assignments that mean nothing here, or that are none.
fn unknown() -> impl Strategy<Value = String> {
    prop_oneof![
        "X_[A-Z]{1,9}=[^\\x00\\n\\r]{0,40}",
        "(ERRNO|BUSERROR|EXIT_STATUS|NOTIFYACCESS|MONOTONIC_USEC|FDNAME|FDPOLL|VARLINKERROR)=[a-z0-9.]{0,20}",
        "(READY|STOPPING|RELOADING|BARRIER|FDSTORE)=[02-9a-z]{0,5}",
        "[a-z =]{0,20}",
        Just(String::new()),
    ]
}

/// Bytes that look as if they meant something.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "(READY|STOPPING|RELOADING|STATUS|MAINPID|WATCHDOG|WATCHDOG_USEC|EXTEND_TIMEOUT_USEC|BARRIER|FDSTORE)"
            .prop_map(String::into_bytes),
        Just(b"=".to_vec()),
        Just(b"1".to_vec()),
        Just(b"trigger".to_vec()),
        Just(b"\n".to_vec()),
        "[0-9]{0,30}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// What nobody who reads a Message has to look at again.
fn is_sound(message: &Message) -> bool {
    let word = &message.word;
    let decent = |text: &String| text.chars().count() <= STATUS_MAX && !text.chars().any(char::is_control);
    word.status.as_ref().is_none_or(decent)
        && word.main_pid.is_none_or(|pid| pid.0 > 0)
        && word.extend.is_none_or(|extra| !extra.is_zero() && extra <= YEAR)
        && word.watchdog.is_none_or(|every| every >= Duration::from_millis(1) && every <= YEAR)
        && (!message.barrier || *word == Word::default())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_any_harm(datagram in proptest::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(is_sound(&parse(&datagram)));
    }

    #[test]
    fn nor_do_those_that_look_like_words(datagram in nearly()) {
        prop_assert!(is_sound(&parse(&datagram)));
    }

    #[test]
    fn what_is_said_is_understood(word in words(), end in "\n?\0?") {
        let text = lines(&word).join("\n") + &end;
        prop_assert_eq!(parse(text.as_bytes()).word, word);
    }

    #[test]
    fn the_order_makes_no_difference(word in words(), seed in any::<prop::sample::Index>()) {
        let mut lines = lines(&word);
        if !lines.is_empty() {
            let by = seed.index(lines.len());
            lines.rotate_left(by);
        }
        prop_assert_eq!(parse(lines.join("\n").as_bytes()).word, word);
    }

    #[test]
    fn what_is_unknown_changes_nothing(
        word in words(),
        noise in proptest::collection::vec((any::<prop::sample::Index>(), unknown()), 0..8),
    ) {
        let mut lines = lines(&word);
        for (place, line) in noise {
            lines.insert(place.index(lines.len() + 1), line);
        }
        prop_assert_eq!(parse(lines.join("\n").as_bytes()).word, word);
    }

    #[test]
    fn of_what_is_said_twice_the_first_counts(word in words(), again in words()) {
        let repeated = [lines(&word), lines(&again)].concat().join("\n");
        let said = parse(repeated.as_bytes()).word;
        prop_assert_eq!(said.status, word.status.or(again.status));
        prop_assert_eq!(said.ping, word.ping.or(again.ping));
        prop_assert_eq!(said.extend, word.extend.or(again.extend));
    }

    #[test]
    fn a_nul_within_silences_all_of_it(before in words(), after in "[A-Z]{1,9}=1") {
        let text = lines(&before).join("\n") + "\0" + &after;
        prop_assert_eq!(parse(text.as_bytes()), Message::default());
    }
}
